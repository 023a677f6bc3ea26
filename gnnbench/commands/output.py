"""What commands print: one JSON document, tables, status words and progress.

Data goes to stdout; colour and bars appear only on a terminal, so that a log or a pipe receives
plain text.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from gnnbench.units import roughly

if TYPE_CHECKING:
    from rich.console import Console

    from gnnbench.results import Results

# The console of the bar that is on the screen just now.
_drawing: Console | None = None

_GAP = "  "
_QUANTITY = 16
"""Longest cell, in characters, that stays on one line if it begins with a digit: 400 … 1100 ms."""

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

    Numbers are right-aligned; the caller formats them with the digits that their spread supports.
    On a terminal, or where COLUMNS is set, wide columns are wrapped between words until the table
    fits. A pipe or file receives one line per row.
    """
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    numeric = [all(_is_number(line[at]) for line in cells) for at in range(len(columns))]
    widths = _fitted([list(columns), *cells], terminal_width())
    lines = [_wrapped(line, widths) for line in [list(columns), *cells]]
    if sys.stdout.isatty():
        _rich_table(lines, widths, numeric)
    else:
        _plain_table(lines, widths, numeric)


def terminal_width() -> int | None:
    """Characters of a line on the terminal, or of COLUMNS; None for a pipe or a file."""
    if not (sys.stdout.isatty() or os.environ.get("COLUMNS")):
        return None
    return shutil.get_terminal_size().columns


def text(words: str, indent: str = "", hanging: str = "") -> None:
    """Print a paragraph, wrapped between words at the terminal's width."""
    width = terminal_width()
    if width is None:
        print(indent + words)
    else:
        print("\n".join(_broken(words, max(width, 40), indent, indent + hanging) or [""]))


def heading(words: str) -> None:
    """Print the title of what follows, after an empty line."""
    print()
    text(words)


_MOST_NAMES = 3


def print_reasons(word: str, reasons: Iterable[tuple[str, str]]) -> None:
    """Print each reason once, in a paragraph of its own, with the names that have it.

    Args:
        word: what happened for that reason, such as "skipped".
        reasons: pairs of reason and name, in the order of the names.
    """
    having: dict[str, dict[str, None]] = {}
    for reason, name in reasons:
        having.setdefault(reason, {})[name] = None
    for reason, found in having.items():
        names = list(found)
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        text(f"{word}: {reason}: {', '.join(names[:_MOST_NAMES])}{more}", hanging="  ")


def _fitted(cells: Sequence[Sequence[str]], available: int | None) -> list[int]:
    """Widths of the columns: the widest are narrowed, down to their longest word, until all fit."""
    columns = list(zip(*cells, strict=True))
    widths = [max(map(len, column)) for column in columns]
    if available is None:
        return widths
    for floor in (_floor, _piece):
        # A heading is never broken inside a word.
        floors = [max(_floor(column[0]), *map(floor, column[1:]), 0) for column in columns]
        while sum(widths) + len(_GAP) * (len(widths) - 1) > available:
            loose = [at for at, width in enumerate(widths) if width > floors[at]]
            if not loose:
                break
            widths[max(loose, key=lambda at: widths[at])] -= 1
    return widths


def _floor(cell: str) -> int:
    """Characters of the longest part of a cell that stays on one line: a word, or a quantity."""
    if len(cell) <= _QUANTITY and cell.lstrip("+-")[:1].isdigit():
        return len(cell)
    return max(map(len, cell.split()), default=0)


def _piece(cell: str) -> int:
    """Characters of the longest piece of a cell that may be broken after a punctuation mark."""
    if len(cell) <= _QUANTITY and cell.lstrip("+-")[:1].isdigit():
        return len(cell)
    return max(map(len, _PIECES.findall(cell)), default=0)


# A name such as planted-gcn-sampled-p1 gives way where a table would not fit otherwise.
_PIECES = re.compile(r"[^\s/_.,-]*[/_.,-]+|[^\s/_.,-]+")


def _split_names(words: str, width: int) -> str:
    """The text with blanks inside of the words that are longer than a line."""
    parts = []
    for word in words.split(" "):
        line = ""
        for piece in _PIECES.findall(word) if len(word) > width else [word]:
            if line and len(line) + len(piece) > width:
                parts.append(line)
                line = ""
            line += piece
        parts.append(line)
    return " ".join(parts)


