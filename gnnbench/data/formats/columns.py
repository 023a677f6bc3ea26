"""Large text tables, parsed in blocks: plain, compressed, or a member of an archive.

pandas parses a block in C. If a block is malformed, the file is read again line by line to report
the lines. Memory holds one block and what the caller keeps.
"""

from __future__ import annotations

import csv
import io
import os
import re
import tarfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.dataset import MOST_PROBLEMS
from gnnbench.data.formats.reading import OPENERS, reading
from gnnbench.data.histogram import distinct
from gnnbench.errors import DataError

BLOCK_ROWS = 1 << 18
BLANKS = r"\s+"
SEPARATORS = ",;"
"""Separators that are found without being named. Fields between them may stand in quotes."""
_NOT_UTF8 = (b"\xff\xfe", b"\xfe\xff")
_TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_HEAD_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Source:
    """A text file: a path, or one member of a zip or tar archive."""

    path: Path
    member: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.member}" if self.member else str(self.path)

    @property
    def name(self) -> str:
        """The file's own name without folders and compression."""
        name = os.fsencode(Path(self.member or self.path.name).name).decode("utf-8", "replace")
        return name if self.member else re.sub(r"\.(gz|bz2|xz)$", "", name)

    @property
    def stem(self) -> str:
        """The name without the suffix of the format: what a dataset is called by default."""
        return self.name.rsplit(".", 1)[0] or self.name

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Yield the decompressed bytes. Raises DataError where they cannot be had."""
        with reading(self.path, "a readable file"):
            if not self.member:
                opener: Any = OPENERS.get(self.path.suffix, open)
                with opener(self.path, "rb") as stream:
                    yield stream
            elif is_tar(self.path):
                # Not by name, which would unpack the whole archive before it is read.
                with tarfile.open(self.path) as tar:
                    found = next(member for member in tar if member.name == self.member)
                    yield cast(IO[bytes], tar.extractfile(found))
            else:
                with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as stream:
                    yield stream

    def head(self) -> list[str]:
        """The first lines, at most 64 KiB of them, without line ends and byte order mark."""
        with self.open() as stream, reading(self.path, "text"):
            raw = stream.read(_HEAD_BYTES)
        if raw.startswith(_NOT_UTF8):
            raise DataError(self, "UTF-16 text (by its byte order mark): save it as UTF-8")
        # Not splitlines, which knows line ends that parsers of tables do not know.
        lines = re.split("\r\n|\n|\r", raw.decode("utf-8-sig", "replace"))
        return lines[:-1] if len(raw) == _HEAD_BYTES or not lines[-1] else lines


def is_tar(path: Path) -> bool:
    """Whether the name is that of a tar archive."""
    return path.name.endswith(_TAR)


def is_archive(path: Path) -> bool:
    """Whether the path is a tar or zip archive."""
    return path.is_file() and (is_tar(path) or path.suffix == ".zip")


def sources(path: Path) -> list[Source]:
    """The files of an archive or folder, hidden ones left out, else the file itself.

    A folder that holds nothing but one archive is that archive.
    """
    if path.is_dir():
        files = [file for file in sorted(path.iterdir()) if _visible(file.name, file)]
        if len(files) != 1 or not is_archive(files[0]):
            return [Source(file) for file in files]
        path = files[0]
    if not is_archive(path):
        return [Source(path)]
    with reading(path, "an archive"):
        if is_tar(path):
            with tarfile.open(path) as tar:
                names = [member.name for member in tar if member.isfile()]
        else:
            with zipfile.ZipFile(path) as archive:
                names = [info.filename for info in archive.infolist() if not info.is_dir()]
    return [Source(path, name) for name in sorted(names) if _visible(name)]


def _visible(name: str, file: Path | None = None) -> bool:
    hidden = any(part.startswith((".", "__MACOSX")) for part in Path(name).parts)
    return not hidden and (file is None or file.is_file())


def one_source(path: Path, suffixes: tuple[str, ...] = ()) -> Source:
    """The file itself, or the only one of an archive, of those with a suffix if there are any.

    Raises:
        DataError: an archive of several.
    """
    found = sources(path)
    telling = [source for source in found if source.name.endswith(suffixes)] if suffixes else []
    if len(telling or found) != 1:
        listed = ", ".join(repr(source.name) for source in found[:6]) or "none"
        raise DataError(path, f"expected one file in the archive, found {listed}: unpack it")
    return (telling or found)[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How the lines of a table are to be read.

    Args:
        delimiter: between fields; BLANKS is any run of blanks and tabs.
        skip: lines before the first row.
        comment: character that starts a comment, or None.
        width: fields of a row.
    """

    delimiter: str
    skip: int
    comment: str | None
    width: int


