"""The quantities that claims compare, of a measured or predicted configuration.

A quantity has a value, an interval, and is None where the results do not hold it. Measured times
have the noise of their repeats as interval, predicted ones the simulator's 90 % interval, metrics a
90 % interval over seeds; counted bytes and operations are exact.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gnnbench.metrics import measure_of
from gnnbench.steps import Kind
from gnnbench_reports.claims.from_ledgers import counted, imbalance, seconds_of
from gnnbench_reports.claims.values import Value, exact, noisy, pooled, sampled
from gnnbench_reports.labels import seed_of
from gnnbench_reports.noise import noise, usual_noise
from gnnbench_reports.opening import find_machine
from gnnbench_reports.parts import HIDDEN, WAITING, parts_of, whole
from gnnbench_reports.reaching import Reach, reach, target
from gnnbench_reports.traffic import bytes_per_step

if TYPE_CHECKING:
    from gnnbench.results import PredictionRecord, RunRecord
    from gnnbench_reports.comparison import Comparison
    from gnnbench_reports.study import Study


@dataclass(frozen=True, slots=True)
class Quantity:
    """What claims compare: a heading, a unit, and how to find it.

    `find` gets the study, the row, and the side, "measured" or "simulated".
    """

    title: str
    unit: str
    find: Callable[[Study, Comparison, str], Value | None]


def _time(study: Study, row: Comparison, side: str) -> Value | None:
    if side == "measured":
        if row.measured_period_s is None:
            return None
        return noisy(row.measured_period_s, noise(row, usual_noise(study.rows)))
    if row.predicted_period_s is None:
        return None
    low = row.predicted_low_s or row.predicted_period_s
    high = row.predicted_high_s or row.predicted_period_s
    causes = _causes(study.prediction_of(row))
    return Value(row.predicted_period_s, low, high, causes=causes)


def _causes(record: PredictionRecord | None) -> dict[str, float]:
    """The log error that each operation makes in a prediction, as far as other shapes share it."""
    if record is None or record.period_s <= 0:
        return {}
    work = record.notes.get("work_s") or {}
    classes = record.notes.get("classes") or {}
    # Of lanes that overlap, the work may sum to more than the period.
    span = max(record.period_s, sum(work.values()))
    return {
        name: work.get(name, 0.0) / span * float(found["common"])
        for name, found in classes.items()
        if found.get("common")
    }


def _total(study: Study, row: Comparison, side: str) -> Value | None:
    """Seconds of all periods of a run."""
    training = study.spec(row).get("training") or {}
    periods = int(training.get("increments") or training.get("epochs") or 0)
    return _scaled(_time(study, row, side), periods)


def _price(study: Study, row: Comparison, side: str) -> Value | None:
    """Rent of the hosts for a period, in USD; None where the cluster has no price."""
    machine = find_machine(study.results, row.cluster) if side == "simulated" else None
    price = None if machine is None or machine.price is None else machine.price.usd_per_hour
    if price is None or not row.ranks_per_host:
        return None
    hosts = -(-row.ranks // row.ranks_per_host)
    return _scaled(_time(study, row, side), hosts * price.value / 3600)


def _scaled(one: Value | None, factor: float) -> Value | None:
    if one is None or not factor:
        return None
    return Value(factor * one.value, factor * one.low, factor * one.high, causes=one.causes)


def _memory(study: Study, row: Comparison, side: str) -> Value | None:
    """Bytes above the baseline on the rank with most; the allocator's rounding is ten per cent."""
    memory = row.memory
    if side == "measured":
        found = memory.measured_workload_bytes
    else:
        found = memory.predicted_workload_bytes
    return None if found is None else noisy(float(found), _MEMORY_NOISE)


_MEMORY_NOISE = 0.1


def _bytes(study: Study, row: Comparison, side: str) -> Value | None:
    return exact(row.counted_bytes if side == "measured" else row.planned_bytes)


def _bytes_per_rank(study: Study, row: Comparison, side: str) -> Value | None:
    found = _bytes(study, row, side)
    return None if found is None else exact(found.value / row.ranks)


def _bytes_to(study: Study, row: Comparison, side: str) -> Value | None:
    """Bytes that all ranks send until the target of the row's dataset and model."""
    each = _bytes(study, row, side)
    return None if each is None else _scaled(_periods_to(study, row, side), each.value)


