"""Speed-up over ranks, measured and predicted, beside perfect scaling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gnnbench_reports.figures import drawing
from gnnbench_reports.numbers import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gnnbench.approaches.card import Look
    from gnnbench_reports.study import Study

NAME = "efficiency"
TITLE = "Speed-up"
CAPTION = (
    "Time on the fewest ranks over the time on n ranks, each approach against itself, both axes "
    "logarithmic; higher is better. Dotted: perfect scaling."
)


def data(study: Study) -> Any:
    """One row per configuration and side whose approach has several rank counts on that side."""
    import pandas as pd

    place = ("dataset", "model", "approach", "ranks", "side")
    found = []
    for side in ("measured", "predicted"):
        series: dict[tuple[str, str, str], list[tuple[int, float]]] = {}
        for row in study.rows:
            seconds = row.measured_period_s if side == "measured" else row.predicted_period_s
            if seconds is not None:
                key = row.dataset, row.model, row.label
                series.setdefault(key, []).append((row.ranks, seconds))
        for key, points in series.items():
            points.sort()
            (first, base), last = points[0], points[-1][0]
            if last == first:
                continue
            for ranks, seconds in points:
                speedup = base / seconds
                found.append((*key, ranks, side, speedup, speedup * first / ranks, first))
    names = [*place, "speedup", "efficiency", "base_ranks"]
    return pd.DataFrame(found, columns=names)


def caption(frame: Any) -> str:
    """The caption, with what the marks and lines of this plot are."""
    sides = set(frame["side"])
    words = " Markers: measured." if "measured" in sides else ""
    words += " Lines: predicted." if "predicted" in sides else ""
    return CAPTION + words


def draw(frame: Any) -> Figure:
    """One panel per dataset and model, one colour per approach."""
    from matplotlib.lines import Line2D

    groups = {key: group for key, group in frame.groupby(["dataset", "model"], sort=False)}
    figure, axes = drawing.panels(groups, heights=1.45)
    looks = drawing.looks(frame["approach"])
    for key, panel in axes.items():
        _panel(panel, groups[key], looks)
    for panel in drawing.leftmost(axes):
        panel.set_ylabel("speed-up")
    for panel in drawing.lowest(axes):
        panel.set_xlabel("ranks")
    handles = drawing.legend_of(looks)
    handles.append(Line2D([], [], color="#999999", ls=":", lw=1, label="perfect"))
    drawing.legend_above(figure, handles)
    return figure


def _panel(panel: Axes, group: Any, looks: dict[str, Look]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    drawing.rank_axis(panel, group["ranks"])
    low, high = group["ranks"].min(), group["ranks"].max()
    panel.plot([low, high], [1, high / low], color="#999999", ls=":", lw=1, zorder=1)
    for (label, side), series in group.groupby(["approach", "side"], sort=False):
        look, series = looks[label], series.sort_values("ranks")
        if side == "predicted":
            style = drawing.line_style(look)
            panel.plot(series["ranks"], series["speedup"], color=look.colour, ls=style)
        else:
            panel.plot(
                series["ranks"],
                series["speedup"],
                look.marker,
                color=look.colour,
                mec="white",
                mew=0.4,
                zorder=3,
            )
    drawing.hover(
        panel,
        (
            (
                row["ranks"],
                row["speedup"],
                f"{row['approach']} on {row['ranks']}, {row['side']}: {row['speedup']:.2f}×, "
                f"efficiency {percent(row['efficiency'])}",
            )
            for row in group.to_dict("records")
        ),
    )
    bottom, top = group["speedup"].min() / 1.2, max(group["speedup"].max() * 1.2, high / low)
    panel.set_yscale("log", base=2)
    ticks = [2.0**power for power in range(-6, 12) if bottom <= 2.0**power <= top]
    panel.yaxis.set_major_locator(FixedLocator(ticks or [1.0]))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    panel.set_ylim(bottom, top)
