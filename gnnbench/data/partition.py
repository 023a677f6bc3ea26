"""Assign nodes to parts (METIS, Fennel, hash, chunk) and report the quality of an assignment."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.graph import Graph, from_edges
from gnnbench.data.halo import check_assignment, halo_counts, halo_entries
from gnnbench.errors import DataError, MissingExtra, RunFailed, SpecError, UnknownName, Unsupported

METHODS = ("metis", "fennel", "hash", "chunk")
OBJECTIVES = ("vol", "cut")
BALANCES = ("nodes", "edges", "train")


def partition(
    graph: Graph,
    num_parts: int,
    method: str = "metis",
    *,
    objective: str = "vol",
    balance: str = "nodes",
    seed: int = 0,
) -> NDArray[np.int32]:
    """Return the part of every node, int32 [N]; parts may be empty (they are if num_parts > N).

    metis: k-way with communication volume ('vol') or edge cut ('cut') as objective, on the
    undirected graph. `balance` sets the weight of a node: 1; its in-degree + 1 (stored edges and
    own row); or a weight by which training nodes and all nodes contribute half each (pymetis has a
    single balance constraint; DGL's 'train' uses two). hash: a keyed hash of the node id, balanced
    on average only. chunk: contiguous ids of about equal weight. fennel: a streaming
    partitioner that needs some bytes per node and none per edge (see `gnnbench.data.fennel`).
    `objective` affects metis only, `seed` metis and hash. For one seed METIS is reproducible on one
    platform, not across platforms.
    'vol' takes about ten times as long as 'cut': minutes for millions of edges without communities.

    Raises: UnknownName, SpecError, Unsupported (hash with another balance than nodes).
    """
    for kind, value, known in (
        ("partition method", method, METHODS),
        ("partition objective", objective, OBJECTIVES),
        ("partition balance", balance, BALANCES),
    ):
        if value not in known:
            raise UnknownName(kind, value, known)
    if not 1 <= num_parts < 2**31:
        raise SpecError(f"num_parts: found {num_parts}, allowed >= 1")
    if method == "hash" and balance != "nodes":
        raise Unsupported(
            f"hash cannot balance {balance}: use metis, fennel or chunk, or balance 'nodes'"
        )
    if num_parts == 1:
        return np.zeros(graph.num_nodes, np.int32)
    if method == "hash":
        return _hash(graph.num_nodes, num_parts, seed)
    weights = _weights(graph, balance)
    if method == "chunk" or graph.num_edges == 0 or num_parts >= graph.num_nodes:
        # METIS needs edges and more nodes than parts; without them contiguous chunks cut nothing,
        # or give every node its own part.
        return _chunk(weights, num_parts)
    uneven = weights if balance != "nodes" else None
    if method == "fennel":
        # Late: the loop is compiled.
        from gnnbench.data.fennel import fennel

        return fennel(graph, num_parts, uneven)
    return _metis(graph, num_parts, objective, uneven, seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionReport:
    """What an assignment costs. Per-part tuples are in order of the parts; edges are stored ones.

    `edges` of a part are those into its nodes, `halo` the remote nodes it needs, `halo_copies` S
    their sum (fullgraph section 5). Balances are max / mean over the parts, 1 when the sum is 0.
    """

    num_parts: int
    cut_edges: int
    cut_fraction: float
    halo_copies: int
    halo_per_node: float
    nodes: tuple[int, ...]
    edges: tuple[int, ...]
    halo: tuple[int, ...]
    train: tuple[int, ...]
    node_balance: float
    edge_balance: float
    halo_balance: float
    train_balance: float

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


def report(graph: Graph, assignment: NDArray[np.integer[Any]], num_parts: int) -> PartitionReport:
    """Measure an assignment. Cost: one pass over the edges."""
    parts = check_assignment(graph, assignment, num_parts)
    counts, edges, nodes = halo_counts(graph, parts, num_parts)
    halo = counts.sum(axis=1)
    train = np.zeros(num_parts, np.int64)
    if graph.train_mask is not None:
        train = np.bincount(parts[graph.train_mask], minlength=num_parts)
    cut = int(halo_entries(graph, parts, num_parts).sum())
    return PartitionReport(
        num_parts=num_parts,
        cut_edges=cut,
        cut_fraction=cut / max(graph.num_edges, 1),
        halo_copies=int(halo.sum()),
        halo_per_node=float(halo.sum() / max(graph.num_nodes, 1)),
        nodes=tuple(nodes.tolist()),
        edges=tuple(edges.tolist()),
        halo=tuple(halo.tolist()),
        train=tuple(train.tolist()),
        node_balance=imbalance(nodes),
        edge_balance=imbalance(edges),
        halo_balance=imbalance(halo),
        train_balance=imbalance(train),
    )


def imbalance(sizes: NDArray[np.int64]) -> float:
    """Return max / mean, 1 when there is nothing to share."""
    return float(sizes.max() / sizes.mean()) if sizes.any() else 1.0


def _weights(graph: Graph, balance: str) -> NDArray[np.int64]:
    n = graph.num_nodes
    if balance == "edges":
        return graph.in_degrees() + 1
    if balance == "train":
        if graph.train_mask is None:
            raise DataError(graph.name, "balance 'train' needs a training split")
        share = round(n / max(graph.num_train, 1))
        return np.where(graph.train_mask, 1 + share, 1).astype(np.int64)
    return np.ones(n, np.int64)


def _hash(num_nodes: int, num_parts: int, seed: int) -> NDArray[np.int32]:
    """Hash ids with the finaliser of SplitMix64 (Steele, Lea, Flood 2014); wraps modulo 2**64."""
    key = (seed * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) % 2**64
    z = np.arange(num_nodes, dtype=np.uint64) * np.uint64(0xD1342543DE82EF95) + np.uint64(key)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return (z % np.uint64(num_parts)).astype(np.int32)


def _chunk(weights: NDArray[np.int64], num_parts: int) -> NDArray[np.int32]:
    """Cut the ids where the running weight passes k/num_parts; a node goes by its middle."""
    if not len(weights):
        return np.zeros(0, np.int32)
    running = np.cumsum(weights)
    middle = (running - weights / 2) * (num_parts / running[-1])
    chunk: NDArray[np.int32] = np.minimum(middle, num_parts - 1).astype(np.int32)
    return chunk


def _metis(
    graph: Graph,
    num_parts: int,
    objective: str,
    weights: NDArray[np.int64] | None,
    seed: int,
) -> NDArray[np.int32]:
    try:
        import pymetis
    except ImportError as error:
        raise MissingExtra("pymetis", "graphs", "partition method 'metis'") from error
    both = graph if graph.undirected else _without_direction(graph)
    width = pymetis.zero_copy_dtype() if hasattr(pymetis, "zero_copy_dtype") else np.int64
    starts, ends = both.indptr.astype(width), both.indices.astype(width)
    adjacency: dict[str, Any] = {"xadj": starts, "adjncy": ends}
    if hasattr(pymetis, "CSRAdjacency"):  # since 2025.2, which deprecates the pair
        adjacency = {"adjacency": pymetis.CSRAdjacency(starts, ends)}
    # Only the k-way scheme knows the volume objective; its seed must fit an int.
    options = pymetis.Options(objtype=OBJECTIVES[::-1].index(objective), seed=seed % 2**31)
    vertex_weights = None if weights is None else weights.astype(width)
    try:
        _, parts = pymetis.part_graph(
            num_parts, **adjacency, vweights=vertex_weights, recursive=False, options=options
        )
    except RuntimeError as error:
        found = f"METIS failed on {graph.name} with {num_parts} parts: {error}"
        raise RunFailed(f"{found}; try partitioner fennel, hash or chunk") from error
    return np.asarray(parts, np.int32)


def _without_direction(graph: Graph) -> Graph:
    dst = np.repeat(np.arange(graph.num_nodes), graph.in_degrees())
    return from_edges(graph.name, graph.indices, dst, graph.num_nodes)
