"""Predictions at 1,024 ranks: whole, by the replay, and without looking at every stage."""

from __future__ import annotations

from typing import Any

import pytest

from gnnbench.approaches.base import Layout
from gnnbench.approaches.names import APPROACHES
from gnnbench.cluster import load_cluster
from gnnbench.data.profile import load_profile
from gnnbench.plan import Plan
from gnnbench.spec import GraphRef, ModelSpec, RunSpec, TrainingSpec
from gnnbench_simulator import replay as module
from gnnbench_simulator.predict import predict_plan
from gnnbench_simulator.program import compile_plan
from gnnbench_simulator.replay import replay

RANKS = 1024


def planned(approach: str, ranks: int = RANKS) -> Plan:
    graph, card = load_profile("ogbn-products"), APPROACHES.get(approach)
    run = RunSpec(
        suite="test", graph=GraphRef(name="g", profile="ogbn-products"),
        model=ModelSpec(name="m", kind="gcn", hidden=64, layers=2),
        training=TrainingSpec(periods=3), approach=approach, ranks=ranks,
    )  # fmt: skip
    layout = Layout(world_size=ranks, ranks_per_host=8, device="cuda")
    return card.plan(graph, run, card.structure(graph, run), layout)


@pytest.mark.slow
@pytest.mark.parametrize("approach", ["partition", "mixture", "cagnet-1d", "cagnet-2d"])
def test_every_rank_of_a_thousand_is_predicted(approach: str) -> None:
    plan = planned(approach)
    found = predict_plan(plan, load_cluster("dgx-a100"), periods=2)
    assert found.method == "replay"
    assert 0 < found.low_s <= found.period_s <= found.high_s
    assert [entry["rank"] for entry in found.memory] == list(range(RANKS))
    assert all(entry["peak_bytes"] >= sum(plan.resident[0].values()) // 2 for entry in found.memory)
    assert {kind for kind, _ in plan.sent_bytes()} == {k.split("/")[0] for k in found.bytes[0]}
    assert sum(found.bytes[0].values()) == sum(plan.sent_bytes().values()) > 0


def test_stages_told_as_repeats_are_not_replayed_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """cagnet-1d on 256 ranks: 255 like stages in each of several products per epoch."""
    plan = planned("cagnet-1d", 256)
    assert plan.iterations_per_period > 3 * 256
    calls: list[int] = []
    real = module._Replay._iterate

    def iterate(self: Any, prepared: Any, number: int) -> None:
        calls.append(number)
        real(self, prepared, number)

    program = compile_plan(plan, load_cluster("dgx-a100"))
    monkeypatch.setattr(module._Replay, "_iterate", iterate)
    quick = replay(program).period_s
    assert len(calls) < 0.1 * len(plan.schedule)
    monkeypatch.setattr(module, "_WORTH", 10**9)
    assert quick.tolist() == pytest.approx(replay(program).period_s.tolist(), rel=1e-10)
    assert len(calls) > len(plan.schedule)
