"""Accuracy over training time: what the seconds buy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gnnbench_reports.figures import drawing
from gnnbench_reports.labels import seed_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gnnbench_reports.study import Study

NAME = "accuracy"
TITLE = "Accuracy over time"
CAPTION = (
    "Accuracy over seconds of training, all epochs counted, evaluation left out. Lines are "
    "validation accuracy after each epoch of the first repeat, where the suite asked for it; "
    "filled markers the test accuracy of every repeat after its last epoch. The line style tells "
    "the number of ranks."
)
_DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (4, 1.2, 1, 1.2)), (0, (7, 1.5)))


def data(study: Study) -> Any:
    """One row per evaluation: seconds trained so far, split, accuracy."""
    import pandas as pd

    names = (
        "graph",
        "model",
        "approach",
        "ranks",
        "seed",
        "repeat",
        "epoch",
        "trained_s",
        "split",
        "accuracy",
    )
    rows = {name: row for row in study.rows for name in row.config_ids}
    first: dict[str, tuple[int, int]] = {}
    for run in study.runs:
        if run.status == "ok":
            row = rows[run.config_id]
            repeat = _repeat(run.spec)
            first[row.config_id] = min(first.get(row.config_id, repeat), repeat)
    found = []
    for run in study.runs:
        if run.status != "ok":
            continue
        row, repeat = rows[run.config_id], _repeat(run.spec)
        place = (row.graph, row.model, row.label, row.ranks, *repeat)
        trained, last = 0.0, 0
        for at, epoch in enumerate(run.epochs):
            trained += float(epoch.get("seconds") or 0.0)
            last = int(epoch.get("epoch", at))
            value = epoch.get("val_accuracy")
            if value is not None and repeat == first[row.config_id]:
                found.append((*place, last, trained, "val", float(value)))
        if run.accuracy.get("test") is not None:
            found.append((*place, last, trained, "test", float(run.accuracy["test"])))
    return pd.DataFrame(found, columns=list(names))


def draw(frame: Any) -> Figure:
    """One panel per graph and model, one colour per approach, one line style per rank count."""
    from matplotlib.lines import Line2D

    groups = {key: group for key, group in frame.groupby(["graph", "model"], sort=False)}
    figure, axes = drawing.panels(groups, heights=1.3)
    looks = drawing.looks(frame["approach"])
    counts = sorted(set(frame["ranks"]))
    dashes = {ranks: _DASHES[at % len(_DASHES)] for at, ranks in enumerate(counts)}
    for key, panel in axes.items():
        _panel(panel, groups[key], looks, dashes)
    for panel in drawing.leftmost(axes):
        panel.set_ylabel("accuracy, %")
    for panel in drawing.lowest(axes):
        panel.set_xlabel("training time")
    handles = [
        Line2D([], [], color=look.colour, marker=look.marker, label=drawing.printable(label))
        for label, look in looks.items()
    ]
    curves = frame[frame["split"] == "val"].groupby(["graph", "model", "approach", "ranks"]).size()
    if (curves > 1).any():
        handles += [
            Line2D(
                [], [], color="#666666", ls=dash, label=f"{ranks} rank{'' if ranks == 1 else 's'}"
            )
            for ranks, dash in dashes.items()
        ]
    handles.append(Line2D([], [], color="#666666", marker="o", ls="", label="test, at the end"))
    drawing.legend_above(figure, handles)
    return figure


def _panel(panel: Axes, group: Any, looks: dict[str, drawing.Look], dashes: dict[int, Any]) -> None:
    from matplotlib.ticker import MaxNLocator

    for (label, ranks), series in group.groupby(["approach", "ranks"], sort=False):
        look = looks[label]
        curve = series[series["split"] == "val"]
        if len(curve) > 1:
            panel.plot(
                curve["trained_s"],
                100 * curve["accuracy"],
                color=look.colour,
                ls=dashes[ranks],
                lw=1,
            )
        final = series[series["split"] == "test"]
        panel.plot(
            final["trained_s"],
            100 * final["accuracy"],
            look.marker,
            color=look.colour,
            mec="white",
            mew=0.4,
            zorder=3,
        )
    drawing.linear_axis(panel, "s", float(group["trained_s"].max()))
    panel.yaxis.set_major_locator(MaxNLocator(5))
    panel.ticklabel_format(axis="y", style="plain", useOffset=False)


def _repeat(spec: Any) -> tuple[int, int]:
    """Seed and repeat."""
    return seed_of(spec), int(spec.get("repeat", 0))
