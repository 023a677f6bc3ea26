"""The quantities that claims compare, of a measured or predicted configuration.

A quantity has a value, an interval, and is None where the results do not hold it. Measured times
have the noise of their repeats as interval, predicted ones the simulator's 90 % interval; counted
bytes and flops are exact.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gnnbench.metrics import measure_of
from gnnbench_reports.ledgers import read_columns
from gnnbench_reports.noise import noise, repeat_spread, usual_noise
from gnnbench_reports.parts import HIDDEN, WAITING, parts_of, whole
from gnnbench_reports.reaching import reach, target
from gnnbench_reports.traffic import bytes_per_step

if TYPE_CHECKING:
    from gnnbench.results import RunRecord
    from gnnbench_reports.comparison import Comparison
    from gnnbench_reports.study import Study


@dataclass(frozen=True, slots=True)
class Value:
    """A value between two ends; all three are equal where it is exact."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Quantity:
    """What claims compare: a heading, a unit, and how to find it.

    `find` gets the study, the row, and the side, "measured" or "simulated".
    """

    title: str
    unit: str
    find: Callable[[Study, Comparison, str], Value | None]


def _exact(value: float | None) -> Value | None:
    return None if value is None else Value(value, value, value)


def _time(study: Study, row: Comparison, side: str) -> Value | None:
    if side == "measured":
        if row.measured_period_s is None:
            return None
        return _noisy(row.measured_period_s, noise(row, usual_noise(study.rows)))
    if row.predicted_period_s is None:
        return None
    low = row.predicted_low_s or row.predicted_period_s
    return Value(row.predicted_period_s, low, row.predicted_high_s or row.predicted_period_s)


def _noisy(value: float, relative: float) -> Value:
    return Value(value, value / (1 + relative), value * (1 + relative))


def _total(study: Study, row: Comparison, side: str) -> Value | None:
    """Seconds of all periods of a run."""
    one = _time(study, row, side)
    training = study.spec(row).get("training") or {}
    periods = int(training.get("increments") or training.get("epochs") or 0)
    if one is None or not periods:
        return None
    return Value(*(periods * part for part in (one.value, one.low, one.high)))


def _memory(study: Study, row: Comparison, side: str) -> Value | None:
    """Bytes above the baseline on the rank with most; the allocator's rounding is ten per cent."""
    memory = row.memory
    if side == "measured":
        found = memory.measured_workload_bytes
        return None if found is None else _noisy(float(found), _MEMORY_NOISE)
    found = memory.predicted_workload_bytes
    return None if found is None else _noisy(float(found), _MEMORY_NOISE)


_MEMORY_NOISE = 0.1


def _bytes(study: Study, row: Comparison, side: str) -> Value | None:
    return _exact(row.counted_bytes if side == "measured" else row.planned_bytes)


def _bytes_per_rank(study: Study, row: Comparison, side: str) -> Value | None:
    found = _bytes(study, row, side)
    return None if found is None else _exact(found.value / row.ranks)


def _bytes_to(study: Study, row: Comparison, side: str) -> Value | None:
    """Bytes that all ranks send until the target of the row's dataset and model."""
    found, each = _reach(study, row, side), _bytes(study, row, side)
    return None if found is None or each is None else _exact(found[1] * each.value)


def _bytes_per_step(study: Study, row: Comparison, side: str) -> Value | None:
    return _exact(bytes_per_step(study.runs_of(row))) if side == "measured" else None


def _hit_rate(study: Study, row: Comparison, side: str) -> Value | None:
    """Share of the rows that ranks would have to fetch and find in their caches."""
    found = row.metrics.get("cache_hit_rate") if side == "measured" else None
    return None if found is None else _exact(found["mean"])


def _hidden_layers(study: Study, row: Comparison, side: str) -> Value | None:
    """Bytes sent in the passes, where features of hidden layers travel."""
    return _exact(_volume(row, side, phases=("forward", "backward")))


