"""Metrics of published rows: which of them can be predicted, and how ledgers give them.

Times of a phase include waiting for slower ranks, as timers of released code do (fullgraph 16.3).
Tables of mini-batch systems split an epoch, or a batch, into sampling, loading and training; a
phase is the sum of its steps' durations, whether or not other steps hide them. Tables of systems
that train from disk time a whole training, an epoch without filling the buffer, or stages without
overlap.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from gnnbench.ledger import Row
from gnnbench.published import disk_counts
from gnnbench.published.counts import COUNTS
from gnnbench.published.page_counts import PAGE_COUNTS
from gnnbench.published.reason import NotModelled
from gnnbench.published.rows import PublishedRow
from gnnbench.published.software import ISSUE
from gnnbench.steps import Lane

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
MEAN, TOTAL, OVERHEAD = "mean epoch time", "total training time", "T-PPR query overhead"
BUILD, STORE = "graph build time", "edge data memory"
STREAM_TIMES = {
    MEAN: "an epoch of training, without evaluation",
    TOTAL: "as many such epochs as the table states",
    OVERHEAD: "temporal PageRank of an epoch",
    BUILD: "insertion of all edges, both directions",
}
"""Times of systems that learn from streams, and what each is taken to be; see `stream_times`."""
STREAM_METRICS = (*STREAM_TIMES, STORE)
_TRAINING = ("forward", "backward", "sync", "update")
_ASSEMBLE = "stage_feature_assemble"
_ALL = ("load", "sample", "fetch", *_TRAINING)
_SPLIT = r"(?:_per_(?:epoch|batch|iteration))?$"
_PHASES: Sequence[tuple[str, tuple[str, ...]]] = (
    (rf"sampl(?:e|ing)_time{_SPLIT}", ("sample",)),
    (rf"(?:extract|load|loading|fetch|gather|feature_(?:copy|load|loading|fetch))_time{_SPLIT}",
     ("fetch",)),
    (rf"(?:sampl(?:e|ing)_(?:and_)?(?:slicing|loading)|data_loading)_time{_SPLIT}",
     ("sample", "fetch")),
    (rf"(?:train|training|model|forward_backward)_time{_SPLIT}", _TRAINING),
    (r"stage_graph_sample", ("sample",)),
    (_ASSEMBLE, ("fetch",)),
    (r"stage_model_train", _TRAINING),
    (r"stage_total_time", _ALL),
    (r"buffer_fill_time", ("load",)),
    (r"epoch_time_without_sampling", ("load", "fetch", *_TRAINING)),
)  # fmt: skip
"""Phases of ledgers by metric."""
_STEPS: Sequence[tuple[str, str]] = (
    ("stage_feature_load", r"(?:load|ahead)/partitions|load/fill|fetch/(?:misses|pages)"),
    ("stage_graph_load", r"(?:load|ahead)/(?:edges|graph)"),
    ("transfer_time_per_epoch", r"fetch/(?:copy|gather_host)"),
)
"""Names of steps by metric: parts of a phase."""
_EPOCHS: Sequence[tuple[str, int]] = (
    (r"epoch_time(?:_mean|_steady)?", 1),
    (r"train_(\d+)_epochs_time", 0),
    (r"total_train_time_(\d+)_epochs", 0),
)
"""Whole epochs by metric: a number of them, or 0 where the metric states it."""
_MOST_EPOCHS = 10_000
_WITH_PACKING = "epoch_time_plus_preprocessing_share"
"""DiskGNN: an epoch and a fiftieth of packing, which is 3 or 4 % of it and left out."""
_IN_ORDER = (str(Lane.COMPUTE), str(Lane.COMM), str(ISSUE))
"""Lanes of the process that trains; what runs in others may be hidden behind it."""
IN_MEMORY = re.compile(r"\bin[- ]memory\b|\b(?:cpu |host )?memory\b|\bmem\b")
"""Words of a system or a storage that keep all partitions in memory."""
UNITS: Mapping[str, Mapping[str, float]] = {
    **{metric: {"s": 1.0, "ms": 1e-3, "min": 60.0, "h": 3600.0} for metric in TIMES},
    **{metric: {"vertices": 1.0, "": 1.0} for metric in COUNTS},
    **disk_counts.UNITS,
    **{metric: {"pages of 4096 B": 1.0, "pages of 16384 B": 1.0} for metric in PAGE_COUNTS},
    MEMORY: {"MB": 2.0**20, "GB": 2.0**30, "MiB": 2.0**20, "GiB": 2.0**30},
    STORE: {"MiB (printed MB)": 2.0**20},
}
"""SI value of one unit; torch's tools print MB for 2^20 bytes."""
_REASONS: Sequence[tuple[str, str, str]] = (
    (r"superbatch_sampling_time", "software path not modelled", "sampling a topology on the disk"),
    (r"changeset_precompute_time", "software path not modelled", "inspecting uses on the GPU"),
    (r"epoch_time_plus_\w+", "a share of preparation, not an epoch", ""),
    (r"preprocess_\w*|feature_store_\w+|offline_sampling_\w+|csv_\w+", "preparation", ""),
    (r"\w+_failed|preprocess_oom_\w+", "an outcome, not a measurement", ""),
    (r"experiment_\w+", "the authors' rounded estimate of a whole experiment", ""),
    (r"\w*peak_main_memory|cpu_memory_needed", "memory of all processes of a host", ""),
    (r"\w+_default|num_(?:nodes|edges)", "an input, not a measurement", ""),
    (r"epoch_time_(?:min|max)", "a spread of repeats, not a mean", ""),
    (r"epoch_or_run_time|throughput", "what is timed is not stated", ""),
    (r"(?:training|sampling)_throughput", "a rate, not a time", ""),
    (r"epoch_time_(?:lower|upper)_bound|epoch_time_\(user.*", "a bound, not a measurement", ""),
    (r"(?:node|edge)_cache_hit_ratio|(?:node|edge)_temporal_affinity",
     "needs the events of the stream", "which rows are asked for one after the other"),
    (r"(?:mean|transductive|inductive|test|validation)_(?:ap|auc|mrr|ndcg@10)(?:_.*)?",
     "needs training, not prediction", ""),
)  # fmt: skip
"""Why some metrics are not predicted: pattern, reason, detail."""
_NEEDS_TRAINING = ("accuracy", "time_to", "epochs_to", "convergence")
_EXCHANGES = ("all_to_all", "all_gather", "broadcast", "reduce_scatter")


