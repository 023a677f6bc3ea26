"""Plans of P3: slices, sizes of merged blocks, and bytes in closed form (SA-P2, P5, P7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gnnbench.approaches.mini_batch.batch import draw_batch
from gnnbench.approaches.mini_batch.p3 import APPROACH
from gnnbench.data.generators import planted_partition
from gnnbench.data.graph import Graph
from gnnbench.data.profile import profile
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import Kind, pick
from gnnbench.work import all_reduce_bytes

MakeRun = Callable[..., RunSpec]
PlanOf = Callable[..., Plan]
BATCH = {"size": 50, "fanouts_from_seeds": (3, 2)}


@pytest.fixture(scope="module")
def planted() -> Graph:
    """300 vertices, 180 of them training ones; 5 features, 4 classes."""
    return planted_partition(300, 6, 4, 5, seed=1)


def exchanged(kind: str, ranks: int, planted: Graph, make_run: MakeRun) -> dict[str, int]:
    """What the closed forms say about an epoch: bytes of all ranks, by kind of collective."""
    run = make_run("p3", ranks, batch=BATCH, model={"kind": kind, "hidden": 8})
    source = APPROACH.source(planted, run, None)
    total = {"all_gather": 0, "reduce_scatter": 0}
    for step in range(source.steps):
        sizes = draw_batch(source, ranks, None, 0, step)
        (inputs, rows, _), edges = sizes.vertices, sizes.edges[0]
        block = inputs.max() if kind == "gat" else rows.max()
        pattern = 0 if kind == "gat" else rows.max() + edges.max()
        structure = 24 + 8 * inputs.max() + 4 * pattern
        sums = block * 8 * 4
        total["all_gather"] += int(ranks * (ranks - 1) * (structure + sums))
        total["reduce_scatter"] += int(ranks * (ranks - 1) * sums)
    return total


@pytest.mark.parametrize("kind", ["gcn", "sage", "gat"])
@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_bytes_are_those_of_the_closed_form(
    kind: str, ranks: int, planted: Graph, make_run: MakeRun, plan_of: PlanOf
) -> None:
    """SA-P7: structure, pull and push as the module says; gradients of what all ranks have."""
    run = make_run("p3", ranks, batch=BATCH, model={"kind": kind, "hidden": 8})
    plan = plan_of(planted, run)
    moved: dict[str, int] = {}
    for (kind_, _), size in plan.moved_bytes().items():
        moved[kind_] = moved.get(kind_, 0) + size
    slices = APPROACH.slices(planted, run)
    reduced = all_reduce_bytes(4 * (slices.replicated + 1), ranks) * ranks * 4
    wanted = {**exchanged(kind, ranks, planted, make_run), "all_reduce": reduced}
    assert moved == {key: size for key, size in wanted.items() if size}


def test_no_feature_row_travels_and_every_column_is_on_one_rank(
    planted: Graph, make_run: MakeRun, plan_of: PlanOf
) -> None:
    """SA-P5: five columns on three ranks are 2, 2 and 1; no fetch by all-to-all."""
    run = make_run("p3", 3, batch=BATCH)
    plan = plan_of(planted, run)
    assert not any(kind == Kind.ALL_TO_ALL for kind, _ in plan.moved_bytes())
    held = {buffer.name: buffer.bytes for buffer in plan.resident}
    assert np.array_equal(held["features"], 300 * 4 * np.array([2, 2, 1]))
    steps = {step.name: step for step in plan.iterations[0][2]}
    assert steps["fetch/gather"].work.width == 1
    assert steps["forward/1/gemm"].work.inner == 1


def test_parameters_of_slices_add_up_to_the_model(
    planted: Graph, make_run: MakeRun, plan_of: PlanOf
) -> None:
    """Rows of W_1 (and of the self weight) are on one rank each, all else on every rank."""
    run = make_run("p3", 3, batch=BATCH, model={"kind": "sage", "hidden": 8})
    slices = APPROACH.slices(planted, run)
    whole = slices.shape.num_parameters
    assert int(slices.held.sum()) == whole + 2 * slices.replicated
    assert whole - slices.replicated == 2 * 5 * 8
    plan = plan_of(planted, run)
    for rank in range(3):
        steps = {step.name: step for step in plan.iterations[0][rank]}
        assert steps["update/adam"].work.rows == pick(slices.held, rank)


def test_it_plans_from_a_profile(planted: Graph, make_run: MakeRun, plan_of: PlanOf) -> None:
    """Estimated sizes stay within a quarter of the drawn ones on this graph."""
    run = make_run("p3", 2, batch=BATCH)
    drawn, estimated = (plan_of(data, run) for data in (planted, profile(planted)))
    assert not estimated.counted
    found, wanted = (
        sum(size for (kind, _), size in plan.moved_bytes().items() if kind != Kind.ALL_REDUCE)
        for plan in (estimated, drawn)
    )
    assert abs(found / wanted - 1) < 0.25


def test_more_ranks_than_columns_are_refused(planted: Graph, make_run: MakeRun) -> None:
    run = make_run("p3", 6, batch=BATCH)
    assert APPROACH.cannot_run(run) is None
    said = APPROACH.cannot_run(run, planted)
    assert said == "p3 cannot split 5 feature columns over 6 ranks: use at most 5 ranks"


def test_a_batch_without_enough_seeds_leaves_ranks_empty(
    planted: Graph, make_run: MakeRun, plan_of: PlanOf
) -> None:
    run = make_run("p3", 5, batch={"size": 3, "fanouts_from_seeds": (3, 2)})
    plan = plan_of(planted, run)
    sizes: list[Any] = [
        {step.name: step.work for step in plan.iterations[0][rank]} for rank in range(5)
    ]
    assert sizes[4]["sample/draw"].nonzeros == 0
    assert sizes[4]["forward/1/gemm"].rows == sizes[0]["forward/1/gemm"].rows > 0
