"""GAT's card, widths, volumes and refusals; partition's knobs in plans and in the simulator."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from gnnbench.approaches.base import Layout
from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.writing.shape import stack_shape
from gnnbench.data.generators import uniform
from gnnbench.data.halo import halo_entries, with_self_loops
from gnnbench.data.profile import load_profile
from gnnbench.errors import SpecError
from gnnbench.models.names import MODELS
from gnnbench.spec import ModelSpec, RunSpec, parse_suite
from gnnbench.steps import Kind, Lane


def gat(run: RunSpec, *, heads: int = 2, **model: Any) -> RunSpec:
    return dataclasses.replace(
        run, model=dataclasses.replace(run.model, kind="gat", heads=heads, **model)
    )


def layout(ranks: int, device: str = "cpu") -> Layout:
    return Layout(world_size=ranks, ranks_per_host=ranks, device=device)


def test_hidden_layers_share_their_width_and_the_last_has_one_head() -> None:
    card, spec = MODELS.get("gat"), ModelSpec(kind="gat", hidden=64, layers=3, heads=8)
    assert card.heads(spec) == (8, 8, 1)
    assert card.parameters((10, 64, 7), (8, 1)) == [
        ("weight_1", (10, 64)),
        ("attention_destination_1", (8, 8)),
        ("attention_source_1", (8, 8)),
        ("bias_1", (64,)),
        ("weight_2", (64, 7)),
        ("attention_destination_2", (1, 7)),
        ("attention_source_2", (1, 7)),
        ("bias_2", (7,)),
    ]


def test_cora_s_network_has_the_parameters_of_the_paper() -> None:
    """1433 features, 8 heads of 8, 7 classes: 92,373 with both biases (64 and 7)."""
    card = MODELS.get("gat")
    weights = 1433 * 64 + 64 * 7
    assert card.num_parameters((1433, 64, 7), (8, 1)) == weights + 2 * 64 + 2 * 7 + 64 + 7 == 92_373


def suite_with(model: dict[str, Any]) -> None:
    parse_suite(
        {
            "graphs": {
                "g": {"generator": "uniform", "options": {"num_nodes": 9, "mean_degree": 2}}
            },
            "models": {"m": model},
            "runs": [{"graph": "g", "model": "m", "approach": "single"}],
        },
        "suite.toml",
    )


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"kind": "gcn", "heads": 2}, "models.m.heads: found 2, model gcn has no attention"),
        ({"kind": "gat", "hidden": 10, "heads": 4}, "models.m.hidden: found 10, which 4 heads"),
    ],
)
def test_heads_that_do_not_fit_are_told_with_the_suite(model: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError) as caught:
        suite_with(model)
    assert any(said in line for line in caught.value.problems)


def test_an_approach_runs_attention_only_if_its_card_says_so(make_run) -> None:
    class Fixed(type(APPROACHES.get("single"))):  # type: ignore[misc]
        name, attention = "fixed", False

    run = gat(make_run("single"))
    assert APPROACHES.get("single").cannot_run(run) is None
    assert APPROACHES.get("sampled").cannot_run(gat(make_run("sampled"))) is None
    assert "fixed cannot train gat: it sums up with fixed weights" in Fixed().cannot_run(run)
    assert Fixed().cannot_run(make_run("single")) is None


def test_knobs_that_a_model_cannot_have_are_skips_with_a_reason(make_run) -> None:
    single, partition = APPROACHES.get("single"), APPROACHES.get("partition")
    assert "precompute: the weights" in single.cannot_run(gat(make_run("single", precompute=True)))
    assert "softmax" in partition.cannot_run(gat(make_run("partition", 2, overlap=True)))
    dropped = make_run("partition", 2, precompute=True, input_dropout=0.5)
    assert "input_dropout 0.5" in partition.cannot_run(dropped)
    assert partition.cannot_run(make_run("partition", 2, precompute=True, dropout=0.5)) is None


def test_overlap_and_staging_exclude_each_other(make_run) -> None:
    run = make_run("partition", 2, overlap=True, transport="host_staged")
    [line] = APPROACHES.get("partition").problems(run)
    assert "overlap" in line and "host_staged" in line


def test_attention_counts_self_loops_and_always_transforms_first(make_run, path_graph) -> None:
    run = gat(make_run("single", hidden=4), heads=2)
    single = APPROACHES.get("single")
    plan = single.plan(path_graph, run, single.structure(path_graph, run), layout(1))
    plan.validate()
    assert plan.notes["order"] == ("transform_first", "transform_first")
    steps = {step.name: step for step in plan.iterations[0][0]}
    assert steps["forward/1/sddmm"].nonzeros == path_graph.num_edges + 5
    assert steps["forward/1/sddmm"].width == 2 and steps["forward/2/sddmm"].width == 1
    assert steps["backward/1/sddmm"].flops == 2 * (path_graph.num_edges + 5) * 4
    assert "forward/1/edge_dropout" not in steps
    run = gat(make_run("single", hidden=4, dropout=0.5), heads=2)
    plan = single.plan(path_graph, run, single.structure(path_graph, run), layout(1))
    assert {"forward/1/edge_dropout", "backward/2/edge_dropout"} <= {
        step.name for step in plan.iterations[0][0]
    }


def test_self_loops_come_last_in_their_rows() -> None:
    indptr, indices = with_self_loops(np.array([0, 2, 2, 3]), np.array([1, 4, 0], np.int32))
    assert indptr.tolist() == [0, 3, 4, 6]
    assert indices.tolist() == [1, 4, 0, 1, 0, 2]
    assert indices.dtype == np.int32


def test_entries_with_remote_sources_are_counted_per_destination(path_graph) -> None:
    """0 - 1 | 2 - 3 | 4, cut between 1 and 2 and between 3 and 4."""
    owner = np.array([0, 0, 1, 1, 2], np.int32)
    assert halo_entries(path_graph, owner, 3).tolist() == [1, 2, 1]


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("ranks", [2, 64, 1024])
def test_profiles_give_plans_with_the_closed_form_volume(
    make_run, ranks: int, overlap: bool
) -> None:
    """FG-14 on reddit's profile with precomputation, to 1024 ranks."""
    profile, partition = load_profile("reddit"), APPROACHES.get("partition")
    run = make_run("partition", ranks, precompute=True, overlap=overlap, hidden=64, layers=3)
    structure = partition.structure(profile, run)
    plan = partition.plan(profile, run, structure, layout(ranks))
    shape = stack_shape(profile, run, "min_width", precompute=True)
    # Widths 64 and 41 above layer 1, both ways; nothing at 602, the features' width.
    assert shape.forward_widths() == shape.backward_widths() == 64 + 41
    copies = sum(size.halo_rows for size in structure.sizes)
    moved = sum(b for (kind, _), b in plan.sent_bytes().items() if kind == Kind.ALL_TO_ALL)
    assert moved == 4 * copies * 2 * (64 + 41)


