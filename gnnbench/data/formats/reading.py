"""Code shared by readers: compressed text, numeric tables, one-line errors, names."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import os
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.formats.misnamed import refuse_misnamed
from gnnbench.errors import DataError

OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
COMPRESSION_SUFFIXES = tuple(OPENERS)
_BROKEN = (
    EOFError,
    OSError,
    OverflowError,
    RuntimeError,  # zipfile: encrypted, or of a version that it does not know; recursion
    UnicodeDecodeError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    csv.Error,
    struct.error,
    lzma.LZMAError,
    tarfile.TarError,
    zlib.error,
    zipfile.BadZipFile,
)
_PIECE = 1 << 22
_PLAUSIBLE_BYTES, _PLAUSIBLE_RATIO = 1 << 28, 200
"""What a file may expand to without a look at its ratio; text of a graph shrinks 3 to 30 times."""


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Convert any exception of a parser into one DataError line that names the file."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(error.filename or path, f"no such file ({kind} expected)") from error
    except (IsADirectoryError, PermissionError) as error:
        raise DataError(error.filename or path, f"cannot be read: {error.strerror}") from error
    except MemoryError as error:
        said = " ".join(str(error).split())[:160]
        detail = f" ({said})" if said else ""
        raise DataError(path, f"takes more memory than there is{detail}: broken?") from error
    except UnicodeDecodeError as error:
        raise DataError(path, not_utf8(error)) from error
    except _BROKEN as error:
        detail = " ".join(str(error).split())[:160] or type(error).__name__
        raise DataError(path, f"truncated or not {kind} ({detail})") from error


def not_utf8(error: UnicodeDecodeError) -> str:
    """What to do about text in another encoding."""
    at = error.start
    return (
        f"byte {at} is 0x{error.object[at]:02x}, which is no UTF-8: save the file as UTF-8 "
        "(iconv -f LATIN1 -t UTF-8, for example)"
    )


def read_bytes(path: Path) -> bytes:
    """Return the whole content, decompressed by the suffix (.gz, .bz2, .xz or none).

    Raises:
        DataError: it expands as no data does, to more than memory may hold.
    """
    opener = OPENERS.get(path.suffix.lower())
    if opener is None:
        return path.read_bytes()
    most = max(_PLAUSIBLE_BYTES, _PLAUSIBLE_RATIO * path.stat().st_size)
    pieces, size = [], 0
    with cast(IO[bytes], opener(path, "rb")) as stream:
        while piece := stream.read(_PIECE):
            pieces.append(piece)
            size += len(piece)
            if size > most:
                raise DataError(
                    path,
                    f"expands to more than {_PLAUSIBLE_RATIO} times its size, as no data does: "
                    "unpack it yourself if it is what you expect",
                )
    return b"".join(pieces)


def read_text(path: Path) -> str:
    """Return the whole content as text, decompressed by the suffix, with line ends of Unix."""
    raw = read_bytes(path)
    refuse_misnamed(path, raw[:64])
    text = raw.decode("utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def integer_table(
    path: Path,
    *,
    columns: int,
    delimiter: str | None = None,
    header: bool = False,
    notes: dict[str, object] | None = None,
) -> NDArray[np.int64]:
    """Read the first `columns` columns of an integer table, int64 [rows, columns]; '#' comments.

    The number of columns after these, which are not read, is written into `notes`.
    """
    with reading(path, "a table of integers"):
        text = read_text(path)
        skipped = 0
        while (header and not skipped) or text.startswith("#"):
            text = text.partition("\n")[2]
            skipped += 1
        if not text.strip():
            return np.zeros((0, columns), np.int64)
        first = text.lstrip("\n").partition("\n")[0].partition("#")[0]
        width = len(first.split(delimiter))
        if notes is not None and width > columns:
            notes["columns_left_out"] = width - columns
        # A field between two delimiters may be empty, which blanks in their place would hide.
        plain = delimiter is None or delimiter * 2 not in text
        if width >= columns and "#" not in text and plain:
            table = _rectangle(text.replace(delimiter, " ") if delimiter else text, width)
            if table is not None:
                return table[:, :columns]
        _check_width(path, text, width, delimiter, skipped)
        return np.loadtxt(
            io.StringIO(text),
            np.int64,
            comments="#",
            delimiter=delimiter,
            usecols=range(columns),
            ndmin=2,
        )


def _check_width(path: Path, text: str, width: int, delimiter: str | None, skipped: int) -> None:
    """Raise DataError for the first row of another width; numpy would leave fields out."""
    for number, line in enumerate(text.split("\n"), 1 + skipped):
        row = line.partition("#")[0]
        if row.strip() and len(row.split(delimiter)) != width:
            found = len(row.split(delimiter))
            raise DataError(path, f"line {number}: {found} fields, expected {width}")


def _rectangle(text: str, width: int) -> NDArray[np.int64] | None:
    """Parse blank-separated integers at once, ten times faster than by line; None if uneven."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # numpy's way to say "not a number"
        try:
            values = np.fromstring(text, np.int64, sep=" ")
        except (DeprecationWarning, ValueError):
            return None
    if len(values) and max(values.max(), -(values.min() + 1)) == np.iinfo(np.int64).max:
        return None  # numbers that are too large end there in silence; the other parser says so
    return values.reshape(-1, width) if _has_width(text, width) else None


