"""`mixture` equals single-device training for any split, and performs its plan to the byte.

FG-1..7, FG-9, FG-11, FG-12, FG-17, FG-18, FG-19, FG-22, FG-23.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the runtime extra")

import cases
import mixture_cases
from pool import pool
from test_exactness import ORDERS, check_equal, random_graph
from test_worlds import performed, planned

from gnnbench.approaches.base import Layout
from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.whole_graph.mixture import MixtureStructure
from gnnbench.approaches.whole_graph.relayout import even_split
from gnnbench.data.graph import Graph, from_edges
from gnnbench.data.partition import partition

pytestmark = pytest.mark.distributed

MODELS = [
    {"kind": "gcn", "hidden": 8, "layers": 2},
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


def on_ranks(folder: Path, world_size: int, function: str, *args: object) -> list:
    """Run a function of `mixture_cases` on every rank."""
    if world_size == 1:
        return [getattr(mixture_cases, function)(0, 1, *args)]
    return pool(world_size, folder / str(world_size)).run(f"mixture_cases:{function}", *args)


def splits(num_nodes: int, parts: int) -> dict[str, tuple[int, ...]]:
    """Ways to deal vertices out: evenly, lopsided, with ranks that own nothing."""
    found = {"even": even_split(num_nodes, parts)}
    if parts > 1:
        found["lopsided"] = (num_nodes - 3 * (parts - 1),) + (3,) * (parts - 1)
        found["first empty"] = (0, *even_split(num_nodes, parts - 1))
        found["all on the last"] = (0,) * (parts - 1) + (num_nodes,)
    return found


def dealt_cases(num_nodes: int, parts: int) -> list[tuple[dict, dict, str, tuple[int, ...]]]:
    """Every model and knob, each with one of the splits in turn, so that all meet all kinds."""
    ways = list(splits(num_nodes, parts).items())
    return [(*case, *ways[(at + at // 4) % len(ways)]) for at, case in enumerate(CASES)]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("undirected", [True, False])
def test_mixture_equals_single_for_any_split(
    world_size: int, undirected: bool, folder: Path
) -> None:
    """FG-1..7, FG-12: loss, logits, gradients and five Adam steps; hidden 3 on 4 ranks too."""
    graph = random_graph(undirected=undirected)
    singles: dict[str, dict] = {}
    for model, knobs, name, rows in dealt_cases(graph.num_nodes, world_size):
        key = f"{model}, {knobs['order']}"
        if key not in singles:
            reference = cases.make_run("single", 1, model, {"order": knobs["order"]})
            singles[key] = cases.train_full(0, 1, graph, reference)
        run = cases.make_run("mixture", world_size, model, knobs)
        results = on_ranks(folder, world_size, "train", graph, run, rows)
        check_equal(results, singles[key], f"{name}, {model}, {knobs}")


@pytest.mark.parametrize("world_size", [8, 9])
def test_mixture_is_exact_on_many_ranks(world_size: int, folder: Path) -> None:
    """FG-4, FG-7: features 6 and classes 4 are narrower than the ranks are many."""
    graph = random_graph(undirected=False)
    for model, knobs in CASES[1::5]:
        run = cases.make_run("mixture", world_size, model, knobs)
        results = on_ranks(folder, world_size, "train", graph, run, None, 3)
        single = cases.train_full(
            0, 1, graph, cases.make_run("single", 1, model, {"order": knobs["order"]}), None, 3
        )
        check_equal(results, single, f"{model}, {knobs}")


def test_more_ranks_than_nodes_is_exact(folder: Path) -> None:
    """FG-7: three vertices on four ranks."""
    graph = from_edges(
        "path", np.array([0, 1]), np.array([1, 2]), 3,
        features=np.eye(3, dtype=np.float32), labels=np.array([0, 1, 0]), num_classes=2,
        train_mask=np.array([True, True, False]), test_mask=np.array([False, False, True]),
    )  # fmt: skip
    for kind in ("gcn", "sage"):
        model = {"kind": kind, "hidden": 4, "layers": 2}
        single = cases.train_full(0, 1, graph, cases.make_run("single", 1, model, {}))
        for precompute in (False, True):
            run = cases.make_run("mixture", 4, model, {"precompute": precompute})
            check_equal(on_ranks(folder, 4, "train", graph, run), single, kind)


def test_mixture_and_partition_agree(folder: Path) -> None:
    """FG-23: two distributed ways over the same graph give the same model."""
    graph, model = random_graph(undirected=False), MODELS[1]
    mixed = on_ranks(folder, 3, "train", graph, cases.make_run("mixture", 3, model, {}))
    run = cases.make_run("partition", 3, model, {})
    owners = partition(graph, 3, method="hash")
    parted = pool(3, folder / "3").run("cases:train_full", graph, run, owners)
    np.testing.assert_allclose(mixed[0]["gradient"], parted[0]["gradient"], rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(mixed[0]["parameters"], parted[0]["parameters"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("undirected", [True, False])
def test_mixture_performs_its_plan(world_size: int, undirected: bool, folder: Path) -> None:
    """FG-9, FG-11, FG-19: steps, bytes and flops of each rank; totals as the table of section 9."""
    graph, approach = random_graph(undirected=undirected), APPROACHES.get("mixture")
    for model, knobs, name, rows in dealt_cases(graph.num_nodes, world_size):
        run = cases.make_run("mixture", world_size, model, knobs)
        structure = MixtureStructure.of_rows(graph, rows)
        layout = Layout(world_size=world_size, ranks_per_host=world_size)
        plan = approach.plan(graph, run, structure, layout)
        plan.validate()
        results = on_ranks(folder, world_size, "train", graph, run, rows, 1)
        for rank, got in enumerate(results):
            assert performed(got["ledger"], 0, 0) == planned(plan, 0, 0, rank), (name, model)
        counted: dict[str, int] = {}
        for got in results:
            for key, sent in got["sent"].items():
                counted[key] = counted.get(key, 0) + sent
        forward, backward = table_of_section_9(graph, model, knobs)
        for phase, widths in (("forward", forward), ("backward", backward)):
            want = 8 * sum(moved(rows, width) for width in widths)
            assert counted.get(f"all_to_all/{phase}", 0) == want, (name, model, knobs)
            assert plan.moved_bytes().get(("all_to_all", phase), 0) == want


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


def moved(rows: tuple[int, ...], width: int) -> int:
    """FG-18: N F less what stays, with columns dealt out one by one."""
    columns = [len(range(rank, width, len(rows))) for rank in range(len(rows))]
    return sum(rows) * width - sum(n * f for n, f in zip(rows, columns, strict=True))


@pytest.mark.parametrize(
    ("rows", "width"),
    [([5, 5], 4), ([7, 0], 3), ([3, 2, 2], 7), ([1, 0, 4], 2), ([2, 2, 1, 1], 3), ([0, 0, 9], 1)],
)
def test_to_columns_and_back_is_the_identity(rows: list[int], width: int, folder: Path) -> None:
    """FG-17, FG-18: bitwise; the columns are those of the whole matrix; bytes are closed form."""
    results = on_ranks(folder, len(rows), "there_and_back", rows, width)
    whole = np.concatenate([before for before, *_ in results])
    columns = np.concatenate([columns for _, columns, *_ in results], axis=1)
    assert np.array_equal(columns, whole)
    for before, _, back, _ in results:
        assert np.array_equal(before, back)
    assert sum(sent for *_, sent in results) == 2 * 8 * moved(tuple(rows), width)


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("kind", ["gcn", "sage"])
@pytest.mark.parametrize("precompute", [False, True])
def test_nothing_is_both_whole_rows_and_all_vertices(
    world_size: int, kind: str, precompute: bool, folder: Path
) -> None:
    """FG-22: a full-width tensor has at most ceil(N/P) rows, a full-height one ceil(F/P) columns.

    Judged by the number of elements, so that a matrix cannot hide in another shape.
    """
    graph = random_graph(n=200, edges=700, width=24)
    model = {"kind": kind, "hidden": 20, "layers": 3, "dropout": 0.5}
    run = cases.make_run("mixture", world_size, model, {"precompute": precompute})
    dims = [24, 20, 20, 4]
    n, widest = -(-200 // world_size), max(dims)
    bound = max(n * widest, 200 * -(-widest // world_size))
    assert bound < 200 * min(dims[:-1])  # so that all of a hidden layer, or of X, would be noticed
    for seen in on_ranks(folder, world_size, "shapes_of_an_epoch", graph, run):
        matrices = [shape for shape in seen if len(shape) > 1]
        assert (n, 20) in matrices and (200, 20 // world_size) in matrices
        for shape in matrices:
            assert np.prod(shape) <= bound, shape
            assert not (shape[0] > n and shape[1] > -(-widest // world_size)), shape
