"""Plans of full-graph training: bytes in closed form, product orders, buffers, profiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnnbench.approaches.base import Layout
from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.whole_graph.partition import PartitionStructure, profile_structure
from gnnbench.approaches.whole_graph.rows import full_graph_plan, stack_shape
from gnnbench.data.graph import Graph, from_edges
from gnnbench.data.halo import halo_structure
from gnnbench.data.profile import GraphProfile, HaloPoint, load_profile
from gnnbench.models.names import MODELS
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import Kind, Lane, Phase, Step
from gnnbench.work import all_reduce_bytes

MakeRun = Callable[..., RunSpec]
ORDERS = ("aggregate_first", "transform_first", "min_width")


def plan_of(graph: Graph | GraphProfile, run: RunSpec, owner: list[int] | None = None) -> Plan:
    """Plan a run; `owner` fixes who owns each vertex."""
    approach = APPROACHES.get(run.approach)
    if owner is None:
        structure = approach.structure(graph, run)
    else:
        assert isinstance(graph, Graph)
        structure = PartitionStructure.of_assignment(graph, np.array(owner, np.int32), run.ranks)
    layout = Layout(world_size=run.ranks, ranks_per_host=run.ranks)
    plan = approach.plan(graph, run, structure, layout)
    plan.validate()
    return plan


def steps(plan: Plan, rank: int = 0) -> list[Step]:
    return list(plan.iterations[0][rank])


def names(plan: Plan, phase: str, rank: int = 0) -> list[str]:
    return [s.name for s in steps(plan, rank) if s.phase == phase]


# Bytes


@pytest.mark.parametrize("kind", ["gcn", "sage"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_halo_bytes_are_element_size_times_copies_times_widths_fg_14(
    path_graph: Graph, make_run: MakeRun, kind: str, order: str, precision: str
) -> None:
    # Owners 0 0 | 1 1 1 of the path 0-1-2-3-4: rank 0 needs 2, rank 1 needs 1. S = 2.
    run = make_run(
        "partition", 2, kind=kind, hidden=4, layers=3, order=order,
        training={"precision": precision},
    )  # fmt: skip
    plan = plan_of(path_graph, run, [0, 0, 1, 1, 1])
    widths = {  # d = 3, 4, 4, 2: forward, backward
        "aggregate_first": (3 + 4 + 4, 4 + 4),
        "transform_first": (4 + 4 + 2, 4 + 4 + 2),
        "min_width": (3 + 4 + 2, 4 + 2),
    }[order]
    size = 8 if precision == "float64" else 4
    sent = plan.sent_bytes()
    assert sent["all_to_all", "forward"] == size * 2 * widths[0]
    assert sent["all_to_all", "backward"] == size * 2 * widths[1]


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**16),
    world=st.integers(2, 6),
    order=st.sampled_from(ORDERS),
    dims=st.lists(st.integers(1, 9), min_size=1, max_size=3),
)
def test_any_partition_sends_what_it_receives_and_the_closed_form_fg_10_fg_14(
    seed: int, world: int, order: str, dims: list[int]
) -> None:
    rng = np.random.default_rng(seed)
    graph = from_edges(
        "g", *rng.integers(0, 20, (2, 40)), 20, undirected=bool(seed % 2),
        features=np.zeros((20, dims[0]), np.float32), labels=np.zeros(20, np.int64),
        num_classes=dims[-1], train_mask=np.ones(20, bool),
    )  # fmt: skip
    run = RunSpec.from_dict(
        {
            "suite": "s", "graph": {"generator": "g"}, "approach": "partition", "ranks": world,
            "model": {"layers": len(dims), "hidden": 5}, "training": {}, "knobs": {"order": order},
        }
    )  # fmt: skip
    owner = rng.integers(0, world, 20).tolist()  # parts may be empty
    plan = plan_of(graph, run, owner)
    copies = halo_structure(graph, np.array(owner), world).halo_copies
    shape = stack_shape(graph, run, order)
    sent = plan.sent_bytes()
    halo = sum(count for (kind, _), count in sent.items() if kind == "all_to_all")
    assert halo == 4 * copies * (shape.forward_widths() + shape.backward_widths())
    for number in range(len(steps(plan))):
        exchanged = [plan.iterations[0][rank][number] for rank in range(world)]
        if exchanged[0].kind is not Kind.ALL_TO_ALL:
            continue
        table = np.array([step.send_bytes for step in exchanged])
        assert [step.bytes for step in exchanged] == table.sum(axis=1).tolist()
        assert np.all(np.diag(table) == 0)
        for rank, step in enumerate(exchanged):
            assert step.buffer_bytes == max(table[rank].sum(), table[:, rank].sum())


def test_what_is_sent_forward_comes_back_in_the_backward_pass(
    path_graph: Graph, make_run: MakeRun
) -> None:
    # Owners 0 1 1 2 2: rank 0 needs 1; rank 1 needs 0 and 3; rank 2 needs 2.
    plan = plan_of(path_graph, make_run("partition", 3, order="transform_first"), [0, 1, 1, 2, 2])
    for rank, (forward, backward) in enumerate(
        [((0, 16, 0), (0, 16, 0)), ((16, 0, 16), (16, 0, 16)), ((0, 16, 0), (0, 16, 0))]
    ):
        by_name = {s.name: s for s in steps(plan, rank)}
        assert by_name["forward/1/exchange"].send_bytes == forward
        assert by_name["backward/1/exchange"].send_bytes == backward


def test_gradients_and_the_loss_travel_in_one_ring(path_graph: Graph, make_run: MakeRun) -> None:
    plan = plan_of(path_graph, make_run("partition", 4, hidden=4), [0, 1, 2, 3, 3])
    theta = 3 * 4 + 4 + 4 * 2 + 2
    (ring,) = [s for s in steps(plan) if s.kind is Kind.ALL_REDUCE]
    assert (ring.rows, ring.buffer_bytes) == (theta + 1, 4 * (theta + 1))
    assert plan.sent_bytes()["all_reduce", "sync"] == 4 * all_reduce_bytes(4 * (theta + 1), 4)


@pytest.mark.parametrize("approach", ["single", "partition"])
def test_one_rank_sends_nothing_fg_5(path_graph: Graph, make_run: MakeRun, approach: str) -> None:
    plan = plan_of(path_graph, make_run(approach))
    assert plan.sent_bytes() == {}
    assert all(step.group == () for step in steps(plan))


def test_partition_on_one_rank_takes_the_steps_of_single(
    path_graph: Graph, make_run: MakeRun
) -> None:
    single, partition = (plan_of(path_graph, make_run(a)) for a in ("single", "partition"))
    assert single.iterations == partition.iterations
    assert single.resident == partition.resident


# Orders


def test_aggregate_first_multiplies_after_the_sparse_product(
    path_graph: Graph, make_run: MakeRun
) -> None:
    plan = plan_of(path_graph, make_run("partition", 2, order="aggregate_first"), [0, 0, 1, 1, 1])
    assert names(plan, "forward") == [
        "forward/1/pack", "forward/1/exchange", "forward/1/spmm", "forward/1/gemm",
        "forward/1/activation",
        "forward/2/pack", "forward/2/exchange", "forward/2/spmm", "forward/2/gemm",
        "forward/loss",
    ]  # fmt: skip
    # Layer 1 needs no input gradient, so no sparse product and no exchange (fullgraph section 2).
    assert [n for n in names(plan, "backward") if n.startswith("backward/1")] == [
        "backward/1/bias", "backward/1/weight"
    ]  # fmt: skip


def test_transform_first_needs_the_transpose_in_layer_1_too(
    path_graph: Graph, make_run: MakeRun
) -> None:
    plan = plan_of(path_graph, make_run("partition", 2, order="transform_first"), [0, 0, 1, 1, 1])
    assert names(plan, "forward")[:5] == [
        "forward/1/gemm", "forward/1/pack", "forward/1/exchange", "forward/1/spmm", "forward/1/bias"
    ]  # fmt: skip
    assert [n for n in names(plan, "backward") if n.startswith("backward/1")] == [
        "backward/1/bias", "backward/1/spmm", "backward/1/exchange",
        "backward/1/unpack", "backward/1/weight",
    ]  # fmt: skip


def test_min_width_fixes_an_order_per_layer(path_graph: Graph, make_run: MakeRun) -> None:
    plan = plan_of(path_graph, make_run(hidden=4, order="min_width"))  # d = 3, 4, 2
    assert plan.notes["order"] == ("aggregate_first", "transform_first")


def test_products_have_the_flops_of_the_reference(path_graph: Graph, make_run: MakeRun) -> None:
    # fullgraph section 4: sparse 2 E w, dense 2 N d_(l-1) d_l, thrice a layer and twice in layer 1.
    plan = plan_of(path_graph, make_run(hidden=4, order="aggregate_first"))
    sparse = [s.flops for s in steps(plan) if s.kind is Kind.SPMM]
    dense = [s.flops for s in steps(plan) if s.kind is Kind.GEMM]
    assert sparse == [2 * 8 * 3, 2 * 8 * 4, 2 * 8 * 4]
    assert sorted(dense) == sorted([2 * 5 * 3 * 4] * 2 + [2 * 5 * 4 * 2] * 3)


def test_a_self_weight_adds_its_products(path_graph: Graph, make_run: MakeRun) -> None:
    gcn, sage = (plan_of(path_graph, make_run(kind=kind)) for kind in ("gcn", "sage"))
    added = {s.name for s in steps(sage)} - {s.name for s in steps(gcn)}
    assert added == {
        "forward/1/self", "forward/2/self", "backward/1/self_weight", "backward/2/self_weight",
        "backward/2/self_input",
    }  # fmt: skip


def test_dropout_is_drawn_with_the_activation_and_apart_on_the_input(
    path_graph: Graph, make_run: MakeRun
) -> None:
    plan = plan_of(path_graph, make_run(dropout=0.5, input_dropout=0.1))
    ops = {s.name: s.op for s in steps(plan)}
    assert ops["forward/0/dropout"] == "dropout"
    assert ops["forward/1/activation"] == "relu_dropout"
    assert "forward/2/activation" not in ops


def test_a_step_waits_where_the_lane_changes(path_graph: Graph, make_run: MakeRun) -> None:
    plan = plan_of(path_graph, make_run("partition", 2), [0, 0, 1, 1, 1])
    for before, step in zip(steps(plan), steps(plan)[1:], strict=False):
        waits = [after.step for after in step.after]
        assert waits == ([before.name] if before.lane is not step.lane else [])
    assert {s.lane for s in steps(plan)} == {Lane.COMPUTE, Lane.COMM}
    assert {s.phase for s in steps(plan)} == {
        Phase.FORWARD, Phase.BACKWARD, Phase.SYNC, Phase.UPDATE
    }  # fmt: skip


def test_every_epoch_is_one_and_the_same_iteration(path_graph: Graph, make_run: MakeRun) -> None:
    plan = plan_of(path_graph, make_run(training={"epochs": 7}))
    assert (plan.num_epochs, plan.iterations_per_epoch, len(plan.iterations)) == (7, 1, 1)


# Memory


@pytest.mark.parametrize("kind", ["gcn", "sage"])
def test_resident_bytes_are_those_of_the_arrays_a_rank_holds(
    path_graph: Graph, make_run: MakeRun, kind: str
) -> None:
    owner = np.array([0, 0, 1, 1, 1], np.int32)
    plan = plan_of(path_graph, make_run("partition", 2, kind=kind), owner.tolist())
    model = MODELS.get(kind)
    for rank, halo in enumerate(halo_structure(path_graph, owner, 2).ranks):
        held, local = plan.resident[rank], halo.csr
        rows, columns = halo.num_owned, halo.num_columns
        assert held["x"] == np.zeros((columns, 3), np.float32).nbytes
        assert held["topology"] == local.indptr.nbytes + local.indices.nbytes
        turned = halo.transposed
        assert held["topology_t"] == turned.indptr.nbytes + turned.indices.nbytes
        masks = 3 * np.zeros(rows, bool).nbytes
        assert held["labels"] == np.zeros(rows, np.int64).nbytes + masks
        assert held["row_ids"] == halo.owned.astype(np.int64).nbytes
        assert held["halo_ids"] == halo.send.nbytes
        assert held["train_rows"] == 8 * path_graph.train_mask[halo.owned].sum()
        per_row = {"symmetric": 2 * rows + columns, "mean": rows}[model.normalisation]
        assert held["scales"] == np.zeros(per_row, np.float32).nbytes
        # Weights, gradient and Adam's two moments.
        assert held["parameters"] == 4 * 4 * model.num_parameters((3, 4, 2))


def test_activations_are_as_large_as_their_rows_and_widths(
    path_graph: Graph, make_run: MakeRun
) -> None:
    plan = plan_of(path_graph, make_run("partition", 2, order="aggregate_first"), [0, 0, 1, 1, 1])
    sizes = dict(pair for step in steps(plan, 1) for pair in step.allocates)
    # Rank 1 owns 3 rows and sees 4 (one of halo); d = 3, 4, 2; one row is packed, 4 wide at most.
    assert sizes == {
        "halo_rows": 1 * 4 * 4,
        "z1": 3 * 3 * 4,
        "h1": 4 * 4 * 4,  # layer 2 aggregates it, so halo rows lie behind the own ones
        "z2": 3 * 4 * 4,
        "h2": 3 * 2 * 4,
        "g2": 3 * 2 * 4,
        "g1": 4 * 4 * 4,
    }


def test_memory_peaks_at_residents_and_all_activations(
    path_graph: Graph, make_run: MakeRun
) -> None:
    plan = plan_of(path_graph, make_run())
    allocated = dict(pair for step in steps(plan) for pair in step.allocates)
    assert plan.memory_peak_bytes(0) == sum(plan.resident[0].values()) + sum(allocated.values())


def test_float64_doubles_what_is_made_of_numbers_and_not_the_topology(
    path_graph: Graph, make_run: MakeRun
) -> None:
    single, double = (
        plan_of(path_graph, make_run(training={"precision": p})).resident[0]
        for p in ("float32", "float64")
    )
    doubled = {name for name in single if double[name] == 2 * single[name] > 0}
    assert doubled == {"x", "scales", "parameters"}
    assert all(double[name] == single[name] for name in single if name not in doubled)


# Rank rules


def test_single_refuses_more_than_one_rank(make_run: MakeRun) -> None:
    single = APPROACHES.get("single")
    assert single.skip_reason(make_run("single", 1)) is None
    assert single.skip_reason(make_run("single", 2)) == "single runs on 1 rank, 2 asked"


@pytest.mark.parametrize("world", [6, 9])
def test_more_ranks_than_vertices_still_make_a_plan_fg_7(
    path_graph: Graph, make_run: MakeRun, world: int
) -> None:
    plan = plan_of(path_graph, make_run("partition", world, partitioner="hash"))
    assert plan.world_size == world


# Profiles


def profile(**fields: Any) -> GraphProfile:
    return GraphProfile(
        name="p", source="test", status="measured", num_nodes=1000, num_edges=8000,
        num_features=16, num_classes=4, num_train=100, **fields,
    )  # fmt: skip


@settings(deadline=None)
@given(
    parts=st.integers(2, 300),
    per_node=st.floats(0, 1),
    imbalance=st.floats(1, 2),
)
def test_a_profile_deals_out_its_halo_whole_fg_13_fg_15(
    parts: int, per_node: float, imbalance: float
) -> None:
    point = HaloPoint(
        parts=parts, method="metis-vol", halo_per_node=per_node, halo_imbalance=imbalance
    )
    structure = profile_structure(profile(halo=(point,)), parts, "metis-vol")
    received = np.array([size.recv_rows for size in structure.sizes])
    assert np.array_equal(received.T, [size.send_rows for size in structure.sizes])
    assert np.all(np.diag(received) == 0)
    assert np.all(received >= 0)
    # Rounding is to whole rows, once per rank and not once per pair.
    assert abs(received.sum() - per_node * 1000) <= parts / 2 + 1
    largest = received.sum(axis=1).max()
    assert abs(largest - imbalance * per_node * 1000 / parts) <= 1
    assert sum(size.rows for size in structure.sizes) == 1000
    assert sum(size.nonzeros for size in structure.sizes) == 8000
    assert sum(size.train_rows for size in structure.sizes) == 100


def test_a_profiles_plan_says_that_it_was_estimated_and_from_what(make_run: MakeRun) -> None:
    reddit = load_profile("reddit")
    plan = plan_of(reddit, make_run("partition", 8))
    assert not plan.exact
    assert plan.basis.startswith("halo curve of reddit, metis-")
    whole = plan_of(reddit, make_run("partition", 1))
    assert (whole.exact, whole.basis) == (True, "counts of the profile")


def test_a_profiles_bytes_follow_the_published_halo_curve(make_run: MakeRun) -> None:
    # fullgraph section 15: Reddit's METIS edge cut in 8 parts has S/N = 3.388.
    reddit = load_profile("reddit")
    run = make_run("partition", 8, objective="cut", order="aggregate_first", layers=2, hidden=16)
    sent = plan_of(reddit, run).sent_bytes()
    halo = sent["all_to_all", "forward"] + sent["all_to_all", "backward"]
    expected = 4 * 3.388 * reddit.num_nodes * ((602 + 16) + 16)
    assert halo == pytest.approx(expected, rel=1e-3)


def test_a_graph_and_its_own_profile_predict_nearly_the_same_bytes(make_run: MakeRun) -> None:
    from gnnbench.data.generators import planted_partition
    from gnnbench.data.profile import profile as measure

    graph = planted_partition(600, 8, 4, 5, seed=3)
    run = make_run("partition", 4)
    known = measure(graph, parts=(4,), methods=("metis-vol",), fanouts=())
    counted, estimated = plan_of(graph, run).sent_bytes(), plan_of(known, run).sent_bytes()
    assert counted.keys() == estimated.keys()
    for key, count in counted.items():
        assert estimated[key] == pytest.approx(count, rel=0.01)


def test_a_plan_of_given_sizes_is_counted_unless_told_otherwise(
    path_graph: Graph, make_run: MakeRun
) -> None:
    sizes = PartitionStructure.whole(path_graph).sizes
    plan = full_graph_plan(path_graph, make_run(), sizes, order="min_width")
    assert (plan.exact, plan.basis) == (True, "counted on the real graph")
