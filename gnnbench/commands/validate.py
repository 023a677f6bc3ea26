"""`gnnbench validate`: predict what others have published and print the error of every row."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gnnbench.published.score import Comparison, Group, Ranking, Score

NAME = "validate"
HELP = "predict published measurements and print every error; needs no torch"
TABLE, DOCUMENT, PICTURE = "validation.csv", "validation.json", "parity.svg"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the rows, and what to do with the outcome."""
    from gnnbench.commands.options import output_folder

    parser.add_argument(
        "rows",
        nargs="*",
        type=Path,
        metavar="ROWS.csv",
        help="published rows; by default those that come with gnnbench",
    )
    parser.add_argument(
        "--only",
        metavar="GLOB",
        help="only rows whose id, system, dataset, source or metric matches",
    )
    parser.add_argument(
        "--out",
        type=output_folder,
        metavar="DIR",
        help=f"write {TABLE}, {DOCUMENT} and {PICTURE} there",
    )


def run(args: argparse.Namespace) -> int:
    from gnnbench.commands.output import emit_json, progress
    from gnnbench.published.rows import read_files, shipped_rows
    from gnnbench.published.score import score
    from gnnbench_simulator.validation import chosen, compare_rows

    rows = read_files(args.rows) if args.rows else shipped_rows()
    if args.only:
        rows = chosen(rows, args.only)
    with progress("validate", len(rows)) as advance:
        comparisons = compare_rows(rows, advance)
    total = score(comparisons)
    document = {"score": total, "rows": [row_document(c) for c in comparisons]}
    if args.out:
        write(args.out, comparisons, document)
    if args.json:
        emit_json(document)
    else:
        show(comparisons, total)
    return 0


# -- what is written -----------------------------------------------------------------------------

_OF_ROW = (
    "row_id",
    "source",
    "location",
    "system",
    "dataset",
    "model",
    "layers",
    "hidden",
    "gpus",
    "metric",
)


def row_document(c: Comparison) -> dict[str, Any]:
    """The JSON row: numbers in seconds, bytes or vertices, errors relative."""
    return {
        **{name: getattr(c.row, name) for name in _OF_ROW},
        "published": c.published if c.reason is None else None,
        "predicted": c.predicted,
        "low": c.low,
        "high": c.high,
        "error": c.error,
        "in_interval": c.inside,
        "grade": c.grade,
        "used": c.used,
        "cluster": c.cluster,
        "reason": str(c.reason) if c.reason else "",
        "note": c.note,
    }


def write(folder: Path, comparisons: Sequence[Comparison], document: dict[str, Any]) -> None:
    """Write every row as CSV, everything as JSON, and a picture of the scored epoch times."""
    import csv
    import io
    import json

    from gnnbench.atomic import write_text
    from gnnbench.commands.output import plain
    from gnnbench.published.metrics import EPOCH_TIME

    folder.mkdir(parents=True, exist_ok=True)
    rows = [row_document(c) for c in comparisons]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]) if rows else ["row_id"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / TABLE, out.getvalue())
    write_text(folder / DOCUMENT, json.dumps(plain(document), indent=1, allow_nan=False))
    epochs = [c for c in comparisons if c.scored and c.row.metric == EPOCH_TIME]
    draw(folder / PICTURE, epochs)


def draw(path: Path, comparisons: Sequence[Comparison]) -> None:
    """Draw published against predicted epoch times; without any, remove an earlier picture."""
    import pandas as pd

    from gnnbench_reports.figures import drawing, parity

    path.unlink(missing_ok=True)
    if not comparisons:
        return
    frame = pd.DataFrame(
        [
            {
                "approach": c.row.system.split("(")[0].strip(),
                "ranks": c.row.ranks,
                "period": "epoch",
                "measured_period_s": c.published,
                "predicted_period_s": c.predicted,
                "predicted_low_s": c.low,
                "predicted_high_s": c.high,
                "repeat_spread": 0.0,
                "error": c.error,
            }
            for c in comparisons
        ]
    )
    with drawing.paper_style():
        from gnnbench.atomic import write_bytes

        write_bytes(path, drawing.save(parity.draw(frame), "svg"))


# -- what is printed -----------------------------------------------------------------------------


