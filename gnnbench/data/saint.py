"""GraphSAINT: sampled subgraphs, normalised by how often vertices and edges were sampled before.

Legend: R subgraphs sampled beforehand, C_v and C_uv in how many of them a vertex or an edge was,
N_t training vertices.

Source: Zeng, Zhou, Srivastava, Kannan, Prasanna, "GraphSAINT", ICLR 2020; invariant SA-S10.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gnnbench.data import keys
from gnnbench.data.dealing import Dealt
from gnnbench.data.draws import GOLDEN, below, compiled, mix64
from gnnbench.data.graph import Graph
from gnnbench.data.sampling import Block, Ids, Weights, split_seeds
from gnnbench.data.subgraphs import Inducer

Counts = NDArray[np.int32]
_BEFOREHAND, _TRAINING = 0x5A, 0x57
"""Tell the draws of one purpose from those of others that use the run's seed."""


class VertexSampler(Protocol):
    """Draws the vertices of one subgraph."""

    def vertices(self, key: int) -> Ids:
        """Distinct vertices, rising; a pure function of the key."""


class WholeGraph:
    """Every vertex, always: the limit in which sampling is plain training."""

    def __init__(self, graph: Graph) -> None:
        self._all = np.arange(graph.num_nodes, dtype=np.int64)

    def vertices(self, key: int) -> Ids:
        """All vertices."""
        return self._all


class NodeSampler:
    """So many draws with replacement, in proportion to squared column norms.

    The norms are those of the adjacency with self loops, its rows divided by degree + 1.

    Args:
        graph: by destination.
        draws: of a subgraph.
    """

    def __init__(self, graph: Graph, draws: int) -> None:
        rows = 1.0 / (graph.in_degrees() + 1.0) ** 2
        each = np.repeat(rows, graph.in_degrees())
        norms = rows + np.bincount(graph.indices, weights=each, minlength=graph.num_nodes)
        self._ends, self.draws = np.cumsum(norms), draws

    def vertices(self, key: int) -> Ids:
        """Distinct drawn vertices."""
        spins = keys.unit(keys.extend_array(key, np.arange(self.draws)))
        found = np.searchsorted(self._ends, spins * self._ends[-1], side="right")
        return np.unique(np.minimum(found, len(self._ends) - 1)).astype(np.int64)


class WalkSampler:
    """So many random walks along in-edges from uniformly drawn roots; all visited vertices.

    With `edges`, roots have in-edges and walks one step: on an undirected graph that draws edge
    (u, v) in proportion to 1 / deg(u) + 1 / deg(v), as GraphSAINT's edge sampler does. Vertices
    without edges are then never sampled.

    Args:
        graph: by destination.
        roots: of a subgraph.
        length: steps of a walk; it ends early at a vertex without in-edges.
        edges: whether roots are only vertices that have in-edges.
    """

    def __init__(self, graph: Graph, roots: int, length: int, *, edges: bool = False) -> None:
        self.indptr, self.indices = np.asarray(graph.indptr), np.asarray(graph.indices)
        self.roots, self.length = roots, length
        self._starts = np.flatnonzero(graph.in_degrees()) if edges else np.empty(0, np.int64)

    def vertices(self, key: int) -> Ids:
        """Distinct visited vertices."""
        seen = np.empty(self.roots * (self.length + 1), np.int64)
        starts, length = self._starts, self.length
        _walk(self.indptr, self.indices, starts, self.roots, length, np.uint64(key), seen)
        return np.unique(seen)


