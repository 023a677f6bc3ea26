"""Stages of mini-batch training: sampling, loading and training, predicted against measured.

An error of the whole period can hide errors of its stages that cancel. A stage is judged where it
takes a noticeable share of the measured stages; below that, its time is mostly the clock's.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gnnbench_reports import numbers
from gnnbench_reports.finding import Finding
from gnnbench_reports.parts import SAMPLING, STAGES
from gnnbench_reports.tables import Column

if TYPE_CHECKING:
    from gnnbench_reports.comparison import Comparison
    from gnnbench_reports.study import Study

TARGET = 0.25
"""A stage meets its target if its median |error| is at most this."""
LEAST_SHARE = 0.02
"""Share of the measured stages from which a stage is judged."""
ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRow:
    """How well one stage of an approach is predicted, over its configurations.

    Attributes:
        approach: its name; "all" for every approach that samples.
        configurations: those judged, of which the stage takes `LEAST_SHARE` or more.
        share: median share of the measured stages that this one takes.
        median_error, p90_error: of |predicted / measured - 1|; None if nothing was judged.
        bias: geometric mean of predicted / measured.
        within: configurations whose error is at most `TARGET`.
    """

    approach: str
    stage: str
    configurations: int
    share: float
    median_error: float | None = None
    p90_error: float | None = None
    bias: float | None = None
    within: int = 0


def stage_rows(rows: Iterable[Comparison]) -> list[StageRow]:
    """A line per stage of all approaches together, then of each; empty where none samples."""
    known = [row for row in rows if SAMPLING in row.stages_measured and row.stages_predicted]
    if not known:
        return []
    found = [_stage(ALL, stage, known) for stage in STAGES]
    for name in sorted({row.approach for row in known}):
        own = [row for row in known if row.approach == name]
        found += [_stage(name, stage, own) for stage in STAGES]
    return [row for row in found if row.share > 0]


def _stage(approach: str, stage: str, rows: Sequence[Comparison]) -> StageRow:
    shares = [
        row.stages_measured.get(stage, 0.0) / sum(row.stages_measured.values()) for row in rows
    ]
    judged = [
        row.stages_predicted.get(stage, 0.0) / row.stages_measured[stage]
        for row, share in zip(rows, shares, strict=True)
        if share >= LEAST_SHARE
    ]
    table = StageRow(
        approach=approach,
        stage=stage,
        configurations=len(judged),
        share=statistics.median(shares),
    )
    if not judged:
        return table
    errors = sorted(abs(ratio - 1) for ratio in judged)
    logs = [math.log(ratio) for ratio in judged if ratio > 0]
    return StageRow(
        approach=approach,
        stage=stage,
        configurations=len(judged),
        share=table.share,
        median_error=statistics.median(errors),
        p90_error=errors[math.ceil(0.9 * len(errors)) - 1],
        bias=math.exp(statistics.fmean(logs)) if logs else None,
        within=sum(error <= TARGET for error in errors),
    )


def finding(study: Study) -> Finding | None:
    """The table, where runs that sample were measured and predicted, and have ledgers."""
    rows = stage_rows(study.rows)
    if not rows:
        return None
    columns = (
        Column(heading="approach", word=True),
        Column(heading="stage"),
        Column(heading="n", number=True, meaning="configurations that are judged"),
        Column(heading="share", number=True, meaning="median share of the measured stages"),
        Column(heading="median error", number=True),
        Column(heading="90th percentile", number=True),
        Column(heading="bias", number=True, meaning="geometric mean of predicted / measured"),
        Column(heading="within 25 %", number=True),
    )
    return Finding(
        title="Stages of a mini-batch epoch: error of the prediction",
        meaning=(
            "Seconds per period of the rank with most work, by stage. Sampling: drawing a batch "
            "and building its blocks. Loading: fetching input rows, from this rank, the host or "
            "their owners. Training: forward, backward, gradient synchronisation, update. A stage "
            "includes its communication and excludes waiting for slower ranks. A stage that runs "
            "behind another counts in full, so stages may sum to more than the period. Errors are "
            "|predicted / measured - 1|, over configurations whose stage takes at least "
            f"{numbers.percent(LEAST_SHARE)} of the measured stages."
        ),
        columns=columns,
        rows=tuple(rows),
        cells=tuple(_cells(row) for row in rows),
        verdict=_verdict(rows),
    )


def _cells(row: StageRow) -> tuple[object, ...]:
    return (
        row.approach,
        row.stage,
        row.configurations,
        numbers.percent(row.share),
        numbers.percent(row.median_error),
        numbers.percent(row.p90_error),
        numbers.factor(row.bias),
        f"{row.within} of {row.configurations}" if row.configurations else "–",
    )


def _verdict(rows: Sequence[StageRow]) -> tuple[str, ...]:
    known = [row for row in rows if row.approach == ALL and row.median_error is not None]
    if not known:
        return ()
    words = ", ".join(
        f"{row.stage} {numbers.percent(row.median_error)} (n = {row.configurations})"
        for row in known
    )
    return (f"Median error of the stages of a mini-batch epoch: {words}.",)
