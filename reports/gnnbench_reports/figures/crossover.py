"""Pairs of approaches whose communication volumes cross as ranks are added."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import TYPE_CHECKING, Any

from gnnbench.steps import Phase
from gnnbench_reports.figures import drawing
from gnnbench_reports.volume import SENT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gnnbench_reports.comparison import Comparison
    from gnnbench_reports.study import Study

NAME = "crossover"
TITLE = "Crossover of communication volumes"
MOST_PAIRS = 8
CAPTION = (
    "Pairs of approaches of which one sends fewer bytes on few ranks and the other on many: bytes "
    "of the first divided by bytes of the second, per period, planned (or counted, where there is "
    "no plan), without the gradient all-reduce of the weights, which both have. Above the line at "
    "1 the second sends fewer bytes. At most "
    f"{MOST_PAIRS} pairs are drawn, those whose ratio changes most."
)
_COUNTED_PHASES = frozenset({Phase.FETCH.value, Phase.FORWARD.value, Phase.BACKWARD.value})


def data(study: Study) -> Any:
    """One row per dataset, model, pair of approaches and number of ranks; bytes per period."""
    import pandas as pd

    sent: dict[tuple[str, str], dict[str, dict[int, float]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for row in study.rows:
        moved = _exchanged(row)
        if moved:
            sent[row.dataset, row.model][row.label][row.ranks] = moved
    found = [
        (dataset, model, *line)
        for (dataset, model), by_label in sorted(sent.items())
        for line in _crossing(by_label)
    ]
    names = ("dataset", "model", "pair", "ranks", "first_bytes", "second_bytes", "ratio")
    frame = pd.DataFrame(found, columns=list(names))
    ratios = frame.astype({"ratio": "float64"}).groupby("pair")["ratio"]
    most = (ratios.max() / ratios.min()).nlargest(MOST_PAIRS).index
    return frame[frame["pair"].isin(most)].reset_index(drop=True)


def _crossing(by_label: Mapping[str, Mapping[int, float]]) -> Iterator[tuple[Any, ...]]:
    """Lines of the pairs whose ratio passes 1; the first sends fewer bytes on the fewest ranks."""
    for one, other in combinations(sorted(by_label), 2):
        ranks = sorted(by_label[one].keys() & by_label[other].keys())
        if not ranks:
            continue
        first, second = one, other
        if by_label[one][ranks[0]] > by_label[other][ranks[0]]:
            first, second = other, one
        points = [(n, by_label[first][n], by_label[second][n]) for n in ranks]
        if points[0][1] < points[0][2] and any(a > b for _, a, b in points):
            yield from ((f"{first} / {second}", n, a, b, a / b) for n, a, b in points)


def _exchanged(row: Comparison) -> float | None:
    """Bytes of features, activations and their gradients, planned or else counted."""
    total = 0.0
    for volume in row.volumes:
        if volume.kind in SENT and volume.phase in _COUNTED_PHASES:
            planned = volume.planned_bytes
            total += (planned if planned is not None else volume.counted_bytes) or 0.0
    return total or None


def draw(frame: Any) -> Figure:
    """One panel per dataset and model, one line per pair."""
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FuncFormatter, NullLocator

    groups = {key: group for key, group in frame.groupby(["dataset", "model"], sort=False)}
    figure, axes = drawing.panels(groups, heights=1.25)
    looks = drawing.looks(frame["pair"])
    low, high = min(frame["ratio"].min(), 1.0), max(frame["ratio"].max(), 1.0)
    ticks = [2.0**power for power in range(-20, 21) if low / 1.5 <= 2.0**power <= high * 1.5]
    for key, panel in axes.items():
        group = groups[key]
        drawing.rank_axis(panel, group["ranks"])
        panel.set_yscale("log", base=2)
        panel.set_ylim(low / 1.5, high * 1.5)
        panel.set_yticks(ticks[:: -(-len(ticks) // 6)])
        panel.yaxis.set_minor_locator(NullLocator())
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.axhline(1.0, color="#999999", ls=":", lw=1, zorder=1)
        for label, series in group.groupby("pair", sort=False):
            look, series = looks[label], series.sort_values("ranks")
            style: dict[str, Any] = {"color": look.colour, "mec": "white", "mew": 0.4}
            panel.plot(series["ranks"], series["ratio"], look.marker + "-", **style)
    for panel in drawing.leftmost(axes):
        panel.set_ylabel("bytes, first\nover second")
    for panel in drawing.lowest(axes):
        panel.set_xlabel("ranks")
    handles = drawing.legend_of(looks)
    handles.append(Line2D([], [], color="#999999", ls=":", lw=1, label="equal bytes"))
    drawing.legend_above(figure, handles)
    return figure
