"""Batches that are subgraphs, and the clusters of a partition that Cluster-GCN makes them of.

A global batch is one or more subgraphs, dealt to ranks; a rank's part is the disjoint union of its
own, in which a vertex may occur once per subgraph. All layers are computed on all of its vertices.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.data import keys
from gnnbench.data.dealing import Dealt
from gnnbench.data.draws import compiled
from gnnbench.data.graph import Graph
from gnnbench.data.sampling import ROWS_PER_RANGE, Batch, Block, Ids, split_seeds
from gnnbench.data.threads import Team

_CLUSTERS = 0xC1
"""Tells the order of clusters from other uses of the run's seed."""


class Inducer:
    """Finds the edges of a graph between given vertices.

    Args:
        graph: by destination.
        threads: threads that look for edges.
    """

    def __init__(self, graph: Graph, threads: int = 1) -> None:
        self.indptr, self.indices = np.asarray(graph.indptr), np.asarray(graph.indices)
        self._team = Team(threads)
        self._table = np.full(graph.num_nodes, -1, np.int32)

    def induced(self, vertices: Ids) -> tuple[Ids, NDArray[np.int32], Ids]:
        """Return the subgraph of distinct vertices.

        Returns:
            indptr int64 [n + 1]; indices int32 [e], positions among the vertices; and where each
            edge lies among the graph's, int64 [e].
        """
        n, table, team = len(vertices), self._table, self._team
        graph, picks = (self.indptr, self.indices), np.empty(n, np.int64)
        table[vertices] = np.arange(n, dtype=np.int32)
        ranges = team.split(n, ROWS_PER_RANGE)
        team.run(lambda a, b: _count_inside(*graph, vertices, table, picks, a, b), ranges)
        indptr = np.zeros(n + 1, np.int64)
        np.cumsum(picks, out=indptr[1:])
        indices, edges = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], np.int64)
        team.run(
            lambda a, b: _fill_inside(*graph, vertices, table, indptr, indices, edges, a, b), ranges
        )
        table[vertices] = -1
        return indptr, indices, edges

    def union(self, sets: Sequence[Ids]) -> tuple[Batch, Ids]:
        """The disjoint union of the subgraphs of several sets of vertices.

        Returns:
            the batch, its one block without weights; and where its edges lie among the graph's.
        """
        parts = [self.induced(vertices) for vertices in sets]
        nodes = np.concatenate([np.empty(0, np.int64), *sets])
        starts = np.cumsum([0, *(len(vertices) for vertices in sets)])
        picks = np.concatenate([np.empty(0, np.int64), *(np.diff(part[0]) for part in parts)])
        indptr = np.zeros(len(nodes) + 1, np.int64)
        np.cumsum(picks, out=indptr[1:])
        indices = np.concatenate(
            [
                np.empty(0, np.int32),
                *(p[1] + np.int32(s) for p, s in zip(parts, starts, strict=False)),
            ]
        )
        block = Block(
            indptr=indptr,
            indices=indices,
            num_dst=len(nodes),
            num_src=len(nodes),
            degrees=picks.astype(np.int32),
            row_weights=np.ones(len(nodes)),
        )
        degrees = self.indptr[nodes + 1] - self.indptr[nodes]
        batch = Batch(blocks=(block,), input_nodes=nodes, seeds=nodes, scanned=int(degrees.sum()))
        return batch, np.concatenate([np.empty(0, np.int64), *(part[2] for part in parts)])


class ClusterSource:
    """Random clusters merged into subgraphs, all edges among them included, each once an epoch.

    The adjacency is normalised anew: degrees are those of the subgraph.

    Args:
        graph: has a training split.
        clusters: int32 [N], the cluster of each vertex.
        count: clusters c.
        merged: clusters q of a subgraph.
        subgraphs: of a global batch.
        seed: of the order of the clusters.
        threads: threads that look for edges.
    """

    def __init__(
        self,
        graph: Graph,
        clusters: NDArray[np.int32],
        *,
        count: int,
        merged: int,
        subgraphs: int,
        seed: int,
        threads: int = 1,
    ) -> None:
        self.count, self.merged, self.subgraphs, self.seed = count, merged, subgraphs, seed
        self._inducer = Inducer(graph, threads)
        self._members = np.argsort(clusters, kind="stable").astype(np.int64)
        self._ends = np.zeros(count + 1, np.int64)
        np.cumsum(np.bincount(clusters, minlength=count), out=self._ends[1:])
        self._trains = np.zeros(graph.num_nodes, bool)
        self._trains[graph.train_nodes()] = True
        self._train_counts = np.bincount(clusters[self._trains], minlength=count)

    @property
    def steps(self) -> int:
        return cluster_steps(self.count, self.merged, self.subgraphs)

    def groups(self, epoch: int, step: int) -> list[Ids]:
        """The clusters of each subgraph of a global batch."""
        order = keys.generator(self.seed, _CLUSTERS, epoch).permutation(self.count)
        first = step * self.subgraphs
        cuts = [(first + i) * self.merged for i in range(self.subgraphs + 1)]
        groups = [order[a:b] for a, b in pairwise(cuts)]
        return [group for group in groups if len(group)]

    def draw(self, epoch: int, step: int, world_size: int, rank: int) -> Dealt:
        """The subgraphs of a rank; their loss is a mean over the batch's training vertices."""
        groups = self.groups(epoch, step)
        mine = split_seeds(np.arange(len(groups)), world_size, rank)
        batch, _ = self._inducer.union([self._vertices(groups[i]) for i in mine])
        rows = np.flatnonzero(self._trains[batch.input_nodes])
        training = sum(int(self._train_counts[group].sum()) for group in groups)
        return Dealt(
            batch=batch,
            rows=rows,
            scale=1.0 / max(training, 1),
            share=training / max(int(self._train_counts.sum()), 1),
        )

    def _vertices(self, group: Ids) -> Ids:
        pieces = [self._members[self._ends[c] : self._ends[c + 1]] for c in group]
        return np.sort(np.concatenate([np.empty(0, np.int64), *pieces]))


def cluster_steps(count: int, merged: int, subgraphs: int) -> int:
    """Global batches of an epoch: every cluster is in one of them."""
    groups = -(-count // merged)
    return -(-groups // subgraphs)


@compiled
def _count_inside(
    graph_indptr: Any,
    graph_indices: Any,
    vertices: Any,
    table: Any,
    picks: Any,
    start: int,
    stop: int,
) -> None:
    for i in range(start, stop):
        kept = 0
        for e in range(graph_indptr[vertices[i]], graph_indptr[vertices[i] + 1]):
            kept += table[graph_indices[e]] >= 0
        picks[i] = kept


@compiled
def _fill_inside(
    graph_indptr: Any,
    graph_indices: Any,
    vertices: Any,
    table: Any,
    indptr: Any,
    indices: Any,
    edges: Any,
    start: int,
    stop: int,
) -> None:
    for i in range(start, stop):
        at = indptr[i]
        for e in range(graph_indptr[vertices[i]], graph_indptr[vertices[i] + 1]):
            local = table[graph_indices[e]]
            if local >= 0:
                indices[at], edges[at] = local, e
                at += 1
