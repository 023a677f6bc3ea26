"""Feature rows on the disk: in which blocks they lie, and which requests read some of them.

The cache before them is `gnnbench.data.caching`.

Source: Park et al., "Ginex", VLDB 2022; out-of-core reference sections 2 and 9.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gnnbench.approaches.out_of_core.storage import DISK_BLOCK, padded
from gnnbench.steps import Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignedRows:
    """A table whose rows straddle no more blocks of the disk than they must.

    The stride is a power of two below a block, else whole blocks.

    Args:
        num_rows: V.
        row_bytes: F.
    """

    num_rows: int
    row_bytes: int

    @property
    def stride(self) -> int:
        """Bytes from one row to the next."""
        if self.row_bytes > DISK_BLOCK:
            return padded(self.row_bytes)
        return 1 << max(self.row_bytes - 1, 0).bit_length()

    @property
    def file_bytes(self) -> int:
        """Bytes of the file."""
        return padded(self.num_rows * self.stride)

    def spans(self, ids: Ints) -> tuple[Ints, Ints]:
        """Blocks in which some rows lie, neighbours as one request; and where the rows are then.

        Args:
            ids: rising and distinct.

        Returns:
            Bytes (start, stop) of each request, int64 [n, 2]; and the place of each row in what
            the requests read, in strides.
        """
        if not len(ids):
            return np.zeros((0, 2), np.int64), np.empty(0, np.int64)
        start = ids * self.stride // DISK_BLOCK * DISK_BLOCK
        stop = start + max(DISK_BLOCK, self.stride)
        first = np.ones(len(ids), bool)
        first[1:] = start[1:] > stop[:-1]
        last = np.roll(first, -1)
        spans = np.stack([start[first], stop[last]], axis=1)
        size = spans[:, 1] - spans[:, 0]
        run = np.cumsum(first) - 1
        offset = (np.cumsum(size) - size)[run] + ids * self.stride - spans[run, 0]
        return spans, offset // self.stride
