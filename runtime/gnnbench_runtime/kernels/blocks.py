"""Blocks of a matrix that lies in a flat vector: chosen rows and, of each, chosen columns.

Elements of a block are numbered row by row. Element k lies at

    start + rows[k // n] * width + columns[k % n],    n = len(columns)

of the flat vector. A call copies some consecutive elements, so that a vector which holds a part of
the matrix (a shard) serves the elements that it has; `start` is relative to the vector, and is
negative where the matrix begins before it.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

IDS_AT_ONCE = 1 << 20
"""Elements whose positions are made at once, where positions are needed."""


class Block(Protocol):
    """A block of a matrix.

    Attributes:
        width: columns of the whole matrix.
        rows, columns: of the block, int64, rising.
    """

    @property
    def width(self) -> int: ...
    @property
    def rows(self) -> NDArray[np.int64]: ...
    @property
    def columns(self) -> NDArray[np.int64]: ...


@njit(cache=True, nogil=True, error_model="numpy")
def gather_block(
    flat: Any,
    start: int,
    width: int,
    rows: Any,
    columns: Any,
    first: int,
    out: Any,
    begin: int,
    end: int,
) -> None:
    """Copy elements first + begin ... first + end - 1 of a block to out[begin:end].

    Neighbouring columns are copied as a range.
    """
    n = len(columns)
    near = columns[n - 1] - columns[0] == n - 1
    row = (first + begin) // n
    at, k = first + begin - row * n, begin
    while k < end:
        count = min(n - at, end - k)
        base = start + rows[row] * width
        if near:
            source = base + columns[at]
            out[k : k + count] = flat[source : source + count]
        else:
            for i in range(count):
                out[k + i] = flat[base + columns[at + i]]
        k += count
        row += 1
        at = 0


@njit(cache=True, nogil=True, error_model="numpy")
def scatter_block(
    flat: Any,
    start: int,
    width: int,
    rows: Any,
    columns: Any,
    first: int,
    values: Any,
    begin: int,
    end: int,
) -> None:
    """Copy values[begin:end] to elements first + begin ... first + end - 1 of a block."""
    n = len(columns)
    near = columns[n - 1] - columns[0] == n - 1
    row = (first + begin) // n
    at, k = first + begin - row * n, begin
    while k < end:
        count = min(n - at, end - k)
        base = start + rows[row] * width
        if near:
            target = base + columns[at]
            flat[target : target + count] = values[k : k + count]
        else:
            for i in range(count):
                flat[base + columns[at + i]] = values[k + i]
        k += count
        row += 1
        at = 0


def positions(
    block: Block, start: int, first: int, last: int, device: torch.device | str
) -> Tensor:
    """Where elements first ... last - 1 of a block lie in the flat vector; int64, on the device."""
    rows, columns = (torch.from_numpy(ids).to(device) for ids in (block.rows, block.columns))
    at = torch.arange(first, last, device=device)
    row = at.div(len(columns), rounding_mode="floor")
    at -= row * len(columns)
    return rows[row].mul_(block.width).add_(start).add_(columns[at])
