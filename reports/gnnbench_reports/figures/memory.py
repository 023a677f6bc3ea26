"""Peak memory of the rank that needs most, measured beside predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gnnbench_reports.figures import bars

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gnnbench_reports.study import Study

NAME = "memory"
TITLE = "Peak memory"
CAPTION = (
    "Highest memory of any rank during training. Grey is the process before it holds data "
    "(interpreter and libraries), blue what the workload adds: graph, features, activations, "
    "gradients, buffers. The upper bar is measured, the hatched lower one predicted."
)
COLOURS = {"baseline": "#BBBBBB", "workload": "#4477AA"}


def data(study: Study) -> Any:
    """Two rows per configuration and side: baseline and workload bytes."""
    import pandas as pd

    names = ("graph", "model", "approach", "ranks", "side", "part", "bytes")
    found = []
    for row in bars.chosen(study.rows):
        for side in bars.SIDES:
            for part in COLOURS:
                size = getattr(row.memory, f"{side}_{part}_bytes")
                if size is not None:
                    place = (row.graph, row.model, row.label, row.ranks, side)
                    found.append((*place, part, float(size)))
    return pd.DataFrame(found, columns=list(names))


def draw(frame: Any) -> Figure:
    """One panel per graph and model."""
    return bars.draw_bars(
        frame, value="bytes", part="part", colours=COLOURS, kind="memory", xlabel="peak memory"
    )
