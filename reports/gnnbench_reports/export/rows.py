"""Records and ledgers as rows of the exported tables, in the columns of `schema`."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gnnbench.ledger import COLUMNS
from gnnbench.results import PredictionRecord, RunRecord
from gnnbench.steps import COMMUNICATION, Kind
from gnnbench_reports.compare import steady_seconds, warmup_periods
from gnnbench_reports.labels import digest_of, knobs_of, primary_metric, spec_name, task_of
from gnnbench_reports.ledgers import read_columns

Row = dict[str, Any]

_SENT = frozenset(kind.value for kind in COMMUNICATION)
_OTHERS = {Kind.COPY.value: "copied", Kind.READ.value: "read", Kind.WRITE.value: "written"}
_LEDGER_TYPES = {
    **dict.fromkeys(COLUMNS, "int64"),
    **dict.fromkeys(("name", "kind", "op", "lane", "phase"), "str"),
    **dict.fromkeys(("start_s", "duration_s"), "float64"),
}


def run_row(record: RunRecord) -> Row:
    """The row of a run."""
    metric = primary_metric(record.spec)
    times = steady_seconds(record)
    highest = max(record.memory, key=lambda rank: rank.get("peak_bytes", 0), default={})
    device = record.device
    return {
        "run_id": record.run_id,
        "config_id": record.config_id,
        **_spec(record.spec),
        "repeat": record.spec.get("repeat"),
        "status": record.status,
        "reason": record.reason,
        "failed_rank": record.failed_rank,
        "failed_phase": record.failed_phase,
        "started_at": record.started_at,
        "wall_s": record.wall_s,
        "period_kind": record.period,
        "num_periods": len(record.periods),
        "period_s": statistics.median(times) if times else None,
        "final_loss": record.periods[-1].get("loss") if record.periods else None,
        "metric": metric,
        "val_metric": record.metrics.get(f"val_{metric}"),
        "test_metric": record.metrics.get(f"test_{metric}"),
        "metrics": _json(record.metrics),
        "peak_bytes": highest.get("peak_bytes"),
        "baseline_bytes": highest.get("baseline_bytes"),
        "memory_source": highest.get("source"),
        "ranks_per_host": device.get("ranks_per_host"),
        "device": device.get("name"),
        "backend": device.get("backend"),
        "probe_s": statistics.fmean(record.probe.values()) if record.probe else None,
        "versions": _json(record.versions),
        "num_nodes": record.dataset.get("num_nodes"),
        "num_edges": record.dataset.get("num_edges"),
    }


def prediction_row(record: PredictionRecord, prediction_id: str) -> Row:
    """The row of a prediction; one that was skipped before it was timed has no times."""
    judged = [rank for rank in record.memory if rank.get("limit_bytes")]
    tight = max(judged, key=lambda rank: rank["judged_bytes"] / rank["limit_bytes"], default={})
    timed = record.period_s > 0
    return {
        "prediction_id": prediction_id,
        "config_id": record.config_id,
        **_spec(record.spec),
        "cluster": record.cluster,
        "ranks_per_host": record.ranks_per_host,
        "status": record.status,
        "reason": record.reason,
        "period_kind": record.period,
        "period_s": record.period_s if timed else None,
        "low_s": record.low_s if timed else None,
        "high_s": record.high_s if timed else None,
        "grade": record.grade,
        "method": record.method,
        "counted": record.counted,
        "basis": record.basis,
        "peak_bytes": max((rank.get("peak_bytes", 0) for rank in record.memory), default=None),
        "needed_bytes": tight.get("judged_bytes"),
        "limit_bytes": tight.get("limit_bytes"),
        "memory_space": tight.get("space"),
        "energy_j": record.energy.get("joules"),
        "phases": _json(record.phases),
        "lanes": _json(record.lanes),
        "work": _json(record.notes.get("work_s", {})),
    }


def run_periods(record: RunRecord) -> Iterator[Row]:
    """The rows of a run's periods."""
    warmup = warmup_periods(record)
    for at, period in enumerate(record.periods):
        number = int(period.get("period", at))
        planned = period.get("planned")
        yield {
            **identity("measured", record.run_id, record.config_id),
            "period": number,
            "warmup": number < warmup,
            "seconds": period.get("seconds"),
            "iterations": period.get("iterations"),
            "loss": period.get("loss"),
            **moved(period.get("bytes") or {}),
            "planned_bytes": None if planned is None else sum(planned.values()),
            "metrics": _json(period.get("metrics") or {}),
        }


def prediction_periods(record: PredictionRecord, prediction_id: str) -> Iterator[Row]:
    """The rows of the periods that a prediction simulated."""
    seconds = record.notes.get("periods_s", [])
    warmup = int((record.spec.get("training") or {}).get("warmup_epochs", 0))
    for number in range(max(len(seconds), len(record.bytes))):
        planned = record.bytes[number] if number < len(record.bytes) else None
        yield {
            **identity("predicted", prediction_id, record.config_id),
            "period": number,
            "warmup": number < warmup,
            "seconds": seconds[number] if number < len(seconds) else None,
            **(moved(planned) if planned is not None else {}),
            "planned_bytes": None if planned is None else sum(planned.values()),
        }


def identity(side: str, record_id: str, config_id: str) -> Row:
    """The columns that say to which record a row belongs."""
    return {"side": side, "id": record_id, "config_id": config_id}


def moved(sizes: Mapping[str, int]) -> Row:
    """Bytes by what moved them, from a record's {"kind/phase": bytes}."""
    found = {f"{word}_bytes": 0 for word in ("sent", *_OTHERS.values())}
    for key, size in sizes.items():
        kind = key.partition("/")[0]
        word = "sent" if kind in _SENT else _OTHERS.get(kind)
        if word is not None:
            found[f"{word}_bytes"] += int(size)
    return found


def ledger_frame(folder: Path, side: str, record_id: str, config_id: str) -> Any:
    """All steps of a record's ledgers as a DataFrame, rank by rank; None where none is kept.

    Raises:
        DataError: a ledger is unreadable.
    """
    import pandas as pd

    paths = {int(p.stem.removeprefix("ledger-rank")): p for p in folder.glob("ledger-rank*.csv")}
    frames = []
    for rank in sorted(paths):
        frame = read_columns(paths[rank], _LEDGER_TYPES)
        frame.insert(0, "rank", rank)
        frames.append(frame)
    if not frames:
        return None
    steps = pd.concat(frames, ignore_index=True)
    for place, (name, value) in enumerate(identity(side, record_id, config_id).items()):
        steps.insert(place, name, value)
    return steps


def _spec(spec: Mapping[str, Any]) -> Row:
    """The columns of a record's spec, after its configuration."""
    model, training = spec.get("model") or {}, spec.get("training") or {}
    return {
        "suite": spec.get("suite", ""),
        "dataset": spec_name(spec, "dataset"),
        "dataset_digest": digest_of(spec),
        "task": task_of(spec),
        "model": spec_name(spec, "model"),
        "model_kind": model.get("kind"),
        "hidden": model.get("hidden"),
        "layers": model.get("layers"),
        "approach": spec.get("approach", ""),
        "knobs": _json(knobs_of(spec)),
        "ranks": spec.get("ranks"),
        "batch_size": (spec.get("batch") or {}).get("size"),
        "precision": training.get("precision"),
        "epochs": training.get("epochs"),
        "warmup_epochs": training.get("warmup_epochs"),
        "seed": training.get("seed"),
    }


def _json(table: Mapping[str, Any]) -> str:
    return json.dumps(table, sort_keys=True, default=str)
