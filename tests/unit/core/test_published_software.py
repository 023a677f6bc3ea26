"""How released code differs from our plans: bytes, messages and what it precomputes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from published_cases import row

from gnnbench import registry
from gnnbench.approaches.base import Layout
from gnnbench.approaches.whole_graph.rows import stack_shape
from gnnbench.approaches.writing.stack import StackShape
from gnnbench.cluster import load_cluster
from gnnbench.plan import Kind, Phase, Plan
from gnnbench.published.software import NATIVE, as_released, concurrent, direct
from gnnbench.published.systems import Case, case_of


def planned(**given: Any) -> tuple[Plan, Plan, StackShape, Case]:
    """Our plan and the released one of a row on pubmed, four ranks, with a stated halo."""
    notes = given.pop("notes", "")
    case = case_of(row(notes=f"{notes}; METIS vol; halo total 3377", **given))
    assert isinstance(case, Case), case
    approach = registry.approach(case.run.approach)
    structure = approach.structure(case.profile, case.run)
    layout = Layout(world_size=4, ranks_per_host=4, device="cuda")
    plan = approach.plan(case.profile, case.run, structure, layout)
    shape = stack_shape(case.profile, case.run, "aggregate_first")
    return plan, as_released(plan, shape, case.software), shape, case


def words(plan: Plan) -> float:
    """Words that all exchanges of an epoch move per halo copy."""
    (iteration,) = plan.epoch(0)
    moved = sum(s.bytes for steps in iteration for s in steps if s.kind is Kind.ALL_TO_ALL)
    copies = plan.notes["halo_rows"]
    assert isinstance(copies, int)
    return moved / (4 * copies)


def test_released_sage_moves_every_layers_input_once_each_way() -> None:
    """FG-14: Phi = d0 + 2 h and Psi = 2 h words per halo copy, three layers, aggregate-first."""
    _, released, _, _ = planned(notes="use_pp=False")
    assert words(released) == (500 + 2 * 256 + 2 * 256)


def test_precomputation_takes_the_first_layer_out_of_the_exchange() -> None:
    """Fullgraph section 5: 2 (L - 1) h words per halo copy."""
    plan, released, _, _ = planned(notes="use_pp=True")
    assert words(released) == 2 * 2 * 256
    assert words(plan) > words(released)
    names = [step.name for step in released.iterations[0][0]]
    assert "forward/1/spmm" not in names
    assert "forward/2/spmm" in names


def test_released_attention_exchanges_inputs_as_narrow_as_one_head() -> None:
    plan, released, _, _ = planned(model="GAT", hidden="64", notes="heads=2; use_pp=True")
    assert words(released) == 2 * 2 * 64
    assert words(plan) == 2 * (128 + 128 + 3)


def test_released_attention_without_precomputation_sends_features_but_no_gradients_of_them() -> (
    None
):
    _, released, _, _ = planned(model="GAT", hidden="64", notes="heads=2; use_pp=False")
    assert words(released) == (500 + 2 * 2 * 64)


def test_averaged_heads_make_the_next_product_narrow_inside_and_take_halo_rows() -> None:
    _, released, _, case = planned(model="GAT", hidden="64", notes="heads=2")
    steps = {step.name: step for step in released.iterations[0][0]}
    product = steps["forward/2/gemm"]
    sources = steps["forward/2/sddmm"].source_rows
    assert (product.rows, product.inner, product.width) == (sources, 64, 128)
    assert sources > -(-case.profile.num_nodes // 4)
    assert product.flops == 2 * sources * 64 * 128


def test_one_message_per_parameter_tensor_adds_up_to_all_parameters() -> None:
    """Fullgraph 16.4: sage has two weights and a bias with each, LayerNorm two vectors."""
    plan, released, shape, _ = planned()
    sizes = [s.rows for s in released.iterations[0][0] if s.kind is Kind.ALL_REDUCE]
    assert len(sizes) == 3 * 4 + 2 * 2
    assert sum(sizes) == shape.num_parameters + sum(shape.dims[1:]) + 2 * 2 * 256
    assert sum(s.kind is Kind.ALL_REDUCE for s in plan.iterations[0][0]) == 1


def test_layer_norm_is_left_out_where_the_row_says_so() -> None:
    def norms(notes: str) -> int:
        steps = planned(notes=notes)[1].iterations[0][0]
        return sum(step.op == "layer_norm" for step in steps)

    assert norms("norm none") == 0
    assert norms("") == 4


def test_a_released_plan_is_sound_and_waits_for_nothing_that_is_gone(
    subtests_of: Callable[[], list[dict[str, Any]]],
) -> None:
    for given in subtests_of():
        _, released, _, _ = planned(**given)
        released.validate()
        for steps in released.iterations[0]:
            names = [step.name for step in steps]
            assert len(names) == len(set(names))
            assert all(after.step in names for step in steps for after in step.after)


@pytest.fixture
def subtests_of() -> Callable[[], list[dict[str, Any]]]:
    """Configurations whose plans differ in kind."""
    return lambda: (
        [
            {"system": system, "model": model, "notes": notes}
            for system in ("Vanilla", "PipeGCN", "BNS-GCN (p=0.1)")
            for model in ("GraphSAGE", "GCN")
            for notes in ("use_pp=True", "use_pp=False")
        ]
        + [{"model": "GAT", "notes": "heads=2"}]
    )


def test_a_plan_of_other_software_stays_as_it_is() -> None:
    plan, _, shape, _ = planned()
    assert as_released(plan, shape, NATIVE) is plan


def test_background_transfers_are_faster_together_but_not_than_the_host_link() -> None:
    """Fullgraph 16.2: gloo_async is not gloo_sync."""
    plan, released, _, _ = planned(system="PipeGCN")
    cluster = load_cluster("m40x4-gloo")
    found = concurrent(cluster, released, 4)
    link, host = cluster.links.intra.bytes_per_s.value, cluster.links.host
    assert host is not None
    chain = 1 / (1 / link + 2 / host.bytes_per_s.value)
    assert found.links.intra.bytes_per_s.value == pytest.approx(3 * chain)
    assert found.transport == "gloo"
    crowded = concurrent(cluster, released, 12)
    assert crowded.links.intra.bytes_per_s.value == pytest.approx(chain)
    assert plan.iterations[0][0][-1].phase is Phase.UPDATE


def test_a_fitted_cluster_is_not_made_faster() -> None:
    _, released, _, _ = planned(system="PipeGCN")
    cluster = load_cluster("m40x4-gloo-logged")
    assert concurrent(cluster, released, 4) is cluster


def batched(**given: Any) -> tuple[Plan, Plan]:
    """Our mini-batch plan and DGL's, of two ranks on ogbn-products."""
    cells = {"system": "DGL", "dataset": "ogbn-products", "layers": "2", "gpus": "2"}
    case = case_of(row(**(cells | {"fanout": "5-10", "batch": "1024/GPU"} | given)))
    assert isinstance(case, Case), case
    approach = registry.approach(case.run.approach)
    structure = approach.structure(case.profile, case.run)
    layout = Layout(world_size=2, ranks_per_host=2, device="cuda")
    plan = approach.plan(case.profile, case.run, structure, layout)
    shape = stack_shape(case.profile, case.run, "aggregate_first")
    assert case.run.knobs["batch_size"] == 2048
    return plan, as_released(plan, shape, case.software)


def test_mini_batches_read_every_input_row_over_the_host_link() -> None:
    plan, released = batched()
    steps = {step.name: step for step in released.iterations[0][0]}
    (gather,) = [s for s in plan.iterations[0][0] if s.name == "fetch/gather"]
    assert steps["fetch/gather_host"].bytes == gather.rows * 100 * 4
    released.validate()


def test_mini_batches_reduce_their_gradients_in_one_message_not_through_gloo() -> None:
    _, released = batched()
    assert sum(s.kind is Kind.ALL_REDUCE for s in released.iterations[0][0]) == 1
    cluster = load_cluster("m40x4-gloo")
    assert direct(cluster).links.intra == cluster.links.host
    assert direct(load_cluster("t4-15gbps")).transport == "nccl"
