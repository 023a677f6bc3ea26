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

from gnnbench.costs.facts import Floats
from gnnbench.errors import Unsupported
from gnnbench.ladder import weakest
from gnnbench.steps import COLLECTIVES
from gnnbench_simulator.compute import GAP_OP, PROBE_OP, calibrated
from gnnbench_simulator.program import Program
from gnnbench_simulator.replay import replay

_Z90 = 1.645
MATTERS = 0.05
"""A cost class matters if it makes up more than this share of the slowest rank's period."""
SHARED = 0.3
"""Share of the variance of a class's errors that all its steps have in common; the rest is each
shape's own and averages out over the different steps of an iteration. Assumed where calibration
does not say it (`OpModel.shared`)."""
DRIFT = 0.06
"""Least spread (log) of a machine's speed between a calibration and a run, where all errors are
shared. Repeats of one kernel on a shared machine have spread by 12 % within a minute; a machine
whose own speed probe spread by more in calibration drifts by that."""
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

    Contention between flows is left out of the draws: it scales with the same times.
    """
    world = program.world_size
    draws = draws or int(np.clip(40_000 // world, 40, 200))
    rng = np.random.default_rng(seed)
    factors: dict[str, Floats] = {}
    for name, (spread, _) in class_errors(program).items():
        factors[name] = np.exp(spread / _Z90 * _normal(rng, draws))
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
    for name, cost in sorted(program.cost_classes.items()):
        earned = SHARED if cost.shared is None else cost.shared
        shared = 1.0 if name in _TOGETHER else earned
        spread = shared + (1.0 - shared) / max(counts.get(name, 1.0), 1.0)
        found[name] = cost.radius * spread**0.5, cost.radius * shared**0.5
    return found


def _drift(program: Program) -> float:
    """Spread (log) of the machine's speed, by its speed probe where it was calibrated."""
    probe = calibrated(program.cluster, PROBE_OP, program.ranks_per_host)
    return DRIFT if probe is None else max(DRIFT, probe.radius / _Z90)


def _steps_by_class(program: Program) -> dict[str, float]:
    """Different steps of each cost class in an iteration of a rank."""
    counts: dict[str, float] = {}
    for layout in program.layouts:
        for labels in program.labels_of(layout):
            for label in set(labels):
                counts[label] = max(counts.get(label, 0.0), labels.count(label))
    return counts


def _sums(program: Program, factors: Mapping[str, Floats]) -> tuple[float, Floats]:
    """Work of the busiest rank, as predicted and drawn: the fallback without a replay."""
    work = work_by_class(program)
    base = max(float(sum(work.values(), np.zeros(program.world_size)).max()), 0.0)
    drawn = sum(seconds[:, None] * factors[label] for label, seconds in work.items())
    return base, np.asarray(drawn, dtype=np.float64).max(axis=0)


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
    picked = indices[:: -(-len(indices) // most)]
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
