"""GAT in `bns` and `pipegcn`: rows of T = H W are drawn, or late (FG-29, 30, 32..41)."""

from __future__ import annotations

import dataclasses
from collections import Counter
from math import floor
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the runtime extra")

import cases
import stale_attention_cases as dense
import stale_cases
from test_exactness import assemble, assignments, check_equal, random_graph
from test_worlds import performed, planned

from gnnbench.approaches.base import Layout
from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.whole_graph.partition import PartitionStructure
from gnnbench.approaches.writing.shape import stack_shape
from gnnbench.data.boundary import Boundary
from gnnbench.data.generators import generate
from gnnbench.data.graph import Graph
from gnnbench.data.halo import halo_structure
from gnnbench.data.partition import partition
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import Kind, pick
from gnnbench_runtime.conformance.pool import Pools

pytestmark = pytest.mark.distributed
PLAIN = {"kind": "gat", "hidden": 6, "layers": 2, "heads": 3}
DEEP = {"kind": "gat", "hidden": 8, "layers": 3, "heads": 2}
DROPPED = {**DEEP, "dropout": 0.5, "input_dropout": 0.3}
SMOOTHINGS = ["none", "features", "gradients", "both"]


def plan_of(graph: Graph, run: RunSpec, assignment: Any) -> tuple[Plan, PartitionStructure]:
    structure = PartitionStructure.of_assignment(graph, assignment, run.ranks)
    layout = Layout(world_size=run.ranks, ranks_per_host=run.ranks)
    plan = APPROACHES.get(run.approach).plan(graph, run, structure, layout)
    plan.validate()
    return plan, structure


def check_dense(results: list[dict], want: tuple[list[float], np.ndarray]) -> None:
    for got in results:
        np.testing.assert_allclose(got["losses"], want[0], rtol=0, atol=1e-9)
        np.testing.assert_allclose(got["parameters"], want[1], rtol=0, atol=1e-8)


def test_the_dense_model_without_delay_is_the_exact_one() -> None:
    """What all else here rests on: parts or not, it trains as `single` does."""
    graph = random_graph(undirected=False)
    for model in (PLAIN, DEEP):
        run = cases.make_run("single", 1, model, {})
        want = cases.train_full(0, 1, graph, run, None, 4)
        for assignment in (np.zeros(40, np.int32), partition(graph, 3, method="hash")):
            _, parameters = dense.dense_training(graph, run, assignment, 4)
            np.testing.assert_allclose(parameters, want["parameters"], rtol=0, atol=1e-8)
            np.testing.assert_allclose(
                dense.exact_logits(graph, run, parameters),
                dense.exact_logits(graph, run, want["parameters"]),
                rtol=0,
                atol=1e-8,
            )


# bns


