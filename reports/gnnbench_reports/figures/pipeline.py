"""The timeline of two engines that hand over chunks of rows.

Not a figure of a results folder: it is drawn from the ledger rows of one acceleration or one run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnnbench.errors import SpecError
from gnnbench.ledger import Row
from gnnbench_reports.figures import drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "pipeline"
TITLE = "Pipeline of the sparse and the dense engine"
CAPTION = (
    "One bar per chunk on each engine over time, lighter and darker by turns; the middle lane is "
    "the link between the engines. White: idle. At the right: share of the time that the engine is "
    "busy."
)
LANES = ("sparse", "comm", "dense")
_MOST_BARS = 4_000


def data(rows: Sequence[Row]) -> Any:
    """One row per chunk and lane; seconds from the start of the pass."""
    import pandas as pd

    kept = [row for row in rows if row.lane in LANES]
    return pd.DataFrame(
        [(row.lane, row.phase, row.layer, row.name, row.start_s, row.duration_s) for row in kept],
        columns=["lane", "phase", "layer", "step", "start_s", "duration_s"],
    )


def draw(frame: Any) -> Figure:
    """One line per lane, one colour per phase; neighbouring chunks differ in shade."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    lanes = [lane for lane in LANES if lane in set(frame["lane"])]
    figure = Figure(
        figsize=(drawing.PAGE_IN, 0.75 + 0.36 * max(len(lanes), 1)), layout="constrained"
    )
    panel = figure.add_subplot()
    end = float((frame["start_s"] + frame["duration_s"]).max()) if len(frame) else 1.0
    for place, lane in enumerate(reversed(lanes)):
        part = frame[frame["lane"] == lane].sort_values("start_s", kind="stable")
        for phase, group in part.groupby("phase", sort=False):
            colour = drawing.PART_COLOURS.get(str(phase), "#999999")
            for spans, shade in _shades(group):
                panel.broken_barh(spans, (place - 0.36, 0.72), color=colour, alpha=shade, lw=0)
        share = float(part["duration_s"].sum()) / end if end > 0 else 0.0
        panel.text(end * 1.01, place, f"{100 * share:.0f} %", va="center", fontsize=7)
    panel.set_yticks(range(len(lanes)), list(reversed([_label(lane) for lane in lanes])))
    panel.set_ylim(-0.6, len(lanes) - 0.4)
    drawing.linear_axis(panel, "s", end)
    panel.set_xlabel("time")
    phases = list(dict.fromkeys(frame["phase"]))
    handles = [
        Patch(color=drawing.PART_COLOURS.get(str(phase), "#999999"), label=str(phase))
        for phase in phases
    ]
    if handles:
        drawing.legend_above(figure, handles)
    return figure


def kind_of(path: Path) -> str:
    """The file format of a figure, by its suffix. Raises SpecError."""
    kind = path.suffix.removeprefix(".")
    if kind not in ("pdf", "svg", "png"):
        raise SpecError(f"--figure {path}: found suffix {kind!r}, allowed: pdf, svg, png")
    return kind


def write(rows: Sequence[Row], path: Path) -> None:
    """Draw the timeline of some rows into a file."""
    with drawing.paper_style():
        content = drawing.save(draw(data(rows)), kind_of(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _shades(group: Any) -> list[tuple[list[tuple[float, float]], float]]:
    """Spans in two shades by turns; where there are too many to see, touching ones are one."""
    spans = list(zip(group["start_s"], group["duration_s"], strict=True))
    if len(spans) > _MOST_BARS:
        return [(_joined(spans), 0.85)]
    return [(spans[0::2], 0.95), (spans[1::2], 0.6)]


def _joined(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Merge spans whose gap is too small to be drawn."""
    reach = spans[-1][0] + spans[-1][1]
    gap = (reach - spans[0][0]) / _MOST_BARS
    found = [spans[0]]
    for start, length in spans[1:]:
        first, held = found[-1]
        if start - (first + held) <= gap:
            found[-1] = (first, start + length - first)
        else:
            found.append((start, length))
    return found


def _label(lane: str) -> str:
    return "link" if lane == "comm" else lane
