"""LADIES: importance sampling of a bounded number of vertices per layer.

For the destinations S of a hop, the vertices of the layer below are drawn with p(u) in proportion
to the squared norm of column u of Q = Â[S, :], so they are neighbours of S. Entry (v, u) of a drawn
vertex gets the weight (times drawn) / (k p(u)). With `poisson`, each vertex is drawn at most once,
with chance pi(u) = min(1, c p(u)) that sum up to k, and has weight 1 / pi(u). Sums are unbiased
either way.

Deviations from the paper: a destination's own term (self loop, root weight) is taken as it is
instead of sampled, and norms are those of the other entries. The published code draws without
replacement and normalises rows; both bias the sum, and neither is done here.

Source: Zou et al., "Layer-Dependent Importance Sampling", NeurIPS 2019; Balin and Çatalyürek 2023
for Poisson draws (PLADIES); invariant SA-S7.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.data import keys
from gnnbench.data import ladies_loops as loops
from gnnbench.data.dealing import SeedSource
from gnnbench.data.drafts import drafted
from gnnbench.data.sampling import (
    Batch,
    Block,
    Ids,
    Locals,
    Near,
    Weights,
    close_table,
    number,
    open_table,
    split_seeds,
)
from gnnbench.data.scratch import Scratch
from gnnbench.data.threads import Team

UNIT = 2.0**-40
"""Unit of squared norms: sums of integers do not depend on the order of the rows.

Rounding changes how likely a vertex is drawn, and its weight with it: sums stay unbiased."""


DRAWS_PER_RANGE = 4096
"""Draws worth handing to another thread."""
DRAFT_SLACK = 8
"""Rows are restricted into buffers that are longer than expected by one part in so many."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Layer:
    """What a hop draws for the whole global batch.

    Args:
        vertices: that were drawn.
        weights: of them.
        near: what ranks looked at.
        numbers: local numbers of the vertices in the batch of all seeds.
        reached: vertices of that batch with this layer, by local number.
        entries: pointers, local numbers and degrees of the rows of all seeds' batch, where drawing
            the layer has found them already.
    """

    vertices: Ids
    weights: Weights
    near: tuple[Near, ...]
    numbers: Locals
    reached: Ids
    entries: Entries | None = None


Entries = tuple[Ids, Locals, Locals]
"""Of the rows of a block: pointers, drawn columns, degrees in the graph."""
Pick = Callable[[Ids, Ids], tuple[Ids, Weights]]
"""From candidates and their norms to drawn vertices and their weights."""
Look = Callable[[Ids, int, Pick], tuple[Ids, Weights, Sequence[Near]]]
"""From the vertices reached, a hop and how to pick, to what is drawn and what ranks looked at."""


