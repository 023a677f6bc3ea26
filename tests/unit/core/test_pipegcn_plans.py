"""PipeGCN's plan, and what the simulator makes of it: communication hides behind computation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from gnnbench.approaches.base import Layout
from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.whole_graph.partition import PartitionStructure
from gnnbench.data.graph import Graph
from gnnbench.data.profile import load_profile
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import After, Kind, Lane, Phase

MakeRun = Callable[..., RunSpec]
ORDERS = ("aggregate_first", "transform_first", "min_width")


def plan_of(graph: Graph, run: RunSpec) -> Plan:
    structure = PartitionStructure.of_assignment(graph, np.array([0, 0, 1, 1, 1], np.int32), 2)
    plan = APPROACHES.get(run.approach).plan(
        graph, run, structure, Layout(world_size=2, ranks_per_host=2)
    )
    plan.validate()
    return plan


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("smoothing", ["none", "both"])
def test_bytes_are_those_of_partition_fg_39(
    path_graph: Graph, make_run: MakeRun, order: str, smoothing: str
) -> None:
    stale = plan_of(path_graph, make_run("pipegcn", 2, layers=3, order=order, smoothing=smoothing))
    vanilla = plan_of(path_graph, make_run("partition", 2, layers=3, order=order))
    assert stale.sent_bytes() == vanilla.sent_bytes()


def test_without_staleness_the_plan_is_that_of_partition(
    path_graph: Graph, make_run: MakeRun
) -> None:
    """FG-35."""
    fresh = plan_of(path_graph, make_run("pipegcn", 2, staleness=0))
    vanilla = plan_of(path_graph, make_run("partition", 2))
    assert fresh.iterations == vanilla.iterations
    assert fresh.resident == vanilla.resident


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("smoothing", ["none", "features", "gradients", "both"])
def test_every_transfer_is_taken_one_epoch_later_before_the_next_begins(
    path_graph: Graph, make_run: MakeRun, order: str, smoothing: str
) -> None:
    """FG-38, FG-41: a transfer is waited for by its name one iteration ago, and by nothing else."""
    run = make_run("pipegcn", 2, layers=3, order=order, smoothing=smoothing)
    for steps in plan_of(path_graph, run).iterations[0]:
        place = {step.name: i for i, step in enumerate(steps)}
        transfers = [s for s in steps if s.kind is Kind.ALL_TO_ALL]
        assert transfers and all(s.lane is Lane.BACKGROUND for s in transfers)
        for transfer in transfers:
            takers = [s for s in steps if any(a.step == transfer.name for a in s.after)]
            assert [s.after for s in takers] == [(After(transfer.name, lag=1),)]
            assert place[takers[0].name] < place[transfer.name]
            (begin,) = transfer.after
            assert begin.lag == 0 and begin.step.endswith("/pack")


def test_averages_are_held_for_what_is_smoothed(path_graph: Graph, make_run: MakeRun) -> None:
    held = {
        smoothing: set(plan_of(path_graph, make_run("pipegcn", 2, smoothing=smoothing)).resident[0])
        for smoothing in ("none", "features", "gradients", "both")
    }
    vanilla = set(plan_of(path_graph, make_run("partition", 2)).resident[0])
    assert held["none"] - vanilla == {"stale_features", "stale_gradients"}
    assert held["features"] - held["none"] == {"smooth_features"}
    assert held["gradients"] - held["none"] == {"smooth_gradients"}
    assert held["both"] == held["features"] | held["gradients"]


def test_smoothing_without_staleness_is_told(make_run: MakeRun) -> None:
    run = make_run("pipegcn", 2, staleness=0, smoothing="both")
    (problem,) = APPROACHES.get("pipegcn").problems(run)
    assert problem.startswith("smoothing: found 'both' with staleness 0")


@pytest.mark.parametrize(("knob", "value"), [("gamma", 1.0), ("staleness", 2)])
def test_knobs_out_of_range_are_told(knob: str, value: float) -> None:
    problems: list[str] = []
    APPROACHES.get("pipegcn").parse_knobs({knob: value}, "knobs", problems)
    assert len(problems) == 1 and problems[0].startswith(f"knobs.{knob}: found {value}")


@pytest.mark.parametrize("parts", [2, 16, 1024])
def test_a_profile_plans_any_number_of_ranks(make_run: MakeRun, parts: int) -> None:
    profile = load_profile("ogbn-products")
    plans = []
    for name in ("pipegcn", "partition"):
        run, approach = make_run(name, parts, hidden=64), APPROACHES.get(name)
        structure = approach.structure(profile, run)
        layout = Layout(world_size=parts, ranks_per_host=8)
        plans.append(approach.plan(profile, run, structure, layout))
        plans[-1].validate()
    assert plans[0].sent_bytes() == plans[1].sent_bytes()
    names = {s.name for s in plans[0].iterations[0][0] if s.phase is Phase.FORWARD}
    assert "forward/1/place" in names
