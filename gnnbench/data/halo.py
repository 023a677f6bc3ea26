"""The halo of every rank of a partitioned graph: remote rows that it needs.

Shapes: P ranks; rank i owns n_i nodes and needs the halo B_i, the union of B_ij: the nodes of j
with an edge into a node of i (fullgraph section 5). Ids are global unless called local; local
columns of rank i are [owned, halo from 0, halo from 1, ...].
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from gnnbench.data.graph import Graph
from gnnbench.errors import DataError


class Csr(NamedTuple):
    """A sparse pattern by rows.

    Shapes: `indptr` int64 [rows + 1], `indices` int32 [nnz], `edges` int64 [nnz]: the position of
    each entry in the arrays it was made from.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    edges: NDArray[np.int64]


@dataclass(frozen=True)
class RankHalo:
    """The part of one rank. Arrays must not be written to."""

    rank: int
    graph: Graph
    assignment: NDArray[np.int32]
    owned: NDArray[np.int64]  # sorted
    halo: NDArray[np.int64]  # by owner, sorted within
    halo_offsets: NDArray[np.int64]  # [P + 1]: halo from j is halo[offsets[j]:offsets[j + 1]]
    send: NDArray[np.int64]  # by receiver, sorted within
    send_offsets: NDArray[np.int64]  # [P + 1]

    def alone(self) -> RankHalo:
        """The same part, without the memory that it shares with those of other ranks."""
        owned, halo, send = self.owned.copy(), self.halo.copy(), self.send.copy()
        return replace(self, owned=owned, halo=halo, send=send)

    def forget_edges(self) -> None:
        """Let go of the local edges, which are made again when they are asked for."""
        for name in ("csr", "transposed"):
            self.__dict__.pop(name, None)

    @property
    def num_owned(self) -> int:
        return len(self.owned)

    @property
    def num_columns(self) -> int:
        return len(self.owned) + len(self.halo)

    def receive_from(self, owner: int) -> NDArray[np.int64]:
        """Return the ids needed from `owner`, sorted: B_ij."""
        return self.halo[self.halo_offsets[owner] : self.halo_offsets[owner + 1]]

    def send_to(self, receiver: int) -> NDArray[np.int64]:
        """Return the owned ids that `receiver` needs, sorted."""
        return self.send[self.send_offsets[receiver] : self.send_offsets[receiver + 1]]

    @cached_property
    def send_rows(self) -> NDArray[np.int64]:
        """Local rows of `send`, in its order: what to gather before an exchange."""
        return np.searchsorted(self.owned, self.send)

    @cached_property
    def csr(self) -> Csr:
        """Return the local edges: rows are the owned nodes, columns are local.

        The neighbours of a row stay in their global order, so that sums are added up in the same
        order as on one device. `edges` points into the graph's `indices`.
        """
        indptr = np.zeros(self.num_owned + 1, np.int64)
        degrees = self.graph.indptr[self.owned + 1] - self.graph.indptr[self.owned]
        np.cumsum(degrees, out=indptr[1:])
        # A CSR row is a contiguous range of the global arrays: the offset of each row's range,
        # repeated per entry, turns local positions into global ones without a loop.
        edges = np.arange(indptr[-1]) + np.repeat(
            self.graph.indptr[self.owned] - indptr[:-1], degrees
        )
        # One table over all nodes answers each entry by one read; a search per entry would be
        # slower than the 4 bytes per node are large. Entries outside are never read.
        local = np.empty(self.graph.num_nodes, np.int32)
        local[self.owned] = np.arange(self.num_owned, dtype=np.int32)
        local[self.halo] = np.arange(self.num_owned, self.num_columns, dtype=np.int32)
        return Csr(indptr, local[self.graph.indices[edges]], edges)

    @cached_property
    def transposed(self) -> Csr:
        """Return `csr` by columns: `indices` are rows of it, `edges` positions in it."""
        return _transpose(self.csr.indptr, self.csr.indices, self.num_columns)

    @property
    def indptr(self) -> NDArray[np.int64]:
        return self.csr.indptr

    @property
    def indices(self) -> NDArray[np.int32]:
        return self.csr.indices


