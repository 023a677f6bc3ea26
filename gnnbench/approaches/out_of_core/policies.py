"""Ordering policies: which partitions lie in the buffer, one state after the other.

Legend: p partitions, capacity c of the buffer, l logical partitions of g = p / l physical ones,
c_l = c / g. A state is the set of partitions that are resident at once.

BETA swaps one partition at a time until every pair of partitions has met; COMET does so with groups
of partitions that are drawn anew in every epoch, and defers edge buckets at random. SEQUENTIAL has
one state, in which the training partitions are pinned; DISPERSED brings every partition in once.

Source: Mohoney et al., "Marius", OSDI 2021 (BETA); Waleffe et al., "MariusGNN", EuroSys 2023;
out-of-core reference sections 4.1, 4.2, 4.4 and 4.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gnnbench.data import keys
from gnnbench.steps import Ints

States = list[Ints]
"""Resident partitions of each state, rising, int64 [c]."""
_GROUPS, _ORDER, _ITEMS = 101, 102, 103
"""Counters that tell the draws of an epoch apart."""


# -- states --------------------------------------------------------------------------------------


def beta(partitions: int, capacity: int, rng: np.random.Generator) -> States:
    """States of BETA: consecutive ones differ by one partition, and every pair meets."""
    order = rng.permutation(partitions)
    inside, outside = order[:capacity], order[capacity:]
    states = [np.sort(inside)]
    while len(outside):
        inside, outside = rng.permutation(inside), rng.permutation(outside)
        for place in range(len(outside)):
            # The partition that leaves the last slot takes the newcomer's place on the disk.
            inside[-1], outside[place] = outside[place], inside[-1]
            states.append(np.sort(inside))
        outside = rng.permutation(outside)
        done = min(capacity - 1, len(outside))
        for place in range(done):
            inside[place] = outside[place]
            states.append(np.sort(inside))
        outside = outside[done:]
    return states


def comet(partitions: int, capacity: int, logical: int, rng: np.random.Generator) -> States:
    """States of COMET: BETA over groups of physical partitions, which are drawn at random."""
    size = partitions // logical
    groups = rng.permutation(partitions).reshape(logical, size)
    return [np.sort(groups[state].ravel()) for state in beta(logical, capacity // size, rng)]


def sequential(partitions: int, capacity: int, training: int, rng: np.random.Generator) -> States:
    """The one state of SEQUENTIAL: the first `training` partitions, and others at random."""
    others = training + rng.permutation(partitions - training)[: capacity - training]
    return [np.sort(np.concatenate([np.arange(training), others])).astype(np.int64)]


def dispersed(partitions: int, capacity: int, rng: np.random.Generator) -> States:
    """States of DISPERSED: a random resident makes room for the next that was never resident."""
    order = rng.permutation(partitions)
    inside = order[:capacity].copy()
    states = [np.sort(inside)]
    for new in order[capacity:]:
        inside[rng.integers(capacity)] = new
        states.append(np.sort(inside))
    return states


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A policy with its sizes: the states of any epoch, and where the epoch's work is done.

    Args:
        name: beta, comet, sequential or dispersed.
        partitions, capacity: physical ones.
        logical: groups of COMET; the others take no notice.
        training: partitions that SEQUENTIAL pins.
        seed: of the run.
    """

    name: str
    partitions: int
    capacity: int
    logical: int = 0
    training: int = 0
    seed: int = 0

    def states(self, epoch: int) -> States:
        """The states of an epoch, in order."""
        p, c, rng = self.partitions, self.capacity, keys.generator(self.seed, epoch, _ORDER)
        if self.name == "comet":
            return comet(p, c, self.logical, rng)
        if self.name == "sequential":
            return sequential(p, c, self.training, rng)
        return (beta if self.name == "beta" else dispersed)(p, c, rng)

    def states_of_buckets(self, epoch: int, states: States) -> NDArray[np.int32]:
        """The state in which each edge bucket (i, j) is trained on, int32 [p, p].

        BETA takes the first state in which both partitions are resident, COMET one at random.
        """
        count = np.zeros((self.partitions, self.partitions), np.int32)
        left = np.zeros_like(count)
        if self.name == "comet":
            for state in states:
                count[np.ix_(state, state)] += 1
            draws = keys.generator(self.seed, epoch, _ITEMS).random(count.shape[0] ** 2)
            left = np.minimum((draws.reshape(count.shape) * count).astype(np.int32), count - 1)
        found = np.full(count.shape, -1, np.int32)
        for number, state in enumerate(states):
            block = np.ix_(state, state)
            here, wait = found[block], left[block]
            here[(wait == 0) & (here < 0)] = number
            found[block], left[block] = here, wait - 1
        return found

    def states_of_rows(
        self, epoch: int, states: States, partition_of: NDArray[np.integer]
    ) -> NDArray[np.int32]:
        """The state in which each row is trained on: one at random in which it is resident."""
        resident = np.concatenate(states)
        numbers = np.repeat(np.arange(len(states), dtype=np.int32), [len(s) for s in states])
        by_partition = numbers[np.argsort(resident, kind="stable")]
        count = np.bincount(resident, minlength=self.partitions)
        start, own = np.cumsum(count) - count, count[partition_of]
        draws = keys.generator(self.seed, epoch, _ITEMS).random(len(partition_of))
        chosen = np.minimum((draws * own).astype(np.int64), own - 1)
        found: NDArray[np.int32] = by_partition[start[partition_of] + chosen]
        return found


