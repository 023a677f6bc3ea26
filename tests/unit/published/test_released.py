"""The rewrite of our plans to released code: bytes, messages, precomputation, launches."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from published_cases import Planned, mini_batch, on_pubmed

from gnnbench import work
from gnnbench.iterations import Iteration, RankClass
from gnnbench.plan import Plan
from gnnbench.published.released import EAGER, OPTIMIZER_LAUNCHES, UNFUSED, as_released, tensors
from gnnbench.published.software import NATIVE
from gnnbench.steps import Kind, Phase, Step

SYSTEMS = ("Vanilla", "PipeGCN", "BNS-GCN (p=0.1)")
CONFIGURATIONS: list[dict[str, Any]] = [
    *(
        {"system": system, "model": model, "notes": notes}
        for system in SYSTEMS
        for model in ("GraphSAGE", "GCN")
        for notes in ("use_pp=True", "use_pp=False")
    ),
    *({"system": system, "model": "GAT", "notes": "heads=2"} for system in SYSTEMS),
]
EVERY_CONFIGURATION = pytest.mark.parametrize(
    "given", CONFIGURATIONS, ids=[" ".join(given.values()) for given in CONFIGURATIONS]
)


def words(plan: Plan) -> float:
    """Words that all exchanges of an epoch move per halo copy."""
    (iteration,) = plan.of_period(0)
    moved = sum(s.bytes for steps in iteration for s in steps if s.kind is Kind.ALL_TO_ALL)
    copies = plan.notes["halo_rows"]
    assert isinstance(copies, int)
    return moved / (4 * copies)


def by_name(plan: Plan, rank: int = 0) -> dict[str, Step]:
    return {step.name: step for step in plan.iterations[0][rank]}


# What travels


def test_released_sage_moves_every_layers_input_once_each_way() -> None:
    """FG-14: Phi = d0 + 2 h and Psi = 2 h words per halo copy, three layers, aggregate-first."""
    assert words(on_pubmed(notes="use_pp=False").released) == (500 + 2 * 256 + 2 * 256)


def test_precomputation_takes_the_first_layer_out_of_the_exchange() -> None:
    """Fullgraph section 5: 2 (L - 1) h words per halo copy."""
    ours, released, _, _ = on_pubmed(notes="use_pp=True")
    assert words(released) == 2 * 2 * 256
    assert words(ours) > words(released)
    assert "forward/1/spmm" not in by_name(released)
    assert "forward/2/spmm" in by_name(released)


def test_released_attention_exchanges_inputs_as_narrow_as_one_head() -> None:
    ours, released, _, _ = on_pubmed(model="GAT", hidden="64", notes="heads=2; use_pp=True")
    assert words(released) == 2 * 2 * 64
    assert words(ours) == 2 * (128 + 128 + 3)


def test_without_precomputation_attention_sends_features_but_no_gradients_of_them() -> None:
    plans = on_pubmed(model="GAT", hidden="64", notes="heads=2; use_pp=False")
    assert words(plans.released) == (500 + 2 * 2 * 64)


def test_rows_that_are_placed_without_ids_are_so_at_another_width() -> None:
    """PipeGCN copies arrivals behind the own rows: no id is read, whatever the width."""
    plans = on_pubmed(system="PipeGCN", model="GAT", hidden="64", notes="heads=2")
    placed, packed = (by_name(plans.released)[f"forward/2/{name}"] for name in ("place", "pack"))
    assert placed.bytes == 2 * placed.work.rows * 64 * 4
    assert packed.bytes == packed.work.rows * (8 + 2 * 64 * 4)


# What is computed


def test_averaged_heads_make_the_next_product_narrow_and_take_halo_rows() -> None:
    _, released, _, case = on_pubmed(model="GAT", hidden="64", notes="heads=2")
    steps = by_name(released)
    sources = steps["forward/2/sddmm"].work.source_rows
    assert steps["forward/2/gemm"].work == work.gemm("gemm_nn", sources, 64, 128, 4)
    assert steps["backward/2/weight"].work == work.gemm("gemm_tn", 64, sources, 128, 4)
    assert steps["backward/2/input"].work == work.gemm("gemm_nt", sources, 128, 64, 4)
    assert sources > -(-case.profile.num_nodes // 4)


@EVERY_CONFIGURATION
def test_what_the_software_does_as_we_do_keeps_its_bytes(given: dict[str, Any]) -> None:
    """The rewrite drops steps or adds them; those that stay move and compute the same.

    Exceptions: what goes through parameter tensors, which differ; of attention, products and
    exchanges, which have the width of one head; and what a framework does in several passes.
    """
    ours, released, shape, _ = on_pubmed(**given)
    differ = {Kind.OPTIMIZER, Kind.ALL_REDUCE}
    if shape.model.attention:
        differ |= {Kind.GEMM, Kind.ALL_TO_ALL, Kind.GATHER, Kind.SCATTER}
    for rank in range(4):
        before, after = by_name(ours, rank), by_name(released, rank)
        same = [
            name
            for name in before
            if name in after
            and before[name].kind not in differ
            and after[name].op not in ("rebuild_graph", *UNFUSED)
        ]
        assert len(same) > 8
        for name in same:
            expected = replace(before[name], after=after[name].after)
            assert plain(after[name]) == plain(expected)
        order = [name for name in after if name in before]
        assert order == [name for name in before if name in after]


def test_without_precomputation_convolutions_exchange_what_we_plan() -> None:
    for system in SYSTEMS[:2]:
        ours, released, _, _ = on_pubmed(system=system, notes="use_pp=False")
        for phase in ("forward", "backward"):
            key = "all_to_all", phase
            assert released.moved_bytes()[key] == ours.moved_bytes()[key] > 0


def test_the_graph_of_bns_is_rebuilt_in_every_epoch_from_all_of_its_edges() -> None:
    """Two radix sorts, 8 passes each, that read and write 16 bytes per edge."""
    ours, released, _, _ = on_pubmed(system="BNS-GCN (p=0.1)")
    planned, rebuilt = by_name(ours)["sample/rebuild"], by_name(released)["sample/rebuild"]
    assert rebuilt.bytes == 512 * planned.work.nonzeros
    assert [after.step for after in rebuilt.after] == [after.step for after in planned.after]
    alone = on_pubmed(system="BNS-GCN (p=0.1)", gpus="1")
    assert "sample/rebuild" not in by_name(alone.ours)
    assert by_name(alone.released)["sample/rebuild"].bytes == 512 * alone.case.profile.num_edges


def test_hidden_layers_are_normalised_unless_the_row_says_otherwise() -> None:
    def norms(notes: str) -> int:
        steps = on_pubmed(notes=notes).released.iterations[0][0]
        return sum(step.op.startswith("layer_norm") for step in steps)

    assert norms("norm none") == 0
    assert norms("") == 4


# Parameters


def test_one_message_per_parameter_tensor_adds_up_to_all_parameters() -> None:
    """Fullgraph 16.4: sage has two weights and a bias with each, LayerNorm two vectors."""
    ours, released, shape, _ = on_pubmed()
    messages = [s for s in released.iterations[0][0] if s.kind is Kind.ALL_REDUCE]
    assert len(messages) == 3 * 4 + 2 * 2
    # Ours has one bias per layer, and sends the loss as one more element.
    assert sum(s.work.rows for s in messages) == shape.num_parameters + sum(shape.dims[1:])
    (reduced,) = [s for s in ours.iterations[0][0] if s.kind is Kind.ALL_REDUCE]
    assert reduced.work.rows == shape.num_parameters + 1
    assert sum(s.bytes for s in messages) == sum(
        work.all_reduce_bytes(4 * elements, 4) for elements in tensors(shape)
    )


def test_parameters_of_norms_travel_only_where_there_are_norms() -> None:
    def messages(notes: str) -> int:
        steps = on_pubmed(notes=notes).released.iterations[0][0]
        return sum(step.kind is Kind.ALL_REDUCE for step in steps)

    assert messages("") - messages("norm none") == 2 * 2


@pytest.mark.parametrize("model", ["GraphSAGE", "GCN", "GAT"])
def test_the_optimizer_updates_the_parameters_that_were_reduced(model: str) -> None:
    steps = on_pubmed(model=model, hidden="64", notes="heads=2").released.iterations[0][0]
    reduced = [step.work.rows for step in steps if step.kind is Kind.ALL_REDUCE]
    (update,) = [step for step in steps if step.kind is Kind.OPTIMIZER]
    assert update.work == work.adam(sum(reduced), 4)
    (launches,) = [s for s in steps if s.op == "eager" and s.phase is Phase.UPDATE]
    assert launches.work.calls == OPTIMIZER_LAUNCHES * len(reduced)


# Launches


def test_every_layer_issues_its_operations_once_each_way() -> None:
    steps = on_pubmed(layers="3").released.iterations[0][0]
    for phase, count in ((Phase.FORWARD, EAGER), (Phase.BACKWARD, 2 * EAGER)):
        issued = [s for s in steps if s.op == "eager" and s.phase is phase]
        assert sorted(s.layer for s in issued) == [1, 2, 3]
        assert {s.work.calls for s in issued} == {count}
        assert not any(s.bytes or s.flops for s in issued)


def test_a_framework_makes_several_passes_of_what_we_do_in_one() -> None:
    ours, released, _, _ = on_pubmed(model="GAT", hidden="64", notes="heads=2")
    before, after = by_name(ours), by_name(released)
    several = {name: UNFUSED[step.op] for name, step in before.items() if step.op in UNFUSED}
    assert {before[name].op for name in several} >= {"attention_scores"}
    for name, times in several.items():
        assert after[name].bytes == times * before[name].bytes
        assert after[name].work.calls == before[name].work.calls


# Mini-batches


def test_mini_batches_reduce_their_gradients_in_one_message() -> None:
    steps = mini_batch().released.iterations[0][0]
    assert sum(step.kind is Kind.ALL_REDUCE for step in steps) == 1


# The rewritten plan as a plan


@EVERY_CONFIGURATION
def test_a_released_plan_is_sound_and_waits_for_nothing_that_was_dropped(
    given: dict[str, Any],
) -> None:
    released = on_pubmed(**given).released
    released.validate()
    for steps in released.iterations[0]:
        names = [step.name for step in steps]
        assert len(names) == len(set(names))
        assert all(after.step in names for step in steps for after in step.after)


@pytest.mark.parametrize(
    "plans",
    [
        pytest.param(lambda: on_pubmed(notes="use_pp=False"), id="partition"),
        pytest.param(lambda: on_pubmed(system="BNS-GCN (p=0.5)"), id="bns"),
        pytest.param(lambda: on_pubmed(system="PipeGCN", model="GAT"), id="pipegcn"),
        pytest.param(mini_batch, id="mini-batch"),
    ],
)
def test_a_class_of_ranks_is_rewritten_as_each_of_its_ranks_alone(plans: Any) -> None:
    ours, released, shape, case = plans()
    assert all(len(of) == ours.world_size for of in ours.iterations[0].classes)
    apart = replace(
        ours,
        iterations=[
            Iteration([RankClass([rank], iteration[rank]) for rank in range(ours.world_size)])
            for iteration in ours.iterations
        ],
    )
    alone = as_released(apart, shape, case.software)
    for together, by_rank in zip(released.iterations, alone.iterations, strict=True):
        for rank in range(ours.world_size):
            for step, other in zip(together[rank], by_rank[rank], strict=True):
                assert plain(step) == plain(other)


def plain(step: Step) -> Step:
    """The step with what it sends as a tuple, so that steps compare."""
    sent = step.work.send
    if sent is None:
        return step
    return replace(step, work=step.work._replace(send=tuple(np.asarray(sent).tolist())))


def test_a_plan_of_native_software_stays_as_it_is() -> None:
    plans: Planned = on_pubmed()
    assert as_released(plans.ours, plans.shape, NATIVE) is plans.ours
