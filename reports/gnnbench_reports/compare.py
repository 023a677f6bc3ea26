"""Compare measured runs with predictions: one row per configuration.

Repeats are pooled, and so are seeds: configurations that differ by the seed alone are one row.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gnnbench.errors import DataError, UnknownName
from gnnbench.ladder import GRADES
from gnnbench.results import PredictionRecord, Results, RunRecord
from gnnbench_reports.circumstances import Given, model_names
from gnnbench_reports.comparison import Comparison
from gnnbench_reports.labels import (
    Spec,
    apart_from_content,
    apart_from_seed,
    digest_of,
    knobs_of,
    label_all,
    natural,
    primary_metric,
    seed_of,
    spec_name,
)
from gnnbench_reports.memory import pool_memory
from gnnbench_reports.parts import Split, split_seconds
from gnnbench_reports.volume import Volume, compare_volumes, pool_volumes, sent_bytes


def compare(results: Results, cluster: str | None = None) -> list[Comparison]:
    """Compare every configuration of a results folder with its prediction.

    Args:
        results: the folder.
        cluster: which cluster's predictions; None takes the one graded best that predicts most of
            what was measured, see `choose_cluster`.

    Raises:
        UnknownName: no prediction is for this cluster.
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
    seeds = _seeds(runs, [record for record in predictions if record.cluster == cluster])
    names = model_names({seed.key: Given(seed.spec, seed.period) for seed in seeds})
    labels = label_all(
        {seed.key: {**seed.spec, "model": {"name": names[seed.key]}} for seed in seeds},
        {seed.key: seed.layout for seed in seeds},
    )
    together: dict[tuple[str, int], list[_Seed]] = defaultdict(list)
    for seed in sorted(seeds, key=lambda seed: (seed_of(seed.spec), seed.config_id)):
        together[apart_from_seed(seed.spec), seed.layout].append(seed)
    rows = [
        Comparison(**_row(results, same), model=names[same[0].key], label=labels[same[0].key])
        for same in together.values()
    ]
    return sorted(
        rows,
        key=lambda row: (
            row.dataset,
            natural(row.model),
            row.approach,
            natural(row.label),
            row.ranks,
            row.config_id,
        ),
    )


@dataclass(slots=True, kw_only=True)
class _Seed:
    """The runs and the prediction of one configuration, with one seed, on one layout."""

    config_id: str
    layout: int
    spec: Spec
    runs: list[RunRecord] = field(default_factory=list)
    prediction: PredictionRecord | None = None

    @property
    def key(self) -> str:
        return f"{self.config_id}-x{self.layout}"

    @property
    def period(self) -> str:
        """What its periods are; "" if it has neither a time nor a prediction of one."""
        of = [r.period for r in (*self.done, self.usable) if r is not None]
        return of[0] if of else ""

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
            [run.periods for run in self.done],
            None if planned is None else planned.bytes,
            estimated=planned is not None and not planned.counted,
        )


def _seeds(runs: Iterable[RunRecord], predictions: Iterable[PredictionRecord]) -> Sequence[_Seed]:
    """Match runs with predictions of the same configuration and ranks per host.

    A run that was skipped has no ranks per host, and no digest of a dataset that was not opened. It
    goes with the layout that was measured, or else with the one of most ranks per host, and with
    the configuration that differs from it by the digest alone.
    """
    records: list[tuple[int, RunRecord | PredictionRecord]] = [
        (int(run.device.get("ranks_per_host") or 0), run) for run in runs
    ]
    records += [(record.ranks_per_host, record) for record in predictions]
    opened = _opened(record for _, record in records)
    layouts: dict[str, list[tuple[bool, int]]] = defaultdict(list)
    for layout, record in records:
        if layout:
            layouts[record.config_id].append((isinstance(record, RunRecord), layout))
    found: dict[tuple[str, int], _Seed] = {}
    for layout, record in records:
        same = record
        if not digest_of(record.spec):
            same = opened.get(apart_from_content(record.spec), record)
        config_id, spec = same.config_id, same.spec
        known = layout or max(layouts[config_id], default=(False, 0))[1]
        place = config_id, known
        if place not in found:
            found[place] = _Seed(config_id=config_id, layout=known, spec=spec)
        if isinstance(record, RunRecord):
            found[place].runs.append(record)
        else:
            found[place].prediction = record
    return list(found.values())


def _opened(
    records: Iterable[RunRecord | PredictionRecord],
) -> dict[str, RunRecord | PredictionRecord]:
    """Records of opened datasets by their spec without digest, where there is only one digest."""
    found: dict[str, dict[str, RunRecord | PredictionRecord]] = defaultdict(dict)
    for record in records:
        if digest := digest_of(record.spec):
            found[apart_from_content(record.spec)][digest] = record
    return {key: next(iter(of.values())) for key, of in found.items() if len(of) == 1}


