"""The plan: the steps that every rank must take, with exact bytes and flops.

A plan is what both worlds share: the runtime performs its steps and records them, the simulator
gives them durations. Bytes and flops are closed forms or counts from the real structure, never
estimates of time.

Execution semantics, which the engine, the event loop and the replay obey:

- Each rank has lanes. A lane runs its steps one at a time, in the order of the plan; the order
  continues from one scheduled iteration to the next.
- A step starts when its lane is free and every step in `after` has ended (see `steps.After`).
  Staleness, prefetch depth and bounded buffers are all expressed by such waits.
- A scheduled iteration with a release time starts no earlier, on any lane.
- A collective starts on a rank when the rank reaches it, and ends on all ranks of its group
  together. Collectives match by (group, sequence number within that group), so that a plan whose
  ranks disagree is an error before it is a hang.
- A buffer that a step allocates lives until a step frees it (see `steps.Buffer`), so that memory is
  a timeline per space.

Plans stay small. Ranks that take the same steps with different sizes form a class, whose steps hold
arrays of sizes. Iterations that all differ are made lazily, one at a time (`LazyIterations`).
"""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from gnnbench.errors import SpecError
from gnnbench.steps import (
    COLLECTIVES,
    COUNTED,
    LATEST,
    SIZES,
    Buffer,
    Groups,
    Ints,
    Space,
    Step,
    pick,
)

RankSteps = tuple[Step, ...]
Places = NDArray[np.intp]


class RankClass:
    """Ranks that take the same steps, and the sizes in which they differ.

    Names, kinds, lanes, phases, waits and the names of buffers are equal; sizes are integers where
    they are equal too, else int64 [ranks]. Groups may differ as long as the same steps meet in the
    same group.

    Args:
        ranks: rising.
        steps: in program order.
    """

    __slots__ = ("_template", "ranks", "steps")

    def __init__(self, ranks: Sequence[int] | Places, steps: Sequence[Step]) -> None:
        self.ranks = np.asarray(ranks, dtype=np.intp)
        self.steps = tuple(steps)
        self._template: Hash | None = None

    def __len__(self) -> int:
        return len(self.ranks)

    def of(self, column: int) -> RankSteps:
        """The steps of one rank, by its place in the class."""
        return tuple(_of_rank(step, column) for step in self.steps)

    @property
    def template(self) -> Hash:
        """What classes have in common that differ in sizes alone."""
        if self._template is None:
            self._template = tuple(_head(step) for step in self.steps)
        return self._template

    def group_of(self, step: Step, column: int) -> tuple[int, ...]:
        """The group in which one rank of the class takes a step."""
        group = step.group
        return group.table[group.of[column]] if isinstance(group, Groups) else group


Hash = tuple[object, ...]


class Iteration:
    """One iteration of all ranks, by classes. `iteration[rank]` are the steps of one rank.

    Args:
        classes: every rank is in one of them.
    """

    __slots__ = ("_classes_of", "_known", "classes", "world_size")

    def __init__(self, classes: Sequence[RankClass]) -> None:
        self.classes = tuple(classes)
        self.world_size = sum(len(of.ranks) for of in self.classes)
        self._classes_of: tuple[Places, Places] | None = None
        self._known: dict[int, RankSteps] = {}

    @classmethod
    def of_ranks(cls, programs: Sequence[Sequence[Step]]) -> Iteration:
        """Form classes of ranks whose steps were written one rank at a time."""
        alike: dict[Hash, list[int]] = {}
        for rank, steps in enumerate(programs):
            alike.setdefault((*map(_head, steps), *_meetings(steps)), []).append(rank)
        made = cls(
            [_stacked(ranks, [programs[rank] for rank in ranks]) for ranks in alike.values()]
        )
        made._known = {rank: tuple(steps) for rank, steps in enumerate(programs)}
        return made

    def __len__(self) -> int:
        return self.world_size

    def __getitem__(self, rank: int) -> RankSteps:
        if rank not in self._known:
            if not 0 <= rank < self.world_size:
                raise IndexError(f"rank {rank} of {self.world_size}")
            which, column = self.place(rank)
            self._known[rank] = self.classes[which].of(column)
        return self._known[rank]

    def __iter__(self) -> Iterator[RankSteps]:
        return (self[rank] for rank in range(self.world_size))

    def place(self, rank: int) -> tuple[int, int]:
        """Class of a rank, and its place in the class."""
        which, columns = self.places()
        return int(which[rank]), int(columns[rank])

    def places(self) -> tuple[Places, Places]:
        """Per rank: its class, and its place in the class."""
        if self._classes_of is None:
            which = np.zeros(self.world_size, np.intp)
            columns = np.zeros(self.world_size, np.intp)
            for number, of in enumerate(self.classes):
                which[of.ranks] = number
                columns[of.ranks] = np.arange(len(of.ranks))
            self._classes_of = which, columns
        return self._classes_of

    def num_steps(self) -> int:
        """Steps of all ranks."""
        return sum(len(of.ranks) * len(of.steps) for of in self.classes)

    @property
    def layout(self) -> Hash:
        """What iterations have in common that differ in sizes alone, on every rank."""
        return tuple((of.template, of.ranks.tobytes(), _group_key(of.steps)) for of in self.classes)


