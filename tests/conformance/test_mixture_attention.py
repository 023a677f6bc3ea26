"""GAT in `mixture`: equal to single-device training for any split, its plan performed to the byte.

FG-1..7, FG-9, FG-11, FG-12, FG-18, FG-19, FG-21, FG-22, FG-23.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the runtime extra")

import cases
from pool import pool
from test_exactness import check_equal, random_graph
from test_mixture import moved, on_ranks, splits
from test_worlds import performed, planned

from gnnbench.approaches.base import Layout
from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.whole_graph.mixture import MixtureStructure
from gnnbench.data.graph import from_edges
from gnnbench.data.partition import partition
from gnnbench.spec import RunSpec

pytestmark = pytest.mark.distributed

# On 2, 3, 4 and 8 ranks these have whole heads on each, cut heads, heads over several ranks, fewer
# columns than ranks; the last layer's single head is cut always.
MODELS = [
    {"kind": "gat", "hidden": 6, "layers": 2, "heads": 3},
    {"kind": "gat", "hidden": 8, "layers": 3, "heads": 4, "dropout": 0.5, "input_dropout": 0.3},
    {"kind": "gat", "hidden": 12, "layers": 2, "heads": 2, "dropout": 0.4},
    {"kind": "gat", "hidden": 3, "layers": 3, "heads": 3},
    {"kind": "gat", "hidden": 5, "layers": 1},
]


def single(graph, model: dict, epochs: int = 5) -> dict:
    return cases.train_full(0, 1, graph, cases.make_run("single", 1, model, {}), None, epochs)


def closed_form(rows: tuple[int, ...], run: RunSpec, features: int, classes: int) -> int:
    """Elements per epoch, written anew: every column asked which head it is of."""
    parts, total, spec = len(rows), 0, run.model
    widths = [(spec.hidden, spec.heads)] * (spec.layers - 1) + [(classes, 1)]
    for width, heads in widths:
        total += 4 * moved(rows, width)
        shares = [width // parts + (rank < width % parts) for rank in range(parts)]
        column, owners = 0, {}
        for rank, share in enumerate(shares):
            for _ in range(share):
                owners.setdefault(column // (width // heads), set()).add(rank)
                column += 1
        if any(len(ranks) > 1 for ranks in owners.values()):
            pairs = [(rank, head) for head, ranks in owners.items() for rank in ranks]
            total += 4 * sum(sum(rows) - rows[rank] for rank, _ in pairs)
    return total


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("undirected", [True, False])
def test_attention_by_columns_equals_single_and_performs_its_plan(
    world_size: int, undirected: bool, folder: Path
) -> None:
    """FG-1..7, FG-9, FG-11, FG-12, FG-19: any split of the vertices, dropped weights included."""
    graph, approach = random_graph(undirected=undirected), APPROACHES.get("mixture")
    ways = splits(graph.num_nodes, world_size)
    for model in MODELS:
        wanted, run = single(graph, model), cases.make_run("mixture", world_size, model, {})
        for name, rows in ways.items():
            structure = MixtureStructure.of_rows(graph, rows)
            layout = Layout(world_size=world_size, ranks_per_host=world_size)
            plan = approach.plan(graph, run, structure, layout)
            plan.validate()
            results = on_ranks(folder, world_size, "train", graph, run, rows)
            check_equal(results, wanted, f"{name}, {model}")
            for rank, got in enumerate(results):
                assert performed(got["ledger"], 0, 0) == planned(plan, 0, 0, rank), (name, model)
            want = 8 * closed_form(rows, run, graph.num_features, graph.num_classes)
            counted = sum(
                sent for got in results for key, sent in got["sent"].items()
                if key.startswith("all_to_all/")
            )  # fmt: skip
            told = sum(b for (kind, _), b in plan.moved_bytes().items() if kind == "all_to_all")
            assert counted == told == want == 8 * plan.notes["relayout_elements"], (name, model)


@pytest.mark.parametrize("world_size", [8])
def test_attention_is_exact_on_more_ranks_than_columns(world_size: int, folder: Path) -> None:
    """FG-4, FG-7: four classes, three or six hidden columns on eight ranks."""
    graph = random_graph(undirected=False)
    for model in MODELS:
        run = cases.make_run("mixture", world_size, model, {})
        results = on_ranks(folder, world_size, "train", graph, run, None, 3)
        check_equal(results, single(graph, model, 3), str(model))


def test_more_ranks_than_nodes_is_exact(folder: Path) -> None:
    """FG-7: three vertices on four ranks; one rank has no row, but columns."""
    graph = from_edges(
        "path", np.array([0, 1]), np.array([1, 2]), 3,
        features=np.eye(3, dtype=np.float32), labels=np.array([0, 1, 0]), num_classes=2,
        train_mask=np.array([True, True, False]), test_mask=np.array([False, False, True]),
    )  # fmt: skip
    model = {"kind": "gat", "hidden": 4, "layers": 2, "heads": 2}
    run = cases.make_run("mixture", 4, model, {})
    check_equal(on_ranks(folder, 4, "train", graph, run), single(graph, model), "path")


def test_the_dropped_weights_do_not_depend_on_the_number_of_ranks(folder: Path) -> None:
    """FG-3, FG-12: five steps with dropout on 2, 3 and 4 ranks end in the same parameters."""
    graph = random_graph(undirected=False)
    ends = []
    for world_size in (2, 3, 4):
        run = cases.make_run("mixture", world_size, MODELS[1], {})
        results = on_ranks(folder, world_size, "train", graph, run)
        for got in results:
            assert np.array_equal(got["parameters"], results[0]["parameters"])
        ends.append(results[0]["parameters"])
    np.testing.assert_allclose(ends[0], ends[1], rtol=0, atol=1e-9)
    np.testing.assert_allclose(ends[0], ends[2], rtol=0, atol=1e-9)


def test_mixture_and_partition_agree_on_attention(folder: Path) -> None:
    """FG-23: halo rows or column slices, the same model."""
    graph, model = random_graph(undirected=False), MODELS[2]
    mixed = on_ranks(folder, 3, "train", graph, cases.make_run("mixture", 3, model, {}))
    run = cases.make_run("partition", 3, model, {})
    owners = partition(graph, 3, method="hash")
    parted = pool(3, folder / "3").run("cases:train_full", graph, run, owners)
    np.testing.assert_allclose(mixed[0]["gradient"], parted[0]["gradient"], rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(mixed[0]["parameters"], parted[0]["parameters"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_the_buffers_are_those_of_the_plan(world_size: int, folder: Path) -> None:
    """Every named buffer has the planned bytes on every rank; so has the pattern of entries."""
    graph, approach = random_graph(undirected=False), APPROACHES.get("mixture")
    layout = Layout(world_size=world_size, ranks_per_host=world_size)
    for model in MODELS:
        run = cases.make_run("mixture", world_size, model, {})
        for rows in list(splits(graph.num_nodes, world_size).values())[:2]:
            plan = approach.plan(graph, run, MixtureStructure.of_rows(graph, rows), layout)
            results = on_ranks(folder, world_size, "buffers_of_an_epoch", graph, run, rows)
            for rank, (buffers, held) in enumerate(results):
                wanted: dict[str, int] = {}
                for step in plan.iterations[0][rank]:
                    for name, size in step.allocates:
                        wanted[name] = max(size, wanted.get(name, 0))
                assert buffers == {name: size for name, size in wanted.items() if size}, model
                resident = plan.resident[rank]
                kept = ("topology", "topology_t", "edge_ids")
                assert held["pattern"] == sum(resident[name] for name in kept)
                assert held["x"] == resident["x"]


@pytest.mark.parametrize("world_size", [2, 4])
def test_nothing_is_both_whole_rows_and_all_vertices(world_size: int, folder: Path) -> None:
    """FG-22, but for what attention keeps of every entry and own head."""
    graph = random_graph(n=200, edges=700, width=24)
    model = {"kind": "gat", "hidden": 20, "layers": 3, "heads": 4, "dropout": 0.5}
    run = cases.make_run("mixture", world_size, model, {})
    n, entries = 200 // world_size, graph.num_edges + 200
    for seen in on_ranks(folder, world_size, "shapes_of_an_epoch", graph, run):
        assert (n, 20) in seen
        assert (200, 20 // world_size) in seen
        for shape in seen:
            if len(shape) > 1 and shape[0] != entries:
                assert not (shape[0] > n and np.prod(shape[1:]) > 24 // world_size), shape
