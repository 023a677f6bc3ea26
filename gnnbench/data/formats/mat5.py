"""Numeric matrices of MATLAB's .mat files of version 5 to 7, dense or sparse.

Not by scipy's `loadmat`, which crashes the process on some broken files. Source of the layout:
MathWorks, "MAT-File Format", chapter on level 5.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

_HEADER_BYTES = 128
_NUMBERS = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
_MATRIX, _COMPRESSED = 14, 15
_SPARSE, _DENSE = 5, range(6, 16)
"""Classes of arrays: sparse, and numbers from double to uint64."""
_COMPLEX = 8
_MOST_RATIO, _PLAUSIBLE_BYTES = 200, 1 << 28


@dataclass(frozen=True, slots=True)
class Other:
    """A variable that is no matrix of real numbers, such as text or a struct."""

    kind: int


class OtherVersion(ValueError):
    """A .mat file of a version that is not read; the message names the version."""


def read_mat(path: Path) -> dict[str, Any]:
    """Read the variables: arrays, sparse matrices in columns, or `Other`.

    Raises:
        OtherVersion: a file of version 7.3 (HDF5) or of version 4.
        ValueError: a file that breaks off or contradicts itself.
    """
    raw = path.read_bytes()
    if raw[:8] == b"\x89HDF\r\n\x1a\n" or raw[:10] == b"MATLAB 7.3":
        raise OtherVersion("version 7.3")
    order = {b"IM": "<", b"MI": ">"}.get(raw[126:128])
    if len(raw) < _HEADER_BYTES or order is None:
        if (len(raw) >= 20 and raw[:2] in (b"\x00\x00", b"\xe8\x03")) or raw[:1] in (
            b"\x0a",
            b"\x32",
        ):
            raise OtherVersion("version 4")
        raise ValueError("no header of a .mat file")
    found: dict[str, Any] = {}
    for kind, body in _elements(memoryview(raw)[_HEADER_BYTES:], order):
        if kind == _COMPRESSED:
            for inner, unpacked in _elements(memoryview(_unpacked(body)), order):
                if inner == _MATRIX:
                    found.update([_matrix(unpacked, order)])
        elif kind == _MATRIX:
            found.update([_matrix(body, order)])
    return found


def _unpacked(body: memoryview) -> bytes:
    stream = zlib.decompressobj()
    most = max(_PLAUSIBLE_BYTES, _MOST_RATIO * len(body))
    content = stream.decompress(body, most)
    if not stream.eof:
        raise ValueError("a compressed variable breaks off, or expands as no data does")
    return content


def _elements(body: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Type and content of each element; small ones hold both in eight bytes."""
    at = 0
    while at + 8 <= len(body):
        kind, size = np.frombuffer(body, f"{order}u4", 2, at).tolist()
        if kind >> 16:
            size, kind = kind >> 16, kind & 0xFFFF
            if size > 4:
                raise ValueError(f"a small element of {size} bytes")
            yield kind, body[at + 4 : at + 4 + size]
            at += 8
            continue
        if at + 8 + size > len(body):
            raise ValueError(f"an element of {size} bytes breaks off")
        yield kind, body[at + 8 : at + 8 + size]
        # Elements are padded to eight bytes, but for compressed ones.
        at += 8 + size + (0 if kind == _COMPRESSED else -size % 8)


def _matrix(body: memoryview, order: str) -> tuple[str, Any]:
    """Name and content of an array."""
    parts = list(_elements(body, order))
    if len(parts) < 3:
        raise ValueError("an array without flags, sizes and name")
    flags = _values(parts[0], order)
    shape = [int(size) for size in _values(parts[1], order)]
    name = bytes(parts[2][1]).decode("latin1")
    if len(flags) < 2:
        raise ValueError("an array without flags")
    kind = int(flags[0]) & 0xFF
    if (kind != _SPARSE and kind not in _DENSE) or (int(flags[0]) >> 8) & _COMPLEX:
        return name, Other(kind)
    if len(shape) < 2 or min(shape) < 0:
        raise ValueError(f"{name}: sizes {shape}")
    if kind == _SPARSE:
        return name, _sparse(parts[3:], shape, name, order)
    values = _values(parts[3], order) if len(parts) > 3 else np.zeros(0)
    if len(values) != int(np.prod(shape, dtype=object)):
        raise ValueError(f"{name}: {len(values)} numbers for sizes {shape}")
    return name, values.reshape(shape, order="F")


def _sparse(parts: list[tuple[int, memoryview]], shape: list[int], name: str, order: str) -> Any:
    if len(parts) < 3 or len(shape) != 2:
        raise ValueError(f"{name}: a sparse matrix without its three parts")
    rows, starts, values = (_values(part, order) for part in parts[:3])
    count = int(starts[-1]) if len(starts) else -1
    whole = len(starts) == shape[1] + 1 and starts[0] == 0 and not np.any(np.diff(starts) < 0)
    if not whole or not 0 <= count <= min(len(rows), len(values)):
        raise ValueError(f"{name}: the parts of a sparse matrix do not fit")
    rows, values = rows[:count].astype(np.int64), values[:count]
    if count and not 0 <= rows.min() <= rows.max() < shape[0]:
        raise ValueError(f"{name}: rows of a sparse matrix must lie in 0..{shape[0] - 1}")
    lengths: Any = np.diff(starts.astype(np.int64))
    columns = np.repeat(np.arange(shape[1]), lengths)
    return scipy.sparse.coo_array((values, (rows, columns)), shape=(shape[0], shape[1]))


def _values(part: tuple[int, memoryview], order: str) -> Any:
    """Numbers of an element, in the byte order of this machine."""
    kind, body = part
    if kind not in _NUMBERS:
        raise ValueError(f"numbers of type {kind}")
    stored = np.dtype(_NUMBERS[kind]).newbyteorder("<" if order == "<" else ">")
    if len(body) % stored.itemsize:
        raise ValueError(f"{len(body)} bytes of numbers of {stored.itemsize}")
    return np.frombuffer(body, stored).astype(stored.newbyteorder("="))