def test_the_simulator_hides_the_exchange_behind_the_own_rows(make_run) -> None:
    """With overlap an epoch takes less than the serial order; no lane is busier than it lasts."""
    from gnnbench.cluster import load_cluster
    from gnnbench_simulator.predict import predict_plan

    profile, partition = load_profile("reddit"), APPROACHES.get("partition")
    cluster, epochs = load_cluster("dgx-a100"), {}
    for overlap in (False, True):
        run = make_run("partition", 8, overlap=overlap, hidden=256, layers=3)
        plan = partition.plan(profile, run, partition.structure(profile, run), layout(8, "cuda"))
        prediction = predict_plan(plan, cluster)
        epochs[overlap] = prediction.epoch_s
        if overlap:
            lanes = {step.lane for step in plan.iterations[0][0] if step.kind is Kind.ALL_TO_ALL}
            assert lanes == {Lane.BACKGROUND}
            assert max(prediction.lanes.values()) <= 1.0
    assert epochs[True] < epochs[False]


def test_staging_costs_time_on_an_accelerator(make_run) -> None:
    from gnnbench.cluster import load_cluster
    from gnnbench_simulator.predict import predict_plan

    graph, partition = (
        uniform(400, 8.0, num_features=16, num_classes=4),
        APPROACHES.get("partition"),
    )
    times = {}
    for transport in ("native", "host_staged"):
        run = make_run("partition", 2, transport=transport, partitioner="chunk")
        plan = partition.plan(graph, run, partition.structure(graph, run), layout(2, "cuda"))
        plan.validate()
        times[transport] = predict_plan(plan, load_cluster("dgx-a100")).epoch_s
    assert times["host_staged"] > times["native"]