def residency(states: States, partitions: int) -> NDArray[np.bool_]:
    """Whether each partition is resident in each state, bool [states, p]."""
    there = np.zeros((len(states), partitions), bool)
    for number, state in enumerate(states):
        there[number, state] = True
    return there


# -- closed forms --------------------------------------------------------------------------------


def beta_swaps(partitions: int, capacity: int) -> int:
    """S(p, c): swaps of BETA in an epoch (reference section 4.1)."""
    left, swaps = partitions - capacity, 0
    while left:
        done = min(capacity - 1, left)
        swaps += left + done
        left -= done
    return swaps


def swaps_bound(partitions: int, capacity: int) -> int:
    """The fewest swaps with which every pair of partitions can meet."""
    p, c = partitions, capacity
    return -(-(p * (p - 1) // 2 - c * (c - 1) // 2) // (c - 1)) if c > 1 else 0


def swaps(policy: Policy) -> tuple[int, int]:
    """Swaps of an epoch, and the partitions that each brings in."""
    p, c = policy.partitions, policy.capacity
    if policy.name == "comet":
        size = p // policy.logical
        return beta_swaps(policy.logical, c // size), size
    return {"beta": beta_swaps(p, c), "sequential": 0, "dispersed": p - c}[policy.name], 1


def partition_reads(policy: Policy) -> int:
    """Partitions read in an epoch: the first fill, and what each swap brings in."""
    times, size = swaps(policy)
    return policy.capacity + times * size


def bucket_reads(policy: Policy) -> int:
    """Buckets read in an epoch if all resident ones are held: c^2 + S (2 c n - n^2)."""
    times, size = swaps(policy)
    c = policy.capacity
    return c * c + times * (2 * c * size - size * size)


def problems(name: str, partitions: int, capacity: int, logical: int) -> str | None:
    """Why a policy cannot have such sizes, or None."""
    p, c = partitions, capacity
    if c > p:
        return f"buffer: found {c}, allowed at most the {p} partitions"
    if name == "beta" and c < 2 and p > 1:
        return f"buffer: found {c}, and two partitions must meet in it: make it 2 or more"
    if name != "comet" or p == 1:
        return None
    if p % logical:
        divisors = [count for count in range(2, p + 1) if p % count == 0]
        near = sorted(sorted(divisors, key=lambda count: abs(count - logical))[:3])
        return (
            f"logical: found {logical}, which does not divide the {p} partitions; allowed for "
            f"example {', '.join(map(str, near))}"
        )
    size = p // logical
    if c % size:
        return (
            f"buffer: found {c}, allowed multiples of the {size} partitions of a logical one, "
            f"such as {max(2 * size, c // size * size)}"
        )
    if c < 2 * size and logical > 1:
        return (
            f"buffer: found {c}, and two logical partitions of {size} must meet in it: make it "
            f"{2 * size} or more, or logical {2 * p // c} or more"
        )
    return None