def _bytes_per_step(study: Study, row: Comparison, side: str) -> Value | None:
    return exact(bytes_per_step(study.runs_of(row))) if side == "measured" else None


def _hit_rate(metric: str) -> Callable[[Study, Comparison, str], Value | None]:
    """Share of the rows that ranks would have to fetch and find in their caches."""

    def find(study: Study, row: Comparison, side: str) -> Value | None:
        found = row.metrics.get(metric) if side == "measured" else None
        return None if found is None else exact(found["mean"])

    return find


def _moved(
    *, kinds: tuple[str, ...] = (), phases: tuple[str, ...] = ()
) -> Callable[[Study, Comparison, str], Value | None]:
    """Bytes moved per period by some kinds of steps, or in some phases."""

    def find(study: Study, row: Comparison, side: str) -> Value | None:
        if not (row.measured if side == "measured" else row.predicted):
            return None
        name = "counted_bytes" if side == "measured" else "planned_bytes"
        return exact(
            sum(
                float(getattr(volume, name) or 0.0)
                for volume in row.volumes
                if (not kinds or volume.kind in kinds) and (not phases or volume.phase in phases)
            )
        )

    return find


def _metric(study: Study, row: Comparison, side: str) -> Value | None:
    """The primary test metric after training."""
    if side != "measured" or not row.test_metric:
        return None
    name = f"test_{row.metric}"
    runs = [(run, run.metrics[name]) for run in study.runs_of(row) if name in run.metrics]
    if not runs:
        return pooled(row.test_metric["mean"], row.test_metric.get("std", 0.0), row.repeats)
    return sampled(_by_seed(runs))


def _best_metric(study: Study, row: Comparison, side: str) -> Value | None:
    """The primary test metric at the best validation."""
    if side != "measured":
        return None
    found = [(run, at) for run in study.runs_of(row) if (at := _at_best(run, row.metric))]
    return sampled(_by_seed(found)) if found else None


def _by_seed(found: Iterable[tuple[RunRecord, float]]) -> dict[int, float]:
    """Values by seed: repeats of one seed are no further samples."""
    samples = defaultdict(list)
    for run, value in found:
        samples[seed_of(run.spec)].append(float(value))
    return {seed: statistics.fmean(values) for seed, values in sorted(samples.items())}


def _at_best(run: RunRecord, metric: str) -> float | None:
    """The test metric of the evaluation whose validation metric is best; None without one."""
    tables = [period.get("metrics") or {} for period in run.periods]
    known = [one for one in tables if f"val_{metric}" in one and f"test_{metric}" in one]
    sign = 1 if measure_of(metric).higher_is_better else -1
    best = max(known, key=lambda one: sign * one[f"val_{metric}"], default=None)
    return None if best is None else float(best[f"test_{metric}"])


def _periods_to(study: Study, row: Comparison, side: str) -> Value | None:
    """Median over the runs, with their range."""
    found = _reach(study, row, side)
    if found is None or found.periods is None:
        return None
    low, high = found.period_range
    return Value(found.periods, low, high)


def _seconds_to(study: Study, row: Comparison, side: str) -> Value | None:
    found = _reach(study, row, side)
    if found is None or found.seconds is None:
        return None
    return noisy(found.seconds, max(found.spread or 0.0, usual_noise(study.rows)))


def _reach(study: Study, row: Comparison, side: str) -> Reach | None:
    """When a row reaches the target of its dataset and model."""
    same = [r for r in study.rows if (r.dataset, r.model) == (row.dataset, row.model)]
    goal = target(study, [r for r in same if r.measured]) if side == "measured" else None
    return None if goal is None else reach(study, row, goal)


def _stage(name: str) -> Callable[[Study, Comparison, str], Value | None]:
    """Seconds per period of a stage of mini-batches, whether or not other work hides it."""

    def find(study: Study, row: Comparison, side: str) -> Value | None:
        found = row.stages_measured.get(name) if side == "measured" else None
        return None if not found else noisy(found, noise(row, usual_noise(study.rows)))

    return find


