"""What a simulation yields, whichever way it was done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gnnbench.costs.facts import Floats
from gnnbench.ledger import Row
from gnnbench.plan import Step
from gnnbench_simulator.program import Block, Mode, Program


@dataclass(frozen=True, slots=True)
class Span:
    """A block as one rank executed it: `ready_s` when it could start, `end_s` when it ended."""

    iteration: int
    block: Block
    ready_s: float
    end_s: float


@dataclass(slots=True, kw_only=True)
class SimResult:
    """Times of a simulated plan. All times in seconds since its start.

    epoch_s        per epoch, from the end of the epoch before to its own end on the last rank; in
                   the vectorised replay one column per draw
    end_s          per rank, when its last step ended
    busy_s         per lane and rank, time spent working (waiting left out)
    spans          per recorded rank, its blocks in order of execution
    """

    method: str
    epoch_s: Floats
    end_s: Floats
    busy_s: dict[str, Floats]
    spans: Mapping[int, list[Span]] = field(default_factory=dict)


def ledger(program: Program, result: SimResult, rank: int) -> list[Row]:
    """Rows of a recorded rank, ordered by start; a collective's duration includes its waiting."""
    rows = [row for span in result.spans[rank] for row in _rows(program, span, rank)]
    rows.sort(key=lambda row: row.start_s)
    return rows


def _rows(program: Program, span: Span, rank: int) -> Iterable[Row]:
    plan = program.plan
    index = plan.schedule[span.iteration]
    steps = plan.iterations[index][rank]
    column = _column(program, index, rank)
    epoch, within = divmod(span.iteration, plan.iterations_per_epoch)
    block = span.block
    alone, elapsed = float(block.total[column]), span.end_s - span.ready_s
    # Contention stretches the steps of a block alike; a collective or transfer waits as well.
    stretch = elapsed / alone if alone > 0 and block.mode is Mode.LOCAL else 1.0
    gap = float(block.gap_s[column]) / len(block.steps) * stretch
    start = span.ready_s
    for place, step in enumerate(block.steps):
        local = block.mode is Mode.LOCAL
        step_s = float(block.seconds[place, column]) * stretch if local else elapsed - gap
        yield _row(steps[step], epoch, within, start, step_s)
        start += step_s + gap


def _column(program: Program, index: int, rank: int) -> int:
    """Place of a rank in the arrays of its class."""
    iteration = program.iterations[index]
    return iteration.classes[iteration.class_of[rank]].columns[rank]


def _row(step: Step, epoch: int, iteration: int, start: float, seconds: float) -> Row:
    return Row(
        epoch=epoch,
        iteration=iteration,
        name=step.name,
        kind=step.kind.value,
        op=step.op,
        lane=step.lane.value,
        phase=step.phase.value,
        layer=step.layer,
        group_size=len(step.group),
        bytes=step.bytes,
        flops=step.flops,
        start_s=start,
        duration_s=seconds,
    )