def _disk(study: Study, row: Comparison, side: str) -> Value | None:
    return _exact(_volume(row, side, kinds=("read", "write")))


def _volume(
    row: Comparison, side: str, kinds: tuple[str, ...] = (), phases: tuple[str, ...] = ()
) -> float | None:
    if not (row.measured if side == "measured" else row.predicted):
        return None
    name = "counted_bytes" if side == "measured" else "planned_bytes"
    return sum(
        float(getattr(volume, name) or 0.0)
        for volume in row.volumes
        if (not kinds or volume.kind in kinds) and (not phases or volume.phase in phases)
    )


def _metric(study: Study, row: Comparison, side: str) -> Value | None:
    """The primary test metric, with its standard error over runs; two points with one run."""
    if side != "measured" or not row.test_metric:
        return None
    mean, std = row.test_metric["mean"], row.test_metric.get("std", 0.0)
    error = 2 * std / math.sqrt(row.repeats) if row.repeats > 1 else 0.0
    return Value(mean, mean - error, mean + error)


def _best_metric(study: Study, row: Comparison, side: str) -> Value | None:
    """The primary test metric at the best validation, with its standard error over runs."""
    if side != "measured":
        return None
    found = [at_best for run in study.runs_of(row) if (at_best := _at_best(run, row.metric))]
    if len(found) < 2:
        return _exact(found[0]) if found else None
    mean, error = statistics.fmean(found), 2 * statistics.stdev(found) / math.sqrt(len(found))
    return Value(mean, mean - error, mean + error)


def _at_best(run: RunRecord, metric: str) -> float | None:
    """The test metric of the evaluation whose validation metric is best; None without one."""
    tables = [period.get("metrics") or {} for period in run.periods]
    known = [one for one in tables if f"val_{metric}" in one and f"test_{metric}" in one]
    sign = 1 if measure_of(metric).higher_is_better else -1
    best = max(known, key=lambda one: sign * one[f"val_{metric}"], default=None)
    return None if best is None else float(best[f"test_{metric}"])


def _periods_to(study: Study, row: Comparison, side: str) -> Value | None:
    found = _reach(study, row, side)
    return None if found is None else _exact(found[1])


def _seconds_to(study: Study, row: Comparison, side: str) -> Value | None:
    found = _reach(study, row, side)
    return None if found is None else _noisy(found[0], found[2])


def _reach(study: Study, row: Comparison, side: str) -> tuple[float, float, float] | None:
    """Seconds and periods until the target of the row's dataset and model; relative spread."""
    same = [r for r in study.rows if (r.dataset, r.model) == (row.dataset, row.model)]
    goal = target(study, [r for r in same if r.measured]) if side == "measured" else None
    found = None if goal is None else reach(study, row, goal)
    if found is None or found.seconds is None or found.periods is None:
        return None
    spread = max(found.spread or 0.0, repeat_spread(study.rows) or 0.0, 0.025)
    return found.seconds, found.periods, spread


def _share(*names: str) -> Callable[[Study, Comparison, str], Value | None]:
    """The share of a period's time that these parts take."""

    def find(study: Study, row: Comparison, side: str) -> Value | None:
        parts = parts_of(study, row, side)
        total = whole(parts)
        if total <= 0:
            return None
        share = sum(parts.get(name, 0.0) for name in names) / total
        relative = noise(row, usual_noise(study.rows)) if side == "measured" else 0.1
        found = _noisy(share, relative)
        return Value(found.value, found.low, min(found.high, 1.0))

    return find


def _hidden(study: Study, row: Comparison, side: str) -> Value | None:
    """The share of communication that runs behind other work."""
    parts = parts_of(study, row, side)
    sent = parts.get("communication", 0.0) + parts.get(HIDDEN, 0.0)
    return _exact(parts.get(HIDDEN, 0.0) / sent) if sent > 0 else None


