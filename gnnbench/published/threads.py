"""A plan whose host work is done as systems that train from disk do it: by threads, by sorting.

A plan draws and gathers a batch in one thread. Published loaders have several, each with a batch of
its own or a part of one: a batch then takes a thread's time over the number of threads. Our buffer
keeps edges in buckets and makes its graph by counting; MariusGNN sorts all edges anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gnnbench import work
from gnnbench.iterations import Iteration, LazyIterations, RankClass
from gnnbench.plan import Plan
from gnnbench.published.released import scaled
from gnnbench.published.software import Software
from gnnbench.steps import Engine, Phase, Step

_SHARED = (Phase.SAMPLE, Phase.FETCH)
_COUNTED = "enter_buffer"


def threaded(plan: Plan, software: Software) -> Plan:
    """The plan with the host's steps of sampling and fetching divided among threads."""
    if software.workers == 1:
        return plan

    def shared(step: Step) -> Step:
        if step.lane.engine is not Engine.HOST or step.phase not in _SHARED:
            return step
        return replace(step, work=scaled(step.work, 1.0 / software.workers))

    return _rewritten(plan, shared, threads=software.workers)


def resorted(plan: Plan, software: Software, *, both_ways: bool) -> Plan:
    """The plan with the graph of its buffer made by sorting edges, see `work.sort_edges`.

    Args:
        plan: of `out-of-core`.
        software: what the published code does.
        both_ways: whether the plan's graph has each edge in both directions. MariusGNN keeps it
            once, and its two orders serve the two directions.
    """
    if not software.sorts:
        return plan

    def sorted_anew(step: Step) -> Step:
        if step.work.op != _COUNTED:
            return step
        edges = step.work.rows // 2 if both_ways else step.work.rows
        return replace(step, work=work.sort_edges(step.work.source_rows, edges))

    return _rewritten(plan, sorted_anew, graph="sorted")


def _rewritten(plan: Plan, change: Callable[[Step], Step], **notes: object) -> Plan:
    """The plan with every step changed."""

    def rewritten(number: int) -> Iteration:
        classes = plan.iterations[number].classes
        return Iteration([RankClass(of.ranks, tuple(map(change, of.steps))) for of in classes])

    return replace(
        plan,
        iterations=LazyIterations(len(plan.iterations), rewritten),
        notes={**plan.notes, **notes},
    )
