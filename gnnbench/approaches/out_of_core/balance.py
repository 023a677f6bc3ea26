"""How evenly a policy spreads an epoch's edge buckets over states and over vertices.

COMET reads more than BETA at the same buffer. What it buys is even work between swaps, and edges in
a more random order. Both are functions of the order alone.

Source: Waleffe et al., "MariusGNN", EuroSys 2023; out-of-core reference section 4.2, whose table
uses partitions in the place of vertices for the bias.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from gnnbench.approaches.out_of_core.policies import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """Of one epoch, with as many edges in every bucket.

    Args:
        partition_reads: partitions read, in tables: 1 is every partition once.
        largest_state: buckets of the largest state over those of the mean one that has any.
        permutation_bias: largest difference between partitions, at the end of any state, of the
            share of their edges that is done; 0 is an order without bias.
    """

    partition_reads: float
    largest_state: float
    permutation_bias: float


def balance(policy: Policy, epoch: int) -> Balance:
    """Measure an epoch of BETA or COMET."""
    states = policy.states(epoch)
    state_of = policy.states_of_buckets(epoch, states)
    p, count = policy.partitions, len(states)
    buckets = np.bincount(state_of.ravel(), minlength=count)
    # Buckets (i, j) and (j, i) are edges of both partitions.
    per_partition = np.zeros((count, p), np.int64)
    np.add.at(per_partition, (state_of, np.arange(p)[:, None]), 1)
    np.add.at(per_partition, (state_of, np.arange(p)[None, :]), 1)
    done = np.cumsum(per_partition, axis=0) / per_partition.sum(axis=0)
    reads = len(states[0]) + sum(
        len(np.setdiff1d(after, before, assume_unique=True)) for before, after in pairwise(states)
    )
    return Balance(
        partition_reads=reads / p,
        largest_state=float(buckets.max() / buckets[buckets > 0].mean()),
        permutation_bias=float((done.max(axis=1) - done.min(axis=1)).max()),
    )
