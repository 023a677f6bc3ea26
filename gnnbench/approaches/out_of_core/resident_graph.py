"""The edges between resident partitions, from visit to visit, and the graph that they make."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.approaches.out_of_core.nodes import NodeStructure
from gnnbench.approaches.out_of_core.visits import Visit
from gnnbench.data.graph import Graph
from gnnbench.data.resident_buckets import by_rank, exchanged, starts_of
from gnnbench.steps import Ints


class ResidentGraph:
    """Edge buckets in memory. An epoch begins with a new one, as it begins with an empty buffer.

    Buckets of partitions that stay are kept from visit to visit, so that only those of a new
    partition are read. Edges are pairs of positions, as on the disk.

    Args:
        structure: where everything lies.
        whole: the graph that is trained on.
    """

    def __init__(self, structure: NodeStructure, whole: Graph) -> None:
        self._structure, self._whole = structure, whole
        self._parts: Ints = np.empty(0, np.int64)
        self._starts: Ints = np.zeros(1, np.int64)
        self._edges = np.empty((0, 2), np.int32)

    def exchange(self, visit: Visit, read: NDArray[np.int32]) -> int:
        """Let go of the buckets of partitions that left, take in those that were read.

        Returns:
            Edges between the partitions that are resident now.
        """
        assert self._structure.buckets is not None
        parts = visit.resident
        starts = starts_of(self._structure.buckets.counts[np.ix_(parts, parts)])
        stayed, old = np.full(len(parts), -1, np.int64), ~np.isin(parts, visit.admitted)
        stayed[old] = np.searchsorted(self._parts, parts[old])
        self._edges = exchanged(starts, stayed, self._edges, self._starts, read)
        self._parts, self._starts = parts, starts
        return len(self._edges)

    def graph(self, place: Ints) -> Graph:
        """The bare topology of the resident vertices, numbered by id.

        Args:
            place: of every vertex among the resident rows, see `NodeStructure.residents`.
        """
        rows = self._structure.rows
        sizes = np.array([rows.rows_of(part) for part in self._parts.tolist()], np.int64)
        shift = np.cumsum(sizes) - sizes - self._parts * rows.per_partition
        rank = np.empty(len(place), np.int32)
        rank[place] = np.arange(len(place), dtype=np.int32)
        indptr, indices = by_rank(self._edges, self._starts, shift, rank)
        return Graph(
            name=self._whole.name,
            indptr=indptr,
            indices=indices,
            undirected=self._whole.undirected,
        )


class ResidentLabels:
    """Labels by number within the buffer; those of vertices that are not asked for stay unread.

    Args:
        labels: of all vertices.
        ids: of the resident ones.
    """

    def __init__(self, labels: NDArray[Any], ids: Ints) -> None:
        self._labels, self._ids = labels, ids

    def __getitem__(self, numbers: Ints) -> NDArray[Any]:
        found: NDArray[Any] = self._labels[self._ids[numbers]]
        return found
