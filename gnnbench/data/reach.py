"""Batches of a graph of which only the number of input vertices was counted.

Training vertices that lie together read the same part of the graph again and again, which degrees
do not show: of ogbn-papers100M, 8,000 seeds reach a fifth of the vertices that degrees expect. The
batch grows as in a smaller graph of the same degrees, of a size that meets the count. All batches
grow in the same part of the graph: vertices outside of it are never read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.frontier import Sizes, occupancy_frontier, occupancy_inclusion

_SAME = 1.1
"""Expected over counted vertices up to which degrees say enough."""
_STEPS = 40

Floats = NDArray[np.float64]
Histogram = tuple[tuple[float, ...], tuple[float, ...]]


Counted = tuple[tuple[int, ...], int, float]
"""Fan-outs from the seeds, seeds, and the input vertices that batches of them had."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Inclusion:
    """Classes of vertices, and their chances to be in a batch: float64 [classes] each.

    Args:
        rows: vertices of a class.
        degree: of each of them.
        seed: chance to be a seed.
        chance: chance to be an input vertex, seeds included; 0 outside the part that batches reach.
    """

    rows: Floats
    degree: Floats
    seed: Floats
    chance: Floats


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
    share = nearest_share(
        histogram, num_train, fanouts_from_seeds, batch, counted, undirected=undirected
    )
    return frontier_within(
        share, histogram, num_train, fanouts_from_seeds, batch, undirected=undirected
    )


def nearest_share(
    histogram: Histogram,
    num_train: int,
    fanouts_from_seeds: Sequence[int],
    batch: int,
    counted: Sequence[Counted],
    *,
    undirected: bool,
) -> float:
    """Share of the vertices that batches reach, by the count of the most similar batch; else 1."""

    def draws(fanouts: Sequence[int], seeds: int) -> float:
        return math.log(seeds * math.prod(max(f, 1) for f in fanouts) + 1.0)

    if not counted:
        return 1.0
    wanted = draws(fanouts_from_seeds, batch)
    near = min(counted, key=lambda point: abs(draws(point[0], point[1]) - wanted))
    return reached_share(histogram, num_train, *near, undirected=undirected)


def frontier_within(
    share: float,
    histogram: Histogram,
    num_train: int,
    fanouts_from_seeds: Sequence[int],
    batch: int,
    *,
    undirected: bool,
    computation_graph: str = "per_layer",
) -> Sizes:
    """Expected sizes in a graph with a share of the vertices, as `occupancy_frontier`."""
    values, fewer, train = _within(share, histogram, num_train)
    return occupancy_frontier(
        values,
        fewer,
        train,
        fanouts_from_seeds,
        batch,
        computation_graph,
        undirected=undirected,
    )


def inclusion_within(
    share: float,
    histogram: Histogram,
    num_train: int,
    fanouts_from_seeds: Sequence[int],
    batch: int,
    *,
    undirected: bool,
) -> Inclusion:
    """Chances of vertices to be in a batch that grows in a share of the graph.

    Classes are the bins of the histogram: training vertices in reach, others in reach, and, where
    the share is below 1, the vertices out of reach.
    """
    values, fewer, train = _within(share, histogram, num_train)
    rows, chance = occupancy_inclusion(
        values, fewer, train, fanouts_from_seeds, batch, undirected=undirected
    )
    degree = np.tile(np.asarray(values, float), 2)
    seed = np.zeros(len(rows))
    seed[: len(values)] = min(batch / max(train, 1), 1.0)
    if share < 1.0:
        outside = (1.0 - share) * np.asarray(histogram[1], float)
        rows = np.concatenate([rows, outside])
        degree = np.concatenate([degree, np.asarray(values, float)])
        seed = np.concatenate([seed, np.zeros(len(outside))])
        chance = np.concatenate([chance, np.zeros(len(outside))])
    return Inclusion(rows=rows, degree=degree, seed=seed, chance=chance)


def _within(
    share: float, histogram: Histogram, num_train: int
) -> tuple[tuple[float, ...], tuple[float, ...], int]:
    """Degrees, vertices and training vertices of a part of the graph."""
    values, counts = histogram
    fewer = tuple(share * count for count in counts)
    return values, fewer, min(num_train, int(sum(fewer)))


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
