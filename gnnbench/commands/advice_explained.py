"""What an answer of `gnnbench advise` rests on: steps, constants and memory, in 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from gnnbench.commands.fits import needed_over_runs
from gnnbench.commands.wording import COLUMNS, gib, gib_of_runs, percent, table, wrapped
from gnnbench.units import digits, duration

if TYPE_CHECKING:
    from gnnbench_simulator.choices import Choice


def explained(best: Choice) -> Iterator[str]:
    """The steps of the slowest rank, the constants behind them, and the memory by buffer."""
    from gnnbench_simulator.explanation import explanation
    from gnnbench_simulator.memory import DEVICE_MEMORY

    found = explanation(best)
    yield ""
    yield f"Steps of the slowest rank on {best.machine.name}, waiting included:"
    yield from table(
        [
            {
                "step": step.name,
                "operation": step.op,
                "time": duration(step.seconds),
                "share": percent(step.share),
                "evidence": step.grade or "-",
            }
            for step in found["steps"]
        ]
    )
    if found["other_steps"]:
        noun = "step" if found["other_steps"] == 1 else "steps"
        yield f"and {found['other_steps']} more {noun}: {duration(found['other_s'])}"
    yield ""
    yield "Constants behind them:"
    for basis in found["constants"]:
        text = f"- {basis.name} = {_quantity(basis.value)} {basis.unit}".rstrip()
        text = f"{text} ({basis.status}: {basis.source})"
        yield from textwrap.wrap(text, COLUMNS, subsequent_indent="  ")
    memory = found["memory"]
    for space, parts in memory["categories"].items():
        held = memory["spaces"][space]
        if not parts:
            continue
        yield ""
        over_runs = needed_over_runs(memory) if space == DEVICE_MEMORY else None
        needed = gib(held["needed_bytes"]) if over_runs is None else gib_of_runs(*over_runs)
        yield (
            f"{space.capitalize()} of rank {memory['rank']}: {needed} of {_limit(held)}, "
            f"P(out of memory) {percent(held['p_out_of_memory'])}"
        )
        yield from table([{"category": name, "size": gib(size)} for name, size in parts.items()])
        largest = list(memory["buffers"][space].items())[:8]
        text = f"largest buffers in {held['phase']}: " + ", ".join(
            f"{name} {gib(size)}" for name, size in largest
        )
        yield from wrapped(text)
    for space, needed in memory.get("evaluation_bytes", {}).items():
        yield from wrapped(
            f"evaluation of the whole dataset: {gib(needed)} of "
            f"{_limit(memory['spaces'][space])} {space}"
        )


def _limit(space: Mapping[str, Any]) -> str:
    limit = space["limit_bytes"]
    return "an unknown capacity" if limit is None else gib(limit)


def _quantity(value: float) -> str:
    return digits(value) if 0.01 <= value < 1e4 else f"{value:.3g}"
