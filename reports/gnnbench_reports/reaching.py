"""Time to a metric: how long a run trains until its validation metric reaches a target."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

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
        periods: median number of periods until then; not known more finely than evaluations are.
        period_range: fewest and most periods of any run that reaches it.
        predicted_seconds: the predicted time of a period times these periods; None without one.
        spread: half the range over runs, relative; None with one run.
    """

    row: Comparison
    seconds: float | None
    periods: float | None
    spread: float | None
    period_range: tuple[float, float] = (0.0, 0.0)

    @property
    def predicted_seconds(self) -> float | None:
        if self.periods is None or self.row.predicted_period_s is None:
            return None
        return self.periods * self.row.predicted_period_s


class Point(NamedTuple):
    """The validation metric after so many seconds of training, and so many periods."""

    seconds: float
    periods: int
    value: float


def curve(run: RunRecord, metric: str) -> list[Point]:
    """The validation metric at each evaluation of a run.

    A run that was evaluated after its last period alone has one point. The test metric is taken
    where there is no validation split.
    """
    elapsed, points = 0.0, list[Point]()
    for number, period in enumerate(run.periods, 1):
        elapsed += float(period.get("seconds") or 0.0)
        metrics = period.get("metrics") or {}
        value = metrics.get(f"val_{metric}", metrics.get(f"test_{metric}"))
        if value is not None:
            points.append(Point(elapsed, number, float(value)))
    return points


def target(study: Study, rows: Sequence[Comparison]) -> float | None:
    """The metric to reach: a little less than the best one; None if no run was evaluated often."""
    best = tops(study, rows)
    return _below(rows, best, max) if best else None


def common_target(study: Study, rows: Sequence[Comparison]) -> float | None:
    """The metric that every configuration reaches: a little less than the worst of their bests."""
    best = tops(study, rows)
    return _below(rows, best, min) if best else None


def tops(study: Study, rows: Sequence[Comparison]) -> list[float]:
    """The best metric of each configuration that was evaluated often.

    The best is the median over the runs of a configuration of each run's best evaluation.
    """
    best = []
    for row in rows:
        higher = measure_of(row.metric).higher_is_better
        curves = [curve(run, row.metric) for run in study.runs_of(row)]
        if not any(len(points) > 1 for points in curves):
            continue
        choose = max if higher else min
        own = [choose(point.value for point in points) for points in curves if points]
        best.append(statistics.median(own))
    return best


def _below(
    rows: Sequence[Comparison], best: Sequence[float], choose: Callable[[Sequence[float]], float]
) -> float:
    """A little less than the best (max) or worst (min) of some metrics."""
    measure = measure_of(rows[0].metric)
    sign = 1 if measure.higher_is_better else -1
    top = sign * choose([sign * value for value in best])
    slack = NEAR if measure.unit == "share" else NEAR * abs(top)
    return top - slack if measure.higher_is_better else top + slack


def reach(study: Study, row: Comparison, goal: float) -> Reach | None:
    """When a configuration reaches the goal; None if its runs were not evaluated often."""
    curves = [curve(run, row.metric) for run in study.runs_of(row)]
    curves = [points for points in curves if len(points) > 1]
    if not curves:
        return None
    higher = measure_of(row.metric).higher_is_better
    hits: list[Point] = []
    for points in curves:
        reached = (p for p in points if (p.value >= goal if higher else p.value <= goal))
        hits += [point for point in [next(reached, None)] if point is not None]
    if 2 * len(hits) < len(curves) or not hits:
        return Reach(row=row, seconds=None, periods=None, spread=None)
    times = [point.seconds for point in hits]
    middle = statistics.median(times)
    spread = (max(times) - min(times)) / 2 / middle if len(times) > 1 and middle else None
    counts = [float(point.periods) for point in hits]
    return Reach(
        row=row,
        seconds=middle,
        periods=statistics.median(counts),
        spread=spread,
        period_range=(min(counts), max(counts)),
    )
