"""Lay measured runs and predictions side by side: one row per configuration.

Repeats are pooled, and so are seeds: configurations that differ by nothing else are one row.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gnnbench.errors import UnknownName
from gnnbench.results import PredictionRecord, Results, RunRecord
from gnnbench_reports.labels import apart_from_seed, label_all, seed_of, spec_name
from gnnbench_reports.ledgers import phase_seconds
from gnnbench_reports.memory import Memory, pool_memory
from gnnbench_reports.volume import Volume, compare_volumes, pool_volumes

GRADES = ("measured", "probed", "datasheet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One configuration, measured, predicted or both. What is unknown is None or empty.

    config_id             of the lowest seed, whose prediction this is; config_ids of all seeds
    label                 the approach, with the knobs that tell it from others of the same name
    status                "ok" (measured), "failed", "skipped", "running" or, without runs,
                          "predicted" or the prediction's own status
    repeats               finished runs pooled here, seeds included
    measured_epoch_s      median over non-warm-up epochs within a repeat, then over repeats
    repeat_spread         half the range of the repeats' medians over their median
    epoch_spread          half the interquartile range of a repeat's epochs over their median
    beyond                why the prediction goes beyond the cluster as described, if it does
    program               equal for configurations whose ranks do the same steps; "" if not known
    ratio, error          predicted / measured, and that minus one
    inside_interval       the measured median lies in the predicted 90 % interval
    volumes, bytes_equal  bytes sent by kind and phase; whether each of them is the same integer
    probe_ratio           time of the speed probe around the runs over the calibration's: above 1
                          the machine was slower than when it was calibrated
    speed_adjusted_error  error after multiplying the prediction by `probe_ratio`
    phases_*              seconds per epoch by phase, slowest rank, waiting included
    accuracy              {"train" | "val" | "test": {"mean", "std"}} over repeats
    """

    config_id: str
    config_ids: tuple[str, ...] = ()
    label: str
    approach: str
    graph: str
    model: str
    ranks: int
    knobs: Mapping[str, Any] = field(default_factory=dict)
    status: str
    reason: str = ""
    failed_rank: int | None = None
    failed_phase: str = ""
    repeats: int = 0
    epochs: int = 0
    measured_epoch_s: float | None = None
    repeat_spread: float | None = None
    epoch_spread: float | None = None
    cluster: str = ""
    prediction_status: str = ""
    prediction_reason: str = ""
    predicted_epoch_s: float | None = None
    predicted_low_s: float | None = None
    predicted_high_s: float | None = None
    grade: str = ""
    method: str = ""
    beyond: str = ""
    exact: bool | None = None
    basis: str = ""
    program: str = ""
    ratio: float | None = None
    error: float | None = None
    inside_interval: bool | None = None
    volumes: tuple[Volume, ...] = ()
    bytes_equal: bool | None = None
    memory: Memory = field(default_factory=Memory)
    phases_measured: Mapping[str, float] = field(default_factory=dict)
    phases_predicted: Mapping[str, float] = field(default_factory=dict)
    probe_ratio: float | None = None
    speed_adjusted_error: float | None = None
    accuracy: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    final_loss: float | None = None

    @property
    def measured(self) -> bool:
        return self.measured_epoch_s is not None

    @property
    def predicted(self) -> bool:
        return self.predicted_epoch_s is not None

    @property
    def uncertainty(self) -> float | None:
        """Relative uncertainty of the measured time: what repeats, or else epochs, spread by."""
        return self.repeat_spread if self.repeat_spread is not None else self.epoch_spread


def compare(results: Results, cluster: str | None = None) -> list[Comparison]:
    """Compare every configuration of a results folder with its prediction.

    Args:
        results: the folder.
        cluster: which cluster's predictions; None takes the one graded best that predicts most of
            what was measured, see `choose_cluster`.

    Raises:
        UnknownName: no prediction is for this cluster.
        DataError: a record or ledger is unreadable.
    """
    runs, predictions = list(results.runs()), list(results.predictions())
    return compare_records(results, runs, predictions, choose_cluster(runs, predictions, cluster))


def choose_cluster(
    runs: Iterable[RunRecord], predictions: Iterable[PredictionRecord], asked: str | None = None
) -> str:
    """Return the cluster to compare with; "" without predictions."""
    of: dict[str, list[PredictionRecord]] = defaultdict(list)
    for record in predictions:
        of[record.cluster].append(record)
    if asked is not None:
        if asked not in of:
            raise UnknownName("cluster among the predictions", asked, of)
        return asked
    measured = {run.config_id for run in runs if run.status == "ok"}

    def preference(name: str) -> tuple[int, int, int]:
        grades = [GRADES.index(r.grade) for r in of[name] if r.grade in GRADES]
        matched = sum(record.config_id in measured for record in of[name])
        return max(grades, default=len(GRADES)), -matched, -len(of[name])

    return min(sorted(of), key=preference, default="")