def layout(source: Source, *, delimiter: str | None = None, comments: bool = True) -> Layout:
    """Find out how a table without a header is laid out, from its first lines.

    Lines that start with '#' or '%' are comments, and at the head those with '//'. The
    delimiter is a comma, a semicolon or blanks.
    """
    head = source.head()
    marks = {line[:1] for line in head}
    comment = ("%" if "%" in marks and "#" not in marks else "#") if comments else None
    skip = 0
    for line in head:
        if comments and line[:1] in ("#", "%"):
            skip, comment = skip + 1, line[0]
        elif (comments and line.startswith("//")) or not line.strip():
            skip += 1
        else:
            if delimiter is None:
                delimiter = next((mark for mark in SEPARATORS if mark in line), BLANKS)
            return Layout(
                delimiter=delimiter,
                skip=skip,
                comment=comment,
                width=len(split_line(line, delimiter)),
            )
    raise DataError(source, "found no data rows")


def split_line(line: str, delimiter: str) -> list[str]:
    """The fields of a line."""
    if delimiter == BLANKS:
        return line.split()
    if delimiter in SEPARATORS and '"' in line:
        return next(csv.reader([line], delimiter=delimiter))
    return line.split(delimiter)


def _quoting(delimiter: str) -> int:
    """How quotes are read: as part of a field between tabs or blanks, where names hold them."""
    return csv.QUOTE_MINIMAL if delimiter in SEPARATORS else csv.QUOTE_NONE


def blocks(source: Source, layout: Layout, types: Mapping[int, Any]) -> Iterator[list[Any]]:
    """Yield the table block by block: for each, the wanted columns as numpy arrays.

    Args:
        source: the file.
        layout: of its lines.
        types: type of each wanted column by its position: a numpy type, or str. Others are skipped.

    Raises:
        DataError: rows of another width or fields of another type, each with its line.
    """
    import pandas

    kinds = {column: types.get(column, object) for column in range(layout.width)}
    with source.open() as stream:
        _skip(stream, layout.skip)
        try:
            table = pandas.read_csv(
                stream,
                sep=layout.delimiter,
                header=None,
                names=range(layout.width),
                index_col=False,
                dtype=kinds,
                comment=layout.comment,
                quoting=_quoting(layout.delimiter),
                na_filter=False,
                chunksize=BLOCK_ROWS,
                encoding="utf-8-sig",
            )
            for block in table:
                found = [block[column].to_numpy() for column in types]
                if any(
                    kinds[c] is str and (a == "").any() for c, a in zip(types, found, strict=True)
                ):
                    raise ValueError("an empty field")
                yield found
        except pandas.errors.EmptyDataError:
            return
        except (ValueError, OverflowError, pandas.errors.ParserError) as error:
            said = " ".join(str(error).split())[:160]
            raise DataError(source, wrong_lines(source, layout, types) or said) from error


def _skip(stream: IO[bytes], lines: int) -> None:
    """Go past the first lines, which `Source.head` has seen, whatever their ends are."""
    ends = [found.end() for found in re.finditer(rb"\r\n|\n|\r", stream.read(_HEAD_BYTES))]
    stream.seek(ends[lines - 1] if lines and len(ends) >= lines else 0)


def wrong_lines(source: Source, layout: Layout, types: Mapping[int, Any]) -> list[str]:
    """Name the lines that do not fit, with their numbers; those after the first few are counted."""
    found: list[str] = []
    count = 0
    with source.open() as stream, reading(source.path, "text"):
        lines = io.TextIOWrapper(stream, "utf-8-sig", errors="replace")
        for number, line in enumerate(lines, 1):
            if number <= layout.skip:
                continue
            line = line.rstrip("\n")
            text = line.partition(layout.comment)[0] if layout.comment else line
            problem = _wrong(text, layout, types) if text.strip() else None
            if problem:
                count += 1
                if len(found) < MOST_PROBLEMS:
                    found.append(f"line {number}: {problem}")
    if count > len(found):
        found.append(f"and {count - len(found)} more lines")
    return found