@dataclass(frozen=True)
class HaloStructure:
    """All ranks; `counts` int64 [P, P] is |B_ij|: what i receives from j."""

    num_parts: int
    assignment: NDArray[np.int32]
    counts: NDArray[np.int64]
    ranks: tuple[RankHalo, ...]

    @property
    def halo_copies(self) -> int:
        """S, the total of all halos."""
        return int(self.counts.sum())


def check_assignment(
    graph: Graph, assignment: NDArray[np.integer[Any]], num_parts: int
) -> NDArray[np.int32]:
    """Return the assignment as int32 [N]. Raises DataError when it does not fit the graph."""
    parts = np.asarray(assignment)
    if parts.shape != (graph.num_nodes,) or not np.issubdtype(parts.dtype, np.integer):
        raise DataError(
            graph.name,
            f"assignment {parts.dtype} {parts.shape}: expected {graph.num_nodes} integers",
        )
    # An empty graph has no smallest part.
    if len(parts) and not 0 <= parts.min() <= parts.max() < num_parts:
        raise DataError(
            graph.name,
            f"assignment reaches {parts.min()}..{parts.max()}, allowed 0..{num_parts - 1}",
        )
    return parts.astype(np.int32, copy=False)


def halo_structure(
    graph: Graph, assignment: NDArray[np.integer[Any]], num_parts: int
) -> HaloStructure:
    """Find every rank's owned nodes, halo and send lists; local edges are built when asked for.

    Cost: two passes over the edges, then a sort of each halo.
    """
    parts = check_assignment(graph, assignment, num_parts)
    order, starts = _by_part(parts, num_parts)
    indptr, indices = _plain(graph)
    counts = _count_halo(indptr, indices, parts, order, starts, num_parts)
    ends = np.zeros(num_parts + 1, np.int64)
    np.cumsum(counts.sum(axis=1), out=ends[1:])
    halo = _collect_halo(indptr, indices, parts, order, starts, ends)
    for rank in range(num_parts):
        own = halo[ends[rank] : ends[rank + 1]]
        # Sorted by id first, then stably by owner: the exchange sends ids in rising order to every
        # peer, and both ends then agree without sending the ids.
        own.sort()
        own[:] = own[np.argsort(parts[own], kind="stable")]
    send, send_starts = _send_lists(halo, counts)
    ranks = tuple(
        RankHalo(
            rank=rank,
            graph=graph,
            assignment=parts,
            owned=order[starts[rank] : starts[rank + 1]],
            halo=halo[ends[rank] : ends[rank + 1]],
            halo_offsets=np.concatenate([[0], np.cumsum(counts[rank])]),
            send=send[send_starts[rank] : send_starts[rank + 1]],
            send_offsets=np.concatenate([[0], np.cumsum(counts[:, rank])]),
        )
        for rank in range(num_parts)
    )
    return HaloStructure(num_parts, parts, counts, ranks)