class LazyIterations(Sequence[Iteration]):
    """Iterations made when they are asked for. The last few are kept.

    Args:
        count: how many there are.
        make: from a number to the iteration; called again for one that was dropped.
    """

    def __init__(self, count: int, make: Callable[[int], Iteration], *, keep: int = 4) -> None:
        self._count, self._make, self._keep = count, make, keep
        self._kept: OrderedDict[int, Iteration] = OrderedDict()

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Iteration: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Iteration]: ...
    def __getitem__(self, index: int | slice) -> Iteration | Sequence[Iteration]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        if index < 0:
            index += self._count
        if not 0 <= index < self._count:
            raise IndexError(f"iteration {index} of {self._count}")
        if index not in self._kept:
            self._kept[index] = self._make(index)
            while len(self._kept) > self._keep:
                self._kept.popitem(last=False)
        return self._kept[index]


@dataclass(frozen=True, slots=False, kw_only=True)
class Plan:
    """The steps of every rank.

    Args:
        iterations: distinct iterations; `iterations[k][rank]` are the steps of a rank.
        schedule: which distinct iteration runs when.
        periods: scheduled iterations of each period, in order. A period is what is reported on;
            periods may differ in length.
        period: what a period is: "epoch", "increment" (of a stream) or "round".
        releases: earliest start of each scheduled iteration, in seconds since the start; empty
            where nothing arrives late.
        resident: buffers that live from before the first iteration; sizes [world size] where ranks
            differ.
        counted: whether all sizes were counted on the real structure; `basis` says how they were
            estimated otherwise.
        notes: what a reader of the prediction may want to know.
    """

    approach: str
    world_size: int
    iterations: Sequence[Iteration]
    schedule: Sequence[int]
    periods: Sequence[int]
    period: str = "epoch"
    releases: Sequence[float] = ()
    resident: tuple[Buffer, ...] = ()
    counted: bool = True
    basis: str = "counted on the real graph"
    notes: Mapping[str, object] = field(default_factory=dict)

    @property
    def num_periods(self) -> int:
        return len(self.periods)

    @cached_property
    def starts(self) -> list[int]:
        """Place in the schedule at which each period starts, and the end of the last."""
        return [0, *accumulate(self.periods)]

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
        for index in dict.fromkeys(i for i in self.schedule if 0 <= i < len(self.iterations)):
            iteration = self.iterations[index]
            key = iteration.layout
            if key not in numbers:
                numbers[key] = len(numbers)
                samples.append(iteration)
            of[index] = numbers[key]
        return of, samples

    # -- memory ----------------------------------------------------------------------------------

    def peak_bytes(self, *spaces: Space, periods: int | None = None) -> Ints:
        """Highest sum of living buffers in some spaces together (by default the device's).

        In program order; int64 [world size]. On a CPU, device and host are one memory.
        """
        counted = spaces or (Space.DEVICE,)
        live: dict[str, Ints] = {}
        total = np.zeros(self.world_size, np.int64)
        for buffer in self.resident:
            if buffer.space in counted:
                live[buffer.name] = np.broadcast_to(np.asarray(buffer.bytes), total.shape).copy()
                total += live[buffer.name]
        peak = total.copy()
        for ranks, step in self.allocations(periods=periods):
            own = total[ranks]
            for buffer in step.allocates:
                if buffer.space not in counted:
                    continue
                held = live.setdefault(buffer.name, np.zeros(self.world_size, np.int64))
                before = held[ranks]
                after = buffer.bytes if buffer.exact else np.maximum(buffer.bytes, before)
                own = own + after - before
                held[ranks] = after
            peak[ranks] = np.maximum(peak[ranks], own)
            for name in step.frees:
                if name in live:
                    own = own - live[name][ranks]
                    live[name][ranks] = 0
            total[ranks] = own
        return peak

    def spaces(self) -> tuple[Space, ...]:
        """The spaces in which the plan has buffers."""
        used = {buffer.space for buffer in self.resident}
        for _, step in self.allocations():
            used.update(buffer.space for buffer in step.allocates)
        return tuple(space for space in Space if space in used)

    def allocations(self, *, periods: int | None = None) -> Iterator[tuple[Places, Step]]:
        """Yield the steps that allocate or free, and the ranks that take them, in program order.

        Repeats that change nothing are left out. An iteration leaves the same buffers however often
        it has run; only its second run in a row may find more of them alive than its first.
        """
        count = self.num_periods if periods is None else periods
        known: dict[int, tuple[list[tuple[Places, Step]], bool]] = {}
        before, runs = -1, 0
        for index in self.schedule[: self.starts[count]]:
            if index not in known:
                if len(known) > _ITERATIONS_KEPT:
                    known.clear()
                known[index] = _allocating(self.iterations[index])
            steps, frees = known[index]
            runs = runs + 1 if index == before else 1
            if runs == 1 or (frees and runs == 2):
                yield from steps
            before = index

    # -- identity --------------------------------------------------------------------------------

    def program_key(self, *, most_steps: int = 20_000) -> str:
        """A key that plans share whose ranks take the same steps in the first period.

        Names are left out: on one rank many approaches are one program. Plans of more steps have no
        key: "".
        """
        if sum(self.periods[:1]) > most_steps or self.num_steps() > most_steps:
            return ""
        content = [
            [[_content(step) for step in steps] for steps in iteration]
            for iteration in self.of_period(0)
        ]
        return hashlib.sha256(repr(content).encode()).hexdigest()[:16]

    # -- validity --------------------------------------------------------------------------------

    def validate(self) -> None:
        """Raise SpecError with every way in which the ranks' steps do not fit together.

        Linear in the number of steps; iterations that differ in sizes alone are checked once.
        """
        problems = _schedule_problems(self)
        of, samples = self.layouts
        first = {layout: index for index, layout in reversed(of.items())}
        for layout, iteration in enumerate(samples):
            where = f"{self.approach} iteration {first[layout]}"
            problems += _iteration_problems(where, iteration, self)
        if not problems:
            problems += _lag_problems(self, of, samples)
        if problems:
            raise SpecError(list(dict.fromkeys(problems)))


