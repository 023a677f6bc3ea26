"""The replay: a plan without contention as a max-plus recurrence, vectorised over ranks.

The replay gives the times of the engine (a property test requires it) about a thousand times
faster (simulation 3, L1). Uncertainty draws are a second axis: every array is [ranks, draws].
Iterations of one layout share one evaluation order. When a repeated iteration has moved all times
that the next one depends on by the same amount, the state is steady, and the remaining repeats are
added at once.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gnnbench.costs.facts import Floats
from gnnbench.errors import Unsupported
from gnnbench.plan import Plan
from gnnbench.steps import LATEST, NO_ROOT, Lane
from gnnbench_simulator.layout import Block, Layout, Mode, Places
from gnnbench_simulator.order import evaluation_order
from gnnbench_simulator.outcome import SimResult, Span, period_seconds
from gnnbench_simulator.pieces import GAP_OP
from gnnbench_simulator.program import Program, Timed
from gnnbench_simulator.tree import Descents

Select = slice | Places
_ROUNDING = 1e-13  # of the time reached: steps that differ by less are equal
_WORTH = 4  # repeats still to come from which on it is worth looking for a steady state


@dataclass(slots=True)
class _Part:
    """A class's share of an operation.

    groups   of a collective: which of the operation's groups each rank is in
    order, starts   ranks sorted by group (None: they are), and where each group starts
    present   the groups that have ranks of this class
    first     a rank of each of them, by its column in the class
    """

    cls: int
    block: Block
    select: Select
    groups: Places | None = None
    order: Places | None = None
    starts: Places | None = None
    present: Places | None = None
    first: Places | None = None


@dataclass(slots=True)
class _Operation:
    """One local block, or one place at which collectives of one or more groups complete.

    `descents` are its broadcasts down trees, whose ranks do not leave together.
    """

    parts: list[_Part]
    num_groups: int = 0
    descents: Descents | None = None


@dataclass(slots=True)
class _Prepared:
    """A layout made ready.

    touched    per lane, the ranks that have blocks on it
    recorded   per class, its recorded ranks and their columns
    draws      per class, the factor of each draw on each step (steps, draws); None without draws
    """

    layout: Layout
    operations: list[_Operation]
    touched: dict[Lane, Select]
    recorded: list[list[tuple[int, int]]]
    draws: list[Floats] | None


@dataclass(slots=True)
class _Ends:
    """Ends of the published steps of an executed iteration, by class and name."""

    layout: Layout
    tables: list[dict[str, Floats]]


def replay(
    program: Program,
    *,
    periods: int | None = None,
    record: Iterable[int] = (),
    factors: Mapping[str, Floats] | None = None,
    ignore_contention: bool = False,
    most: int | None = None,
) -> SimResult:
    """Replay a program.

    Args:
        program: a compiled plan.
        periods: how many periods; by default all of the plan.
        record: ranks whose blocks are kept for ledgers (of the first draw).
        factors: per cost class, one factor on its times for each draw, shape (draws,).
        ignore_contention: replay although links or cores are contended for (a lower bound).
        most: blocks that a recorded rank keeps of equal iterations in a row; None keeps all.

    Raises:
        Unsupported: the plan has contention or circular waits; the message says which.
    """
    reason = program.contention()
    if reason and not ignore_contention:
        raise Unsupported(f"the replay cannot do this plan, use the engine: {reason}")
    draws = 1 if not factors else len(next(iter(factors.values())))
    return _Replay(program, draws, factors or {}, set(record), most=most).run(
        program.plan.num_periods if periods is None else periods
    )


def replay_together(programs: Sequence[Program], *, periods: int) -> Floats:
    """Replay programs of one plan that share their layouts: seconds, [periods, programs].

    One replay with a draw for each program takes little more time than that of a single one.

    Args:
        programs: one plan compiled for several clusters with the same layouts.
        periods: how many periods.

    Raises:
        Unsupported: a program has contention, or the plan circular waits.
    """
    for program in programs:
        reason = program.contention()
        if reason:
            raise Unsupported(f"the replay cannot do this plan, use the engine: {reason}")
        if program.layouts is not programs[0].layouts:
            raise ValueError("programs of different layouts cannot be replayed together")
    found = _Replay(programs[0], len(programs), {}, set(), programs).run(periods).period_s
    return found.reshape(periods, len(programs))


class _Replay:
    def __init__(
        self,
        program: Program,
        draws: int,
        factors: Mapping[str, Floats],
        record: set[int],
        programs: Sequence[Program] = (),
        most: int | None = None,
    ) -> None:
        self.program, self.draws, self.factors, self.most = program, draws, factors, most
        self.programs = programs or (program,)
        self.shape = (program.world_size, draws)
        self.ends: list[_Ends] = []
        self.latest: dict[str, Floats] = {}
        self.recorded: dict[int, list[Span]] = {rank: [] for rank in sorted(record)}
        self.prepared = {id(layout): self._prepare(layout) for layout in program.layouts}
        self.durations: tuple[Timed | None, list[Floats]] = (None, [])
        self.current = self.prepared[id(program.layouts[0])]
        lanes = {b.lane for layout in program.layouts for c in layout.classes for b in c.blocks}
        self.free: dict[Lane, Floats] = {lane: np.zeros(self.shape) for lane in sorted(lanes)}
        # Lanes whose table is also the published end of a step, and must not be written to.
        self.published: set[Lane] = set()
        self.streak = 0
        self.before = -1
        self.release_s = 0.0

    def run(self, periods: int) -> SimResult:
        plan = self.program.plan
        finished: list[Floats] = []
        for period in range(periods):
            first, end = plan.starts[period], plan.starts[period + 1]
            # With release times, equal iterations need not take equal time: none is skipped.
            if plan.releases:
                for number in range(first, end):
                    self.release_s = plan.releases[number]
                    self._repeat(plan.schedule[number], number, 1)
            else:
                for index, number, times in _within(plan, first, end):
                    self._repeat(index, number, times)
            finished.append(self._now().max(axis=0))
        # Lanes that run ahead can finish a period before the one that precedes it.
        ends = np.maximum.accumulate(np.array(finished).reshape(-1, self.draws), axis=0)
        period_s = period_seconds(ends, plan)
        return SimResult(
            method="replay",
            period_s=period_s if self.draws > 1 or self.factors else period_s[:, 0],
            end_s=self._now()[:, 0],
            busy_s=busy_seconds(self.program, plan.schedule[: plan.starts[periods]]),
            spans=self.recorded,
        )

    def _now(self) -> Floats:
        total = np.zeros(self.shape)
        for free in self.free.values():
            np.maximum(total, free, out=total)
        return total

    # -- iterations ------------------------------------------------------------------------------

    def _repeat(self, index: int, number: int, times: int) -> None:
        """Execute an iteration a number of times, from a place of the schedule on."""
        timed = self.program.iterations[index]
        self.current = self.prepared[id(timed.layout)]
        if index != self.before:
            self.before, self.streak = index, 0
        durations = self._durations(index, timed)
        left = times
        while left:
            left -= 1
            self.streak += 1
            looks = left >= _WORTH and bool(self.current.operations)
            # Before that, some waits still point to iterations of another kind.
            looks = looks and self.streak > self.program.max_lag + 1
            # Looking costs about as much as executing: less and less often.
            looks = looks and (self.streak < 8 or self.streak & (self.streak - 1) == 0)
            before = self._state() if looks else None
            marks = {rank: len(spans) for rank, spans in self.recorded.items()}
            self._iterate(durations, number + times - left - 1)
            step = self._step(before) if before is not None else None
            if step is not None:
                self._skip(step, left, marks)
                left = 0

    def _iterate(self, durations: Sequence[Floats], number: int) -> None:
        layout = self.current.layout
        self.ends.append(_Ends(layout, [{} for _ in layout.classes]))
        # Nothing looks further back than the largest lag, so memory stays bounded over any
        # schedule.
        if len(self.ends) > self.program.max_lag + 1:
            self.ends.pop(0)
        for operation in self.current.operations:
            if operation.num_groups:
                self._collective(operation, durations, number)
            else:
                part = operation.parts[0]
                ready = self._ready(part)
                end = ready + durations[part.cls][part.block.number]
                self._finish(part, ready, end, number)
        self._note_latest()

    def _note_latest(self) -> None:
        """Keep the ends of steps whose latest occurrence may be waited for."""
        for name in self.program.waits_latest:
            for cls, table in zip(self.current.layout.classes, self.ends[-1].tables, strict=True):
                if name in table:
                    held = self.latest.get(name)
                    # Copied, because ends of earlier iterations may still be read from the old
                    # table.
                    fresh = np.zeros(self.shape) if held is None else held.copy()
                    fresh[cls.ranks] = table[name]
                    self.latest[name] = fresh

    def _durations(self, index: int, timed: Timed) -> list[Floats]:
        """Per class, seconds of every block on each rank in each draw: (blocks, ranks, draws)."""
        if self.durations[0] is not timed:
            draws = self.current.draws
            if draws is None:
                every = [program.iterations[index].totals for program in self.programs]
                found = [np.stack(totals, axis=-1) for totals in zip(*every, strict=True)]
            else:
                gap = self.factors.get(GAP_OP, np.ones(self.draws))
                found = [
                    cls.by_block(seconds[:, :, None] * factor[:, None, :]) + gaps[:, :, None] * gap
                    for cls, seconds, gaps, factor in zip(
                        timed.layout.classes, timed.seconds, timed.gaps, draws, strict=True
                    )
                ]
            self.durations = timed, found
        return self.durations[1]

    def _state(self) -> list[Floats]:
        """All times on which the next execution of an iteration depends."""
        lanes = [self.free[lane][select] for lane, select in self.current.touched.items()]
        held = self.ends[len(self.ends) - self.program.max_lag :]
        ends = [table[name] for end in held for table in end.tables for name in table]
        own = {name for cls in self.current.layout.classes for name in cls.names}
        latest = [self.latest[name] for name in sorted(self.latest) if name in own]
        return [array.copy() for array in lanes] + ends + latest

    def _step(self, before: list[Floats]) -> Floats | None:
        """The common shift of all these times by the last execution; None if they differ."""
        after = self._state()
        if len(after) != len(before):
            return None
        moved = [now - then for now, then in zip(after, before, strict=True) if now.size]
        low = np.min([change.min(axis=0) for change in moved], axis=0)
        high = np.max([change.max(axis=0) for change in moved], axis=0)
        reached = np.max([now.max() for now in after if now.size])
        # If all times moved by one shift, the next execution will move them by the same: times
        # depend on each other by maxima and sums only.
        if (high - low).max() > _ROUNDING * reached:
            return None
        middle: Floats = (low + high) / 2
        return middle

    def _skip(self, step: Floats, times: int, marks: Mapping[int, int]) -> None:
        """Shift all times by `step` for each of the remaining repeats."""
        for lane, select in self.current.touched.items():
            free = self.free[lane].copy()
            free[select] += times * step
            self.free[lane] = free
            self.published.discard(lane)
        for end in self.ends:
            end.tables = [
                {name: ended + times * step for name, ended in table.items()}
                for table in end.tables
            ]
        own = {name for cls in self.current.layout.classes for name in cls.names}
        for name in own & self.latest.keys():
            self.latest[name] = self.latest[name] + times * step
        for rank, spans in self.recorded.items():
            last, first_s = spans[marks[rank] :], float(step[0])
            # An epoch of embeddings has 300,000 equal iterations; some thousands say as much.
            kept = times if self.most is None else min(times, -(-self.most // max(len(last), 1)))
            spans += [
                Span(s.iteration + n, s.block, s.ready_s + n * first_s, s.end_s + n * first_s)
                for n in range(1, kept + 1)
                for s in last
            ]

    # -- operations ------------------------------------------------------------------------------

    def _ready(self, part: _Part) -> Floats:
        block = part.block
        ready: Floats = self.free[block.lane][part.select]
        for name, lag in block.waits:
            ended = self._ended(part, name, lag)
            if ended is not None:
                ready = np.maximum(ready, ended)
        if self.release_s > 0:
            ready = np.maximum(ready, self.release_s)
        return ready

    def _ended(self, part: _Part, name: str, lag: int) -> Floats | None:
        """When a step ended that a class waits for; None before the first iteration."""
        if lag == LATEST:
            held = self.latest.get(name)
            return None if held is None else held[part.select]
        if lag >= len(self.ends):
            return None
        then = self.ends[-1 - lag]
        if then.layout is self.current.layout:
            return then.tables[part.cls][name]
        # Another layout has other classes: look up each rank's own.
        every = np.zeros(self.shape)
        for cls, table in zip(then.layout.classes, then.tables, strict=True):
            if name in table:
                every[cls.ranks] = table[name]
        return every[part.select]

    def _finish(self, part: _Part, ready: Floats, end: Floats, number: int) -> None:
        block, lane = part.block, part.block.lane
        for rank, column in self.current.recorded[part.cls]:
            span = Span(number, block, float(ready[column, 0]), float(end[column, 0]))
            self.recorded[rank].append(span)
        # All ranks at once: the array itself becomes the lane's table. This saves a copy per step,
        # and is why a published table is copied before it is written to.
        if len(end) == self.shape[0]:
            self.free[lane] = end
            self.published.add(lane)
        else:
            if lane in self.published:
                self.free[lane] = self.free[lane].copy()
                self.published.discard(lane)
            self.free[lane][part.select] = end
        if block.publishes:
            self.ends[-1].tables[part.cls][block.publishes] = end

    def _collective(self, operation: _Operation, durations: Sequence[Floats], number: int) -> None:
        arrivals = [self._ready(part) for part in operation.parts]
        latest = np.zeros((operation.num_groups, self.draws))
        transfer = np.zeros((operation.num_groups, self.draws))
        for part, arrival in zip(operation.parts, arrivals, strict=True):
            sorted_arrival = arrival if part.order is None else arrival[part.order]
            assert part.starts is not None and part.first is not None
            # Ranks of one group lie together after sorting, so one call gives the latest arrival of
            # every group.
            last = np.maximum.reduceat(sorted_arrival, part.starts, axis=0)
            latest[part.present] = np.maximum(latest[part.present], last)
            transfer[part.present] = durations[part.cls][part.block.number, part.first]
        ends = latest + transfer
        together = [
            ends[part.groups] if operation.num_groups > 1 else ends.repeat(len(a), axis=0)
            for part, a in zip(operation.parts, arrivals, strict=True)
        ]
        if operation.descents is not None:
            together = operation.descents.ends(arrivals, transfer, together)
        for part, arrival, end in zip(operation.parts, arrivals, together, strict=True):
            self._finish(part, arrival, end, number)

    # -- preparation -----------------------------------------------------------------------------

    def _prepare(self, layout: Layout) -> _Prepared:
        world = self.program.world_size
        selects = [_select(cls.ranks, world) for cls in layout.classes]
        ranks_of: dict[Lane, list[Places]] = {}
        operations = []
        for members in evaluation_order(layout):
            parts = [_Part(c, block, selects[c]) for c, block in members]
            if members[0][1].mode is Mode.COLLECTIVE:
                operations.append(_rendezvous(parts))
            else:
                operations.append(_Operation(parts))
        for cls in layout.classes:
            for lane in {block.lane for block in cls.blocks}:
                ranks_of.setdefault(lane, []).append(cls.ranks)
        return _Prepared(
            layout=layout,
            operations=operations,
            touched={
                lane: _select(np.sort(np.concatenate(ranks)), world)
                for lane, ranks in ranks_of.items()
            },
            recorded=[
                [(rank, cls.columns[rank]) for rank in self.recorded if rank in cls.columns]
                for cls in layout.classes
            ],
            draws=self._draws(layout) if self.factors else None,
        )

    def _draws(self, layout: Layout) -> list[Floats]:
        ones = np.ones(self.draws)
        return [
            np.array([self.factors.get(label, ones) for label in labels]).reshape(-1, self.draws)
            for labels in self.program.labels_of(layout)
        ]


def busy_seconds(program: Program, schedule: Sequence[int]) -> dict[str, Floats]:
    """Seconds of work by lane on each rank, waiting left out."""
    total: dict[str, Floats] = {}
    for index, times in Counter(schedule).items():
        timed = program.iterations[index]
        for cls, seconds in zip(timed.layout.classes, timed.totals, strict=True):
            for block in cls.blocks:
                lane = total.setdefault(str(block.lane), np.zeros(program.world_size))
                lane[cls.ranks] += times * seconds[block.number]
    return total


def _rendezvous(parts: list[_Part]) -> _Operation:
    met = [part.block.meeting for part in parts]
    meetings = [meeting for meeting in met if meeting is not None]
    numbers = np.unique(np.concatenate([meeting.groups for meeting in meetings]))
    members = []
    for part, meeting in zip(parts, meetings, strict=True):
        groups = part.groups = np.searchsorted(numbers, meeting.groups)
        order = np.argsort(groups, kind="stable")
        in_order = bool(np.all(groups[1:] >= groups[:-1]))
        part.order = None if in_order else order
        part.starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
        part.first = order[part.starts]
        part.present = groups[part.first]
        members.append((groups, meeting.members))
    descends = any(np.any(of != NO_ROOT) for _, of in members)
    return _Operation(parts, len(numbers), Descents.of(members) if descends else None)


def _select(ranks: Places, world_size: int) -> Select:
    """Ranks, rising, as the cheapest index there is."""
    first, last = int(ranks[0]), int(ranks[-1])
    if len(ranks) == world_size:
        return slice(None)
    return slice(first, last + 1) if last - first + 1 == len(ranks) else ranks


def _within(plan: Plan, first: int, end: int) -> Iterable[tuple[int, int, int]]:
    """The plan's runs of one iteration between two places of its schedule, see `Plan.runs`."""
    runs = plan.runs
    at = bisect_right(runs, first, key=lambda run: run[1]) - 1
    while at < len(runs) and runs[at][1] < end:
        index, start, times = runs[at]
        begin = max(start, first)
        yield index, begin, min(start + times, end) - begin
        at += 1