def halo_counts(
    graph: Graph, assignment: NDArray[np.integer[Any]], num_parts: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return |B_ij| int64 [P, P], stored edges int64 [P] and nodes int64 [P] of each part.

    Cost: one pass over the edges and 8 P^2 bytes.
    """
    parts = check_assignment(graph, assignment, num_parts)
    order, starts = _by_part(parts, num_parts)
    indptr, indices = _plain(graph)
    counts = _count_halo(indptr, indices, parts, order, starts, num_parts)
    # Degrees in the order of the parts, so that one running sum gives all parts at once.
    degrees = graph.in_degrees()[order]
    running = np.concatenate([[0], np.cumsum(degrees)])
    return counts, np.diff(running[starts]), np.diff(starts)


def halo_entries(
    graph: Graph, assignment: NDArray[np.integer[Any]], num_parts: int
) -> NDArray[np.int64]:
    """Return int64 [P]: the in-edges of each part whose source another part owns.

    Cost: one pass over the edges.
    """
    parts = check_assignment(graph, assignment, num_parts)
    indptr, indices = _plain(graph)
    return np.asarray(_count_entries(indptr, indices, parts, num_parts))


def with_self_loops(
    indptr: NDArray[np.int64], indices: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return the pattern with an entry (r, r) behind the others of each row r."""
    rows = np.arange(len(indptr) - 1)
    # The self loop stands last in its row, in both worlds: sums are added up in the same order.
    return indptr + np.arange(len(indptr)), np.insert(indices, indptr[1:], rows.astype(np.int32))


def transpose(indptr: NDArray[np.int64], indices: NDArray[np.int32], num_columns: int) -> Csr:
    """Return a pattern by columns: `indices` are its rows, `edges` positions among its entries."""
    return _transpose(indptr, indices, num_columns)


def _plain(graph: Graph) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return indptr and indices as base arrays: a kernel takes no memmap."""
    # The subclass check of a memmap fails in numba's typing; the view shares its memory.
    return np.asarray(graph.indptr), np.asarray(graph.indices)


def _by_part(
    parts: NDArray[np.int32], num_parts: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the nodes grouped by part, sorted within, and where each part starts [P + 1]."""
    starts = np.zeros(num_parts + 1, np.int64)
    np.cumsum(np.bincount(parts, minlength=num_parts), out=starts[1:])
    return np.argsort(parts, kind="stable"), starts


def _send_lists(
    halo: NDArray[np.int64], counts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Turn the halos, blocks (receiver, owner), into blocks (owner, receiver)."""
    num_parts = len(counts)
    sizes = counts.reshape(-1)
    # The blocks of a receiver lie together; those of an owner are one in each receiver's halo. The
    # blocks are reordered with repeated offsets, not copied one at a time.
    begin = (np.cumsum(sizes) - sizes).reshape(num_parts, num_parts)
    lengths, firsts = counts.T.reshape(-1), begin.T.reshape(-1)
    ends = np.cumsum(lengths)
    at = np.arange(len(halo)) + np.repeat(firsts - (ends - lengths), lengths)
    starts = np.zeros(num_parts + 1, np.int64)
    np.cumsum(counts.sum(axis=0), out=starts[1:])
    return halo[at], starts


@numba.njit(cache=True)
def _count_halo(indptr, indices, parts, order, starts, num_parts):  # type: ignore[no-untyped-def]
    counts = np.zeros((num_parts, num_parts), np.int64)
    # One mark per node and not per pair: a source counts once per receiving rank, and ranks are
    # visited one after the other, so that the mark of the last rank suffices.
    seen_by = np.full(len(parts), -1, np.int32)
    for rank in range(num_parts):
        for position in range(starts[rank], starts[rank + 1]):
            node = order[position]
            for edge in range(indptr[node], indptr[node + 1]):
                source = indices[edge]
                owner = parts[source]
                if owner != rank and seen_by[source] != rank:
                    seen_by[source] = rank
                    counts[rank, owner] += 1
    return counts


@numba.njit(cache=True)
def _count_entries(indptr, indices, parts, num_parts):  # type: ignore[no-untyped-def]
    counts = np.zeros(num_parts, np.int64)
    for node in range(len(parts)):
        for edge in range(indptr[node], indptr[node + 1]):
            if parts[indices[edge]] != parts[node]:
                counts[parts[node]] += 1
    return counts


@numba.njit(cache=True)
def _collect_halo(indptr, indices, parts, order, starts, ends):  # type: ignore[no-untyped-def]
    halo = np.empty(ends[-1], np.int64)
    seen_by = np.full(len(parts), -1, np.int32)
    for rank in range(len(ends) - 1):
        write = ends[rank]
        for position in range(starts[rank], starts[rank + 1]):
            node = order[position]
            for edge in range(indptr[node], indptr[node + 1]):
                source = indices[edge]
                if parts[source] != rank and seen_by[source] != rank:
                    seen_by[source] = rank
                    halo[write] = source
                    write += 1
    return halo


def _transpose(indptr: NDArray[np.int64], indices: NDArray[np.int32], num_columns: int) -> Csr:
    return Csr(*_counting_transpose(indptr, indices, num_columns))


@numba.njit(cache=True)
def _counting_transpose(indptr, indices, num_columns):  # type: ignore[no-untyped-def]
    starts = np.zeros(num_columns + 1, np.int64)
    for column in indices:
        starts[column + 1] += 1
    for column in range(num_columns):
        starts[column + 1] += starts[column]
    # A cursor per column keeps rows in rising order within each column, as a stable sort would.
    write = starts[:-1].copy()
    rows = np.empty(len(indices), np.int32)
    edges = np.empty(len(indices), np.int64)
    for row in range(len(indptr) - 1):
        for edge in range(indptr[row], indptr[row + 1]):
            at = write[indices[edge]]
            rows[at], edges[at] = row, edge
            write[indices[edge]] = at + 1
    return starts, rows, edges