_ITERATIONS_KEPT = 64


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


# -- classes of ranks ----------------------------------------------------------------------------


def _head(step: Step) -> Hash:
    """What two steps must share to be those of one class."""
    work = step.work
    buffers = tuple((b.name, b.space, b.exact) for b in step.allocates)
    return (
        step.name, work.kind, work.op, step.lane, step.phase, step.layer, step.after, step.frees,
        buffers, work.unit_bytes, work.send is None,
    )  # fmt: skip


def _meetings(steps: Sequence[Step]) -> Hash:
    """Groups of a rank's collectives, numbered in order of first use."""
    numbers: dict[tuple[int, ...], int] = {}
    return tuple(numbers.setdefault(s.ranks, len(numbers)) for s in steps if s.group)


def _group_key(steps: Sequence[Step]) -> Hash:
    """Who meets whom in the steps of a class, and who is the root of broadcasts."""
    found: list[object] = []
    for step in steps:
        group = step.group
        if group:
            root = step.work.root
            found.append(
                (
                    (group.table, group.of.tobytes()) if isinstance(group, Groups) else group,
                    root if isinstance(root, int) else root.tobytes(),
                )
            )
    return tuple(found)


def _stacked(ranks: Sequence[int], programs: Sequence[Sequence[Step]]) -> RankClass:
    if len(ranks) == 1:
        return RankClass(ranks, programs[0])
    return RankClass(ranks, [_stack(steps) for steps in zip(*programs, strict=True)])


