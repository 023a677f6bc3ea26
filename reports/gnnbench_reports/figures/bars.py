"""Stacked horizontal bars, measured above predicted, for each approach and rank count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gnnbench_reports.figures import drawing
from gnnbench_reports.labels import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gnnbench_reports.comparison import Comparison

BAR_IN = 0.085
SLOT_IN = 0.235
MAX_SLOTS = 14
_SHORT_LABEL = 16
MOST_MEASURED = 160
THINNED = (
    f" Of more than {MOST_MEASURED} measured configurations, those on the fewest and on the most "
    "ranks are drawn."
)
"""Sentence of the captions: see `chosen`."""
SIDES = ("measured", "predicted")
FAR = 4.0
"""Limits so many times beyond the longest bar of a panel are written as numbers: their ticks would
squeeze the bars until their parts cannot be seen."""


def marked(frame: Any, rows: Sequence[Comparison]) -> Any:
    """The frame of a figure; it says whether `chosen` left rows out, for the caption."""
    frame.attrs["thinned"] = sum(row.measured for row in rows) > MOST_MEASURED
    return frame


def caption_words(frame: Any, measured: str, predicted: str) -> str:
    """Which bars of this plot are which, and what is not drawn."""
    sides = set(frame["side"])
    if len(sides) > 1:
        words = f" Upper bar: {measured}. Hatched lower bar: {predicted}."
    else:
        words = f" Bars: {measured if 'measured' in sides else predicted}."
    return words + (THINNED if frame.attrs.get("thinned") else "")


def chosen(rows: Iterable[Comparison]) -> list[Comparison]:
    """The rows to draw bars for: the measured ones, else predictions at a few rank counts.

    Of many measured ones, those on the fewest and on the most ranks of each dataset, model and
    approach: a page holds no more bars.
    """
    known = [row for row in rows if row.measured or row.predicted]
    measured = [row for row in known if row.measured]
    if len(measured) > MOST_MEASURED:
        return _ends(measured)
    if measured:
        return measured
    by_place: dict[tuple[str, str], list[Comparison]] = {}
    for row in known:
        by_place.setdefault((row.dataset, row.model), []).append(row)
    kept = []
    for group in by_place.values():
        counts = sorted({row.ranks for row in group})
        labels = len({row.label for row in group})
        few = counts[:: max(1, -(-len(counts) * labels // MAX_SLOTS))]
        kept += [row for row in group if row.ranks in few]
    return kept


def _ends(rows: Iterable[Comparison]) -> list[Comparison]:
    """The rows on the fewest and on the most ranks of each dataset, model and approach."""
    series: dict[tuple[str, str, str], list[Comparison]] = {}
    for row in rows:
        series.setdefault((row.dataset, row.model, row.label), []).append(row)
    found = []
    for group in series.values():
        counts = sorted({row.ranks for row in group})
        found += [row for row in group if row.ranks in (counts[0], counts[-1])]
    return found


def far_limits(frame: Any, value: str) -> Any:
    """The frame without limits of panels where all are far; their bars have a note instead."""
    found = frame.copy()
    for _, group in frame.groupby(["dataset", "model"], sort=False):
        totals = group.groupby(["approach", "ranks", "side"], sort=False)[value].sum()
        if len(group) and group["mark"].min() > FAR * totals.max():
            at = group.index
            sizes = [f"of {drawing.short(float(mark), 'bytes')}" for mark in group["mark"]]
            found.loc[at, "note"] = sizes
            found.loc[at, "mark"] = float("nan")
    return found


def draw_bars(
    frame: Any,
    *,
    value: str,
    part: str,
    colours: Mapping[str, str],
    kind: str,
    xlabel: str,
    words: tuple[str, str] = SIDES,
    apart: str = "",
    mark: str = "",
) -> Figure:
    """Draw `frame`: columns dataset, model, approach, ranks, side, `part` and `value`.

    An optional column `mark` is drawn as a black tick on the bar (one value per bar), an optional
    column `note` is written after it. `words` name the sides in the legend, `mark` the tick; by
    default it is the time of a period. The part `apart` is no part of the sum: an outline beyond
    the bar and its mark.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    groups = {key: group for key, group in frame.groupby(["dataset", "model"], sort=False)}
    slots = {key: _slots(group) for key, group in groups.items()}
    if drawing.is_matrix(groups):
        # The same bars in each line of panels, so that only the leftmost panel needs labels.
        slots = {
            (dataset, model): _slots(frame[frame["model"] == model]) for dataset, model in groups
        }
    heights = {key: max(0.35, SLOT_IN * len(found)) for key, found in slots.items()}
    # Panels that run on line by line have labels each: long ones leave room for two in a line.
    long = any(len(_label(slot)) > _SHORT_LABEL for found in slots.values() for slot in found)
    most = 2 if long and not drawing.is_matrix(groups) else drawing.MAX_COLUMNS
    figure, axes = drawing.panels(groups, heights=heights, most_columns=most)
    left = drawing.leftmost(axes)
    for key, panel in axes.items():
        _panel(panel, groups[key], slots[key], value, part, colours, kind, apart)
        if drawing.is_matrix(groups) and panel not in left:
            panel.set_yticklabels([])
    for panel in drawing.lowest(axes):
        panel.set_xlabel(xlabel)
    used = [name for name in colours if name in set(frame[part])]
    handles: list[Any] = [
        Patch(label=printable(n), **_outline(colours[n]))
        if n == apart
        else Patch(facecolor=colours[n], label=printable(n))
        for n in used
    ]
    sides = set(frame["side"])
    where = (" (upper bar)", " (lower)") if len(sides) > 1 else ("", "")
    if "measured" in sides:
        handles.append(Patch(facecolor="#777777", label=f"{words[0]}{where[0]}"))
    if "predicted" in sides:
        label = f"{words[1]}{where[1]}"
        handles.append(Patch(facecolor="#777777", edgecolor="white", hatch="//////", label=label))
    if "mark" in frame and frame["mark"].notna().any():
        handles.append(
            Line2D(
                [],
                [],
                color="black",
                marker="|",
                ls="",
                ms=7,
                mew=1.2,
                label=mark or f"time per {drawing.period_noun(frame)}",
            )
        )
    drawing.legend_above(figure, handles)
    return figure


