"""`partition` with its knobs: precompute, overlap, host-staged transport (FG-1, FG-9, FG-14)."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the runtime extra")

import cases
from test_exactness import ORDERS, assignments, check_equal, random_graph
from test_worlds import performed, planned

from gnnbench.approaches.base import Layout
from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.whole_graph.partition import PartitionStructure
from gnnbench.approaches.writing.shape import stack_shape
from gnnbench.data.graph import Graph
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import Kind
from gnnbench_runtime.conformance.pool import Pools

pytestmark = pytest.mark.distributed

MODELS = [
    {"kind": "gcn", "hidden": 8, "layers": 2},
    {"kind": "sage", "hidden": 8, "layers": 3, "dropout": 0.5},
]
KNOBS = [
    {"precompute": True},
    {"overlap": True},
    {"precompute": True, "overlap": True},
    {"transport": "host_staged"},
]


def plan_of(graph: Graph, run: RunSpec, assignment: np.ndarray) -> tuple[Plan, PartitionStructure]:
    structure = PartitionStructure.of_assignment(
        graph, assignment, run.ranks, split_entries=bool(run.knobs.get("overlap"))
    )
    layout = Layout(world_size=run.ranks, ranks_per_host=run.ranks)
    plan = APPROACHES.get("partition").plan(graph, run, structure, layout)
    plan.validate()
    return plan, structure


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("knobs", KNOBS, ids=str)
def test_every_knob_is_exact_and_performs_its_plan(
    world_size: int, order: str, knobs: dict, pools: Pools
) -> None:
    """FG-1, FG-9, FG-11, FG-14: as `single` to 1e-9; steps as planned; bytes s S (Phi + Psi)."""
    ranks = pools.of(world_size) if world_size > 1 else None
    graph = random_graph(undirected=False)
    for model in MODELS:
        # Precomputation aggregates first; another order rounds differently, no more.
        single = cases.train_full(0, 1, graph, cases.make_run("single", 1, model, {"order": order}))
        run = cases.make_run("partition", world_size, model, {"order": order, **knobs})
        for name, assignment in assignments(graph, world_size).items():
            plan, structure = plan_of(graph, run, assignment)
            if ranks is None:
                results = [cases.train_full(0, 1, graph, run, assignment)]
            else:
                results = ranks.run("cases:train_full", graph, run, assignment)
            check_equal(results, single, f"{name}, {model['kind']}, {knobs}")
            for rank, got in enumerate(results):
                assert performed(got["ledger"], 0, 0) == planned(plan, 0, 0, rank), name
            precompute = bool(knobs.get("precompute"))
            shape = stack_shape(graph, run, order, precompute=precompute)
            copies = int(structure.sizes.received.sum())
            closed = 8 * copies * (shape.forward_widths() + shape.backward_widths())
            moved = sum(b for (k, _), b in plan.moved_bytes().items() if k == Kind.ALL_TO_ALL)
            counted = sum(
                b for got in results for k, b in got["sent"].items() if k.startswith("all_to_all/")
            )
            assert moved == counted == closed, name


def test_precomputation_takes_layer_1_out_of_the_volume_exactly() -> None:
    """FG-14: aggregate-first, the difference is s S d_0, and nothing else changes."""
    graph, model = random_graph(undirected=False), MODELS[0]
    assignment = assignments(graph, 3)["hash"]
    volumes, copies = {}, 0
    for precompute in (False, True):
        knobs = {"order": "aggregate_first", "precompute": precompute}
        run = cases.make_run("partition", 3, model, knobs)
        plan, structure = plan_of(graph, run, assignment)
        volumes[precompute] = sum(
            b for (kind, _), b in plan.moved_bytes().items() if kind == Kind.ALL_TO_ALL
        )
        copies = int(structure.sizes.received.sum())
        layer_1 = [s.name for s in plan.iterations[0][0] if s.layer == 1 and s.kind is Kind.SPMM]
        assert bool(layer_1) != precompute
    assert volumes[False] - volumes[True] == 8 * copies * graph.num_features


def test_single_precomputes_too() -> None:
    graph = random_graph(undirected=False)
    for model in MODELS:
        plain = cases.train_full(0, 1, graph, cases.make_run("single", 1, model, {}))
        run = cases.make_run("single", 1, model, {"precompute": True})
        got = cases.train_full(0, 1, graph, run)
        np.testing.assert_allclose(got["gradient"], plain["gradient"], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(got["parameters"], plain["parameters"], atol=1e-8)
        names = [row.name for row in got["ledger"] if row.phase != "evaluate"]
        assert "forward/1/spmm" not in names and "forward/2/spmm" in names
        approach = APPROACHES.get("single")
        layout = Layout(world_size=1, ranks_per_host=1)
        plan = approach.plan(graph, run, approach.structure(graph, run), layout)
        assert performed(got["ledger"], 0, 0) == planned(plan, 0, 0, 0)


def test_staging_shows_in_plans_for_accelerators_only() -> None:
    graph = random_graph()
    run = cases.make_run("partition", 2, MODELS[0], {"transport": "host_staged"})
    approach = APPROACHES.get("partition")
    structure = approach.structure(graph, run)
    layout = Layout(world_size=2, ranks_per_host=2)
    kinds = {
        device: [
            step.kind
            for step in approach.plan(
                graph, run, structure, dataclasses.replace(layout, device=device)
            ).iterations[0][0]
        ]
        for device in ("cpu", "cuda")
    }
    assert Kind.COPY not in kinds["cpu"]
    # Two forward exchanges, one backward, one all-reduce: a copy on each side of each.
    exchanges = kinds["cuda"].count(Kind.ALL_TO_ALL) + kinds["cuda"].count(Kind.ALL_REDUCE)
    assert kinds["cuda"].count(Kind.COPY) == 2 * exchanges
    for place, kind in enumerate(kinds["cuda"]):
        if kind in (Kind.ALL_TO_ALL, Kind.ALL_REDUCE):
            assert kinds["cuda"][place - 1] is Kind.COPY is kinds["cuda"][place + 1]


def test_staged_rows_arrive_through_host_memory(pools: Pools) -> None:
    """The staging path itself, forced on where device and host are one: equal to the bit."""
    graph = random_graph(undirected=False)
    run = cases.make_run("partition", 2, MODELS[1], {})
    assignment = assignments(graph, 2)["hash"]
    plain = pools.of(2).run("cases:train_full", graph, run, assignment)
    staged = pools.of(2).run("test_partition_gains:train_staged", graph, run, assignment)
    structure = PartitionStructure.of_assignment(graph, assignment, 2)
    staged_run = dataclasses.replace(run, knobs={**run.knobs, "transport": "host_staged"})
    plan = APPROACHES.get("partition").plan(
        graph, staged_run, structure, Layout(world_size=2, ranks_per_host=2, device="cuda")
    )
    for rank, (want, got) in enumerate(zip(plain, staged, strict=True)):
        np.testing.assert_array_equal(want["parameters"], got["parameters"])
        assert performed(got["ledger"], 0, 0) == planned(plan, 0, 0, rank)


def train_staged(rank: int, world_size: int, graph: Graph, run: RunSpec, assignment) -> dict:
    """Train as `cases.train_full` does, with staging put in where a CPU would do without."""
    from unittest import mock

    from gnnbench_runtime.approaches.whole_graph import partition

    made = partition.PartitionTrainer.__init__

    def staging(self, context, *args, **kwargs) -> None:
        made(self, context, *args, **kwargs)
        self.staging = self.stack.exchange._staging = partition.Staging(context)

    with mock.patch.object(partition.PartitionTrainer, "__init__", staging):
        return cases.train_full(rank, world_size, graph, run, assignment)
