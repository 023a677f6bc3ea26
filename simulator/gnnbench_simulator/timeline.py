"""Memory over time: bytes of living buffers as a simulation or a measured run executed a plan."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from gnnbench.ledger import Row
from gnnbench.plan import Plan
from gnnbench.steps import Space, Step, pick

_DIGITS = 9
"""Of a second: steps that end and start within a nanosecond follow each other."""


class Point(NamedTuple):
    """Bytes of living buffers from a time on, in seconds since the start."""

    at_s: float
    bytes: int


def memory_timeline(plan: Plan, rows: Iterable[Row], rank: int, *spaces: Space) -> list[Point]:
    """Follow the buffers of one rank through its ledger.

    A buffer lives from the start of the step that allocates it to the end of the step that frees
    it. Lanes overlap here as they did in time, while `Plan.peak_bytes` takes steps in program
    order: the highest point here may not be above that.

    Args:
        plan: whose steps they are.
        rows: the rank's ledger, predicted or measured.
        rank: whose.
        spaces: counted together; all if none is named.
    """
    counted = spaces or tuple(Space)
    held = {
        buffer.name: size if isinstance(size := buffer.bytes, int) else int(size[rank])
        for buffer in plan.resident
        if buffer.space in counted
    }
    points = [Point(0.0, sum(held.values()))]
    for at_s, step, begins in _events(plan, rows, rank):
        if begins:
            for buffer in step.allocates:
                if buffer.space in counted:
                    size = pick(buffer.bytes, 0)
                    held[buffer.name] = (
                        size if buffer.exact else max(size, held.get(buffer.name, 0))
                    )
        else:
            for name in step.frees:
                held.pop(name, None)
        points.append(Point(at_s, sum(held.values())))
    return points


def _events(plan: Plan, rows: Iterable[Row], rank: int) -> Iterable[tuple[float, Step, bool]]:
    """Starts and ends of the steps that allocate or free, in order of time.

    At one moment, ends come before starts; a step that takes no time starts and ends among those.
    """
    steps: dict[int, dict[str, Step]] = {}
    found: list[tuple[float, int, int, Step, bool]] = []
    for number, row in enumerate(rows):
        index = plan.schedule[plan.starts[row.period] + row.iteration]
        if index not in steps:
            steps[index] = {step.name: step for step in plan.iterations[index][rank]}
        step = steps[index][row.name]
        start, end = (
            round(row.start_s, _DIGITS),
            round(row.start_s + row.duration_s, _DIGITS),
        )
        if step.allocates:
            found.append((start, 1, 2 * number, step, True))
        if step.frees:
            found.append((end, 0 if end > start else 1, 2 * number + 1, step, False))
    found.sort(key=lambda event: event[:3])
    return ((at_s, step, begins) for at_s, _, _, step, begins in found)
