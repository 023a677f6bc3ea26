"""Where the time of a period goes, measured and predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gnnbench_reports.figures import bars, drawing
from gnnbench_reports.parts import COMMUNICATION, HIDDEN, WAITING, parts_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gnnbench_reports.study import Study

NAME = "phases"
TITLE = "Where the time goes"
CAPTION = (
    "Seconds per period on the slowest rank; the number after an approach is its rank count. Local "
    "work is coloured by phase. Black tick: duration of a period, of which the rest is idle or "
    "outside any step."
)


def data(study: Study) -> Any:
    """One row per configuration, side and part; seconds per period."""
    import pandas as pd

    place = ("dataset", "model", "approach", "ranks", "period", "side")
    names = (*place, "part", "seconds", "mark")
    found = []
    for row in bars.chosen(study.rows):
        for side in bars.SIDES:
            total = row.measured_period_s if side == "measured" else row.predicted_period_s
            table = parts_of(study, row, side)
            where = (row.dataset, row.model, row.label, row.ranks, row.period, side)
            found += [(*where, part, seconds, total) for part, seconds in table.items()]
    frame = pd.DataFrame(found, columns=list(names)).astype({"mark": "float64"})
    return bars.marked(frame, study.rows)


def caption(frame: Any) -> str:
    """The caption, with the parts that occur in this plot."""
    parts, words = set(frame["part"]), CAPTION
    if parts & {COMMUNICATION, WAITING}:
        words += (
            " Communication is counted from when the last rank has come; until then a rank waits."
        )
    lanes = [name for name in ("disk", "copy", "host") if name in parts]
    if lanes:
        words += f" {' and '.join(lanes).capitalize()}: the rank waits for that alone."
    if HIDDEN in parts:
        words += " Hidden communication runs behind other work and is drawn beyond the bar."
    return words + bars.caption_words(frame, "measured, medians over periods", "predicted")


def draw(frame: Any) -> Figure:
    """One panel per dataset and model."""
    extra = sorted(set(frame["part"]) - set(drawing.PART_COLOURS))
    colours = drawing.PART_COLOURS | dict.fromkeys(extra, "#999999")
    return bars.draw_bars(
        frame,
        value="seconds",
        part="part",
        colours=colours,
        kind="s",
        xlabel=f"time per {drawing.period_noun(frame)}",
        apart=HIDDEN,
    )
