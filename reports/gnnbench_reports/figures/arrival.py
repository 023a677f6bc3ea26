"""Lag of training on a stream over the rate at which its events arrive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gnnbench_reports import arrival, numbers
from gnnbench_reports.figures import drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gnnbench.approaches.card import Look
    from gnnbench_reports.study import Study

NAME = "arrival"
TITLE = "Throughput against arrival rate"
CAPTION = (
    "Lag of the last increment over the arrival rate of the stream: seconds from the arrival of "
    "its last event until it was learnt from. Filled markers and solid lines: measured; hollow "
    "markers and dashed lines: predicted. Vertical lines: the capacity, measured (solid) and "
    "predicted (dashed), in events per second; at higher arrival rates the lag grows with every "
    "increment."
)
_DASH: dict[str, Any] = {"measured": "-", "predicted": (0, (3, 1.5))}


def data(study: Study) -> Any:
    """One row per configuration, speed-up and side: arrival rate, lag and capacity."""
    import pandas as pd

    kept = study.kept.get("arrival")
    rows = arrival.rows_of(study) if kept is None else kept
    found = [
        (row.dataset, row.model, _line(row), row.speedup, side, row.arrival_per_s, lag, capacity)
        for row in rows
        for side in arrival.SIDES
        if (lag := getattr(row, f"{side}_lag_s")) is not None
        and (capacity := getattr(row, f"{side}_capacity_per_s")) is not None
    ]
    names = ("dataset", "model", "line", "speedup", "side", "arrival_per_s", "lag_s", "capacity")
    return pd.DataFrame(found, columns=list(names)).rename(columns={"capacity": "capacity_per_s"})


def _line(row: arrival.ArrivalRow) -> str:
    return f"{row.approach}, {row.ranks} rank{'' if row.ranks == 1 else 's'}"


def draw(frame: Any) -> Figure:
    """One panel per dataset and model, one colour per approach and number of ranks."""
    from matplotlib.lines import Line2D

    groups = {key: group for key, group in frame.groupby(["dataset", "model"], sort=False)}
    figure, axes = drawing.panels(groups, heights=1.5)
    looks = drawing.looks(frame["line"])
    for key, panel in axes.items():
        _panel(panel, groups[key], looks)
    for panel in drawing.leftmost(axes):
        panel.set_ylabel("lag of the last increment")
    for panel in drawing.lowest(axes):
        panel.set_xlabel("arriving events per second")
    handles = drawing.legend_of(looks, lines=False)
    handles += [
        Line2D([], [], color="#666666", ls=_DASH[side], label=side)
        for side in arrival.SIDES
        if side in set(frame["side"])
    ]
    drawing.legend_above(figure, handles)
    return figure


def _panel(panel: Axes, group: Any, looks: dict[str, Look]) -> None:
    for (line, side), series in group.groupby(["line", "side"], sort=False):
        look, series = looks[str(line)], series.sort_values("arrival_per_s")
        face = look.colour if side == "measured" else "white"
        panel.plot(
            series["arrival_per_s"],
            series["lag_s"],
            look.marker,
            color=look.colour,
            mfc=face,
            ls=_DASH[str(side)],
            lw=1,
        )
        knee = float(series["capacity_per_s"].median())
        panel.axvline(knee, color=look.colour, ls=_DASH[str(side)], lw=0.7, alpha=0.6, zorder=1)
        drawing.hover(
            panel,
            (
                (x, y, f"{line}, {side}: {numbers.rate(x)}, lag {numbers.seconds(y)}")
                for x, y in zip(series["arrival_per_s"], series["lag_s"], strict=True)
            ),
        )
    rates = [*group["arrival_per_s"], *group["capacity_per_s"]]
    drawing.log_axis(panel, "x", rates, "rate")
    drawing.log_axis(panel, "y", group["lag_s"], "s")
