"""Time per period by phase, measured and predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gnnbench_reports.figures import bars, drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gnnbench_reports.study import Study

NAME = "phases"
TITLE = "Time by phase"
CAPTION = (
    "Seconds per period by phase on the slowest rank, waiting for other ranks included; the number "
    "after an approach is its rank count. Upper bar: measured (sums over the ledger's compute and "
    "communication lanes, median over periods). Hatched lower bar: predicted. Black tick: duration "
    "of the period; bars are longer where the lanes overlap, and shorter where the rank waited for "
    "another lane or did work outside any step."
)


def data(study: Study) -> Any:
    """One row per configuration, side and phase; seconds per period."""
    import pandas as pd

    place = ("dataset", "model", "approach", "ranks", "period", "side")
    names = (*place, "phase", "seconds", "mark")
    found = []
    for row in bars.chosen(study.rows):
        for side in bars.SIDES:
            total = row.measured_period_s if side == "measured" else row.predicted_period_s
            table = row.phases_measured if side == "measured" else row.phases_predicted
            where = (row.dataset, row.model, row.label, row.ranks, row.period, side)
            found += [(*where, phase, seconds, total) for phase, seconds in table.items()]
    return pd.DataFrame(found, columns=list(names)).astype({"mark": "float64"})


def draw(frame: Any) -> Figure:
    """One panel per dataset and model."""
    extra = sorted(set(frame["phase"]) - set(drawing.PHASE_COLOURS))
    colours = drawing.PHASE_COLOURS | dict.fromkeys(extra, "#999999")
    return bars.draw_bars(
        frame,
        value="seconds",
        part="phase",
        colours=colours,
        kind="s",
        xlabel=f"time per {drawing.period_noun(frame)}",
    )
