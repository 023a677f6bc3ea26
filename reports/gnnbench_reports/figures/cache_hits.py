"""Hit rate of feature caches over their size, measured and predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gnnbench_reports.caches import CacheRow, cache_rows
from gnnbench_reports.figures import curves

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gnnbench_reports.study import Study

NAME = "cache_hits"
TITLE = "Cache hit rate over cache size"
CAPTION = (
    "Share of the rows that ranks would have to fetch and find in their cache, in the last period, "
    "over the rows of a rank's cache as a share of all rows; higher is better."
)


def data(study: Study) -> Any:
    """One row per cache of a configuration; rates are shares of 1.

    Empty where no policy has caches of two sizes: a table says more than single points.
    """
    import pandas as pd

    rows = cache_rows(study)
    several = len({row.approach for row in rows}) > 1
    settings = {(row.placement, row.rows, row.ranks) for row in rows}
    columns = {
        "dataset": [row.dataset for row in rows],
        "model": [_panel(row) if len(settings) > 1 else row.model for row in rows],
        "series": [_series(row, several) for row in rows],
        "ranks": [row.ranks for row in rows],
        "share": [row.share for row in rows],
        "measured": [row.measured_rate for row in rows],
        "predicted": [row.predicted_rate for row in rows],
        "status": [row.status for row in rows],
        "reason": [row.reason for row in rows],
    }
    frame = pd.DataFrame(columns).astype(
        {"share": "float64", "measured": "float64", "predicted": "float64"}
    )
    return curves.worth_drawing(frame)


def _panel(row: CacheRow) -> str:
    """The model, where the rows lie, and the ranks: curves of two placements are not compared."""
    place = ", ".join(filter(None, (row.placement, row.rows)))
    return f"{row.model} · {place} · {row.ranks} rank{'' if row.ranks == 1 else 's'}"


def _series(row: CacheRow, several: bool) -> str:
    name = f"{row.approach}, {row.policy}" if several else row.policy
    return f"{name} [{row.others}]" if row.others else name


def caption(frame: Any) -> str:
    """The caption, with what the marks and lines of this plot are."""
    return " ".join((CAPTION, *curves.legend_words(frame, ("measured", "predicted"))))


def draw(frame: Any) -> Figure:
    """One panel per dataset, model, placement and number of ranks; one colour per policy."""
    return curves.draw(
        frame,
        kind="share",
        xlabel="rows of the cache, % of all rows",
        ylabel="hit rate, %",
        words=("measured", "predicted"),
    )