def _stack(steps: Sequence[Step]) -> Step:
    """One step of a class from those of its ranks."""
    first = steps[0]
    works = [step.work for step in steps]
    sizes: dict[str, Any] = {
        name: _together([getattr(work, name) for work in works]) for name in SIZES
    }
    if first.work.send is not None:
        sends = [work.send for work in works]
        sizes["send"] = np.stack([np.asarray(sent) for sent in sends])
    buffers = tuple(
        buffer._replace(bytes=_together([step.allocates[n].bytes for step in steps]))
        for n, buffer in enumerate(first.allocates)
    )
    return replace(
        first,
        work=first.work._replace(**sizes),
        group=_grouped([step.ranks for step in steps]),
        allocates=buffers,
    )


def _together(values: list[Any]) -> Any:
    first = values[0]
    return first if all(value == first for value in values) else np.array(values, np.int64)


def _grouped(groups: list[tuple[int, ...]]) -> tuple[int, ...] | Groups:
    table = dict.fromkeys(groups)
    if len(table) == 1:
        return groups[0]
    place = {group: number for number, group in enumerate(table)}
    return Groups(tuple(table), np.array([place[group] for group in groups], np.intp))


def _of_rank(step: Step, column: int) -> Step:
    """The step of one rank of a class, all of its sizes integers."""
    work = step.work
    sizes: dict[str, Any] = {
        name: pick(value, column)
        for name in SIZES
        if not isinstance(value := getattr(work, name), int)
    }
    if work.send is not None and work.send.ndim == 2:
        sizes["send"] = work.send[column]
    group = step.group
    buffers = tuple(b._replace(bytes=pick(b.bytes, column)) for b in step.allocates)
    return replace(
        step,
        work=work._replace(**sizes) if sizes else work,
        group=group.table[group.of[column]] if isinstance(group, Groups) else group,
        allocates=buffers,
    )


def _allocating(iteration: Iteration) -> tuple[list[tuple[Places, Step]], bool]:
    steps = [
        (of.ranks, step) for of in iteration.classes for step in of.steps
        if step.allocates or step.frees
    ]  # fmt: skip
    return steps, any(step.frees or any(b.exact for b in step.allocates) for _, step in steps)


def _content(step: Step) -> tuple[object, ...]:
    work = step.work
    sent = None if work.send is None else (work.send * work.unit_bytes).tolist()
    sizes = tuple(getattr(work, name) for name in SIZES)
    return (
        work.kind.value, work.op, str(step.lane), step.phase.value, sizes, step.ranks, sent,
        tuple(after.lag for after in step.after),
    )  # fmt: skip


# -- what is wrong with a plan -------------------------------------------------------------------


def _schedule_problems(plan: Plan) -> list[str]:
    problems = []
    if any(length < 1 for length in plan.periods) or sum(plan.periods) != len(plan.schedule):
        problems.append(
            f"{plan.approach}: a schedule of {len(plan.schedule)} iterations, but periods of "
            f"{sum(plan.periods)}"
        )
    problems += [
        f"{plan.approach}: the schedule names iteration {index} of {len(plan.iterations)}"
        for index in sorted(set(plan.schedule))
        if not 0 <= index < len(plan.iterations)
    ]
    if plan.releases and len(plan.releases) != len(plan.schedule):
        problems.append(
            f"{plan.approach}: {len(plan.releases)} release times for {len(plan.schedule)} "
            "scheduled iterations"
        )
    return problems


def _iteration_problems(where: str, iteration: Iteration, plan: Plan) -> list[str]:
    """What is wrong within one iteration: names, waits, and collectives that do not match."""
    if iteration.world_size != plan.world_size:
        return [f"{where}: steps for {iteration.world_size} ranks in a plan of {plan.world_size}"]
    problems: list[str] = []
    meetings = _Meetings(where)
    for of in iteration.classes:
        rank = int(of.ranks[0])
        problems += _mixed_groups(where, of)
        seen: set[str] = set()
        for step in of.steps:
            if step.name in seen:
                problems.append(f"{where} rank {rank}: two steps named {step.name!r}")
            for after in step.after:
                if after.lag < LATEST:
                    problems.append(
                        f"{where} rank {rank}: {step.name!r} waits with lag {after.lag}"
                    )
                elif after.lag == 0 and after.step not in seen:
                    problems.append(
                        f"{where} rank {rank}: {step.name!r} waits for {after.step!r}, "
                        "which is not an earlier step of the iteration"
                    )
            seen.add(step.name)
            if step.work.kind in COLLECTIVES:
                meetings.join(of, step)
    return problems + meetings.problems()


