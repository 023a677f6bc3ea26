"""Curves over the share of rows that is kept in memory: markers measured, lines predicted.

Not a figure of its own: `cache_hits` and `disk_io` use it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gnnbench_reports.figures import drawing
from gnnbench_reports.figures.dodged import LOST
from gnnbench_reports.labels import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gnnbench.approaches.card import Look

ABSENT = (*LOST, "skipped")
"""Statuses of configurations that have no measured value: crosses mark them."""
_WIDE = 8
"""Sizes that are further apart than this factor are drawn on a logarithmic axis."""
_LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (4, 1.2, 1, 1.2)))


def worth_drawing(frame: Any) -> Any:
    """The frame, or none of its rows if no series of it has values at two sizes."""
    valued = frame[frame["measured"].notna() | frame["predicted"].notna()]
    sizes = valued.groupby(["dataset", "model", "series"])["share"].nunique()
    return frame if len(sizes) and sizes.max() > 1 else frame[:0]


def legend_words(frame: Any, words: tuple[str, str]) -> list[str]:
    """Sentences that say what the marks and lines of a plot are."""
    found = []
    if frame["measured"].notna().any():
        found.append(f"Markers: {words[0]}.")
    if frame["predicted"].notna().any():
        found.append(f"Lines: {words[1]}.")
    absent = [status for status in ABSENT if (_absent(frame)["status"] == status).any()]
    if absent:
        found.append(
            f"Crosses at the lower edge: {' or '.join(absent)}; the table has the reasons."
        )
    return found


def _absent(frame: Any) -> Any:
    """The rows of configurations that ended without a measured value."""
    return frame[frame["status"].isin(ABSENT) & frame["measured"].isna()]


def draw(frame: Any, *, kind: str, xlabel: str, ylabel: str, words: tuple[str, str]) -> Figure:
    """Draw one panel per dataset and model, one colour, marker and line style per series.

    Args:
        frame: columns dataset, model, series, share, measured, predicted, status, reason.
        kind: "share", on an axis from 0 to 100 %, or a unit of `drawing.short`, on a log axis.
        xlabel, ylabel: of all panels.
        words: names of measured and predicted values.
    """
    from matplotlib.lines import Line2D

    values = frame[["measured", "predicted"]]
    if kind != "share":
        frame = frame.assign(**values.where(values > 0))  # a logarithmic axis has no zero
    groups = {key: group for key, group in frame.groupby(["dataset", "model"], sort=False)}
    figure, axes = drawing.panels(groups, heights=1.45, most_columns=3)
    looks = drawing.looks(frame["series"])
    styles = {label: _LINES[at % len(_LINES)] for at, label in enumerate(looks)}
    for key, panel in axes.items():
        group = groups[key]
        _axes(panel, group, kind)
        for label, series in group.groupby("series", sort=False):
            _curve(panel, series.sort_values("share"), looks[label], styles[label])
        _crosses(panel, _absent(group), looks)
        _tips(panel, group, kind, words)
    for panel in drawing.leftmost(axes):
        panel.set_ylabel(ylabel)
    for panel in drawing.lowest(axes):
        panel.set_xlabel(xlabel)
    handles: list[Any] = [
        Line2D(
            [],
            [],
            color=look.colour,
            marker=look.marker,
            ls=styles[label],
            label=printable(label),
        )
        for label, look in looks.items()
    ]
    grey = "#666666"
    if frame["measured"].notna().any():
        handles.append(Line2D([], [], color=grey, marker="o", ls="", label=words[0]))
    if frame["predicted"].notna().any():
        handles.append(Line2D([], [], color=grey, label=words[1]))
    absent = [status for status in ABSENT if (_absent(frame)["status"] == status).any()]
    if absent:
        label = " or ".join(absent)
        handles.append(Line2D([], [], color=grey, marker="x", ls="", label=label))
    drawing.legend_above(figure, handles)
    return figure


def _axes(panel: Axes, group: Any, kind: str) -> None:
    drawing.share_axis(panel, "x", group["share"], wide=_WIDE)
    if kind == "share":
        panel.set_ylim(0, 1.03)
        drawing.percent_ticks(panel.yaxis, (0.0, 0.25, 0.5, 0.75, 1.0))
    else:
        values = group[["measured", "predicted"]].to_numpy().ravel()
        drawing.log_axis(panel, "y", values, kind)


def _curve(panel: Axes, series: Any, look: Look, style: Any) -> None:
    predicted = series.dropna(subset="predicted")
    # One point makes no line: a short bar.
    lone = "_" if len(predicted) == 1 else None
    panel.plot(
        predicted["share"],
        predicted["predicted"],
        color=look.colour,
        marker=lone,
        ms=10,
        mew=1.2,
        ls=style,
    )
    panel.plot(
        series["share"],
        series["measured"],
        look.marker,
        color=look.colour,
        mec="white",
        mew=0.4,
        zorder=3,
    )


def _crosses(panel: Axes, absent: Any, looks: dict[str, Look]) -> None:
    """Crosses at the lower edge, those of a series in a line of their own."""
    for line, (label, series) in enumerate(absent.groupby("series", sort=False)):
        for row in series.to_dict("records"):
            (mark,) = panel.plot(
                [row["share"]],
                [0.04 + 0.07 * line],
                "x",
                color=looks[label].colour,
                ms=3.5,
                mew=1,
                transform=panel.get_xaxis_transform(),
                clip_on=False,
                zorder=4,
            )
            where = f"{label} at {100 * row['share']:.3g} %"
            drawing.tip(mark, f"{where}: {row['status']}, {row['reason']}")


def _tips(panel: Axes, group: Any, kind: str, words: tuple[str, str]) -> None:
    def shown(value: float) -> str:
        return f"{100 * value:.1f} %" if kind == "share" else drawing.short(value, kind)

    drawing.hover(
        panel,
        (
            (
                row["share"],
                row[column],
                f"{row['series']} at {100 * row['share']:.3g} %, {word}: {shown(row[column])}",
            )
            for column, word in zip(("predicted", "measured"), words[::-1], strict=True)
            for row in group.dropna(subset=column).to_dict("records")
        ),
    )