@pytest.mark.parametrize("world_size", [2, 3])
def test_rate_one_is_vanilla(world_size: int, pools: Pools) -> None:
    """FG-29, and with it FG-1..4, FG-12."""
    ranks, graph = pools.of(world_size), random_graph(undirected=False)
    for model in (PLAIN, DROPPED):
        single = cases.train_full(0, 1, graph, cases.make_run("single", 1, model, {}))
        run = cases.make_run("bns", world_size, model, {"rate": 1.0})
        vanilla = cases.make_run("partition", world_size, model, {})
        for name, assignment in assignments(graph, world_size).items():
            results = ranks.run("cases:train_full", graph, run, assignment)
            check_equal(results, single, name)
            wanted = ranks.run("cases:train_full", graph, vanilla, assignment)
            for got, want in zip(results, wanted, strict=True):
                np.testing.assert_allclose(
                    got["parameters"], want["parameters"], rtol=0, atol=1e-12
                )


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.6])
def test_attention_is_over_the_neighbours_that_are_there(rate: float, pools: Pools) -> None:
    """FG-30 at rate 0; between, the softmax is over the drawn rows, unscaled both ways."""
    for undirected in (True, False):
        graph = random_graph(undirected=undirected)
        assignment = partition(graph, 3, method="hash")
        for model in (PLAIN, DEEP):
            run = cases.make_run("bns", 3, model, {"rate": rate})
            results = pools.of(3).run("stale_cases:train", graph, run, assignment, 4)
            present = dense.drawn_mask(graph, run, assignment, rate)
            want = dense.dense_training(graph, run, assignment, 4, present=present)
            check_dense(results, want)
            whole = dense.dense_training(graph, run, assignment, 4)
            assert np.abs(want[1] - whole[1]).max() > 1e-3


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("rate", [0.0, 0.3, 0.75, 1.0])
def test_bns_performs_its_plan_in_every_epoch(world_size: int, rate: float, pools: Pools) -> None:
    """FG-9, FG-11, FG-32: s sum(k_ij) 2 sum(d_l) of rows and 8 sum(k_ij) of ids, as integers."""
    graph = random_graph(undirected=False)
    for model in (PLAIN, DROPPED):
        run = cases.make_run("bns", world_size, model, {"rate": rate})
        for name, assignment in assignments(graph, world_size).items():
            plan, structure = plan_of(graph, run, assignment)
            assert plan.counted
            if world_size == 1:
                results = [stale_cases.train(0, 1, graph, run, assignment, 3)]
            else:
                ranks = pools.of(world_size)
                results = ranks.run("stale_cases:train", graph, run, assignment, 3)
            drawn = int(np.floor(rate * structure.sizes.received).sum())
            width = sum(stack_shape(graph, run, "min_width").dims[1:])
            for epoch in range(3):
                for rank, got in enumerate(results):
                    steps = performed(got["ledger"], epoch, 0)
                    assert steps == planned(plan, epoch, 0, rank), (name, rank, epoch)
                counted: Counter[str] = Counter()
                for got in results:
                    counted.update(got["sent"][epoch])
                assert counted["all_to_all/forward"] == 8 * drawn * width
                assert counted["all_to_all/backward"] == 8 * drawn * width
                assert counted["all_to_all/sample"] == 8 * drawn


def test_dropped_attention_weights_are_keyed_by_edge_in_sampled_graphs(pools: Pools) -> None:
    """FG-12 at a rate below 1: who owns what does not change the mask of an edge that is there.

    With parts that have no edges between them, sampling changes nothing, dropout included.
    """
    graph = random_graph(undirected=False)
    assignment = assignments(graph, 3)["no boundary"]
    single = cases.train_full(0, 1, graph, cases.make_run("single", 1, DROPPED, {}))
    run = cases.make_run("bns", 3, DROPPED, {"rate": 0.5})
    check_equal(pools.of(3).run("cases:train_full", graph, run, assignment), single, "")


def test_one_draw_serves_all_layers_and_both_passes_and_follows_from_the_seed(
    pools: Pools,
) -> None:
    """FG-33, FG-34."""
    graph = random_graph(undirected=False)
    assignment = partition(graph, 3, method="hash")
    parts = halo_structure(graph, assignment, 3)
    run = cases.make_run("bns", 3, PLAIN, {"rate": 0.5})
    results = pools.of(3).run("stale_cases:drawn_graphs", graph, run, assignment, 3)
    for epoch in range(3):
        returned: Counter[int] = Counter()
        for rank, got in enumerate(results):
            first, second = got[epoch]["arrived"]
            local = parts.ranks[rank]
            positions = Boundary.of(local).draw_received(0.5, run.training.seed, epoch)
            assert first == second == local.halo[positions].tolist()
            returned.update(first)
        back = {v: c for got in results for v, c in got[epoch]["returned"].items()}
        assert returned == Counter(back)