def _row(results: Results, seeds: Sequence[_Seed]) -> dict[str, Any]:
    spec = seeds[0].spec
    runs = [run for seed in seeds for run in seed.runs]
    done = [run for seed in seeds for run in seed.done]
    usable = next((seed.usable for seed in seeds if seed.usable is not None), None)
    known = [seed.prediction for seed in seeds if seed.prediction is not None]
    prediction = usable or (known[0] if known else None)
    row: dict[str, Any] = {
        "config_id": seeds[0].config_id,
        "config_ids": tuple(seed.config_id for seed in seeds),
        "approach": str(spec.get("approach", "")),
        "dataset": spec_name(spec, "dataset"),
        "ranks": int(spec.get("ranks", 1)),
        "ranks_per_host": seeds[0].layout,
        "knobs": knobs_of(spec),
        "metric": primary_metric(spec),
        **_outcome(runs, done),
        **_measured(results, done),
        **_predicted(prediction),
    }
    if not runs and prediction is not None:
        row["status"] = "predicted" if prediction.status == "ok" else prediction.status
        row["reason"] = prediction.reason
    row |= _side_by_side(row, done, usable)
    if usable is not None and row.get("phases_measured"):
        split = _predicted_split(results, usable)
        row["phases_predicted"] = split.parts or row["phases_predicted"]
        row["stages_predicted"] = split.stages
    row["volumes"] = pool_volumes([seed.volumes for seed in seeds])
    row["counted_bytes"] = sent_bytes(row["volumes"], "counted")
    row["planned_bytes"] = sent_bytes(row["volumes"], "planned")
    verdicts = [volume.equal for volume in row["volumes"]]
    planned = any(period.get("planned") is not None for run in done for period in run.periods)
    if done and (planned or (usable is not None and usable.bytes)) and None not in verdicts:
        row["bytes_equal"] = all(verdicts)
    row["memory"] = pool_memory([r.memory for r in done], usable.memory if usable else ())
    return row


def _outcome(runs: Sequence[RunRecord], done: Sequence[RunRecord]) -> dict[str, Any]:
    """Status and reason over repeats: one finished repeat is enough for "ok"."""
    if not runs:
        return {"status": "predicted"}
    order = ("failed", "diverged", "skipped", "running")
    lost = sorted((run for run in runs if run.status != "ok"), key=lambda r: order.index(r.status))
    if not lost:
        return {"status": "ok"}
    worst = lost[0]
    reason = worst.reason or ("did not finish" if worst.status == "running" else "no reason given")
    if done:
        reason = f"{len(lost)} of {len(runs)} repeats {worst.status}: {reason}"
        return {"status": "ok", "reason": reason}
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
    splits = [_split(results, results.run_folder(r.run_id), warmup_periods(r)) for r in done]
    losses = [run.periods[-1].get("loss") for run in done if run.periods]
    known = [float(loss) for loss in losses if loss is not None]
    return {
        "period": done[0].period,
        "repeats": len(timed),
        "periods": max(len(run.periods) for run in done),
        "measured_period_s": middle,
        "repeat_spread": spread,
        "period_spread": statistics.median(_half_iqr(times) for times in timed),
        "phases_measured": _medians(split.parts for split in splits),
        "stages_measured": _medians(split.stages for split in splits),
        "metrics": _pooled(run.metrics for run in done),
        "final_loss": statistics.median(known) if known else None,
    }


def _predicted(record: PredictionRecord | None) -> dict[str, Any]:
    if record is None:
        return {}
    row: dict[str, Any] = {
        "cluster": record.cluster,
        "period": record.period,
        "prediction_status": record.status,
        "prediction_reason": record.reason,
        "grade": record.grade,
        "method": record.method,
        "beyond": str(record.notes.get("beyond", "")),
        "counted": record.counted,
        "basis": record.basis,
        "program": str(record.notes.get("program", "")),
    }
    if record.status == "ok" and record.period_s > 0:
        row["predicted_period_s"] = record.period_s
        row["phases_predicted"] = dict(record.phases)
        if record.high_s > 0:
            row |= {"predicted_low_s": record.low_s, "predicted_high_s": record.high_s}
    return row


def _predicted_split(results: Results, prediction: PredictionRecord) -> Split:
    """Predicted parts and stages, split as the measured ones are.

    The record's own sums include lanes that overlap with computation.
    """
    warmup = int((prediction.spec.get("training") or {}).get("warmup_epochs", 0))
    return _split(results, results.prediction_folder(prediction), warmup)


def _medians(tables: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Medians over the tables that are not empty; a name that a table lacks took no time there."""
    known = [table for table in tables if table]
    names = sorted({name for table in known for name in table})
    return {name: statistics.median(table.get(name, 0.0) for table in known) for name in names}


def _split(results: Results, folder: Path, warmup: int) -> Split:
    """Seconds by part and stage; empty where ledgers are absent or unreadable (passed over)."""
    try:
        return split_seconds(folder, warmup=warmup)
    except DataError as error:
        results.pass_over(error)
        return Split()


def _side_by_side(
    row: Mapping[str, Any], done: Sequence[RunRecord], prediction: PredictionRecord | None
) -> dict[str, Any]:
    measured, predicted = row.get("measured_period_s"), row.get("predicted_period_s")
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
    """Seconds of each period after the warm-up; of all periods if none would be left."""
    return [float(p["seconds"]) for p in run.steady_periods() if p.get("seconds") is not None]


def warmup_periods(run: RunRecord) -> int:
    """Periods that the run's own settings leave out of medians."""
    return int((run.spec.get("training") or {}).get("warmup_epochs", 0))


def _half_iqr(values: Sequence[float]) -> float:
    middle = statistics.median(values)
    if len(values) < 4 or not middle:
        return (max(values) - min(values)) / 2 / middle if middle else 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / 2 / middle


def _pooled(tables: Iterable[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Mean and deviation of every metric over repeats."""
    values: dict[str, list[float]] = defaultdict(list)
    for table in tables:
        for name, value in table.items():
            if value is not None:
                values[name].append(float(value))
    return {
        name: {
            "mean": statistics.fmean(found),
            "std": statistics.stdev(found) if len(found) > 1 else 0.0,
        }
        for name, found in sorted(values.items())
    }
