"""`gnnbench compare`: runs and predictions of a results folder, side by side."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gnnbench.commands import options

if TYPE_CHECKING:
    from gnnbench_reports.compare import Comparison

NAME = "compare"
HELP = "lay measured runs and predictions of a results folder side by side"

COLUMNS = (
    "status", "graph", "model", "approach", "ranks", "measured", "±", "predicted", "90 % interval",
    "error", "bytes", "memory",
)  # fmt: skip

# A finding with more lines would bury the verdict.
MOST_LINES = 40
MOST_NAMES = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_results_dir(parser)
    parser.add_argument(
        "--cluster",
        metavar="NAME",
        help="compare with the predictions for this cluster; default: the one graded best",
    )


def run(args: argparse.Namespace) -> int:
    from gnnbench.commands.output import emit_json, table
    from gnnbench.results import Results
    from gnnbench_reports.finding import findings
    from gnnbench_reports.study import read_study
    from gnnbench_reports.verdict import sentences

    study = read_study(Results(args.results, create=False), args.cluster)
    found = findings(study)
    if args.json:
        told = {name: {"verdict": one.verdict, "rows": one.rows} for name, one in found.items()}
        document = {"cluster": study.cluster, "summary": study.summary, "rows": study.rows}
        emit_json({"schema": 1, **document, "findings": told})
        return 0
    if study.rows:
        table([_cells(row) for row in study.rows], COLUMNS)
        print()
    for one in found.values():
        if len(one.cells) > MOST_LINES:
            print(f"{one.title}: {len(one.cells)} lines; --json and `gnnbench report` show them\n")
            continue
        print(f"{one.title}:")
        heads = [column.heading for column in one.columns]
        table([dict(zip(heads, line, strict=True)) for line in one.cells], heads)
        print()
    for line in _reasons(study.rows):
        print(line)
    # Last, where a terminal's reader is.
    for sentence in sentences(study.summary, study.rows):
        print(sentence)
    for one in found.values():
        for sentence in one.verdict:
            print(sentence)
    return 0


def _reasons(rows: Sequence[Comparison]) -> list[str]:
    """Each reason once, with the configurations that have it."""
    having: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.reason:
            having.setdefault((row.status, row.reason), []).append(row.config_id)
    lines = []
    for (status, reason), names in having.items():
        more = len(names) - MOST_NAMES
        told = ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
        lines.append(f"{status}: {reason}: {told}")
    return [*lines, ""] if lines else []


def _cells(row: Comparison) -> dict[str, object]:
    from gnnbench_reports import numbers
    from gnnbench_reports.sections import predicted_time

    spread = row.repeat_spread
    memory = row.memory.peak_ratio
    return {
        "status": row.status,
        "graph": row.graph,
        "model": row.model,
        "approach": row.label,
        "ranks": row.ranks,
        "measured": _or_none(numbers.seconds(row.measured_epoch_s, row.uncertainty)),
        "±": None if spread is None else numbers.percent(spread, 0.001).replace(" ", ""),
        "predicted": _or_none(predicted_time(row)),
        "90 % interval": _or_none(numbers.interval(row.predicted_low_s, row.predicted_high_s)),
        "error": None
        if row.error is None
        else numbers.percent(row.error, row.uncertainty, signed=True).replace(" ", ""),
        "bytes": {True: "equal", False: "differ", None: None}[row.bytes_equal],
        "memory": None if memory is None else numbers.factor(memory),
    }


def _or_none(text: str) -> str | None:
    return None if text == "–" else text
