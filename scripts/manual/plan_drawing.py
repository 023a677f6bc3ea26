"""The drawing of a plan: the steps of one rank in one iteration, by lane, as SVG.

Steps have equal widths, because a plan knows no durations. A step begins where its lane is free and
every step of this iteration that it waits for has ended, as the execution semantics of
`gnnbench.plan` say. Waits between lanes are lines, waits for earlier iterations are marks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from gnnbench.steps import COMMUNICATION, LATEST, After, Lane, Step
from gnnbench_reports.figures.drawing import PART_COLOURS

MOST_STEPS = 160
"""Steps that are drawn at most."""
_UNIT, _ROW, _BOX, _LEFT, _TOP = 24, 96, 84, 92, 26


@dataclass(frozen=True, slots=True)
class Placed:
    """A step with its lane's row and the unit of time in which it is drawn."""

    step: Step
    row: int
    at: int


def schedule(steps: Sequence[Step]) -> list[Placed]:
    """Place each step as early as its lane and its waits allow, in units of one step."""
    rows = {lane: row for row, lane in enumerate(_lanes(steps))}
    free = dict.fromkeys(rows, 0)
    ended: dict[str, int] = {}
    placed = []
    for step in steps:
        begins = [ended[wait.step] for wait in step.after if _inside(wait, ended)]
        at = max([free[step.lane], *begins])
        placed.append(Placed(step, rows[step.lane], at))
        free[step.lane] = ended[step.name] = at + 1
    return placed


def draw(steps: Sequence[Step], label: str) -> str:
    """Draw the steps; at most `MOST_STEPS` of them. `label` describes the drawing in words."""
    placed = schedule(steps[:MOST_STEPS])
    lanes = _lanes(steps[:MOST_STEPS])
    width = _LEFT + _UNIT * (max((one.at for one in placed), default=0) + 1) + 12
    height = _TOP + _ROW * len(lanes) + 4
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">'
    ]
    for row, lane in enumerate(lanes):
        y = _TOP + _ROW * row
        rule = y + _BOX + 6
        parts.append(
            f'<text class="lane" x="4" y="{y + _BOX // 2 + 4}">{escape(str(lane))}</text>'
            f'<line class="rule" x1="{_LEFT}" x2="{width}" y1="{rule}" y2="{rule}"/>'
        )
    parts += _waits(placed)
    parts += [_box(one) for one in placed]
    return "".join([*parts, "</svg>"])


def legend(steps: Sequence[Step]) -> str:
    """The phases that occur, in order, each with its colour."""
    phases = dict.fromkeys(step.phase.value for step in steps)
    items = (
        f'<span><i style="background:{PART_COLOURS.get(phase, _OTHER)}"></i>{phase}</span>'
        for phase in phases
    )
    return f'<div class="plan-legend">{"".join(items)}</div>'


_OTHER = "#999999"


def _lanes(steps: Sequence[Step]) -> list[Lane]:
    """The lanes that are used, in order of first use."""
    return list(dict.fromkeys(step.lane for step in steps))


def _inside(wait: After, ended: dict[str, int]) -> bool:
    return wait.lag == 0 and wait.step in ended


def _left(at: int) -> int:
    return _LEFT + _UNIT * at


def _box(one: Placed) -> str:
    step, x, y = one.step, _left(one.at), _TOP + _ROW * one.row
    colour = PART_COLOURS.get(step.phase.value, _OTHER)
    sends = ' class="sends"' if step.kind in COMMUNICATION else ""
    middle = x + _UNIT // 2 - 1
    mark = ""
    if any(wait.lag != 0 for wait in step.after):
        mark = f'<path class="earlier" d="M{x + 3} {y - 12}h15l-7.5 9z"/>'
    return (
        f"<g{sends}><title>{escape(_title(step))}</title>{mark}"
        f'<rect x="{x}" y="{y}" width="{_UNIT - 2}" height="{_BOX}" rx="2" fill="{colour}"/>'
        f'<text x="{middle}" y="{y + _BOX - 6}" transform="rotate(-90 {middle} {y + _BOX - 6})" '
        f'dy="4" fill="{_ink(colour)}">{escape(step.kind.value.replace("_", "-"))}</text></g>'
    )


def _waits(placed: Sequence[Placed]) -> list[str]:
    """Lines from the end of a step to the begin of one in another lane that waits for it."""
    by_name: dict[str, Placed] = {}
    lines = []
    for one in placed:
        for wait in one.step.after:
            source = by_name.get(wait.step) if wait.lag == 0 else None
            if source is not None and source.row != one.row:
                x1, y1 = _left(source.at) + _UNIT - 2, _TOP + _ROW * source.row + _BOX // 2
                x2, y2 = _left(one.at), _TOP + _ROW * one.row + _BOX // 2
                curve = f"M{x1} {y1}C{x1 + 14} {y1} {x2 - 14} {y2} {x2} {y2}"
                lines.append(f'<path class="wait" d="{curve}"/>')
        by_name[one.step.name] = one
    return lines


def _title(step: Step) -> str:
    """What one reads when one points at a step."""
    operation = step.op or step.kind.value
    lines = [step.name, f"{step.kind.value}, operation {operation}, {step.phase.value}"]
    lines.append(f"{step.bytes:,} bytes, {step.flops:,} flops")
    if step.ranks:
        lines.append(f"with ranks {', '.join(map(str, step.ranks))}")
    for wait in step.after:
        when = "" if wait.lag == 0 else f", {_earlier(wait)}"
        lines.append(f"waits for {wait.step}{when}")
    return "\n".join(lines)


def _earlier(wait: After) -> str:
    if wait.lag == LATEST:
        return "its latest earlier occurrence"
    return f"{wait.lag} iteration{'s' if wait.lag > 1 else ''} earlier"


def _ink(colour: str) -> str:
    """White or black, whichever reads better on a colour."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return "#000" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "#fff"
