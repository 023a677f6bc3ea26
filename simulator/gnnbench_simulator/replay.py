"""The replay: a plan without contention as a max-plus recurrence, vectorised over ranks.

Equal to the engine where nothing is contended for (a property test holds that), and about a
thousand times faster (simulation 3, L1). Uncertainty draws ride along as a second axis: every
array is (ranks, draws). Once an iteration that repeats moves everything it rests on by the same
time, so do its repeats, and they are not evaluated one by one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from gnnbench.costs.facts import Floats
from gnnbench.errors import Unsupported
from gnnbench.plan import Lane
from gnnbench_simulator.compute import GAP_OP
from gnnbench_simulator.matching import Ints
from gnnbench_simulator.network import NO_ROOT
from gnnbench_simulator.order import evaluation_order
from gnnbench_simulator.outcome import SimResult, Span
from gnnbench_simulator.program import Block, Iteration, Mode, Program, RankClass
from gnnbench_simulator.tree import Descents

Select = slice | Ints
Tables = list[dict[str, Floats]]
_ROUNDING = 1e-13  # of the time reached: steps that differ by less are equal
_WORTH = 4  # repeats still to come from which on it is worth to look for a steady state


@dataclass(slots=True)
class _Part:
    """A class's share of an operation.

    groups   of a collective: which of the operation's groups each rank is in
    order, starts   ranks sorted by group (None: they are), and where each group starts
    present   the groups that have ranks of this class
    """

    cls: int
    block: Block
    select: Select
    duration: Floats
    groups: Ints | None = None
    order: Ints | None = None
    starts: Ints | None = None
    present: Ints | None = None


@dataclass(slots=True)
class _Operation:
    """One local block, or one place at which collectives of one or more groups complete.

    `descents` are its broadcasts down trees, whose ranks do not leave together.
    """

    parts: list[_Part]
    num_groups: int = 0
    transfer: Floats | None = None
    descents: Descents | None = None


@dataclass(slots=True)
class _Prepared:
    """A distinct iteration made ready.

    touched    per lane, the ranks that have blocks on it
    busy       per lane and rank, seconds of work
    recorded   per class, its recorded ranks and their columns
    steady     whether its times depend on times before it alone (no step has a release time)
    """

    index: int
    iteration: Iteration
    operations: list[_Operation]
    touched: dict[Lane, Select]
    busy: dict[Lane, Floats]
    recorded: list[list[tuple[int, int]]]
    steady: bool


@dataclass(slots=True)
class _Ends:
    """Ends of the published steps of an executed iteration, by class and name."""

    index: int
    tables: Tables = field(default_factory=list)


def replay(
    program: Program,
    *,
    epochs: int | None = None,
    record: Iterable[int] = (),
    factors: Mapping[str, Floats] | None = None,
    ignore_contention: bool = False,
) -> SimResult:
    """Replay a program.

    Args:
        program: a compiled plan.
        epochs: how many epochs; by default all of the plan.
        record: ranks whose blocks are kept for ledgers (of the first draw).
        factors: per cost class, one factor on its times for each draw, shape (draws,).
        ignore_contention: replay although links or cores are contended for (a lower bound).

    Raises:
        Unsupported: the plan has contention, queues or circular waits; the message says which.
    """
    reason = program.contention()
    if reason and not ignore_contention:
        raise Unsupported(f"the replay cannot do this plan, use the engine: {reason}")
    draws = 1 if not factors else len(next(iter(factors.values())))
    return _Replay(program, draws, factors or {}, set(record)).run(
        program.plan.num_epochs if epochs is None else epochs
    )


class _Replay:
    def __init__(
        self, program: Program, draws: int, factors: Mapping[str, Floats], record: set[int]
    ) -> None:
        self.program, self.draws, self.factors = program, draws, factors
        self.shape = (program.world_size, draws)
        self.ends: list[_Ends] = []
        self.matches: dict[tuple[int, int, int, int], tuple[list[int], list[int]]] = {}
        self.recorded: dict[int, list[Span]] = {rank: [] for rank in sorted(record)}
        self.prepared = [
            self._prepare(index, iteration) for index, iteration in enumerate(program.iterations)
        ]
        self.current = self.prepared[0]
        lanes = {b.lane for it in program.iterations for c in it.classes for b in c.blocks}
        self.free: dict[Lane, Floats] = {lane: np.zeros(self.shape) for lane in sorted(lanes)}
        # Lanes whose table is also the published end of a step, and must not be written to.
        self.published: set[Lane] = set()
        self.streak = 0

    def run(self, epochs: int) -> SimResult:
        plan = self.program.plan
        per_epoch = plan.iterations_per_epoch
        finished: list[Floats] = []
        schedule = plan.schedule[: epochs * per_epoch]
        for epoch in range(epochs):
            first = epoch * per_epoch
            for index, number, times in _runs(schedule[first : first + per_epoch], first):
                self._repeat(self.prepared[index], number, times)
            finished.append(self._now().max(axis=0))
        ends = np.maximum.accumulate(np.array(finished).reshape(-1, self.draws), axis=0)
        epoch_s = np.diff(ends, axis=0, prepend=np.zeros((1, self.draws)))
        return SimResult(
            method="replay",
            epoch_s=epoch_s if self.factors else epoch_s[:, 0],
            end_s=self._now()[:, 0],
            busy_s=self._busy(schedule),
            spans=self.recorded,
        )

    def _now(self) -> Floats:
        total = np.zeros(self.shape)
        for free in self.free.values():
            np.maximum(total, free, out=total)
        return total

    def _busy(self, schedule: tuple[int, ...]) -> dict[str, Floats]:
        total = {lane: np.zeros(self.program.world_size) for lane in self.free}
        for index, times in Counter(schedule).items():
            for lane, seconds in self.prepared[index].busy.items():
                total[lane] += times * seconds
        return {lane.value: seconds for lane, seconds in total.items()}

    # -- iterations ------------------------------------------------------------------------------

    def _repeat(self, prepared: _Prepared, number: int, times: int) -> None:
        """Execute an iteration a number of times, from a place of the schedule on."""
        if prepared is not self.current:
            self.current, self.streak = prepared, 0
        left = times
        while left:
            left -= 1
            self.streak += 1
            looks = left >= _WORTH and prepared.steady and self.streak > self.program.max_lag + 1
            # Looking costs about as much as executing: less and less often.
            looks = looks and (self.streak < 8 or self.streak & (self.streak - 1) == 0)
            before = self._state(prepared) if looks else None
            marks = {rank: len(spans) for rank, spans in self.recorded.items()}
            self._iterate(prepared, number + times - left - 1)
            step = self._step(prepared, before) if before is not None else None
            if step is not None:
                self._skip(prepared, step, left, marks)
                left = 0

    def _iterate(self, prepared: _Prepared, number: int) -> None:
        self.ends.append(_Ends(prepared.index, [{} for _ in prepared.iteration.classes]))
        if len(self.ends) > self.program.max_lag + 1:
            self.ends.pop(0)
        for operation in prepared.operations:
            if operation.transfer is None:
                part = operation.parts[0]
                ready = self._ready(part)
                self._finish(part, ready, ready + part.duration, number)
            else:
                self._collective(operation, number)

    def _state(self, prepared: _Prepared) -> list[Floats]:
        """What the next execution of an iteration rests on."""
        lanes = [self.free[lane][select] for lane, select in prepared.touched.items()]
        held = self.ends[len(self.ends) - self.program.max_lag :]
        ends = [table[name] for end in held for table in end.tables for name in table]
        return [array.copy() for array in lanes] + ends

    def _step(self, prepared: _Prepared, before: list[Floats]) -> Floats | None:
        """By how much the last execution moved all that the next one rests on, if all alike."""
        after = self._state(prepared)
        moved = [now - then for now, then in zip(after, before, strict=True) if now.size]
        low = np.min([change.min(axis=0) for change in moved], axis=0)
        high = np.max([change.max(axis=0) for change in moved], axis=0)
        reached = np.max([now.max() for now in after if now.size])
        if (high - low).max() > _ROUNDING * reached:
            return None
        middle: Floats = (low + high) / 2
        return middle

    def _skip(
        self, prepared: _Prepared, step: Floats, times: int, marks: Mapping[int, int]
    ) -> None:
        """Take it that an iteration moves everything by `step` as many times more."""
        for lane, select in prepared.touched.items():
            free = self.free[lane].copy()
            free[select] += times * step
            self.free[lane] = free
            self.published.discard(lane)
        for end in self.ends:
            end.tables = [
                {name: ended + times * step for name, ended in table.items()}
                for table in end.tables
            ]
        for rank, spans in self.recorded.items():
            last, first_s = spans[marks[rank] :], float(step[0])
            spans += [
                Span(s.iteration + n, s.block, s.ready_s + n * first_s, s.end_s + n * first_s)
                for n in range(1, times + 1)
                for s in last
            ]

    # -- operations ------------------------------------------------------------------------------

    def _ready(self, part: _Part) -> Floats:
        block = part.block
        ready: Floats = self.free[block.lane][part.select]
        for name, lag in block.waits:
            ended = self._ended(part.cls, name, lag)
            if ended is not None:
                ready = np.maximum(ready, ended)
        if block.release_s > 0:
            ready = np.maximum(ready, block.release_s)
        return ready

    def _ended(self, cls: int, name: str, lag: int) -> Floats | None:
        """When a step ended that a class of the current iteration waits for; None: no such step."""
        if lag >= len(self.ends):
            return None
        then, index = self.ends[-1 - lag], self.current.index
        if then.index == index:
            return then.tables[cls].get(name)
        # Ranks that lack the step have nothing to wait for: zero.
        found: Floats | None = None
        for other, table in enumerate(then.tables):
            if name not in table:
                continue
            here, there = self._match(index, cls, then.index, other)
            if here and found is None:
                found = np.zeros((len(self.current.iteration.classes[cls].ranks), self.draws))
            if here and found is not None:
                found[here] = table[name][there]
        return found

    def _match(self, index: int, cls: int, then: int, other: int) -> tuple[list[int], list[int]]:
        """Columns of the ranks that a class of one iteration shares with one of another."""
        key = index, cls, then, other
        if key not in self.matches:
            columns = self.program.iterations[then].classes[other].columns
            own = self.program.iterations[index].classes[cls].columns
            pairs = [(column, columns[rank]) for rank, column in own.items() if rank in columns]
            self.matches[key] = [here for here, _ in pairs], [there for _, there in pairs]
        return self.matches[key]

    def _finish(self, part: _Part, ready: Floats, end: Floats, number: int) -> None:
        block, lane = part.block, part.block.lane
        for rank, column in self.current.recorded[part.cls]:
            span = Span(number, block, float(ready[column, 0]), float(end[column, 0]))
            self.recorded[rank].append(span)
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

    def _collective(self, operation: _Operation, number: int) -> None:
        arrivals = [self._ready(part) for part in operation.parts]
        assert operation.transfer is not None
        latest = np.zeros((operation.num_groups, self.draws))
        for part, arrival in zip(operation.parts, arrivals, strict=True):
            sorted_arrival = arrival if part.order is None else arrival[part.order]
            assert part.starts is not None
            last = np.maximum.reduceat(sorted_arrival, part.starts, axis=0)
            latest[part.present] = np.maximum(latest[part.present], last)
        ends = latest + operation.transfer
        together = [
            np.broadcast_to(ends[part.groups] if operation.num_groups > 1 else ends[0], a.shape)
            for part, a in zip(operation.parts, arrivals, strict=True)
        ]
        if operation.descents is not None:
            together = operation.descents.ends(arrivals, operation.transfer, together)
        for part, arrival, end in zip(operation.parts, arrivals, together, strict=True):
            self._finish(part, arrival, end, number)

    # -- preparation -----------------------------------------------------------------------------

    def _prepare(self, index: int, iteration: Iteration) -> _Prepared:
        world = self.program.world_size
        selects = [_select(cls.ranks, world) for cls in iteration.classes]
        ranks_of: dict[Lane, list[Ints]] = {}
        busy: dict[Lane, Floats] = {}
        operations = []
        for members in evaluation_order(iteration):
            parts = []
            for c, block in members:
                cls = iteration.classes[c]
                duration = self._duration(cls, block)
                parts.append(_Part(c, block, selects[c], duration))
                busy.setdefault(block.lane, np.zeros(world))[selects[c]] += duration[:, 0]
            if members[0][1].mode is Mode.COLLECTIVE:
                operations.append(self._rendezvous(parts))
            else:
                operations.append(_Operation(parts))
        for cls in iteration.classes:
            for lane in {block.lane for block in cls.blocks}:
                ranks_of.setdefault(lane, []).append(cls.ranks)
        return _Prepared(
            index=index,
            iteration=iteration,
            operations=operations,
            touched={
                lane: _select(np.sort(np.concatenate(ranks)), world)
                for lane, ranks in ranks_of.items()
            },
            busy=busy,
            recorded=[
                [(rank, cls.columns[rank]) for rank in self.recorded if rank in cls.columns]
                for cls in iteration.classes
            ],
            steady=bool(operations)
            and not any(b.release_s > 0 for cls in iteration.classes for b in cls.blocks),
        )

    def _rendezvous(self, parts: list[_Part]) -> _Operation:
        met = [part.block.meeting for part in parts]
        meetings = [meeting for meeting in met if meeting is not None]
        numbers = np.unique(np.concatenate([meeting.groups for meeting in meetings]))
        transfer = np.zeros((len(numbers), self.draws))
        told = []
        for part, meeting in zip(parts, meetings, strict=True):
            groups = part.groups = np.searchsorted(numbers, meeting.groups)
            transfer[groups] = part.duration
            order = np.argsort(groups, kind="stable")
            in_order = bool(np.all(groups[1:] >= groups[:-1]))
            part.order = None if in_order else order
            part.starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
            part.present = groups[order][part.starts]
            told.append((groups, meeting.members))
        descends = any(np.any(members != NO_ROOT) for _, members in told)
        return _Operation(parts, len(numbers), transfer, Descents.of(told) if descends else None)

    def _duration(self, cls: RankClass, block: Block) -> Floats:
        """Seconds of a block on each rank in each draw."""
        if not self.factors:
            return block.total[:, None]
        ones = np.ones(self.draws)
        scale = [self.factors.get(cls.labels[s], ones) for s in block.steps]
        duration: Floats = block.seconds[0][:, None] * scale[0]
        for seconds, factor in zip(block.seconds[1:], scale[1:], strict=True):
            duration += seconds[:, None] * factor
        return duration + block.gap_s[:, None] * self.factors.get(GAP_OP, ones)


def _select(ranks: Ints, world_size: int) -> Select:
    """Ranks, rising, as the cheapest index there is."""
    first, last = int(ranks[0]), int(ranks[-1])
    if len(ranks) == world_size:
        return slice(None)
    return slice(first, last + 1) if last - first + 1 == len(ranks) else ranks


def _runs(schedule: tuple[int, ...], first: int) -> Iterable[tuple[int, int, int]]:
    """Runs of one iteration: its index, where in the schedule it starts, how often it repeats."""
    start = 0
    for place in range(1, len(schedule) + 1):
        if place == len(schedule) or schedule[place] != schedule[start]:
            yield schedule[start], first + start, place - start
            start = place
