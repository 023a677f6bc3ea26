"""Boundary sampling: the halo rows that are exchanged in an epoch, and the resulting graph.

Draws depend on (seed, epoch, owner, peer) and the vertex only, so every rank and the planner can
compute the draw of any rank (BNS-GCN; fullgraph section 6, FG-32, FG-34).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from gnnbench.data.halo import HaloStructure, RankHalo
from gnnbench.data.keys import extend_array, fold

_DRAW = 0x626E73  # apart from the keys of samplers and dropout, which share seed and epoch


def drawn_rows(rate: float, size: int) -> int:
    """Return k = floor(rate size), robust to rates that have no exact binary form."""
    # 0.29 x 100 is 28.999999999999996 in binary: without the margin the count would be one too low.
    return min(size, math.floor(rate * size + 1e-9))


def draw_boundary(
    boundary: NDArray[np.int64], rate: float, seed: int, epoch: int, owner: int, peer: int
) -> NDArray[np.int64]:
    """Return the positions in `boundary` (ids of `owner` that `peer` needs) drawn for an epoch.

    Sorted, without repetition, every subset of that size being equally likely: the vertices with
    the smallest keys.
    """
    count = drawn_rows(rate, len(boundary))
    # All or nothing needs no keys.
    if count in (0, len(boundary)):
        return np.arange(count)
    # Owner and peer both draw with the same key, so that no ids are sent.
    keys = extend_array(fold(seed, _DRAW, epoch, owner, peer), boundary)
    # A partial selection is linear; only the selected positions are sorted.
    return np.sort(np.argpartition(keys, count - 1)[:count])


@dataclass(frozen=True, slots=True)
class Boundary:
    """What one rank needs to draw: global ids of its halo and of the rows that it sends.

    Shapes as in `RankHalo`; the edges of the latter are not kept alive.
    """

    rank: int
    halo: NDArray[np.int64]
    halo_offsets: NDArray[np.int64]
    send: NDArray[np.int64]
    send_offsets: NDArray[np.int64]

    @classmethod
    def of(cls, local: RankHalo) -> Boundary:
        return cls(local.rank, local.halo, local.halo_offsets, local.send, local.send_offsets)

    @property
    def num_parts(self) -> int:
        return len(self.halo_offsets) - 1

    def _from(self, owner: int) -> NDArray[np.int64]:
        return self.halo[self.halo_offsets[owner] : self.halo_offsets[owner + 1]]

    def _to(self, peer: int) -> NDArray[np.int64]:
        return self.send[self.send_offsets[peer] : self.send_offsets[peer + 1]]

    def taken(self, rate: float) -> list[int]:
        """Return k_ij for every owner j: rows received from it in every epoch."""
        return [drawn_rows(rate, int(size)) for size in np.diff(self.halo_offsets)]

    def given(self, rate: float) -> list[int]:
        """Return k_ij for every peer i: rows sent to it in every epoch."""
        return [drawn_rows(rate, int(size)) for size in np.diff(self.send_offsets)]

    def draw_sent(self, rate: float, seed: int, epoch: int) -> NDArray[np.int64]:
        """Return the positions in `send` that this rank draws for its peers, peer by peer."""
        return np.concatenate(
            [
                self.send_offsets[peer]
                + draw_boundary(self._to(peer), rate, seed, epoch, self.rank, peer)
                for peer in range(self.num_parts)
            ]
        )

    def draw_received(self, rate: float, seed: int, epoch: int) -> NDArray[np.int64]:
        """Return the positions in `halo` that the owners draw for this rank, owner by owner."""
        return np.concatenate(
            [
                self.halo_offsets[owner]
                + draw_boundary(self._from(owner), rate, seed, epoch, owner, self.rank)
                for owner in range(self.num_parts)
            ]
        )

    def find_received(self, ids: NDArray[np.int64], counts: Sequence[int]) -> NDArray[np.int64]:
        """Return the positions in `halo` of ids that came owner by owner, `counts` of each."""
        ends = np.concatenate([[0], np.cumsum(counts)])
        return np.concatenate(
            [
                self.halo_offsets[owner]
                + np.searchsorted(self._from(owner), ids[ends[owner] : ends[owner + 1]])
                for owner in range(self.num_parts)
            ]
        )

    def scales(self, rate: float) -> NDArray[np.float64]:
        """Return 1 / r_ij = |B_ij| / k_ij for every halo row, 0 where a pair is never drawn."""
        sizes, drawn = np.diff(self.halo_offsets), np.array(self.taken(rate), np.float64)
        # A pair that is never drawn contributes nothing, and has no rate to divide by.
        ratio = np.divide(sizes, drawn, out=np.zeros(len(sizes)), where=drawn > 0)
        return np.repeat(ratio, sizes)

    def most_edges(self, edges: NDArray[np.int64], rate: float) -> int:
        """Return the most edges that a draw can bring; `edges` counts those of each halo row."""
        ends, most = self.halo_offsets, 0
        for owner, count in enumerate(self.taken(rate)):
            # The draw that takes the rows with most edges bounds every draw: buffers of this size
            # are never enlarged during training.
            found = edges[ends[owner] : ends[owner + 1]]
            most += int(np.sort(found)[len(found) - count :].sum())
        return most


class SampledGraph:
    """The bipartite graph of one rank over its own and the drawn rows, rebuilt in place.

    Columns are [own, drawn halo rows]; entries of a row keep their order. Arrays have room for the
    largest draw at `rate`; `rebuild` returns how many entries are valid. Shapes: `indptr` [n + 1],
    `indptr_t` [n + drawn + 1]. Entries of own columns never change and are written once.
    """

    def __init__(self, local: RankHalo, rate: float = 1.0) -> None:
        csr, turned, n = local.csr, local.transposed, local.num_owned
        boundary = Boundary.of(local)
        self.num_owned, inner = n, int(turned.indptr[n])
        # Own entries are in every draw; only those of halo rows vary.
        size = inner + boundary.most_edges(np.diff(turned.indptr[n:]), rate)
        self._rows = csr.indptr, csr.indices
        self._columns = turned.indptr, turned.indices
        self.indptr, self.indices = np.zeros(n + 1, np.int64), np.empty(size, np.int32)
        self.indptr_t = np.zeros(n + sum(boundary.taken(rate)) + 1, np.int64)
        # Own columns precede halo columns and never change, so that a rebuild appends behind them.
        self.indptr_t[: n + 1] = turned.indptr[: n + 1]
        self.indices_t = np.empty(size, np.int32)
        self.indices_t[:inner] = turned.indices[:inner]
        self._place = _places(n, local.num_columns)

    def rebuild(self, drawn: NDArray[np.int64]) -> int:
        """Keep the drawn positions of the halo, in their order; return the number of entries."""
        n = self.num_owned
        _place_drawn(self._place, n, drawn)
        _keep_columns(*self._rows, self._place, self.indptr, self.indices)
        _append_columns(*self._columns, drawn + n, n, self.indptr_t, self.indices_t)
        return int(self.indptr[-1])

    @property
    def num_bytes(self) -> int:
        """Bytes of the buffers, the places of columns among them."""
        held = self.indptr, self.indices, self.indptr_t, self.indices_t, self._place
        return sum(array.nbytes for array in held)


class SampledAttention:
    """`SampledGraph` for attention: with self loops, positions of transposed entries, and keys.

    The given pattern has a self loop in every row and `num_columns` columns, own ones first.
    `edges_t` [entries] is the position of each transposed entry among the others; `edge_ids` are
    the ids of the kept entries (absent without `ids`).
    """

    def __init__(
        self,
        indptr: NDArray[np.int64],
        indices: NDArray[np.int32],
        ids: NDArray[np.int64] | None,
        boundary: Boundary,
        rate: float,
    ) -> None:
        n = len(indptr) - 1
        columns = n + len(boundary.halo)
        edges = np.bincount(indices, minlength=columns)
        size = int(edges[:n].sum()) + boundary.most_edges(edges[n:], rate)
        self.num_owned, self._rows, self._ids = n, (indptr, indices), ids
        self.indptr, self.indices = np.zeros(n + 1, np.int64), np.empty(size, np.int32)
        self.indptr_t = np.zeros(n + sum(boundary.taken(rate)) + 1, np.int64)
        self.indices_t, self.edges_t = np.empty(size, np.int32), np.empty(size, np.int64)
        self.edge_ids = None if ids is None else np.empty(size, np.int64)
        self._place = _places(n, columns)

    def rebuild(self, drawn: NDArray[np.int64]) -> int:
        """Keep the drawn positions of the halo, in their order; return the number of entries."""
        columns = self.num_owned + len(drawn)
        _place_drawn(self._place, self.num_owned, drawn)
        _keep_columns(*self._rows, self._place, self.indptr, self.indices)
        if self._ids is not None:
            _keep_ids(self._rows[1], self._place, self._ids, self.edge_ids)
        starts = self.indptr_t[: columns + 1]
        _transpose_into(self.indptr, self.indices, starts, self.indices_t, self.edges_t)
        return int(self.indptr[-1])

    @property
    def num_bytes(self) -> int:
        """Bytes of the buffers, the places of columns among them."""
        held = self.indptr, self.indices, self.indptr_t, self.indices_t, self.edges_t, self._place
        keys = 0 if self.edge_ids is None else self.edge_ids.nbytes
        return sum(array.nbytes for array in held) + keys


def _places(num_owned: int, num_columns: int) -> NDArray[np.int32]:
    """Index of each column in the sampled graph; -1 if it was not drawn."""
    place = np.full(num_columns, -1, np.int32)
    place[:num_owned] = np.arange(num_owned, dtype=np.int32)
    return place


def _place_drawn(place: NDArray[np.int32], num_owned: int, drawn: NDArray[np.int64]) -> None:
    # All halo rows are reset, because the previous draw is not kept.
    place[num_owned:] = -1
    place[num_owned + drawn] = np.arange(num_owned, num_owned + len(drawn), dtype=np.int32)


def halo_edges(parts: HaloStructure) -> list[NDArray[np.int64]]:
    """Count, for every rank and row of its halo, the edges from it into the rank's rows.

    Cost: one pass over the edges, and 8 bytes per node.
    """
    ranks = parts.ranks
    graph = ranks[0].graph
    indptr, indices = np.asarray(graph.indptr), np.asarray(graph.indices)
    slot = np.full(graph.num_nodes, -1, np.int64)
    counts = []
    for local in ranks:
        found = np.zeros(len(local.halo), np.int64)
        # Reset per rank: clearing the whole table P times would cost P N writes.
        slot[local.halo] = np.arange(len(local.halo))
        _count_edges(indptr, indices, local.owned, slot, found)
        slot[local.halo] = -1
        counts.append(found)
    return counts


@numba.njit(cache=True)
def _count_edges(indptr, indices, owned, slot, found):  # type: ignore[no-untyped-def]
    for node in owned:
        for edge in range(indptr[node], indptr[node + 1]):
            at = slot[indices[edge]]
            if at >= 0:
                found[at] += 1


@numba.njit(cache=True)
def _keep_columns(indptr, indices, place, out_indptr, out):  # type: ignore[no-untyped-def]
    at = 0
    for row in range(len(indptr) - 1):
        for edge in range(indptr[row], indptr[row + 1]):
            # A column that was not drawn has place -1 and drops its entries.
            column = place[indices[edge]]
            if column >= 0:
                out[at] = column
                at += 1
        out_indptr[row + 1] = at


@numba.njit(cache=True)
def _keep_ids(indices, place, ids, out):  # type: ignore[no-untyped-def]
    at = 0
    for edge in range(len(indices)):
        if place[indices[edge]] >= 0:
            out[at] = ids[edge]
            at += 1


@numba.njit(cache=True)
def _transpose_into(indptr, indices, starts, rows, edges):  # type: ignore[no-untyped-def]
    """Transpose into buffers; `starts` is the cursor of each column until all is written."""
    starts[:] = 0
    for edge in range(indptr[-1]):
        starts[indices[edge] + 1] += 1
    for column in range(len(starts) - 1):
        starts[column + 1] += starts[column]
    for row in range(len(indptr) - 1):
        for edge in range(indptr[row], indptr[row + 1]):
            at = starts[indices[edge]]
            rows[at], edges[at] = row, edge
            starts[indices[edge]] = at + 1
    # After the writing each cursor stands at the next column's start; shifting by one restores the
    # starts.
    for column in range(len(starts) - 1, 0, -1):
        starts[column] = starts[column - 1]
    starts[0] = 0


@numba.njit(cache=True)
def _append_columns(indptr, rows, columns, own, out_indptr, out):  # type: ignore[no-untyped-def]
    at = indptr[own]
    for number, column in enumerate(columns):
        for entry in range(indptr[column], indptr[column + 1]):
            out[at] = rows[entry]
            at += 1
        out_indptr[own + number + 1] = at
