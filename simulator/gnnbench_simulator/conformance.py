"""Conformance of an approach's plans: sound, equal in every simulator, and refused with a reason.

The runtime's part of conformance is `gnnbench_runtime.conformance`; `gnnbench conform` checks both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from gnnbench.approaches.base import Approach, Layout
from gnnbench.approaches.names import APPROACHES
from gnnbench.cluster import Cluster, load_cluster
from gnnbench.data.profile import profile
from gnnbench.data.source import Library
from gnnbench.errors import Unsupported
from gnnbench.models.names import MODELS
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench_simulator.engine import simulate
from gnnbench_simulator.events import simulate_events
from gnnbench_simulator.outcome import ledger
from gnnbench_simulator.predict import predict_plan
from gnnbench_simulator.program import compile_plan
from gnnbench_simulator.replay import replay
from gnnbench_simulator.timeline import memory_timeline

CLUSTER = "cpu-2core"
_RANKS = (1, 2, 3, 4)


class Broken(AssertionError):
    """A statement does not hold of an approach."""


@dataclasses.dataclass(slots=False, eq=False)
class PlanTrial:
    """One statement about the plan of one example of an approach."""

    statement: Callable[[PlanTrial], None]
    approach: Approach
    number: int
    run: RunSpec

    def __str__(self) -> str:
        return f"{self.approach.name}-{self.number}-{self.statement.__name__}"

    def check(self) -> None:
        """Raise `Broken` with what was found and what was expected."""
        self.statement(self)

    def require(self, holds: bool, message: str) -> None:
        if not holds:
            raise Broken(f"{self.approach.name}, example {self.number}: {message}")

    @cached_property
    def data(self) -> Any:
        return Library([]).open(self.run.dataset)

    @cached_property
    def plan(self) -> Plan:
        return self.planned(self.run, self.data)

    @cached_property
    def cluster(self) -> Cluster:
        return load_cluster(CLUSTER)

    def planned(self, run: RunSpec, data: Any) -> Plan:
        layout = Layout(world_size=run.ranks, ranks_per_host=run.ranks)
        return self.approach.plan(data, run, self.approach.structure(data, run), layout)


def plan_trials(name: str) -> list[PlanTrial]:
    """All statements about the plans of all examples of an approach."""
    approach = APPROACHES.get(name)
    return [
        PlanTrial(statement, approach, number, run)
        for number, run in enumerate(approach.examples())
        for statement in PLAN_STATEMENTS
    ]


def plan_is_sound(trial: PlanTrial) -> None:
    """Ranks agree on collectives, waits name steps, no size is negative, buffers are known."""
    plan = trial.plan
    plan.validate(evaluates=True)
    trial.require(plan.world_size == trial.run.ranks, f"plans {plan.world_size} ranks")
    known = {buffer.name for buffer in plan.resident}
    for iteration in plan.of_period(0):
        for steps in iteration:
            for step in steps:
                trial.require(
                    min(step.bytes, step.flops) >= 0, f"{step.name!r} has a negative size"
                )
                known.update(buffer.name for buffer in step.allocates)
                unknown = set(step.frees) - known
                trial.require(not unknown, f"{step.name!r} frees unknown buffers {unknown}")


def simulators_agree(trial: PlanTrial) -> None:
    """The engine, the event loop and, where nothing is shared, the replay give the same times."""
    program = compile_plan(trial.plan, trial.cluster, ranks_per_host=trial.run.ranks)
    slow = simulate(program).period_s
    trial.require(bool((slow > 0).all()), f"periods of {slow.tolist()} s")
    fast = {"event loop": simulate_events(program)}
    if not program.contention():
        fast["replay"] = replay(program)
    for name, result in fast.items():
        trial.require(
            bool(np.allclose(result.period_s, slow, rtol=1e-9)),
            f"{name} says {result.period_s.tolist()} s, the engine {slow.tolist()} s",
        )


def peak_covers_the_timeline(trial: PlanTrial) -> None:
    """No more bytes live at once in simulated time than the plan says in program order."""
    plan, ranks = trial.plan, range(trial.run.ranks)
    program = compile_plan(plan, trial.cluster, ranks_per_host=trial.run.ranks)
    result = simulate(program, record=ranks)
    for rank in ranks:
        rows = ledger(program, result, rank)
        for space in plan.spaces():
            highest = max(point.bytes for point in memory_timeline(plan, rows, rank, space))
            planned = int(plan.peak_bytes(space)[rank])
            trial.require(
                highest <= planned,
                f"rank {rank} holds {highest} bytes of {space} at once, the plan says {planned}; "
                "a buffer that is filled ahead lives in a slot and is not freed (see Buffer)",
            )


def is_predicted(trial: PlanTrial) -> None:
    """The plan becomes a prediction with an interval around its median and memory of each rank."""
    found = predict_plan(trial.plan, trial.cluster, ranks_per_host=trial.run.ranks)
    trial.require(
        0 < found.low_s <= found.period_s <= found.high_s,
        f"{found.period_s} s in [{found.low_s}, {found.high_s}]",
    )
    trial.require(len(found.memory) == trial.run.ranks, f"memory of {len(found.memory)} ranks")


def is_planned_without_its_data(trial: PlanTrial) -> None:
    """A profile is planned with sizes near the counted ones, or refused with a reason."""
    if trial.data.kind != "graph":
        return
    there = profile(trial.data, parts=(2, 3, 4), methods=("metis-vol", "metis-cut", "hash"))
    reason = trial.approach.cannot_run(trial.run, there)
    if reason:
        return _is_one_line(trial, reason)
    try:
        plan = trial.planned(trial.run, there)
    except Unsupported as error:
        return _is_one_line(trial, str(error))
    plan.validate()
    steps, counted = plan.num_steps(0), trial.plan.num_steps(0)
    trial.require(
        steps == counted or not plan.counted,
        f"{steps} steps by the profile, {counted} by the graph, and the plan says it has counted",
    )


def refuses_with_a_reason(trial: PlanTrial) -> None:
    """For any model, normalisation and number of ranks it plans, or says in one line why not."""
    if trial.number:
        return
    for kind in MODELS.names():
        for norm in ("none", "layer"):
            for ranks in _RANKS:
                model = dataclasses.replace(trial.run.model, kind=kind, norm=norm, heads=1)
                run = dataclasses.replace(trial.run, model=model, ranks=ranks)
                if trial.approach.problems(run):
                    continue
                reason = trial.approach.cannot_run(run, trial.data)
                if reason:
                    _is_one_line(trial, reason)
                else:
                    trial.planned(run, trial.data).validate()


def _is_one_line(trial: PlanTrial, reason: str) -> None:
    trial.require(
        bool(reason.strip()) and "\n" not in reason, f"refuses with {reason!r}, not with one line"
    )


PLAN_STATEMENTS: tuple[Callable[[PlanTrial], None], ...] = (
    plan_is_sound,
    simulators_agree,
    peak_covers_the_timeline,
    is_predicted,
    is_planned_without_its_data,
    refuses_with_a_reason,
)
