"""A plan whose host work several threads share, as loaders of systems that train from disk do.

A plan draws and gathers a batch in one thread. Published loaders have several, each with a batch of
its own or a part of one: a batch then takes a thread's time over the number of threads.
"""

from __future__ import annotations

from dataclasses import replace

from gnnbench.iterations import Iteration, LazyIterations, RankClass
from gnnbench.plan import Plan
from gnnbench.published.released import scaled
from gnnbench.published.software import Software
from gnnbench.steps import Engine, Phase, Step

_SHARED = (Phase.SAMPLE, Phase.FETCH)


def threaded(plan: Plan, software: Software) -> Plan:
    """The plan with the host's steps of sampling and fetching divided among threads."""
    if software.workers == 1:
        return plan

    def shared(step: Step) -> Step:
        if step.lane.engine is not Engine.HOST or step.phase not in _SHARED:
            return step
        return replace(step, work=scaled(step.work, 1.0 / software.workers))

    def rewritten(number: int) -> Iteration:
        classes = plan.iterations[number].classes
        return Iteration([RankClass(of.ranks, tuple(map(shared, of.steps))) for of in classes])

    return replace(
        plan,
        iterations=LazyIterations(len(plan.iterations), rewritten),
        notes={**plan.notes, "threads": software.workers},
    )
