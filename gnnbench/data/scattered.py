"""Rows of a mapped file, read without making its pages resident."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

_pread = ctypes.CDLL(None, use_errno=True).pread
# The address of the room is an integer, as compiled loops have no pointers of bytes.
_pread.argtypes = (ctypes.c_int, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int64)
_pread.restype = ctypes.c_ssize_t


def read_rows(rows: Any, ids: NDArray[np.int64]) -> NDArray[Any]:
    """Some rows of a table, read from its file if it is a mapped one.

    A row that is read through the mapping makes pages around it resident, on Linux up to 2 MiB of
    them. Rows that follow one another are read in one call.

    Raises:
        OSError: the file ends before a row does, or cannot be read.
    """
    base = getattr(rows, "base", None)
    if not isinstance(rows, np.memmap) or not isinstance(base, mmap.mmap) or not len(ids):
        return np.asarray(rows[ids])
    found = np.empty((len(ids), *rows.shape[1:]), rows.dtype)
    each = found.nbytes // len(ids)
    with open(str(rows.filename), "rb", buffering=0) as file:
        done = _read(file.fileno(), found.ctypes.data, each, rows.offset, ids)
    if done < len(ids):
        raise OSError(f"cannot read row {ids[done]} of {rows.filename}")
    return found


@numba.njit(nogil=True)
def _read(file: Any, room: Any, each: Any, offset: Any, ids: Any) -> Any:
    """Read rows in order; return how many, fewer than asked where one cannot be read."""
    first = 0
    while first < len(ids):
        stop = first + 1
        while stop < len(ids) and ids[stop] == ids[stop - 1] + 1:
            stop += 1
        wanted, done = (stop - first) * each, 0
        while done < wanted:
            at = offset + ids[first] * each + done
            got = _pread(file, room + first * each + done, wanted - done, at)
            if got <= 0:
                return first + done // each
            done += got
        first = stop
    return first
