"""An iteration's steps told apart: each object once, ranks with like programs, and collectives.

Plans of many ranks share equal steps, and collectives of like groups move like bytes. What is the
same is looked at once: a plan of a million steps on 1,024 ranks has some ten thousand of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gnnbench.costs.facts import Floats
from gnnbench.plan import COLLECTIVES, RankSteps
from gnnbench_simulator.network import NO_ROOT, Network, Timing

Ints = npt.NDArray[np.intp]
LOCAL = -1


class Catalogue:
    """The steps of an iteration, each object once.

    steps      distinct step objects, in order of first use
    rows       per rank, where its steps are in `steps`
    group_of   per step, its group's place in `groups`; LOCAL if it has none
    """

    def __init__(self, ranks_steps: Sequence[RankSteps]) -> None:
        programs = {id(steps): steps for steps in ranks_steps}
        self.steps = list({id(s): s for steps in programs.values() for s in steps}.values())
        place = {id(step): i for i, step in enumerate(self.steps)}
        rows = {
            key: np.fromiter(map(place.__getitem__, map(id, steps)), np.intp, len(steps))
            for key, steps in programs.items()
        }
        self.rows = [rows[id(steps)] for steps in ranks_steps]
        self.groups: list[tuple[int, ...]] = []
        self.group_of = self._group_numbers()

    def _group_numbers(self) -> Ints:
        by_object: dict[int, int] = {}
        by_ranks: dict[tuple[int, ...], int] = {}
        numbers = np.full(len(self.steps), LOCAL, np.intp)
        for i, step in enumerate(self.steps):
            if step.kind not in COLLECTIVES:
                continue
            number = by_object.get(id(step.group))
            if number is None:
                number = by_ranks.setdefault(step.group, len(by_ranks))
                by_object[id(step.group)] = number
            numbers[i] = number
        self.groups = list(by_ranks)
        return numbers

    def classes(self) -> list[Members]:
        """Ranks whose programs are alike, in order of each class's first rank."""
        marks = self._marks()
        found: dict[tuple[bytes, bytes], list[int]] = {}
        patterns: dict[tuple[bytes, bytes], tuple[Ints, Ints]] = {}
        for rank, row in enumerate(self.rows):
            numbers = self.group_of[row]
            places = np.flatnonzero(numbers != LOCAL)
            local, sequence = _sequences(numbers[places])
            key = marks[row].tobytes(), local.tobytes()
            found.setdefault(key, []).append(rank)
            patterns.setdefault(key, (places, sequence))
        return [
            Members(
                ranks=ranks,
                steps=np.array([self.rows[rank] for rank in ranks], np.intp),
                places=patterns[key][0],
                sequence=patterns[key][1],
            )
            for key, ranks in found.items()
        ]

    def _marks(self) -> Ints:
        """One number for steps that differ in sizes and peers alone."""
        known: dict[tuple[object, ...], int] = {}
        marks = np.empty(len(self.steps), np.intp)
        for i, s in enumerate(self.steps):
            key = (s.name, s.kind, s.lane, s.op, s.after, s.release_s, s.puts, s.takes)
            marks[i] = known.setdefault(key, len(known))
        return marks


@dataclass(frozen=True, slots=True, kw_only=True)
class Meeting:
    """A collective as the ranks of a class take part in it; arrays are over the ranks.

    groups     which entry of `Iteration.groups` each is in
    sequence   its place among the collectives of the group
    seconds    the transfer, from the last arrival to the end
    idle       what of the seconds ranks only wait for one another, and keep no core busy
    members    of broadcasts down a tree (see `tree`): each rank's place in it, counted from the
               root; NO_ROOT: the ranks of its group leave together
    """

    groups: Ints
    sequence: int
    seconds: Floats
    idle: Floats
    members: Ints


@dataclass(slots=True)
class Members:
    """A class of ranks: same steps but for sizes, collectives at the same places of their groups.

    steps      places in the catalogue, (ranks, steps)
    places     which of the steps are collectives
    sequence   of each collective, its place among those of its group
    """

    ranks: list[int]
    steps: Ints
    places: Ints
    sequence: Ints


def _sequences(numbers: Ints) -> tuple[Ints, Ints]:
    """Groups numbered in order of first use, and how often each was used before, per collective."""
    order: dict[int, int] = {}
    counts: dict[int, int] = {}
    local, sequence = np.empty(len(numbers), np.intp), np.empty(len(numbers), np.intp)
    for i, number in enumerate(numbers.tolist()):
        local[i] = order.setdefault(number, len(order))
        sequence[i] = counts.get(number, 0)
        counts[number] = counts.get(number, 0) + 1
    return local, sequence