class LadiesSampler:
    """Draw blocks by LADIES for the parts of global batches; see the module.

    The layers of a global batch are drawn alike on every rank, from candidates that one rank looks
    for, or all ranks together (`Look`); a rank's blocks are their restriction to what its own seeds
    need, so parts make up the whole batch.

    Without a source scale, p(u) is the sum of the squared scales of u's rows. So an edge is drawn,
    its row v in proportion to scale(v)^2 degree(v) and its column uniformly among the row's; no
    candidate has to be known for that. A rank that is alone then looks at the rows once, for the
    entries in drawn columns and their norms. Otherwise candidates are drawn by their norms.

    Args:
        indptr, indices: of the graph, by destination.
        as_destination, as_source: scales of Â, float64 [N]; no source scale is ones.
        vertices: k, drawn per layer.
        layers: number of layers.
        seed: of every draw.
        threads: threads that restrict blocks.
        poisson: Poisson draws instead of draws with replacement.
    """

    def __init__(
        self,
        indptr: Ids,
        indices: NDArray[np.integer[Any]],
        scales: tuple[Weights, Weights | None],
        *,
        vertices: int,
        layers: int,
        seed: int,
        threads: int = 1,
        poisson: bool = False,
    ) -> None:
        self.indptr, self.indices = np.asarray(indptr), np.asarray(indices)
        self.rows2 = np.maximum(np.rint(scales[0] ** 2 / UNIT), 1).astype(np.int64)
        self.columns2 = np.ones(0) if scales[1] is None else scales[1] ** 2
        self.vertices, self.layers, self.seed, self.poisson = vertices, layers, seed, poisson
        self.by_edges = not poisson and scales[1] is None
        self._team = Team(threads)
        self._table = np.full(len(indptr) - 1, -1, np.int32)
        self._drawn = np.full(len(indptr) - 1, -1, np.int32)
        self._sums = np.zeros(len(indptr) - 1, np.int64)
        self._bits = np.zeros((len(indptr) + 63) // 64, np.uint64)
        self._scratch = Scratch()
        self._kept: list[float | None] = [None] * layers
        self._longest = int(np.diff(self.indptr).max()) if len(self.indptr) > 1 else 0
        self._known: tuple[tuple[int, int, int], Ids, list[_Layer]] | None = None

    def part(
        self,
        seeds: Ids,
        part: Ids,
        epoch: int,
        step: int,
        *,
        ranks: int = 1,
        rank: int = 0,
    ) -> Batch:
        """Return the blocks of a `part` of the seeds of a global batch.

        Args:
            seeds: of the global batch.
            part: of them.
            epoch, step: of the batch.
            ranks: that look for candidates together.
            rank: whose share of that the batch names.
        """
        layers = self.remember(seeds, (epoch, step, ranks))
        part = np.ascontiguousarray(part, np.int64)
        whole = ranks == 1 and self.by_edges and np.array_equal(part, seeds)
        blocks, nodes = (self._whole if whole else self._partial)(layers, part)
        scanned = sum(int(block.degrees.sum(dtype=np.int64)) for block in blocks)
        mine = tuple(layer.near[min(rank, len(layer.near) - 1)] for layer in layers)
        if ranks == 1:
            scanned += 0 if whole else sum(near.edges for near in mine)
        return Batch(
            blocks=tuple(reversed(blocks)),
            input_nodes=nodes,
            seeds=part,
            scanned=scanned,
            near=mine if ranks > 1 else (),
        )

    def remember(
        self, seeds: Ids, at: tuple[int, int, int], look: Look | None = None
    ) -> list[_Layer]:
        """The layers of a batch; those of the last one are kept, for one part after the other.

        Args:
            seeds: of the batch.
            at: epoch, step, and ranks that look for candidates together.
            look: how they do it; None: here, one rank's share after the other.
        """
        known = self._known
        if known is None or known[0] != at or not np.array_equal(known[1], seeds):
            epoch, step, ranks = at
            if look is None and ranks > 1:
                look = self.shares(ranks)
            known = at, seeds.copy(), self.layers_of(seeds, epoch, step, look)
            self._known = known
        return known[2]

    def layers_of(
        self, seeds: Ids, epoch: int, step: int, look: Look | None = None
    ) -> list[_Layer]:
        """Draw the vertices of every hop of a global batch, the hop next to the seeds first."""
        nodes = np.array(seeds, np.int64)
        open_table(nodes, nodes, self._table)
        found = []
        near: Sequence[Near]
        for hop in range(self.layers):
            key, entries = keys.fold(self.seed, epoch, step, hop), None
            if look is None and self.by_edges:
                vertices, weights, near, entries = self._seen_once(nodes, hop, key)
            else:
                pick = self._pick_by(nodes, key)
                vertices, weights, near = (look or self.shares(1))(nodes, hop, pick)
            numbers, count = vertices.astype(np.int32), len(nodes)
            longer = np.empty(count + len(vertices) + 1, np.int64)
            longer[:count] = nodes
            # In the order of the draws, whoever finds the entries: the next hop depends on it.
            nodes = longer[: number(numbers, longer, self._table, count)]
            if entries is not None:
                loops.rename(entries[1], numbers)
            found.append(
                _Layer(
                    vertices=vertices,
                    weights=weights,
                    near=tuple(near),
                    numbers=numbers,
                    reached=nodes,
                    entries=entries,
                )
            )
        close_table(nodes, self._table)
        return found

    def shares(self, ranks: int) -> Look:
        """Look for candidates as so many ranks would, one share after the other."""

        def look(reached: Ids, hop: int, pick: Pick) -> tuple[Ids, Weights, list[Near]]:
            parts = [self.share(reached, ranks, rank) for rank in range(ranks)]
            drawn = pick(*self.merged([part[:2] for part in parts]))
            return *drawn, [part[2] for part in parts]

        return look

    def _pick_by(self, reached: Ids, key: int) -> Pick:
        def pick(candidates: Ids, norms: Ids) -> tuple[Ids, Weights]:
            if self.by_edges:
                vertices, times, total = self._edges_drawn(reached, key)
                close_table(vertices, self._drawn)
                own = np.empty(len(vertices), np.int64)
                loops.mark(candidates, norms, self._sums)
                loops.look_up(vertices, self._sums, own)
                self._sums[candidates] = 0
                return vertices, self._weights(times, total, own)
            return self._pick(candidates, self.scaled(candidates, norms), key)

        return pick

    def share(self, reached: Ids, ranks: int, rank: int) -> tuple[Ids, Ids, Near]:
        """Candidates and norms of a rank's share of the rows that were reached.

        The arrays of a rank that is alone are used again by the next call.
        """
        rows = split_seeds(reached, ranks, rank)
        ids, norms, edges = self.near(rows)
        if ranks > 1:
            ids, norms = ids.copy(), norms.copy()
        return ids, norms, Near(rows=len(rows), candidates=len(ids), edges=edges)

    def merged(self, parts: Sequence[tuple[Ids, Ids]]) -> tuple[Ids, Ids]:
        """Candidates of all parts by first appearance, and the sums of their norms.

        Shares are consecutive rows, so the order is that of a single rank that looks at all rows.
        """
        if len(parts) == 1:
            return parts[0]
        ids, norms = (np.concatenate(column) for column in zip(*parts, strict=True))
        count = loops.merge(ids, norms, self._sums)
        return ids[:count], norms[:count]

    def near(self, reached: Ids) -> tuple[Ids, Ids, int]:
        """In-neighbours of vertices by first appearance, their norms, and edges looked at.

        Norms are sums over the given rows in units of `UNIT`, columns not scaled: sums of parts of
        the rows add up exactly. The arrays are used again by the next call.
        """
        edges = loops.edges_of(self.indptr, reached)
        most = min(edges, len(self._sums)) + 1
        found, norms = (self._scratch(name, most, np.int64) for name in ("found", "norms"))
        graph = self.indptr, self.indices
        count = loops.scan(*graph, reached, self.rows2, self._sums, found, norms)
        return found[:count], norms[:count], edges

    def scaled(self, candidates: Ids, norms: Ids) -> Weights:
        """Squared column norms of the candidates. The array is used again by the next call."""
        found: Weights = self._scratch("scaled", len(norms), np.float64)
        loops.scale(norms, candidates, self.columns2, UNIT, found)
        return found

    def _pick(self, candidates: Ids, norms: Weights, key: int) -> tuple[Ids, Weights]:
        """Draw from the candidates in proportion to their norms; weights make sums unbiased."""
        if not len(candidates):
            return candidates, norms.copy()
        if self.poisson:
            chance = _chances(norms, self.vertices)
            kept = keys.unit(keys.extend_array(key, candidates)) < chance
            return candidates[kept], 1.0 / chance[kept]
        count, draws = len(candidates), self.vertices
        ends = self._scratch("ends", count, np.float64)
        firsts = self._scratch("firsts", count + 1, np.int32)
        loops.guide(norms, ends, firsts)
        hits = self._scratch("hits", draws, np.int32)
        spun = np.uint64(key), ends, firsts, hits
        ranges = self._team.split(draws, DRAWS_PER_RANGE)
        self._team.run(lambda start, stop: loops.spin(*spun, start, stop), ranges)
        times = self._scratch("times", count, np.int32)
        times.fill(0)
        hit = self._scratch("hit", count + 1, np.int32)
        hit = hit[: loops.collect(hits, times, hit)]
        vertices, weights = np.empty(len(hit), np.int64), np.empty(len(hit))
        of = candidates, norms, times, ends[-1], draws, UNIT**2
        loops.weigh(hit, *of, vertices, weights)
        return vertices, weights

    def _seen_once(
        self, reached: Ids, hop: int, key: int
    ) -> tuple[Ids, Weights, list[Near], Entries]:
        """Draw the vertices of a hop by edges; then look at all rows, for entries and norms."""
        vertices, times, total = self._edges_drawn(reached, key)
        entries = self._restricted(hop, vertices, reached)
        norms = np.zeros(len(vertices), np.int64)
        loops.add_up(*entries[:2], reached, self.rows2, self._drawn, norms)
        close_table(vertices, self._drawn)
        edges = int(entries[2].sum(dtype=np.int64))
        near = Near(rows=len(reached), candidates=len(vertices), edges=edges)
        return vertices, self._weights(times, total, norms), [near], entries

    def _weights(self, times: Locals, total: float, norms: Ids) -> Weights:
        """Weights (times drawn) / (k p); the norms are integers whose sum over all is `total`."""
        found: Weights = times * total / (self.vertices * np.maximum(norms, 1))
        return found

    def _edges_drawn(self, reached: Ids, key: int) -> tuple[Ids, Locals, float]:
        """Draw k edges into the vertices reached.

        Returns their distinct sources in the order of the draws, how often each was drawn, and the
        sum of all norms in units of `UNIT`. The table `_drawn` has the places of the sources.
        """
        count, draws, graph = len(reached), self.vertices, (self.indptr, self.indices)
        masses = self._scratch("masses", count, np.float64)
        starts, degrees = (self._scratch(name, count, np.int64) for name in ("starts", "degrees"))
        rows = loops.masses_of(self.indptr, reached, self.rows2, starts, degrees, masses)
        if not rows:
            return np.empty(0, np.int64), np.empty(0, np.int32), 0.0
        ends = self._scratch("ends", rows, np.float64)
        firsts = self._scratch("firsts", rows + 1, np.int32)
        loops.guide(masses[:rows], ends, firsts)
        hits = self._scratch("edges", draws, np.int64)
        spun = np.uint64(key), ends, firsts, starts, degrees, hits
        ranges = self._team.split(draws, DRAWS_PER_RANGE)
        self._team.run(lambda start, stop: loops.spin_edges(*spun, start, stop), ranges)
        sources = self._scratch("sources", draws + 1, np.int64)
        times = self._scratch("times", draws + 1, np.int32)
        found = loops.distinct(hits, graph[1], self._drawn, sources, times)
        return sources[:found].copy(), times[:found].copy(), float(ends[-1])

    def _whole(self, layers: Sequence[_Layer], seeds: Ids) -> tuple[list[Block], Ids]:
        """Blocks of all seeds, hop by hop, and their vertices: numbers are those of the layers."""
        blocks, nodes = [], seeds
        for layer in layers:
            assert layer.entries is not None, "a rank that is alone draws by edges"
            nodes = layer.reached
            blocks.append(_block(*layer.entries, layer.weights, layer.numbers, len(nodes)))
        return blocks, nodes

    def _partial(self, layers: Sequence[_Layer], part: Ids) -> tuple[list[Block], Ids]:
        """Blocks of some seeds, hop by hop, and their vertices, numbered by first appearance."""
        most = sum(len(layer.vertices) for layer in layers)
        nodes = np.empty(len(part) + most + 1, np.int64)
        open_table(part, nodes, self._table)
        blocks, count = [], len(part)
        for hop, layer in enumerate(layers):
            kept = self._restricted(hop, layer.vertices, nodes[:count])
            count = number(kept[1], nodes, self._table, count)
            numbers = np.empty(len(layer.vertices), np.int32)
            loops.look_up(layer.vertices, self._table, numbers)
            blocks.append(_block(*kept, layer.weights, numbers, count))
        nodes = nodes[:count].copy()
        close_table(nodes, self._table)
        return blocks, nodes

    def _restricted(self, hop: int, vertices: Ids, rows: Ids) -> Entries:
        """The rows' entries in drawn columns, by graph ids."""
        loops.set_bits(vertices, self._bits)
        count, graph, bits = len(rows), (self.indptr, self.indices), self._bits
        indptr, degrees = np.zeros(count + 1, np.int64), np.empty(count, np.int32)
        ends = np.empty(count + 1, np.int64)
        loops.degrees_of(self.indptr, rows, degrees, ends)
        share = self._kept[hop]

        def write(draft: Locals, row: int, stop: int, at: int) -> tuple[int, int]:
            reached: tuple[int, int] = loops.restrict(
                *graph, rows, bits, draft, indptr, row, stop, at
            )
            return reached

        def room(start: int, stop: int) -> int:
            if share is None:
                return 2 * (stop - start)
            expected = int(share * (ends[stop] - ends[start]))
            return expected + expected // DRAFT_SLACK

        indices = drafted(self._team, count, self._longest, room, write)
        loops.clear_bits(vertices, bits)
        # Batches are alike: this hop of the next one keeps about the same share of its entries.
        self._kept[hop] = len(indices) / max(int(ends[-1]), 1)
        np.cumsum(indptr, out=indptr)
        return indptr, indices, degrees


def _block(
    indptr: Ids, indices: Locals, degrees: Locals, weights: Weights, numbers: Locals, num_src: int
) -> Block:
    """A block of drawn columns with their weights; `numbers` are -1 where a column is not in it."""
    columns, num_dst = np.zeros(num_src), len(degrees)
    loops.spread(numbers, weights, columns)
    return Block(
        indptr=indptr,
        indices=indices,
        num_dst=num_dst,
        num_src=num_src,
        degrees=degrees,
        row_weights=np.ones(num_dst),
        column_weights=columns,
    )


class LayerSource(SeedSource):
    """Batches of LADIES.

    Args:
        sampler: of layers.
        train_nodes, size, seed: as of `SeedSource`.
        gathers: whether ranks look for candidates together.
    """

    def __init__(
        self, sampler: LadiesSampler, train_nodes: Ids, size: int, seed: int, *, gathers: bool
    ) -> None:
        super().__init__(sampler, train_nodes, size, seed)
        self.layers, self.gathers = sampler, gathers

    def blocks(self, seeds: Ids, epoch: int, step: int, world_size: int, rank: int) -> Batch:
        part, ranks = split_seeds(seeds, world_size, rank), world_size if self.gathers else 1
        return self.layers.part(seeds, part, epoch, step, ranks=ranks, rank=rank)

    def look(self, epoch: int, step: int, world_size: int, look: Look) -> None:
        """Draw the layers of a batch, for the draws of its parts that follow."""
        self.layers.remember(self.seeds(epoch, step), (epoch, step, world_size), look)


def _chances(norms: Weights, expected: int) -> Weights:
    """Chances min(1, c norm) whose sum is `expected`, or ones where there are fewer candidates."""
    chance: Weights = np.minimum(norms * (expected / norms.sum()), 1.0)
    while True:
        free = chance < 1.0
        left = expected - np.count_nonzero(~free)
        if not free.any() or left <= 0:
            return chance
        scaled = norms[free] * (left / norms[free].sum())
        chance[free] = np.minimum(scaled, 1.0)
        if not (scaled >= 1.0).any():
            return chance
