"""`gnnbench validate`: predict published measurements and print the errors."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from gnnbench.errors import SpecError

if TYPE_CHECKING:
    from gnnbench.published.rows import PublishedRow
    from gnnbench.published.score import (
        Cancelling,
        Comparison,
        Group,
        Ranking,
        Score,
        TableScore,
    )

NAME = "validate"
HELP = "predict published measurements and print the errors; needs no torch"
TABLE, DOCUMENT, PICTURE = "validation.csv", "validation.json", "parity.svg"
MOST_ROWS = 40
"""More predicted rows than these are left to --json and --out."""
T = TypeVar("T")
K = TypeVar("K")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the rows, and what to do with the outcome."""
    from gnnbench.commands.options import output_folder

    parser.add_argument(
        "rows",
        nargs="*",
        type=Path,
        metavar="TABLE.csv|DIR",
        help="tables of training systems, or of kernels and collectives; folders of measured runs; "
        "default: the published training systems that come with gnnbench",
    )
    parser.add_argument(
        "--only",
        metavar="GLOB",
        help="only rows whose id, system, dataset, source or metric matches, such as 'pipegcn*'",
    )
    parser.add_argument(
        "--out",
        type=output_folder,
        metavar="DIR",
        help=f"write {TABLE} (every row), {DOCUMENT} and {PICTURE} into this folder",
    )


def run(args: argparse.Namespace) -> int:
    from gnnbench.commands.output import emit_json, progress
    from gnnbench.published.rows import read_files, shipped_rows
    from gnnbench.published.score import score
    from gnnbench_simulator.validation import chosen, compare_rows

    folders = [path for path in args.rows if path.is_dir()]
    if folders:
        return _judge_folders(folders, args)
    operations = [path for path in args.rows if _of_operations(path)]
    if operations and len(operations) == len(args.rows):
        return _judge_operations(operations, as_json=args.json)
    if operations:
        raise SpecError(
            f"{operations[0]}: a table of operations; give tables of training systems apart"
        )
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


def _judge_folders(folders: Sequence[Path], args: argparse.Namespace) -> int:
    """Judge folders of measured runs, which come alone.

    Raises:
        SpecError: tables or options of tables beside them.
    """
    from gnnbench.commands.held_out import judge_runs

    if len(folders) < len(args.rows) or args.only or args.out:
        raise SpecError(
            f"{folders[0]}: a folder of measured runs; give folders apart from tables, and without "
            "--only and --out"
        )
    return judge_runs(folders, as_json=args.json)


def _of_operations(path: Path) -> bool:
    """Whether a file is a table of operations; what cannot be read is left to the other reader."""
    from gnnbench.costs.operation_tables import is_operation_table

    try:
        with path.open(encoding="utf-8-sig") as file:
            return is_operation_table(file.readline())
    except (OSError, UnicodeDecodeError):
        return False


def _judge_operations(paths: Sequence[Path], *, as_json: bool) -> int:
    from gnnbench.commands import operation_errors
    from gnnbench.commands.output import emit_json
    from gnnbench.costs.operation_tables import judge

    found = [(path.name, judge(path.read_text(encoding="utf-8-sig"), str(path))) for path in paths]
    if as_json:
        emit_json({"operations": [operation_errors.document(name, j) for name, j in found]})
        return 0
    for name, judgement in found:
        operation_errors.show(name, judgement)
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
        "software_radius": c.software_radius,
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
    from gnnbench.spreadsheet import guarded

    folder.mkdir(parents=True, exist_ok=True)
    rows = [row_document(c) for c in comparisons]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]) if rows else ["row_id"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: guarded(value) for key, value in row.items()} for row in rows)
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
    """Print the score, the rows if they are few, errors by system, rankings, and reasons."""
    from gnnbench.commands.output import text

    for line in _summary(total):
        text(line)
    if any(t.ratio is not None for t in total.tables):
        title = "By table: rows that state a time, and how their times are predicted"
        _table(title, [_of_table(t) for t in total.tables])
    if total.cancelling:
        _say(
            f"Errors that cancel: {len(total.cancelling)} epochs are met although parts of them "
            "are missed both ways"
        )
        _table("The first of them", [_cancels(c) for c in total.cancelling[:8]])
    _table("What the predicted times are sums of", _definitions(comparisons))
    _show_rows([c for c in comparisons if not c.reason])
    below = [c.row.row_id for c in comparisons if c.note.startswith("published time is below")]
    if below:
        _say(f"Published times too short for their bytes on the stated link: {', '.join(below)}")
    for source, groups in _by(total.groups, lambda g: g.source):
        _table(f"Errors by system and metric: {source}", [_group(g) for g in groups])
    if any(g.used in ("fit", "input") for g in total.groups):
        _say(
            "used as: 'score' and 'held out' rows enter the median error above; constants were "
            "fitted to 'fit' rows; 'input' rows are numbers that a profile was made from."
        )
    _table(
        "Order of epoch times within a published table, predicted against published",
        [_ranking(r) for r in total.rankings],
    )
    _table("Rows without a prediction, by reason", _by_reason(comparisons))


