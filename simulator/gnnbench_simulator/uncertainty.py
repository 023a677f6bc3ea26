"""The interval of a prediction: Monte Carlo over the errors of its cost classes.

Errors of different cost classes partly cancel in a sum; errors within one class are correlated.
Each draw gives every class one lognormal factor. The plan is replayed with all draws at once, so
that barriers and overlap apply to every draw (simulation 10.4).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gnnbench.cluster import IterationModel
from gnnbench.costs.facts import Floats
from gnnbench.costs.iterations import SHARED, UNCOUNTED, Z90, alike, class_spread
from gnnbench.errors import Unsupported
from gnnbench.ladder import weakest
from gnnbench.steps import COLLECTIVES
from gnnbench_simulator.compute import PROBE_OP, calibrated
from gnnbench_simulator.pieces import GAP_OP
from gnnbench_simulator.program import Program
from gnnbench_simulator.replay import replay

MATTERS = 0.05
"""A cost class matters if it makes up more than this share of the slowest rank's period."""
DRIFT = 0.06
"""Least spread (log) of a machine's speed between a calibration and a run, where all errors are
shared; a machine whose own speed probe spread by more in calibration drifts by that. Like the next
two, the root mean square of the logarithm of the speed probe's time in runs over that in
calibration, median over the folders of 21 and 28 November 2026 in `reports/measured` (584
configurations, two virtual machines): runs of one rank on two cores."""
DRIFT_FULL = 0.10
"""The same where a host's ranks take all of its cores, so that any other work slows them."""
DRIFT_IN_TURNS = 0.15
"""The same where more ranks than cores take turns (28 November alone: earlier ratios mean less)."""
_SAMPLED = 20
"""Iterations of which steps are counted, evenly spread over the plan."""
_TOGETHER = frozenset(kind.value for kind in COLLECTIVES)
"""Classes whose errors all steps have in common: a collective was measured between ranks that had
computed alike, and what is different where it is used is so for all its calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Factors on the predicted time: 5 % and 95 % quantiles of the draws over the prediction."""

    low: float
    high: float


