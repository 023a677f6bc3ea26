"""`mixture` equals single-device training for any split, and performs its plan to the byte.

FG-1..7, FG-9, FG-11, FG-12, FG-17, FG-18, FG-19, FG-22, FG-23.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the runtime extra")

import cases
from mixture_cases import moved, on_ranks, plan_of, splits
from test_exactness import ORDERS, check_equal, random_graph
from test_worlds import performed, planned

from gnnbench.data.graph import Graph, from_edges
from gnnbench.data.partition import partition
from gnnbench_runtime.conformance.pool import Pools

pytestmark = pytest.mark.distributed
FOUR = pytest.param(4, marks=pytest.mark.deep)

MODELS: list[dict[str, Any]] = [
    {"kind": "gcn", "hidden": 8, "layers": 2, "norm": "layer"},
    {"kind": "gcn", "hidden": 5, "layers": 3, "dropout": 0.4},
    {"kind": "sage", "hidden": 8, "layers": 3, "dropout": 0.5, "input_dropout": 0.3},
    {"kind": "sage", "hidden": 3, "layers": 2},
]
CASES = [
    (model, {"order": order, "precompute": precompute})
    for model in MODELS
    for order in ORDERS
    for precompute in (False, True)
    if not (precompute and model.get("input_dropout"))
]


def single(graph: Graph, model: dict, knobs: dict, epochs: int = 5) -> dict:
    run = cases.make_run("single", 1, model, {"order": knobs.get("order", "min_width")})
    return cases.train_full(0, 1, graph, run, None, epochs)


@pytest.mark.parametrize("world_size", [1, 2, 3, FOUR])
@pytest.mark.parametrize("undirected", [True, False])
def test_mixture_equals_single_and_performs_its_plan(
    world_size: int, undirected: bool, pools: Pools
) -> None:
    """FG-1..7, FG-9, FG-11, FG-12, FG-19: for any split, with the bytes of section 9's table.

    Every model and knob meets one of the splits in turn, so that all meet all kinds.
    """
    graph = random_graph(undirected=undirected)
    ways, singles = list(splits(graph.num_nodes, world_size).items()), {}
    for at, (model, knobs) in enumerate(CASES):
        name, rows = ways[(at + at // 4) % len(ways)]
        what, key = f"{name}, {model}, {knobs}", f"{model}, {knobs['order']}"
        singles[key] = singles.get(key) or single(graph, model, knobs)
        run = cases.make_run("mixture", world_size, model, knobs)
        results = on_ranks(pools, world_size, "train", graph, run, rows)
        check_equal(results, singles[key], what)
        plan, counted = plan_of(graph, run, rows), {}
        for rank, got in enumerate(results):
            assert performed(got["ledger"], 0, 0) == planned(plan, 0, 0, rank), what
            for moves, sent in got["sent"].items():
                counted[moves] = counted.get(moves, 0) + sent
        forward, backward = table_of_section_9(graph, model, knobs)
        for phase, widths in (("forward", forward), ("backward", backward)):
            want = 8 * sum(moved(rows, width) for width in widths)
            assert counted.get(f"all_to_all/{phase}", 0) == want, what
            assert plan.moved_bytes().get(("all_to_all", phase), 0) == want, what


def table_of_section_9(graph: Graph, model: dict, knobs: dict) -> tuple[list[int], list[int]]:
    """Widths of the re-layouts, row by row of the published table."""
    dims = [graph.num_features, *[model["hidden"]] * (model["layers"] - 1), graph.num_classes]
    forward: list[int] = []
    backward: list[int] = []
    for layer in range(1, len(dims)):
        before, after = dims[layer - 1], dims[layer]
        first = knobs["order"] == "aggregate_first" or (
            knobs["order"] == "min_width" and before <= after
        )
        if layer > 1:
            forward += [before, before] if first else [after, after]
            backward += [before, before] if first else [after, after]
        elif knobs["precompute"]:
            pass
        elif first:
            # Input dropout makes X new in every epoch, so that it lies in rows.
            forward += [before, before] if model.get("input_dropout") else [before]
        else:
            forward += [after, after]
            backward += [after, after]
    return forward, backward


@pytest.mark.deep
def test_mixture_is_exact_on_more_ranks_than_columns(pools: Pools) -> None:
    """FG-4, FG-7: features 6 and classes 4 are narrower than nine ranks are many."""
    graph = random_graph(undirected=False)
    for model, knobs in CASES[1::5]:
        run = cases.make_run("mixture", 9, model, knobs)
        results = on_ranks(pools, 9, "train", graph, run, None, 3)
        check_equal(results, single(graph, model, knobs, 3), f"{model}, {knobs}")


@pytest.mark.parametrize(
    ("model", "knobs"),
    [
        ({"kind": "gcn"}, {}),
        ({"kind": "sage"}, {"precompute": True}),
        ({"kind": "gat", "heads": 2}, {}),
    ],
)
def test_more_ranks_than_nodes_is_exact(model: dict, knobs: dict, pools: Pools) -> None:
    """FG-7: three vertices on four ranks; one rank has no row, but columns."""
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
    model = {**model, "hidden": 4, "layers": 2}
    run = cases.make_run("mixture", 4, model, knobs)
    check_equal(on_ranks(pools, 4, "train", graph, run), single(graph, model, {}), str(model))


@pytest.mark.parametrize("world_size", [1, 2])
def test_features_too_wide_for_one_turn_are_precomputed_exactly(
    world_size: int, pools: Pools
) -> None:
    """On two ranks, 66 and 65 columns are summed up 64 at a time, then 2 and 1."""
    graph, knobs = random_graph(width=131, undirected=False), {"precompute": True}
    run = cases.make_run("mixture", world_size, MODELS[1], knobs)
    results = on_ranks(pools, world_size, "train", graph, run)
    check_equal(results, single(graph, MODELS[1], {"order": "aggregate_first"}), "131 wide")


@pytest.mark.parametrize(
    "model", [MODELS[1], {"kind": "gat", "hidden": 12, "layers": 2, "heads": 2, "dropout": 0.4}]
)
def test_mixture_and_partition_agree(model: dict, pools: Pools) -> None:
    """FG-23: two distributed ways over the same graph give the same model."""
    graph = random_graph(undirected=False)
    mixed = on_ranks(pools, 3, "train", graph, cases.make_run("mixture", 3, model, {}))
    run = cases.make_run("partition", 3, model, {})
    owners = partition(graph, 3, method="hash")
    parted = pools.of(3).run("cases:train_full", graph, run, owners)
    np.testing.assert_allclose(mixed[0]["gradient"], parted[0]["gradient"], rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(mixed[0]["parameters"], parted[0]["parameters"], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("rows", "width"),
    [([5, 5], 4), ([7, 0], 3), ([3, 2, 2], 7), ([1, 0, 4], 2), ([2, 2, 1, 1], 3), ([0, 0, 9], 1)],
)
def test_to_columns_and_back_is_the_identity(rows: list[int], width: int, pools: Pools) -> None:
    """FG-17, FG-18: bitwise; the columns are those of the whole matrix; bytes are closed form."""
    results = on_ranks(pools, len(rows), "there_and_back", rows, width)
    whole = np.concatenate([before for before, *_ in results])
    columns = np.concatenate([columns for _, columns, *_ in results], axis=1)
    assert np.array_equal(columns, whole)
    for before, _, back, _ in results:
        assert np.array_equal(before, back)
    assert sum(sent for *_, sent in results) == 2 * 8 * moved(tuple(rows), width)


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize(
    ("kind", "precompute"),
    [("gcn", False), ("gcn", True), ("sage", False), ("sage", True), ("gat", False)],
)
def test_nothing_is_both_whole_rows_and_all_vertices(
    world_size: int, kind: str, precompute: bool, pools: Pools
) -> None:
    """FG-22: a full-width tensor has at most ceil(N/P) rows, a full-height one ceil(F/P) columns.

    Judged by the number of elements, so that a matrix cannot hide in another shape; attention keeps
    a row of its own heads for every entry.
    """
    graph = random_graph(n=200, edges=700, width=24)
    model = {"kind": kind, "hidden": 20, "layers": 3, "dropout": 0.5}
    entries = 0
    if kind == "gat":
        model["heads"], entries = 4, graph.num_edges + 200
    run = cases.make_run("mixture", world_size, model, {"precompute": precompute})
    dims = [24, 20, 20, 4]
    n, widest = -(-200 // world_size), max(dims)
    bound = max(n * widest, 200 * -(-widest // world_size))
    assert bound < 200 * min(dims[:-1])  # so that all of a hidden layer, or of X, would be noticed
    for seen in on_ranks(pools, world_size, "shapes_of_an_epoch", graph, run):
        matrices = [shape for shape in seen if len(shape) > 1]
        assert (n, 20) in matrices
        assert (200, 20 // world_size) in matrices
        for shape in matrices:
            if shape[0] != entries:
                assert np.prod(shape) <= bound, shape
                assert not (shape[0] > n and shape[1] > -(-widest // world_size)), shape
