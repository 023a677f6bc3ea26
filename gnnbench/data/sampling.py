"""Neighbour sampling with counter-based keys: the same blocks for any ranks, threads or order.

Computation graph `per_layer` (DGL): one block per hop, every destination is re-sampled in each hop,
seeds included. A pick depends on (seed, epoch, step, hop, vertex, slot) and on nothing else, so the
blocks of a global step do not depend on how its seeds are shared among ranks (SA-S3).

The loops are compiled on first use (numba) and release the interpreter lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.data import keys
from gnnbench.data.draws import GOLDEN, ONE, below, compiled, mix64
from gnnbench.data.prefetch import POINTERS_AHEAD, ask_for_rows, prefetch
from gnnbench.data.threads import Team

Ids = NDArray[np.int64]
Locals = NDArray[np.int32]
Weights = NDArray[np.float64]

ROWS_PER_RANGE = 512  # destinations worth handing to another thread
IDS_AHEAD = 16  # ids between the one that is numbered and the one whose number is asked for
ZERO = np.uint64(0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Block:
    """The sampled edges of one layer; destinations are the first `num_dst` of the sources.

    Shapes: `indptr` int64 [num_dst + 1]; `indices` int32 [edges], local source numbers;
    `degrees` int32 [num_dst], in-degrees in the graph (not in the sample). A vertex's sum over all
    in-neighbours is estimated by that over drawn edges, each times the weights (float64) of its
    row [num_dst], column [num_src] and of its own [edges]. Absent row weights are degree / picks,
    other absent weights ones.
    """

    indptr: Ids
    indices: Locals
    num_dst: int
    num_src: int
    degrees: Locals
    row_weights: Weights | None = None
    column_weights: Weights | None = None
    edge_weights: Weights | None = None

    @property
    def num_edges(self) -> int:
        return len(self.indices)

    def weights_of_rows(self) -> Weights:
        """Weights of the destinations; zeros where nothing was drawn."""
        if self.row_weights is not None:
            return self.row_weights
        picks = np.diff(self.indptr)
        return np.divide(self.degrees, picks, out=np.zeros(len(picks)), where=picks > 0)

    def transpose(self) -> tuple[Ids, Locals]:
        """Return (indptr int64 [num_src + 1], destinations int32 [edges]), sorted per source."""
        indptr_t = np.zeros(self.num_src + 1, np.int64)
        indices_t = np.empty(len(self.indices), np.int32)
        _transpose(self.indptr, self.indices, indptr_t, indices_t)
        return indptr_t, indices_t

    def transposed_order(self) -> Ids:
        """Return where each entry of the transpose lies among the edges, int64 [edges]."""
        order = np.empty(len(self.indices), np.int64)
        _transposed_order(self.indices, np.zeros(self.num_src + 1, np.int64), order)
        return order


@dataclass(frozen=True, slots=True, kw_only=True)
class Near:
    """What a rank looks at in a hop whose candidates all ranks look for together.

    Args:
        rows: vertices whose in-neighbours it looks at.
        candidates: distinct ones that it finds.
        edges: that it looks at.
    """

    rows: int
    candidates: int
    edges: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """What one rank trains on in one step; `blocks` lists the input layer first.

    `input_nodes` int64 [n_0] are the graph ids of the sources of `blocks[0]`; the sources of block
    l are its first `blocks[l].num_src`, the seeds its first `len(seeds)`. A single block serves
    all layers of a deeper model. `scanned` counts the graph's edges that were looked at besides
    those drawn, `by_lot` the drawn edges that took a random number. `near` is what the rank looked
    at for all ranks, hop by hop from the seeds; its edges are not in `scanned`.
    """

    blocks: tuple[Block, ...]
    input_nodes: Ids
    seeds: Ids
    scanned: int = 0
    by_lot: int = 0
    near: tuple[Near, ...] = ()

    @property
    def sizes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Vertices n_0 ... n_L and edges e_1 ... e_L, input layer first."""
        vertices = (len(self.input_nodes), *(block.num_dst for block in self.blocks))
        return vertices, tuple(block.num_edges for block in self.blocks)

    @property
    def num_bytes(self) -> int:
        """Bytes of all arrays."""
        held: list[NDArray[Any]] = [self.input_nodes, self.seeds]
        for block in self.blocks:
            held += [block.indptr, block.indices, block.degrees]
            weights = (block.row_weights, block.column_weights, block.edge_weights)
            held += [array for array in weights if array is not None]
        return sum(array.nbytes for array in held)


