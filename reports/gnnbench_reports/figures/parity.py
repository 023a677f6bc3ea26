"""Predicted against measured epoch time: on the diagonal the prediction is right."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from gnnbench_reports.figures import drawing
from gnnbench_reports.numbers import percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gnnbench_reports.study import Study

NAME = "parity"
TITLE = "Predicted against measured"
CAPTION = (
    "Each point is one configuration: measured seconds per epoch across, predicted upwards, both "
    "axes logarithmic. On the line the two agree; the darker band is ±10 %, the lighter ±25 %. "
    "Vertical bars are the 90 % interval of the prediction, horizontal ones the range of the "
    "repeats. Hollow markers have more than one rank."
)
# Up to so many approaches the legend leaves the points room; a longer one stands beside the panel.
_MOST_INSIDE, _LEGEND_IN = 4, 1.9


def data(study: Study) -> Any:
    """One row per configuration that has both worlds; times in seconds."""
    import pandas as pd

    names = (
        "config_id", "graph", "model", "approach", "ranks", "measured_epoch_s", "repeat_spread",
        "predicted_epoch_s", "predicted_low_s", "predicted_high_s", "error", "inside_interval",
    )  # fmt: skip
    found = [
        (
            row.config_id, row.graph, row.model, row.label, row.ranks, row.measured_epoch_s,
            row.repeat_spread, row.predicted_epoch_s, row.predicted_low_s, row.predicted_high_s,
            row.error, row.inside_interval,
        )
        for row in study.rows
        if row.ratio is not None
    ]  # fmt: skip
    frame = pd.DataFrame(found, columns=list(names))
    numeric = [name for name in names if name.endswith("_s") or name == "repeat_spread"]
    return frame.astype(dict.fromkeys(numeric, "float64"))


def draw(frame: Any) -> Figure:
    """One square panel, a colour and marker per approach."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    looks = drawing.looks(frame["approach"])
    beside = len(looks) > _MOST_INSIDE
    width = drawing.COLUMN_IN + (_LEGEND_IN if beside else 0.0)
    figure = Figure(figsize=(width, drawing.COLUMN_IN), layout="constrained")
    panel = figure.add_subplot()
    columns = ["measured_epoch_s", "predicted_epoch_s", "predicted_low_s", "predicted_high_s"]
    values = frame[columns].to_numpy().ravel()
    drawing.log_axis(panel, "x", values, "s")
    drawing.log_axis(panel, "y", values, "s")
    low, high = panel.get_xlim()
    ends = [low, high]
    for share, shade in ((0.25, "#eeeeee"), (0.10, "#d9d9d9")):
        below, above = [x * (1 - share) for x in ends], [x * (1 + share) for x in ends]
        panel.fill_between(ends, below, above, color=shade, lw=0, zorder=0.5)
    panel.plot(ends, ends, color="#777777", lw=0.8, zorder=0.6)
    for (label, several), group in frame.groupby(["approach", frame["ranks"] > 1], sort=False):
        look = looks[label]
        middle, predicted = group["measured_epoch_s"], group["predicted_epoch_s"]
        below = (predicted - group["predicted_low_s"]).fillna(0).clip(lower=0)
        above = (group["predicted_high_s"] - predicted).fillna(0).clip(lower=0)
        panel.errorbar(
            middle,
            predicted,
            yerr=[below, above],
            xerr=group["repeat_spread"].fillna(0) * middle,
            fmt=look.marker,
            color=look.colour,
            mfc="white" if several else look.colour,
            mec=look.colour,
            mew=0.8,
            ms=3.6,
            elinewidth=0.5,
        )
    panel.set_xlabel("measured time per epoch")
    panel.set_ylabel("predicted time per epoch")
    panel.set_aspect("equal")
    handles = [
        Line2D([], [], color=look.colour, marker=look.marker, ls="", label=drawing.printable(label))
        for label, look in looks.items()
    ]
    if beside:
        figure.legend(handles=handles, loc="outside right upper")
    else:
        panel.legend(handles=handles, loc="upper left")
    error = statistics.median(abs(error) for error in frame["error"])
    panel.text(
        0.97, 0.04, f"median error {percent(error)}, n = {len(frame)}",
        transform=panel.transAxes, ha="right", fontsize=7.5,
    )  # fmt: skip
    return figure