def plain(metric: str) -> str:
    """A metric's name as patterns have it: lower case, one word."""
    return metric.replace(" ", "_").lower()


def phases_of(row: PublishedRow) -> tuple[str, ...]:
    """Phases whose sum a row's metric is; () for metrics that are no sum of phases."""
    if row.metric == EPOCH_TIME:
        without = "excludes sampling" in row.notes.lower()
        return ("fetch", *_TRAINING) if without else ()
    for pattern, phases in _PHASES:
        if re.fullmatch(pattern, plain(row.metric)):
            return phases
    return ()


def epochs_of(row: PublishedRow) -> int:
    """Whole epochs whose time a row states; 0 where it is no such time."""
    if row.metric == _WITH_PACKING:
        return int(row.system.lower() == "diskgnn")
    for pattern, number in _EPOCHS:
        found = re.fullmatch(pattern, plain(row.metric))
        if found:
            count = number or int(found[1])
            return count if count <= _MOST_EPOCHS else 0
    return 0


def without_load(row: PublishedRow) -> bool:
    """Whether an epoch's time leaves out filling the buffer."""
    words = f"{row.system} {row.storage}".lower()
    in_memory = "marius" in words and IN_MEMORY.search(words) is not None
    return in_memory or bool(re.search(r"excludes? buffer fill", row.notes.lower()))


def is_exposed(row: PublishedRow) -> bool:
    """Whether a time is what the training process waits for, and nothing that is hidden from it."""
    return "exposed" in row.notes.lower()


def is_time(row: PublishedRow) -> bool:
    """Whether a row states seconds that a prediction gives: of epochs, or of a part of one."""
    of_steps = any(row.metric == metric for metric, _ in _STEPS)
    named = row.metric in TIMES or row.metric in STREAM_TIMES
    return named or of_steps or bool(phases_of(row)) or epochs_of(row) > 0


