"""GAT in `mixture`: equal to single-device training for any split, its plan performed to the byte.

FG-1..7, FG-9, FG-11, FG-12, FG-18, FG-19, FG-21.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the runtime extra")

import cases
from mixture_cases import moved, on_ranks, plan_of, splits
from test_exactness import check_equal, random_graph
from test_mixture import single
from test_worlds import performed, planned

from gnnbench.spec import RunSpec
from gnnbench_runtime.conformance.pool import Pools

pytestmark = pytest.mark.distributed
FOUR = pytest.param(4, marks=pytest.mark.deep)

# On 2, 3, 4 and 8 ranks these have whole heads on each, cut heads, heads over several ranks, fewer
# columns than ranks; the last layer's single head is cut always.
MODELS: list[dict[str, Any]] = [
    {"kind": "gat", "hidden": 6, "layers": 2, "heads": 3, "norm": "layer"},
    {"kind": "gat", "hidden": 8, "layers": 3, "heads": 4, "dropout": 0.5, "input_dropout": 0.3},
    {"kind": "gat", "hidden": 12, "layers": 2, "heads": 2, "dropout": 0.4},
    {"kind": "gat", "hidden": 3, "layers": 3, "heads": 3},
    {"kind": "gat", "hidden": 5, "layers": 1},
]


def closed_form(rows: tuple[int, ...], run: RunSpec, classes: int) -> int:
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


@pytest.mark.parametrize("world_size", [1, 2, 3, FOUR])
def test_attention_by_columns_equals_single_and_performs_its_plan(
    world_size: int, pools: Pools
) -> None:
    """FG-1..7, FG-9, FG-11, FG-12, FG-19: any split of the vertices, dropped weights included."""
    graph = random_graph(undirected=False)
    for model in MODELS:
        wanted, run = single(graph, model, {}), cases.make_run("mixture", world_size, model, {})
        for name, rows in splits(graph.num_nodes, world_size).items():
            plan = plan_of(graph, run, rows)
            results = on_ranks(pools, world_size, "train", graph, run, rows)
            check_equal(results, wanted, f"{name}, {model}")
            for rank, got in enumerate(results):
                assert performed(got["ledger"], 0, 0) == planned(plan, 0, 0, rank), (name, model)
            want = 8 * closed_form(rows, run, graph.num_classes)
            counted = sum(
                sent
                for got in results
                for key, sent in got["sent"].items()
                if key.startswith("all_to_all/")
            )
            told = sum(b for (kind, _), b in plan.moved_bytes().items() if kind == "all_to_all")
            assert counted == told == want == 8 * plan.notes["relayout_elements"], (name, model)


@pytest.mark.deep
def test_attention_is_exact_on_more_ranks_than_columns(pools: Pools) -> None:
    """FG-4, FG-7: four classes, three or six hidden columns on eight ranks."""
    graph = random_graph(undirected=False)
    for model in MODELS:
        run = cases.make_run("mixture", 8, model, {})
        results = on_ranks(pools, 8, "train", graph, run, None, 3)
        check_equal(results, single(graph, model, {}, 3), str(model))


@pytest.mark.parametrize("world_size", [1, 2, 3, FOUR])
def test_the_buffers_are_those_of_the_plan(world_size: int, pools: Pools) -> None:
    """Every named buffer has the planned bytes on every rank; so has the pattern of entries."""
    graph = random_graph(undirected=False)
    for model in MODELS:
        run = cases.make_run("mixture", world_size, model, {})
        for rows in list(splits(graph.num_nodes, world_size).values())[:2]:
            plan = plan_of(graph, run, rows)
            resident = {b.name: np.broadcast_to(b.bytes, (world_size,)) for b in plan.resident}
            results = on_ranks(pools, world_size, "buffers_of_an_epoch", graph, run, rows)
            for rank, (found, held) in enumerate(results):
                wanted: dict[str, int] = {}
                for step in plan.iterations[0][rank]:
                    for buffer in step.allocates:
                        if buffer.name not in step.frees:
                            size = max(buffer.bytes, wanted.get(buffer.name, 0))
                            wanted[buffer.name] = size
                assert found == {name: size for name, size in wanted.items() if size}, model
                kept = ("topology", "topology_t", "edge_ids")
                assert held["pattern"] == sum(resident[name][rank] for name in kept)
                assert held["x"] == resident["x"][rank]
