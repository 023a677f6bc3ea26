"""Errors of single operations: seconds per step, measured and predicted, from the ledgers.

Errors of operations cancel in an epoch; here each kind of operation is judged by itself. Steps are
paired by name on one rank of a configuration, the slowest by prediction.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gnnbench.errors import DataError
from gnnbench_reports import numbers
from gnnbench_reports.compare import warmup_periods
from gnnbench_reports.finding import Finding
from gnnbench_reports.ledgers import step_seconds
from gnnbench_reports.tables import Column

if TYPE_CHECKING:
    from gnnbench.results import PredictionRecord
    from gnnbench_reports.comparison import Comparison
    from gnnbench_reports.study import Study

LEAST_S = 1e-4
"""Steps that take less are left out: timers and the interpreter are most of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationRow:
    """The steps of one kind of operation on one dataset.

    Attributes:
        kind: such as "spmm"; op: those of its operations that occur.
        steps: pairs of a configuration and a step.
        median, p90: of |predicted / measured - 1|.
        bias: median of predicted / measured.
        share: of the measured time of all local steps of the dataset.
    """

    dataset: str
    kind: str
    ops: str
    steps: int
    median: float
    p90: float
    bias: float
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    dataset: str
    kind: str
    op: str
    measured_s: float
    predicted_s: float
    total_s: float

    @property
    def error(self) -> float:
        return self.predicted_s / self.measured_s - 1


def operations(study: Study) -> list[OperationRow]:
    """A row per dataset and kind of local operation; most time first within a dataset."""
    pairs = [pair for row in study.rows for pair in _pairs(study, row)]
    return _rows(pairs)


def _pairs(study: Study, row: Comparison) -> list[_Pair]:
    prediction, runs = study.prediction_of(row), study.runs_of(row)
    if prediction is None or not runs or _take_turns(study, row):
        return []
    measured: dict[str, list[float]] = defaultdict(list)
    total: dict[str, list[float]] = defaultdict(list)
    try:
        predicted = _predicted(study, prediction)
        for run in runs:
            rank = int(prediction.notes.get("slowest_rank", 0))
            path = study.results.run_folder(run.run_id) / f"ledger-rank{rank}.csv"
            for (name, _, _), (each, whole) in step_seconds(path, warmup_periods(run)).items():
                measured[name].append(each)
                total[name].append(whole)
    except DataError as error:
        study.results.pass_over(error)
        return []
    found = []
    for (name, kind, op), (seconds, _) in predicted.items():
        if name in measured and seconds > 0:
            taken = statistics.median(measured[name])
            if taken >= LEAST_S:
                found.append(
                    _Pair(
                        dataset=row.dataset,
                        kind=kind,
                        op=op,
                        measured_s=taken,
                        predicted_s=seconds,
                        total_s=statistics.median(total[name]),
                    )
                )
    return found


def _take_turns(study: Study, row: Comparison) -> bool:
    """Whether a host has more threads of ranks than cores, so that processes take turns."""
    machine = study.machine
    if machine is None or machine.device.kind != "cpu":
        return False
    # A prediction spreads the turns over all steps. In a run, the scheduler lets most steps pass
    # untouched and interrupts a few for long, mostly in collectives.
    return row.ranks_per_host * machine.device.threads > machine.host.cores


def _predicted(
    study: Study, prediction: PredictionRecord
) -> dict[tuple[str, str, str], tuple[float, float]]:
    rank = int(prediction.notes.get("slowest_rank", 0))
    folder = study.results.prediction_folder(prediction)
    warmup = int((prediction.spec.get("training") or {}).get("warmup_epochs", 0))
    return step_seconds(folder / f"ledger-rank{rank}.csv", warmup)


def _rows(pairs: Iterable[_Pair]) -> list[OperationRow]:
    by_place: dict[tuple[str, str], list[_Pair]] = defaultdict(list)
    totals: dict[str, float] = defaultdict(float)
    for pair in pairs:
        by_place[pair.dataset, pair.kind].append(pair)
        totals[pair.dataset] += pair.total_s
    found = []
    for (dataset, kind), group in by_place.items():
        errors = sorted(abs(pair.error) for pair in group)
        found.append(
            OperationRow(
                dataset=dataset,
                kind=kind,
                ops=", ".join(sorted({pair.op for pair in group})),
                steps=len(group),
                median=statistics.median(errors),
                p90=errors[min(len(errors) - 1, int(0.9 * len(errors)))],
                bias=statistics.median(pair.error for pair in group) + 1,
                share=sum(pair.total_s for pair in group) / totals[dataset],
            )
        )
    return sorted(found, key=lambda row: (row.dataset, -row.share))


def finding(study: Study) -> Finding | None:
    """The table, where runs and predictions have ledgers."""
    return table(operations(study))


def table(rows: Sequence[OperationRow]) -> Finding | None:
    """The finding that shows these rows; None without rows."""
    if not rows:
        return None
    columns = (
        Column(heading="dataset", word=True),
        Column(heading="operation", word=True),
        Column(heading="steps", number=True, meaning="of all configurations"),
        Column(heading="share", number=True, meaning="of the measured time of local steps"),
        Column(heading="median error", number=True),
        Column(heading="nine of ten", number=True, meaning="errors within"),
        Column(heading="bias", number=True, meaning="median of predicted / measured"),
        Column(heading="operations", page_only=True),
    )
    return Finding(
        title="Error of single operations",
        meaning=(
            "Mean seconds of a step, predicted against measured, one pair for each step of each "
            "configuration; the rank is the slowest by prediction. Periods of the warm-up, "
            "evaluation and communication are left out, and so are steps below "
            f"{numbers.seconds(LEAST_S)}, and configurations with more ranks than cores, whose "
            "processes take turns."
        ),
        columns=columns,
        rows=tuple(rows),
        cells=tuple(_cells(row) for row in rows),
        verdict=_verdict(rows),
    )


def _cells(row: OperationRow) -> tuple[object, ...]:
    return (
        row.dataset,
        row.kind,
        row.steps,
        numbers.percent(row.share),
        numbers.percent(row.median),
        numbers.percent(row.p90),
        numbers.factor(row.bias),
        row.ops,
    )


def _verdict(rows: Sequence[OperationRow]) -> tuple[str, ...]:
    """The median error of each kind, datasets weighed by their steps."""
    found: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        found[row.kind] += [row.median] * row.steps
    if not found:
        return ()
    parts = [
        f"{kind} {numbers.percent(statistics.median(found[kind]))}"
        for kind in ("spmm", "sddmm", "gather", "gemm", "sample", "elementwise")
        if kind in found
    ]
    if not parts:
        return ()
    return (f"Median error of single operations: {', '.join(parts)}.",)
