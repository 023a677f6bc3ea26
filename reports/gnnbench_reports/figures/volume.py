"""Bytes sent per epoch over ranks, counted and planned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gnnbench_reports.figures import dodged, drawing
from gnnbench_reports.volume import total_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gnnbench_reports.study import Study

NAME = "volume"
TITLE = "Communication volume over ranks"
CAPTION = (
    "Bytes that all ranks together send in one epoch, both axes logarithmic. Markers were counted "
    "in runs, lines stand in the plans, also for rank counts that were not run. One rank sends "
    "nothing and is not drawn. With more than four approaches on few rank counts, approaches stand "
    "side by side above each count and planned bytes are hollow. A dashed line lies on another: "
    "the plans send the same."
)


def data(study: Study) -> Any:
    """One row per configuration that communicates; bytes per epoch, summed over collectives."""
    import pandas as pd

    names = ("graph", "model", "approach", "ranks", "measured_bytes", "predicted_bytes", "equal")
    found = []
    for row in study.rows:
        measured = total_bytes(row.volumes, "measured")
        predicted = total_bytes(row.volumes, "predicted")
        if measured or predicted:
            place = (row.graph, row.model, row.label, row.ranks)
            found.append((*place, measured, predicted, row.bytes_equal))
    frame = pd.DataFrame(found, columns=list(names))
    return frame.astype({"measured_bytes": "float64", "predicted_bytes": "float64"})


def draw(frame: Any) -> Figure:
    """One panel per graph and model, one colour per approach."""
    from matplotlib.lines import Line2D

    if dodged.suits(frame):
        return dodged.draw(
            frame,
            measured="measured_bytes",
            predicted="predicted_bytes",
            kind="bytes",
            ylabel="bytes sent per epoch",
            words=("counted in the run", "planned"),
        )
    groups = {key: group for key, group in frame.groupby(["graph", "model"], sort=False)}
    figure, axes = drawing.panels(groups, heights=1.25)
    looks = drawing.looks(frame["approach"])
    for key, panel in axes.items():
        group = groups[key]
        drawing.rank_axis(panel, group["ranks"])
        both = group[["measured_bytes", "predicted_bytes"]].to_numpy().ravel()
        drawing.log_axis(panel, "y", both, "bytes")
        drawn: list[dict[int, float]] = []
        for label, series in group.groupby("approach", sort=False):
            look, series = looks[label], series.sort_values("ranks")
            planned = series.dropna(subset="predicted_bytes")
            points = dict(zip(planned["ranks"], planned["predicted_bytes"], strict=True))
            covers = any(points.items() <= other.items() for other in drawn) and len(points) > 1
            drawn.append(points)
            lone = "_" if len(planned) == 1 else None
            panel.plot(
                planned["ranks"], planned["predicted_bytes"], color=look.colour, marker=lone, ms=9,
                ls=(0, (3, 3)) if covers else "-",
            )  # fmt: skip
            panel.plot(
                series["ranks"],
                series["measured_bytes"],
                look.marker,
                color=look.colour,
                mec="white",
                mew=0.4,
                zorder=3,
            )
    for panel in drawing.leftmost(axes):
        panel.set_ylabel("bytes sent per epoch")
    for panel in drawing.lowest(axes):
        panel.set_xlabel("ranks")
    handles = [
        Line2D([], [], color=look.colour, marker=look.marker, label=drawing.printable(label))
        for label, look in looks.items()
    ]
    handles.append(Line2D([], [], color="#666666", marker="o", ls="", label="counted in the run"))
    handles.append(Line2D([], [], color="#666666", label="planned"))
    drawing.legend_above(figure, handles)
    return figure