def _mixed_groups(where: str, of: RankClass) -> list[str]:
    """A class must join the same steps in the same groups: two steps share a group on all or none.

    Collectives are matched by their number within the group, which the ranks of a class share.
    """
    groups: dict[object, NDArray[np.object_]] = {}
    for step in of.steps:
        if isinstance(step.group, Groups):
            key = step.group.table, step.group.of.tobytes()
            if key not in groups:
                table = np.empty(len(step.group.table), object)
                table[:] = step.group.table
                groups[key] = table[step.group.of]
    each = list(groups.values())
    for number, one in enumerate(each):
        for other in each[number + 1 :]:
            same = [a == b for a, b in zip(one, other, strict=True)]
            if any(same) and not all(same):
                return [f"{where}: a class whose ranks join collectives in different patterns"]
    return []


class _Meetings:
    """Which collectives each rank joins in each group, by sets of ranks that join the same."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.wrong: list[str] = []
        # Per group: sets of ranks, each with what it joins in order.
        self.joined: dict[tuple[int, ...], dict[tuple[int, ...], list[tuple[str, int]]]] = {}

    def join(self, of: RankClass, step: Step) -> None:
        call = step.work.kind.value, step.layer
        for group, ranks in _groups_of(of, step):
            foreign = set(ranks).difference(group)
            if foreign:
                self.wrong.append(
                    f"{self.where} rank {min(foreign)}: {step.name!r} is of a foreign group "
                    f"{_short(group)}"
                )
            else:
                self.joined.setdefault(group, {}).setdefault(ranks, []).append(call)

    def problems(self) -> list[str]:
        problems = self.wrong
        for group, calls in self.joined.items():
            by_rank = {rank: called for ranks, called in calls.items() for rank in ranks}
            first = by_rank.get(group[0], [])
            for rank in group[1:]:
                if by_rank.get(rank, []) != first:
                    problems.append(
                        f"{self.where}: ranks {group[0]} and {rank} disagree on the collectives "
                        f"of group {_short(group)}: {first} against {by_rank.get(rank, [])}"
                    )
                    break
        return problems


def _groups_of(of: RankClass, step: Step) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The groups in which ranks of a class take a step, each with those ranks."""
    group = step.group
    if not isinstance(group, Groups):
        return [(group, tuple(of.ranks.tolist()))]
    return [
        (group.table[number], tuple(of.ranks[group.of == number].tolist()))
        for number in np.unique(group.of).tolist()
    ]


def _lag_problems(plan: Plan, of: Mapping[int, int], samples: Sequence[Iteration]) -> list[str]:
    """Waits for a step of an earlier iteration that does not have it.

    `of` gives the layout of each distinct iteration, `samples` an iteration of each layout.
    """
    waits = [
        [
            (class_, step.name, after)
            for class_ in sample.classes
            for step in class_.steps
            for after in step.after
            if after.lag
        ]
        for sample in samples
    ]
    if not any(waits):
        return []
    names = [[{s.name for s in c.steps} for c in sample.classes] for sample in samples]

    def lacking(class_: RankClass, name: str, layout: int) -> int | None:
        """A rank of the class that has no step of this name in a layout."""
        which = samples[layout].places()[0][class_.ranks]
        for rank, place in zip(class_.ranks.tolist(), which.tolist(), strict=True):
            if name not in names[layout][place]:
                return int(rank)
        return None

    problems: list[str] = []
    checked: set[tuple[int, int, int]] = set()
    schedule = [of[index] for index in plan.schedule]
    for number, layout in enumerate(schedule):
        for place, (class_, step, after) in enumerate(waits[layout]):
            if after.lag > number:
                continue
            then = schedule[number - after.lag] if after.lag > 0 else LATEST
            if (layout, then, place) in checked:
                continue
            checked.add((layout, then, place))
            candidates = range(len(samples)) if after.lag == LATEST else (then,)
            lacks = [lacking(class_, after.step, one) for one in candidates]
            if all(rank is not None for rank in lacks):
                told = "the latest " if after.lag == LATEST else ""
                where = "no iteration has" if after.lag == LATEST else "is not in the iteration"
                problems.append(
                    f"{plan.approach} rank {lacks[0]}: {step!r} waits for {told}{after.step!r}, "
                    f"which {where}" + (f" {after.lag} before" if after.lag > 0 else "")
                )
    return problems


def _short(group: Sequence[int]) -> str:
    return str(tuple(group)) if len(group) <= 8 else f"({group[0]}, ..., {group[-1]})"
