"""Time to the same metric: measured, and predicted as predicted period time x measured periods.

Approaches that take unlike numbers of epochs, or epochs of unlike length, are compared by the time
until they reach one metric. Two targets are shown: one near the best metric, and one that every
configuration reaches.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from gnnbench.metrics import measure_of
from gnnbench_reports import numbers
from gnnbench_reports.finding import Finding
from gnnbench_reports.reaching import NEAR, Reach, common_target, reach, target
from gnnbench_reports.tables import Column

if TYPE_CHECKING:
    from gnnbench_reports.comparison import Comparison
    from gnnbench_reports.study import Study

BEST, COMMON = "near the best", "all reach it"


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRow:
    """When one configuration reaches one target; None where it does not.

    Attributes:
        rule: how the target was chosen, "near the best" or "all reach it".
        target: the validation metric, in its own unit.
        periods: median over runs; `measured_s` the training time until then, without evaluation.
        spread: half the range of the measured times over their median; None with one run.
        predicted_s: predicted seconds of a period times the measured periods.
        sent_bytes: bytes that all ranks sent to each other until then.
    """

    dataset: str
    model: str
    label: str
    ranks: int
    metric: str
    rule: str
    target: float
    period: str = "epoch"
    periods: float | None = None
    measured_s: float | None = None
    spread: float | None = None
    predicted_s: float | None = None
    sent_bytes: float | None = None

    @property
    def error(self) -> float | None:
        if self.measured_s is None or self.predicted_s is None:
            return None
        return self.predicted_s / self.measured_s - 1


def target_rows(study: Study) -> list[TargetRow]:
    """A line per configuration that was evaluated often, and target; the soonest first."""
    found = []
    for _, group in groupby(study.rows, key=lambda row: (row.dataset, row.model, row.metric)):
        rows = [row for row in group if row.measured and row.metric]
        for rule, goal in _goals(study, rows):
            reached = [one for row in rows if (one := reach(study, row, goal)) is not None]
            reached.sort(key=lambda one: (one.seconds is None, one.seconds or 0.0))
            found += [_row(one, rule, goal) for one in reached]
    return found


def _goals(study: Study, rows: Sequence[Comparison]) -> Iterator[tuple[str, float]]:
    """The target near the best; and, where some do not reach it, the one that all reach."""
    best = target(study, rows)
    if best is None:
        return
    yield BEST, best
    reached = [reach(study, row, best) for row in rows]
    common = common_target(study, rows)
    if common is not None and any(one is not None and one.seconds is None for one in reached):
        yield COMMON, common


def _row(one: Reach, rule: str, goal: float) -> TargetRow:
    row, sent = one.row, None
    if one.periods is not None and row.counted_bytes is not None:
        sent = one.periods * row.counted_bytes
    return TargetRow(
        dataset=row.dataset,
        model=row.model,
        label=row.label,
        ranks=row.ranks,
        metric=row.metric,
        rule=rule,
        target=goal,
        period=row.period,
        periods=one.periods,
        measured_s=one.seconds,
        spread=one.spread,
        predicted_s=one.predicted_seconds,
        sent_bytes=sent,
    )


def finding(study: Study) -> Finding | None:
    """The table, where runs were evaluated often."""
    return table(target_rows(study))


def table(rows: Sequence[TargetRow]) -> Finding | None:
    """The finding that shows these rows; None without rows."""
    if not rows:
        return None
    columns = (
        Column(heading="dataset", word=True),
        Column(heading="model"),
        Column(heading="approach", word=True),
        Column(heading="ranks", number=True),
        Column(heading="target", number=True, meaning="validation metric to reach"),
        Column(heading="chosen", meaning="how the target was chosen", page_only=True),
        Column(heading="periods", number=True, meaning="until the target, median over runs"),
        Column(heading="measured", number=True, meaning="training time, evaluation excluded"),
        Column(heading="predicted", number=True, meaning="predicted period x measured periods"),
        Column(heading="error", number=True),
        Column(heading="bytes sent", number=True, meaning="by all ranks until the target"),
    )
    return Finding(
        title="Time to the same metric",
        meaning=(
            "Training time until the validation metric reaches a target, evaluation excluded; "
            "median over runs, ± half their range. Predicted: the predicted time of a period times "
            "the measured number of periods, because how fast a model learns is not predicted. The "
            f"first target is the best metric of any configuration less {numbers.percent(NEAR)} "
            "(of 1 for shares, else of the metric). Where some configurations do not reach it, a "
            "second target is the lowest of their best metrics, less the same: all reach that one."
        ),
        columns=columns,
        rows=tuple(rows),
        cells=tuple(_cells(row) for row in rows),
        verdict=_verdict(rows),
    )


def _cells(row: TargetRow) -> tuple[object, ...]:
    error = None if row.error is None else numbers.percent(row.error, row.spread, signed=True)
    return (
        row.dataset,
        row.model,
        row.label,
        row.ranks,
        numbers.metric(measure_of(row.metric), row.target),
        row.rule,
        "not reached" if row.periods is None else f"{row.periods:g}",
        None if row.measured_s is None else numbers.seconds(row.measured_s, row.spread),
        None if row.predicted_s is None else numbers.seconds(row.predicted_s),
        error,
        numbers.size(row.sent_bytes) if row.sent_bytes else None,
    )


def _verdict(rows: Sequence[TargetRow]) -> tuple[str, ...]:
    errors = [abs(row.error) for row in rows if row.error is not None]
    if not errors:
        return ()
    return (
        "Time to the same metric, predicted period time x measured periods: median error "
        f"{numbers.percent(statistics.median(errors))}, largest {numbers.percent(max(errors))} "
        f"(n = {len(errors)}).",
    )
