"""`gnnbench compare`: measured runs and predictions of a results folder, in tables and words."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from gnnbench.commands import options

if TYPE_CHECKING:
    from gnnbench_reports.comparison import Comparison
    from gnnbench_reports.finding import Finding

NAME = "compare"
HELP = "compare measured runs with predictions of a results folder"

MOST_LINES = 40
"""Findings with more lines are left to --json and the report."""
LABEL = 20
"""Characters of a label that leave a table within 80 columns."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_results_dir(parser)
    parser.add_argument(
        "--cluster",
        metavar="NAME",
        help="compare with the predictions for this cluster; default: the one graded best",
    )


def run(args: argparse.Namespace) -> int:
    from gnnbench.commands.output import emit_json, name_passed_over, print_reasons, text
    from gnnbench.results import Results
    from gnnbench_reports.finding import findings
    from gnnbench_reports.opening import read_study
    from gnnbench_reports.verdict import verdict

    results = Results(args.results, create=False)
    study = read_study(results, args.cluster)
    found = findings(study)
    name_passed_over(results)
    if args.json:
        listed = {name: {"verdict": one.verdict, "rows": one.rows} for name, one in found.items()}
        document = {"cluster": study.cluster, "summary": study.summary, "rows": study.rows}
        emit_json({"schema": 2, **document, "findings": listed, "passed_over": results.passed_over})
        return 0
    for sentence in verdict(study.summary, study.rows, found):
        text(sentence, hanging="  ")
    _print_rows(study.rows)
    for one in found.values():
        _print_finding(one)
    print()
    for status in sorted({row.status for row in study.rows}):
        reasons = [(r.reason, r.config_id) for r in study.rows if r.status == status and r.reason]
        print_reasons(status, reasons)
    return 0


def _print_rows(rows: Sequence[Comparison]) -> None:
    """A table per dataset and model: measured and predicted time per period."""
    for (dataset, model), group in groupby(rows, key=lambda row: (row.dataset, row.model)):
        own = list(group)
        measured = any(row.measured for row in own)
        cells = [_cells(row) if measured else _predicted(row) for row in own]
        _table(f"{dataset}, {model}: time per period", cells, list(cells[0]))


def _predicted(row: Comparison) -> dict[str, object]:
    """The cells of a row where nothing of its dataset and model was measured."""
    from gnnbench_reports import numbers
    from gnnbench_reports.configurations import predicted_time
    from gnnbench_reports.labels import printable

    memory = row.memory
    known = memory.predicted_needed_bytes is not None and row.predicted
    return {
        "approach": printable(row.label, 2 * LABEL),
        "ranks": row.ranks,
        "predicted": predicted_time(row) if row.predicted else row.status,
        "90 % interval": numbers.interval(row.predicted_low_s, row.predicted_high_s),
        "memory": numbers.size(memory.predicted_needed_bytes) if known else None,
    }


def _print_finding(found: Finding) -> None:
    """A finding's table, one per dataset and model if it names both."""
    from gnnbench.commands.output import heading

    if len(found.cells) > MOST_LINES:
        heading(f"{found.title}: {len(found.cells)} lines, see --json or `gnnbench report`")
        return
    heads = [column.heading for column in found.columns]
    shown = [column.heading for column in found.columns if not column.page_only]
    lines = [dict(zip(heads, line, strict=True)) for line in found.cells]
    place = ["dataset", "model"] if heads[:2] == ["dataset", "model"] else []
    for key, group in groupby(lines, key=lambda line: [str(line[name]) for name in place]):
        title = ": ".join([*([", ".join(key)] if key else []), found.title])
        _table(
            title, [_short(line) for line in group], [head for head in shown if head not in place]
        )


def _table(title: str, rows: Sequence[Mapping[str, object]], heads: Sequence[str]) -> None:
    from gnnbench.commands.output import heading, table

    heading(title)
    table(rows, heads)


def _short(line: Mapping[str, object]) -> dict[str, object]:
    """A line with the label of its approach cut to `LABEL` characters."""
    from gnnbench_reports.labels import printable

    return {
        head: printable(str(value), LABEL) if head == "approach" else value
        for head, value in line.items()
    }


def _cells(row: Comparison) -> dict[str, object]:
    from gnnbench_reports import numbers
    from gnnbench_reports.configurations import predicted_time
    from gnnbench_reports.labels import printable

    memory, error = row.memory.peak_ratio, None
    if row.error is not None:
        error = numbers.percent(row.error, row.uncertainty, signed=True).replace(" ", "")
    measured = numbers.seconds(row.measured_period_s, row.uncertainty) if row.measured else None
    lost = row.status not in ("ok", "predicted")
    return {
        "approach": printable(row.label, LABEL),
        "ranks": row.ranks,
        "measured": row.status if lost else measured,
        "predicted": predicted_time(row) if row.predicted else None,
        "error": error,
        "inside": {True: "yes", False: "no", None: None}[row.inside_interval],
        "bytes": {True: "equal", False: "differ", None: None}[row.bytes_equal],
        "memory": None if memory is None else numbers.factor(memory),
    }
