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
    "ranks, copied between memories, read from or written to disk."
)
_KINDS = {
    "all-to-all": "#4477AA",
    "all-reduce": "#AA3377",
    "all-gather": "#228833",
    "reduce-scatter": "#999933",
    "broadcast": "#EE6677",
    "send": "#882255",
    "recv": "#CC6677",
    "copy": "#888888",
    "read": "#DDAA33",
    "write": "#EE7733",
}
_WHITE = {"sample": 0.35, "fetch": 0.2, "backward": 0.5, "update": 0.3}
"""How much white a phase adds to the colour of a kind; the other phases add none."""


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
    frame = pd.DataFrame(found, columns=[*place, "step", "bytes", "equal", "note"])
    return bars.marked(frame, study.rows)


def caption(frame: Any) -> str:
    """The caption, with the bars and signs of this plot."""
    words = CAPTION + bars.caption_words(frame, "counted in the run", "planned")
    signs = set(frame["note"])
    words += " “=”: every counted volume equals the planned integer." if "=" in signs else ""
    return words + (" “≠”: a counted volume differs from the plan." if "≠" in signs else "")


def colour(step: str) -> Any:
    """The colour of a kind of step in a phase, such as "all-to-all · backward": always the same."""
    from matplotlib.colors import to_hex, to_rgb

    kind, _, phase = step.partition(" · ")
    white = _WHITE.get(phase, 0.0)
    red, green, blue = (
        1 - (1 - part) * (1 - white) for part in to_rgb(_KINDS.get(kind, "#44AA99"))
    )
    return to_hex((red, green, blue))


def draw(frame: Any) -> Figure:
    """One panel per dataset and model."""
    return bars.draw_bars(
        frame,
        value="bytes",
        part="step",
        colours={name: colour(name) for name in sorted(set(frame["step"]))},
        kind="bytes",
        xlabel=f"bytes moved per {drawing.period_noun(frame)}",
        words=("counted", "planned"),
    )
