"""Bytes of partition parallelism over bytes of the mixture of parallelism, over ranks."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from gnnbench_reports.figures import drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gnnbench_reports.compare import Comparison
    from gnnbench_reports.study import Study

NAME = "crossover"
TITLE = "Partition parallelism or the mixture"
CAPTION = (
    "Features and gradients that partition parallelism sends in an epoch, divided by what the "
    "mixture of parallelism sends, as planned (counted, where only counted); weights apart. Above "
    "the line at 1 the mixture sends fewer bytes. Drawn where both are there on several numbers of "
    "ranks."
)
_SIDES = ("partition", "mixture")


def data(study: Study) -> Any:
    """One row per graph, model, pair of configurations and number of ranks.

    Only pairs that are there on at least two numbers of ranks. Bytes per epoch of all ranks.
    """
    import pandas as pd

    names = ("graph", "model", "pair", "ranks", "partition_bytes", "mixture_bytes", "ratio")
    sent: dict[tuple[str, str, int], dict[str, dict[str, float]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for row in study.rows:
        moved = _exchanged(row)
        if row.approach in _SIDES and moved:
            sent[row.graph, row.model, row.ranks][row.approach][row.label] = moved
    found = []
    for (graph, model, ranks), by_side in sorted(sent.items()):
        for one, halo in by_side["partition"].items():
            for other, relayout in by_side["mixture"].items():
                pair = f"{one} / {other}"
                found.append((graph, model, pair, ranks, halo, relayout, halo / relayout))
    frame = pd.DataFrame(found, columns=list(names))
    several = frame.groupby(["graph", "model", "pair"])["ranks"].transform("nunique") > 1
    return frame[several].reset_index(drop=True)


def _exchanged(row: Comparison) -> float | None:
    """Bytes of all-to-alls in training, planned or else counted; None when none are known."""
    total = 0.0
    for volume in row.volumes:
        if volume.kind == "all_to_all" and volume.phase in ("forward", "backward"):
            planned = volume.predicted_bytes
            total += (planned if planned is not None else volume.measured_bytes) or 0.0
    return total or None


def draw(frame: Any) -> Figure:
    """One panel per graph and model, one line per pair."""
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FuncFormatter, NullLocator

    groups = {key: group for key, group in frame.groupby(["graph", "model"], sort=False)}
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
            panel.plot(
                series["ranks"], series["ratio"], look.marker + "-", color=look.colour,
                mec="white", mew=0.4,
            )  # fmt: skip
    for panel in drawing.leftmost(axes):
        panel.set_ylabel("bytes, partition\nover mixture")
    for panel in drawing.lowest(axes):
        panel.set_xlabel("ranks")
    handles = [
        Line2D([], [], color=look.colour, marker=look.marker, label=drawing.printable(label))
        for label, look in looks.items()
    ]
    handles.append(Line2D([], [], color="#999999", ls=":", lw=1, label="same bytes"))
    drawing.legend_above(figure, handles)
    return figure
