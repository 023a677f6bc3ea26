"""Batches of a graph of which only the number of input vertices was counted.

Training vertices that lie together read the same part of the graph again and again, which degrees
do not tell: of ogbn-papers100M, 8,000 seeds reach a fifth of the vertices that degrees expect. The
batch grows as in a smaller graph of the same degrees, of a size that meets the count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

from gnnbench.data.frontier import Sizes, occupancy_frontier

_SAME = 1.1
"""Expected over counted vertices up to which degrees say enough."""
_STEPS = 40

Histogram = tuple[tuple[float, ...], tuple[float, ...]]


Counted = tuple[tuple[int, ...], int, float]
"""Fan-outs from the seeds, seeds, and the input vertices that batches of them had."""


def expected_frontier(
    histogram: Histogram,
    num_train: int,
    fanouts_from_seeds: Sequence[int],
    batch: int,
    counted: Sequence[Counted],
    *,
    undirected: bool,
) -> Sizes:
    """Expected sizes of a batch, within the part of the graph that the nearest count reaches."""

    def draws(fanouts: Sequence[int], seeds: int) -> float:
        return math.log(seeds * math.prod(max(f, 1) for f in fanouts) + 1.0)

    share = 1.0
    if counted:
        wanted = draws(fanouts_from_seeds, batch)
        near = min(counted, key=lambda point: abs(draws(point[0], point[1]) - wanted))
        share = reached_share(histogram, num_train, *near, undirected=undirected)
    return frontier_within(
        share, histogram, num_train, fanouts_from_seeds, batch, undirected=undirected
    )


def frontier_within(
    share: float,
    histogram: Histogram,
    num_train: int,
    fanouts_from_seeds: Sequence[int],
    batch: int,
    *,
    undirected: bool,
) -> Sizes:
    """Expected sizes in a graph with a share of the vertices, as `occupancy_frontier`."""
    values, counts = histogram
    fewer = tuple(share * count for count in counts)
    train = min(num_train, int(sum(fewer)))
    return occupancy_frontier(
        values, fewer, train, fanouts_from_seeds, batch, undirected=undirected
    )


@cache
def reached_share(
    histogram: Histogram,
    num_train: int,
    fanouts_from_seeds: tuple[int, ...],
    batch: int,
    counted: float,
    *,
    undirected: bool,
) -> float:
    """Share of the vertices in which a batch has `counted` input vertices; 1 where all have."""

    def inputs(share: float) -> float:
        found = frontier_within(
            share, histogram, num_train, fanouts_from_seeds, batch, undirected=undirected
        )
        return found[0][0]

    if inputs(1.0) <= _SAME * counted:
        return 1.0
    low, high = max(counted, batch) / max(sum(histogram[1]), 1.0), 1.0
    for _ in range(_STEPS):
        middle = math.sqrt(low * high)
        if inputs(middle) > counted:
            high = middle
        else:
            low = middle
    return math.sqrt(low * high)