def _definitions(comparisons: Sequence[Comparison]) -> list[dict[str, object]]:
    """Metrics of predicted times, and which part of an epoch each is taken to be."""
    from collections import Counter

    from gnnbench.published.metrics import meaning

    found = Counter(
        (_words(c.row.metric), meaning(c.row))
        for c in comparisons
        if c.predicted is not None and meaning(c.row)
    )
    return [
        {"metric": metric, "rows": count, "is": what}
        for (metric, what), count in sorted(found.items())
    ]


def _show_rows(comparisons: Sequence[Comparison]) -> None:
    """Print one table of predicted rows per dataset and metric; only their number if many."""
    if len(comparisons) > MOST_ROWS:
        _say(
            f"{len(comparisons)} predicted rows: --only GLOB prints them where it leaves at most "
            f"{MOST_ROWS}; --json prints and --out DIR writes all"
        )
        return
    place = attrgetter("row.dataset", "row.metric")
    for (dataset, metric), rows in _by(comparisons, place):
        _table(f"{dataset}: {_words(metric)}", [_row(c) for c in rows])


def _by(items: Iterable[T], key: Callable[[T], K]) -> Iterator[tuple[K, list[T]]]:
    """Items by key, keys in the order in which they first occur."""
    groups: dict[K, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    yield from groups.items()


def _say(words: str) -> None:
    """Print a paragraph after an empty line."""
    from gnnbench.commands.output import text

    print()
    text(words)


def _table(title: str, rows: Sequence[dict[str, object]]) -> None:
    """Print a table under its title; nothing if there are no rows."""
    from gnnbench.commands.output import table

    if rows:
        _say(title)
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


def _of_table(t: TableScore) -> dict[str, object]:
    from gnnbench_reports import numbers

    return {
        "table": t.table,
        "with a time": t.timed,
        "modelled": f"{t.modelled} ({numbers.percent(t.modelled / max(t.timed, 1))})",
        "predicted/published": "-" if t.ratio is None else f"{t.ratio:.2f}",
        "median |error|": numbers.percent(t.median_error),
        "inside": numbers.percent(t.inside),
        "Kendall's tau": "-" if t.tau is None else f"{t.tau:.2f}",
    }


def _cancels(c: Cancelling) -> dict[str, object]:
    return {
        "row": c.row_id,
        "what": _short(c.what, 34),
        "epoch": f"{c.epoch:.2f}x",
        "too slow": f"{_words(c.slowest[0])} {c.slowest[1]:.1f}x",
        "too fast": f"{_words(c.fastest[0])} {c.fastest[1]:.2f}x",
    }


def _row(c: Comparison) -> dict[str, object]:
    from gnnbench_reports import numbers

    row = c.row
    return {
        "row": row.row_id,
        "system": _short(_ASIDE.sub("", row.system), 24),
        "model": _model(row),
        "ranks": row.ranks,
        "published": _number(row.metric, c.published),
        "predicted": _number(row.metric, c.predicted),
        "error": numbers.percent(c.error, signed=True),
        "inside": _YES_OR_NO[c.inside],
        "used as": c.used,
    }


_YES_OR_NO = {True: "yes", False: "no", None: ""}


def _number(metric: str, value: float | None) -> str:
    """A number of a metric with its unit; vertices are whole."""
    from gnnbench.published.counts import COUNTS
    from gnnbench.published.disk_counts import BYTES, DISK_COUNTS
    from gnnbench.published.metrics import MEMORY, STORE
    from gnnbench.published.page_counts import PAGE_COUNTS
    from gnnbench_reports import numbers

    if metric in COUNTS:
        return numbers.whole(round(value or 0))
    if metric in PAGE_COUNTS:
        return f"{numbers.rounded(value or 0, 0.05 * (value or 0))} pages"
    if metric in DISK_COUNTS and metric not in BYTES:
        return numbers.rounded(value or 0, 0.01 * (value or 0))
    return numbers.size(value) if metric in (MEMORY, STORE, *BYTES) else numbers.seconds(value)


def _model(row: PublishedRow) -> str:
    """Name, layers and width of a row's model, as far as it states them."""
    if not (row.num_layers and row.hidden_width):
        return row.model
    return f"{row.model} {row.num_layers}x{row.hidden_width}"


def _group(g: Group) -> dict[str, object]:
    from gnnbench_reports import numbers

    return {
        "system": _ASIDE.sub("", g.system),
        "metric": _words(g.metric),
        "used as": g.used,
        "rows": g.number,
        "median |error|": numbers.percent(g.median_error),
        "largest |error|": numbers.percent(g.largest_error),
        "median error": numbers.percent(g.bias, signed=True),
        "inside": numbers.percent(g.inside),
    }


_ASIDE = re.compile(r" \([^()]{9,}\)")
"""A remark behind a system's name, which --json keeps."""


def _words(metric: str) -> str:
    return metric.replace("_", " ")


def _ranking(r: Ranking) -> dict[str, object]:
    return {
        "table": _short(r.table, 32, end=True),
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
