"""The table of all configurations: times, errors, bytes and the test metric."""

from __future__ import annotations

from collections.abc import Sequence

from gnnbench.metrics import measure_of
from gnnbench_reports import numbers
from gnnbench_reports.blocks import Block, Table, Text
from gnnbench_reports.comparison import Comparison
from gnnbench_reports.study import Study
from gnnbench_reports.tables import Column, Word
from gnnbench_reports.verdict import period_noun

PLACE = (
    Column(heading="dataset", word=True),
    Column(heading="model", word=True),
    Column(heading="approach"),
    Column(heading="ranks", number=True),
)
"""The columns that say which configuration a line is about."""


def place(row: Comparison) -> tuple[object, ...]:
    """The cells of `PLACE`."""
    return row.dataset, row.model, row.label, row.ranks


def configurations(study: Study) -> Sequence[Block]:
    """The table, with the metric that the tasks are judged by."""
    if not study.rows:
        return ()
    noun = period_noun(study.rows)
    columns = (
        Column(heading="status", word=True),
        *PLACE,
        Column(heading="repeats", number=True, meaning="finished runs pooled"),
        Column(heading="measured", number=True, meaning=f"median time per {noun}"),
        Column(heading="±", number=True, meaning="half the range of the repeats"),
        Column(heading="predicted", number=True),
        Column(heading="90 % interval", number=True),
        Column(heading="grade"),
        Column(heading="error", number=True, meaning="predicted / measured - 1"),
        Column(heading="inside"),
        Column(heading="bytes"),
        Column(
            heading=f"test {metric_title(study.rows)}",
            number=True,
            meaning="mean ± standard deviation over repeats",
        ),
    )
    definitions = (
        f"Times are per {noun}: medians over the periods after warm-up, then over repeats, with "
        "the digits that their spread supports. Bytes: whether all counted bytes equal the plan's."
    )
    return Text(definitions), Table(columns=columns, rows=[_cells(row) for row in study.rows])


def metric_title(rows: Sequence[Comparison]) -> str:
    """What the metric of these rows is called, such as "accuracy"; "metric" if they differ."""
    titles = {measure_of(row.metric).title for row in rows if row.metric}
    return titles.pop() if len(titles) == 1 else "metric"


def _cells(row: Comparison) -> tuple[object, ...]:
    test = row.test_metric
    inside = {True: "yes", False: Word("no", "differ"), None: "–"}[row.inside_interval]
    same = {True: "equal", False: Word("differ"), None: "–"}[row.bytes_equal]
    spread = row.repeat_spread
    return (
        Word(row.status),
        *place(row),
        row.repeats or "–",
        numbers.seconds(row.measured_period_s, row.uncertainty),
        "–" if spread is None else numbers.percent(spread, 0.001),
        predicted_time(row),
        numbers.interval(row.predicted_low_s, row.predicted_high_s),
        row.grade,
        numbers.percent(row.error, row.uncertainty, signed=True),
        inside,
        same,
        numbers.metric(measure_of(row.metric), test.get("mean"), test.get("std")),
    )


def predicted_time(row: Comparison) -> str:
    """Predicted seconds with the digits that the interval supports."""
    if row.predicted_period_s is None:
        return "–"
    spread = None
    if row.predicted_low_s is not None and row.predicted_high_s is not None:
        spread = (row.predicted_high_s - row.predicted_low_s) / 4 / row.predicted_period_s
    return numbers.seconds(row.predicted_period_s, spread)
