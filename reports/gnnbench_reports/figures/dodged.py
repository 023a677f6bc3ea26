"""Many approaches on few rank counts: drawn next to each other at each count.

Not a figure of its own: `scaling` and `volume` use it where their lines would cover each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gnnbench_reports.figures import drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gnnbench.approaches.card import Look

MOST_LINES, MOST_COUNTS = 4, 4
"""More approaches than this are too many lines; more rank counts than this are too narrow."""
LOST = ("failed", "diverged")
"""Statuses of runs that started and yield no value: figures mark them with a cross."""
_FILL = 0.86  # of the width between two rank counts
_WIDEST = 0.16


def crowded(frame: Any) -> bool:
    """Whether a panel would have more lines than can be told apart."""
    return int(frame.groupby(["dataset", "model"])["approach"].nunique().max()) > MOST_LINES


def suits(frame: Any) -> bool:
    """Whether approaches are many and rank counts few."""
    return crowded(frame) and frame["ranks"].nunique() <= MOST_COUNTS


def draw(
    frame: Any,
    *,
    measured: str,
    predicted: str,
    kind: str,
    ylabel: str,
    words: tuple[str, str],
    interval: tuple[str, str] | None = None,
    spread: str = "",
    ideal: Callable[[Any], dict[int, float]] = lambda group: {},
) -> Figure:
    """Draw one panel per dataset and model.

    Args:
        frame: columns dataset, model, approach, ranks, those named below, optionally status.
        measured, predicted: columns of values; interval: columns of the prediction's ends.
        kind: unit of the values, see `drawing.short`.
        words: names of measured and predicted values in the legend.
        spread: column of the relative spread of `measured`.
        ideal: value at each rank count to compare with, from a panel's rows.
    """
    from matplotlib.lines import Line2D

    # No space for skipped configurations and for rank counts without any value.
    valued = frame[measured].notna() | frame[predicted].notna()
    if "status" in frame:
        valued |= frame["status"].isin(LOST)
    frame = frame[valued]
    groups = {key: group for key, group in frame.groupby(["dataset", "model"], sort=False)}
    figure, axes = drawing.panels(groups, heights=1.5, most_columns=2)
    looks = drawing.looks(frame["approach"])
    values = [measured, predicted, *(interval or ())]
    failed = False
    for key, panel in axes.items():
        group = groups[key]
        drawing.log_axis(panel, "y", group[values].to_numpy().ravel(), kind)
        place = _places(panel, group, looks)
        _compare_with(panel, ideal(group), place[1])
        for row in group.to_dict("records"):
            x = place[0][row["approach"], int(row["ranks"])]
            _mark(panel, x, row, looks[row["approach"]], measured, predicted, interval, spread)
            shown = ((predicted, words[1]), (measured, words[0]))
            drawing.hover(
                panel,
                (
                    (x, row[name], _words(row, name, word, kind))
                    for name, word in shown
                    if row[name] == row[name]
                ),
            )
            if row.get("status") in LOST:
                failed = True
                bottom: dict[str, Any] = {
                    "transform": panel.get_xaxis_transform(),
                    "clip_on": False,
                }
                colour = looks[row["approach"]].colour
                panel.plot([x], [0.03], "x", color=colour, ms=3.5, mew=1, **bottom)
    for panel in drawing.leftmost(axes):
        panel.set_ylabel(ylabel)
    for panel in drawing.lowest(axes):
        panel.set_xlabel("ranks")
    handles = drawing.legend_of(looks, lines=False)
    grey = "#666666"
    if frame[measured].notna().any():
        handles.append(Line2D([], [], color=grey, marker="o", ls="", label=words[0]))
    if frame[predicted].notna().any():
        name = f"{words[1]}, 90 % interval" if interval else words[1]
        style = "-" if interval else ""
        handles.append(
            Line2D([], [], color=grey, marker="o", mfc="white", ls=style, lw=0.8, label=name)
        )
    if any(ideal(group) for group in groups.values()):
        handles.append(Line2D([], [], color="#999999", ls=":", lw=1, label="ideal"))
    if failed:
        handles.append(Line2D([], [], color=grey, marker="x", ls="", label=" or ".join(LOST)))
    drawing.legend_above(figure, handles)
    return figure


def _words(row: dict[str, Any], column: str, word: str, kind: str) -> str:
    if kind == "s":
        return drawing.timed(row, word)
    return f"{row['approach']} on {row['ranks']}, {word}: {drawing.short(row[column], kind)}"


def _places(
    panel: Axes, group: Any, looks: dict[str, Look]
) -> tuple[dict[tuple[str, int], float], dict[int, int]]:
    """Horizontal position of each approach at each rank count; prepares the axis."""
    counts = sorted({int(ranks) for ranks in group["ranks"]})
    present = set(group["approach"])
    labels = [label for label in looks if label in present]
    step = min(_FILL / len(labels), _WIDEST)
    at = {ranks: number for number, ranks in enumerate(counts)}
    place = {
        (label, ranks): at[ranks] + step * (slot - (len(labels) - 1) / 2)
        for ranks in counts
        for slot, label in enumerate(labels)
    }
    panel.set_xlim(-0.5, len(counts) - 0.5)
    panel.set_xticks(range(len(counts)), [str(ranks) for ranks in counts])
    panel.tick_params(axis="x", length=0)
    panel.grid(axis="x", visible=False)
    for border in range(1, len(counts)):
        panel.axvline(border - 0.5, color="#cccccc", lw=0.6, zorder=0)
    return place, at


def _compare_with(panel: Axes, ideal: dict[int, float], at: dict[int, int]) -> None:
    for ranks, value in ideal.items():
        if ranks in at:
            ends = [at[ranks] - _FILL / 2, at[ranks] + _FILL / 2]
            panel.plot(ends, [value, value], color="#999999", ls=":", lw=1, zorder=1)


def _mark(
    panel: Axes,
    x: float,
    row: dict[str, Any],
    look: Look,
    measured: str,
    predicted: str,
    interval: tuple[str, str] | None,
    spread: str,
) -> None:
    paired = row[predicted] == row[predicted]  # not nan
    if paired:
        if interval and row[interval[0]] == row[interval[0]]:
            ends = [row[interval[0]], row[interval[1]]]
            panel.plot([x, x], ends, color=look.colour, lw=0.9, alpha=0.55, zorder=2)
        hollow: dict[str, Any] = {
            "color": look.colour,
            "mfc": "white",
            "mew": 0.9,
            "ms": 5.4,
            "zorder": 3,
        }
        panel.plot([x], [row[predicted]], look.marker, **hollow)
    if row[measured] == row[measured]:
        relative = row[spread] if spread and row[spread] == row[spread] else 0.0
        panel.errorbar(
            [x],
            [row[measured]],
            yerr=[relative * row[measured]],
            fmt=look.marker,
            color=look.colour,
            mec="white",
            mew=0.3,
            ms=4.2 if paired else 5,
            elinewidth=0.8,
            zorder=4,
        )
