"""A broadcast over gloo's binomial tree.

Members count from the root. In round i every member below 2^i that has the buffer sends it to the
member 2^i above, so that a broadcast over P members has ceil(log2 P) rounds. A transfer begins when
its receiver is ready. A member continues once it has the buffer and the members to which it sends
have it, even if others are late. With two members the broadcast is a rendezvous; with more, ranks
run ahead of each other.

Source: the algorithm of gloo's broadcast and its rendezvous of sends with posted receives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import numpy.typing as npt

from gnnbench.costs.facts import Floats

Ints = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Tree:
    """The tree for a number of members.

    parents    sender of each member; the root's is itself
    rounds     round in which each member receives; the root's is -1
    children   receivers of each member, in order
    depth      number of rounds
    """

    parents: tuple[int, ...]
    rounds: tuple[int, ...]
    children: tuple[tuple[int, ...], ...]
    depth: int

    def slot(self, member: int) -> int:
        """How many rounds after its parent has the buffer a member's turn comes."""
        return self.rounds[member] - self.rounds[self.parents[member]] - 1


@cache
def tree_of(size: int) -> Tree:
    """The tree of a group of this size."""
    # Members 2^i to 2^(i+1) - 1 receive in round i; of the root, 0, this is -1.
    rounds = tuple(member.bit_length() - 1 for member in range(size))
    parents = tuple(member - (1 << at) if at >= 0 else 0 for member, at in enumerate(rounds))
    children: list[list[int]] = [[] for _ in range(size)]
    for member in range(1, size):
        children[parents[member]].append(member)
    return Tree(
        parents=parents,
        rounds=rounds,
        children=tuple(tuple(of) for of in children),
        depth=(size - 1).bit_length(),
    )


@dataclass(slots=True)
class Descent:
    """A broadcast in progress; arrivals of members are reported to it.

    `round_s` is the length of a round. An end is known as soon as all that it depends on is known,
    and never lies before the arrival that made it known, so that a clock need not turn back.
    """

    tree: Tree
    round_s: float
    arrived: dict[int, float] = field(default_factory=dict)
    has_s: dict[int, float] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        """Whether every member's end is known."""
        return len(self.has_s) == len(self.tree.parents)

    def arrive(self, member: int, time_s: float) -> list[tuple[int, float]]:
        """Note an arrival; return the members whose end is known by it, and their ends."""
        self.arrived[member] = time_s
        received = self._reach(member)
        concerned = dict.fromkeys(
            one for member in received for one in (member, self.tree.parents[member])
        )
        return [(one, self._end(one)) for one in concerned if self._settled(one)]

    def _reach(self, member: int) -> list[int]:
        """Pass the buffer on from a member; return all members that get it now, in order."""
        tree, found, open_ = self.tree, list[int](), [member]
        while open_:
            one = open_.pop()
            parent = tree.parents[one]
            # A child that is late is left out here; its own arrival begins with it again.
            if one not in self.arrived or (one and parent not in self.has_s):
                continue
            self.has_s[one] = self.arrived[one]
            if one:
                turn = self.has_s[parent] + tree.slot(one) * self.round_s
                self.has_s[one] = max(self.arrived[one], turn) + self.round_s
            found.append(one)
            open_ += tree.children[one]
        return found

    def _settled(self, member: int) -> bool:
        return member in self.has_s and all(c in self.has_s for c in self.tree.children[member])

    def _end(self, member: int) -> float:
        return max(self.has_s[one] for one in (member, *self.tree.children[member]))


@dataclass(frozen=True, slots=True)
class Descents:
    """Several broadcasts at once, for the replay: members of all groups in one array.

    Members are flat indices, group after group in the order of the tree.

    told       per part, which of its ranks take part, and their flat indices
    group_of   group of each flat index
    rounds, slots, parents, depths   of each flat index; parents are flat indices
    """

    told: tuple[tuple[Ints, Ints], ...]
    group_of: Ints
    rounds: Ints
    slots: Ints
    parents: Ints
    depths: Ints

    @classmethod
    def of(cls, parts: Sequence[tuple[Ints, Ints]]) -> Descents:
        """Lay out parts: the groups of their ranks, and places in the trees (-1: in none)."""
        takers = [np.flatnonzero(members >= 0) for _, members in parts]
        groups = [of[takes] for (of, _), takes in zip(parts, takers, strict=True)]
        members = [of[takes] for (_, of), takes in zip(parts, takers, strict=True)]
        numbers, index, sizes = np.unique(
            np.concatenate(groups), return_inverse=True, return_counts=True
        )
        firsts = np.cumsum(sizes) - sizes
        trees = [tree_of(int(size)) for size in sizes]
        flat = firsts[index.reshape(-1)] + np.concatenate(members)
        cuts = np.cumsum([len(takes) for takes in takers])[:-1]
        slots = [[tree.slot(member) for member in range(len(tree.parents))] for tree in trees]
        parents = [
            first + np.array(tree.parents) for first, tree in zip(firsts, trees, strict=True)
        ]
        return cls(
            told=tuple(zip(takers, np.split(flat, cuts), strict=True)),
            group_of=np.repeat(numbers, sizes),
            rounds=np.concatenate([tree.rounds for tree in trees]).astype(np.intp),
            slots=np.concatenate(slots).astype(np.intp),
            parents=np.concatenate(parents).astype(np.intp),
            depths=np.repeat([tree.depth for tree in trees], sizes),
        )

    def ends(
        self, arrivals: Sequence[Floats], seconds: Floats, together: Sequence[Floats]
    ) -> list[Floats]:
        """When each rank of each part leaves.

        Args:
            arrivals: of each part, (ranks, draws).
            seconds: of each group, (groups, draws).
            together: of each part, when ranks leave that are in no tree.
        """
        arrived = np.empty((len(self.parents), seconds.shape[1]))
        for (takes, flat), arrival in zip(self.told, arrivals, strict=True):
            arrived[flat] = arrival[takes]
        round_s = seconds[self.group_of] / self.depths[:, None]
        has = arrived.copy()
        # Round by round: whoever sends has received in an earlier one.
        for at in range(int(self.depths.max())):
            now = np.flatnonzero(self.rounds == at)
            turn = has[self.parents[now]] + self.slots[now][:, None] * round_s[now]
            has[now] = np.maximum(arrived[now], turn) + round_s[now]
        leave = has.copy()
        below = np.flatnonzero(self.rounds >= 0)
        # A parent occurs once per child; assignment by index would keep one of them.
        np.maximum.at(leave, self.parents[below], has[below])
        found = []
        for (takes, flat), end in zip(self.told, together, strict=True):
            own = end.copy()
            own[takes] = leave[flat]
            found.append(own)
        return found