def show(comparisons: Sequence[Comparison], total: Score) -> None:
    """Print the score, every row, sums by source and system, rankings, and reasons."""
    for line in _summary(total):
        print(line)
    _table("Published rows and their predictions", [_row(c) for c in comparisons if not c.reason])
    below = [c.row.row_id for c in comparisons if c.note.startswith("published time is below")]
    if below:
        print(f"\nPublished times too short for their bytes on the stated link: {', '.join(below)}")
    _table(
        "Errors by source, system and metric (fitted rows and inputs of profiles are not scored)",
        [_group(g) for g in total.groups],
    )
    _table(
        "Order of epoch times within a table, predicted against published",
        [_ranking(r) for r in total.rankings],
    )
    _table("Rows without a prediction, by reason", _by_reason(comparisons))


def _table(title: str, rows: Sequence[dict[str, object]]) -> None:
    """Print a table under its title; nothing if there are no rows."""
    from gnnbench.commands.output import table

    if rows:
        print(f"\n{title}")
        table(rows, list(rows[0]))


def _summary(total: Score) -> list[str]:
    """What the validation found, in a line or two."""
    from gnnbench_reports import numbers

    lines = []
    if total.median_error is not None:
        lines.append(
            f"median |error| {numbers.percent(total.median_error)} over {total.scored} scored "
            f"times and sizes, {numbers.percent(total.inside)} of them inside the 90 % interval"
        )
    lines.append(
        f"published rows: {total.rows}; predicted: {total.modelled}; "
        f"not predicted: {total.unmodelled}"
    )
    return lines


def _row(c: Comparison) -> dict[str, object]:
    from gnnbench_reports import numbers

    row = c.row
    return {
        "row": row.row_id,
        "system": _short(row.system, 24),
        "dataset": row.dataset,
        "model": f"{row.model} {row.num_layers}x{row.hidden_width}" if row.model else "",
        "ranks": row.ranks,
        "metric": row.metric,
        "published": _number(row.metric, c.published),
        "predicted": _number(row.metric, c.predicted),
        "90 % interval": numbers.interval(c.low, c.high) if c.low is not None else "",
        "error": numbers.percent(c.error, signed=True),
        "inside": _YES_OR_NO[c.inside],
        "grade": c.grade,
        "used as": c.used,
    }


_YES_OR_NO = {True: "yes", False: "no", None: ""}


def _number(metric: str, value: float | None) -> str:
    """A number of a metric with its unit; vertices are whole."""
    from gnnbench.published.counts import COUNTS
    from gnnbench.published.metrics import MEMORY
    from gnnbench_reports import numbers

    if metric in COUNTS:
        return numbers.whole(round(value or 0))
    return numbers.size(value) if metric == MEMORY else numbers.seconds(value)


def _group(g: Group) -> dict[str, object]:
    from gnnbench_reports import numbers

    return {
        "source": _short(g.source),
        "system": _short(g.system),
        "metric": g.metric,
        "used as": g.used,
        "rows": g.number,
        "median |error|": numbers.percent(g.median_error),
        "largest |error|": numbers.percent(g.largest_error),
        "median error": numbers.percent(g.bias, signed=True),
        "inside": numbers.percent(g.inside),
    }


def _ranking(r: Ranking) -> dict[str, object]:
    return {
        "table": _short(r.table, 60, end=True),
        "order of": r.of,
        "pairs": r.pairs,
        "as published": r.concordant,
        "predicted equal": r.tied,
        "Kendall's tau": f"{r.tau:.2f}",
    }


def _by_reason(comparisons: Sequence[Comparison]) -> list[dict[str, object]]:
    """Reasons by kind, with as many of their details as a line holds; `--json` has them all."""
    from collections import Counter

    kinds = Counter(c.reason.kind for c in comparisons if c.reason)
    rows: list[dict[str, object]] = []
    for kind, count in kinds.most_common():
        details = Counter(
            c.reason.detail for c in comparisons if c.reason and c.reason.kind == kind
        )
        listed = ", ".join(f"{detail} ({n})" for detail, n in details.most_common() if detail)
        rows.append({"rows": count, "reason": kind, "of which": _short(listed, 90)})
    return rows


def _short(text: str, width: int = 34, *, end: bool = False) -> str:
    """The start, or the end, of a text that is wider than a column."""
    if len(text) <= width:
        return text
    return f"…{text[-width + 1 :]}" if end else f"{text[: width - 1]}…"
