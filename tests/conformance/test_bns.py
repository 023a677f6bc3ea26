"""BNS-GCN in both worlds: exact at its ends, unbiased between, drawn once per epoch (FG-29..34)."""

from __future__ import annotations

import dataclasses
from collections import Counter
from math import floor

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the runtime extra")

import cases
import stale_cases
from test_exactness import ORDERS, assignments, check_equal, random_graph
from test_worlds import performed, planned

from gnnbench.approaches.base import Layout
from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.whole_graph.partition import PartitionStructure
from gnnbench.approaches.writing.shape import stack_shape
from gnnbench.data.boundary import Boundary
from gnnbench.data.graph import Graph, from_edges
from gnnbench.data.halo import halo_structure
from gnnbench.data.partition import partition
from gnnbench_runtime.conformance.pool import Pools

pytestmark = pytest.mark.distributed
FOUR = pytest.param(4, marks=pytest.mark.deep)
MODELS = [
    {"kind": "gcn", "hidden": 8, "layers": 2},
    {"kind": "sage", "hidden": 8, "layers": 3, "dropout": 0.5, "input_dropout": 0.3},
]


@pytest.mark.parametrize("world_size", [2, 3, FOUR])
@pytest.mark.parametrize("order", ORDERS)
def test_rate_one_is_vanilla(world_size: int, order: str, pools: Pools) -> None:
    """FG-29, and with it FG-1..8: every draw is the whole boundary."""
    ranks = pools.of(world_size)
    for undirected in (True, False):
        graph = random_graph(undirected=undirected)
        for model in MODELS:
            single = cases.train_full(
                0, 1, graph, cases.make_run("single", 1, model, {"order": order})
            )
            run = cases.make_run("bns", world_size, model, {"order": order, "rate": 1.0})
            vanilla = cases.make_run("partition", world_size, model, {"order": order})
            for name, assignment in assignments(graph, world_size).items():
                results = ranks.run("cases:train_full", graph, run, assignment)
                check_equal(results, single, name)
                wanted = ranks.run("cases:train_full", graph, vanilla, assignment)
                for got, want in zip(results, wanted, strict=True):
                    np.testing.assert_allclose(
                        got["parameters"], want["parameters"], rtol=0, atol=1e-12
                    )


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", ["gcn", "sage"])
def test_rate_zero_trains_the_parts_apart_with_true_degrees(
    kind: str, order: str, pools: Pools
) -> None:
    """FG-30: equal to a dense model without edges across, normalised by the whole graph."""
    graph = random_graph(undirected=False)
    assignment = partition(graph, 3, method="hash")
    model = {"kind": kind, "hidden": 8, "layers": 3}
    run = cases.make_run("bns", 3, model, {"order": order, "rate": 0.0})
    results = pools.of(3).run("stale_cases:train", graph, run, assignment, 4)
    # A model that is stale for longer than it trains never sees another part.
    losses, parameters = stale_cases.dense_stale(graph, run, assignment, 4, lag=99)
    for got in results:
        np.testing.assert_allclose(got["losses"], losses, rtol=0, atol=1e-10)
        np.testing.assert_allclose(got["parameters"], parameters, rtol=0, atol=1e-8)
        for sent in got["sent"]:
            assert set(sent) == {"all_reduce/sync"}


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("rate", [0.0, 0.3, 0.75, 1.0])
@pytest.mark.parametrize("order", ORDERS)
def test_bns_performs_its_plan_in_every_epoch(
    world_size: int, rate: float, order: str, pools: Pools
) -> None:
    """FG-9, FG-11, FG-32: s sum(k_ij) (Phi + Psi) of rows and 8 sum(k_ij) of ids, as integers."""
    graph = random_graph(undirected=False)
    for model in MODELS:
        run = cases.make_run("bns", world_size, model, {"order": order, "rate": rate})
        for name, assignment in assignments(graph, world_size).items():
            structure = PartitionStructure.of_assignment(graph, assignment, world_size)
            layout = Layout(world_size=world_size, ranks_per_host=world_size)
            plan = APPROACHES.get("bns").plan(graph, run, structure, layout)
            plan.validate()
            assert plan.counted
            if world_size == 1:
                results = [stale_cases.train(0, 1, graph, run, assignment, 3)]
            else:
                ranks = pools.of(world_size)
                results = ranks.run("stale_cases:train", graph, run, assignment, 3)
            shape = stack_shape(graph, run, order)
            drawn = int(np.floor(rate * structure.sizes.received).sum())
            widths = shape.forward_widths(), shape.backward_widths()
            for epoch in range(3):
                for rank, got in enumerate(results):
                    steps = performed(got["ledger"], epoch, 0)
                    assert steps == planned(plan, epoch, 0, rank), (name, rank, epoch)
                counted = Counter()
                for got in results:
                    counted.update(got["sent"][epoch])
                assert counted["all_to_all/forward"] == 8 * drawn * widths[0]
                assert counted["all_to_all/backward"] == 8 * drawn * widths[1]
                assert counted["all_to_all/sample"] == 8 * drawn


