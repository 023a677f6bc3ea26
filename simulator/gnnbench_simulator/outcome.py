"""The result of a simulation by engine, event loop or replay, and its ledger."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from gnnbench.costs.facts import Floats
from gnnbench.ledger import Row
from gnnbench.plan import Plan
from gnnbench.steps import Step
from gnnbench_simulator.layout import Block, Mode
from gnnbench_simulator.program import Program


@dataclass(frozen=True, slots=True)
class Span:
    """One execution of a block by one rank.

    iteration   index in the schedule
    ready_s     when the lane was free and all waits were over; a collective then waits for peers
    end_s       when the block ended
    """

    iteration: int
    block: Block
    ready_s: float
    end_s: float


@dataclass(slots=True, kw_only=True)
class SimResult:
    """Times of a simulated plan. All times in seconds since its start.

    method         "engine", "events" or "replay"
    period_s       per period, see `period_seconds`; in a replay with draws [periods, draws]
    end_s          per rank: end of its last step
    busy_s         per lane and rank: seconds of work, waiting excluded
    spans          per recorded rank: executed blocks in order of time
    """

    method: str
    period_s: Floats
    end_s: Floats
    busy_s: dict[str, Floats]
    spans: Mapping[int, list[Span]] = field(default_factory=dict)


def period_seconds(ends_s: Floats, plan: Plan) -> Floats:
    """Seconds of each period, from its begin to its end on the last rank.

    A period begins when the one before has ended and its first input has arrived: a rank that waits
    for input has not begun, in the runtime's clock as in this one.

    Args:
        ends_s: [periods] or [periods, draws], never falling.
        plan: of the periods.
    """
    begins = np.concatenate([np.zeros_like(ends_s[:1]), ends_s[:-1]])
    if plan.releases:
        released = np.array([plan.releases[at] for at in plan.starts[: len(ends_s)]], np.float64)
        begins = np.maximum(begins, released.reshape(-1, *[1] * (ends_s.ndim - 1)))
    found: Floats = ends_s - begins
    return found


def ledger(program: Program, result: SimResult, rank: int) -> list[Row]:
    """Rows of a recorded rank, ordered by start; a collective's duration includes its waiting."""
    steps = _Steps(program, rank)
    rows = [row for span in result.spans[rank] for row in _rows(program, span, rank, steps)]
    rows.sort(key=lambda row: row.start_s)
    return rows


Head = tuple[str, str, str, str, str, int, int, int, int]
"""What all rows of a step have in common, see `ledger.Row`: from its name to its flops."""


class _Steps:
    """The steps of one rank in the iterations asked for last, as heads of rows."""

    def __init__(self, program: Program, rank: int) -> None:
        self._program, self._rank = program, rank
        self._known: dict[int, list[Head]] = {}

    def of(self, index: int) -> list[Head]:
        if index not in self._known:
            if len(self._known) > 64:
                self._known.clear()
            own = self._program.plan.iterations[index][self._rank]
            self._known[index] = [_head(step) for step in own]
        return self._known[index]


def _rows(program: Program, span: Span, rank: int, steps: _Steps) -> Iterable[Row]:
    plan = program.plan
    index = plan.schedule[span.iteration]
    timed, own = program.iterations[index], steps.of(index)
    number = int(timed.layout.class_of[rank])
    column = timed.layout.classes[number].columns[rank]
    period = bisect_right(plan.starts, span.iteration) - 1
    within = span.iteration - plan.starts[period]
    block = span.block
    alone = float(timed.totals[number][block.number, column])
    elapsed = span.end_s - span.ready_s
    # Contention stretches the steps of a block alike; a collective or transfer waits as well.
    stretch = elapsed / alone if alone > 0 and block.mode is Mode.LOCAL else 1.0
    gap = float(timed.gaps[number][block.number, column]) / len(block.steps) * stretch
    start = span.ready_s
    for place in block.steps:
        local = block.mode is Mode.LOCAL
        seconds = float(timed.seconds[number][place, column])
        step_s = seconds * stretch if local else elapsed - gap
        yield Row(period, within, *own[place], start, step_s)
        start += step_s + gap


def _head(step: Step) -> Head:
    work = step.work
    return (
        step.name,
        work.kind.value,
        work.op,
        str(step.lane),
        step.phase.value,
        step.layer,
        len(step.ranks),
        step.bytes,
        step.flops,
    )
