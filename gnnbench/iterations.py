"""Classes of ranks and iterations: the steps of all ranks, kept small.

Ranks that take the same steps with different sizes form a class, whose steps hold arrays of sizes.
Iterations that all differ are made lazily, one at a time (`LazyIterations`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from gnnbench.reuse import stacked
from gnnbench.steps import SIZES, Groups, Step, pick

RankSteps = tuple[Step, ...]
Places = NDArray[np.intp]
Hash = tuple[object, ...]


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
        """The steps of one rank, given its index in the class."""
        return tuple(_of_rank(step, column) for step in self.steps)

    @property
    def template(self) -> Hash:
        """Everything except sizes; equal for classes that differ only in sizes."""
        if self._template is None:
            self._template = tuple(_head(step) for step in self.steps)
        return self._template

    def group_of(self, step: Step, column: int) -> tuple[int, ...]:
        """The group in which one rank of the class takes a step."""
        group = step.group
        return group.table[group.of[column]] if isinstance(group, Groups) else group


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
            # Ranks may be of one class only if their collectives meet in the same pattern: a class
            # whose members mix two patterns could not be scheduled as one.
            alike.setdefault((*map(_head, steps), *_meetings(steps)), []).append(rank)
        made = cls(
            [_stacked(ranks, [programs[rank] for rank in ranks]) for ranks in alike.values()]
        )
        # The steps were just written, so that taking them out of the class again would be waste.
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
        # Computed on first use: replay of a plan with many iterations never asks for most of them.
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
        """Everything except sizes, on every rank: equal if iterations differ only in sizes."""
        return tuple((of.template, of.ranks.tobytes(), _group_key(of.steps)) for of in self.classes)


class LazyIterations(Sequence[Iteration]):
    """Iterations made on demand. The last few are kept in memory.

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
        # A dropped iteration is made again, not stored: ten thousand iterations of a large plan
        # would not fit in memory.
        if index not in self._kept:
            self._kept[index] = self._make(index)
            while len(self._kept) > self._keep:
                self._kept.popitem(last=False)
        return self._kept[index]


def _head(step: Step) -> Hash:
    """What two steps must share to be those of one class."""
    work = step.work
    buffers = tuple((b.name, b.space, b.exact) for b in step.allocates)
    return (
        step.name,
        work.kind,
        # Sizes are absent on purpose: they are what ranks of a class may differ in. Whether a split
        # or a reuse profile is stated must agree, because arrays are stacked.
        work.op,
        step.lane,
        step.phase,
        step.layer,
        step.after,
        step.frees,
        buffers,
        work.unit_bytes,
        work.send is None,
        work.reuse is None,
    )


def _meetings(steps: Sequence[Step]) -> Hash:
    """Groups of a rank's collectives, numbered in order of first use."""
    # Numbers replace the groups themselves: ranks 0-1 and ranks 2-3 that meet in the same pattern
    # are alike.
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
    # A class of one rank keeps its integers: arrays of one entry would cost time in every later
    # sum.
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
    if first.work.reuse is not None:
        sizes["reuse"] = stacked(work.reuse for work in works)
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
    # One integer where all agree saves memory and keeps the arithmetic of the simulator scalar.
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
    if work.reuse is not None and work.reuse.shares.ndim == 2:
        sizes["reuse"] = work.reuse.of_rank(column)
    group = step.group
    buffers = tuple(b._replace(bytes=pick(b.bytes, column)) for b in step.allocates)
    return replace(
        step,
        work=work._replace(**sizes) if sizes else work,
        group=group.table[group.of[column]] if isinstance(group, Groups) else group,
        allocates=buffers,
    )
