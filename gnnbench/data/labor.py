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
from gnnbench.data.drafts import drafted
from gnnbench.data.draws import GOLDEN, compiled, mix64
from gnnbench.data.prefetch import ask_for_rows
from gnnbench.data.sampling import Batch, Block, Ids, NeighbourSampler, number

DRAFT_SLACK = 8
"""Rows are drawn into buffers that are longer than the expected picks by one part in so many."""


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
        self._longest = int(np.diff(self.indptr).max()) if len(self.indptr) > 1 else 0

    def sample(self, seeds: Ids, epoch: int, step: int) -> Batch:
        """Return the blocks of these seeds."""
        self._shared_key = np.uint64(keys.fold(self.seed, epoch, step))
        self._scanned = 0
        batch = super().sample(seeds, epoch, step)
        return Batch(
            blocks=batch.blocks, input_nodes=batch.input_nodes, seeds=seeds, scanned=self._scanned
        )

    def _hop(self, found: int, fanout: int, key: np.uint64, first: int = 0) -> Block:
        num_dst = found - first
        if self.layer_dependency:
            key = self._shared_key
        expected, degrees = np.zeros(num_dst + 1, np.int64), np.empty(num_dst, np.int32)
        looked = _degrees(self.indptr, self._nodes[first:], num_dst, fanout, expected, degrees)
        self._scanned += int(looked)
        picks, weights = np.zeros(num_dst + 1, np.int64), np.empty(num_dst, np.float64)
        graph, nodes = (self.indptr, self.indices), self._nodes[first:]

        def room(start: int, stop: int) -> int:
            mean = int(expected[stop] - expected[start])
            return mean + mean // DRAFT_SLACK

        def write(draft: NDArray[np.int32], row: int, stop: int, at: int) -> tuple[int, int]:
            reached: tuple[int, int] = _draw(
                *graph, nodes, fanout, key, draft, picks, weights, row, stop, at
            )
            return reached

        indices = drafted(self._team, num_dst, self._longest, room, write)
        indptr = np.cumsum(picks)
        self._reserve(found, len(indices))
        num_src = number(indices, self._nodes, self._table, found)
        return Block(
            indptr=indptr,
            indices=indices,
            num_dst=num_dst,
            num_src=num_src,
            degrees=degrees,
            row_weights=weights,
        )


@compiled
def _degrees(
    graph_indptr: Any, nodes: Any, num_dst: int, fanout: int, expected: Any, degrees: Any
) -> int:
    """In-degrees, running sums of expected picks; returns the sum of the degrees."""
    looked = 0
    for i in range(num_dst):
        degree = graph_indptr[nodes[i] + 1] - graph_indptr[nodes[i]]
        degrees[i] = degree
        looked += degree
        expected[i + 1] = expected[i] + (degree if fanout < 0 else min(degree, fanout))
    return looked


@compiled
def _draw(
    graph_indptr: Any,
    graph_indices: Any,
    nodes: Any,
    fanout: int,
    key: Any,
    out: Any,
    picks: Any,
    weights: Any,
    start: int,
    stop: int,
    at: int,
) -> tuple[int, int]:
    """Write the kept neighbours (graph ids) of destinations start .. stop-1, and their number.

    Begins at place `at` of `out`; returns the destination and the place at which it stopped for
    want of room.
    """
    for i in range(start, stop):
        ask_for_rows(graph_indptr, graph_indices, nodes, i, stop)
        first = graph_indptr[nodes[i]]
        degree = graph_indptr[nodes[i] + 1] - first
        if at + degree > len(out):
            return i, at
        if fanout < 0 or degree <= fanout:
            weights[i] = 1.0
            for e in range(degree):
                out[at + e] = graph_indices[first + e]
            picks[i + 1] = degree
            at += degree
            continue
        weights[i] = degree / fanout if fanout else 0.0
        limit = np.uint64(fanout / degree * 18446744073709551616.0)
        before = at
        for e in range(first, first + degree):
            vertex = graph_indices[e]
            # Written always and kept if the bits say so: no branch to guess wrong.
            out[at] = vertex
            at += mix64((key ^ np.uint64(vertex)) + GOLDEN) < limit
        picks[i + 1] = at - before
    return stop, at
