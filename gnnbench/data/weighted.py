"""Neighbour sampling with weights, and with replacement; sums stay unbiased either way.

A destination v with in-neighbours u of weights w_u draws k of them, and the sum of x_u over all of
them is estimated by a weighted sum over those drawn:

with replacement      k independent draws, p_u = w_u / W; each has the weight 1 / (k p_u) (Hansen
                      and Hurwitz 1943); equal weights: degree / k
without replacement   priority sampling: the k largest priorities w_u / r_u, r_u uniform in (0, 1];
                      with t the next largest one, the weight of u is max(1, t / w_u) (Duffield,
                      Lund and Thorup, J. ACM 2007)

Draws that favour a neighbour without such a weight estimate a weighted mean instead of the mean.
Fewer than k + 1 neighbours are all taken where there is no replacement, with weight 1.

Source: sampling reference sections 2 and 5, invariants SA-S1, S3, S5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.draws import GOLDEN, below, compiled, mix64
from gnnbench.data.sampling import (
    ROWS_PER_RANGE,
    Batch,
    Block,
    Ids,
    NeighbourSampler,
    Weights,
    number,
)


class WeightedSampler(NeighbourSampler):
    """Draw neighbours in proportion to weights of sources, with or without replacement.

    Args:
        indptr, indices, fanouts_from_seeds, seed, threads: as of `NeighbourSampler`. A fan-out of
            -1 takes all neighbours once.
        weights: of vertices as sources, float64 [N], all of them positive; None is equal weights.
        edge_weights: of edges, float32 [E], all of them positive, instead of those of vertices.
        replacement: whether a neighbour can be drawn several times.
    """

    def __init__(
        self,
        indptr: Ids,
        indices: NDArray[np.integer[Any]],
        fanouts_from_seeds: Sequence[int],
        seed: int,
        threads: int = 1,
        *,
        weights: Weights | None = None,
        edge_weights: NDArray[np.float32] | None = None,
        replacement: bool = False,
    ) -> None:
        super().__init__(indptr, indices, fanouts_from_seeds, seed, threads)
        assert weights is None or edge_weights is None, "weights of vertices, or of edges"
        given: Any = weights if edge_weights is None else np.asarray(edge_weights)
        if given is not None and not (given > 0).all():
            raise ValueError("weights of neighbours must be positive: others are never drawn")
        self._of_vertices, self._of_edges = weights, edge_weights
        self.weights, self.by_edge, self.replacement = given, edge_weights is not None, replacement
        self._longest = int(np.diff(self.indptr).max()) if len(self.indptr) > 1 else 0
        self._scanned = 0

    def twin(self) -> WeightedSampler:
        """Return a sampler of the same batches with its own scratch, for another thread."""
        return WeightedSampler(
            self.indptr,
            self.indices,
            self.fanouts_from_seeds,
            self.seed,
            self._team.threads,
            weights=self._of_vertices,
            edge_weights=self._of_edges,
            replacement=self.replacement,
        )

    def sample(self, seeds: Ids, epoch: int, step: int) -> Batch:
        """Return the blocks of these seeds."""
        self._scanned = 0
        batch = super().sample(seeds, epoch, step)
        return Batch(
            blocks=batch.blocks,
            input_nodes=batch.input_nodes,
            seeds=seeds,
            scanned=self._scanned,
            by_lot=batch.by_lot,
        )

    def _hop(self, found: int, fanout: int, key: np.uint64, first: int = 0) -> Block:
        if self.weights is None and not self.replacement:
            return super()._hop(found, fanout, key, first)
        num_dst = found - first
        indptr, degrees = np.empty(num_dst + 1, np.int64), np.empty(num_dst, np.int32)
        again = self.replacement
        _count(self.indptr, self._nodes[first:], num_dst, fanout, again, indptr, degrees)
        edges = int(indptr[-1])
        self._reserve(found, edges)
        indices, nodes = np.empty(edges, np.int32), self._nodes[first:]
        graph = self.indptr, self.indices
        weighted: Weights | None = None
        if self.weights is None:
            self._by_lot += 0 if fanout < 0 else edges

            def draw(start: int, stop: int) -> None:
                _draw_again(*graph, nodes, indptr, fanout, key, indices, start, stop)

        else:
            made = weighted = np.ones(edges)
            of = self.weights
            self._scanned += int(degrees.sum(dtype=np.int64))

            def draw(start: int, stop: int) -> None:
                # Running sums of a row, or its largest priorities and their neighbours.
                room = np.empty(max(self._longest, fanout + 1) + 1)
                places = np.empty(fanout + 2 if fanout > 0 else 1, np.int64)
                blocks = indptr, fanout, again, key, room, places
                by_edge = self.by_edge
                _draw_weighted(*graph, nodes, of, by_edge, *blocks, indices, made, start, stop)

        self._team.run(draw, self._team.split(num_dst, ROWS_PER_RANGE))
        num_src = number(indices, self._nodes, self._table, found)
        return Block(
            indptr=indptr,
            indices=indices,
            num_dst=num_dst,
            num_src=num_src,
            degrees=degrees,
            row_weights=None if weighted is None else np.ones(num_dst),
            edge_weights=weighted,
        )


@compiled
def _count(
    graph_indptr: Any,
    nodes: Any,
    num_dst: int,
    fanout: int,
    replacement: bool,
    indptr: Any,
    degrees: Any,
) -> None:
    indptr[0] = 0
    for i in range(num_dst):
        degree = graph_indptr[nodes[i] + 1] - graph_indptr[nodes[i]]
        degrees[i] = degree
        picks = degree
        if fanout >= 0:
            picks = min(degree, fanout)
            if replacement and degree > 0:
                picks = fanout
        indptr[i + 1] = indptr[i] + picks


@compiled
def _draw_again(
    graph_indptr: Any,
    graph_indices: Any,
    nodes: Any,
    indptr: Any,
    fanout: int,
    key: Any,
    out: Any,
    start: int,
    stop: int,
) -> None:
    """Write independent uniform picks of destinations start .. stop-1."""
    for i in range(start, stop):
        first = graph_indptr[nodes[i]]
        degree = graph_indptr[nodes[i] + 1] - first
        vertex_key = mix64((key ^ np.uint64(nodes[i])) + GOLDEN)
        for slot in range(indptr[i + 1] - indptr[i]):
            pick = slot if fanout < 0 else below(vertex_key, slot, degree)
            out[indptr[i] + slot] = graph_indices[first + pick]


@compiled
def _draw_weighted(
    graph_indptr: Any,
    graph_indices: Any,
    nodes: Any,
    weights: Any,
    by_edge: bool,
    indptr: Any,
    fanout: int,
    replacement: bool,
    key: Any,
    room: Any,
    places: Any,
    out: Any,
    edge_weights: Any,
    start: int,
    stop: int,
) -> None:
    """Write weighted picks of destinations start .. stop-1 and what they weigh in a sum."""
    for i in range(start, stop):
        first = graph_indptr[nodes[i]]
        degree = graph_indptr[nodes[i] + 1] - first
        at, picks = indptr[i], indptr[i + 1] - indptr[i]
        if picks == degree and (fanout < 0 or not replacement):
            for slot in range(picks):
                out[at + slot] = graph_indices[first + slot]
            continue
        vertex_key = mix64((key ^ np.uint64(nodes[i])) + GOLDEN)
        if replacement:
            total = 0.0
            for e in range(degree):
                total += weights[first + e if by_edge else graph_indices[first + e]]
                room[e] = total
            for slot in range(picks):
                bits = mix64((vertex_key ^ np.uint64(slot)) + GOLDEN)
                spin = np.float64(bits >> np.uint64(11)) * 2.0**-53 * total
                pick = min(np.searchsorted(room[:degree], spin, side="right"), degree - 1)
                source = graph_indices[first + pick]
                out[at + slot] = source
                weight = weights[first + pick if by_edge else source]
                edge_weights[at + slot] = total / (picks * weight)
            continue
        # The picks + 1 largest priorities, falling.
        held = 0
        for e in range(degree):
            bits = mix64((vertex_key ^ np.uint64(e)) + GOLDEN)
            spin = (np.float64(bits >> np.uint64(11)) + 1.0) * 2.0**-53
            priority = weights[first + e if by_edge else graph_indices[first + e]] / spin
            if held > picks and priority <= room[picks]:
                continue
            place = min(held, picks)
            while place > 0 and room[place - 1] < priority:
                room[place], places[place] = room[place - 1], places[place - 1]
                place -= 1
            room[place], places[place] = priority, e
            held = min(held + 1, picks + 1)
        for slot in range(picks):
            source = graph_indices[first + places[slot]]
            out[at + slot] = source
            weight = weights[first + places[slot] if by_edge else source]
            edge_weights[at + slot] = max(1.0, room[picks] / weight)
