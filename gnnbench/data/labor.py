"""LABOR: neighbour sampling in which all destinations share one random number per source.

One r_u in [0, 1) per vertex u and hop, the same on all ranks; edge (v, u) is kept iff
r_u < f / deg(v), with weight max(deg(v) / f, 1). So a vertex is drawn by many destinations or by
none, and a batch has fewer vertices than with independent draws of as many edges.

Source: Balin and Çatalyürek, "Layer-Neighbor Sampling", NeurIPS 2023 (LABOR-0); invariant SA-S8.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.data import keys
from gnnbench.data.draws import GOLDEN, compiled, mix64
from gnnbench.data.sampling import ROWS_PER_RANGE, Batch, Block, Ids, NeighbourSampler, number


class LaborSampler(NeighbourSampler):
    """Draw blocks by LABOR; see the module and `NeighbourSampler`.

    Args:
        indptr, indices, fanouts_from_seeds, seed, threads: as of `NeighbourSampler`; a vertex has
            min(fan-out, in-degree) picks on average.
        layer_dependency: whether all hops share each r_u, which makes layers overlap more.
    """

    def __init__(
        self,
        indptr: Ids,
        indices: NDArray[np.integer[Any]],
        fanouts_from_seeds: Sequence[int],
        seed: int,
        threads: int = 1,
        *,
        layer_dependency: bool = False,
    ) -> None:
        super().__init__(indptr, indices, fanouts_from_seeds, seed, threads)
        self.layer_dependency = layer_dependency

    def sample(self, seeds: Ids, epoch: int, step: int) -> Batch:
        """Return the blocks of these seeds."""
        self._shared_key = np.uint64(keys.fold(self.seed, epoch, step))
        self._scanned = 0
        batch = super().sample(seeds, epoch, step)
        return Batch(
            blocks=batch.blocks, input_nodes=batch.input_nodes, seeds=seeds, scanned=self._scanned
        )

    def _hop(self, num_dst: int, fanout: int, key: np.uint64) -> Block:
        if self.layer_dependency:
            key = self._shared_key
        picks = np.empty(num_dst, np.int64)
        degrees = np.empty(num_dst, np.int32)
        weights = np.empty(num_dst, np.float64)
        graph, nodes = (self.indptr, self.indices), self._nodes
        ranges = self._team.split(num_dst, ROWS_PER_RANGE)

        def count(start: int, stop: int) -> None:
            _count_labor(*graph, nodes, fanout, key, picks, degrees, weights, start, stop)

        self._team.run(count, ranges)
        indptr = np.zeros(num_dst + 1, np.int64)
        np.cumsum(picks, out=indptr[1:])
        self._scanned += int(degrees.sum(dtype=np.int64))
        self._reserve(num_dst, int(indptr[-1]))
        nodes = self._nodes
        indices = np.empty(int(indptr[-1]), np.int32)

        def draw(start: int, stop: int) -> None:
            _draw_labor(*graph, nodes, fanout, key, indptr, indices, start, stop)

        self._team.run(draw, ranges)
        num_src = number(indices, nodes, self._table, num_dst)
        return Block(
            indptr=indptr,
            indices=indices,
            num_dst=num_dst,
            num_src=num_src,
            degrees=degrees,
            row_weights=weights,
        )


@compiled
def _count_labor(
    graph_indptr: Any,
    graph_indices: Any,
    nodes: Any,
    fanout: int,
    key: Any,
    picks: Any,
    degrees: Any,
    weights: Any,
    start: int,
    stop: int,
) -> None:
    for i in range(start, stop):
        first, last = graph_indptr[nodes[i]], graph_indptr[nodes[i] + 1]
        degree = last - first
        degrees[i], weights[i] = degree, 1.0
        kept = degree
        if 0 <= fanout < degree:
            kept = 0
            weights[i] = degree / fanout if fanout else 0.0
            limit = np.uint64(fanout / degree * 18446744073709551616.0)
            for e in range(first, last):
                if mix64((key ^ np.uint64(graph_indices[e])) + GOLDEN) < limit:
                    kept += 1
        picks[i] = kept


@compiled
def _draw_labor(
    graph_indptr: Any,
    graph_indices: Any,
    nodes: Any,
    fanout: int,
    key: Any,
    indptr: Any,
    out: Any,
    start: int,
    stop: int,
) -> None:
    for i in range(start, stop):
        first, last = graph_indptr[nodes[i]], graph_indptr[nodes[i] + 1]
        at = indptr[i]
        if indptr[i + 1] - at == last - first:
            for e in range(first, last):
                out[at + e - first] = graph_indices[e]
            continue
        limit = np.uint64(fanout / (last - first) * 18446744073709551616.0)
        for e in range(first, last):
            if mix64((key ^ np.uint64(graph_indices[e])) + GOLDEN) < limit:
                out[at] = graph_indices[e]
                at += 1
