"""Distributed equals single-device, and single equals an independent dense reference (FG-1..8)."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the runtime extra")

import cases

from gnnbench.data.graph import Graph, from_edges
from gnnbench.data.partition import partition
from gnnbench_runtime.conformance.pool import Pools

pytestmark = pytest.mark.distributed
FOUR = pytest.param(4, marks=pytest.mark.deep)


def random_graph(
    n: int = 40, edges: int = 110, *, undirected: bool = True, width: int = 6
) -> Graph:
    """A small graph with isolated vertices (the last three) and skewed degrees."""
    rng = np.random.default_rng(3)
    src = rng.integers(0, n - 3, edges)
    dst = np.minimum(rng.integers(0, n - 3, edges), rng.integers(0, n - 3, edges))
    train = rng.random(n) < 0.4
    return from_edges(
        "random",
        src,
        dst,
        n,
        undirected=undirected,
        features=rng.standard_normal((n, width)).astype(np.float32),
        labels=rng.integers(0, 4, n),
        num_classes=4,
        train_mask=train,
        val_mask=~train & (rng.random(n) < 0.5),
        test_mask=~train,
    )


def assemble(results: list[dict], key: str) -> np.ndarray:
    """Rows of all ranks in global order; every vertex must be owned once."""
    ids = np.concatenate([r["rows"] for r in results])
    assert sorted(ids) == list(range(len(ids)))
    out = np.empty((len(ids), results[0][key].shape[1]))
    out[ids] = np.concatenate([r[key] for r in results])
    return out


MODELS = [
    {"kind": "gcn", "hidden": 8, "layers": 2},
    {"kind": "sage", "hidden": 8, "layers": 3, "dropout": 0.5, "input_dropout": 0.3},
]
ORDERS = ["min_width", "aggregate_first", "transform_first"]


@pytest.mark.parametrize("kind", ["gcn", "sage"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("undirected", [True, False])
def test_single_equals_dense_autograd(
    kind: str, order: str, undirected: bool, pools: Pools
) -> None:
    """FG-1, FG-2, FG-6: forward uses A, backward its transpose, also where they differ."""
    graph = random_graph(undirected=undirected)
    run = cases.make_run("single", 1, {"kind": kind, "hidden": 5, "layers": 3}, {"order": order})
    [got] = [cases.train_full(0, 1, graph, run)]
    loss, logits, gradient = cases.dense_reference(graph, run)
    assert abs(got["loss"] - loss) <= 1e-10
    np.testing.assert_allclose(got["logits"], logits, rtol=0, atol=1e-10)
    np.testing.assert_allclose(got["gradient"], gradient, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("world_size", [1, 2, 3, FOUR])
@pytest.mark.parametrize("order", ORDERS)
def test_partition_equals_single_for_any_partition(
    world_size: int, order: str, pools: Pools
) -> None:
    """FG-1..5, FG-7, FG-12 in float64: METIS, hash, chunk, one empty part, no boundary at all."""
    ranks = pools.of(world_size) if world_size > 1 else None
    for undirected in (True, False):
        graph = random_graph(undirected=undirected)
        for model in MODELS:
            single = cases.train_full(
                0, 1, graph, cases.make_run("single", 1, model, {"order": order})
            )
            for name, assignment in assignments(graph, world_size).items():
                run = cases.make_run("partition", world_size, model, {"order": order})
                if ranks is None:
                    results = [cases.train_full(0, 1, graph, run, assignment)]
                else:
                    results = ranks.run("cases:train_full", graph, run, assignment)
                check_equal(results, single, f"{name}, {model['kind']}, undirected={undirected}")


def assignments(graph: Graph, parts: int) -> dict[str, np.ndarray]:
    n = graph.num_nodes
    found = {m: partition(graph, parts, method=m) for m in ("metis", "hash", "chunk")}
    if parts > 1:
        found["one part empty"] = (np.arange(n) % (parts - 1)).astype(np.int32)
        isolated = np.zeros(n, np.int32)
        isolated[-3:] = np.arange(3) % (parts - 1) + 1
        found["no boundary"] = isolated
    return found


def check_equal(results: list[dict], single: dict, what: str) -> None:
    logits = assemble(results, "logits")
    order = np.argsort(single["rows"])
    np.testing.assert_allclose(logits, single["logits"][order], rtol=0, atol=1e-9, err_msg=what)
    for got in results:
        assert abs(got["loss"] - single["loss"]) <= 1e-9, what
        np.testing.assert_allclose(
            got["gradient"], single["gradient"], rtol=1e-9, atol=1e-9, err_msg=what
        )
        np.testing.assert_allclose(
            got["parameters"], single["parameters"], rtol=0, atol=1e-8, err_msg=what
        )
        # FG-3: weights are bitwise equal on all ranks
        assert np.array_equal(got["parameters"], results[0]["parameters"]), what
        assert got["metrics"] == single["metrics"], what


def test_a_width_below_the_number_of_ranks_is_exact(pools: Pools) -> None:
    """FG-7: hidden width 2 on 4 ranks."""
    graph, model = random_graph(width=2), {"kind": "gcn", "hidden": 2, "layers": 2}
    single = cases.train_full(0, 1, graph, cases.make_run("single", 1, model, {}))
    run = cases.make_run("partition", 4, model, {})
    results = pools.of(4).run("cases:train_full", graph, run, partition(graph, 4, method="hash"))
    check_equal(results, single, "width 2 on 4 ranks")


def test_more_ranks_than_nodes_is_exact(pools: Pools) -> None:
    """FG-7: three vertices on four ranks."""
    graph = from_edges(
        "path",
        np.array([0, 1]),
        np.array([1, 2]),
        3,
        features=np.eye(3, dtype=np.float32),
        labels=np.array([0, 1, 0]),
        num_classes=2,
        train_mask=np.array([True, True, False]),
        test_mask=np.array([False, False, True]),
    )
    model = {"kind": "sage", "hidden": 4, "layers": 2}
    single = cases.train_full(0, 1, graph, cases.make_run("single", 1, model, {}))
    run = cases.make_run("partition", 4, model, {})
    results = pools.of(4).run("cases:train_full", graph, run, partition(graph, 4, method="hash"))
    check_equal(results, single, "3 vertices on 4 ranks")
