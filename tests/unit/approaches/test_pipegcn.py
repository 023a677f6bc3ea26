"""PipeGCN's plan: the bytes of `partition`, one epoch late, behind computation."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gnnbench.approaches.names import APPROACHES
from gnnbench.data.graph import Graph
from gnnbench.data.profile import load_profile
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import After, Kind, Lane, Phase

MakeRun = Callable[..., RunSpec]
PlanOf = Callable[..., Plan]
ORDERS = ("aggregate_first", "transform_first", "min_width")
OWNER = [0, 0, 1, 1, 1]
DEEP = {"layers": 3}


def held(plan: Plan) -> dict[str, list[int]]:
    return {b.name: [b.bytes] if isinstance(b.bytes, int) else list(b.bytes) for b in plan.resident}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("smoothing", ["none", "both"])
def test_bytes_are_those_of_partition_fg_39(
    path_graph: Graph, make_run: MakeRun, plan_of: PlanOf, order: str, smoothing: str
) -> None:
    stale = make_run("pipegcn", 2, model=DEEP, order=order, smoothing=smoothing)
    vanilla = make_run("partition", 2, model=DEEP, order=order)
    late, fresh = (plan_of(path_graph, run, OWNER).moved_bytes() for run in (stale, vanilla))
    assert late == fresh


def test_without_staleness_the_plan_is_that_of_partition_fg_35(planned: PlanOf) -> None:
    fresh = planned("pipegcn", 2, owner=OWNER, staleness=0)
    vanilla = planned("partition", 2, owner=OWNER)
    assert fresh.program_key() == vanilla.program_key() != ""
    assert held(fresh) == held(vanilla)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("smoothing", ["none", "features", "gradients", "both"])
def test_every_transfer_is_taken_one_epoch_later_before_the_next_begins(
    path_graph: Graph, make_run: MakeRun, plan_of: PlanOf, order: str, smoothing: str
) -> None:
    """FG-38, FG-41: a transfer is waited for by its name one iteration ago, and by nothing else."""
    run = make_run("pipegcn", 2, model=DEEP, order=order, smoothing=smoothing)
    for steps in plan_of(path_graph, run, OWNER).iterations[0]:
        place = {step.name: i for i, step in enumerate(steps)}
        transfers = [s for s in steps if s.kind is Kind.ALL_TO_ALL]
        assert transfers and all(s.lane is Lane.BACKGROUND for s in transfers)
        for transfer in transfers:
            takers = [s for s in steps if any(a.step == transfer.name for a in s.after)]
            assert [s.after for s in takers] == [(After(transfer.name, lag=1),)]
            assert place[takers[0].name] < place[transfer.name]
            (begin,) = transfer.after
            assert begin.lag == 0 and begin.step.endswith("/pack")


def test_averages_are_held_for_what_is_smoothed(planned: PlanOf) -> None:
    kept = {
        smoothing: set(held(planned("pipegcn", 2, owner=OWNER, smoothing=smoothing)))
        for smoothing in ("none", "features", "gradients", "both")
    }
    vanilla = set(held(planned("partition", 2, owner=OWNER)))
    assert kept["none"] - vanilla == {"stale_features", "stale_gradients"}
    assert kept["features"] - kept["none"] == {"smooth_features"}
    assert kept["gradients"] - kept["none"] == {"smooth_gradients"}
    assert kept["both"] == kept["features"] | kept["gradients"]


def test_smoothing_without_staleness_is_a_problem(make_run: MakeRun) -> None:
    run = make_run("pipegcn", 2, staleness=0, smoothing="both")
    (problem,) = APPROACHES.get("pipegcn").problems(run)
    assert problem.startswith("smoothing: found 'both' with staleness 0")


@pytest.mark.parametrize(("knob", "value"), [("gamma", 1.0), ("staleness", 2)])
def test_knobs_have_bounds(knob: str, value: float) -> None:
    problems: list[str] = []
    APPROACHES.get("pipegcn").parse_knobs({knob: value}, "knobs", problems)
    assert len(problems) == 1 and problems[0].startswith(f"knobs.{knob}: found {value}")


@pytest.mark.parametrize("parts", [2, 1024])
def test_a_profile_plans_any_number_of_ranks(planned: PlanOf, parts: int) -> None:
    profile = load_profile("ogbn-products")
    late, fresh = (
        planned(name, parts, data=profile, model={"hidden": 64})
        for name in ("pipegcn", "partition")
    )
    assert late.moved_bytes() == fresh.moved_bytes()
    names = {s.name for s in late.iterations[0][0] if s.phase is Phase.FORWARD}
    assert "forward/1/place" in names
