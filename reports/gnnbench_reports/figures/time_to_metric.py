"""Time until each configuration reaches the same metric, measured and predicted."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gnnbench.metrics import measure_of
from gnnbench_reports import numbers
from gnnbench_reports.figures import drawing
from gnnbench_reports.labels import printable
from gnnbench_reports.time_to_metric import COMMON, TargetRow, target_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gnnbench_reports.study import Study

NAME = "time_to_metric"
TITLE = "Time to the same metric"
CAPTION = (
    "Training time until the validation metric reaches the target above each panel, evaluation "
    "excluded, on a logarithmic axis; “on” and its rank count follow an approach. Filled "
    "marker: measured, median over runs, the bar spans half their range either way. Hollow marker: "
    "the predicted time of a period times the measured number of periods. The target is the best "
    "metric less one point or, where some do not reach it, one that every configuration reaches."
)
_LINE_IN = 0.17


def data(study: Study) -> Any:
    """One row per configuration that reaches the target; of two targets, the one that all reach."""
    import pandas as pd

    rows: Sequence[TargetRow] = study.kept.get(NAME) or target_rows(study)
    common = {(row.dataset, row.model) for row in rows if row.rule == COMMON}
    shown = [
        row
        for row in rows
        if row.measured_s is not None
        and ((row.dataset, row.model) not in common or row.rule == COMMON)
    ]
    names = [spec.name for spec in dataclasses.fields(TargetRow)]
    frame = pd.DataFrame([dataclasses.astuple(row) for row in shown], columns=names)
    numeric = ("target", "periods", "measured_s", "spread", "predicted_s", "sent_bytes")
    return frame.astype(dict.fromkeys(numeric, "float64"))


def draw(frame: Any) -> Figure:
    """One panel per dataset and model, the soonest on top."""
    from matplotlib.lines import Line2D

    groups = {key: group for key, group in frame.groupby(["dataset", "model"], sort=False)}
    heights = {key: _LINE_IN * len(group) + 0.15 for key, group in groups.items()}
    # A matrix of datasets and models with holes would be mostly holes.
    full = len(groups) == frame["dataset"].nunique() * frame["model"].nunique()
    columns = 2 if full else 1
    figure, axes = drawing.panels(groups, heights=heights, spare_in=0.7, most_columns=columns)
    looks = drawing.looks(frame["label"])
    for key, panel in axes.items():
        group = groups[key].sort_values("measured_s", ascending=False).reset_index(drop=True)
        measure = measure_of(str(group["metric"].iloc[0]))
        goal = numbers.metric(measure, float(group["target"].iloc[0]))
        panel.set_title(f"{panel.get_title()}, {goal}")
        _panel(panel, group, looks)
    for panel in drawing.lowest(axes):
        panel.set_xlabel("training time to the target")
    grey = "#666666"
    handles = [Line2D([], [], color=grey, marker="o", ls="", label="measured")]
    if frame["predicted_s"].notna().any():
        style: dict[str, Any] = {"color": grey, "marker": "o", "mfc": "white", "ls": ""}
        handles.append(Line2D([], [], label="predicted", **style))
    drawing.legend_above(figure, handles)
    return figure


def _panel(panel: Axes, group: Any, looks: Any) -> None:
    values = group[["measured_s", "predicted_s"]].to_numpy().ravel()
    drawing.log_axis(panel, "x", values, "s")
    labels = [f"{printable(r['label'], 26)} on {r['ranks']}" for r in group.to_dict("records")]
    panel.set_yticks(range(len(labels)), labels)
    panel.set_ylim(-0.6, len(labels) - 0.4)
    for y, row in enumerate(group.to_dict("records")):
        look, took = looks[row["label"]], row["measured_s"]
        if row["predicted_s"] == row["predicted_s"]:
            hollow: dict[str, Any] = {"color": look.colour, "mfc": "white", "mew": 0.9, "ms": 5.4}
            panel.plot([row["predicted_s"]], [y], look.marker, **hollow)
        error = row["spread"] * took if row["spread"] == row["spread"] else 0.0
        panel.errorbar(
            [took],
            [y],
            xerr=[error],
            fmt=look.marker,
            color=look.colour,
            mec="white",
            mew=0.3,
            ms=4.2,
            elinewidth=0.8,
        )
        words = f"{row['label']} on {row['ranks']}: {numbers.seconds(took)}, "
        drawing.hover(panel, [(took, y, f"{words}{row['periods']:g} {row['period']}s")])