def compare_records(
    results: Results,
    runs: Iterable[RunRecord],
    predictions: Iterable[PredictionRecord],
    cluster: str,
) -> list[Comparison]:
    """Compare records already read with the predictions for one cluster."""
    grouped: dict[str, list[RunRecord]] = defaultdict(list)
    for run in runs:
        grouped[run.config_id].append(run)
    predicted = {record.config_id: record for record in predictions if record.cluster == cluster}
    specs = {record.config_id: record.spec for record in predicted.values()}
    specs |= {config_id: group[0].spec for config_id, group in grouped.items()}
    labels = label_all(specs)
    together: dict[str, list[str]] = defaultdict(list)
    for config_id in sorted(specs, key=lambda name: (seed_of(specs[name]), name)):
        together[apart_from_seed(specs[config_id])].append(config_id)
    rows = [
        _row(
            results,
            specs[ids[0]],
            [_Seed(runs=grouped.get(name, []), prediction=predicted.get(name)) for name in ids],
        )
        | {"config_id": ids[0], "config_ids": tuple(ids), "label": labels[ids[0]]}
        for ids in together.values()
    ]
    comparisons = [Comparison(**row) for row in rows]
    return sorted(
        comparisons, key=lambda c: (c.graph, c.model, c.approach, c.label, c.ranks, c.config_id)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seed:
    """What there is of one configuration with one seed."""

    runs: Sequence[RunRecord]
    prediction: PredictionRecord | None

    @property
    def done(self) -> list[RunRecord]:
        return [run for run in self.runs if run.status == "ok"]

    @property
    def usable(self) -> PredictionRecord | None:
        found = self.prediction
        return found if found is not None and found.status == "ok" else None

    @property
    def volumes(self) -> tuple[Volume, ...]:
        planned = self.usable
        return compare_volumes(
            [run.epochs for run in self.done], planned.bytes if planned is not None else None
        )


def _row(results: Results, spec: Mapping[str, Any], seeds: Sequence[_Seed]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "approach": str(spec.get("approach", "")),
        "graph": spec_name(spec, "graph"),
        "model": spec_name(spec, "model"),
        "ranks": int(spec.get("ranks", 1)),
        "knobs": dict(spec.get("knobs") or {}),
    }
    runs = [run for seed in seeds for run in seed.runs]
    done = [run for seed in seeds for run in seed.done]
    usable = next((seed.usable for seed in seeds if seed.usable is not None), None)
    known = [seed.prediction for seed in seeds if seed.prediction is not None]
    prediction = usable or (known[0] if known else None)
    row |= _outcome(runs, done)
    row |= _measured(results, done)
    row |= _predicted(prediction)
    if not runs and prediction is not None:
        row["status"] = "predicted" if prediction.status == "ok" else prediction.status
        row["reason"] = prediction.reason
    row |= _side_by_side(row, done, usable)
    if usable is not None and row.get("phases_measured"):
        row["phases_predicted"] = _phases_alike(results, usable, row["phases_predicted"])
    row["volumes"] = pool_volumes([seed.volumes for seed in seeds])
    verdicts = [volume.equal for volume in row["volumes"]]
    if done and usable is not None and usable.bytes and None not in verdicts:
        row["bytes_equal"] = all(verdicts)
    row["memory"] = pool_memory([r.memory for r in done], usable.memory if usable else ())
    return row


def _outcome(runs: Sequence[RunRecord], done: Sequence[RunRecord]) -> dict[str, Any]:
    """Status and reason over repeats: one finished repeat is enough for "ok"."""
    if not runs:
        return {"status": "predicted"}
    others = [run for run in runs if run.status != "ok"]
    worst = next(
        (
            run
            for status in ("failed", "skipped", "running")
            for run in others
            if run.status == status
        ),
        None,
    )
    if worst is None:
        return {"status": "ok"}
    reason = worst.reason or ("did not finish" if worst.status == "running" else "no reason given")
    if done:
        return {
            "status": "ok",
            "reason": f"{len(others)} of {len(runs)} repeats {worst.status}: {reason}",
        }
    return {
        "status": worst.status,
        "reason": reason,
        "failed_rank": worst.failed_rank,
        "failed_phase": worst.failed_phase,
    }


def _measured(results: Results, done: Sequence[RunRecord]) -> dict[str, Any]:
    timed = [times for run in done if (times := steady_seconds(run))]
    if not timed:
        return {}
    medians = [statistics.median(times) for times in timed]
    middle = statistics.median(medians)
    spread = (max(medians) - min(medians)) / 2 / middle if len(medians) > 1 and middle else None
    phases = [
        phase_seconds(results.run_folder(run.run_id), warmup_epochs=warmup_epochs(run))
        for run in done
    ]
    names = {name for table in phases for name in table}
    losses = [run.epochs[-1].get("loss") for run in done if run.epochs]
    known = [float(loss) for loss in losses if loss is not None]
    return {
        "repeats": len(timed),
        "epochs": max(len(run.epochs) for run in done),
        "measured_epoch_s": middle,
        "repeat_spread": spread,
        "epoch_spread": statistics.median(_half_iqr(times) for times in timed),
        "phases_measured": {
            name: statistics.median(table.get(name, 0.0) for table in phases if table)
            for name in sorted(names)
        },
        "accuracy": _accuracy(done),
        "final_loss": statistics.median(known) if known else None,
    }


def _predicted(record: PredictionRecord | None) -> dict[str, Any]:
    if record is None:
        return {}
    row: dict[str, Any] = {
        "cluster": record.cluster,
        "prediction_status": record.status,
        "prediction_reason": record.reason,
        "grade": record.grade,
        "method": record.method,
        "beyond": str(record.notes.get("beyond", "")),
        "exact": record.exact,
        "basis": record.basis,
        "program": str(record.notes.get("program", "")),
    }
    if record.status == "ok" and record.epoch_s > 0:
        row["predicted_epoch_s"] = record.epoch_s
        row["phases_predicted"] = dict(record.phases)
        if record.high_s > 0:
            row |= {"predicted_low_s": record.low_s, "predicted_high_s": record.high_s}
    return row


def _phases_alike(
    results: Results, prediction: PredictionRecord, fallback: Mapping[str, float]
) -> Mapping[str, float]:
    """Predicted phases over the same lanes and epochs as the measured ones.

    The record's own sum may hold lanes that work beside the rank.
    """
    folder = results.prediction_folder(prediction.config_id, prediction.cluster)
    warmup = int((prediction.spec.get("training") or {}).get("warmup_epochs", 0))
    return phase_seconds(folder, warmup_epochs=warmup) or fallback


def _side_by_side(
    row: Mapping[str, Any], done: Sequence[RunRecord], prediction: PredictionRecord | None
) -> dict[str, Any]:
    measured, predicted = row.get("measured_epoch_s"), row.get("predicted_epoch_s")
    if not measured or not predicted:
        return {}
    both: dict[str, Any] = {"ratio": predicted / measured, "error": predicted / measured - 1}
    if "predicted_low_s" in row:
        both["inside_interval"] = row["predicted_low_s"] <= measured <= row["predicted_high_s"]
    probes = [statistics.fmean(run.probe.values()) for run in done if run.probe]
    if prediction is not None and prediction.probe_s > 0 and probes:
        now = statistics.median(probes) / prediction.probe_s
        both |= {"probe_ratio": now, "speed_adjusted_error": predicted * now / measured - 1}
    return both


def steady_seconds(run: RunRecord) -> list[float]:
    """Seconds of each non-warm-up epoch; of all epochs if all of them are warm-up."""
    first = warmup_epochs(run)
    epochs = [(int(e.get("epoch", at)), e.get("seconds")) for at, e in enumerate(run.epochs)]
    timed = [(epoch, float(seconds)) for epoch, seconds in epochs if seconds is not None]
    steady = [seconds for epoch, seconds in timed if epoch >= first]
    return steady or [seconds for _, seconds in timed]


def warmup_epochs(run: RunRecord) -> int:
    """Epochs that the run's own settings leave out of medians."""
    return int((run.spec.get("training") or {}).get("warmup_epochs", 0))


def _half_iqr(values: Sequence[float]) -> float:
    middle = statistics.median(values)
    if len(values) < 4 or not middle:
        return (max(values) - min(values)) / 2 / middle if middle else 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / 2 / middle


def _accuracy(done: Sequence[RunRecord]) -> dict[str, dict[str, float]]:
    pooled: dict[str, dict[str, float]] = {}
    for split in ("train", "val", "test"):
        values = [run.accuracy[split] for run in done if run.accuracy.get(split) is not None]
        if values:
            std = statistics.stdev(values) if len(values) > 1 else 0.0
            pooled[split] = {"mean": statistics.fmean(values), "std": std}
    return pooled
