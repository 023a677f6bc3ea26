"""Predicted against measured time per period: on the diagonal both are equal."""

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
    "One point per configuration: measured time per period on the horizontal axis, predicted on "
    "the vertical, both logarithmic. On the line both are equal; the darker band is ±10 %, the "
    "lighter ±25 %. Vertical bars: 90 % interval of the prediction."
)
# A legend of more approaches would cover points: it is drawn next to the panel.
_MOST_INSIDE, _LEGEND_IN = 4, 1.9


def data(study: Study) -> Any:
    """One row per configuration that was measured and predicted; times in seconds."""
    import pandas as pd

    names = (
        "config_id",
        "dataset",
        "model",
        "label",
        "ranks",
        "period",
        "measured_period_s",
        "repeat_spread",
        "predicted_period_s",
        "predicted_low_s",
        "predicted_high_s",
        "error",
        "inside_interval",
    )
    found = [
        tuple(getattr(row, name) for name in names) for row in study.rows if row.ratio is not None
    ]
    frame = pd.DataFrame(found, columns=list(names))
    numeric = [name for name in names if name.endswith("_s") or name == "repeat_spread"]
    return frame.astype(dict.fromkeys(numeric, "float64")).rename(columns={"label": "approach"})


def caption(frame: Any) -> str:
    """The caption, with the bars and markers of this plot."""
    words = CAPTION
    if frame["repeat_spread"].notna().any():
        words += " Horizontal bars: range of the repeats."
    if (frame["ranks"] > 1).any():
        words += " Hollow markers: more than one rank."
    return words


def draw(frame: Any) -> Figure:
    """One square panel, a colour and marker per approach."""
    from matplotlib.figure import Figure

    looks = drawing.looks(frame["approach"])
    beside = len(looks) > _MOST_INSIDE
    width = drawing.COLUMN_IN + (_LEGEND_IN if beside else 0.0)
    figure = Figure(figsize=(width, drawing.COLUMN_IN), layout="constrained")
    panel = figure.add_subplot()
    columns = ["measured_period_s", "predicted_period_s", "predicted_low_s", "predicted_high_s"]
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
        middle, predicted = group["measured_period_s"], group["predicted_period_s"]
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
    drawing.hover(
        panel,
        (
            (
                row["measured_period_s"],
                row["predicted_period_s"],
                _words(row),
            )
            for row in frame.to_dict("records")
        ),
    )
    panel.set_xlabel(f"measured time per {drawing.period_noun(frame)}")
    panel.set_ylabel(f"predicted time per {drawing.period_noun(frame)}")
    panel.set_aspect("equal")
    handles = drawing.legend_of(looks, lines=False)
    if beside:
        figure.legend(handles=handles, loc="outside right upper")
    else:
        panel.legend(handles=handles, loc="upper left")
    error = statistics.median(abs(error) for error in frame["error"])
    note = f"median error {percent(error)}, n = {len(frame)}"
    panel.text(0.97, 0.04, note, transform=panel.transAxes, ha="right", fontsize=7.5)
    return figure


def _words(row: dict[str, Any]) -> str:
    """What a point is; rows of others' tables name neither dataset nor model."""
    place = [str(row[name]) for name in ("dataset", "model") if name in row]
    predicted = drawing.timed(row, "predicted").rpartition(": ")[2]
    return f"{', '.join([*place, drawing.timed(row, 'measured')])}; predicted: {predicted}"