class SaintSource:
    """Subgraphs whose sums and losses are normalised by how often things were sampled before.

    A sum gets the weight C_v / C_uv for the edge from u to its TARGET v: it then has, over the
    subgraphs with v, the full sum as its mean. The loss of v gets R / (N_t C_v). What the counts
    never saw counts as seen once.

    Args:
        graph: has a training split.
        sampler: of vertices.
        counts: of `presampled`.
        steps: of an epoch.
        subgraphs: of a global batch.
        seed: of every draw.
        threads: threads that look for edges.
    """

    def __init__(
        self,
        graph: Graph,
        sampler: VertexSampler,
        counts: Counts,
        *,
        steps: int,
        subgraphs: int,
        seed: int,
        threads: int = 1,
    ) -> None:
        self.sampler, self.subgraphs, self.seed, self._steps = sampler, subgraphs, seed, steps
        self._inducer = Inducer(graph, threads)
        self.rounds, self.of_vertex, self.of_edge = split_counts(counts, graph.num_nodes)
        self._trains = np.zeros(graph.num_nodes, bool)
        self._trains[graph.train_nodes()] = True

    @property
    def steps(self) -> int:
        return self._steps

    def draw(self, epoch: int, step: int, world_size: int, rank: int) -> Dealt:
        """The subgraphs of a rank; each subgraph's loss estimates the full mean loss."""
        mine = split_seeds(np.arange(self.subgraphs), world_size, rank)
        sets = [
            self.sampler.vertices(keys.fold(self.seed, _TRAINING, epoch, step, int(i)))
            for i in mine
        ]
        batch, edges = self._inducer.union(sets)
        nodes, [block] = batch.input_nodes, batch.blocks
        rows = np.flatnonzero(self._trains[nodes])
        training = max(int(np.count_nonzero(self._trains)), 1)
        seen = np.maximum(self.of_vertex[nodes], 1)
        weighted = Block(
            indptr=block.indptr,
            indices=block.indices,
            num_dst=block.num_dst,
            num_src=block.num_src,
            degrees=block.degrees,
            row_weights=block.row_weights,
            edge_weights=target_weights(block, seen, self.of_edge[edges]),
        )
        return Dealt(
            batch=dataclasses.replace(batch, blocks=(weighted,)),
            rows=rows,
            weights=self.rounds / (training * seen[rows]),
            scale=1.0 / self.subgraphs,
            share=1.0 / self._steps,
        )


def target_weights(block: Block, seen: NDArray[Any], together: NDArray[Any]) -> Weights:
    """Weights C_v / C_uv of a block's edges, v the target."""
    targets = np.repeat(seen, np.diff(block.indptr))
    weights: Weights = targets / np.maximum(together, 1)
    return weights


def presampled(graph: Graph, sampler: VertexSampler, coverage: int, seed: int) -> Counts:
    """Sample subgraphs until they have `coverage` vertices per vertex of the graph, and count.

    Returns:
        int32 [1 + N + E]: subgraphs R, then C_v, then C_uv by edge as the graph stores them.
    """
    inducer, wanted = Inducer(graph), coverage * graph.num_nodes
    counts = np.zeros(1 + graph.num_nodes + graph.num_edges, np.int32)
    rounds, of_vertex, of_edge = (
        counts[:1],
        counts[1 : 1 + graph.num_nodes],
        counts[1 + graph.num_nodes :],
    )
    sampled = 0
    while sampled < wanted:
        vertices = sampler.vertices(keys.fold(seed, _BEFOREHAND, int(rounds[0])))
        of_vertex[vertices] += 1
        of_edge[inducer.induced(vertices)[2]] += 1
        rounds += 1
        sampled += max(len(vertices), 1)
    return counts


def split_counts(counts: Counts, num_nodes: int) -> tuple[int, Counts, Counts]:
    """R, C_v and C_uv of what `presampled` returns."""
    return int(counts[0]), counts[1 : 1 + num_nodes], counts[1 + num_nodes :]


@compiled
def _walk(
    graph_indptr: Any,
    graph_indices: Any,
    starts: Any,
    roots: int,
    length: int,
    key: Any,
    seen: Any,
) -> None:
    at = 0
    for i in range(roots):
        walk_key = mix64((key ^ np.uint64(i)) + GOLDEN)
        if len(starts):
            vertex = starts[below(walk_key, 0, len(starts))]
        else:
            vertex = below(walk_key, 0, len(graph_indptr) - 1)
        for step in range(length + 1):
            seen[at] = vertex
            at += 1
            first = graph_indptr[vertex]
            degree = graph_indptr[vertex + 1] - first
            if step < length and degree:
                vertex = np.int64(graph_indices[first + below(walk_key, step + 1, degree)])
