"""PipeGCN in both worlds: one epoch late, never more, never less (FG-35..41)."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the runtime extra")

import cases
import stale_cases
from test_exactness import ORDERS, assemble, assignments, random_graph
from test_worlds import performed, planned

from gnnbench.approaches.base import Layout
from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.whole_graph.partition import PartitionStructure
from gnnbench.approaches.writing.shape import stack_shape
from gnnbench.data.partition import partition
from gnnbench.steps import Kind
from gnnbench_runtime.conformance.pool import Pools

pytestmark = pytest.mark.distributed
MODELS = [
    {"kind": "gcn", "hidden": 8, "layers": 2},
    {"kind": "sage", "hidden": 5, "layers": 3},
]


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("smoothing", ["none", "features", "gradients", "both"])
@pytest.mark.parametrize("order", ORDERS)
def test_pipegcn_performs_its_plan_in_every_epoch(
    world_size: int, smoothing: str, order: str, pools: Pools
) -> None:
    """FG-9, FG-11, FG-39: the bytes of vanilla, s S (Phi + Psi), as integers."""
    graph = random_graph(undirected=False)
    for model in [*MODELS, {**MODELS[1], "dropout": 0.5, "input_dropout": 0.3}]:
        run = cases.make_run("pipegcn", world_size, model, {"order": order, "smoothing": smoothing})
        for name, assignment in assignments(graph, world_size).items():
            structure = PartitionStructure.of_assignment(graph, assignment, world_size)
            layout = Layout(world_size=world_size, ranks_per_host=world_size)
            plan = APPROACHES.get("pipegcn").plan(graph, run, structure, layout)
            plan.validate()
            shape = stack_shape(graph, run, order)
            copies = int(structure.sizes.received.sum())
            closed = 8 * copies * (shape.forward_widths() + shape.backward_widths())
            sent = plan.moved_bytes()
            assert sum(b for (kind, _), b in sent.items() if kind == Kind.ALL_TO_ALL) == closed
            results = pools.of(world_size).run("stale_cases:train", graph, run, assignment, 3)
            for rank, got in enumerate(results):
                for epoch in range(3):
                    steps = performed(got["ledger"], epoch, 0)
                    assert steps == planned(plan, epoch, 0, rank), (name, rank, epoch)
            for epoch in range(3):
                counted = sum(
                    b
                    for got in results
                    for k, b in got["sent"][epoch].items()
                    if k.startswith("all_to_all/")
                )
                assert counted == closed, name


@pytest.mark.parametrize("order", ORDERS)
def test_no_staleness_is_vanilla_bit_by_bit(order: str, pools: Pools) -> None:
    """FG-35, dropout included."""
    graph = random_graph(undirected=False)
    assignment = partition(graph, 3, method="hash")
    model = {**MODELS[1], "dropout": 0.5, "input_dropout": 0.3}
    ranks = pools.of(3)
    vanilla = cases.make_run("partition", 3, model, {"order": order})
    fresh = cases.make_run("pipegcn", 3, model, {"order": order, "staleness": 0})
    wanted = ranks.run("stale_cases:train", graph, vanilla, assignment, 5)
    for got, want in zip(
        ranks.run("stale_cases:train", graph, fresh, assignment, 5), wanted, strict=True
    ):
        assert got["losses"] == want["losses"]
        assert np.array_equal(got["parameters"], want["parameters"])
        assert got["sent"] == want["sent"]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("smoothing", "gamma"),
    [("none", 0.95), ("features", 0.6), ("gradients", 0.6), ("both", 0.6), ("both", 0.0)],
)
def test_training_equals_a_dense_model_of_one_epoch_of_staleness(
    order: str, smoothing: str, gamma: float, pools: Pools
) -> None:
    """FG-37, FG-38, FG-40: zeros first, then exactly what the epoch before sent, or its average.

    The reference splits A into edges within parts and across, and keeps last epoch's products.
    """
    for undirected in (True, False):
        graph = random_graph(undirected=undirected)
        assignment = partition(graph, 3, method="hash")
        for model in MODELS:
            knobs = {"order": order, "smoothing": smoothing, "gamma": gamma}
            run = cases.make_run("pipegcn", 3, model, knobs)
            results = pools.of(3).run("stale_cases:train", graph, run, assignment, 6)
            losses, parameters = stale_cases.dense_stale(graph, run, assignment, 6)
            for got in results:
                np.testing.assert_allclose(got["losses"], losses, rtol=0, atol=1e-9)
                np.testing.assert_allclose(got["parameters"], parameters, rtol=0, atol=1e-8)


def test_the_dense_model_tells_staleness_one_from_none_and_two() -> None:
    """FG-38: a model that is stale by another number of epochs trains differently."""
    graph = random_graph()
    assignment = partition(graph, 3, method="hash")
    run = cases.make_run("pipegcn", 3, MODELS[0], {})
    losses = [stale_cases.dense_stale(graph, run, assignment, 6, lag)[0] for lag in (0, 1, 2)]
    assert abs(losses[0][3] - losses[1][3]) > 1e-4
    assert abs(losses[1][3] - losses[2][3]) > 1e-4


def test_frozen_weights_reach_vanilla_after_as_many_epochs_as_data_needs(pools: Pools) -> None:
    """FG-36: logits equal from epoch L on, gradients from epoch 2L on, and not before L - 1."""
    graph = random_graph(undirected=False)
    assignment = partition(graph, 3, method="hash")
    for model in MODELS:
        ranks, layers = pools.of(3), model["layers"]
        single = cases.train_full(0, 1, graph, cases.make_run("single", 1, model, {}), None, 1)
        run = cases.make_run("pipegcn", 3, model, {"order": "aggregate_first"})
        results = ranks.run("stale_cases:frozen", graph, run, assignment, 2 * layers + 2)
        order = np.argsort(single["rows"])
        for epoch in range(2 * layers + 2):
            at = [{"rows": got["rows"], "logits": got["logits"][epoch]} for got in results]
            error = np.abs(assemble(at, "logits") - single["logits"][order]).max()
            assert error <= 1e-9 if epoch >= layers else error > 1e-6, epoch
            for got in results:
                off = np.abs(got["gradients"][epoch] - single["gradient"]).max()
                assert off <= 1e-9 if epoch >= 2 * layers else epoch >= layers or off > 1e-6, epoch


def test_the_first_epoch_sees_zeros_and_no_transfer_is_doubled(pools: Pools) -> None:
    """FG-37, FG-38, FG-41: what was taken was sent exactly one epoch before."""
    graph = random_graph()
    knobs = {"partitioner": "hash", "order": "aggregate_first"}
    run = cases.make_run("pipegcn", 2, MODELS[1], knobs)
    for got in pools.of(2).run("stale_cases:watched", graph, run, 4):
        assert got["first_halo"] == 0.0
        assert got["later_halo"] > 0.0
        assert got["ages"] == {1}
        assert got["most_under_way"] == 1


def test_evaluation_fetches_fresh_rows(pools: Pools) -> None:
    """Accuracy is that of the exact model with the trained weights, evaluated twice the same."""
    graph = random_graph()
    run = cases.make_run("pipegcn", 3, MODELS[0], {"partitioner": "hash"})
    results = pools.of(3).run("stale_cases:evaluated", graph, run, 4)
    want = stale_cases.exact_logits(graph, run, results[0]["parameters"])
    logits = assemble(results, "logits")
    np.testing.assert_allclose(logits, want, rtol=0, atol=1e-9)


def test_one_rank_is_single_and_sends_nothing() -> None:
    """FG-5."""
    graph = random_graph()
    single = cases.train_full(0, 1, graph, cases.make_run("single", 1, MODELS[0], {}))
    got = cases.train_full(0, 1, graph, cases.make_run("pipegcn", 1, MODELS[0], {}))
    assert np.array_equal(got["parameters"], single["parameters"])
    assert got["sent"] == {}
