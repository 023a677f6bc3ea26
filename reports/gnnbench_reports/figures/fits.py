"""What fills the memory with the least room, and its limit; also where it does not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gnnbench.buffers import CATEGORIES
from gnnbench_reports.figures import bars
from gnnbench_reports.fits import FitRow, fit_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gnnbench_reports.study import Study

NAME = "fits"
TITLE = "Does it fit"
CAPTION = (
    "Predicted need of the memory with the least room, on the rank with the least room, at its "
    "peak, by what fills it."
)
COLOURS = dict(
    zip(
        CATEGORIES,
        ("#4477AA", "#66CCEE", "#228833", "#CCBB44", "#EE6677", "#BBBBBB", "#DDDDDD"),
        strict=True,
    )
)


def data(study: Study) -> Any:
    """A row per configuration and category, in bytes, with the limit as `mark`."""
    import pandas as pd

    rows = fit_rows(study)
    kept = {(r.dataset, r.model, r.label, r.ranks) for r in bars.chosen(study.rows)}
    lost = {(r.dataset, r.model, r.approach, r.ranks) for r in rows if r.verdict != "fits"}
    found = [
        line
        for row in rows
        if (row.dataset, row.model, row.approach, row.ranks) in kept | lost
        for line in _lines(row)
    ]
    names = ("dataset", "model", "approach", "ranks", "side", "part", "bytes", "mark", "note")
    return bars.marked(pd.DataFrame(found, columns=list(names)), study.rows)


def caption(frame: Any) -> str:
    """The caption, with the notes of this plot."""
    words, drawn = CAPTION, bars.far_limits(frame, "bytes")
    if drawn["mark"].notna().any():
        words += " Black tick: capacity or cap of that memory."
    if drawn["mark"].isna().any():
        words += " Number after a bar: the capacity or cap, far beyond it."
    if set(frame["note"]) - {""}:
        words += " Configurations that do not fit, or may run out of memory, have a note."
    return words + (bars.THINNED if frame.attrs.get("thinned") else "")


def _lines(row: FitRow) -> list[tuple[Any, ...]]:
    place = (row.dataset, row.model, row.approach, row.ranks, "predicted")
    note = "" if row.verdict == "fits" else row.verdict
    parts = {name: row.categories[name] for name in CATEGORIES if row.categories.get(name)}
    return [(*place, name, float(size), row.limit_bytes, note) for name, size in parts.items()]


def draw(frame: Any) -> Figure:
    """One panel per dataset and model."""
    return bars.draw_bars(
        bars.far_limits(frame, "bytes"),
        value="bytes",
        part="part",
        colours=COLOURS,
        kind="bytes",
        xlabel="predicted need, and limit",
        mark="limit",
    )