@pytest.mark.parametrize("model", [PLAIN, DROPPED, {"kind": "gcn"}, {"kind": "sage"}])
@pytest.mark.parametrize("rate", [0.0, 0.4, 1.0])
def test_what_training_holds_is_planned_and_sized_by_the_sample(
    model: dict, rate: float, pools: Pools
) -> None:
    """FG-65 for `bns`: byte for byte, and an evaluation amid training leaves nothing behind."""
    graph = random_graph(undirected=False, edges=300)
    model = {"hidden": 8, "layers": 3, **model}
    assignment = partition(graph, 3, method="hash")
    run = cases.make_run("bns", 3, model, {"rate": rate})
    plan, structure = plan_of(graph, run, assignment)
    results = pools.of(3).run("stale_attention_cases:held_bytes", graph, run, assignment, 3)
    for rank, got in enumerate(results):
        held = {b.name: pick(b.bytes, rank) for b in plan.resident}
        rows, received = int(structure.sizes.rows[rank]), structure.sizes.received[rank].tolist()
        wanted: Counter[str] = Counter()
        drawn = sum(floor(rate * count) for count in received)
        for epoch, found in enumerate(got["epochs"]):
            wanted |= Counter(dense.allocated(plan.iterations[plan.schedule[epoch]][rank]))
            del wanted["loss_scratch"]  # lives within one step, outside the workspace
            assert +Counter(found["buffers"]) == +wanted, epoch
            assert found["x"] == held["x"] == 8 * 6 * (rows + drawn)
            assert found["sampled"] == held["sampled_topology"] + held["sampled_places"]
            assert found["scales"] == held.get("sampled_scales", 0)
            assert found["apart"] == 0


def test_evaluation_uses_the_whole_graph(pools: Pools) -> None:
    """Logits while evaluating are those of the exact model, also amid training at rate 0."""
    graph = random_graph()
    for approach, knobs in (
        ("bns", {"rate": 0.0}),
        ("bns", {"rate": 0.4}),
        ("pipegcn", {}),
    ):
        run = cases.make_run(approach, 3, PLAIN, {"partitioner": "hash", **knobs})
        results = pools.of(3).run("stale_cases:evaluated", graph, run, 3)
        want = dense.exact_logits(graph, run, results[0]["parameters"])
        np.testing.assert_allclose(assemble(results, "logits"), want, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("approach", "knobs"), [("bns", {"rate": 0.3}), ("pipegcn", {})])
def test_accuracy_comes_near_that_of_one_device(approach: str, knobs: dict, pools: Pools) -> None:
    """On a planted graph; one epoch of delay asks for small steps, so the rate is 0.003."""
    graph = generate(
        "planted_partition",
        num_nodes=400,
        mean_degree=12,
        num_classes=4,
        num_features=16,
        homophily=0.6,
        feature_noise=2.0,
        train_fraction=0.3,
        seed=5,
    )

    def trained(name: str, world_size: int, given: dict) -> float:
        run = cases.make_run(name, world_size, PLAIN, given)
        training = dataclasses.replace(run.training, lr=0.003, weight_decay=0.0)
        run = dataclasses.replace(run, training=training)
        if world_size == 1:
            return cases.train_full(0, 1, graph, run, None, 100)["metrics"]["test_accuracy"]
        assignment = partition(graph, world_size, method="metis")
        results = pools.of(world_size).run("cases:train_full", graph, run, assignment, 100)
        return results[0]["metrics"]["test_accuracy"]

    single = trained("single", 1, {})
    assert single > 0.7
    assert trained(approach, 3, knobs) > single - 0.06


# pipegcn


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_pipegcn_performs_its_plan_in_every_epoch(
    world_size: int, smoothing: str, pools: Pools
) -> None:
    """FG-9, FG-11, FG-39: the bytes of vanilla, s S 2 sum(d_l), as integers."""
    graph = random_graph(undirected=False)
    for model in (PLAIN, DROPPED):
        run = cases.make_run("pipegcn", world_size, model, {"smoothing": smoothing})
        vanilla = cases.make_run("partition", world_size, model, {})
        for name, assignment in assignments(graph, world_size).items():
            plan, structure = plan_of(graph, run, assignment)
            copies = int(structure.sizes.received.sum())
            closed = 8 * copies * 2 * sum(stack_shape(graph, run, "min_width").dims[1:])
            sent = plan.moved_bytes()
            assert sum(b for (kind, _), b in sent.items() if kind == Kind.ALL_TO_ALL) == closed
            assert sent == plan_of(graph, vanilla, assignment)[0].moved_bytes()
            results = pools.of(world_size).run("stale_cases:train", graph, run, assignment, 3)
            for epoch in range(3):
                for rank, got in enumerate(results):
                    steps = performed(got["ledger"], epoch, 0)
                    assert steps == planned(plan, epoch, 0, rank), (name, rank, epoch)
                counted = sum(
                    b
                    for got in results
                    for k, b in got["sent"][epoch].items()
                    if k.startswith("all_to_all/")
                )
                assert counted == closed, name


