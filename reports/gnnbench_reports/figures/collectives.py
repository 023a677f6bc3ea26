"""Bytes sent by kind of communication and phase, counted beside planned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gnnbench_reports.figures import bars

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gnnbench_reports.study import Study

NAME = "collectives"
TITLE = "Communication by collective"
CAPTION = (
    "Bytes that all ranks together send to other ranks in one epoch, by kind of communication and "
    "phase. The upper bar was counted in the run, the hatched lower one stands in the plan; '=' "
    "says that every part is the same integer, '≠' that one is not."
)
_PALETTE = (
    "#4477AA",
    "#66CCEE",
    "#CCBB44",
    "#EE6677",
    "#228833",
    "#AA3377",
    "#BBBBBB",
    "#882255",
    "#999933",
    "#44AA99",
)


def data(study: Study) -> Any:
    """One row per configuration, side and collective; bytes per epoch."""
    import pandas as pd

    names = ("graph", "model", "approach", "ranks", "side", "collective", "bytes", "equal", "note")
    signs = {True: "=", False: "≠", None: ""}
    found = []
    for row in bars.chosen(study.rows):
        for volume in row.volumes:
            for side in bars.SIDES:
                size = getattr(volume, f"{side}_bytes")
                if size:
                    place = (row.graph, row.model, row.label, row.ranks, side)
                    name = f"{volume.kind} · {volume.phase}".replace("_", "-")
                    note = signs[row.bytes_equal] if side == "predicted" else ""
                    found.append((*place, name, size, volume.equal, note))
    return pd.DataFrame(found, columns=list(names))


def draw(frame: Any) -> Figure:
    """One panel per graph and model."""
    names = sorted(set(frame["collective"]))
    colours = {name: _PALETTE[at % len(_PALETTE)] for at, name in enumerate(names)}
    return bars.draw_bars(
        frame,
        value="bytes",
        part="collective",
        colours=colours,
        kind="bytes",
        xlabel="bytes sent per epoch",
    )