def _wrapped(line: Sequence[str], widths: Sequence[int]) -> list[list[str]]:
    """One row of a table as the lines on which it is printed."""
    parts = [
        _broken(_split_names(cell, width), width) for cell, width in zip(line, widths, strict=True)
    ]
    return [list(part) for part in zip_longest(*parts, fillvalue="")]


def _broken(words: str, width: int, first: str = "", further: str = "") -> list[str]:
    return textwrap.wrap(
        words,
        width,
        initial_indent=first,
        subsequent_indent=further,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _plain_table(lines: list[list[list[str]]], widths: list[int], numeric: list[bool]) -> None:
    for part in chain.from_iterable(lines):
        words = [
            word.rjust(width) if right else word.ljust(width)
            for word, width, right in zip(part, widths, numeric, strict=True)
        ]
        print(_GAP.join(words).rstrip())


def _rich_table(lines: list[list[list[str]]], widths: list[int], numeric: list[bool]) -> None:
    from rich.text import Text

    for number, line in enumerate(lines):
        for part in line:
            shown = Text(no_wrap=True, overflow="ignore")
            for word, width, right in zip(part, widths, numeric, strict=True):
                style = "bold" if number == 0 else _COLOURS.get(word, "")
                shown.append(word.rjust(width) if right else word.ljust(width), style=style)
                shown.append(_GAP)
            shown.rstrip()
            _console().print(shown)


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
    width = terminal_width()
    if width is not None:
        indent = " " * 9
        rest = "\n".join(_broken(rest, max(width, 40), indent, indent)).lstrip()
    if sys.stdout.isatty():
        from rich.text import Text

        _console().print(Text.assemble((f"{word:<9}", _COLOURS.get(word, "")), rest))
    else:
        print(f"{word:<9}{rest}", flush=True)


class Progress:
    """A bar with the item under way and the time left; draws nothing without a terminal.

    Args:
        total: number of items.
        draw: called with the number of items that have ended, the note, and the time left in words.
    """

    def __init__(
        self,
        total: int,
        draw: Callable[[int, str, str], None] = lambda done, note, left: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total, self._draw, self._clock = total, draw, clock
        self._done = 0
        self._begun = clock()
        self._took: list[float] = []

    def __call__(self, note: str = "", *, kept: bool = False) -> None:
        """Say that an item has ended; one that was kept from before tells nothing of the others."""
        self._done += 1
        now = self._clock()
        if not kept:
            self._took.append(now - self._begun)
        self._begun = now
        self._draw(self._done, note, self.left())

    def under_way(self, note: str) -> None:
        """Say what happens to the item that has not yet ended."""
        self._draw(self._done, note, self.left())

    def left(self) -> str:
        """The time left in words, by the mean time of the items that have ended; "" before one has.

        An item that has taken longer than the mean is about to end.
        """
        if not self._took or self._done >= self._total:
            return ""
        mean = sum(self._took) / len(self._took)
        current = max(mean - (self._clock() - self._begun), 0.0)
        return f"{roughly(mean * (self._total - self._done - 1) + current)} left"


@contextmanager
def progress(label: str, total: int) -> Iterator[Progress]:
    """Show a bar while the block runs; call what it yields once per item, see `Progress`.

    Drawn on stderr where stdout is redirected. Without any terminal nothing is drawn: the status
    lines of the items are the progress.
    """
    global _drawing
    if not (sys.stdout.isatty() or sys.stderr.isatty()):
        yield Progress(total)
        return
    import rich.progress as bars
    from rich.table import Column

    console = _console(stderr=not sys.stdout.isatty())
    with bars.Progress(
        bars.TextColumn("{task.description}"),
        bars.BarColumn(bar_width=12),
        bars.MofNCompleteColumn(),
        bars.TextColumn("{task.fields[left]}", style="dim"),
        # The note gives way: a bar that is wider than the terminal would leave half of itself.
        bars.TextColumn(
            "{task.fields[note]}",
            style="dim",
            markup=False,
            table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
        ),
        console=console,
        transient=True,
        expand=True,
        # Redirected data must reach its file, not the terminal that shows the bar.
        redirect_stdout=sys.stdout.isatty(),
    ) as bar:
        task = bar.add_task(label, total=total, note="starts", left="")
        _drawing = console
        try:
            yield Progress(
                total,
                lambda done, note, left: bar.update(task, completed=done, note=note, left=left),
            )
        finally:
            _drawing = None


def _console(*, stderr: bool = False) -> Console:
    """Return the console that draws a bar just now, so that lines land above it, or a new one."""
    from rich.console import Console

    return _drawing or Console(stderr=stderr, soft_wrap=True, highlight=False)
