"""The plan of `mixed-accelerators`: volumes, rank rule, overlap in the simulator."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest

from gnnbench.approaches.base import Layout
from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.whole_graph.mixed_structure import default_chunks
from gnnbench.approaches.whole_graph.row_pipeline import exchanged_bytes
from gnnbench.approaches.writing.shape import stack_shape
from gnnbench.cluster import load_cluster
from gnnbench.data.profile import load_profile
from gnnbench.plan import Plan
from gnnbench.spec import DatasetRef, ModelSpec, RunSpec, TrainingSpec
from gnnbench.steps import Kind, Lane, Step
from gnnbench_simulator.engine import simulate
from gnnbench_simulator.program import compile_plan
from gnnbench_simulator.replay import replay

APPROACH = APPROACHES.get("mixed-accelerators")
PROFILE = load_profile("ogbn-arxiv")


def make_run(ranks: int, kind: str = "gcn", **knobs: Any) -> RunSpec:
    return RunSpec(
        suite="test",
        dataset=DatasetRef(name="arxiv", profile="ogbn-arxiv"),
        model=ModelSpec(name="m", kind=kind, hidden=256, layers=3),
        training=TrainingSpec(epochs=2),
        approach="mixed-accelerators",
        ranks=ranks,
        knobs=knobs,
    )


def plan_of(run: RunSpec) -> Plan:
    structure = APPROACH.structure(PROFILE, run)
    plan = APPROACH.plan(
        PROFILE, run, structure, Layout(world_size=run.ranks, ranks_per_host=run.ranks)
    )
    plan.validate()
    return plan


def moved(plan: Plan) -> int:
    return sum(size for (kind, _), size in plan.moved_bytes().items() if kind == Kind.ALL_TO_ALL)


@pytest.mark.parametrize("ranks", [2, 3, 8, 64])
@pytest.mark.parametrize("kind", ["gcn", "sage"])
def test_the_volume_does_not_depend_on_the_number_of_ranks(ranks: int, kind: str) -> None:
    run = make_run(ranks, kind)
    # aggregate-first: 128 + 256 + 256 out, 256 + 256 back; backward 256 + 256 each way
    want = 4 * PROFILE.num_nodes * (128 + 256 + 256 + 256 + 256 + 2 * (256 + 256))
    assert moved(plan_of(run)) == want
    assert exchanged_bytes(stack_shape(PROFILE, run, "aggregate_first"), PROFILE.num_nodes) == want


@pytest.mark.parametrize("ranks", [5, 16])
def test_every_handover_has_ends_that_agree(ranks: int) -> None:
    """FG-9: what the sparse ranks send is what the dense ranks have room for, and back."""
    ends: dict[str, list[Step]] = {}
    for steps in plan_of(make_run(ranks, sparse_ranks=2, chunks=3)).iterations[0]:
        for step in steps:
            if step.kind is Kind.ALL_TO_ALL:
                ends.setdefault(step.name, []).append(step)
    for name, steps in ends.items():
        assert len(steps) == ranks
        sent = np.stack([step.work.send_bytes for step in steps])
        assert sent.sum(axis=1).tolist() == [step.bytes for step in steps], name
        for step, arriving in zip(steps, sent.sum(axis=0).tolist(), strict=True):
            assert step.work.buffer_bytes == step.bytes + arriving, name


def test_rows_are_dealt_evenly_and_no_dense_rank_is_idle() -> None:
    """FG-21: rows of dense ranks differ by at most one, whatever the chunks; every row is owned."""
    for ranks, sparse, chunks in ((7, 2, 5), (4, 1, 1), (40, 3, 16)):
        held = APPROACH.structure(PROFILE, make_run(ranks, sparse_ranks=sparse, chunks=chunks))
        own = held.dealt.sum(axis=0)
        assert np.ptp(own) <= 1
        assert own.sum() == PROFILE.num_nodes
        assert (np.ptp(held.dealt, axis=1) <= 1).all()
        assert held.train_rows.sum() == PROFILE.num_train


def test_chunks_by_default_fall_with_the_length_of_messages() -> None:
    run = make_run(2)
    assert default_chunks(PROFILE, run, 1) == 8
    counts = [
        default_chunks(PROFILE, make_run(ranks), ranks // 2) for ranks in (2, 8, 16, 32, 64, 1024)
    ]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 1


def test_like_ranks_form_one_class() -> None:
    """A plan for 1,024 ranks has as many classes as there are kinds of ranks."""
    plan = plan_of(make_run(1024))
    [iteration] = plan.iterations
    assert plan.notes["idle_dense_ranks"] == 0
    assert len(iteration.classes) < 10
    assert sum(len(of) for of in iteration.classes) == 1024
    for before, after in itertools.pairwise(iteration.classes):
        assert before.steps != after.steps


def test_hidden_layers_are_normalised_chunk_by_chunk_on_dense_ranks() -> None:
    run = make_run(3, sparse_ranks=1, chunks=2)
    normed = dataclasses.replace(run, model=dataclasses.replace(run.model, norm="layer"))
    plain, plan = plan_of(run), plan_of(normed)
    for rank, steps in enumerate(plan.iterations[0]):
        names = {step.name for step in plain.iterations[0][rank]}
        more = [step.name for step in steps if step.name not in names]
        layers = [f"{way}/{layer}" for way in ("forward", "backward") for layer in (1, 2)]
        want = {f"{where}/norm/{chunk}" for where in layers for chunk in (0, 1)} if rank else set()
        assert set(more) == want
    rows = plan_of(normed).peak_bytes() - plain.peak_bytes()
    assert (rows[1:] > 0).all()


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


@pytest.mark.parametrize("kind", ["gcn", "sage"])
@pytest.mark.parametrize("ranks", [2, 4])
def test_the_simulated_pipeline_beats_the_serial_order_of_the_same_ranks(
    kind: str, ranks: int
) -> None:
    """One chunk is the serial order: nothing overlaps. Bounded below by the busier engine."""
    cluster = load_cluster("dgx-a100")
    spans = {}
    for chunks in (1, 2, 8):
        plan = plan_of(make_run(ranks, kind, chunks=chunks))
        program = compile_plan(plan, cluster, ranks_per_host=ranks)
        assert not program.contention()
        result = replay(program)
        np.testing.assert_allclose(result.period_s, simulate(program).period_s, rtol=1e-9)
        spans[chunks] = float(result.period_s[-1])
        busiest = max(float(busy.max()) for busy in result.busy_s.values()) / 2
        assert spans[chunks] >= busiest * (1 - 1e-9)
    # Two chunks may beat eight: each costs its messages.
    assert max(spans[2], spans[8]) < spans[1]


def test_a_rank_wants_cores_for_its_engine_for_handovers_and_for_returns() -> None:
    """Engine and optimizer take turns, and no rank has both engines: 2 ranks want 6 cores."""
    cluster = load_cluster("cpu-2core")
    wanted = {}
    for cores in (5, 6):
        host = dataclasses.replace(cluster.host, cores=cores)
        larger = dataclasses.replace(cluster, host=host)
        program = compile_plan(plan_of(make_run(2)), larger, ranks_per_host=2)
        wanted[cores] = program.contention()
    assert "cores" in wanted[5]
    assert wanted[6] == ""


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (make_run(1), "needs 2 ranks"),
        (make_run(2, sparse_ranks=2), "no dense rank is left"),
        (make_run(2, "gat"), "dense ranks hold no edges"),
    ],
)
def test_what_it_cannot_do_is_a_reasoned_skip(run: RunSpec, reason: str) -> None:
    assert reason in str(APPROACH.cannot_run(run))


def test_a_suite_with_too_many_sparse_ranks_is_told_so() -> None:
    assert "allowed 0 to 3" in APPROACH.problems(make_run(4, sparse_ranks=4))[0]
    assert not APPROACH.problems(make_run(4, sparse_ranks=3))
