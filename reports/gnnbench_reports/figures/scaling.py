"""Time per period over ranks, measured and predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gnnbench_reports.figures import dodged, drawing
from gnnbench_reports.figures.dodged import LOST
from gnnbench_reports.labels import card

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gnnbench.approaches.card import Look
    from gnnbench_reports.comparison import Comparison
    from gnnbench_reports.study import Study

NAME = "scaling"
TITLE = "Time over ranks"
CAPTION = "Time per period over the number of ranks; lower is better."
_LINE_PT, _RIM_PT = 1.2, 2.0
"""Width of a line, and what one on which another lies is wider."""
_SAME = 0.01


def data(study: Study) -> Any:
    """One row per configuration; times in seconds, intervals at 90 %."""
    import pandas as pd

    # Of several clusters, a line is a machine and a panel an approach.
    several = len({row.cluster for row in study.rows if row.cluster}) > 1
    cut = [row.label.rpartition(" on ") if several else ("", "", row.label) for row in study.rows]
    columns = {
        "dataset": [row.dataset for row in study.rows],
        "model": [
            f"{row.model} · {label}" if label else row.model
            for row, (label, _, _) in zip(study.rows, cut, strict=True)
        ],
        "approach": [series for _, _, series in cut],
        "ranks": [row.ranks for row in study.rows],
        "period": [row.period for row in study.rows],
        "reference": [_is_reference(row) for row in study.rows],
        "status": [row.status for row in study.rows],
        "measured_period_s": [row.measured_period_s for row in study.rows],
        "repeat_spread": [row.repeat_spread for row in study.rows],
        "predicted_period_s": [row.predicted_period_s for row in study.rows],
        "predicted_low_s": [row.predicted_low_s for row in study.rows],
        "predicted_high_s": [row.predicted_high_s for row in study.rows],
        "beyond": [row.beyond for row in study.rows],
    }
    frame = pd.DataFrame(columns)
    numeric = [name for name in frame if name.endswith("_s") or name == "repeat_spread"]
    frame[numeric] = frame[numeric].astype("float64")
    timed = frame["measured_period_s"].notna() | frame["predicted_period_s"].notna()
    if several:
        # An approach on one rank count has no line, and a panel of its own would show a mark.
        panel, line = ["dataset", "model"], ["dataset", "model", "approach"]
        counts = frame[timed].groupby(line)["ranks"].transform("nunique").reindex(frame.index)
        longest = counts.groupby([frame[name] for name in panel]).transform("max")
        frame = frame[longest > 1].reset_index(drop=True)
        timed = frame["measured_period_s"].notna() | frame["predicted_period_s"].notna()
    return frame if timed.any() else frame[timed]


def caption(frame: Any) -> str:
    """The caption of this plot: what its marks and lines are, and no others."""
    measured = frame["measured_period_s"].notna().any()
    predicted = frame["predicted_period_s"].notna().any()
    dodge = dodged.suits(frame)
    crowded = dodged.crowded(frame)
    words = [f"Time per {drawing.period_noun(frame)} over the number of ranks"]
    words[0] += ", both axes logarithmic" if not dodge else ", approaches side by side"
    words[0] += "; lower is better."
    if measured:
        several = frame["repeat_spread"].notna().any()
        words.append(
            "Filled markers: measured" + (", with the range of repeats." if several else ".")
        )
    if predicted and dodge:
        words.append("Hollow markers: predicted, with the 90 % interval.")
    elif predicted:
        beyond = (frame["beyond"] != "").any()
        words.append("Lines: predicted" + ("." if crowded else ", with the 90 % interval."))
        panels = (group for _, group in frame.groupby(["dataset", "model"], sort=False))
        if any(any(_below(group).values()) for group in panels):
            words.append("A line within a wider one: equal times.")
        if beyond:
            words.append("Dashed: more hosts than the cluster is described for.")
    words.append(
        "Dotted: perfect scaling from the reference approach, or else the slowest, on the fewest "
        "ranks."
    )
    lost = [status for status in (*LOST, "skipped") if (frame["status"] == status).any()]
    shown = (
        [status for status in lost if status in LOST or not dodge] if not crowded or dodge else []
    )
    if shown:
        words.append(f"Crosses at the lower edge: {' or '.join(shown)}; the table has the reasons.")
    return " ".join(words)


def _is_reference(row: Comparison) -> bool:
    """Whether the approach is its own reference, as single-device training is."""
    known = card(row.approach)
    return known is not None and known.promise.reference == row.approach


def draw(frame: Any) -> Figure:
    """One panel per dataset and model, one colour per approach."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    if dodged.suits(frame):
        return dodged.draw(
            frame,
            measured="measured_period_s",
            predicted="predicted_period_s",
            interval=("predicted_low_s", "predicted_high_s"),
            spread="repeat_spread",
            kind="s",
            ylabel=f"time per {drawing.period_noun(frame)}",
            words=("measured", "predicted"),
            ideal=_ideal_times,
        )
    groups = {key: group for key, group in frame.groupby(["dataset", "model"], sort=False)}
    crowded = dodged.crowded(frame)
    figure, axes = drawing.panels(groups, heights=2.0 if crowded else 1.45)
    looks = drawing.looks(frame["approach"])
    for key, panel in axes.items():
        _panel(panel, groups[key], looks, crowded)
    for panel in drawing.leftmost(axes):
        panel.set_ylabel(f"time per {drawing.period_noun(frame)}")
    for panel in drawing.lowest(axes):
        panel.set_xlabel("ranks")
    handles = drawing.legend_of(looks)
    if frame["measured_period_s"].notna().any():
        handles.append(Line2D([], [], color="#666666", marker="o", ls="", label="measured"))
    if frame["predicted_period_s"].notna().any():
        handles.append(Line2D([], [], color="#666666", label="predicted"))
    if frame["predicted_low_s"].notna().any() and not crowded:
        handles.append(Patch(color="#666666", alpha=0.2, label="90 % interval"))
    handles.append(Line2D([], [], color="#999999", ls=":", lw=1, label="ideal"))
    if frame["status"].isin([*LOST, "skipped"]).any() and not crowded:
        handles.append(
            Line2D([], [], color="#666666", marker="x", ls="", label="skipped, failed or diverged")
        )
    drawing.legend_above(figure, handles)
    return figure


