"""Where the time of a period goes, measured and predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gnnbench_reports.figures import bars, drawing
from gnnbench_reports.parts import HIDDEN, parts_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gnnbench_reports.study import Study

NAME = "phases"
TITLE = "Where the time goes"
CAPTION = (
    "Seconds per period on the slowest rank; the number after an approach is its rank count. Local "
    "work is coloured by phase. Communication excludes, and waiting is, the time spent until the "
    "last rank has come. Disk, copy and host: the rank waits for that lane and does nothing else. "
    "Upper bar: measured (medians over periods of the ledger). Hatched lower bar: predicted. Black "
    "tick: duration of the period, of which the rest is idle or outside any step. Hidden "
    "communication runs behind other work and is drawn beyond the tick, not in the bar."
    + bars.THINNED
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
    return pd.DataFrame(found, columns=list(names)).astype({"mark": "float64"})


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
