"""Sizes of batches estimated from degrees, corrected by batches that were counted.

Neighbours of a vertex share neighbours, and seeds lie together, so that batches of a real graph
have fewer vertices than its degrees expect. By how much depends on the size of the batch: overlap
around one seed counts in small batches, and saturation of the whole graph in large ones. The ratio
of counted to estimated vertices is therefore interpolated between counted batches, hop by hop.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from functools import cache

import numpy as np

from gnnbench.data.frontier import Sizes, occupancy_frontier
from gnnbench.data.reach import Histogram

Counted = tuple[tuple[int, ...], Sizes, Sizes]
"""A counted batch: fan-outs from the seeds, sizes estimated from degrees, and counted sizes."""


OTHER_SIZES = (1 / 64, 1 / 16, 1 / 4, 8)
"""A profile also counts batches that are smaller or larger by these factors."""
REFERENCE_FANOUTS = ((4, 4, 4), (16, 16, 16))
"""A profile also counts batches of these fan-outs, between which others are interpolated."""


def counted_batches(
    asked: Sequence[Sequence[int]], batch: int, num_train: int
) -> list[tuple[tuple[int, ...], int]]:
    """Fan-outs and seeds of the batches that are counted: those asked for first.

    Between the others, sizes of any batch are interpolated.
    """
    if not num_train:
        return []
    sizes = [max(1, min(round(batch * factor), num_train)) for factor in OTHER_SIZES]
    every = [*map(tuple, asked), *REFERENCE_FANOUTS]
    found = [(tuple(f), min(batch, num_train)) for f in asked]
    found += [(f, size) for f in every for size in (min(batch, num_train), *sizes)]
    return list(dict.fromkeys(found))


@cache
def by_degrees(
    histogram: Histogram,
    num_train: int,
    fanouts_from_seeds: tuple[int, ...],
    batch: int,
    *,
    undirected: bool,
) -> Sizes:
    """Expected sizes of a batch from the degrees of the whole graph, see `occupancy_frontier`."""
    return occupancy_frontier(
        *histogram, num_train, fanouts_from_seeds, batch, undirected=undirected
    )


def corrected(
    estimated: Sizes,
    fanouts_from_seeds: Sequence[int],
    counted: Sequence[Counted],
    num_nodes: int,
) -> Sizes:
    """Multiply estimated sizes by the ratio that similar counted batches have.

    Of batches of one list of fan-outs, the logarithm of the ratio is linear in the logarithm of the
    estimated vertices; between lists, in the logarithm of their mean fan-out up to the hop. Beyond
    the outermost ones it stays. A hop beyond those counted has the ratio of the last counted hop.
    Edges grow with the vertices that draw them.

    Args:
        estimated: n_0 ... n_L and e_1 ... e_L.
        fanouts_from_seeds: of the batch.
        counted: other batches.
        num_nodes: of the graph.
    """
    if not counted:
        return estimated
    vertices, edges = (list(reversed(sizes)) for sizes in estimated)
    found, drawn = [vertices[0]], []
    for hop, size in enumerate(vertices[1:], 1):
        drawn.append(edges[hop - 1] * found[-1] / max(vertices[hop - 1], 1e-300))
        ratio = math.exp(_log_ratio(size, fanouts_from_seeds[:hop], counted))
        most = min(found[-1] + drawn[-1], float(num_nodes))
        found.append(min(max(ratio * size, found[-1]), most))
    return tuple(reversed(found)), tuple(reversed(drawn))


def _log_ratio(size: float, fanouts: Sequence[int], counted: Sequence[Counted]) -> float:
    """Logarithm of counted over estimated vertices after hops at which so many are estimated."""
    hop = min(len(fanouts), max(len(lists) for lists, _, _ in counted))
    of_list: dict[float, list[tuple[float, float]]] = defaultdict(list)
    for lists, (estimate, _), (count, _) in counted:
        if len(lists) >= hop and estimate[-1 - hop] > 0 and count[-1 - hop] > 0:
            ratio = math.log(count[-1 - hop] / estimate[-1 - hop])
            of_list[_mean_fanout(lists[:hop])].append((math.log(estimate[-1 - hop]), ratio))
    if not of_list or size <= 0:
        return 0.0
    ratios = {}
    for mean, points in of_list.items():
        places, logs = zip(*sorted(points), strict=True)
        ratios[mean] = float(np.interp(math.log(size), places, logs))
    means = sorted(ratios)
    return float(np.interp(_mean_fanout(fanouts), means, [ratios[mean] for mean in means]))


def _mean_fanout(fanouts: Sequence[int]) -> float:
    """Mean logarithm of the fan-outs; taking all neighbours counts as a fan-out of 100."""
    return math.fsum(math.log(f if f > 0 else _ALL) for f in fanouts) / max(len(fanouts), 1)


_ALL = 100.0
