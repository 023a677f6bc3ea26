"""Metrics of published rows: which of them can be predicted, and how ledgers give them.

Times of a phase include waiting for slower ranks, as timers of released code do (fullgraph 16.3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gnnbench.ledger import Row
from gnnbench.published.counts import COUNTS
from gnnbench.published.page_counts import PAGE_COUNTS
from gnnbench.published.reason import NotModelled
from gnnbench.published.rows import PublishedRow

EPOCH_TIME = "epoch_time"
TIMES = (
    EPOCH_TIME,
    "comm_time",
    "comm_time_max_rank",
    "comm_time_min_rank",
    "compute_time_max_rank",
    "compute_time_min_rank",
    "grad_allreduce_time",
)
MEMORY = "peak_gpu_memory"
UNITS: Mapping[str, Mapping[str, float]] = {
    **{metric: {"s": 1.0, "ms": 1e-3} for metric in TIMES},
    **{metric: {"vertices": 1.0, "": 1.0} for metric in COUNTS},
    **{metric: {"pages of 4096 B": 1.0, "pages of 16384 B": 1.0} for metric in PAGE_COUNTS},
    MEMORY: {"MB": 2.0**20, "GB": 2.0**30, "MiB": 2.0**20, "GiB": 2.0**30},
}
"""SI value of one unit; torch's tools print MB for 2^20 bytes."""
_NEEDS_TRAINING = ("accuracy", "time_to", "epochs_to", "convergence")
_EXCHANGES = ("all_to_all", "all_gather", "broadcast", "reduce_scatter")


def check_metric(row: PublishedRow) -> None:
    """Raise NotModelled if a row's metric cannot be predicted."""
    if row.metric in UNITS:
        if row.unit not in UNITS[row.metric]:
            allowed = ", ".join(repr(u) for u in UNITS[row.metric])
            raise NotModelled("unit not known", f"{row.metric} in {row.unit!r}, allowed: {allowed}")
        if row.value <= 0:
            raise NotModelled("value is not positive", f"{row.value:g}")
        return
    if any(word in row.metric for word in _NEEDS_TRAINING):
        raise NotModelled("needs training, not prediction", row.metric)
    if row.unit in ("x", "%", "pp", "ratio"):
        raise NotModelled("a ratio or claim, not a measurement", row.metric)
    raise NotModelled("metric not modelled", row.metric)


def si_value(row: PublishedRow) -> float:
    """The published number in seconds, bytes or vertices."""
    return row.value * UNITS[row.metric][row.unit]


def time_of(
    metric: str, period_s: float, ledgers: Mapping[int, Sequence[Row]], *, hidden_exchange: bool
) -> float:
    """Seconds of one epoch that a metric of `TIMES` means.

    Args:
        metric: of `TIMES`.
        period_s: seconds of the epoch.
        ledgers: of a few ranks, by rank; the last period of each counts.
        hidden_exchange: whether the exchange runs behind computation. The code's timer then sees
            of it what makes the epoch longer than the rank's own work.
    """
    if metric == EPOCH_TIME:
        return period_s
    per_rank = [_of_rank(metric, period_s, rows, hidden_exchange) for rows in ledgers.values()]
    return min(per_rank) if metric.endswith("min_rank") else max(per_rank)


def _of_rank(metric: str, period_s: float, rows: Sequence[Row], hidden: bool) -> float:
    last = max((row.period for row in rows), default=0)
    own = [row for row in rows if row.period == last]
    reduce_s = sum(row.duration_s for row in own if row.kind == "all_reduce")
    exchange_s = sum(row.duration_s for row in own if row.kind in _EXCHANGES)
    if metric == "grad_allreduce_time":
        return reduce_s + (0.0 if hidden else _unsynchronised(own))
    work_s = sum(
        row.duration_s for row in own if row.kind not in (*_EXCHANGES, "all_reduce", "barrier")
    )
    if metric.startswith("compute_time"):
        return work_s
    return max(period_s - work_s - reduce_s, 0.0) if hidden else exchange_s


def _unsynchronised(rows: Sequence[Row]) -> float:
    """Seconds of backward work after the last exchange.

    The code issues kernels without waiting for them. The timer of the reduction, which needs their
    gradients, therefore includes them (fullgraph 16.2).
    """
    ends = [row.start_s + row.duration_s for row in rows if row.kind in _EXCHANGES]
    since = max(ends, default=0.0)
    return sum(
        row.duration_s
        for row in rows
        if row.phase == "backward" and row.start_s >= since and row.kind not in _EXCHANGES
    )
