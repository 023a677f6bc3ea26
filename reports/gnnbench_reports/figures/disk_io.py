"""Bytes that training from the disk reads and writes, over what stays in memory, by policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gnnbench_reports.disk_io import IoRow, io_rows
from gnnbench_reports.figures import curves, drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gnnbench_reports.study import Study

NAME = "disk_io"
TITLE = "Disk traffic over what stays in memory"


def data(study: Study) -> Any:
    """One row per configuration whose share in memory is known; bytes per period, all ranks.

    `measured` and `predicted` are the sums of bytes read and written, counted and planned. Empty
    with a single configuration.
    """
    import pandas as pd

    rows = [row for row in io_rows(study) if row.share is not None]
    columns = {
        "dataset": [row.dataset for row in rows],
        "model": [row.model for row in rows],
        "series": [_series(row) for row in rows],
        "ranks": [row.ranks for row in rows],
        "period": [row.period for row in rows],
        "share": [row.share for row in rows],
        "measured": [row.moved_bytes("counted") for row in rows],
        "predicted": [row.moved_bytes("planned") for row in rows],
        "counted_read_bytes": [row.counted_read_bytes for row in rows],
        "counted_written_bytes": [row.counted_written_bytes for row in rows],
        "planned_read_bytes": [row.planned_read_bytes for row in rows],
        "planned_written_bytes": [row.planned_written_bytes for row in rows],
        "status": [row.status for row in rows],
        "reason": [row.reason for row in rows],
    }
    frame = pd.DataFrame(columns)
    numeric = ["share", "measured", "predicted", *(name for name in frame if "_bytes" in name)]
    frame = frame.astype(dict.fromkeys(numeric, "float64"))
    known = frame["measured"].notna() | frame["predicted"].notna()
    return frame if known.sum() > 1 else frame[:0]


def _series(row: IoRow) -> str:
    name = f"{row.approach}, {row.policy}" if row.policy else row.approach
    return f"{name} [{row.others}]" if row.others else name


CAPTION = (
    "Bytes read from and written to the disk per period, over the rows that stay in memory as a "
    "share of all rows; the vertical axis is logarithmic; lower is better."
)


def caption(frame: Any) -> str:
    """The caption, with what the marks and lines of this plot are."""
    noun = drawing.period_noun(frame)
    words = CAPTION.replace("per period", f"per {noun}")
    return " ".join((words, *curves.legend_words(frame, ("counted", "planned"))))


def draw(frame: Any) -> Figure:
    """One panel per dataset and model, one colour per approach and policy."""
    return curves.draw(
        frame,
        kind="bytes",
        xlabel="rows in memory, % of all rows",
        ylabel=f"disk bytes per {drawing.period_noun(frame)}",
        words=("counted", "planned"),
    )
