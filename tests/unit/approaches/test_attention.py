"""GAT: its card, its widths and steps, and which approaches and knobs can have attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gnnbench.approaches.card import Accepts
from gnnbench.approaches.names import APPROACHES
from gnnbench.data.graph import Graph
from gnnbench.data.halo import halo_entries, with_self_loops
from gnnbench.errors import SpecError
from gnnbench.models.names import MODELS
from gnnbench.plan import Plan
from gnnbench.spec import ModelSpec, RunSpec
from gnnbench.suites import parse_suite

MakeRun = Callable[..., RunSpec]
PlanOf = Callable[..., Plan]
GAT = {"kind": "gat", "heads": 2}


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
    weights = 1433 * 64 + 64 * 7
    expected = weights + 2 * 64 + 2 * 7 + 64 + 7
    assert MODELS.get("gat").num_parameters((1433, 64, 7), (8, 1)) == expected == 92_373


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"kind": "gcn", "heads": 2}, "models.m.heads: found 2, model gcn has no attention"),
        ({"kind": "gat", "hidden": 10, "heads": 4}, "models.m.hidden: found 10, which 4 heads"),
    ],
)
def test_heads_that_do_not_fit_are_problems_of_the_suite(model: dict[str, Any], said: str) -> None:
    table = {
        "datasets": {"g": {"generator": "uniform", "options": {"num_nodes": 9, "mean_degree": 2}}},
        "models": {"m": model},
        "runs": [{"dataset": "g", "model": "m", "approach": "single"}],
    }
    with pytest.raises(SpecError) as caught:
        parse_suite(table, "suite.toml")
    assert any(said in line for line in caught.value.problems)


def test_an_approach_trains_attention_only_if_its_card_says_so(make_run: MakeRun) -> None:
    class Fixed(type(APPROACHES.get("single"))):  # type: ignore[misc]
        name, accepts = "fixed", Accepts()

    run = make_run("single", model=GAT)
    assert APPROACHES.get("single").cannot_run(run) is None
    assert "fixed cannot train gat: it needs fixed edge weights" in Fixed().cannot_run(run)
    assert Fixed().cannot_run(make_run("single")) is None


@pytest.mark.parametrize(
    ("approach", "model", "knobs", "reason"),
    [
        ("single", GAT, {"precompute": True}, "precompute: the edge weights of gat change"),
        ("partition", GAT, {"overlap": True}, "overlap: the softmax of gat"),
        ("partition", {"input_dropout": 0.5}, {"precompute": True}, "input_dropout 0.5"),
        ("partition", {"dropout": 0.5}, {"precompute": True}, None),
        ("sampled", GAT, {}, None),
    ],
)
def test_knobs_that_a_model_cannot_have_are_skips_with_a_reason(
    make_run: MakeRun, approach: str, model: dict[str, Any], knobs: dict[str, Any], reason: str
) -> None:
    found = APPROACHES.get(approach).cannot_run(make_run(approach, model=model, **knobs))
    assert found is None if reason is None else reason in (found or "")


def test_attention_counts_self_loops_and_always_transforms_first(
    planned: PlanOf, path_graph: Graph
) -> None:
    plain, dropped = (planned("single", model={**GAT, "dropout": share}) for share in (0.0, 0.5))
    assert plain.notes["order"] == ("transform_first", "transform_first")
    steps = {step.name: step.work for step in plain.iterations[0][0]}
    entries = path_graph.num_edges + 5
    assert steps["forward/1/sddmm"].nonzeros == entries
    assert (steps["forward/1/sddmm"].width, steps["forward/2/sddmm"].width) == (2, 1)
    assert steps["backward/1/sddmm"].flops == 2 * entries * 4
    added = {step.name for step in dropped.iterations[0][0]} - steps.keys()
    assert added == {f"{way}/{at}/edge_dropout" for way in ("forward", "backward") for at in (1, 2)}


def test_self_loops_come_last_in_their_rows() -> None:
    indptr, indices = with_self_loops(np.array([0, 2, 2, 3]), np.array([1, 4, 0], np.int32))
    assert indptr.tolist() == [0, 3, 4, 6]
    assert indices.tolist() == [1, 4, 0, 1, 0, 2]
    assert indices.dtype == np.int32


def test_entries_with_remote_sources_are_counted_per_destination(path_graph: Graph) -> None:
    """0 - 1 | 2 - 3 | 4, cut between 1 and 2 and between 3 and 4."""
    owner = np.array([0, 0, 1, 1, 2], np.int32)
    assert halo_entries(path_graph, owner, 3).tolist() == [1, 2, 1]
