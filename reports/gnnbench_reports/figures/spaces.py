"""Predicted memory by category in each memory of a machine, with its limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gnnbench_reports import numbers
from gnnbench_reports.figures import bars

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gnnbench_reports.study import Study

NAME = "spaces"
TITLE = "Memory by category"
CAPTION = (
    "Predicted memory of the rank that needs most, by category. After each bar: the limit of that "
    "memory for one rank, and “too much” where the need, which adds a reserve, is above it."
)
COLOURS = {
    "topology and labels": "#332288",
    "features": "#4477AA",
    "parameters and optimizer": "#AA3377",
    "activations and gradients": "#66CCEE",
    "communication buffers": "#EE6677",
    "work buffers": "#CCBB44",
    "cache": "#228833",
    "partition buffer": "#999933",
    "framework context": "#BBBBBB",
    "other": "#DDDDDD",
}


def data(study: Study) -> Any:
    """One row per configuration, memory and category; bytes of the rank that needs most."""
    import pandas as pd

    names = ["dataset", "model", "approach", "ranks", "side", "category", "bytes", "limit", "note"]
    found = []
    for row in bars.chosen([row for row in study.rows if row.predicted]):
        record = study.prediction_of(row)
        ranks = [one for one in (record.memory if record else ()) if one.get("categories")]
        if not ranks:
            continue
        top = max(ranks, key=lambda one: float(one.get("judged_bytes", 0)))
        for space, table in top["categories"].items():
            if sum(table.values()) <= 0:
                continue
            judged = (top.get("spaces") or {}).get(space) or {}
            limit, needed = judged.get("limit_bytes"), judged.get("needed_bytes", 0)
            note = f"of {numbers.size(limit)}" if limit else ""
            note += ", too much" if limit and needed > limit else ""
            model = row.model if space == "memory" else f"{row.model} · {space}"
            place = (row.dataset, model, row.label, row.ranks, "predicted")
            found += [
                (*place, category if category in COLOURS else "other", size, limit, note)
                for category, size in table.items()
                if size > 0
            ]
    frame = pd.DataFrame(found, columns=names)
    keys = [name for name in names if name != "bytes"]
    summed = frame.groupby(keys, sort=False, dropna=False, as_index=False)["bytes"].sum()
    return summed[names]


def draw(frame: Any) -> Figure:
    """One panel per dataset, model and memory."""
    return bars.draw_bars(
        frame, value="bytes", part="category", colours=COLOURS, kind="bytes", xlabel="memory"
    )
