"""What commands print: one JSON document, tables, status words and progress.

Data goes to stdout; colour and bars appear only on a terminal, so that a log or a pipe receives
plain text.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from gnnbench.results import Results

# The console of the bar that is on the screen just now.
_drawing: Console | None = None

# Words that mean good, mind this, and bad, over all commands; any other word stays uncoloured.
_COLOURS = {
    **dict.fromkeys(("ok", "done", "kept", "predicted"), "green"),
    **dict.fromkeys(("warn", "skipped", "running"), "yellow"),
    **dict.fromkeys(("fail", "failed", "diverged"), "red"),
}


def emit_json(document: object) -> None:
    """Print one JSON document; paths, dataclasses and numpy values become plain JSON.

    A number that JSON cannot say (nan, infinity) becomes null.
    """
    print(json.dumps(plain(document), indent=2, allow_nan=False))


def plain(value: object) -> object:
    """Return the value as what JSON knows."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return [plain(item) for item in items]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Path):
        return str(value)
    to_list = getattr(value, "tolist", None)  # numpy arrays and scalars, without importing numpy
    if callable(to_list):
        return plain(to_list())
    raise TypeError(f"{type(value).__name__} has no JSON form")


def name_passed_over(results: Results) -> None:
    """Name the files that could not be read, on stderr: what is printed is without them."""
    for line in results.passed_over:
        print(f"gnnbench: passed over: {line}", file=sys.stderr)


def table(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> None:
    """Print rows under the named columns; a missing or None cell is shown as '-'.

    Numbers are right-aligned. Format them before: how many digits are honest is the caller's
    knowledge.
    """
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    numeric = [all(_is_number(line[at]) for line in cells) for at in range(len(columns))]
    if sys.stdout.isatty():
        _rich_table(cells, columns, numeric)
    else:
        _plain_table(cells, columns, numeric)


def _plain_table(cells: list[list[str]], columns: Sequence[str], numeric: list[bool]) -> None:
    widths = [
        max([len(column), *(len(line[at]) for line in cells)]) for at, column in enumerate(columns)
    ]
    for line in [list(columns), *cells]:
        words = [
            word.rjust(width) if right else word.ljust(width)
            for word, width, right in zip(line, widths, numeric, strict=True)
        ]
        print("  ".join(words).rstrip())


def _rich_table(cells: list[list[str]], columns: Sequence[str], numeric: list[bool]) -> None:
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column, right in zip(columns, numeric, strict=True):
        shown.add_column(column, justify="right" if right else "left", overflow="fold")
    for line in cells:
        shown.add_row(*(Text(word, style=_COLOURS.get(word, "")) for word in line))
    _console().print(shown, soft_wrap=False)


def _cell(value: object) -> str:
    return "-" if value is None or value == "" else str(value)


def _is_number(word: str) -> bool:
    try:
        float(word.rstrip("%×").replace(",", ""))
    except ValueError:
        return word == "-"
    return True


def status_line(word: str, subject: str, detail: str = "") -> None:
    """Print one line that begins with its status word; a bar in progress stays below it."""
    rest = f"{subject}  {detail}".rstrip()
    if sys.stdout.isatty():
        from rich.text import Text

        _console().print(Text.assemble((f"{word:<9}", _COLOURS.get(word, "")), rest))
    else:
        print(f"{word:<9}{rest}", flush=True)


@contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[str], None]]:
    """Show a bar while the block runs; yields `advance(note)`, called once per item.

    Drawn on stderr where stdout is redirected. Without any terminal nothing is drawn: the status
    lines of the items are the progress.
    """
    global _drawing
    if not (sys.stdout.isatty() or sys.stderr.isatty()):
        yield lambda note: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = _console(stderr=not sys.stdout.isatty())
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", style="dim"),
        console=console,
        transient=True,
        # Redirected data must reach its file, not the terminal that shows the bar.
        redirect_stdout=sys.stdout.isatty(),
    ) as bar:
        task = bar.add_task(label, total=total, note="")
        _drawing = console
        try:
            yield lambda note: bar.update(task, advance=1, note=note)
        finally:
            _drawing = None


def _console(*, stderr: bool = False) -> Console:
    """Return the console that draws a bar just now, so that lines land above it, or a new one."""
    from rich.console import Console

    return _drawing or Console(stderr=stderr, soft_wrap=True, highlight=False)
