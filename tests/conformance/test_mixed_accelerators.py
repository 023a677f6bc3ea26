"""Sparse and dense ranks in a pipeline equal a single device and perform their plan.

FG-1..9, FG-11, FG-12.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the runtime extra")

import cases
from test_exactness import check_equal, random_graph
from test_worlds import performed, planned

from gnnbench.approaches.base import Layout
from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.whole_graph.row_pipeline import exchanged_bytes
from gnnbench.approaches.writing.shape import stack_shape
from gnnbench.data.graph import Graph, from_edges
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import Kind
from gnnbench_runtime.conformance.pool import Pools

pytestmark = pytest.mark.distributed

APPROACH = APPROACHES.get("mixed-accelerators")
MODELS: list[dict[str, Any]] = [
    {"kind": "gcn", "hidden": 8, "layers": 1},
    {"kind": "gcn", "hidden": 8, "layers": 2, "input_dropout": 0.4},
    {"kind": "gcn", "hidden": 5, "layers": 4, "dropout": 0.5, "norm": "layer"},
    {"kind": "sage", "hidden": 8, "layers": 1},
    {"kind": "sage", "hidden": 5, "layers": 3, "dropout": 0.5, "input_dropout": 0.3},
]
SPLITS = [(2, 1), (3, 1), (3, 2), (4, 2), (4, 3)]


@cache
def by_single(number: int) -> tuple[Graph, dict[str, Any]]:
    """A graph, directed for every other model so that its transpose differs, trained on 1 rank."""
    graph = random_graph(undirected=number % 2 == 1)
    run = cases.make_run("single", 1, MODELS[number], {"order": "aggregate_first"})
    return graph, cases.train_full(0, 1, graph, run, None, 3)


def plan_of(graph: Graph, run: RunSpec) -> Plan:
    layout = Layout(world_size=run.ranks, ranks_per_host=run.ranks)
    plan = APPROACH.plan(graph, run, APPROACH.structure(graph, run), layout)
    plan.validate()
    return plan


@pytest.mark.parametrize(("world_size", "sparse"), SPLITS)
@pytest.mark.parametrize("node_order", ["natural", "degree", "johnson"])
def test_it_equals_single_and_performs_its_plan(
    world_size: int, sparse: int, node_order: str, pools: Pools
) -> None:
    """Every split, order and number of chunks."""
    for number, model in enumerate(MODELS):
        graph, single = by_single(number)
        # 64 chunks of 40 rows are 40 chunks of one row.
        for chunks in (5, 64) if number == 1 else (3,):
            knobs = {"sparse_ranks": sparse, "chunks": chunks, "node_order": node_order}
            run = cases.make_run("mixed-accelerators", world_size, model, knobs)
            plan = plan_of(graph, run)
            results = pools.of(world_size).run("cases:train_full", graph, run, None, 3)
            what = f"{model}, {chunks} chunks"
            check_equal(results, single, what)
            for rank, got in enumerate(results):
                assert performed(got["ledger"], 0, 0) == planned(plan, 0, 0, rank), what
            closed = exchanged_bytes(stack_shape(graph, run, "aggregate_first"), graph.num_nodes)
            moved = plan.moved_bytes()
            assert sum(b for (kind, _), b in moved.items() if kind == Kind.ALL_TO_ALL) == closed
            counted = sum(
                b for got in results for k, b in got["sent"].items() if k.startswith("all_to_all/")
            )
            assert counted == closed, what


@pytest.mark.parametrize(("world_size", "sparse"), SPLITS)
def test_transfers_queued_as_on_a_device_have_one_order_on_all_ranks(
    world_size: int, sparse: int, pools: Pools
) -> None:
    """Transfers of two groups in unlike orders could block each other there; results are equal."""
    for number in (2, 4):
        graph, single = by_single(number)
        for chunks in (1, 2, 3, 7):
            knobs = {"sparse_ranks": sparse, "chunks": chunks}
            run = cases.make_run("mixed-accelerators", world_size, MODELS[number], knobs)
            train = "mixed_cases:train_as_on_a_device"
            results = pools.of(world_size).run(train, graph, run, 3)
            check_equal(results, single, f"{MODELS[number]}, {chunks} chunks")
            assert all(got["order"] == results[0]["order"] for got in results)
            plan = plan_of(graph, run)
            for rank, got in enumerate(results):
                assert performed(got["ledger"], 0, 0) == planned(plan, 0, 0, rank)


def test_a_width_below_the_number_of_sparse_ranks_is_exact(pools: Pools) -> None:
    """FG-7: hidden width 2 on 3 sparse ranks; one of them has no column at times."""
    graph, model = random_graph(width=2), {"kind": "gcn", "hidden": 2, "layers": 2}
    single = cases.train_full(0, 1, graph, cases.make_run("single", 1, model, {}))
    run = cases.make_run("mixed-accelerators", 4, model, {"sparse_ranks": 3})
    check_equal(pools.of(4).run("cases:train_full", graph, run), single, "width 2")


@pytest.mark.parametrize("norm", ["none", "layer"])
def test_fewer_nodes_than_dense_ranks_is_exact(norm: str, pools: Pools) -> None:
    """FG-7: two vertices, three dense ranks, no edge."""
    nobody = np.array([], np.int64)
    graph = from_edges(
        "pair",
        nobody,
        nobody,
        2,
        features=np.eye(2, dtype=np.float32),
        labels=np.array([0, 1]),
        num_classes=2,
        train_mask=np.array([True, False]),
        test_mask=np.array([False, True]),
    )
    model = {"kind": "gcn", "hidden": 3, "layers": 2, "norm": norm}
    single = cases.train_full(0, 1, graph, cases.make_run("single", 1, model, {}))
    run = cases.make_run("mixed-accelerators", 4, model, {"sparse_ranks": 1})
    check_equal(pools.of(4).run("cases:train_full", graph, run), single, "two nodes")


def test_large_chunks_do_not_block_each_other(pools: Pools) -> None:
    """Messages far beyond what sockets buffer, both ways at once: the ranks still finish."""
    graph = random_graph(3000, 9000, width=300)
    model = {"kind": "gcn", "hidden": 300, "layers": 3}
    run = cases.make_run("mixed-accelerators", 4, model, {"sparse_ranks": 2, "chunks": 3})
    single = cases.train_full(
        0, 1, graph, cases.make_run("single", 1, model, {"order": "aggregate_first"}), None, 1
    )
    for train, args in (
        ("cases:train_full", (None, 1)),
        ("mixed_cases:train_as_on_a_device", (1,)),
    ):
        results = pools.of(4).run(train, graph, run, *args)
        assert abs(results[0]["loss"] - single["loss"]) <= 1e-9


def test_sparse_and_dense_ranks_overlap(pools: Pools) -> None:
    """A chunk is back, updated, before the sparse rank has begun the layer's last one.

    Both times are of one rank's clock. Chunks are larger than what sockets hold, so that a sparse
    rank cannot run ahead of a dense rank that does not take them.
    """
    graph = random_graph(6000, 40_000, width=256)
    model = {"kind": "gcn", "hidden": 256, "layers": 2}
    run = cases.make_run("mixed-accelerators", 2, model, {"chunks": 8})
    sparse, _ = pools.of(2).run("cases:train_full", graph, run, None, 3)
    ahead = []
    for epoch in (1, 2):
        rows = {r.name: r for r in sparse["ledger"] if r.period == epoch and r.phase != "evaluate"}
        last = rows["forward/1/spmm/7"]
        ahead += [
            rows[f"forward/1/return/{chunk}"].start_s + rows[f"forward/1/return/{chunk}"].duration_s
            < last.start_s
            for chunk in range(7)
        ]
    assert any(ahead)
