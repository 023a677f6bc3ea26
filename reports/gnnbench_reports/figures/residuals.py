"""Errors of the predictions: their distribution by approach, and against the number of ranks."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from gnnbench_reports.figures import drawing
from gnnbench_reports.labels import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gnnbench.approaches.card import Look
    from gnnbench_reports.study import Study

NAME = "residuals"
TITLE = "Errors of the predictions"
CAPTION = (
    "Predicted over measured time per period, logarithmic; 1 is right. Left: a mark per "
    "configuration and a black bar at the median of each approach. Right: the same marks over the "
    "number of ranks. Grey: within 10 and 25 %."
)
MOST = 14
"""More approaches than this make rows that cannot be told apart."""


def data(study: Study) -> Any:
    """One row per configuration that was measured and predicted."""
    import pandas as pd

    found = [
        (row.dataset, row.model, row.label, row.ranks, row.ratio)
        for row in study.rows
        if row.ratio is not None
    ]
    frame = pd.DataFrame(found, columns=["dataset", "model", "approach", "ranks", "ratio"])
    # A distribution needs more than a few values.
    enough = len(frame) >= 4 and frame["approach"].nunique() <= MOST
    return frame if enough else frame.iloc[:0]


def draw(frame: Any) -> Figure:
    """Two panels side by side."""
    from matplotlib.figure import Figure

    looks = drawing.looks(frame["approach"])
    height = max(1.7, 0.19 * len(looks) + 0.75)
    figure = Figure(figsize=(drawing.PAGE_IN, height), layout="constrained")
    by_approach, by_ranks = figure.subplots(1, 2)
    _strip(by_approach, frame, looks)
    _over_ranks(by_ranks, frame, looks)
    return figure


def _strip(panel: Axes, frame: Any, looks: dict[str, Look]) -> None:
    drawing.ratio_axis(panel, "x", frame["ratio"])
    for at, (label, look) in enumerate(looks.items()):
        own = frame[frame["approach"] == label]
        spread = [at + 0.24 * ((number * 0.618) % 1 - 0.5) * 2 for number in range(len(own))]
        panel.plot(own["ratio"], spread, look.marker, color=look.colour, ms=3, mec="none")
        middle = statistics.median(own["ratio"])
        panel.plot([middle, middle], [at - 0.36, at + 0.36], color="black", lw=1.2)
        drawing.hover(
            panel,
            (
                (row["ratio"], y, _words(row))
                for row, y in zip(own.to_dict("records"), spread, strict=True)
            ),
        )
    panel.set_yticks(range(len(looks)), [printable(label, 22) for label in looks])
    panel.set_ylim(len(looks) - 0.4, -0.6)
    panel.grid(axis="y", visible=False)
    panel.tick_params(axis="y", length=0)
    panel.set_xlabel("predicted / measured")


def _over_ranks(panel: Axes, frame: Any, looks: dict[str, Look]) -> None:
    drawing.rank_axis(panel, frame["ranks"])
    drawing.ratio_axis(panel, "y", frame["ratio"])
    width = 0.5 / max(len(looks), 1)
    for at, (label, look) in enumerate(looks.items()):
        own = frame[frame["approach"] == label]
        x = own["ranks"] * 2 ** (width * (at - (len(looks) - 1) / 2))
        panel.plot(x, own["ratio"], look.marker, color=look.colour, ms=3, mec="none")
        drawing.hover(
            panel,
            (
                (place, row["ratio"], _words(row))
                for place, row in zip(x, own.to_dict("records"), strict=True)
            ),
        )
    panel.set_xlabel("ranks")
    panel.set_ylabel("predicted / measured")


def _words(row: dict[str, Any]) -> str:
    return (
        f"{row['dataset']}, {row['model']}, {row['approach']} on {row['ranks']}: "
        f"{row['ratio']:.2f}×"
    )