def interval(program: Program, *, draws: int = 0, seed: int = 0) -> Interval:
    """Spread of a period's time under the radii of its cost classes.

    Radii of calibrated operations are scaled, and their errors correlated, as the sums of the
    probes' iterations were found to need (`gnnbench.costs.iterations`). Contention between flows is
    left out of the draws: it scales with the same times.
    """
    world = program.world_size
    draws = draws or int(np.clip(40_000 // world, 40, 200))
    rng = np.random.default_rng(seed)
    factors: dict[str, Floats] = {}
    common = _earned(program).common
    together = _normal(rng, draws)
    for name, (spread, _) in class_errors(program).items():
        drawn = _normal(rng, draws)
        if _is_calibrated(program, name):
            drawn = common**0.5 * together + (1.0 - common) ** 0.5 * drawn
        factors[name] = np.exp(spread / Z90 * drawn)
    if not factors:
        return Interval(low=1.0, high=1.0)
    periods = 1 if program.plan.num_periods < 2 or world * draws > 100_000 else 2
    try:
        # The first draw is the prediction itself.
        first = {name: np.concatenate([[1.0], drawn]) for name, drawn in factors.items()}
        times = replay(program, periods=periods, ignore_contention=True, factors=first).period_s[-1]
        base, drawn = float(times[0]), times[1:]
    except Unsupported:
        base, drawn = _sums(program, factors)
    if base <= 0:
        return Interval(low=1.0, high=1.0)
    drift = np.exp(_drift(program) * _normal(rng, draws))
    low, high = np.quantile(drawn * drift / base, [0.05, 0.95])
    return Interval(low=min(float(low), 1.0), high=max(float(high), 1.0))


def class_errors(program: Program) -> dict[str, tuple[float, float]]:
    """Log errors of the cost classes: half of the 90 % interval of a period's steps together.

    Returns:
        By class, in the order of their names: the whole error, and the part of it that all shapes
        have in common, so that it is the same in predictions of other plans on the cluster.
    """
    found = {}
    counts = _steps_by_class(program)
    factor = _earned(program).factor
    for name, cost in sorted(program.cost_classes.items()):
        shared = 1.0 if name in _TOGETHER else SHARED if cost.shared is None else cost.shared
        radius = cost.radius * (factor if _is_calibrated(program, name) else 1.0)
        spread = Z90 * class_spread(radius, shared, counts.get(name, 1.0))
        found[name] = spread, radius * shared**0.5
    return found


def _drift(program: Program) -> float:
    """Spread (log) of the machine's speed, by its speed probe where it was calibrated.

    Only what the probes of a workload share counts: the rest averages out over a run's epochs.
    """
    least = _least_drift(program)
    probe = calibrated(program.cluster, PROBE_OP, program.ranks_per_host)
    # Older files took all probes for one source, which leaves nothing to judge their spread by.
    if probe is None or not probe.judged:
        return least
    shared = 1.0 if probe.shared is None else probe.shared
    return max(least, float(probe.radius / Z90 * shared**0.5))


def _least_drift(program: Program) -> float:
    device, ranks = program.cluster.device, min(program.ranks_per_host, program.world_size)
    cores = ranks * device.threads
    if device.kind != "cpu" or cores < program.cluster.host.cores:
        return DRIFT
    return DRIFT_FULL if cores == program.cluster.host.cores else DRIFT_IN_TURNS


def _earned(program: Program) -> IterationModel:
    return program.cluster.iteration_errors(program.ranks_per_host) or UNCOUNTED


def _is_calibrated(program: Program, name: str) -> bool:
    return calibrated(program.cluster, name, program.ranks_per_host) is not None


def _steps_by_class(program: Program) -> dict[str, float]:
    """Steps of each cost class in an iteration of a rank, as many as matter (`alike`).

    Of the iteration and rank that spend most on the class.
    """
    most: dict[str, tuple[float, float]] = {}
    for index in _spread(list(program.iterations), _SAMPLED):
        timed = program.iterations[index]
        labels = program.labels_of(timed.layout)
        for own, seconds in zip(labels, timed.seconds, strict=True):
            rows: dict[str, list[Floats]] = {}
            for label, row in zip(own, seconds, strict=True):
                rows.setdefault(label, []).append(row)
            for label, parts in rows.items():
                most[label] = max(most.get(label, (0.0, 1.0)), _longest(np.stack(parts)))
            # Gaps are alike, and there is one after each step.
            most[GAP_OP] = max(most.get(GAP_OP, (0.0, 1.0)), (float(len(own)), float(len(own))))
    return {label: steps for label, (_, steps) in most.items()}


def _longest(seconds: Floats) -> tuple[float, float]:
    """Time of the rank with the longest steps [steps, ranks], and how many these are."""
    totals = seconds.sum(axis=0)
    rank = int(np.argmax(totals))
    return float(totals[rank]), alike(seconds[:, rank])


def _sums(program: Program, factors: Mapping[str, Floats]) -> tuple[float, Floats]:
    """Work of the busiest rank, as predicted and drawn: the fallback without a replay."""
    work = work_by_class(program)
    base = max(float(sum(work.values(), np.zeros(program.world_size)).max()), 0.0)
    drawn = sum(seconds[:, None] * factors[label] for label, seconds in work.items())
    return base, np.asarray(drawn, dtype=np.float64).max(axis=0)


def _spread(indices: list[int], most: int) -> list[int]:
    """At most so many of these, evenly spread."""
    return indices[:: -(-len(indices) // most)] if indices else []


def _normal(rng: np.random.Generator, draws: int) -> Floats:
    """Standard normal draws, stratified so that few draws have the right quantiles."""
    from statistics import NormalDist

    places = (np.arange(draws) + 0.5) / draws
    values = np.array([NormalDist().inv_cdf(p) for p in places.tolist()])
    rng.shuffle(values)
    return values


def work_by_class(program: Program, *, most: int = 1000) -> dict[str, Floats]:
    """Seconds of work per period by cost class, per rank; waiting left out.

    Of a plan with more than `most` distinct iterations, evenly spread ones stand for all.
    """
    plan = program.plan
    counts = Counter(plan.schedule)
    indices = list(counts)
    picked = _spread(indices, most)
    share = len(plan.schedule) / max(sum(counts[index] for index in picked), 1)
    totals: dict[str, Floats] = {}
    for index in picked:
        timed = program.iterations[index]
        times = counts[index] * share / max(plan.num_periods, 1)
        labels = program.labels_of(timed.layout)
        for cls, own, seconds, gaps in zip(
            timed.layout.classes, labels, timed.seconds, timed.gaps, strict=True
        ):
            if np.any(gaps > 0):
                total = totals.setdefault(GAP_OP, np.zeros(program.world_size))
                total[cls.ranks] += times * gaps.sum(axis=0)
            for label, row in zip(own, seconds, strict=True):
                total = totals.setdefault(label, np.zeros(program.world_size))
                total[cls.ranks] += times * row
    return totals


def prediction_grade(
    program: Program, work: Mapping[str, Floats], rank: int, period_s: float
) -> str:
    """The weakest grade among the classes that matter to the slowest rank."""
    grades = [
        program.cost_classes[label].grade
        for label, seconds in work.items()
        if label in program.cost_classes and seconds[rank] > MATTERS * period_s
    ]
    return weakest(grades)
