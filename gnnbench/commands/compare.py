"""`gnnbench compare`: measured runs and predictions of a results folder, in tables and words."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from gnnbench.commands import options
from gnnbench.errors import SpecError

if TYPE_CHECKING:
    from gnnbench_reports.against import Change
    from gnnbench_reports.comparison import Comparison
    from gnnbench_reports.finding import Finding

NAME = "compare"
HELP = "compare measured runs with predictions of a results folder, or two folders"

MOST_LINES = 40
"""Findings with more lines are left to --json and the report."""
LABEL = 60
"""Most characters of a label; a table wider than the terminal wraps labels between words."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_results_dir(parser)
    parser.add_argument(
        "second",
        type=Path,
        metavar="DIR2",
        nargs="?",
        help="another results folder: print what changed from DIR to DIR2",
    )
    parser.add_argument(
        "--cluster",
        metavar="NAME",
        help="compare with the predictions for this cluster; default: the one graded best",
    )
    parser.add_argument(
        "--against",
        metavar="NAME",
        help="compare predictions for --cluster with those for this cluster, of DIR2 or of DIR",
    )
    parser.add_argument(
        "--threshold",
        type=options.share,
        metavar="PERCENT",
        help="exit with 1 if the median error of predictions is larger, or, of two folders, if a "
        "configuration is slower in the second by more than this and than the noise",
    )


def run(args: argparse.Namespace) -> int:
    from gnnbench.commands.output import emit_json, name_passed_over, print_reasons, text
    from gnnbench.results import Results
    from gnnbench_reports.answer import opening
    from gnnbench_reports.finding import findings
    from gnnbench_reports.opening import read_study
    from gnnbench_reports.verdict import verdict

    if args.second is not None or args.against is not None:
        return _two(args)
    results = Results(args.results, create=False)
    study = read_study(results, args.cluster)
    past = _is_past(study.summary.median_error, args.threshold)
    found = findings(study)
    name_passed_over(results)
    if args.json:
        listed = {name: {"verdict": one.verdict, "rows": one.rows} for name, one in found.items()}
        document = {
            "answer": opening(study),
            "cluster": study.cluster,
            "summary": study.summary,
            "rows": study.rows,
        }
        emit_json({"schema": 2, **document, "findings": listed, "passed_over": results.passed_over})
        return past
    first = opening(study)
    for sentence in first:
        text(sentence, hanging="  ")
    if first:
        print()
    for sentence in verdict(study.summary, study.rows, found):
        text(sentence, hanging="  ")
    _print_rows(study.rows)
    for one in found.values():
        _print_finding(one)
    print()
    for status in sorted({row.status for row in study.rows}):
        reasons = [(r.reason, r.config_id) for r in study.rows if r.status == status and r.reason]
        print_reasons(status, reasons)
    if past:
        text(f"the median error is larger than {100 * args.threshold:g} % (--threshold)")
    return past


def _is_past(error: float | None, threshold: float | None) -> int:
    """The exit code: 1 past the threshold. Raises SpecError where there is no error to judge."""
    if threshold is None:
        return 0
    if error is None:
        raise SpecError(
            "--threshold: nothing was both measured and predicted here: run and predict one suite"
        )
    return int(error > threshold)


def _two(args: argparse.Namespace) -> int:
    """Compare two folders, or the predictions for two clusters."""
    from gnnbench.commands.output import emit_json, heading, name_passed_over, table, text
    from gnnbench.results import Results
    from gnnbench_reports.against import cells, contrast, machine, sentences
    from gnnbench_reports.opening import read_predicted, read_study

    read = read_study if args.against is None else read_predicted
    folders = [args.results, args.second or args.results]
    clusters = [args.cluster, args.against or args.cluster]
    studies = [
        read(Results(folder, create=False), cluster)
        for folder, cluster in zip(folders, clusters, strict=True)
    ]
    for study in studies:
        name_passed_over(study.results)
    words = [study.cluster if args.against else str(study.results.folder) for study in studies]
    names = (words[0], words[1] if words[1] != words[0] else str(folders[1]))
    found = contrast(studies[0], studies[1])
    past = args.threshold is not None and any(c.is_past(args.threshold) for c in found.changes)
    if args.json:
        changes = [{**_plain(c), "ratio": c.ratio, "word": c.word} for c in found.changes]
        only = {"only_first": found.only_first, "only_second": found.only_second}
        emit_json({"schema": 2, "first": names[0], "second": names[1], "changes": changes, **only})
        return int(past)
    for line in sentences(found, names, args.threshold):
        text(line, hanging="  ")
    for word, name, study in zip(("first", "second"), names, studies, strict=True):
        where = machine(study)
        text(f"{word}: {name}" + (f" ({where})" if where else ""), hanging="  ")
    for (dataset, model), group in groupby(found.changes, key=lambda c: (c.dataset, c.model)):
        own = list(group)
        lines = [_short(cells(change)) for change in own]
        heading(f"{dataset}, {model}: time per {own[0].period}")
        shown = [head for head in lines[0] if any(line[head] is not None for line in lines)]
        table(lines, shown)
    return int(past)


def _plain(change: Change) -> dict[str, object]:
    """The fields of a change."""
    return {field.name: getattr(change, field.name) for field in dataclasses.fields(change)}


def _print_rows(rows: Sequence[Comparison]) -> None:
    """A table per dataset and model: measured and predicted time per epoch or increment."""
    from gnnbench_reports.verdict import period_noun

    for (dataset, model), group in groupby(rows, key=lambda row: (row.dataset, row.model)):
        own = list(group)
        measured = any(row.measured for row in own)
        cells = [_cells(row) if measured else _predicted(row) for row in own]
        title = f"{dataset}, {model}: time per {period_noun(own)}"
        _table(title, cells, list(cells[0]))


def _predicted(row: Comparison) -> dict[str, object]:
    """The cells of a row where nothing of its dataset and model was measured."""
    from gnnbench_reports import numbers
    from gnnbench_reports.configurations import predicted_time
    from gnnbench_reports.labels import printable

    memory = row.memory
    known = memory.predicted_needed_bytes is not None and row.predicted
    return {
        "approach": printable(row.label, LABEL),
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
