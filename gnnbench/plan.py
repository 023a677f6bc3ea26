"""The plan: the steps that every rank must take, with exact bytes and flops.

The runtime performs and records the steps of a plan, the simulator gives them durations. Bytes and
flops are closed forms or counts from the real structure, never estimates of time.

Execution semantics, which the engine, the event loop and the replay obey:

- Each rank has lanes. A lane runs its steps one at a time, in the order of the plan; the order
  continues from one scheduled iteration to the next.
- A step starts when its lane is free and every step in `after` has ended (see `steps.After`).
  Staleness, prefetch depth and bounded buffers are all expressed by such waits.
- A scheduled iteration with a release time starts no earlier, on any lane.
- A collective starts on a rank when the rank reaches it, and ends on all ranks of its group
  together. Collectives match by (group, sequence number within that group), so that ranks whose
  plans disagree are an error before a run could hang.
- A buffer lives from the step that allocates it to the step that frees it (see `steps.Buffer`), so
  that memory is a timeline per space.
- An evaluation between periods takes no part in their times. Its steps are kept apart, for their
  buffers.

Plans stay small. Ranks that take the same steps with different sizes form a class, whose steps hold
arrays of sizes. Iterations that all differ are made lazily, one at a time (`LazyIterations`).
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, chain
from typing import Any, NamedTuple

import numpy as np

from gnnbench.disk_limit import DiskLimit
from gnnbench.errors import SpecError
from gnnbench.iterations import Hash, Iteration, Places
from gnnbench.steps import COUNTED, SIZES, Buffer, Ints, Space, Step
from gnnbench.validity import iteration_problems, lag_problems, schedule_problems


@dataclass(frozen=True, slots=False, kw_only=True)
class Plan:
    """The steps of every rank.

    Args:
        iterations: distinct iterations; `iterations[k][rank]` are the steps of a rank.
        schedule: number of the distinct iteration at each place of the run, in order.
        periods: number of scheduled iterations of each period, in order. Results are reported
            per period; periods may differ in length.
        period: what a period is: "epoch", "increment" (of a stream) or "round".
        releases: earliest start of each scheduled iteration, in seconds since the start; empty
            if no input arrives late.
        arrivals: events of a stream that arrive with each period; empty if no input arrives late.
        resident: buffers that live from before the first iteration; sizes are arrays [world size]
            where ranks differ.
        evaluation: the iterations of one evaluation between periods, with what they allocate and
            free; empty where an evaluation needs no memory of its own.
        counted: whether all sizes were counted on the real structure; `basis` says how they were
            estimated otherwise.
        counted_periods: of a plan that is not counted, how many of its first periods are: their
            bytes are those of a run.
        notes: what a reader of the prediction may want to know.
        disk: limit of the disk that the run sets.
    """

    approach: str
    world_size: int
    iterations: Sequence[Iteration]
    schedule: Sequence[int]
    periods: Sequence[int]
    period: str = "epoch"
    releases: Sequence[float] = ()
    arrivals: Sequence[int] = ()
    resident: tuple[Buffer, ...] = ()
    evaluation: Sequence[Iteration] = ()
    counted: bool = True
    basis: str = "counted on the real graph"
    counted_periods: int = 0
    notes: Mapping[str, object] = field(default_factory=dict)
    disk: DiskLimit = field(default_factory=DiskLimit)

    @property
    def num_periods(self) -> int:
        return len(self.periods)

    @cached_property
    def starts(self) -> list[int]:
        """Place in the schedule at which each period starts, and the end of the last."""
        return [0, *accumulate(self.periods)]

    @cached_property
    def runs(self) -> list[tuple[int, int, int]]:
        """Runs of one iteration: its index, where in the schedule it starts, how often it repeats.

        An epoch of a large graph schedules one iteration a hundred thousand times.
        """
        order = np.fromiter(self.schedule, np.int64, len(self.schedule))
        if not len(order):
            return []
        first = np.concatenate([[0], np.flatnonzero(np.diff(order)) + 1])
        times = np.diff(np.append(first, len(order)))
        return list(zip(order[first].tolist(), first.tolist(), times.tolist(), strict=True))

    def scheduled(self, period: int) -> Sequence[int]:
        """The distinct iterations of one period, in the order in which they run."""
        return self.schedule[self.starts[period] : self.starts[period + 1]]

    def of_period(self, period: int) -> Iterator[Iteration]:
        """Yield the iterations of one period in order."""
        for index in self.scheduled(period):
            yield self.iterations[index]

    def iteration_counts(self, period: int) -> dict[int, int]:
        """How often a period has each distinct iteration, in order of first use."""
        return dict(Counter(self.scheduled(period)))

    def num_steps(self, period: int = 0) -> int:
        """Steps of all ranks in one period."""
        counts = self.iteration_counts(period)
        return sum(times * self.iterations[index].num_steps() for index, times in counts.items())

    def moved_bytes(self, period: int = 0) -> dict[tuple[str, str], int]:
        """Bytes that all ranks send, copy, read or write in one period, by (kind, phase)."""
        totals: dict[tuple[str, str], int] = defaultdict(int)
        for index, times in self.iteration_counts(period).items():
            # An iteration that a period repeats a thousand times is counted once.
            for key, size in iteration_bytes(self.iterations[index]).items():
                totals[key] += times * size
        return dict(totals)

    @cached_property
    def layouts(self) -> tuple[dict[int, int], list[Iteration]]:
        """The layout of each distinct iteration that runs, and one iteration of each layout."""
        numbers: dict[Hash, int] = {}
        of: dict[int, int] = {}
        samples: list[Iteration] = []
        for index in dict.fromkeys(i for i, _, _ in self.runs if 0 <= i < len(self.iterations)):
            iteration = self.iterations[index]
            key = iteration.layout
            if key not in numbers:
                numbers[key] = len(numbers)
                samples.append(iteration)
            of[index] = numbers[key]
        return of, samples

    # -- memory ----------------------------------------------------------------------------------

    def peak_bytes(self, *spaces: Space, periods: int | None = None) -> Ints:
        """Highest sum of living buffers of the periods, in some spaces (by default the device's).

        In program order; int64 [world size]. On a CPU, device and host are one memory.
        """
        return self.peaks([spaces or (Space.DEVICE,)], periods=periods)[0].training

    def peaks(
        self,
        groups: Sequence[Sequence[Space]],
        *,
        periods: int | None = None,
        evaluates: bool = False,
    ) -> list[Peaks]:
        """Peaks of several groups of spaces; of the evaluation after the periods if it `evaluates`.

        Without it the evaluation has what the periods leave.
        """
        counts = [_Living(self, group) for group in groups]
        # One walk for all groups: iterations are made on demand, and dropped again.
        for ranks, step in self.allocations(periods=periods):
            for count in counts:
                count.take(ranks, step)
        trained = [count.restart() for count in counts]
        for ranks, step in self.evaluated() if evaluates else ():
            for count in counts:
                count.take(ranks, step)
        return [Peaks(of, count.peak) for of, count in zip(trained, counts, strict=True)]

    def evaluated(self) -> Iterator[tuple[Places, Step]]:
        """Yield the steps of an evaluation that allocate or free, and the ranks that take them."""
        for iteration in self.evaluation:
            yield from _allocating(iteration)[0]

    def spaces(self) -> tuple[Space, ...]:
        """The spaces in which the plan has buffers."""
        used = {buffer.space for buffer in self.resident}
        for _, step in chain(self.allocations(), self.evaluated()):
            used.update(buffer.space for buffer in step.allocates)
        return tuple(space for space in Space if space in used)

    def allocations(self, *, periods: int | None = None) -> Iterator[tuple[Places, Step]]:
        """Yield the steps that allocate or free, and the ranks that take them, in program order.

        Repeats that change nothing are left out. An iteration leaves the same buffers however often
        it has run; only its second run in a row may find more of them alive than its first. What
        several iterations leave depends on which of them ran last, last but one and so on: of a
        cycle, the second turn is the last that is looked at.
        """
        count = self.num_periods if periods is None else periods
        known: dict[int, tuple[list[tuple[Places, Step]], bool]] = {}
        end = self.starts[count]
        recent: tuple[int, ...] = ()
        turns: dict[tuple[int, ...], int] = defaultdict(int)
        for index, start, times in self.runs:
            if start >= end:
                return
            if len(recent) <= _CYCLE:
                recent = (*(one for one in recent if one != index), index)
                turn = (*recent, min(times, 2))
                turns[turn] += 1
                if turns[turn] > 2:
                    continue
            if index not in known:
                if len(known) > _ITERATIONS_KEPT:
                    known.clear()
                known[index] = _allocating(self.iterations[index])
            steps, frees = known[index]
            yield from steps
            if frees and min(times, end - start) > 1:
                yield from steps

    # -- identity --------------------------------------------------------------------------------

    def program_key(self, *, most_steps: int = 20_000) -> str:
        """A key that plans share whose ranks take the same steps, on disks of the same limit.

        Names are left out: on one rank many approaches are one program. Epochs are alike, and so
        are rounds: the first tells. Increments of a stream are not, and approaches that differ
        later may start with the same one. Plans of more steps have no key: "".
        """
        periods = self.num_periods if self.period == "increment" else min(1, self.num_periods)
        places = self.schedule[: self.starts[periods]]
        if len(places) > most_steps:
            return ""
        # By content, not by number: another plan may number the same iterations otherwise.
        content: dict[int, str] = {}
        num_steps = 0
        for index in dict.fromkeys(places):
            iteration = self.iterations[index]
            num_steps += iteration.num_steps()
            if num_steps > most_steps:
                return ""
            content[index] = _hashed([[_content(step) for step in steps] for steps in iteration])
        order = [[content[index] for index in self.scheduled(at)] for at in range(periods)]
        return _hashed((order, self.disk))[:16]

    # -- validity --------------------------------------------------------------------------------

    def validate(self, *, evaluates: bool = False) -> None:
        """Raise SpecError with every way in which the ranks' steps do not fit together.

        Linear in the number of steps; iterations that differ in sizes alone are checked once.
        With `evaluates` the evaluation is made and checked as well.
        """
        problems = schedule_problems(
            self.approach, self.schedule, self.periods, self.releases, len(self.iterations)
        )
        if self.arrivals and (len(self.arrivals) != self.num_periods or not self.releases):
            problems.append(
                f"{self.approach}: {len(self.arrivals)} numbers of arriving events for "
                f"{self.num_periods} periods and {len(self.releases)} release times"
            )
        of, samples = self.layouts
        first = {layout: index for index, layout in reversed(of.items())}
        for layout, iteration in enumerate(samples):
            where = f"{self.approach} iteration {first[layout]}"
            problems += iteration_problems(where, iteration, self.world_size)
        for iteration in self.evaluation if evaluates else ():
            where = f"{self.approach} evaluation"
            problems += iteration_problems(where, iteration, self.world_size)
        if not problems:
            problems += lag_problems(self.approach, self.schedule, of, samples)
        if problems:
            raise SpecError(list(dict.fromkeys(problems)))


class Peaks(NamedTuple):
    """Highest sums of living buffers: of the periods, and of an evaluation after them.

    int64 [world size] each.
    """

    training: Ints
    evaluation: Ints


_ITERATIONS_KEPT = 64
_CYCLE = 8
"""Distinct iterations up to which cycles of them are looked for."""


def iteration_bytes(iteration: Iteration) -> dict[tuple[str, str], int]:
    """Bytes that all ranks send, copy, read or write in an iteration, by (kind, phase)."""
    totals: dict[tuple[str, str], int] = defaultdict(int)
    for of in iteration.classes:
        for step in of.steps:
            if step.work.kind in COUNTED:
                size = step.work.bytes
                moved = size * len(of) if isinstance(size, int) else int(size.sum())
                totals[step.work.kind.value, step.phase.value] += moved
    return dict(totals)


def repeated(
    iterations: Sequence[Iteration], periods: int, per_period: Sequence[int] = (0,)
) -> dict[str, Any]:
    """Fields of a plan in which every period runs the same iterations in the same order."""
    return {
        "iterations": iterations,
        "schedule": tuple(per_period) * periods,
        "periods": (len(per_period),) * periods,
    }


class _Living:
    """The sum of living buffers in some spaces, and its peak; int64 [world size]."""

    def __init__(self, plan: Plan, spaces: Sequence[Space]) -> None:
        self.spaces = frozenset(spaces)
        self.live: dict[str, Ints] = {}
        self.total = np.zeros(plan.world_size, np.int64)
        for buffer in plan.resident:
            if buffer.space in self.spaces:
                size = np.broadcast_to(np.asarray(buffer.bytes), self.total.shape).copy()
                self.live[buffer.name] = size
                self.total += size
        self.peak = self.total.copy()

    def restart(self) -> Ints:
        """Return the peak until now; the next one is that of what follows."""
        peak, self.peak = self.peak, self.total.copy()
        return peak

    def take(self, ranks: Places, step: Step) -> None:
        """Allocate and free what a step does."""
        own: Ints | None = None
        for buffer in step.allocates:
            if buffer.space not in self.spaces:
                continue
            if own is None:
                own = self.total[ranks]
            held = self.live.get(buffer.name)
            if held is None:
                held = self.live[buffer.name] = np.zeros(len(self.total), np.int64)
            before = held[ranks]
            after = buffer.bytes if buffer.exact else np.maximum(buffer.bytes, before)
            own = own + after - before
            held[ranks] = after
        if own is not None:
            self.peak[ranks] = np.maximum(self.peak[ranks], own)
        for name in step.frees:
            if name in self.live:
                own = self.total[ranks] if own is None else own
                own = own - self.live[name][ranks]
                self.live[name][ranks] = 0
        if own is not None:
            self.total[ranks] = own


def _allocating(iteration: Iteration) -> tuple[list[tuple[Places, Step]], bool]:
    steps = [
        (of.ranks, step)
        for of in iteration.classes
        for step in of.steps
        if step.allocates or step.frees
    ]
    return steps, any(step.frees or any(b.exact for b in step.allocates) for _, step in steps)


def _hashed(content: object) -> str:
    return hashlib.sha256(repr(content).encode()).hexdigest()


def _content(step: Step) -> tuple[object, ...]:
    work = step.work
    sent = None if work.send is None else (work.send * work.unit_bytes).tolist()
    sizes = tuple(getattr(work, name) for name in SIZES)
    return (
        work.kind.value,
        work.op,
        str(step.lane),
        step.phase.value,
        sizes,
        step.ranks,
        sent,
        tuple(after.lag for after in step.after),
    )
