"""Epoch time over ranks, measured and predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gnnbench_reports.figures import dodged, drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gnnbench_reports.study import Study

NAME = "scaling"
TITLE = "Epoch time over ranks"
CAPTION = (
    "Seconds per epoch over the number of ranks, both axes logarithmic; lower is better. Filled "
    "markers are measured medians with the range of their repeats, lines are predictions with "
    "their 90 % interval, dashed where they need more hosts than "
    "the cluster is described for. The dotted line is perfect scaling: the one-rank time of single "
    "(without it, of the slowest approach) divided by the ranks. Crosses on the lower edge are "
    "configurations that were skipped or failed. With more than four approaches on few rank "
    "counts, approaches stand side by side above each count and predictions are hollow markers "
    "with their interval as a bar; on many counts intervals and crosses are left to the tables."
)


def data(study: Study) -> Any:
    """One row per configuration; times in seconds, intervals at 90 %."""
    import pandas as pd

    columns = {
        "graph": [row.graph for row in study.rows],
        "model": [row.model for row in study.rows],
        "approach": [row.label for row in study.rows],
        "ranks": [row.ranks for row in study.rows],
        "status": [row.status for row in study.rows],
        "measured_epoch_s": [row.measured_epoch_s for row in study.rows],
        "repeat_spread": [row.repeat_spread for row in study.rows],
        "predicted_epoch_s": [row.predicted_epoch_s for row in study.rows],
        "predicted_low_s": [row.predicted_low_s for row in study.rows],
        "predicted_high_s": [row.predicted_high_s for row in study.rows],
        "beyond": [row.beyond for row in study.rows],
    }
    frame = pd.DataFrame(columns)
    numeric = [name for name in frame if name.endswith("_s") or name == "repeat_spread"]
    frame[numeric] = frame[numeric].astype("float64")
    timed = frame["measured_epoch_s"].notna() | frame["predicted_epoch_s"].notna()
    return frame if timed.any() else frame[timed]


def draw(frame: Any) -> Figure:
    """One panel per graph and model, one colour per approach."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    if dodged.suits(frame):
        return dodged.draw(
            frame,
            measured="measured_epoch_s",
            predicted="predicted_epoch_s",
            interval=("predicted_low_s", "predicted_high_s"),
            spread="repeat_spread",
            kind="s",
            ylabel="time per epoch",
            words=("measured", "predicted"),
            ideal=_ideal_times,
        )
    groups = {key: group for key, group in frame.groupby(["graph", "model"], sort=False)}
    crowded = dodged.crowded(frame)
    figure, axes = drawing.panels(groups, heights=2.0 if crowded else 1.45)
    looks = drawing.looks(frame["approach"])
    for key, panel in axes.items():
        _panel(panel, groups[key], looks, crowded)
    for panel in drawing.leftmost(axes):
        panel.set_ylabel("time per epoch")
    for panel in drawing.lowest(axes):
        panel.set_xlabel("ranks")
    handles: list[Any] = [
        Line2D([], [], color=look.colour, marker=look.marker, label=drawing.printable(label))
        for label, look in looks.items()
    ]
    if frame["measured_epoch_s"].notna().any():
        handles.append(Line2D([], [], color="#666666", marker="o", ls="", label="measured"))
    if frame["predicted_epoch_s"].notna().any():
        handles.append(Line2D([], [], color="#666666", label="predicted"))
    if frame["predicted_low_s"].notna().any() and not crowded:
        handles.append(Patch(color="#666666", alpha=0.2, label="90 % interval"))
    handles.append(Line2D([], [], color="#999999", ls=":", lw=1, label="ideal"))
    if frame["status"].isin(["failed", "skipped"]).any() and not crowded:
        handles.append(
            Line2D([], [], color="#666666", marker="x", ls="", label="skipped or failed")
        )
    drawing.legend_above(figure, handles)
    return figure


def _panel(panel: Axes, group: Any, looks: dict[str, drawing.Look], crowded: bool) -> None:
    shown = ["measured_epoch_s", "predicted_epoch_s"]
    times = group[shown if crowded else [*shown, "predicted_low_s", "predicted_high_s"]]
    drawing.rank_axis(panel, group["ranks"])
    drawing.log_axis(panel, "y", times.to_numpy().ravel(), "s")
    _ideal(panel, group)
    lost = 0
    for label, series in group.groupby("approach", sort=False):
        look = looks[label]
        series = series.sort_values("ranks")
        _predicted(panel, series.dropna(subset="predicted_epoch_s"), look, crowded)
        _measured(panel, series.dropna(subset="measured_epoch_s"), look)
        absent = series[
            series["status"].isin(["failed", "skipped"]) & series["predicted_epoch_s"].isna()
            | (series["status"] == "failed")
        ]
        if len(absent) and not crowded:
            height = [0.035 + 0.06 * lost] * len(absent)
            panel.plot(
                absent["ranks"],
                height,
                "x",
                color=look.colour,
                ms=3.5,
                mew=1,
                transform=panel.get_xaxis_transform(),
                clip_on=False,
            )
            lost += 1


def _predicted(panel: Axes, series: Any, look: drawing.Look, crowded: bool) -> None:
    if len(series) == 0:
        return
    low, high = series["predicted_low_s"], series["predicted_high_s"]
    if len(series) > 1:
        within = series[series["beyond"] == ""]
        outside = series[(series["beyond"] != "").to_numpy() | (series.index == within.index.max())]
        panel.plot(within["ranks"], within["predicted_epoch_s"], color=look.colour)
        panel.plot(
            outside["ranks"], outside["predicted_epoch_s"], color=look.colour, ls=(0, (3, 1.5))
        )
        if not crowded:
            panel.fill_between(series["ranks"], low, high, color=look.colour, alpha=0.16, lw=0)
        return
    # One point makes no line: a short bar at the prediction, a thin one over its interval.
    rank = float(series["ranks"].iloc[0])
    left, right = rank / 1.12, rank * 1.12
    if not crowded:
        panel.fill_between([left, right], [low.iloc[0]] * 2, [high.iloc[0]] * 2, color=look.colour,
                           alpha=0.16, lw=0)  # fmt: skip
    panel.plot([left, right], [series["predicted_epoch_s"].iloc[0]] * 2, color=look.colour)


def _measured(panel: Axes, series: Any, look: drawing.Look) -> None:
    if len(series) == 0:
        return
    spread = (series["repeat_spread"].fillna(0) * series["measured_epoch_s"]).to_numpy()
    panel.errorbar(
        series["ranks"],
        series["measured_epoch_s"],
        yerr=spread,
        fmt=look.marker,
        color=look.colour,
        mec="white",
        mew=0.4,
        elinewidth=0.8,
        zorder=3,
    )


def _ideal(panel: Axes, group: Any) -> None:
    ideal = _ideal_times(group)
    if ideal:
        panel.plot(list(ideal), list(ideal.values()), color="#999999", ls=":", lw=1, zorder=1)


def _ideal_times(group: Any) -> dict[int, float]:
    """Seconds at each rank count under perfect scaling; empty where the base has no time."""
    first = group[group["ranks"] == group["ranks"].min()]
    base = first[first["approach"] == "single"]
    base = base if len(base) else first
    for column in ("measured_epoch_s", "predicted_epoch_s"):
        start = base[column].max()
        if start == start:  # not nan
            ranks = sorted(set(group["ranks"]))
            return {int(rank): float(start) * ranks[0] / rank for rank in ranks}
    return {}
