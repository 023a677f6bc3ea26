"""The plan of `mixed-accelerators`: volumes, rank rule, overlap in the simulator."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from gnnbench import registry
from gnnbench.approaches.base import Layout
from gnnbench.approaches.fullgraph import stack_shape
from gnnbench.approaches.mixed_accelerators import exchanged_bytes
from gnnbench.cluster import load_cluster
from gnnbench.graph.profile import load_profile
from gnnbench.plan import Kind, Lane, Plan
from gnnbench.spec import GraphRef, ModelSpec, RunSpec, TrainingSpec
from gnnbench_simulator.engine import simulate
from gnnbench_simulator.program import compile_plan

APPROACH = registry.approach("mixed-accelerators")
PROFILE = load_profile("ogbn-arxiv")


def make_run(ranks: int, kind: str = "gcn", dropout: float = 0.0, **knobs: Any) -> RunSpec:
    return RunSpec(
        suite="test",
        graph=GraphRef(name="arxiv", profile="ogbn-arxiv"),
        model=ModelSpec(name="m", kind=kind, hidden=256, layers=3, input_dropout=dropout),
        training=TrainingSpec(epochs=2),
        approach="mixed-accelerators",
        ranks=ranks,
        knobs=dataclasses.asdict(APPROACH.knobs_type(**knobs)),
    )


def plan_of(run: RunSpec) -> Plan:
    structure = APPROACH.structure(PROFILE, run)
    plan = APPROACH.plan(
        PROFILE, run, structure, Layout(world_size=run.ranks, ranks_per_host=run.ranks)
    )
    plan.validate()
    return plan


@pytest.mark.parametrize("ranks", [2, 3, 8, 64])
def test_the_volume_does_not_depend_on_the_number_of_ranks(ranks: int) -> None:
    run = make_run(ranks)
    plan = plan_of(run)
    sent = sum(size for (kind, _), size in plan.sent_bytes().items() if kind == Kind.SEND)
    # aggregate-first: 128 + 256 + 256 out, 256 + 256 back; backward 256 + 256 each way
    assert sent == 4 * PROFILE.num_nodes * (128 + 256 + 256 + 256 + 256 + 2 * (256 + 256))
    assert sent == exchanged_bytes(stack_shape(PROFILE, run, "aggregate_first"), PROFILE.num_nodes)


def test_every_message_is_sent_once_and_received_once() -> None:
    steps = [
        (rank, step)
        for rank, steps in enumerate(plan_of(make_run(5, sparse_ranks=2)).iterations[0])
        for step in steps
    ]
    ends = {
        kind: sorted(
            ((r, s.group[1]) if kind is Kind.SEND else (s.group[1], r), s.buffer_bytes)
            for r, s in steps
            if s.kind is kind
        )
        for kind in (Kind.SEND, Kind.RECV)
    }
    assert ends[Kind.SEND] == ends[Kind.RECV]


def test_sparse_ranks_only_aggregate_and_dense_ranks_only_update() -> None:
    plan = plan_of(make_run(4, sparse_ranks=3))
    for rank, steps in enumerate(plan.iterations[0]):
        lanes = {step.lane for step in steps}
        assert (Lane.SPARSE in lanes) is (rank < 3)
        assert (Lane.DENSE in lanes) is (rank == 3)


def test_flops_are_those_of_the_model_whatever_the_split() -> None:
    totals = set()
    for ranks, sparse in ((2, 1), (6, 2), (6, 5)):
        plan = plan_of(make_run(ranks, sparse_ranks=sparse))
        totals.add(
            sum(
                step.flops
                for steps in plan.iterations[0]
                for step in steps
                if step.kind in (Kind.SPMM, Kind.GEMM)
            )
        )
    assert len(totals) == 1


def test_the_simulated_pipeline_beats_the_serial_order_of_the_same_ranks() -> None:
    """One chunk is the serial order: nothing overlaps. Bounded below by the busier engine."""
    cluster = load_cluster("dgx-a100")
    spans = {}
    for chunks in (1, 2, 8):
        program = compile_plan(plan_of(make_run(2, chunks=chunks)), cluster, ranks_per_host=2)
        result = simulate(program)
        spans[chunks] = float(result.epoch_s[-1])
        busiest = max(float(busy.max()) for busy in result.busy_s.values()) / 2
        assert spans[chunks] >= busiest * (1 - 1e-9)
    assert spans[8] < spans[2] < spans[1]


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (make_run(1), "needs 2 ranks"),
        (make_run(4, kind="sage"), "trains gcn only"),
        (make_run(4, dropout=0.5), "no input dropout"),
        (make_run(2, sparse_ranks=2), "no dense rank is left"),
    ],
)
def test_what_it_cannot_do_is_a_reasoned_skip(run: RunSpec, reason: str) -> None:
    assert reason in str(APPROACH.skip_reason(run))


def test_a_suite_with_too_many_sparse_ranks_is_told_so() -> None:
    assert "allowed 0 to 3" in APPROACH.problems(make_run(4, sparse_ranks=4))[0]
    assert not APPROACH.problems(make_run(4, sparse_ranks=3))
