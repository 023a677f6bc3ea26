"""The ledger: the table of executed steps, measured or predicted, in one schema.

On disk a ledger is one CSV per rank, appended as epochs end. A crash can lose at most the last,
half-written line; the reader drops it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from gnnbench.errors import DataError

SCHEMA = 1


class Row(NamedTuple):
    """One executed step of one rank.

    Units: start_s counts from the start of the run's first epoch on that rank; duration_s includes
    waiting for peers in a collective; bytes, flops as in `plan.Step`.
    """

    epoch: int
    iteration: int
    name: str
    kind: str
    op: str
    lane: str
    phase: str
    layer: int
    group_size: int
    bytes: int
    flops: int
    start_s: float
    duration_s: float


COLUMNS = Row._fields
_INTS = {"epoch", "iteration", "layer", "group_size", "bytes", "flops"}
_FLOATS = {"start_s", "duration_s"}


def format_rows(rows: Iterable[Sequence[object]]) -> str:
    """Return CSV lines without header. Times are written to a tenth of a microsecond."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for row in rows:
        writer.writerow([f"{v:.7f}" if isinstance(v, float) else v for v in row])
    return out.getvalue()


class LedgerWriter:
    """Append rows to one rank's ledger; each `append` is a single write followed by a flush."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")
        self._file.write(",".join(COLUMNS) + "\n")
        self._file.flush()

    def append(self, rows: Iterable[Sequence[object]]) -> None:
        self._file.write(format_rows(rows))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def write_ledger(path: Path, rows: Iterable[Row]) -> None:
    """Write a whole ledger at once."""
    writer = LedgerWriter(path)
    writer.append(rows)
    writer.close()


def read_ledger(path: Path) -> list[Row]:
    """Read a ledger; a torn last line is dropped, any other malformed line is a DataError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(path, f"cannot read the ledger: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(path, f"not a ledger: {error}") from None
    lines = text.split("\n")
    torn = lines.pop() if lines else ""
    if not lines or lines[0] != ",".join(COLUMNS):
        raise DataError(path, f"not a ledger of schema {SCHEMA}: its header is {lines[:1]}")
    del torn  # complete lines end with a newline, so what follows the last one is torn or empty
    rows = []
    for number, cells in enumerate(csv.reader(lines[1:]), start=2):
        if len(cells) != len(COLUMNS):
            raise DataError(path, f"line {number} has {len(cells)} cells, expected {len(COLUMNS)}")
        try:
            rows.append(Row._make(_parse(c, v) for c, v in zip(COLUMNS, cells, strict=True)))
        except ValueError as error:
            raise DataError(path, f"line {number}: {error}") from None
    return rows


def _parse(column: str, value: str) -> object:
    if column in _INTS:
        return int(value)
    return float(value) if column in _FLOATS else value
