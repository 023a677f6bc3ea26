"""Tornado of a predicted time: the operations and constants that it is most sensitive to."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gnnbench_reports.figures import drawing
from gnnbench_reports.labels import printable
from gnnbench_reports.sensitivity import CONSTANT, OPERATION, change, swing_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gnnbench_reports.study import Study

NAME = "tornado"
TITLE = "Sensitivity of the predicted time"
CAPTION = (
    "Change of the predicted time per period of the fastest configuration when one cause changes "
    "and all others stay, widest first. Operations change by their 90 % error, constants of the "
    "cluster by the factor beside the bar, since their own errors are not known. Left of the line: "
    "faster."
)
MOST_PANELS = 6
BAR_IN = 0.135
_COLOURS = {OPERATION: "#4477AA", CONSTANT: "#EE6677"}
_HATCHES = {OPERATION: "", CONSTANT: "//////"}
_WORDS = {OPERATION: "operation, by its 90 % error", CONSTANT: "constant of the cluster"}


def data(study: Study) -> Any:
    """One row per panel and cause; `low` and `high` are times over the predicted one."""
    import pandas as pd

    names = ("dataset", "model", "approach", "ranks", "cluster", "period")
    rows = swing_rows(study)
    panels = list(dict.fromkeys((row.dataset, row.model) for row in rows))[:MOST_PANELS]
    most = 10 if len(panels) <= 2 else 6
    found: list[tuple[Any, ...]] = []
    for dataset, model in panels:
        own = [row for row in rows if (row.dataset, row.model) == (dataset, model)]
        found += [
            (
                *(row.dataset, row.model, row.label, row.ranks, row.cluster, row.period),
                *(row.cause, row.what, row.grade, row.factor, row.low, row.high),
            )
            for row in own[:most]
        ]
    columns = [*names, "cause", "what", "grade", "factor", "low", "high"]
    return pd.DataFrame(found, columns=columns)


def caption(frame: Any) -> str:
    """The caption, with the configuration of each panel."""
    words = CAPTION.replace("per period", f"per {drawing.period_noun(frame)}")
    shown = frame.drop_duplicates(["dataset", "model"]).to_dict("records")
    names = "; ".join(
        f"{row['approach']} on {row['ranks']} rank{'' if row['ranks'] == 1 else 's'} of "
        f"{row['cluster']} ({row['dataset']}, {row['model']})"
        for row in shown
    )
    return f"{words} Drawn: {names}."


def draw(frame: Any) -> Figure:
    """One panel per dataset and model, one under the other: names of causes need the width."""
    from matplotlib.patches import Patch

    groups = {key: group for key, group in frame.groupby(["dataset", "model"], sort=False)}
    heights = {key: max(0.4, BAR_IN * len(group)) for key, group in groups.items()}
    figure, axes = drawing.panels(groups, heights=heights, most_columns=1)
    low, high = float(frame["low"].min()), float(frame["high"].max())
    for key, panel in axes.items():
        _panel(panel, groups[key].to_dict("records"), low, high)
    for panel in drawing.lowest(axes):
        panel.set_xlabel(f"change of the time per {drawing.period_noun(frame)}")
    handles = [
        Patch(facecolor=_COLOURS[what], hatch=_HATCHES[what], edgecolor="white", label=_WORDS[what])
        for what in _COLOURS
        if what in set(frame["what"])
    ]
    drawing.legend_above(figure, handles)
    return figure


def _panel(panel: Axes, rows: list[dict[str, Any]], low: float, high: float) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter

    for place, row in enumerate(rows):
        what = row["what"]
        bar = panel.barh(
            place,
            row["high"] - row["low"],
            0.72,
            left=row["low"],
            color=_COLOURS.get(what, "#777777"),
            hatch=_HATCHES.get(what, ""),
            edgecolor="white",
            lw=0,
        )
        drawing.tip(
            bar.patches[0],
            f"{row['cause']} ×/÷ {row['factor']:.3g} ({row['grade']}): {change(row['low'])} to "
            f"{change(row['high'])}",
        )
        panel.annotate(
            f"×/÷ {row['factor']:.3g}",
            (row["high"], place),
            (2, 0),
            textcoords="offset points",
            va="center",
            fontsize=5.5,
            color="#444444",
        )
    panel.axvline(1.0, color="black", lw=0.8, zorder=3)
    panel.set_yticks(range(len(rows)), [printable(row["cause"], 34) for row in rows], fontsize=6.5)
    panel.set_ylim(len(rows) - 0.45, -0.55)
    panel.tick_params(axis="y", length=0)
    panel.grid(axis="y", visible=False)
    # Room at the right for the factor of the longest bar.
    reach = max(high - 1, 0.0) + max(1 - low, 0.0)
    panel.set_xlim(min(low, 1.0) - 0.04 * reach, max(high, 1.0) + 0.22 * reach)
    step = drawing.round_step(max(reach, 1e-6) / 5.5)
    first, last = math.ceil((min(low, 1.0) - 1) / step), math.floor((max(high, 1.0) - 1) / step)
    panel.xaxis.set_major_locator(FixedLocator([1 + step * at for at in range(first, last + 1)]))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _percent(value - 1)))


def _percent(value: float) -> str:
    return f"{100 * value:+.3g} %" if abs(value) > 1e-9 else "0"
