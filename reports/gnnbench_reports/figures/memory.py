"""Peak memory of the rank with the highest peak, measured and predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gnnbench_reports.figures import bars

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gnnbench_reports.study import Study

NAME = "memory"
TITLE = "Peak memory"
CAPTION = (
    "Highest memory of any rank during training. Grey: the process (on a GPU, the device context) "
    "before it holds data. Blue: the workload, that is graph, features, activations, gradients and "
    "buffers."
)
COLOURS = {"baseline": "#BBBBBB", "workload": "#4477AA"}


def data(study: Study) -> Any:
    """Two rows per configuration and side: baseline and workload bytes."""
    import pandas as pd

    names = ("dataset", "model", "approach", "ranks", "side", "part", "bytes")
    found = []
    for row in bars.chosen(study.rows):
        for side in bars.SIDES:
            for part in COLOURS:
                size = getattr(row.memory, f"{side}_{part}_bytes")
                if size is not None:
                    place = (row.dataset, row.model, row.label, row.ranks, side)
                    found.append((*place, part, float(size)))
    return bars.marked(pd.DataFrame(found, columns=list(names)), study.rows)


def caption(frame: Any) -> str:
    """The caption, with the bars of this plot."""
    return CAPTION + bars.caption_words(frame, "measured", "predicted")


def draw(frame: Any) -> Figure:
    """One panel per dataset and model."""
    return bars.draw_bars(
        frame, value="bytes", part="part", colours=COLOURS, kind="bytes", xlabel="peak memory"
    )