def test_no_staleness_is_vanilla_bit_by_bit(pools: Pools) -> None:
    """FG-35, dropout of attention weights included."""
    graph = random_graph(undirected=False)
    assignment, ranks = partition(graph, 3, method="hash"), pools.of(3)
    vanilla = cases.make_run("partition", 3, DROPPED, {})
    fresh = cases.make_run("pipegcn", 3, DROPPED, {"staleness": 0})
    wanted = ranks.run("stale_cases:train", graph, vanilla, assignment, 5)
    found = ranks.run("stale_cases:train", graph, fresh, assignment, 5)
    for got, want in zip(found, wanted, strict=True):
        assert got["losses"] == want["losses"]
        assert np.array_equal(got["parameters"], want["parameters"])
        assert got["sent"] == want["sent"]


@pytest.mark.parametrize(
    ("smoothing", "gamma"),
    [("none", 0.95), ("features", 0.6), ("gradients", 0.6), ("both", 0.6), ("both", 0.0)],
)
def test_training_equals_a_dense_model_of_one_epoch_of_staleness(
    smoothing: str, gamma: float, pools: Pools
) -> None:
    """FG-37, FG-38, FG-40: zeros in the softmax first, then the epoch before, or its average."""
    for undirected in (True, False):
        graph = random_graph(undirected=undirected)
        assignment = partition(graph, 3, method="hash")
        for model in (PLAIN, DEEP):
            run = cases.make_run("pipegcn", 3, model, {"smoothing": smoothing, "gamma": gamma})
            results = pools.of(3).run("stale_cases:train", graph, run, assignment, 6)
            check_dense(results, dense.dense_training(graph, run, assignment, 6, lag=1))


def test_the_dense_model_tells_staleness_one_from_none_and_two() -> None:
    """FG-38: a model that is stale by another number of epochs trains differently."""
    graph = random_graph(undirected=False)
    run = cases.make_run("pipegcn", 3, PLAIN, {})
    assignment = partition(graph, 3, method="hash")
    losses = [dense.dense_training(graph, run, assignment, 5, lag=lag)[0] for lag in (0, 1, 2)]
    assert abs(losses[0][0] - losses[1][0]) > 1e-4
    assert abs(losses[1][2] - losses[2][2]) > 1e-4


def test_frozen_weights_reach_vanilla_after_as_many_epochs_as_data_needs(pools: Pools) -> None:
    """FG-36: logits equal from epoch L on, gradients from epoch 2L on, and not before."""
    graph = random_graph(undirected=False)
    assignment, order = partition(graph, 3, method="hash"), np.arange(40)
    for model in (PLAIN, DEEP):
        layers = model["layers"]
        single = cases.train_full(0, 1, graph, cases.make_run("single", 1, model, {}), None, 1)
        order = np.argsort(single["rows"])
        run = cases.make_run("pipegcn", 3, model, {})
        results = pools.of(3).run("stale_cases:frozen", graph, run, assignment, 2 * layers + 2)
        for epoch in range(2 * layers + 2):
            at = [{"rows": got["rows"], "logits": got["logits"][epoch]} for got in results]
            error = np.abs(assemble(at, "logits") - single["logits"][order]).max()
            assert error <= 1e-9 if epoch >= layers else error > 1e-6, epoch
            for got in results:
                off = np.abs(got["gradients"][epoch] - single["gradient"]).max()
                assert off <= 1e-9 if epoch >= 2 * layers else off > 1e-9, epoch


def test_one_rank_is_single_and_sends_nothing() -> None:
    """FG-5."""
    graph = random_graph()
    single = cases.train_full(0, 1, graph, cases.make_run("single", 1, DROPPED, {}))
    for approach in ("bns", "pipegcn"):
        got = cases.train_full(0, 1, graph, cases.make_run(approach, 1, DROPPED, {}))
        assert np.array_equal(got["parameters"], single["parameters"])
        assert got["metrics"] == single["metrics"]
        assert got["sent"] == {}