class NeighbourSampler:
    """Draw `min(fanout, in-degree)` distinct in-neighbours per vertex and hop, uniformly.

    Owns a table of one int32 per vertex of the graph, so that finding repeats costs one look-up per
    edge. One sampler serves one caller at a time; `twin` gives another for a second thread.

    Args:
        indptr: int64 [N + 1], by destination.
        indices: int32 or int64 [E], in-neighbours.
        fanouts_from_seeds: neighbours per hop, the hop next to the seeds first; -1 takes all.
        seed: of every draw.
        threads: threads that draw; the batch does not depend on it.
    """

    def __init__(
        self,
        indptr: Ids,
        indices: NDArray[np.integer[Any]],
        fanouts_from_seeds: Sequence[int],
        seed: int,
        threads: int = 1,
    ) -> None:
        if any(fanout < -1 for fanout in fanouts_from_seeds):
            raise ValueError(f"fan-outs must be -1 (all) or at least 0: {list(fanouts_from_seeds)}")
        self.indptr, self.indices = np.asarray(indptr), np.asarray(indices)  # mapped files too
        self.fanouts_from_seeds = tuple(fanouts_from_seeds)
        self.seed = seed
        self._team = Team(threads)
        self._table = np.full(len(indptr) - 1, -1, np.int32)
        self._nodes = np.empty(0, np.int64)
        longest = int(np.diff(indptr).max()) if len(indptr) > 1 else 0
        self._words = (longest + 63) // 64
        self._by_lot = 0

    def twin(self) -> NeighbourSampler:
        """Return a sampler of the same batches with its own scratch, for another thread."""
        return NeighbourSampler(
            self.indptr, self.indices, self.fanouts_from_seeds, self.seed, self._team.threads
        )

    def sample(self, seeds: Ids, epoch: int, step: int) -> Batch:
        """Return the blocks of these seeds (distinct vertices, possibly none).

        Local numbers go by first appearance: seeds first, then sources in edge order, hop by hop.
        """
        count, self._by_lot = len(seeds), 0
        self._reserve(count, 0)
        open_table(np.ascontiguousarray(seeds, np.int64), self._nodes, self._table)
        blocks: list[Block] = []
        for hop, fanout in enumerate(self.fanouts_from_seeds):
            key = np.uint64(keys.fold(self.seed, epoch, step, hop))
            block = self._hop(count, fanout, key)
            blocks.append(block)
            count = block.num_src
        input_nodes = self._nodes[:count].copy()
        close_table(input_nodes, self._table)
        return Batch(
            blocks=tuple(reversed(blocks)),
            input_nodes=input_nodes,
            seeds=seeds,
            by_lot=self._by_lot,
        )

    def part(self, seeds: Ids, part: Ids, epoch: int, step: int) -> Batch:
        """Return the blocks of a `part` of the seeds of a global batch; others matter nothing."""
        return self.sample(part, epoch, step)

    def sizes(self, seeds: Ids, epoch: int, step: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return vertices n_0 ... n_L and edges e_1 ... e_L of the batch, input layer first."""
        return self.sample(seeds, epoch, step).sizes

    def _hop(self, found: int, fanout: int, key: np.uint64, first: int = 0) -> Block:
        """Draw the block of the vertices from place `first` on, of `found` found so far."""
        num_dst = found - first
        indptr = np.empty(num_dst + 1, np.int64)
        degrees = np.empty(num_dst, np.int32)
        edges, by_lot = _count(self.indptr, self._nodes[first:], num_dst, fanout, indptr, degrees)
        self._by_lot += by_lot
        self._reserve(found, edges)
        indices = np.empty(edges, np.int32)
        nodes, graph, count = self._nodes[first:], (self.indptr, self.indices), found

        def draw(start: int, stop: int) -> None:
            bits = np.zeros(self._words, np.uint64)
            _draw(*graph, nodes, indptr, key, bits, indices, start, stop)

        def then(start: int, stop: int) -> None:
            nonlocal count
            drawn = indices[indptr[start] : indptr[stop]]
            count = number(drawn, self._nodes, self._table, count)

        self._team.run(draw, self._team.split(num_dst, ROWS_PER_RANGE), then)
        num_src = count
        return Block(
            indptr=indptr, indices=indices, num_dst=num_dst, num_src=num_src, degrees=degrees
        )

    def _reserve(self, kept: int, more: int) -> None:
        """Make room for `more` new vertices behind the `kept` first."""
        need = kept + min(more, len(self._table))
        if need > len(self._nodes):
            grown = np.empty(need + need // 4, np.int64)
            held = min(kept, len(self._nodes))
            grown[:held] = self._nodes[:held]
            self._nodes = grown


def epoch_seeds(train_nodes: Ids, seed: int, epoch: int) -> Ids:
    """Return the training vertices in the order of this epoch, the same on every rank."""
    return keys.generator(seed, epoch).permutation(np.asarray(train_nodes, np.int64))


def steps(num_train: int, batch_size: int) -> int:
    """Return the optimizer steps of an epoch; the last batch may be smaller."""
    return -(-num_train // batch_size)


def batch_seeds(order: Ids, batch_size: int, step: int) -> Ids:
    """Return the seeds of one global step out of an epoch's order."""
    return order[step * batch_size : (step + 1) * batch_size]


def split_seeds(seeds: Ids, world_size: int, rank: int) -> Ids:
    """Return a rank's slice of a global batch, possibly empty; the first ranks get the remainder.

    The slices are contiguous and disjoint, and their union is the batch (SA-S4).
    """
    size, extra = divmod(len(seeds), world_size)
    start = rank * size + min(rank, extra)
    return seeds[start : start + size + (rank < extra)]


@compiled
def open_table(seeds: Any, nodes: Any, table: Any) -> None:
    """Number the seeds from 0 in `nodes` and in the `table` of local numbers."""
    for i in range(len(seeds)):
        vertex = seeds[i]
        nodes[i] = vertex
        if table[vertex] < 0:
            table[vertex] = i


@compiled
def close_table(nodes: Any, table: Any) -> None:
    """Forget the numbers of these vertices."""
    for i in range(len(nodes)):
        table[nodes[i]] = -1


@compiled
def _count(
    graph_indptr: Any, nodes: Any, num_dst: int, fanout: int, indptr: Any, degrees: Any
) -> tuple[int, int]:
    """Degrees and running sums of picks; returns all picks, and those that are drawn by lot."""
    total = by_lot = 0
    indptr[0] = 0
    for i in range(num_dst):
        if i + POINTERS_AHEAD < num_dst:
            prefetch(graph_indptr, nodes[i + POINTERS_AHEAD])
        degree = graph_indptr[nodes[i] + 1] - graph_indptr[nodes[i]]
        degrees[i] = degree
        taken = fanout < 0 or degree <= fanout
        total += degree if taken else fanout
        by_lot += 0 if taken else fanout
        indptr[i + 1] = total
    return total, by_lot


@compiled
def _draw(
    graph_indptr: Any,
    graph_indices: Any,
    nodes: Any,
    indptr: Any,
    key: Any,
    bits: Any,
    out: Any,
    start: int,
    stop: int,
) -> None:
    """Write the picked neighbours (graph ids) of destinations start .. stop-1.

    Distinct picks by Floyd's algorithm (Bentley and Floyd 1987): k draws, a bitmap remembers them.
    `bits` is that bitmap for rows of more than 64 neighbours, all zero before and after.
    """
    for i in range(start, stop):
        ask_for_rows(graph_indptr, graph_indices, nodes, i, stop)
        vertex = nodes[i]
        first = graph_indptr[vertex]
        degree = graph_indptr[vertex + 1] - first
        at = indptr[i]
        picks = indptr[i + 1] - at
        if picks == degree:
            for slot in range(picks):
                out[at + slot] = graph_indices[first + slot]
            continue
        vertex_key = mix64((key ^ np.uint64(vertex)) + GOLDEN)
        if degree <= 64:
            taken = np.uint64(0)
            for slot in range(picks):
                last = degree - picks + slot
                pick = np.uint64(below(vertex_key, slot, last + 1))
                # If it is taken, all bits of the mask are set and `last` is picked instead: a
                # branch would often be guessed wrong.
                mask = ZERO - ((taken >> pick) & ONE)
                pick ^= (pick ^ np.uint64(last)) & mask
                taken |= ONE << pick
                out[at + slot] = graph_indices[first + np.int64(pick)]
            continue
        for slot in range(picks):
            last = degree - picks + slot
            pick = below(vertex_key, slot, last + 1)
            if (bits[pick >> 6] >> np.uint64(pick & 63)) & ONE:
                pick = last
            bits[pick >> 6] |= ONE << np.uint64(pick & 63)
            out[at + slot] = pick
        for slot in range(picks):
            pick = out[at + slot]
            bits[np.int64(pick) >> 6] = np.uint64(0)
            out[at + slot] = graph_indices[first + pick]


@compiled
def number(indices: Any, nodes: Any, table: Any, num_dst: int) -> int:
    """Replace graph ids by local numbers in place; append new vertices to `nodes`.

    An id is written behind the numbered ones whether it is new or not, and overwritten by the next
    if it is not: a branch would often be guessed wrong. `nodes` needs room for one more.
    """
    count = num_dst
    last = len(indices) - 1
    for e in range(len(indices)):
        prefetch(table, indices[min(e + IDS_AHEAD, last)])
        vertex = indices[e]
        local: Any = np.int64(table[vertex])
        new = local < 0
        if new:
            local = count
        table[vertex] = local
        nodes[count] = vertex
        indices[e] = local
        count += new
    return count


@compiled
def _transpose(indptr: Any, indices: Any, indptr_t: Any, indices_t: Any) -> None:
    for e in range(len(indices)):
        indptr_t[indices[e] + 1] += 1
    for c in range(len(indptr_t) - 1):
        indptr_t[c + 1] += indptr_t[c]
    # Fill from the back, so that the running cursors end as the row starts.
    for r in range(len(indptr) - 2, -1, -1):
        for e in range(indptr[r + 1] - 1, indptr[r] - 1, -1):
            c = indices[e]
            indptr_t[c + 1] -= 1
            indices_t[indptr_t[c + 1]] = r
    for c in range(len(indptr_t) - 1):
        indptr_t[c] = indptr_t[c + 1]
    indptr_t[len(indptr_t) - 1] = len(indices)


@compiled
def _transposed_order(indices: Any, starts: Any, order: Any) -> None:
    """Sort the edges by source, by counting; `starts` is zero before."""
    for e in range(len(indices)):
        starts[indices[e] + 1] += 1
    for c in range(len(starts) - 1):
        starts[c + 1] += starts[c]
    for e in range(len(indices)):
        c = indices[e]
        order[starts[c]] = e
        starts[c] += 1
