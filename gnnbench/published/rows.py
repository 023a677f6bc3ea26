"""Read published measurements: one number per row, with its source and the hardware it ran on.

Columns: `REQUIRED`, and where the table has them `OPTIONAL`. Other columns, such as a status or a
licence, are ignored. A cell may be empty or hold words such as "2-3": text that is no number is
kept, and the number is not stated.
"""

from __future__ import annotations

import csv
import difflib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from gnnbench.errors import DataError

REQUIRED = (
    "source",
    "location",
    "system",
    "dataset",
    "model",
    "layers",
    "hidden",
    "hardware",
    "gpus",
    "metric",
    "unit",
    "value",
    "notes",
)
OPTIONAL = ("fanout", "batch", "interconnect", "storage")
_MAX_BYTES = 64 * 2**20
_MAX_CELL = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRow:
    """A published number in `unit`. `row_id` is FILE:LINE, for messages; nothing is keyed on it."""

    row_id: str
    source: str
    location: str
    system: str
    dataset: str
    model: str
    layers: str
    hidden: str
    hardware: str
    gpus: str
    metric: str
    unit: str
    value: float
    notes: str
    fanout: str = ""
    batch: str = ""
    interconnect: str = ""
    storage: str = ""

    @property
    def num_layers(self) -> int | None:
        return whole_number(self.layers)

    @property
    def hidden_width(self) -> int | None:
        return whole_number(self.hidden)

    @property
    def ranks(self) -> int | None:
        return whole_number(self.gpus)


def whole_number(text: str) -> int | None:
    """Return a positive whole number written as "4" or "4.0", else None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if 0 < value < 2**31 and value.is_integer() else None


def shipped_rows() -> list[PublishedRow]:
    """Rows that come with gnnbench."""
    folder = resources.files("gnnbench") / "catalogue" / "published"
    with resources.as_file(folder) as path:
        return read_files(sorted(path.glob("*.csv")))


def read_files(paths: Iterable[Path]) -> list[PublishedRow]:
    """Read several files, one after the other. Raises DataError."""
    return [row for path in paths for row in read_rows(path)]


def read_rows(path: Path) -> list[PublishedRow]:
    """Read one file.

    Raises:
        DataError: the first problem, with its line, what was found and what is allowed.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(path, f"larger than {_MAX_BYTES} bytes, which no such table is")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(path, f"cannot read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(path, f"not UTF-8 text: {error.reason} at byte {error.start}") from None
    lines = csv.reader(text.splitlines(keepends=True), strict=True)
    rows: list[PublishedRow] = []
    columns: Sequence[str] | None = None
    try:
        for cells in lines:
            if not any(cell.strip() for cell in cells):
                continue
            if columns is None:
                columns = _header(path, cells)
            else:
                rows.append(_row(path, lines.line_num, columns, cells))
    except csv.Error as error:
        raise DataError(path, f"line {lines.line_num}: {error}") from None
    if columns is None:
        raise DataError(path, f"empty; allowed: a header line with {', '.join(REQUIRED)}")
    return rows


def _header(path: Path, cells: Sequence[str]) -> tuple[str, ...]:
    columns = tuple(cell.strip() for cell in cells)
    for name in columns:
        _refuse_misspelt(path, name, columns)
    twice = sorted({name for name in columns if columns.count(name) > 1})
    missing = [name for name in REQUIRED if name not in columns]
    if twice or missing:
        found = f"column {twice[0]!r} twice" if twice else f"missing column {', '.join(missing)}"
        raise DataError(path, f"{found}; allowed: each of {', '.join(REQUIRED)} once")
    return columns


def _refuse_misspelt(path: Path, name: str, columns: Sequence[str]) -> None:
    """Refuse a column whose name is nearly that of a column that the table lacks."""
    if name in REQUIRED + OPTIONAL:
        return
    absent = [known for known in REQUIRED + OPTIONAL if known not in columns]
    close = difflib.get_close_matches(name.lower(), absent, n=1, cutoff=0.8)
    if close:
        raise DataError(path, f"column {name!r}: did you mean {close[0]!r}? The table lacks it")


def _row(path: Path, line: int, columns: Sequence[str], cells: Sequence[str]) -> PublishedRow:
    if len(cells) != len(columns):
        raise DataError(path, f"line {line}: {len(cells)} cells, allowed: {len(columns)}")
    if any(len(cell) > _MAX_CELL for cell in cells):
        raise DataError(path, f"line {line}: a cell of more than {_MAX_CELL} characters")
    known = REQUIRED + OPTIONAL
    table = {n: cell.strip() for n, cell in zip(columns, cells, strict=True) if n in known}
    text = table.pop("value")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(path, f"line {line}: value: found {text!r}, allowed: a finite number")
    for name in ("system", "metric"):
        if not table[name]:
            raise DataError(path, f"line {line}: {name}: empty; say what was measured")
    return PublishedRow(row_id=f"{path.stem}:{line}", value=value, **table)
