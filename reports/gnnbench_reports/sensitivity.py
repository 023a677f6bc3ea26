"""What a predicted time is most sensitive to: errors of operations, and constants of the cluster.

`gnnbench predict --sensitivity` keeps the swings of every prediction. One configuration of each
dataset and model is shown: the fastest, whose time is the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from gnnbench_reports import numbers
from gnnbench_reports.finding import Finding
from gnnbench_reports.tables import Column

if TYPE_CHECKING:
    from gnnbench_reports.comparison import Comparison
    from gnnbench_reports.study import Study

NOTE = "sensitivity"
MOST = 12
"""Causes that are shown of a configuration, widest swing first."""
OPERATION, CONSTANT = "operation", "constant"


@dataclass(frozen=True, slots=True, kw_only=True)
class SwingRow:
    """What one cause does to the predicted time of a configuration.

    Attributes:
        cause: an operation, or a constant by its key in a cluster file.
        what: "operation" or "constant".
        grade: rung of the evidence for it.
        factor: the cause is divided and multiplied by this; of an operation, its 90 % error.
        low, high: time over the predicted one, at the better and the worse end.
    """

    dataset: str
    model: str
    label: str
    ranks: int
    cluster: str
    period: str
    cause: str
    what: str
    grade: str
    factor: float
    low: float
    high: float


def swing_rows(study: Study) -> Sequence[SwingRow]:
    """The widest swings of the fastest configuration of each dataset and model.

    The measured time decides, or the predicted one where nothing was measured. Without predictions
    that kept their swings there are no rows.
    """
    if NOTE in study.kept:
        return study.kept[NOTE]
    return _rows(study)


def _rows(study: Study) -> list[SwingRow]:
    found: list[SwingRow] = []
    for _, group in groupby(study.rows, key=lambda row: (row.dataset, row.model)):
        swings = {}
        rows = [row for row in group if row.predicted]
        for row in rows:
            prediction = study.prediction_of(row)
            if prediction is not None and prediction.notes.get(NOTE):
                swings[row.key] = prediction.notes[NOTE]
        fastest = min((row for row in rows if row.key in swings), key=_seconds, default=None)
        if fastest is not None:
            found += [_row(fastest, swing) for swing in swings[fastest.key][:MOST]]
    return found


def _seconds(row: Comparison) -> tuple[bool, float]:
    """Measured times before predicted ones."""
    measured = row.measured_period_s
    return measured is None, measured or row.predicted_period_s or 0.0


def _row(row: Comparison, swing: dict[str, Any]) -> SwingRow:
    return SwingRow(
        dataset=row.dataset,
        model=row.model,
        label=row.label,
        ranks=row.ranks,
        cluster=row.cluster,
        period=row.period,
        cause=str(swing["name"]),
        what=str(swing["what"]),
        grade=str(swing["grade"]),
        factor=float(swing["factor"]),
        low=float(swing["low"]),
        high=float(swing["high"]),
    )


def finding(study: Study) -> Finding | None:
    """The table, where predictions kept what moves their time."""
    rows = _rows(study)
    return table(rows) if rows else None


def table(rows: Sequence[SwingRow]) -> Finding:
    """The table of some swings, and the widest of each configuration."""
    columns = (
        Column(heading="dataset", word=True),
        Column(heading="model", word=True),
        Column(heading="approach"),
        Column(heading="ranks", number=True),
        Column(heading="cause", meaning="an operation, or a constant of the cluster file"),
        Column(heading="factor", number=True, meaning="divided and multiplied by this"),
        Column(heading="faster", number=True, meaning="change of the time at the better end"),
        Column(heading="slower", number=True, meaning="change of the time at the worse end"),
        Column(heading="evidence"),
    )
    return Finding(
        title="What the predicted time is most sensitive to",
        meaning=(
            "Change of the predicted time per period when one cause changes and all others stay: "
            "an operation by its 90 % error, a constant of the cluster by a quarter, whose own "
            "error is not known. Of each dataset and model, the fastest configuration is shown."
        ),
        columns=columns,
        rows=tuple(rows),
        cells=tuple(_cells(row) for row in rows),
        verdict=_verdict(rows),
    )


def _cells(row: SwingRow) -> tuple[object, ...]:
    return (
        row.dataset,
        row.model,
        row.label,
        row.ranks,
        row.cause,
        numbers.factor(row.factor),
        change(row.low),
        change(row.high),
        row.grade,
    )


def change(ratio: float) -> str:
    """A ratio of times as a change in percent, with tenths below one percent."""
    return numbers.percent(ratio - 1, 0.001 if abs(ratio - 1) < 0.01 else None, signed=True)


def _verdict(rows: Iterable[SwingRow]) -> tuple[str, ...]:
    sentences = []
    for (dataset, model), group in groupby(rows, key=lambda row: (row.dataset, row.model)):
        first = next(group)
        what = "the error of" if first.what == OPERATION else "the constant"
        sentences.append(
            f"The predicted time of {first.label} on {dataset}, {model} is most sensitive to "
            f"{what} {first.cause}: {change(first.low)} to {change(first.high)}."
        )
    return tuple(sentences)
