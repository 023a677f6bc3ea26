"""Bytes sent per period over ranks, counted and planned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gnnbench_reports import numbers
from gnnbench_reports.figures import dodged, drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gnnbench_reports.study import Study

NAME = "volume"
TITLE = "Communication volume over ranks"
CAPTION = (
    "Bytes that all ranks together send to other ranks per period, on a logarithmic axis. A single "
    "rank sends nothing and is not drawn."
)


def data(study: Study) -> Any:
    """One row per configuration that communicates; bytes sent per period, summed over steps."""
    import pandas as pd

    place = ("dataset", "model", "approach", "ranks", "period")
    found = []
    for row in study.rows:
        if row.counted_bytes or row.planned_bytes:
            where = (row.dataset, row.model, row.label, row.ranks, row.period)
            found.append((*where, row.counted_bytes, row.planned_bytes, row.bytes_equal))
    frame = pd.DataFrame(found, columns=[*place, "counted_bytes", "planned_bytes", "equal"])
    return frame.astype({"counted_bytes": "float64", "planned_bytes": "float64"})


def caption(frame: Any) -> str:
    """The caption, with what the marks and lines of this plot are."""
    words = CAPTION
    counted, planned = (frame[f"{name}_bytes"].notna().any() for name in ("counted", "planned"))
    if dodged.suits(frame):
        words += " Approaches are drawn next to each other at each rank count."
        words += " Filled markers: counted in runs." if counted else ""
        return words + (" Hollow markers: planned." if planned else "")
    words += " Markers: counted in runs." if counted else ""
    if planned:
        words += " Lines: planned; one that covers another is dashed, as both plans send the same."
    return words


def draw(frame: Any) -> Figure:
    """One panel per dataset and model, one colour per approach."""
    from matplotlib.lines import Line2D

    label = f"bytes sent per {drawing.period_noun(frame)}"
    if dodged.suits(frame):
        return dodged.draw(
            frame,
            measured="counted_bytes",
            predicted="planned_bytes",
            kind="bytes",
            ylabel=label,
            words=("counted", "planned"),
        )
    groups = {key: group for key, group in frame.groupby(["dataset", "model"], sort=False)}
    figure, axes = drawing.panels(groups, heights=1.25)
    looks = drawing.looks(frame["approach"])
    for key, panel in axes.items():
        group = groups[key]
        drawing.rank_axis(panel, group["ranks"])
        both = group[["counted_bytes", "planned_bytes"]].to_numpy().ravel()
        drawing.log_axis(panel, "y", both, "bytes")
        drawn: list[dict[int, float]] = []
        for name, series in group.groupby("approach", sort=False):
            look, series = looks[name], series.sort_values("ranks")
            planned = series.dropna(subset="planned_bytes")
            points = dict(zip(planned["ranks"], planned["planned_bytes"], strict=True))
            covers = any(points.items() <= other.items() for other in drawn) and len(points) > 1
            drawn.append(points)
            lone = "_" if len(planned) == 1 else None
            style = (0, (3, 3)) if covers else drawing.line_style(look)
            bytes_of = planned["planned_bytes"]
            panel.plot(planned["ranks"], bytes_of, color=look.colour, marker=lone, ms=9, ls=style)
            panel.plot(
                series["ranks"],
                series["counted_bytes"],
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
                    row[f"{word}_bytes"],
                    f"{row['approach']} on {row['ranks']}, {word}: "
                    f"{numbers.size(row[f'{word}_bytes'])}",
                )
                for word in ("planned", "counted")
                for row in group.dropna(subset=f"{word}_bytes").to_dict("records")
            ),
        )
    for panel in drawing.leftmost(axes):
        panel.set_ylabel(label)
    for panel in drawing.lowest(axes):
        panel.set_xlabel("ranks")
    handles = drawing.legend_of(looks)
    handles.append(Line2D([], [], color="#666666", marker="o", ls="", label="counted"))
    handles.append(Line2D([], [], color="#666666", label="planned"))
    drawing.legend_above(figure, handles)
    return figure
