"""Bytes moved by kind of step and phase, counted and planned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gnnbench_reports.figures import bars, drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gnnbench_reports.study import Study

NAME = "collectives"
TITLE = "Bytes moved by kind of step"
CAPTION = (
    "Bytes that all ranks together move per period, by kind of step and phase: sent to other "
    "ranks, copied between memories, read from or written to disk. Upper bar: counted in the run. "
    "Hatched lower bar: planned. “=”: every counted volume equals the planned integer. “≠”: one "
    "does not."
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


_SIDES = {"measured": "counted", "predicted": "planned"}


def data(study: Study) -> Any:
    """One row per configuration, side and kind of step; bytes per period."""
    import pandas as pd

    place = ("dataset", "model", "approach", "ranks", "period", "side")
    signs = {True: "=", False: "≠", None: ""}
    found = []
    for row in bars.chosen(study.rows):
        for volume in row.volumes:
            for side, source in _SIDES.items():
                size = getattr(volume, f"{source}_bytes")
                if size:
                    where = (row.dataset, row.model, row.label, row.ranks, row.period, side)
                    name = f"{volume.kind} · {volume.phase}".replace("_", "-")
                    note = signs[row.bytes_equal] if side == "predicted" else ""
                    found.append((*where, name, size, volume.equal, note))
    return pd.DataFrame(found, columns=[*place, "step", "bytes", "equal", "note"])


def draw(frame: Any) -> Figure:
    """One panel per dataset and model."""
    names = sorted(set(frame["step"]))
    colours = {name: _PALETTE[at % len(_PALETTE)] for at, name in enumerate(names)}
    return bars.draw_bars(
        frame,
        value="bytes",
        part="step",
        colours=colours,
        kind="bytes",
        xlabel=f"bytes moved per {drawing.period_noun(frame)}",
        words=("counted", "planned"),
    )