def _share(*names: str) -> Callable[[Study, Comparison, str], Value | None]:
    """The share of a period's time that these parts take."""

    def find(study: Study, row: Comparison, side: str) -> Value | None:
        parts = parts_of(study, row, side)
        total = whole(parts)
        if total <= 0:
            return None
        share = sum(parts.get(name, 0.0) for name in names) / total
        relative = noise(row, usual_noise(study.rows))
        if side == "simulated":
            relative = _interval_of(row)
        found = noisy(share, relative)
        return Value(found.value, found.low, min(found.high, 1.0))

    return find


def _interval_of(row: Comparison) -> float:
    """Half of the relative 90 % interval of a predicted time."""
    low, high = row.predicted_low_s, row.predicted_high_s
    return math.sqrt(high / low) - 1 if low and high else 0.0


def _hidden(study: Study, row: Comparison, side: str) -> Value | None:
    """The share of communication that runs behind other work."""
    parts = parts_of(study, row, side)
    sent = parts.get("communication", 0.0) + parts.get(HIDDEN, 0.0)
    return exact(parts.get(HIDDEN, 0.0) / sent) if sent > 0 else None


_OUT_OF_MEMORY = "out of memory"


def _fits(study: Study, row: Comparison, side: str) -> Value | None:
    """1 where the configuration fits the memory of its devices or the run's cap, 0 where not."""
    memory = row.memory
    if side == "measured":
        if row.measured:
            return exact(1.0)
        return exact(0.0) if _OUT_OF_MEMORY in row.reason else None
    if _OUT_OF_MEMORY in row.prediction_reason:
        return exact(0.0)
    if memory.predicted_needed_bytes is None or memory.limit_bytes is None:
        return None
    return exact(float(memory.predicted_needed_bytes <= memory.limit_bytes))


QUANTITIES: dict[str, Quantity] = {
    "time": Quantity("time per period", "s", _time),
    "total": Quantity("time of all periods", "s", _total),
    "price": Quantity("rent per period", "USD", _price),
    "memory": Quantity("memory of a rank above its baseline", "bytes", _memory),
    "bytes": Quantity("bytes sent per period", "bytes", _bytes),
    "bytes_per_rank": Quantity("bytes sent per period and rank", "bytes", _bytes_per_rank),
    "bytes_per_step": Quantity("bytes sent per optimiser step", "bytes", _bytes_per_step),
    "bytes_to": Quantity("bytes sent until the target", "bytes", _bytes_to),
    "hidden_layer_bytes": Quantity(
        "bytes sent in the passes", "bytes", _moved(phases=("forward", "backward"))
    ),
    "disk_bytes": Quantity(
        "bytes read and written per period", "bytes", _moved(kinds=("read", "write"))
    ),
    "disk_bytes_read": Quantity("bytes read per period", "bytes", _moved(kinds=("read",))),
    "hit_rate": Quantity(
        "hit rate of the caches of features", "share", _hit_rate("cache_hit_rate")
    ),
    "node_hit_rate": Quantity(
        "hit rate of the caches of node features", "share", _hit_rate("nodes_hit_rate")
    ),
    "edge_hit_rate": Quantity(
        "hit rate of the caches of edge features", "share", _hit_rate("edges_hit_rate")
    ),
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
    "sampling_time": Quantity("time of sampling per period", "s", _stage("sampling")),
    "sampled_bytes": Quantity(
        "bytes that sampling reads per period", "bytes", counted("bytes", kind=Kind.SAMPLE)
    ),
    "ingest_time": Quantity(
        "time of inserting or building the graph per period",
        "s",
        seconds_of("ingest", "build_temporal_csr"),
    ),
    "flops": Quantity("floating-point operations per period", "", counted("flops")),
    "flops_1": Quantity(
        "floating-point operations of layer 1 per period", "", counted("flops", layer=1)
    ),
    "flops_2": Quantity(
        "floating-point operations of layer 2 per period", "", counted("flops", layer=2)
    ),
    "imbalance": Quantity("operations of the busiest rank over the mean", "", imbalance("flops")),
    "sampling_imbalance": Quantity(
        "bytes that sampling reads on the busiest rank over the mean",
        "",
        imbalance("bytes", kind=Kind.SAMPLE),
    ),
    "fits": Quantity("fits the memory (1) or not (0)", "", _fits),
}
