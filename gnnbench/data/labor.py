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
        self._wide = np.empty(0, np.int32)

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
        starts = np.zeros(num_dst + 1, np.int64)
        degrees = _degrees(self.indptr, self._nodes, num_dst, starts)
        looked = int(starts[-1])
        self._scanned += looked
        # A row's picks are written where it would lie if all neighbours were kept, then moved up.
        if looked > len(self._wide):
            self._wide = np.empty(looked + looked // 4, np.int32)
        picks, weights = np.zeros(num_dst + 1, np.int64), np.empty(num_dst, np.float64)
        graph, nodes, wide = (self.indptr, self.indices), self._nodes, self._wide
        ranges = self._team.split(num_dst, ROWS_PER_RANGE)

        def draw(start: int, stop: int) -> None:
            _draw(*graph, nodes, fanout, key, starts, wide, picks, weights, start, stop)

        self._team.run(draw, ranges)
        indptr = np.cumsum(picks)
        self._reserve(num_dst, int(indptr[-1]))
        indices = np.empty(int(indptr[-1]), np.int32)
        _move_up(wide, starts, indptr, indices)
        num_src = number(indices, self._nodes, self._table, num_dst)
        return Block(
            indptr=indptr,
            indices=indices,
            num_dst=num_dst,
            num_src=num_src,
            degrees=degrees,
            row_weights=weights,
        )


@compiled
def _degrees(graph_indptr: Any, nodes: Any, num_dst: int, starts: Any) -> Any:
    degrees = np.empty(num_dst, np.int32)
    for i in range(num_dst):
        degrees[i] = graph_indptr[nodes[i] + 1] - graph_indptr[nodes[i]]
        starts[i + 1] = starts[i] + degrees[i]
    return degrees


@compiled
def _draw(
    graph_indptr: Any,
    graph_indices: Any,
    nodes: Any,
    fanout: int,
    key: Any,
    starts: Any,
    wide: Any,
    picks: Any,
    weights: Any,
    start: int,
    stop: int,
) -> None:
    """Write the kept neighbours (graph ids) of destinations start .. stop-1, and their number."""
    for i in range(start, stop):
        first, degree = graph_indptr[nodes[i]], starts[i + 1] - starts[i]
        at = starts[i]
        if fanout < 0 or degree <= fanout:
            weights[i] = 1.0
            for e in range(degree):
                wide[at + e] = graph_indices[first + e]
            picks[i + 1] = degree
            continue
        weights[i] = degree / fanout if fanout else 0.0
        limit = np.uint64(fanout / degree * 18446744073709551616.0)
        for e in range(first, first + degree):
            vertex = graph_indices[e]
            # Written always and kept if the bits say so: no branch to guess wrong.
            wide[at] = vertex
            at += mix64((key ^ np.uint64(vertex)) + GOLDEN) < limit
        picks[i + 1] = at - starts[i]


@compiled
def _move_up(wide: Any, starts: Any, indptr: Any, out: Any) -> None:
    for i in range(len(indptr) - 1):
        for e in range(indptr[i + 1] - indptr[i]):
            out[indptr[i] + e] = wide[starts[i] + e]
