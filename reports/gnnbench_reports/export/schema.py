"""Columns of the exported tables: type, unit and meaning of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

TEXT, WHOLE, REAL, TRUTH = "string", "int64", "float64", "bool"
SCHEMA = 1
"""Version of the tables; a column that is renamed, removed or changes its unit raises it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a table.

    Attributes:
        type: "string", "int64", "float64" or "bool"; every column may have nulls.
        unit: SI, "" for words and counts.
    """

    name: str
    type: str
    unit: str = ""
    meaning: str


def _column(name: str, type: str, meaning: str, unit: str = "") -> Column:
    return Column(name=name, type=type, unit=unit, meaning=meaning)


_SPEC = (
    _column("config_id", TEXT, "configuration: equal for its runs and predictions; joins them"),
    _column("suite", TEXT, "name of the suite"),
    _column("dataset", TEXT, "name of the dataset in the suite"),
    _column("dataset_digest", TEXT, "digest of the dataset's content; empty if not opened"),
    _column("task", TEXT, "kind of task, such as node_classification"),
    _column("model", TEXT, "name of the model in the suite"),
    _column("model_kind", TEXT, "kind of the model, such as sage"),
    _column("hidden", WHOLE, "hidden width"),
    _column("layers", WHOLE, "number of layers"),
    _column("approach", TEXT, "name of the approach"),
    _column("knobs", TEXT, "knobs of the approach, defaults included, as JSON"),
    _column("ranks", WHOLE, "number of ranks"),
    _column("batch_size", WHOLE, "seeds of one optimiser step over all ranks"),
    _column("precision", TEXT, "float32 or float64"),
    _column("epochs", WHOLE, "epochs that were asked for"),
    _column("warmup_epochs", WHOLE, "epochs that medians leave out"),
    _column("seed", WHOLE, "seed of the training"),
)

_MOVED = tuple(
    _column(f"{word}_bytes", WHOLE, f"bytes {what}, of all ranks", "B")
    for word, what in (
        ("sent", "sent to other ranks"),
        ("copied", "copied between memories of a rank"),
        ("read", "read from disk"),
        ("written", "written to disk"),
    )
)

RUNS = (
    _column("run_id", TEXT, "run: configuration and repeat"),
    *_SPEC,
    _column("repeat", WHOLE, "number of the repeat, from 0"),
    _column("status", TEXT, "ok, diverged, failed, skipped or running"),
    _column("reason", TEXT, "why a run is not ok"),
    _column("failed_rank", WHOLE, "rank that failed first"),
    _column("failed_phase", TEXT, "phase in which it failed"),
    _column("started_at", TEXT, "time of the start, ISO 8601, UTC"),
    _column("wall_s", REAL, "seconds from start to end, setup included", "s"),
    _column("period_kind", TEXT, "what a period is: epoch, increment or round"),
    _column("num_periods", WHOLE, "periods that ended"),
    _column("period_s", REAL, "median time of a period after the warm-up", "s"),
    _column("final_loss", REAL, "training loss of the last period"),
    _column("metric", TEXT, "metric of the task that runs are compared by"),
    _column("val_metric", REAL, "that metric on the validation split after the last evaluation"),
    _column("test_metric", REAL, "that metric on the test split after the last evaluation"),
    _column("metrics", TEXT, "all metrics of the last evaluation, as JSON"),
    _column("peak_bytes", WHOLE, "highest memory of any rank in training", "B"),
    _column("baseline_bytes", WHOLE, "of that rank, before it holds data", "B"),
    _column("memory_source", TEXT, "what measured it: resident set or allocator"),
    _column("ranks_per_host", WHOLE, "ranks on one host"),
    _column("device", TEXT, "name of the device"),
    _column("backend", TEXT, "transport of collectives, such as gloo or nccl"),
    _column("probe_s", REAL, "mean time of the speed probe before and after the run", "s"),
    _column("versions", TEXT, "versions of gnnbench, torch and others, as JSON"),
    _column("num_nodes", WHOLE, "vertices of the dataset"),
    _column("num_edges", WHOLE, "edges of the dataset"),
)

PREDICTIONS = (
    _column("prediction_id", TEXT, "prediction: configuration, cluster and ranks on a host"),
    *_SPEC,
    _column("cluster", TEXT, "cluster that was predicted"),
    _column("ranks_per_host", WHOLE, "ranks on one host"),
    _column("status", TEXT, "ok, failed or skipped"),
    _column("reason", TEXT, "why a prediction is not ok"),
    _column("period_kind", TEXT, "what a period is: epoch, increment or round"),
    _column("period_s", REAL, "median predicted time of a period after the first", "s"),
    _column("low_s", REAL, "lower end of its 90 % interval", "s"),
    _column("high_s", REAL, "upper end of its 90 % interval", "s"),
    _column("grade", TEXT, "weakest evidence among the constants that matter"),
    _column("method", TEXT, "how the plan was simulated: replay, events or engine"),
    _column("counted", TRUTH, "whether sizes were counted on the real data"),
    _column("basis", TEXT, "how sizes were found where they were not counted"),
    _column("peak_bytes", WHOLE, "highest memory of any rank in training", "B"),
    _column("needed_bytes", REAL, "need of the memory with the least room, per rank", "B"),
    _column("limit_bytes", REAL, "capacity or cap of that memory, per rank", "B"),
    _column("memory_space", TEXT, "which memory that is"),
    _column("energy_j", REAL, "energy of a period, all devices", "J"),
    _column("phases", TEXT, "seconds of a period by phase on the slowest rank, as JSON"),
    _column("lanes", TEXT, "share of the time that each lane of the slowest rank is busy, as JSON"),
    _column("work", TEXT, "seconds of a period by operation on the slowest rank, as JSON"),
)

_ID = (
    _column("side", TEXT, "measured or predicted"),
    _column("id", TEXT, "run_id of a measured row, prediction_id of a predicted one"),
    _column("config_id", TEXT, "configuration: equal for its runs and predictions"),
)

PERIODS = (
    *_ID,
    _column("period", WHOLE, "number of the period, from 0"),
    _column("warmup", TRUTH, "whether medians leave the period out"),
    _column("seconds", REAL, "time of the slowest rank", "s"),
    _column("iterations", WHOLE, "iterations of a measured period"),
    _column("loss", REAL, "training loss of a measured period"),
    *_MOVED,
    _column("planned_bytes", WHOLE, "all of these bytes as the plan states them", "B"),
    _column("metrics", TEXT, "metrics evaluated after a measured period, as JSON"),
)

STEPS = (
    *_ID,
    _column("rank", WHOLE, "rank that executed the step"),
    _column("period", WHOLE, "number of the period, from 0"),
    _column("iteration", WHOLE, "number of the iteration in its period, from 0"),
    _column("name", TEXT, "name of the step in the plan"),
    _column("kind", TEXT, "kind of the step, such as spmm or all_to_all"),
    _column("op", TEXT, "operation that prices the step"),
    _column("lane", TEXT, "engine of the rank that ran it"),
    _column("phase", TEXT, "why it happens: load, sample, fetch, forward, ..."),
    _column("layer", WHOLE, "layer of the model, from 1; 0 for its input, -1 for none"),
    _column("group_size", WHOLE, "ranks that take part in the step"),
    _column("bytes", WHOLE, "sent by the rank, moved, or at least read and written, by kind", "B"),
    _column("flops", WHOLE, "floating-point operations"),
    _column("start_s", REAL, "start, from the start of the first period on that rank", "s"),
    _column("duration_s", REAL, "duration, waiting for other ranks included", "s"),
)

TABLES: dict[str, tuple[Column, ...]] = {
    "runs": RUNS,
    "predictions": PREDICTIONS,
    "periods": PERIODS,
    "steps": STEPS,
}


def documented() -> Iterator[dict[str, str]]:
    """Every column of every table as a row: table, column, type, unit, meaning."""
    for table, columns in TABLES.items():
        for column in columns:
            yield {
                "table": table,
                "column": column.name,
                "type": column.type,
                "unit": column.unit,
                "meaning": column.meaning,
            }


def names(columns: Sequence[Column]) -> list[str]:
    """The names of some columns, in their order."""
    return [column.name for column in columns]