def meaning(row: PublishedRow) -> str:
    """What a row's time is a sum of, in our words: printed beside the errors."""
    if row.metric in STREAM_TIMES:
        return STREAM_TIMES[row.metric]
    count = epochs_of(row)
    if row.metric in TIMES and row.metric != EPOCH_TIME:
        return "timers of the released code, waiting included"
    for metric, pattern in _STEPS:
        if row.metric == metric:
            return f"steps {pattern.replace('(?:', '(')}, one after the other"
    phases = phases_of(row)
    if phases:
        return f"phases {', '.join(phases)}, one after the other"
    left_out = ", without filling the buffer" if without_load(row) else ""
    return f"{count} epoch{'s' if count > 1 else ''}, overlap included{left_out}" if count else ""


def _units(row: PublishedRow) -> Mapping[str, float] | None:
    return UNITS[EPOCH_TIME] if is_time(row) else UNITS.get(row.metric)


def check_metric(row: PublishedRow) -> None:
    """Raise NotModelled if a row's metric cannot be predicted."""
    units = _units(row)
    if units is not None:
        if row.unit not in units:
            allowed = ", ".join(repr(u) for u in units)
            raise NotModelled("unit not known", f"{row.metric} in {row.unit!r}, allowed: {allowed}")
        if row.value <= 0:
            raise NotModelled("value is not positive", f"{row.value:g}")
        return
    name = plain(row.metric)
    for pattern, kind, detail in _REASONS:
        if re.fullmatch(pattern, name):
            raise NotModelled(kind, detail or row.metric)
    if any(word in name for word in (*_NEEDS_TRAINING, "_mrr")):
        raise NotModelled("needs training, not prediction", row.metric)
    if row.unit in ("x", "%", "pp", "ratio"):
        raise NotModelled("a ratio or claim, not a measurement", row.metric)
    raise NotModelled("metric not modelled", row.metric)


def si_value(row: PublishedRow) -> float:
    """The published number in seconds, bytes or vertices."""
    units = _units(row)
    assert units is not None
    return row.value * units[row.unit]


def phase_time(
    row: PublishedRow, ledgers: Mapping[int, Sequence[Row]], *, steps: int, period_s: float = 0.0
) -> float | None:
    """Seconds of a row's phases on the slowest of some ranks; None where it is no sum of phases.

    Args:
        row: states the metric: of an epoch, or of a batch.
        ledgers: of a few ranks, by rank; the last period of each counts.
        steps: batches of an epoch.
        period_s: seconds of the epoch, for times that only count what nothing hides.
    """
    phases = phases_of(row)
    names = dict(_STEPS).get(row.metric)
    if not phases and names is None:
        return None

    exposed = is_exposed(row)

    def counts(taken: Row) -> bool:
        if exposed and taken.lane not in _IN_ORDER:
            return False
        if names is None:
            # Rows that are read while a batch is fetched are a stage of their own.
            apart = row.metric == _ASSEMBLE and taken.kind == "read"
            return taken.phase in phases and not apart
        return re.fullmatch(names, taken.name) is not None

    def spent(rows: Sequence[Row]) -> float:
        if not any(r.lane == str(ISSUE) for r in rows):
            return sum(r.duration_s for r in rows)
        trained = [r for r in rows if r.phase in _TRAINING]
        others = sum(r.duration_s for r in rows if r.phase not in _TRAINING)
        return others + _elapsed(trained)

    sums = []
    for rows in ledgers.values():
        last = max((r.period for r in rows), default=0)
        own = [r for r in rows if r.period == last]
        if exposed and "sample" in phases:
            busy = spent([r for r in own if r.lane in _IN_ORDER])
            sums.append(max(period_s - busy, 0.0))
            continue
        sums.append(spent([r for r in own if counts(r)]))
    each = re.search(r"per_(?:batch|iteration)", row.metric)
    return max(sums) / (steps if each else 1)


def _elapsed(rows: Sequence[Row]) -> float:
    """Seconds from the first start to the last end of rows, summed over iterations."""
    ends: dict[int, tuple[float, float]] = {}
    for row in rows:
        start, end = ends.get(row.iteration, (row.start_s, row.start_s))
        until = max(end, row.start_s + row.duration_s)
        ends[row.iteration] = min(start, row.start_s), until
    return sum(end - start for start, end in ends.values())


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
    if metric not in TIMES or metric == EPOCH_TIME:
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
