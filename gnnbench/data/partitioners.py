"""Partitioners side by side: what an assignment cuts, and the memory that it took to find it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gnnbench.data.graph import Graph, from_edges
from gnnbench.data.mapped import forget_mapped_pages
from gnnbench.data.partition import partition, report
from gnnbench.resident import ResidentSet, return_free_heap

METHODS = ("metis-cut", "fennel", "hash")
METIS_VERTEX_BYTES, METIS_EDGE_BYTES = 40, 110
"""Of METIS per vertex and per stored edge, its copy of the graph included: 69 to 112 bytes per edge
in all were measured on three undirected graphs of 2 to 6 M stored edges."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionerCost:
    """A partitioner's assignment.

    Args:
        method: "metis-cut" and the like.
        parts: k.
        cut_fraction: share of the stored edges whose ends lie in different parts; None: not run.
        node_balance: vertices of the largest part over the mean.
        memory_bytes: rise of the resident set while it ran; of one that was not run, what it needs.
        reason: why it was not run.
    """

    method: str
    parts: int
    cut_fraction: float | None = None
    node_balance: float | None = None
    memory_bytes: int = 0
    reason: str = ""


def metis_bytes(graph: Graph) -> int:
    """Memory that METIS needs for a graph, its copy of the topology included.

    An upper bound by what was measured. A directed graph is copied with both directions first.
    """
    both = 1 if graph.undirected else 2
    edges = METIS_EDGE_BYTES * both * graph.num_edges
    return METIS_VERTEX_BYTES * graph.num_nodes + edges


def compared(
    graph: Graph,
    parts: Sequence[int],
    methods: Sequence[str] = METHODS,
    *,
    seed: int = 0,
    memory_bytes: int = 0,
) -> list[PartitionerCost]:
    """Run partitioners on a graph, those left out that need more than a memory cap.

    Args:
        graph: may be mapped.
        parts: numbers of parts.
        methods: partitioners, METIS with its objective: "metis-cut" or "metis-vol".
        seed: of METIS and hash.
        memory_bytes: cap for a partitioner; 0 is none.
    """
    # Its loop is compiled before anything is measured.
    partition(from_edges("tiny", np.arange(2), np.arange(1, 3), 3), 2, "fennel")
    found = []
    for method in methods:
        name, _, objective = method.partition("-")
        needed = metis_bytes(graph) if name == "metis" else 0
        for count in parts:
            if memory_bytes and needed > memory_bytes:
                reason = f"needs {needed / 1e6:.0f} MB, allowed {memory_bytes / 1e6:.0f} MB"
                cost = PartitionerCost(
                    method=method, parts=count, memory_bytes=needed, reason=reason
                )
            else:
                cost = _cost(graph, method, name, objective or "cut", count, seed)
            found.append(cost)
    return found


def _cost(
    graph: Graph, method: str, name: str, objective: str, parts: int, seed: int
) -> PartitionerCost:
    gauge, peaks = ResidentSet(), dict[str, int]()
    forget_mapped_pages(graph.arrays().values())
    return_free_heap()
    before = gauge.now_bytes()
    with gauge.peak(peaks, "peak"):
        assignment = partition(graph, parts, name, objective=objective, seed=seed)
    seen = report(graph, assignment, parts)
    forget_mapped_pages(graph.arrays().values())
    return PartitionerCost(
        method=method,
        parts=parts,
        cut_fraction=seen.cut_fraction,
        node_balance=seen.node_balance,
        memory_bytes=max(peaks["peak"] - before, 0),
    )