def _wrong(text: str, layout: Layout, types: Mapping[int, Any]) -> str | None:
    fields = split_line(text, layout.delimiter)
    if len(fields) != layout.width:
        return f"{len(fields)} fields, expected {layout.width}"
    for column, kind in types.items():
        field = fields[column].strip()
        if kind is str:
            if not field:
                return f"field {column + 1} is empty"
            continue
        try:
            if "_" in field:  # digits grouped as in Python's own source are no data
                raise ValueError
            value = int(field) if np.dtype(kind).kind in "iu" else float(field)
        except ValueError:
            what = "a whole number" if np.dtype(kind).kind in "iu" else "a number"
            return f"field {column + 1} is {field!r}, expected {what}"
        if value != value:
            return f"field {column + 1} is nan, expected a number"
        if isinstance(value, int) and abs(value) > np.iinfo(kind).max:
            return f"field {column + 1} is {field}, larger than {np.dtype(kind)} can hold"
    return None


def is_number(word: str) -> bool:
    """Whether a field is a number, not nan."""
    try:
        return float(word) == float(word)
    except ValueError:
        return False


class Growing:
    """A column that grows block by block without copying its content."""

    def __init__(self, kind: Any, width: int = 0) -> None:
        self._array: NDArray[Any] = np.empty((0, width) if width else 0, kind)
        self._rows = 0

    def append(self, block: NDArray[Any] | Sequence[NDArray[Any]]) -> None:
        """Add rows; a list of columns becomes rows of a matrix."""
        columns = block if isinstance(block, np.ndarray) else None
        count = len(block) if columns is not None else len(block[0])
        if self._rows + count > len(self._array):
            shape = (max(2 * self._rows, self._rows + count), *self._array.shape[1:])
            self._array.resize(shape, refcheck=False)
        into = self._array[self._rows : self._rows + count]
        if columns is not None:
            into[:] = columns
        else:
            for i, column in enumerate(block):
                into[:, i] = column
        self._rows += count

    def __len__(self) -> int:
        return self._rows

    def view(self) -> NDArray[Any]:
        """The rows so far; the next `append` may move them."""
        return self._array[: self._rows]

    def done(self) -> NDArray[Any]:
        """The rows, without spare room."""
        self._array.resize((self._rows, *self._array.shape[1:]), refcheck=False)
        return self._array


class Numbering:
    """Numbers names from 0 in the order of their first occurrence."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def __call__(self, names: NDArray[Any]) -> NDArray[np.int64]:
        import pandas

        codes, distinct = pandas.factorize(names)
        ids = [self._ids.setdefault(name, len(self._ids)) for name in distinct]
        return np.array(ids, np.int64)[codes] if len(ids) else np.zeros(0, np.int64)

    def names(self) -> list[str]:
        return list(self._ids)


def renumbered(
    columns: Sequence[NDArray[Any]],
) -> tuple[list[NDArray[np.int64]], int, str]:
    """Renumber ids from 0 in increasing order if they have gaps; return them and a note.

    The note is "" if ids are unchanged. The ids must not be negative. Cost: one pass if there are
    about as many ids as rows, else a sort.
    """
    largest = max((int(column.max()) for column in columns if len(column)), default=-1)
    rows = sum(len(column) for column in columns)
    if largest < 4 * rows + 1024:
        there = np.zeros(largest + 1, np.bool_)
        for column in columns:
            there[column] = True
        ids = np.flatnonzero(there)
    else:
        ids = distinct(np.concatenate([distinct(column) for column in columns]))
    if len(ids) == largest + 1:
        return list(columns), len(ids), ""
    said = f"ids {ids[0]}..{ids[-1]}, order kept"
    if largest < 4 * rows + 1024:
        place = np.cumsum(there) - 1
        return [place[column] for column in columns], len(ids), said
    return [np.searchsorted(ids, column) for column in columns], len(ids), said
