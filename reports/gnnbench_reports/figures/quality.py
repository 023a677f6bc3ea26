"""The task's metric over training time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gnnbench.metrics import Measure, measure_of
from gnnbench_reports.figures import drawing
from gnnbench_reports.labels import seed_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gnnbench.approaches.card import Look
    from gnnbench.results import RunRecord
    from gnnbench_reports.study import Study

NAME = "quality"
TITLE = "Metric over training time"
CAPTION = (
    "The metric of the task over seconds of training, all periods included, evaluation excluded. "
    "Filled markers: test split of every repeat after its last period."
)
_COLUMNS = (
    "dataset",
    "model",
    "approach",
    "ranks",
    "seed",
    "repeat",
    "period",
    "trained_s",
    "split",
    "metric",
    "value",
)
_DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (4, 1.2, 1, 1.2)), (0, (7, 1.5)))


def data(study: Study) -> Any:
    """One row per evaluation: seconds trained so far, split, metric and value."""
    import pandas as pd

    found: list[tuple[Any, ...]] = []
    for row in study.rows:
        runs = sorted(study.runs_of(row), key=lambda run: _repeat(run))
        for run in runs if row.metric else ():
            place = (row.dataset, row.model, row.label, row.ranks, *_repeat(run))
            found += [
                (*place, *point, row.metric, value)
                for *point, value in _evaluations(run, row.metric, curve=run is runs[0])
            ]
    return pd.DataFrame(found, columns=list(_COLUMNS))


def _evaluations(run: RunRecord, metric: str, *, curve: bool) -> list[tuple[Any, ...]]:
    """Period, seconds trained, split and value of each evaluation to draw of one run."""
    found: list[tuple[Any, ...]] = []
    trained, number = 0.0, 0
    for at, period in enumerate(run.periods):
        trained += float(period.get("seconds") or 0.0)
        number = int(period.get("period", at))
        metrics = period.get("metrics") or {}
        value = metrics.get(f"val_{metric}", metrics.get(f"test_{metric}"))
        if curve and value is not None:
            found.append((number, trained, "val", float(value)))
    last = run.metrics.get(f"test_{metric}")
    return found if last is None else [*found, (number, trained, "test", float(last))]


def caption(frame: Any) -> str:
    """The caption, with the lines of this plot."""
    curves = frame[frame["split"] == "val"]
    if not (curves.groupby(["dataset", "model", "approach", "ranks"]).size() > 1).any():
        return CAPTION
    return (
        f"{CAPTION} Lines: validation split, or of a stream the events of an increment before they "
        "are learnt from, after each evaluated period of the first repeat; the line style shows "
        "the number of ranks."
    )


def draw(frame: Any) -> Figure:
    """One panel per dataset and model, one colour per approach, one line style per rank count."""
    from matplotlib.lines import Line2D

    groups = {key: group for key, group in frame.groupby(["dataset", "model"], sort=False)}
    figure, axes = drawing.panels(groups, heights=1.3)
    looks = drawing.looks(frame["approach"])
    counts = sorted(set(frame["ranks"]))
    dashes = {ranks: _DASHES[at % len(_DASHES)] for at, ranks in enumerate(counts)}
    left, one = drawing.leftmost(axes), frame["metric"].nunique() == 1
    for key, panel in axes.items():
        measure = measure_of(str(groups[key]["metric"].iloc[0]))
        _panel(panel, groups[key], looks, dashes, measure)
        if panel in left or not one:
            better = "" if measure.higher_is_better else ", lower is better"
            panel.set_ylabel(f"{measure.title}{', %' if measure.unit == 'share' else ''}{better}")
    for panel in drawing.lowest(axes):
        panel.set_xlabel("training time")
    handles = drawing.legend_of(looks)
    curves = frame[frame["split"] == "val"]
    if (curves.groupby(["dataset", "model", "approach", "ranks"]).size() > 1).any():
        handles += [
            Line2D([], [], color="#666666", ls=dash, label=f"{n} rank{'' if n == 1 else 's'}")
            for n, dash in dashes.items()
        ]
    handles.append(Line2D([], [], color="#666666", marker="o", ls="", label="test, at the end"))
    drawing.legend_above(figure, handles)
    return figure


def _panel(
    panel: Axes, group: Any, looks: dict[str, Look], dashes: dict[int, Any], measure: Measure
) -> None:
    from matplotlib.ticker import MaxNLocator

    scale = 100 if measure.unit == "share" else 1
    for (label, ranks), series in group.groupby(["approach", "ranks"], sort=False):
        colour, marker = looks[label].colour, looks[label].marker
        curve = series[series["split"] == "val"]
        if len(curve) > 1:
            values = scale * curve["value"]
            panel.plot(curve["trained_s"], values, color=colour, ls=dashes[ranks], lw=1)
        final = series[series["split"] == "test"]
        style: dict[str, Any] = {"color": colour, "mec": "white", "mew": 0.4, "zorder": 3}
        panel.plot(final["trained_s"], scale * final["value"], marker, **style)
    drawing.linear_axis(panel, "s", float(group["trained_s"].max()))
    panel.yaxis.set_major_locator(MaxNLocator(5))
    panel.ticklabel_format(axis="y", style="plain", useOffset=False)


def _repeat(run: RunRecord) -> tuple[int, int]:
    """Seed and repeat."""
    return seed_of(run.spec), int(run.spec.get("repeat", 0))
