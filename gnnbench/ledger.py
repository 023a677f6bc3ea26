"""The ledger: the table of executed steps, measured or predicted, in one schema.

On disk a ledger is one CSV per rank, to which each period is appended. After a crash, the last line
may be incomplete; the reader drops it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

from gnnbench.atomic import write_text
from gnnbench.errors import DataError

SCHEMA = 2


class Row(NamedTuple):
    """One executed step of one rank.

    Units: start_s counts from the start of the first period on that rank; duration_s includes
    waiting for peers in a collective; bytes, flops as in `plan.Step`.
    """

    period: int
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
ROWS_HELD = 20_000
"""Rows that gather in memory before they are written within a period: about 60 ms of writing."""
ROW_BYTES = 344
"""Bytes of a row in memory: a tuple of 13 (144) and its collector's header (16), a name (about 64),
two integers (32 each), two times (24 each) and its place in a deque (8)."""
_INTS = {"period", "iteration", "layer", "group_size", "bytes", "flops"}
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

    def take_up(self, content: bytes) -> None:
        """Begin anew with the content of an earlier ledger, header included."""
        self._file.seek(0)
        self._file.truncate()
        self._file.write(content.decode("utf-8"))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def write_ledger(path: Path, rows: Iterable[Row]) -> None:
    """Write a whole ledger at once."""
    write_text(path, ",".join(COLUMNS) + "\n" + format_rows(rows))


def read_ledger(path: Path) -> list[Row]:
    """Read a ledger; a torn last line is dropped, any other malformed line is a DataError."""
    return list(iter_ledger(path))


def iter_ledger(path: Path) -> Iterator[Row]:
    """Yield the rows of a ledger, which may be larger than memory (see `read_ledger`)."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            yield from _rows(file, path)
    except OSError as error:
        raise DataError(path, f"cannot read the ledger: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(path, f"not a ledger: {error}") from None


def _rows(file: TextIO, path: Path) -> Iterator[Row]:
    header = file.readline()
    if header != ",".join(COLUMNS) + "\n":
        raise DataError(path, f"not a ledger of schema {SCHEMA}: its header is {header.strip()!r}")
    # Complete lines end with a newline, so what follows the last one is torn or empty.
    complete = (line for line in file if line.endswith("\n"))
    for number, cells in enumerate(csv.reader(complete), start=2):
        if len(cells) != len(COLUMNS):
            raise DataError(path, f"line {number} has {len(cells)} cells, expected {len(COLUMNS)}")
        try:
            yield Row._make(_parse(c, v) for c, v in zip(COLUMNS, cells, strict=True))
        except ValueError as error:
            raise DataError(path, f"line {number}: {error}") from None


def _parse(column: str, value: str) -> object:
    if column in _INTS:
        return int(value)
    return float(value) if column in _FLOATS else value