def boundary_graph() -> Graph:
    """Two dozen vertices, every one with neighbours in the other parts, of skewed degrees."""
    rng = np.random.default_rng(5)
    n = 24
    src, dst = rng.integers(0, n, 150), rng.integers(0, n, 150) ** 2 // n
    return from_edges(
        "boundary",
        src,
        dst,
        n,
        features=rng.standard_normal((n, 4)).astype(np.float32),
        labels=rng.integers(0, 3, n),
        num_classes=3,
        train_mask=np.ones(n, bool),
    )


@pytest.mark.parametrize("kind", ["gcn", "sage"])
def test_the_mean_of_many_draws_is_the_exact_aggregation_both_ways(kind: str, pools: Pools) -> None:
    """FG-31. Without 1 / r_ij forward or backward the mean would be off by most of a boundary."""
    graph, draws = boundary_graph(), 1500
    assignment = (np.arange(24) % 3).astype(np.int32)
    counts = halo_structure(graph, assignment, 3).counts
    off_diagonal = counts[~np.eye(3, dtype=bool)]
    assert (0.4 * off_diagonal >= 1).all()
    model = {"kind": kind, "hidden": 4, "layers": 2}
    run = cases.make_run("bns", 3, model, {"rate": 0.4})
    results = pools.of(3).run("stale_cases:sampled_means", graph, run, assignment, draws)
    for way in ("forward", "backward"):
        exact, mean, spread = (
            np.concatenate([got[way][key] for got in results])
            for key in ("exact", "mean", "deviation")
        )
        error = np.abs(mean - exact)
        assert (error <= 5 * spread / np.sqrt(draws) + 1e-12).all(), way
        # The draws do differ, and the test would see a bias far smaller than a missing factor's.
        assert np.median(spread / np.sqrt(draws)) < 0.02 * np.median(np.abs(exact)), way
        assert (spread > 0).mean() > 0.9, way


def test_one_draw_serves_all_layers_and_both_passes_and_follows_from_the_seed(
    pools: Pools,
) -> None:
    """FG-32, FG-33, FG-34: what arrives is what anybody can draw from (seed, epoch, pair)."""
    graph, epochs = random_graph(undirected=False), 4
    assignment = partition(graph, 3, method="hash")
    parts = halo_structure(graph, assignment, 3)
    run = cases.make_run("bns", 3, MODELS[0], {"rate": 0.5})
    ranks = pools.of(3)
    results = ranks.run("stale_cases:drawn_graphs", graph, run, assignment, epochs)
    assert results == ranks.run("stale_cases:drawn_graphs", graph, run, assignment, epochs)
    seen = []
    for epoch in range(epochs):
        returned: Counter[int] = Counter()
        for rank, got in enumerate(results):
            first, second = got[epoch]["arrived"]
            local = parts.ranks[rank]
            positions = Boundary.of(local).draw_received(0.5, run.training.seed, epoch)
            assert first == second == local.halo[positions].tolist()
            assert len(first) == sum(floor(0.5 * int(c)) for c in parts.counts[rank])
            returned.update(first)
        # What was sent forward is what came back: owners count each receiver once.
        assert returned == Counter(
            {v: c for got in results for v, c in got[epoch]["returned"].items()}
        )
        seen.append(sorted(returned.items()))
    assert len({str(s) for s in seen}) == epochs
    other = dataclasses.replace(run, training=dataclasses.replace(run.training, seed=8))
    again = ranks.run("stale_cases:drawn_graphs", graph, other, assignment, 1)
    assert again[0][0]["arrived"] != results[0][0]["arrived"]


def test_evaluation_uses_the_whole_graph(pools: Pools) -> None:
    """Logits while evaluating are those of the exact model, also amid training at rate 0."""
    graph = random_graph()
    for rate in (0.0, 0.4):
        run = cases.make_run("bns", 3, MODELS[0], {"partitioner": "hash", "rate": rate})
        results = pools.of(3).run("stale_cases:evaluated", graph, run, 3)
        want = stale_cases.exact_logits(graph, run, results[0]["parameters"])
        from test_exactness import assemble

        np.testing.assert_allclose(assemble(results, "logits"), want, rtol=0, atol=1e-9)
