"""Plans of `single` and `partition`: bytes in closed form, product orders, buffers, profiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.whole_graph.partition import profile_structure
from gnnbench.approaches.writing.shape import stack_shape
from gnnbench.cluster import load_cluster
from gnnbench.data.generators import planted_partition
from gnnbench.data.graph import Graph, from_edges
from gnnbench.data.halo import halo_structure
from gnnbench.data.profile import GraphProfile, HaloPoint, load_profile
from gnnbench.data.profile import profile as measure
from gnnbench.models.names import MODELS
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import Kind, Lane, Phase, Step, pick
from gnnbench.work import all_reduce_bytes
from gnnbench_simulator.predict import predict_plan

MakeRun = Callable[..., RunSpec]
PlanOf = Callable[..., Plan]
ORDERS = ("aggregate_first", "transform_first", "min_width")
CUT = [0, 0, 1, 1, 1]
"""Owners of the path 0-1-2-3-4: rank 0 needs vertex 2, rank 1 needs vertex 1."""


def steps(plan: Plan, rank: int = 0) -> list[Step]:
    return list(plan.iterations[0][rank])


def names(plan: Plan, start: str) -> list[str]:
    return [step.name for step in steps(plan) if step.name.startswith(start)]


def held(plan: Plan, rank: int = 0) -> dict[str, int]:
    return {buffer.name: pick(buffer.bytes, rank) for buffer in plan.resident}


def allocated(plan: Plan, rank: int = 0) -> dict[str, int]:
    return {b.name: pick(b.bytes, 0) for step in steps(plan, rank) for b in step.allocates}


# Bytes


@pytest.mark.parametrize("kind", ["gcn", "sage"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("precision", "size"), [("float32", 4), ("float64", 8)])
def test_halo_bytes_are_element_size_times_copies_times_widths_fg_14(
    path_graph: Graph,
    make_run: MakeRun,
    plan_of: PlanOf,
    kind: str,
    order: str,
    precision: str,
    size: int,
) -> None:
    model, training = {"kind": kind, "layers": 3}, {"precision": precision}
    run = make_run("partition", 2, model=model, order=order, training=training)
    moved = plan_of(path_graph, run, CUT).moved_bytes()
    forward, backward = {  # d = 3, 4, 4, 2
        "aggregate_first": (3 + 4 + 4, 4 + 4),
        "transform_first": (4 + 4 + 2, 4 + 4 + 2),
        "min_width": (3 + 4 + 2, 4 + 2),
    }[order]
    assert moved["all_to_all", "forward"] == size * 2 * forward
    assert moved["all_to_all", "backward"] == size * 2 * backward


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**16),
    world=st.integers(2, 6),
    order=st.sampled_from(ORDERS),
    dims=st.lists(st.integers(1, 9), min_size=1, max_size=3),
)
def test_any_partition_sends_what_it_receives_and_the_closed_form_fg_10_fg_14(
    make_run: MakeRun, plan_of: PlanOf, seed: int, world: int, order: str, dims: list[int]
) -> None:
    rng = np.random.default_rng(seed)
    graph = from_edges(
        "g",
        *rng.integers(0, 20, (2, 40)),
        20,
        undirected=bool(seed % 2),
        features=np.zeros((20, dims[0]), np.float32),
        labels=np.zeros(20, np.int64),
        num_classes=dims[-1],
        train_mask=np.ones(20, bool),
    )
    run = make_run("partition", world, model={"layers": len(dims), "hidden": 5}, order=order)
    owner = rng.integers(0, world, 20).tolist()  # parts may be empty
    plan = plan_of(graph, run, owner)
    copies = halo_structure(graph, np.array(owner), world).halo_copies
    shape = stack_shape(graph, run, order)
    halo = sum(size for (kind, _), size in plan.moved_bytes().items() if kind == "all_to_all")
    assert halo == 4 * copies * (shape.forward_widths() + shape.backward_widths())
    for exchanged in zip(*plan.iterations[0], strict=True):
        if exchanged[0].kind is not Kind.ALL_TO_ALL:
            continue
        table = np.array([step.work.send_bytes for step in exchanged])
        assert [step.bytes for step in exchanged] == table.sum(axis=1).tolist()
        assert np.all(np.diag(table) == 0)
        for rank, step in enumerate(exchanged):
            assert step.work.buffer_bytes == max(table[rank].sum(), table[:, rank].sum())


def test_what_is_sent_forward_comes_back_in_the_backward_pass(planned: PlanOf) -> None:
    # Owners 0 1 1 2 2: rank 0 needs 1; rank 1 needs 0 and 3; rank 2 needs 2.
    plan = planned("partition", 3, owner=[0, 1, 1, 2, 2], order="transform_first")
    for rank, sent in enumerate([[0, 16, 0], [16, 0, 16], [0, 16, 0]]):
        by_name = {step.name: step.work for step in steps(plan, rank)}
        assert by_name["forward/1/exchange"].send_bytes.tolist() == sent
        assert by_name["backward/1/exchange"].send_bytes.tolist() == sent


def test_gradients_and_the_loss_travel_in_one_ring(planned: PlanOf) -> None:
    plan = planned("partition", 4, owner=[0, 1, 2, 3, 3])
    theta = 3 * 4 + 4 + 4 * 2 + 2
    (ring,) = [step.work for step in steps(plan) if step.kind is Kind.ALL_REDUCE]
    assert (ring.rows, ring.buffer_bytes) == (theta + 1, 4 * (theta + 1))
    assert plan.moved_bytes()["all_reduce", "sync"] == 4 * all_reduce_bytes(4 * (theta + 1), 4)


def test_one_rank_of_partition_takes_the_steps_of_single_and_sends_nothing_fg_5(
    planned: PlanOf,
) -> None:
    single, partition = (planned(a) for a in ("single", "partition"))
    assert list(single.iterations[0]) == list(partition.iterations[0])
    assert held(single) == held(partition)
    assert partition.moved_bytes() == {}
    assert all(step.group == () for step in steps(partition))


# Orders


AGGREGATE_FIRST = [
    *("forward/1/pack", "forward/1/exchange", "forward/1/spmm", "forward/1/gemm"),
    *("forward/1/activation", "forward/2/pack", "forward/2/exchange", "forward/2/spmm"),
    *("forward/2/gemm", "forward/loss"),
]
TRANSFORM_FIRST = [
    *("forward/1/gemm", "forward/1/pack", "forward/1/exchange", "forward/1/spmm"),
    *("forward/1/bias", "forward/1/activation", "forward/2/gemm", "forward/2/pack"),
    *("forward/2/exchange", "forward/2/spmm", "forward/2/bias", "forward/loss"),
]
# Aggregate-first, layer 1 needs no input gradient: no sparse product, no exchange (section 2).
LAYER_1_BACK = {
    "aggregate_first": ["bias", "weight"],
    "transform_first": ["bias", "spmm", "exchange", "unpack", "weight"],
}


@pytest.mark.parametrize(
    ("order", "forward"),
    [("aggregate_first", AGGREGATE_FIRST), ("transform_first", TRANSFORM_FIRST)],
)
def test_the_order_says_which_product_comes_first(
    planned: PlanOf, order: str, forward: list[str]
) -> None:
    plan = planned("partition", 2, owner=CUT, order=order)
    assert names(plan, "forward") == forward
    assert names(plan, "backward/1") == [f"backward/1/{n}" for n in LAYER_1_BACK[order]]


def test_min_width_fixes_an_order_per_layer(planned: PlanOf) -> None:
    plan = planned("single", order="min_width")  # d = 3, 4, 2
    assert plan.notes["order"] == ("aggregate_first", "transform_first")


def test_products_have_the_flops_of_the_reference(planned: PlanOf) -> None:
    # fullgraph section 4: sparse 2 E w, dense 2 N d_(l-1) d_l, thrice a layer and twice in layer 1.
    plan = planned("single", order="aggregate_first")
    sparse = [step.flops for step in steps(plan) if step.kind is Kind.SPMM]
    dense = [step.flops for step in steps(plan) if step.kind is Kind.GEMM]
    assert sparse == [2 * 8 * 3, 2 * 8 * 4, 2 * 8 * 4]
    assert sorted(dense) == sorted([2 * 5 * 3 * 4] * 2 + [2 * 5 * 4 * 2] * 3)


@pytest.mark.parametrize(
    ("model", "added"),
    [
        (
            {"kind": "sage"},
            {
                *("forward/1/self", "forward/2/self", "backward/1/self_weight"),
                *("backward/2/self_weight", "backward/2/self_input"),
            },
        ),
        ({"norm": "layer"}, {"forward/1/norm", "backward/2/norm"}),
        ({"input_dropout": 0.1}, {"forward/0/dropout"}),
        ({"dropout": 0.5}, set()),  # drawn with the activation
    ],
)
def test_what_a_model_adds_to_the_steps_of_gcn(
    planned: PlanOf, model: dict[str, Any], added: set[str]
) -> None:
    plain, more = planned("single"), planned("single", model=model)
    assert set(names(more, "")) - set(names(plain, "")) == added
    (activation,) = [s.op for s in steps(more) if s.name == "forward/1/activation"]
    assert activation == ("relu_dropout" if "dropout" in model else "relu")


def test_a_step_waits_where_the_lane_changes(planned: PlanOf) -> None:
    plan = planned("partition", 2, owner=CUT)
    for before, step in zip(steps(plan), steps(plan)[1:], strict=False):
        waits = [after.step for after in step.after]
        assert waits == ([before.name] if before.lane is not step.lane else [])
    assert {step.lane for step in steps(plan)} == {Lane.COMPUTE, Lane.COMM}
    phases = {Phase.FORWARD, Phase.BACKWARD, Phase.SYNC, Phase.UPDATE}
    assert {step.phase for step in steps(plan)} == phases


def test_every_epoch_is_one_and_the_same_iteration(planned: PlanOf) -> None:
    plan = planned("single", training={"epochs": 7})
    assert (plan.num_periods, plan.periods[0], len(plan.iterations)) == (7, 1, 1)


@pytest.mark.parametrize(
    ("optimizer", "vectors"), [("adam", 4), ("sgd", 2), ("adagrad", 3)]
)  # parameters, gradient, state
def test_the_optimizer_decides_the_last_step_and_its_state(
    planned: PlanOf, optimizer: str, vectors: int
) -> None:
    plan = planned("single", training={"optimizer": optimizer})
    assert steps(plan)[-1].name == f"update/{optimizer}"
    assert held(plan)["parameters"] == vectors * 4 * MODELS.get("gcn").num_parameters((3, 4, 2))


# Memory


@pytest.mark.parametrize("kind", ["gcn", "sage"])
def test_resident_bytes_are_those_of_the_arrays_a_rank_holds(
    planned: PlanOf, path_graph: Graph, kind: str
) -> None:
    owner = np.array(CUT, np.int32)
    plan = planned("partition", 2, owner=CUT, model={"kind": kind})
    model = MODELS.get(kind)
    for rank, halo in enumerate(halo_structure(path_graph, owner, 2).ranks):
        local, turned = halo.csr, halo.transposed
        rows, columns = halo.num_owned, halo.num_columns
        scales = {"symmetric": 2 * rows + columns, "mean": rows}[model.normalisation]
        assert held(plan, rank) == {
            "x": np.zeros((columns, 3), np.float32).nbytes,
            "topology": local.indptr.nbytes + local.indices.nbytes,
            "topology_t": turned.indptr.nbytes + turned.indices.nbytes,
            "labels": np.zeros(rows, np.int64).nbytes + 3 * np.zeros(rows, bool).nbytes,
            "row_ids": halo.owned.astype(np.int64).nbytes,
            "halo_ids": halo.send.nbytes,
            "train_rows": 8 * path_graph.train_mask[halo.owned].sum(),
            "scales": np.zeros(scales, np.float32).nbytes,
            "parameters": 4 * 4 * model.num_parameters((3, 4, 2)),
        }


def test_activations_are_as_large_as_their_rows_and_widths(planned: PlanOf) -> None:
    plan = planned("partition", 2, owner=CUT, order="aggregate_first")
    # Rank 1 owns 3 rows, 2 of them to train on, and sees 4; d = 3, 4, 2; one row is packed.
    assert allocated(plan, 1) == {
        "halo_rows": 1 * 4 * 4,
        "z1": 3 * 3 * 4,
        "h1": 4 * 4 * 4,  # layer 2 aggregates it, so halo rows lie behind the own ones
        "z2": 3 * 4 * 4,
        "h2": 3 * 2 * 4,
        "g2": 3 * 2 * 4,
        "loss_scratch": 2 * 1 * (2 + 1) * 4,
        "g1": 4 * 4 * 4,
    }


def test_memory_peaks_at_residents_and_all_activations(planned: PlanOf) -> None:
    plan = planned("single")
    sizes, resident = allocated(plan), sum(held(plan).values())
    # In the first epoch the scratch of the loss is given back before g1 is there, which is larger.
    first = resident + sum(sizes.values()) - sizes["loss_scratch"]
    assert plan.peak_bytes(periods=1).tolist() == [first]
    assert plan.peak_bytes().tolist() == [first + sizes["loss_scratch"]]


def test_float64_doubles_what_is_made_of_numbers_and_not_the_topology(planned: PlanOf) -> None:
    single, double = (
        held(planned("single", training={"precision": p})) for p in ("float32", "float64")
    )
    doubled = {name for name in single if double[name] == 2 * single[name] > 0}
    assert doubled == {"x", "scales", "parameters"}
    assert all(double[name] == single[name] for name in single if name not in doubled)


# Rules and knobs


def test_single_refuses_more_than_one_rank(make_run: MakeRun) -> None:
    single = APPROACHES.get("single")
    assert single.cannot_run(make_run("single", 1)) is None
    assert single.cannot_run(make_run("single", 2)) == "single runs on 1 rank, 2 asked"


def test_overlap_and_staging_exclude_each_other(make_run: MakeRun) -> None:
    run = make_run("partition", 2, overlap=True, transport="host_staged")
    [line] = APPROACHES.get("partition").problems(run)
    assert "overlap" in line and "host_staged" in line


def test_staging_takes_rows_through_the_host_on_accelerators_only(
    path_graph: Graph, make_run: MakeRun, plan_of: PlanOf
) -> None:
    run = make_run("partition", 2, transport="host_staged")
    staged, host = (plan_of(path_graph, run, CUT, device=device) for device in ("cuda", "cpu"))
    moved = staged.moved_bytes()
    assert moved["copy", "forward"] == 2 * moved["all_to_all", "forward"]
    assert moved["copy", "backward"] == 2 * moved["all_to_all", "backward"]
    assert not [kind for kind, _ in host.moved_bytes() if kind == "copy"]
    assert "host_staged is native here" in str(host.notes["transport"])


@pytest.mark.parametrize("world", [6, 9])
def test_more_ranks_than_vertices_still_make_a_plan_fg_7(planned: PlanOf, world: int) -> None:
    plan = planned("partition", world, partitioner="hash")
    assert plan.world_size == world


# Profiles


@given(parts=st.integers(2, 300), per_node=st.floats(0, 1), imbalance=st.floats(1, 2))
def test_a_profile_deals_out_its_halo_whole_fg_13_fg_15(
    parts: int, per_node: float, imbalance: float
) -> None:
    point = HaloPoint(
        parts=parts, method="metis-vol", halo_per_node=per_node, halo_imbalance=imbalance
    )
    profile = GraphProfile(
        name="p",
        source="test",
        status="measured",
        num_nodes=1000,
        num_edges=8000,
        num_features=16,
        num_classes=4,
        num_train=100,
        halo=(point,),
    )
    sizes = profile_structure(profile, parts, "metis-vol").sizes
    received = sizes.received
    assert np.all(np.diag(received) == 0)
    assert np.all(received >= 0)
    # Rounding is to whole rows, once per rank and not once per pair.
    assert abs(received.sum() - per_node * 1000) <= parts / 2 + 1
    largest = received.sum(axis=1).max()
    assert abs(largest - imbalance * per_node * 1000 / parts) <= 1
    assert (sizes.rows.sum(), sizes.nonzeros.sum(), sizes.train_rows.sum()) == (1000, 8000, 100)


@pytest.mark.parametrize(
    ("ranks", "counted", "basis"),
    [(8, False, "halo curve of reddit, metis-"), (1, True, "counts of the profile")],
)
def test_a_profiles_plan_says_from_what_it_was_estimated(
    planned: PlanOf, ranks: int, counted: bool, basis: str
) -> None:
    plan = planned("partition", ranks, data=load_profile("reddit"))
    assert plan.counted is counted
    assert plan.basis.startswith(basis)


def test_a_profiles_bytes_follow_the_published_halo_curve(
    make_run: MakeRun, plan_of: PlanOf
) -> None:
    # fullgraph section 15: Reddit's METIS edge cut in 8 parts has S/N = 3.388.
    reddit = load_profile("reddit")
    run = make_run("partition", 8, objective="cut", order="aggregate_first", model={"hidden": 16})
    moved = plan_of(reddit, run).moved_bytes()
    halo = moved["all_to_all", "forward"] + moved["all_to_all", "backward"]
    expected = 4 * 3.388 * reddit.num_nodes * ((602 + 16) + 16)
    assert halo == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("ranks", [2, 1024])
def test_a_profile_gives_the_closed_form_without_layer_1_when_precomputed(
    make_run: MakeRun, plan_of: PlanOf, ranks: int, overlap: bool
) -> None:
    model, profile = {"hidden": 64, "layers": 3}, load_profile("reddit")
    run = make_run("partition", ranks, precompute=True, overlap=overlap, model=model)
    shape = stack_shape(profile, run, "min_width", precompute=True)
    # Widths 64 and 41 above layer 1, both ways; nothing at 602, the features' width.
    assert shape.forward_widths() == shape.backward_widths() == 64 + 41
    plan = plan_of(profile, run)
    moved = sum(size for (kind, _), size in plan.moved_bytes().items() if kind == "all_to_all")
    assert moved == 4 * plan.notes["halo_rows"] * 2 * (64 + 41)


def test_a_graph_and_its_own_profile_predict_nearly_the_same_bytes(
    make_run: MakeRun, plan_of: PlanOf
) -> None:
    graph, run = planted_partition(600, 8, 4, 5, seed=3), make_run("partition", 4)
    known = measure(graph, parts=(4,), methods=("metis-vol",), fanouts=())
    counted, estimated = plan_of(graph, run).moved_bytes(), plan_of(known, run).moved_bytes()
    assert counted.keys() == estimated.keys()
    for key, count in counted.items():
        assert estimated[key] == pytest.approx(count, rel=0.01)


# What the simulator makes of the knobs


@pytest.mark.parametrize(
    ("knob", "slow", "fast"),
    [("overlap", False, True), ("transport", "host_staged", "native")],
)
def test_a_knob_that_hides_or_spares_work_shortens_the_epoch(
    make_run: MakeRun, plan_of: PlanOf, knob: str, slow: Any, fast: Any
) -> None:
    profile, cluster = load_profile("reddit"), load_cluster("dgx-a100")
    found = {}
    for value in (slow, fast):
        run = make_run("partition", 8, model={"hidden": 256, "layers": 3}, **{knob: value})
        found[value] = predict_plan(plan_of(profile, run, device="cuda"), cluster)
        assert max(found[value].lanes.values()) <= 1.0
    assert found[fast].period_s < found[slow].period_s
