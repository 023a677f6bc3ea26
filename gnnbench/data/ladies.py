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
from gnnbench.data.dealing import SeedSource
from gnnbench.data.drafts import drafted
from gnnbench.data.draws import compiled
from gnnbench.data.sampling import (
    Batch,
    Block,
    Ids,
    Near,
    Weights,
    close_table,
    number,
    open_table,
    split_seeds,
)
from gnnbench.data.threads import Team

UNIT = 2.0**-40
"""Unit of squared norms: sums of integers do not depend on the order of the rows.

Rounding changes how likely a vertex is drawn, and its weight with it: sums stay unbiased."""


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """What a hop draws for the whole global batch: vertices, their weights; what ranks saw."""

    vertices: Ids
    weights: Weights
    near: tuple[Near, ...]


Pick = Callable[[Ids, Ids], tuple[Ids, Weights]]
"""From candidates and their norms to drawn vertices and their weights."""
Look = Callable[[Ids, int, Pick], tuple[Ids, Weights, Sequence[Near]]]
"""From the vertices reached, a hop and how to pick, to what is drawn and what ranks looked at."""


class LadiesSampler:
    """Draw blocks by LADIES for the parts of global batches; see the module.

    The layers of a global batch are drawn alike on every rank, from candidates that one rank looks
    for, or all ranks together (`Look`); a rank's blocks are their restriction to what its own seeds
    need, so parts make up the whole batch.

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
        self._team = Team(threads)
        self._table = np.full(len(indptr) - 1, -1, np.int32)
        self._drawn = np.full(len(indptr) - 1, -1, np.int32)
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
        nodes = np.empty(len(part) + sum(len(layer.vertices) for layer in layers), np.int64)
        open_table(np.ascontiguousarray(part, np.int64), nodes, self._table)
        blocks, count = [], len(part)
        scanned = 0
        for layer in layers:
            block = self._restricted(layer, nodes, count)
            blocks.append(block)
            scanned += int(block.degrees.sum(dtype=np.int64))
            count = block.num_src
        input_nodes = nodes[:count].copy()
        close_table(input_nodes, self._table)
        mine = tuple(layer.near[min(rank, len(layer.near) - 1)] for layer in layers)
        if ranks == 1:
            scanned += sum(near.edges for near in mine)
        return Batch(
            blocks=tuple(reversed(blocks)),
            input_nodes=input_nodes,
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
            known = at, seeds.copy(), self.layers_of(seeds, epoch, step, look or self.shares(ranks))
            self._known = known
        return known[2]

    def layers_of(
        self, seeds: Ids, epoch: int, step: int, look: Look | None = None
    ) -> list[_Layer]:
        """Draw the vertices of every hop of a global batch, the hop next to the seeds first."""
        found, reached = [], np.ascontiguousarray(seeds, np.int64)
        look = look or self.shares(1)
        for hop in range(self.layers):
            key = keys.fold(self.seed, epoch, step, hop)
            vertices, weights, near = look(reached, hop, self._pick_by(key))
            found.append(_Layer(vertices, weights, tuple(near)))
            reached = np.concatenate([reached, self._fresh(vertices, reached)])
        return found

    def shares(self, ranks: int) -> Look:
        """Look for candidates as so many ranks would, one share after the other."""

        def look(reached: Ids, hop: int, pick: Pick) -> tuple[Ids, Weights, list[Near]]:
            parts = [self.share(reached, ranks, rank) for rank in range(ranks)]
            drawn = pick(*self.merged([part[:2] for part in parts]))
            return *drawn, [part[2] for part in parts]

        return look

    def _pick_by(self, key: int) -> Pick:
        def pick(candidates: Ids, norms: Ids) -> tuple[Ids, Weights]:
            return self._pick(candidates, self.scaled(candidates, norms), key)

        return pick

    def share(self, reached: Ids, ranks: int, rank: int) -> tuple[Ids, Ids, Near]:
        """Candidates and norms of a rank's share of the rows that were reached."""
        rows = split_seeds(reached, ranks, rank)
        ids, norms, edges = self.near(rows)
        return ids, norms, Near(rows=len(rows), candidates=len(ids), edges=edges)

    def merged(self, parts: Sequence[tuple[Ids, Ids]]) -> tuple[Ids, Ids]:
        """Candidates of all parts by first appearance, and the sums of their norms.

        Shares are consecutive rows, so the order is that of a single rank that looks at all rows.
        """
        if len(parts) == 1:
            return parts[0]
        ids, norms = (np.concatenate(column) for column in zip(*parts, strict=True))
        count = _merge(ids, norms, self._table)
        return ids[:count], norms[:count]

    def near(self, reached: Ids) -> tuple[Ids, Ids, int]:
        """In-neighbours of vertices by first appearance, their norms, and edges looked at.

        Norms are sums over the given rows in units of `UNIT`, columns not scaled: sums of parts of
        the rows add up exactly.
        """
        edges = int((self.indptr[reached + 1] - self.indptr[reached]).sum())
        found = np.empty(min(edges, len(self._table)), np.int64)
        norms = np.empty(len(found), np.int64)
        graph = self.indptr, self.indices
        count = _near(*graph, reached, self.rows2, self._table, found, norms)
        return found[:count], norms[:count], edges

    def scaled(self, candidates: Ids, norms: Ids) -> Weights:
        """Squared column norms of the candidates."""
        found: Weights = norms.astype(np.float64) * UNIT
        if len(self.columns2):
            found *= self.columns2[candidates]
        return found

    def _fresh(self, vertices: Ids, reached: Ids) -> Ids:
        """The drawn vertices that were not reached before."""
        self._table[reached] = 1
        fresh: Ids = vertices[self._table[vertices] < 0]
        self._table[reached] = -1
        return fresh

    def _pick(self, candidates: Ids, norms: Weights, key: int) -> tuple[Ids, Weights]:
        """Draw from the candidates in proportion to their norms; weights make sums unbiased."""
        if not len(candidates):
            return candidates, norms
        if self.poisson:
            chance = _chances(norms, self.vertices)
            kept = keys.unit(keys.extend_array(key, candidates)) < chance
            return candidates[kept], 1.0 / chance[kept]
        ends = np.cumsum(norms)
        spins = keys.unit(keys.extend_array(key, np.arange(self.vertices))) * ends[-1]
        # Sorted, they are looked up where the one before was found.
        spins.sort()
        at = np.minimum(np.searchsorted(ends, spins, side="right"), len(ends) - 1)
        times = np.bincount(at, minlength=len(candidates))
        kept = times > 0
        share = np.maximum(norms[kept], UNIT**2)
        return candidates[kept], times[kept] * ends[-1] / (self.vertices * share)

    def _restricted(self, layer: _Layer, nodes: Ids, num_dst: int) -> Block:
        """The entries of the first `num_dst` nodes' rows whose sources were drawn."""
        self._drawn[layer.vertices] = np.arange(len(layer.vertices))
        graph, drawn = (self.indptr, self.indices), self._drawn
        indptr, degrees = np.zeros(num_dst + 1, np.int64), np.empty(num_dst, np.int32)

        def write(draft: NDArray[np.int32], row: int, stop: int, at: int) -> tuple[int, int]:
            reached: tuple[int, int] = _fill_drawn(
                *graph, nodes, drawn, draft, indptr, degrees, row, stop, at
            )
            return reached

        def room(start: int, stop: int) -> int:
            return 2 * (stop - start)

        indices = drafted(self._team, num_dst, self._longest, room, write)
        np.cumsum(indptr, out=indptr)
        num_src = number(indices, nodes, self._table, num_dst)
        sources = self._drawn[nodes[:num_src]]
        weights = np.zeros(num_src)
        weights[sources >= 0] = layer.weights[sources[sources >= 0]]
        self._drawn[layer.vertices] = -1
        return Block(
            indptr=indptr,
            indices=indices,
            num_dst=num_dst,
            num_src=num_src,
            degrees=degrees,
            row_weights=np.ones(num_dst),
            column_weights=weights,
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


@compiled
def _near(
    indptr: Any, indices: Any, reached: Any, rows2: Any, marks: Any, found: Any, norms: Any
) -> int:
    """Distinct in-neighbours of `reached`, with their sums over its rows."""
    count = 0
    for v in reached:
        own = rows2[v]
        for e in range(indptr[v], indptr[v + 1]):
            u = indices[e]
            place = marks[u]
            if place < 0:
                marks[u] = count
                found[count] = u
                norms[count] = own
                count += 1
            else:
                norms[place] += own
    for i in range(count):
        marks[found[i]] = -1
    return count


@compiled
def _merge(ids: Any, norms: Any, marks: Any) -> int:
    """Add up norms of equal ids, in place."""
    count = 0
    for i in range(len(ids)):
        u, own = ids[i], norms[i]
        place = marks[u]
        if place < 0:
            marks[u] = count
            ids[count], norms[count] = u, own
            count += 1
        else:
            norms[place] += own
    for i in range(count):
        marks[ids[i]] = -1
    return count


@compiled
def _fill_drawn(
    graph_indptr: Any,
    graph_indices: Any,
    nodes: Any,
    drawn: Any,
    out: Any,
    picks: Any,
    degrees: Any,
    start: int,
    stop: int,
    at: int,
) -> tuple[int, int]:
    """Write the drawn neighbours of destinations start .. stop-1, their number, and degrees.

    Returns the destination and the place at which it stopped for want of room.
    """
    for i in range(start, stop):
        first, last = graph_indptr[nodes[i]], graph_indptr[nodes[i] + 1]
        if at + last - first > len(out):
            return i, at
        before = at
        for e in range(first, last):
            u = graph_indices[e]
            # Written always and kept if it was drawn: no branch to guess wrong.
            out[at] = u
            at += drawn[u] >= 0
        picks[i + 1], degrees[i] = at - before, last - first
    return stop, at
