"""Where an epoch's time goes, phase by phase, measured beside predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gnnbench_reports.figures import bars, drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gnnbench_reports.study import Study

NAME = "phases"
TITLE = "Time by phase"
CAPTION = (
    "Seconds per epoch by phase on the slowest rank, time spent waiting for other ranks included; "
    "the number beside an approach is its ranks. The upper bar is measured (sums over the ledger's "
    "compute and communication lanes, median over epochs), the hatched lower one predicted. The "
    "black tick is the epoch's duration: bars reach past it where the lanes overlap and stop "
    "short of it where the rank did something that is no step."
)


def data(study: Study) -> Any:
    """One row per configuration, side and phase; seconds per epoch."""
    import pandas as pd

    names = ("graph", "model", "approach", "ranks", "side", "phase", "seconds", "mark")
    found = []
    for row in bars.chosen(study.rows):
        for side in bars.SIDES:
            total = row.measured_epoch_s if side == "measured" else row.predicted_epoch_s
            table = row.phases_measured if side == "measured" else row.phases_predicted
            place = (row.graph, row.model, row.label, row.ranks, side)
            found += [(*place, phase, seconds, total) for phase, seconds in table.items()]
    return pd.DataFrame(found, columns=list(names)).astype({"mark": "float64"})


def draw(frame: Any) -> Figure:
    """One panel per graph and model."""
    extra = sorted(set(frame["phase"]) - set(drawing.PHASE_COLOURS))
    colours = drawing.PHASE_COLOURS | dict.fromkeys(extra, "#999999")
    return bars.draw_bars(
        frame, value="seconds", part="phase", colours=colours, kind="s", xlabel="time per epoch"
    )
