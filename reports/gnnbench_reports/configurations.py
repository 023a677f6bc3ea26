"""The table of all configurations: times, errors, bytes and the test metric."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

from gnnbench.metrics import measure_of
from gnnbench.results import RunRecord
from gnnbench_reports import numbers
from gnnbench_reports.blocks import Block, Table, Text
from gnnbench_reports.comparison import Comparison
from gnnbench_reports.study import Study
from gnnbench_reports.tables import Column, Links, Word
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


def configurations(study: Study, out: Path | None = None) -> Sequence[Block]:
    """The table, with the metric that the tasks are judged by.

    Args:
        study: what was compared.
        out: the page's folder, from which each line links to what it rests on; None: no links.
    """
    if not study.rows:
        return ()
    noun = period_noun(study.rows)
    columns: tuple[Column, ...] = (
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
    link = _linker(study, out)
    if link is not None:
        meaning = "records of the runs and of the prediction, ledgers, and the cluster's constants"
        columns = (*columns, Column(heading="files", links=True, meaning=meaning))
    rows = [_cells(row) + (() if link is None else (link(row),)) for row in study.rows]
    definitions = (
        f"Times are per {noun}: medians over the periods after warm-up, then over repeats, with "
        "the digits that their spread supports. Bytes: whether all counted bytes equal the plan's."
    )
    return Text(definitions), Table(columns=columns, rows=rows)


def _linker(study: Study, out: Path | None) -> Callable[[Comparison], Links] | None:
    """A function that links a row to its files; None where the folder has no records."""
    if out is None or not (study.runs or study.predictions):
        return None
    results = study.results
    runs: dict[str, list[RunRecord]] = defaultdict(list)
    for run in study.runs:
        runs[run.config_id].append(run)

    def address(path: Path) -> str:
        return quote(os.path.relpath(path, out))

    def link(row: Comparison) -> Links:
        found = []
        for run in (run for config_id in row.config_ids for run in runs[config_id]):
            folder = results.run_folder(run.run_id)
            found.append((f"run {run.run.repeat}", address(folder / "run.json")))
            if (folder / "ledger-rank0.csv").is_file():
                found.append(("ledger", address(folder / "ledger-rank0.csv")))
        prediction = study.prediction_of(row) if row.prediction_status else None
        if prediction is not None:
            folder = results.prediction_folder(prediction)
            found.append(("prediction", address(folder / "prediction.json")))
            constants = results.cluster_file(prediction.cluster)
            if constants.is_file():
                found.append(("constants", address(constants)))
        return Links(tuple(found))

    return link


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
