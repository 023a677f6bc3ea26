"""Code shared by readers: compressed text, numeric tables, one-line errors, names."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.errors import DataError

COMPRESSION_SUFFIXES = (".gz", ".bz2", ".xz")
_BROKEN = (
    EOFError,
    OSError,
    OverflowError,
    UnicodeDecodeError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    lzma.LZMAError,
    tarfile.TarError,
    zlib.error,
    zipfile.BadZipFile,
)


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Convert any exception of a parser into one DataError line that names the file."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(error.filename or path, f"no such file ({kind} expected)") from error
    except _BROKEN as error:
        detail = " ".join(str(error).split())[:160] or type(error).__name__
        raise DataError(path, f"truncated or not {kind} ({detail})") from error


def read_bytes(path: Path) -> bytes:
    """Return the whole content, decompressed by the suffix (.gz, .bz2, .xz or none)."""
    raw = path.read_bytes()
    match path.suffix:
        case ".gz":
            return gzip.decompress(raw)
        case ".bz2":
            return bz2.decompress(raw)
        case ".xz":
            return lzma.decompress(raw)
        case _:
            return raw


def read_text(path: Path) -> str:
    """Return the whole content as text, decompressed by the suffix."""
    return read_bytes(path).decode("utf-8-sig")


def integer_table(
    path: Path, *, columns: int, delimiter: str | None = None, header: bool = False
) -> NDArray[np.int64]:
    """Read the first `columns` columns of an integer table, int64 [rows, columns]; '#' comments."""
    with reading(path, "a table of integers"):
        text = read_text(path)
        if header:
            text = text.partition("\n")[2]
        while text.startswith("#"):
            text = text.partition("\n")[2]
        if not text.strip():
            return np.zeros((0, columns), np.int64)
        width = len(text.partition("\n")[0].split(delimiter))
        if width >= columns and "#" not in text:
            table = _rectangle(text.replace(delimiter, " ") if delimiter else text, width)
            if table is not None:
                return table[:, :columns]
        return np.loadtxt(
            io.StringIO(text),
            np.int64,
            comments="#",
            delimiter=delimiter,
            usecols=range(columns),
            ndmin=2,
        )


def _rectangle(text: str, width: int) -> NDArray[np.int64] | None:
    """Parse blank-separated integers at once, ten times faster than by line; None if uneven."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # numpy's way to say "not a number"
        try:
            values = np.fromstring(text, np.int64, sep=" ")
        except (DeprecationWarning, ValueError):
            return None
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
    name = path.name
    for suffix in COMPRESSION_SUFFIXES:
        name = name.removesuffix(suffix)
    return name.rsplit(".", 1)[0] or path.name


def dense_codes(values: NDArray[np.generic]) -> tuple[NDArray[np.int64], int]:
    """Number distinct values from 0 in sorted order; return codes and how many there are.

    Text that is whole numbers throughout is sorted as numbers: 2 comes before 10.
    """
    if values.dtype.kind in "UO" and all(str(v).lstrip("-").isdecimal() for v in values):
        values = values.astype(np.int64)
    distinct, codes = np.unique(values, return_inverse=True)
    return codes.astype(np.int64).reshape(-1), len(distinct)


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


def class_labels(raw: NDArray[Any], file: Path) -> tuple[NDArray[Any], int]:
    """Return labels as Graph holds them, and the number of classes, from what a file holds.

    A column of whole numbers is classes (nan: -1, unlabelled). Rows with a single 1 each are
    one-hot and become classes (rows of zeros: -1). Other rows of 0 and 1 are multi-label, float32.
    Raises DataError for fractions, which would be cut, and for other numbers in rows.
    """
    if raw.ndim == 2 and raw.shape[1] == 1:
        raw = raw[:, 0]
    values = raw.astype(np.float64) if raw.dtype.kind == "f" else raw
    if raw.ndim == 1:
        if values.dtype.kind == "f":
            known = ~np.isnan(values)
            wrong = known & (values != np.rint(values))
            if wrong.any():
                at = int(wrong.argmax())
                raise DataError(file, f"label {values[at]:g} of node {at} is no class: a fraction")
            values = np.where(known, values, -1)
        labels = values.astype(np.int64)
        return labels, int(labels.max(initial=-1)) + 1
    if raw.ndim != 2:
        raise DataError(file, f"labels of shape {raw.shape}, expected one or two dimensions")
    if not np.isin(values[~np.isnan(values)] if values.dtype.kind == "f" else values, (0, 1)).all():
        raise DataError(file, f"labels of shape {raw.shape} that are not 0 and 1 only")
    rows = np.nan_to_num(values.astype(np.float32))
    if rows.sum(axis=1).max(initial=0) <= 1:
        hot = np.where(rows.any(axis=1), rows.argmax(axis=1), -1)
        return hot.astype(np.int64), raw.shape[1]
    return values.astype(np.float32), raw.shape[1]