class Collectives:
    """Match collectives across ranks by (group, sequence in program order) and time them."""

    def __init__(self, catalogue: Catalogue, classes: Sequence[Members], network: Network) -> None:
        self.catalogue, self.network = catalogue, network
        most = np.zeros(len(catalogue.groups), np.intp)
        for members in classes:
            if len(members.places):
                used = catalogue.group_of[members.steps[:, members.places]]
                counts = np.broadcast_to(members.sequence + 1, used.shape)
                np.maximum.at(most, used.ravel(), counts.ravel())
        self._first = np.concatenate([[0], np.cumsum(most)]).astype(np.intp)
        self._seconds, self._idle, self._roots = self._time(classes)

    def meetings(self, members: Members) -> list[Meeting]:
        """The collectives of a class, in the order of its program."""
        groups, numbers = self._groups(members), self._numbers(members)
        places = self._places(members, groups, self._roots[numbers])
        columns = self._seconds[numbers].T, self._idle[numbers].T, places.T
        return [
            Meeting(groups=group, sequence=sequence, seconds=seconds, idle=idle, members=placed)
            for group, sequence, seconds, idle, placed in zip(
                groups.T, members.sequence.tolist(), *columns, strict=True
            )
        ]

    def _groups(self, members: Members) -> Ints:
        found: Ints = self.catalogue.group_of[members.steps[:, members.places]]
        return found

    def _numbers(self, members: Members) -> Ints:
        """Where each rank's collectives stand among all, (ranks, collectives)."""
        numbers: Ints = self._first[self._groups(members)] + members.sequence
        return numbers

    def _places(self, members: Members, groups: Ints, roots: Ints) -> Ints:
        """Each rank's place from the root of its broadcast, NO_ROOT in other collectives."""
        places = np.full(groups.shape, NO_ROOT, np.intp)
        for row, rank in enumerate(members.ranks):
            for group in np.unique(groups[row][roots[row] != NO_ROOT]).tolist():
                ranks = self.catalogue.groups[group]
                own = (groups[row] == group) & (roots[row] != NO_ROOT)
                places[row, own] = (ranks.index(rank) - roots[row, own]) % len(ranks)
        return places

    def _time(self, classes: Sequence[Members]) -> tuple[Floats, Floats, Ints]:
        """Of each collective: its seconds, those of them without a core, the place of its root."""
        count = int(self._first[-1])
        seconds, idle, roots = np.zeros(count), np.zeros(count), np.full(count, NO_ROOT, np.intp)
        if not count:
            return seconds, idle, roots
        tables = [(members, self._numbers(members)) for members in classes]
        numbers = np.concatenate([table.ravel() for _, table in tables])
        steps = np.concatenate([m.steps[:, m.places].ravel() for m, _ in tables])
        ranks = np.concatenate([np.repeat(m.ranks, len(m.places)) for m, _ in tables])
        order = np.lexsort((ranks, numbers))
        numbers, steps = numbers[order], steps[order]
        facts = self._facts()[steps].tobytes()
        width = np.dtype(np.intp).itemsize
        starts = np.flatnonzero(np.diff(numbers, prepend=-1))
        layouts = [self._layout(group) for group in self.catalogue.groups]
        known: dict[tuple[object, ...], Timing] = {}
        group_of = self.catalogue.group_of[steps[starts]].tolist()
        ends = [*starts[1:].tolist(), len(numbers)]
        for number, group, start, end in zip(
            numbers[starts].tolist(), group_of, starts.tolist(), ends, strict=True
        ):
            key = layouts[group], facts[start * width : end * width]
            if key not in known:
                known[key] = self._one(group, ranks[order[start:end]], steps[start:end])
            timing = known[key]
            seconds[number], idle[number] = timing.seconds, timing.idle_s
            roots[number] = timing.root
        return seconds, idle, roots

    def _one(self, group: int, ranks: Ints, steps: Ints) -> Timing:
        members = self.catalogue.groups[group]
        by_rank = dict(zip(ranks.tolist(), steps.tolist(), strict=True))
        there = [self.catalogue.steps[by_rank[rank]] for rank in members if rank in by_rank]
        return self.network.collective(there, members)

    def _layout(self, group: tuple[int, ...]) -> tuple[object, ...]:
        """What of a group's ranks its collectives' time can rest on: which of them share hosts."""
        hosts = np.array([self.network.host_of(rank) for rank in group])
        return len(group), (hosts - hosts[0]).tobytes(), np.argsort(group).tobytes()

    def _facts(self) -> Ints:
        """One number for steps that take the same time in the same group."""
        known: dict[tuple[object, ...], int] = {}
        facts = np.zeros(len(self.catalogue.steps), np.intp)
        for i, s in enumerate(self.catalogue.steps):
            if s.kind in COLLECTIVES:
                key = (s.kind, s.op, s.bytes, s.buffer_bytes, s.rows, s.width, s.send_bytes)
                facts[i] = known.setdefault(key, len(known))
        return facts