def _flops(layer: int | None = None) -> Callable[[Study, Comparison, str], Value | None]:
    """Floating-point operations of all ranks, in all steps or in those of a layer."""

    def find(study: Study, row: Comparison, side: str) -> Value | None:
        found = _flops_by_rank(study, row, side, layer)
        return _exact(sum(found)) if found else None

    return find


def _imbalance(study: Study, row: Comparison, side: str) -> Value | None:
    """Flops of the rank with most over the mean."""
    found = _flops_by_rank(study, row, side)
    return _exact(max(found) / (sum(found) / len(found))) if found and sum(found) else None


def _flops_by_rank(
    study: Study, row: Comparison, side: str, layer: int | None = None
) -> list[float]:
    """Floating-point operations per period of each rank, of a measured run."""
    runs = study.runs_of(row) if side == "measured" else []
    if not runs:
        return []
    folder = study.results.run_folder(runs[0].run_id)
    return [_mean_flops(path, layer) for path in sorted(folder.glob("ledger-rank*.csv"))]


def _mean_flops(path: Path, layer: int | None) -> float:
    types = {"period": "int64", "phase": "str", "layer": "int64", "flops": "float64"}
    frame = read_columns(path, types)
    frame = frame[frame["phase"] != "evaluate"]
    if layer is not None:
        frame = frame[frame["layer"] == layer]
    return float(frame.groupby("period")["flops"].sum().mean()) if len(frame) else 0.0


def _fits(study: Study, row: Comparison, side: str) -> Value | None:
    """1 where the configuration fits the memory of its devices, 0 where it does not."""
    if side == "measured":
        return None
    memory = row.memory
    if "out of memory" in row.prediction_reason:
        return _exact(0.0)
    if memory.predicted_needed_bytes is None or memory.limit_bytes is None:
        return None
    return _exact(float(memory.predicted_needed_bytes <= memory.limit_bytes))


QUANTITIES: dict[str, Quantity] = {
    "time": Quantity("time per period", "s", _time),
    "total": Quantity("time of all periods", "s", _total),
    "memory": Quantity("memory of a rank above its baseline", "bytes", _memory),
    "bytes": Quantity("bytes sent per period", "bytes", _bytes),
    "bytes_per_rank": Quantity("bytes sent per period and rank", "bytes", _bytes_per_rank),
    "bytes_per_step": Quantity("bytes sent per optimiser step", "bytes", _bytes_per_step),
    "bytes_to": Quantity("bytes sent until the target", "bytes", _bytes_to),
    "hit_rate": Quantity("hit rate of the caches of features", "share", _hit_rate),
    "hidden_layer_bytes": Quantity("bytes sent in the passes", "bytes", _hidden_layers),
    "disk_bytes": Quantity("bytes read and written per period", "bytes", _disk),
    "metric": Quantity("test metric", "share", _metric),
    "best_metric": Quantity("test metric at the best validation", "share", _best_metric),
    "periods_to": Quantity("periods to the target", "", _periods_to),
    "seconds_to": Quantity("time to the target", "s", _seconds_to),
    "preparing": Quantity(
        "share of sampling and fetching", "share", _share("sample", "fetch", "copy", "host")
    ),
    "communication": Quantity("share of communication", "share", _share("communication")),
    "waiting": Quantity("share of waiting", "share", _share(WAITING)),
    "hidden": Quantity("share of communication that is hidden", "share", _hidden),
    "sampling": Quantity("share of sampling", "share", _share("sample")),
    "loading": Quantity("share of loading features", "share", _share("fetch", "copy")),
    "flops": Quantity("floating-point operations per period", "", _flops()),
    "flops_1": Quantity("floating-point operations of layer 1 per period", "", _flops(1)),
    "flops_2": Quantity("floating-point operations of layer 2 per period", "", _flops(2)),
    "imbalance": Quantity("operations of the busiest rank over the mean", "", _imbalance),
    "fits": Quantity("fits the memory (1) or not (0)", "", _fits),
}