def _panel(panel: Axes, group: Any, looks: dict[str, Look], crowded: bool) -> None:
    shown = ["measured_period_s", "predicted_period_s"]
    times = group[shown if crowded else [*shown, "predicted_low_s", "predicted_high_s"]]
    drawing.rank_axis(panel, group["ranks"])
    drawing.log_axis(panel, "y", times.to_numpy().ravel(), "s")
    _ideal(panel, group)
    drawing.hover(
        panel,
        (
            (row["ranks"], row[f"{side}_period_s"], drawing.timed(row, side))
            for side in ("predicted", "measured")
            for row in group.dropna(subset=f"{side}_period_s").to_dict("records")
        ),
    )
    lost, below = 0, _below(group)
    for label, series in group.groupby("approach", sort=False):
        look = looks[label]
        series = series.sort_values("ranks")
        width = _LINE_PT + _RIM_PT * below[str(label)]
        _predicted(panel, series.dropna(subset="predicted_period_s"), look, crowded, width)
        _measured(panel, series.dropna(subset="measured_period_s"), look)
        absent = series[
            series["status"].isin([*LOST, "skipped"]) & series["predicted_period_s"].isna()
            | series["status"].isin(LOST)
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


def _below(group: Any) -> dict[str, int]:
    """How many predicted lines that are drawn later lie on the line of each approach."""
    lines = {
        str(label): series.set_index("ranks")["predicted_period_s"].dropna()
        for label, series in group.groupby("approach", sort=False)
    }
    names = list(lines)
    return {
        name: sum(_coincide(lines[name], lines[later]) for later in names[at + 1 :])
        for at, name in enumerate(names)
    }


def _coincide(line: Any, other: Any) -> bool:
    """Whether two lines have the same ranks, at least two, and times that no eye tells apart."""
    if len(line) < 2 or set(line.index) != set(other.index):
        return False
    return bool(((line / other - 1).abs() < _SAME).all())


def _predicted(panel: Axes, series: Any, look: Look, crowded: bool, width: float) -> None:
    if len(series) == 0:
        return
    low, high = series["predicted_low_s"], series["predicted_high_s"]
    if len(series) > 1:
        within = series[series["beyond"] == ""]
        outside = series[(series["beyond"] != "").to_numpy() | (series.index == within.index.max())]
        style = drawing.line_style(look)
        how: dict[str, Any] = {"color": look.colour, "lw": width}
        panel.plot(within["ranks"], within["predicted_period_s"], ls=style, **how)
        panel.plot(outside["ranks"], outside["predicted_period_s"], ls=(0, (3, 1.5)), **how)
        if not crowded:
            panel.fill_between(series["ranks"], low, high, color=look.colour, alpha=0.16, lw=0)
        return
    # One point makes no line: a short bar at the prediction, a thin one over its interval.
    rank = float(series["ranks"].iloc[0])
    left, right = rank / 1.12, rank * 1.12
    if not crowded:
        ends = [low.iloc[0]] * 2, [high.iloc[0]] * 2
        panel.fill_between([left, right], *ends, color=look.colour, alpha=0.16, lw=0)
    panel.plot([left, right], [series["predicted_period_s"].iloc[0]] * 2, color=look.colour)


def _measured(panel: Axes, series: Any, look: Look) -> None:
    if len(series) == 0:
        return
    spread = (series["repeat_spread"].fillna(0) * series["measured_period_s"]).to_numpy()
    panel.errorbar(
        series["ranks"],
        series["measured_period_s"],
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
    base = first[first["reference"]]
    base = base if len(base) else first
    for column in ("measured_period_s", "predicted_period_s"):
        start = base[column].max()
        if start == start:  # not nan
            ranks = sorted(set(group["ranks"]))
            return {int(rank): float(start) * ranks[0] / rank for rank in ranks}
    return {}
