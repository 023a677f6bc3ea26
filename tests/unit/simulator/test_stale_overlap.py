"""PipeGCN predicted: an epoch takes the longer of computing and communicating, not their sum."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gnnbench.approaches.base import Layout
from gnnbench.approaches.names import APPROACHES
from gnnbench.cluster import CollectiveModel, OpModel
from gnnbench.data.profile import GraphProfile, HaloPoint
from gnnbench.plan import Plan
from gnnbench.spec import DatasetRef, ModelSpec, RunSpec, TrainingSpec
from gnnbench.steps import COMMUNICATION, Kind, Lane
from gnnbench_simulator.predict import predict_plan

EPOCHS = 12


def plan_of(approach: str, **knobs: Any) -> Plan:
    profile = GraphProfile(
        name="p",
        source="test",
        status="measured",
        num_nodes=40_000,
        num_edges=400_000,
        num_train=4000,
        num_features=64,
        num_classes=16,
        degree_values=(10.0,),
        degree_counts=(40_000,),
        halo=(HaloPoint(parts=4, method="metis-vol", halo_per_node=0.8, cut_fraction=0.4),),
    )
    card = APPROACHES.get(approach)
    run = RunSpec(
        suite="test",
        dataset=DatasetRef(name="g", generator="uniform", kind="graph"),
        model=ModelSpec(name="m", kind="gcn", hidden=32, layers=3),
        training=TrainingSpec(epochs=EPOCHS),
        approach=approach,
        ranks=4,
        knobs=knobs,
    )
    structure = card.structure(profile, run)
    return card.plan(profile, run, structure, Layout(world_size=4, ranks_per_host=4))


def cluster_of(kit: Any, plan: Plan, bytes_per_s: float) -> Any:
    """Local steps of a plan at 10 GB/s whatever they are; collectives at a rate, no latency."""
    steps = [step for steps in plan.iterations[0] for step in steps]
    kinds = {step.op: step.kind for step in steps if step.kind not in COMMUNICATION}
    local = [
        OpModel(op=op, kind=kind, form="linear", params={"s_per_byte": 1e-10}, points=1)
        for op, kind in sorted(kinds.items())
    ]
    remote = [
        CollectiveModel(op=op, ranks=4, layout="intra", latency_s=0.0, bytes_per_s=bytes_per_s)
        for op in ("all_reduce", "all_to_all")
    ]
    return kit.cluster(ops=tuple(local), collectives=tuple(remote))


def seconds(kit: Any, plan: Plan, bytes_per_s: float) -> tuple[float, float, float]:
    """Predicted epoch; and the busiest rank's local work and halo transfers, each by itself."""
    epoch = predict_plan(plan, cluster_of(kit, plan, bytes_per_s))
    free = predict_plan(plan, cluster_of(kit, plan, 1e30))
    moved = max(
        sum(s.work.buffer_bytes for s in steps if s.kind is Kind.ALL_TO_ALL)
        for steps in plan.iterations[0]
    )
    return epoch.period_s, free.period_s, moved / bytes_per_s


@pytest.mark.parametrize("share", [0.05, 0.5, 1.0, 2.0, 20.0])
def test_an_epoch_is_max_like_and_vanilla_is_a_sum(kit: Any, share: float) -> None:
    """Halo transfers of `share` times the computation; both lie where the reference puts them."""
    stale, vanilla = plan_of("pipegcn"), plan_of("partition")
    _, compute, at_one = seconds(kit, vanilla, 1.0)
    rate = at_one / (share * compute)
    sync = seconds(kit, vanilla, rate)
    late = seconds(kit, stale, rate)
    reduce_s = (
        max(s.work.buffer_bytes for s in stale.iterations[0][0] if s.kind is Kind.ALL_REDUCE) / rate
    )
    assert sync[0] >= sync[1] + 0.95 * sync[2]
    assert late[0] >= 0.999 * max(late[1], late[2])
    assert late[0] <= 1.05 * max(late[1], late[2]) + reduce_s
    if share >= 0.5:
        assert late[0] < sync[0]


def test_transfers_run_while_the_rank_computes(kit: Any) -> None:
    """In the ledger itself: background spans overlap computing ones, and never each other."""
    stale = plan_of("pipegcn")
    _, compute, at_one = seconds(kit, stale, 1.0)
    p = predict_plan(stale, cluster_of(kit, stale, at_one / (0.5 * compute)))
    rows = p.ledgers[p.slowest_rank]
    spans = {
        lane: sorted((r.start_s, r.start_s + r.duration_s) for r in rows if r.lane == lane)
        for lane in (Lane.BACKGROUND, Lane.COMPUTE)
    }
    for (_, end), (start, _) in zip(
        spans[Lane.BACKGROUND], spans[Lane.BACKGROUND][1:], strict=False
    ):
        assert start >= end - 1e-9
    hidden = sum(
        max(0.0, min(b, d) - max(a, c))
        for a, b in spans[Lane.BACKGROUND]
        for c, d in spans[Lane.COMPUTE]
    )
    moved = sum(b - a for a, b in spans[Lane.BACKGROUND])
    assert hidden > 0.8 * moved


def test_prediction_of_boundary_sampling_falls_with_the_rate(kit: Any) -> None:
    """Fewer rows, fewer entries: at a slow network, and rate 1 is no faster than vanilla."""

    def predicted(plan: Plan) -> float:
        return predict_plan(plan, cluster_of(kit, plan, 1e8)).period_s

    times = [predicted(plan_of("bns", rate=rate)) for rate in (0.0, 0.01, 0.1, 1.0)]
    assert times == sorted(times)
    assert times[-1] >= predicted(plan_of("partition"))
    assert times[0] < 0.2 * times[-1]
    assert np.isfinite(times).all()
