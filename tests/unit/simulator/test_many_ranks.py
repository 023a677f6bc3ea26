"""Every approach predicted at 1,024 ranks from a profile, whole and by the replay."""

from __future__ import annotations

import pytest

from gnnbench.approaches.base import Layout
from gnnbench.approaches.names import APPROACHES
from gnnbench.cluster import load_cluster
from gnnbench.data.profile import load_profile
from gnnbench.plan import Plan
from gnnbench.spec import DatasetRef, ModelSpec, RunSpec, TrainingSpec
from gnnbench.steps import Space
from gnnbench_simulator.predict import predict_plan

RANKS = 1024


def run_of(approach: str) -> RunSpec:
    return RunSpec(
        suite="test",
        dataset=DatasetRef(name="g", profile="ogbn-products", kind="graph"),
        model=ModelSpec(name="m", kind="gcn", hidden=64, layers=2),
        training=TrainingSpec(epochs=3),
        approach=approach,
        ranks=RANKS,
    )


def planned(approach: str) -> Plan:
    profile, card, run = load_profile("ogbn-products"), APPROACHES.get(approach), run_of(approach)
    reason = card.cannot_run(run, profile)
    if reason:
        pytest.skip(reason)
    layout = Layout(world_size=RANKS, ranks_per_host=8, device="cuda")
    return card.plan(profile, run, card.structure(profile, run), layout)


@pytest.mark.slow
@pytest.mark.parametrize("approach", APPROACHES.names())
def test_every_rank_of_a_thousand_is_predicted(approach: str) -> None:
    plan = planned(approach)
    found = predict_plan(plan, load_cluster("dgx-a100"), periods=2)
    assert found.method == "replay"
    assert 0 < found.low_s <= found.period_s <= found.high_s
    assert [entry["rank"] for entry in found.memory] == list(range(RANKS))
    held = [entry["workload_bytes"] for entry in found.memory]
    assert held == plan.peak_bytes(Space.DEVICE, periods=2).tolist()
    moved = {f"{kind}/{phase}": size for (kind, phase), size in plan.moved_bytes(0).items()}
    assert found.bytes[0] == moved
    assert sum(moved.values()) > 0