def _has_width(text: str, width: int) -> bool:
    """Whether every line has `width` words: the first and last of each lie within its ends."""
    letters = np.frombuffer(text.encode(), np.uint8)
    words = letters > ord(" ")
    words[1:] &= letters[:-1] <= ord(" ")  # now True where a word starts
    at = np.flatnonzero(words)
    ends = np.flatnonzero(letters == ord("\n"))
    if letters[-1] != ord("\n"):
        ends = np.append(ends, len(letters))
    if len(at) != len(ends) * width:
        return False
    late = at[width - 1 :: width] < ends
    early = at[width::width] > ends[:-1]
    return bool(late.all() and early.all())


def first_existing(folder: Path, names: Sequence[str]) -> Path | None:
    """Return the first of `names` (globs, each also tried compressed) that exists in `folder`."""
    for name in names:
        for suffix in ("", *COMPRESSION_SUFFIXES):
            found = sorted(folder.glob(name + suffix))
            if found:
                return found[0]
    return None


def required(folder: Path, names: Sequence[str], kind: str) -> Path:
    """Return what `first_existing` finds. Raises DataError when nothing is there."""
    found = first_existing(folder, names)
    if found is None:
        raise DataError(folder, f"not {kind}: no file {' or '.join(names)} (.gz allowed)")
    return found


def only_file(path: Path, patterns: Sequence[str], kind: str) -> Path:
    """Return `path` if it is a file, else the single file of the folder that matches."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise DataError(path, f"no such file or folder ({kind} expected)")
    found = sorted({match for pattern in patterns for match in path.glob(pattern)})
    if len(found) == 1:
        return found[0]
    listed = ", ".join(repr(f.name) for f in found[:6]) or "none"
    raise DataError(path, f"expected one file of {kind} here, found {listed}: name the file itself")


def stem(path: Path) -> str:
    """Return the file name without compression and format suffixes: the graph's default name."""
    # A name that is no UTF-8 could be written nowhere.
    name = os.fsencode(path.name).decode("utf-8", "replace")
    for suffix in COMPRESSION_SUFFIXES:
        name = name.removesuffix(suffix)
    return name.rsplit(".", 1)[0] or path.name


def mask_of(ids: NDArray[np.int64], num_nodes: int) -> NDArray[np.bool_]:
    """Return bool [num_nodes], True at `ids`."""
    mask = np.zeros(num_nodes, np.bool_)
    mask[ids] = True
    return mask


def positive_weights(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Weights of edges as Graph holds them. Raises ValueError where one is not positive."""
    kept = values.astype(np.float32)
    wrong = ~((kept > 0) & np.isfinite(kept))
    if wrong.any():
        at = int(wrong.argmax())
        raise ValueError(
            f"option weighted: entry {at + 1} weighs {values[at]:g}; weights must be positive and "
            "finite in 32 bits"
        )
    return kept
