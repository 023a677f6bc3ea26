"""Both worlds agree: the steps that the runtime performs are the steps of the plan, to the byte.

FG-9, FG-11, FG-14; SA-P5, SA-P7, SA-D3.
"""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the runtime extra")

import cases
from test_exactness import MODELS, ORDERS, assignments, random_graph

from gnnbench.approaches.base import Layout
from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.whole_graph.partition import PartitionStructure
from gnnbench.approaches.writing.shape import stack_shape
from gnnbench.plan import Plan
from gnnbench.steps import Kind, Phase
from gnnbench_runtime.conformance.pool import Pools

pytestmark = pytest.mark.distributed


def performed(rows: list, epoch: int, iteration: int) -> list[tuple]:
    """A rank's measured steps of one iteration, lane by lane in order."""
    kept = [
        r
        for r in rows
        if r.period == epoch and r.iteration == iteration and r.phase != Phase.EVALUATE
    ]
    return by_lane(
        [(r.lane, r.name, r.kind, r.op, r.phase, r.layer, r.bytes, r.flops) for r in kept]
    )


def planned(plan: Plan, epoch: int, iteration: int, rank: int) -> list[tuple]:
    steps = list(plan.of_period(epoch))[iteration][rank]
    return by_lane(
        [(s.lane, s.name, s.kind, s.op, s.phase, s.layer, s.bytes, s.flops) for s in steps]
    )


def by_lane(rows: list[tuple]) -> list[tuple]:
    """Order across lanes is the plan's dependencies, not the ledger's: compare each lane's own."""
    return [
        tuple(map(str, row))
        for lane in sorted({r[0] for r in rows})
        for row in rows
        if row[0] == lane
    ]


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("order", ORDERS)
def test_partition_performs_its_plan(world_size: int, order: str, pools: Pools) -> None:
    """FG-9, FG-11, FG-14: counted bytes = planned bytes = s S (Phi + Psi), as integers."""
    graph = random_graph(undirected=False)
    for model in MODELS:
        run = cases.make_run("partition", world_size, model, {"order": order})
        approach = APPROACHES.get("partition")
        for name, assignment in assignments(graph, world_size).items():
            structure = PartitionStructure.of_assignment(graph, assignment, world_size)
            plan = approach.plan(
                graph, run, structure, Layout(world_size=world_size, ranks_per_host=world_size)
            )
            plan.validate()
            if world_size == 1:
                results = [cases.train_full(0, 1, graph, run, assignment, 1)]
            else:
                ranks = pools.of(world_size)
                results = ranks.run("cases:train_full", graph, run, assignment, 1)
            for rank, got in enumerate(results):
                assert performed(got["ledger"], 0, 0) == planned(plan, 0, 0, rank), name
            shape = stack_shape(graph, run, order)
            copies = int(structure.sizes.received.sum())
            closed = 8 * copies * (shape.forward_widths() + shape.backward_widths())
            moved = plan.moved_bytes()
            assert sum(b for (kind, _), b in moved.items() if kind == Kind.ALL_TO_ALL) == closed, (
                name
            )
            counted = sum(
                b for got in results for k, b in got["sent"].items() if k.startswith("all_to_all/")
            )
            assert counted == closed, name


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("placement", ["replicated", "partitioned"])
@pytest.mark.parametrize("prefetch", [0, 2])
def test_sampled_performs_its_plan(
    world_size: int, placement: str, prefetch: int, pools: Pools
) -> None:
    """SA-P7, SA-D3: bytes counted by the runtime = bytes planned from the same batches, exactly."""
    graph = random_graph()
    for model in MODELS:
        fanouts = [2, -1, 3][: model["layers"]]
        knobs = {"placement": placement, "prefetch": prefetch, "partitioner": "hash"}
        batch = {"size": 5, "fanouts_from_seeds": fanouts}
        run = cases.make_run("sampled", world_size, model, knobs, batch=batch)
        approach = APPROACHES.get("sampled")
        structure = approach.structure(graph, run)
        plan = approach.plan(
            graph, run, structure, Layout(world_size=world_size, ranks_per_host=world_size)
        )
        plan.validate()
        assert plan.counted
        if world_size == 1:
            results = [cases.train_sampled(0, 1, graph, run)]
        else:
            results = pools.of(world_size).run("cases:train_sampled", graph, run)
        for rank, got in enumerate(results):
            for epoch in range(2):
                for iteration in range(structure.num_steps):
                    want = planned(plan, epoch, iteration, rank)
                    assert performed(got["ledger"], epoch, iteration) == want, (
                        rank,
                        epoch,
                        iteration,
                    )
        for epoch in range(2):
            want_bytes = {f"{k}/{p}": b for (k, p), b in plan.moved_bytes(epoch).items()}
            counted: dict[str, int] = {}
            for got in results:
                for key, value in got["sent"][epoch].items():
                    counted[key] = counted.get(key, 0) + value
            assert counted == want_bytes


@pytest.mark.parametrize("placement", ["replicated", "partitioned"])
def test_sampled_training_does_not_depend_on_the_number_of_ranks(
    placement: str, pools: Pools
) -> None:
    """SA-P1, SA-S3, SA-S4: P ranks on their shares = one rank on the union; the last is uneven."""
    graph = random_graph()
    for model in MODELS:
        fanouts = [3, 2, 2][: model["layers"]]
        knobs, batch = {"placement": placement}, {"size": 6, "fanouts_from_seeds": fanouts}
        one = cases.train_sampled(
            0, 1, graph, cases.make_run("sampled", 1, model, knobs, batch=batch)
        )
        for world_size in (2, 3):
            for prefetch in (0, 1):
                run = cases.make_run(
                    "sampled", world_size, model, {**knobs, "prefetch": prefetch}, batch=batch
                )
                ranks = pools.of(world_size)
                for got in ranks.run("cases:train_sampled", graph, run):
                    np.testing.assert_allclose(got["losses"], one["losses"], rtol=1e-9)
                    np.testing.assert_allclose(got["parameters"], one["parameters"], atol=1e-8)
                    assert got["metrics"] == one["metrics"]


@pytest.mark.parametrize("kind", ["gcn", "sage"])
def test_all_neighbours_and_one_batch_is_the_full_graph(kind: str) -> None:
    """SA-S1: fan-out -1 and all training vertices in one batch give the full-graph gradient."""
    graph = random_graph()
    model = {"kind": kind, "hidden": 8, "layers": 2}
    batch = {"size": graph.num_nodes, "fanouts_from_seeds": [-1, -1]}
    sampled = cases.train_sampled(
        0, 1, graph, cases.make_run("sampled", 1, model, {}, batch=batch), 5
    )
    full = cases.train_full(0, 1, graph, cases.make_run("single", 1, model, {}), None, 5)
    np.testing.assert_allclose(sampled["parameters"], full["parameters"], atol=1e-8)
