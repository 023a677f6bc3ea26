"""The graph in the buffer, from buckets that come and go, against one of all resident edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gnnbench.approaches.base import example
from gnnbench.approaches.out_of_core.nodes import (
    NodeStructure,
    buffer_graph,
    edge_chunks,
    resident_edges,
)
from gnnbench.approaches.out_of_core.out_of_core import APPROACH
from gnnbench.approaches.out_of_core.resident_graph import ResidentGraph, ResidentLabels
from gnnbench.approaches.out_of_core.visits import Visit
from gnnbench.data.by_target import by_target
from gnnbench.data.graph import Graph
from gnnbench.data.resident_buckets import by_rank
from gnnbench.data.source import Library


def edges_on_the_disk(graph: Graph, structure: NodeStructure, visit: Visit) -> Any:
    """Positions of the edges of the wanted buckets, bucket by bucket."""
    position, part = structure.position, structure.partition_of
    assert position is not None and visit.wanted is not None
    pairs = [np.stack(ends, axis=1) for ends in edge_chunks(graph)]
    ends = np.concatenate(pairs)
    bucket = part[ends[:, 0]].astype(np.int64) * structure.policy.partitions + part[ends[:, 1]]
    order = np.argsort(bucket, kind="stable")
    order = order[visit.wanted.ravel()[bucket[order]]]
    return position[ends[order]]


@pytest.mark.parametrize("degree", [3.0, 60.0])
@pytest.mark.parametrize(("partitions", "buffer"), [(7, 2), (9, 5), (4, 0)])
def test_it_is_the_graph_of_all_edges_between_residents(
    degree: float, partitions: int, buffer: int
) -> None:
    """Bit for bit, from visit to visit; with many neighbours rows are merged from long runs."""
    run = example(
        "out-of-core",
        1,
        batch={"size": 16, "fanouts_from_seeds": (4, 3)},
        knobs={"partitions": partitions, "buffer": buffer, "policy": "dispersed"},
        options={"num_nodes": 300, "mean_degree": degree},
    )
    graph = Library([]).open(run.dataset)
    structure = APPROACH.structure(graph, run)
    for epoch in range(2):
        held = ResidentGraph(structure, graph)
        for visit in structure.visits(epoch):
            count = held.exchange(visit, edges_on_the_disk(graph, structure, visit))
            ids, place = structure.residents(visit)
            found = held.graph(place)
            wanted = buffer_graph(*resident_edges(graph, ids), ids, graph)
            assert count == wanted.num_edges
            assert np.array_equal(found.indptr, wanted.indptr)
            assert np.array_equal(found.indices, wanted.indices)
            assert found.indices.dtype == np.int32
            labels = ResidentLabels(np.asarray(graph.labels), ids)
            numbers = np.arange(len(ids))[::-3]
            assert np.array_equal(labels[numbers], np.asarray(graph.labels)[ids[numbers]])


@pytest.mark.parametrize("parts", [1, 3])
def test_rows_rise_though_edges_lie_in_any_order(parts: int) -> None:
    """Hubs of hundreds of neighbours, repeated edges, buckets that are empty or out of order."""
    rng = np.random.default_rng(parts)
    rows, each = 60, 60 // parts
    ends = rng.integers(0, rows, (2_000, 2)).astype(np.int32)
    ends[:700, 1] = 7
    if parts == 3:
        ends = ends[(ends[:, 0] // each != 1) | (ends[:, 1] // each != 2)]
    bucket = ends[:, 0] // each * parts + ends[:, 1] // each
    ends = ends[np.argsort(bucket, kind="stable")]
    starts = np.concatenate([[0], np.cumsum(np.bincount(bucket, minlength=parts * parts))])
    rank = np.concatenate([np.arange(part, rows, parts) for part in range(parts)]).astype(np.int32)
    shift = np.zeros(parts, np.int64)
    found = by_rank(ends, starts.astype(np.int64), shift, rank)
    wanted = by_target(rank[ends[:, 0]], rank[ends[:, 1]], rows)
    for ours, theirs in zip(found, wanted, strict=True):
        assert np.array_equal(ours, theirs)