Slot = tuple[str, int]


def _label(slot: Slot) -> str:
    return f"{printable(slot[0], 22)} · {slot[1]}"


def _slots(group: Any) -> list[Slot]:
    pairs = zip(group["approach"], group["ranks"], strict=True)
    order = list(drawing.looks(group["approach"]))
    return sorted({(str(a), int(r)) for a, r in pairs}, key=lambda s: (order.index(s[0]), s[1]))


def _panel(
    panel: Axes,
    group: Any,
    slots: list[Slot],
    value: str,
    part: str,
    colours: Mapping[str, str],
    kind: str,
    apart: str,
) -> None:
    place = {slot: at for at, slot in enumerate(slots)}
    present = set(_slots(group))
    for slot in slots:
        if slot not in present:
            _note(panel, "none", (0, place[slot]), 3, fontsize=6, color="#888888")
    height = BAR_IN / SLOT_IN
    if group["side"].nunique() == 1:
        height *= 1.7
        offset = {side: 0.0 for side in SIDES}
    else:
        offset = {"measured": -0.56 * height, "predicted": 0.56 * height}
    highest = 0.0
    for (approach, ranks, side), bar in group.groupby(["approach", "ranks", "side"], sort=False):
        y = place[approach, int(ranks)] + offset[side]
        amounts = dict(zip(bar[part], bar[value], strict=True))
        end = 0.0
        for name in colours:
            amount = float(amounts.get(name, 0.0))
            if amount <= 0 or name == apart:
                continue
            hatched = {"hatch": "//////", "edgecolor": "white"} if side == "predicted" else {}
            drawn = panel.barh(y, amount, height, left=end, color=colours[name], lw=0, **hatched)  # type: ignore[arg-type]
            for patch in drawn:
                shown = drawing.short(amount, kind)
                drawing.tip(patch, f"{approach} on {ranks}, {side}: {name} {shown}")
            end += amount
        highest = max(highest, end)
        if "mark" in bar and bar["mark"].notna().any():
            at = float(bar["mark"].iloc[0])
            panel.plot([at, at], [y - height / 2, y + height / 2], color="black", lw=1.2)
            end = max(end, at)
            highest = max(highest, end)
        if amounts.get(apart, 0.0) > 0:
            amount = float(amounts[apart])
            drawn = panel.barh(y, amount, 0.7 * height, left=end, **_outline(colours[apart]))
            shown = drawing.short(amount, kind)
            drawing.tip(drawn.patches[0], f"{approach} on {ranks}, {side}: {apart} {shown}")
            highest = max(highest, end + amount)
        if "note" in bar and str(bar["note"].iloc[0]):
            _note(panel, str(bar["note"].iloc[0]), (end, y), 2, fontsize=5.5, color="#444444")
    panel.set_yticks(range(len(slots)), [_label(slot) for slot in slots])
    panel.set_ylim(len(slots) - 0.45, -0.55)
    panel.tick_params(axis="y", length=0)
    panel.grid(axis="y", visible=False)
    drawing.linear_axis(panel, kind, highest)


def _outline(colour: str) -> dict[str, Any]:
    return {"facecolor": "none", "edgecolor": colour, "linewidth": 0.8}


def _note(panel: Axes, text: str, at: tuple[float, float], right_pt: int, **style: Any) -> None:
    """Write a text to the right of a point."""
    panel.annotate(text, at, (right_pt, 0), textcoords="offset points", va="center", **style)
