"""Time to a metric: how long a run trains until its validation metric reaches a target."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gnnbench.metrics import measure_of
from gnnbench.results import RunRecord

if TYPE_CHECKING:
    from gnnbench_reports.comparison import Comparison
    from gnnbench_reports.study import Study

NEAR = 0.01
"""The target lies this far below the best metric: a share of 1, or of the metric without unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """When a configuration reaches the target.

    Attributes:
        seconds: training time until then, evaluation excluded; the median over runs. None if fewer
            than half of the runs reach it.
        periods: median number of periods until then.
        spread: half the range over runs, relative; None with one run.
    """

    row: Comparison
    seconds: float | None
    periods: float | None
    spread: float | None


def curve(run: RunRecord, metric: str) -> list[tuple[float, float]]:
    """Seconds of training and the validation metric at each evaluation of a run.

    A run that was evaluated after its last period alone has one point. The test metric is taken
    where there is no validation split.
    """
    elapsed, points = 0.0, []
    for period in run.periods:
        elapsed += float(period.get("seconds") or 0.0)
        metrics = period.get("metrics") or {}
        value = metrics.get(f"val_{metric}", metrics.get(f"test_{metric}"))
        if value is not None:
            points.append((elapsed, float(value)))
    return points


def target(study: Study, rows: Sequence[Comparison]) -> float | None:
    """The metric to reach: a little less than the best one; None if no run was evaluated often.

    The best is the median over the runs of a configuration of each run's best evaluation.
    """
    best = []
    for row in rows:
        higher = measure_of(row.metric).higher_is_better
        curves = [curve(run, row.metric) for run in study.runs_of(row)]
        if not any(len(points) > 1 for points in curves):
            continue
        tops = [(max if higher else min)(v for _, v in points) for points in curves if points]
        best.append(statistics.median(tops))
    if not best:
        return None
    measure = measure_of(rows[0].metric)
    top = max(best) if measure.higher_is_better else min(best)
    slack = NEAR if measure.unit == "share" else NEAR * abs(top)
    return top - slack if measure.higher_is_better else top + slack


def reach(study: Study, row: Comparison, goal: float) -> Reach | None:
    """When a configuration reaches the goal; None if its runs were not evaluated often."""
    curves = [curve(run, row.metric) for run in study.runs_of(row)]
    curves = [points for points in curves if len(points) > 1]
    if not curves:
        return None
    higher = measure_of(row.metric).higher_is_better
    hits = []
    for points in curves:
        for number, (seconds, value) in enumerate(points, 1):
            if value >= goal if higher else value <= goal:
                hits.append((seconds, number))
                break
    if 2 * len(hits) < len(curves) or not hits:
        return Reach(row=row, seconds=None, periods=None, spread=None)
    times = [seconds for seconds, _ in hits]
    middle = statistics.median(times)
    spread = (max(times) - min(times)) / 2 / middle if len(times) > 1 and middle else None
    periods = statistics.median(number for _, number in hits)
    return Reach(row=row, seconds=middle, periods=periods, spread=spread)
