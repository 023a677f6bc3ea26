"""What lies where on the disk: partitions of rows, buckets of edges, and the bytes of reading them.

Rows lie by position: `position[id]` is a permutation of the ids. Partition i holds the positions
i R ... (i+1) R - 1 with R = ceil(V / p); the last one is shorter. Bucket (i, j) holds the edges
from partition i to partition j; the edge file has the buckets row by row, so that neighbouring
buckets of one source partition are one request.

Blocks are padded to `DISK_BLOCK` bytes: requests that are not cannot bypass the page cache.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gnnbench.steps import Ints

DISK_BLOCK = 4096
"""Bytes to which addresses and lengths of requests are aligned."""


def padded(size: int) -> int:
    """Bytes rounded up to whole blocks of the disk."""
    return -(-size // DISK_BLOCK) * DISK_BLOCK


@dataclass(frozen=True, slots=False, kw_only=True)
class Rows:
    """A table on the disk, cut into partitions.

    Args:
        num_rows: V.
        partitions: p.
        row_bytes: of one row; a trained table counts its optimizer's state.
    """

    num_rows: int
    partitions: int
    row_bytes: int

    @property
    def per_partition(self) -> int:
        """R, the rows of every partition but the last."""
        return -(-self.num_rows // self.partitions)

    def rows_of(self, partition: int) -> int:
        """The rows of a partition."""
        start = partition * self.per_partition
        return min(self.per_partition, self.num_rows - start)

    def rows_in(self, partitions: Ints) -> int:
        """The rows of several partitions."""
        return sum(self.rows_of(int(i)) for i in partitions)

    @property
    def block_bytes(self) -> int:
        """Bytes from the start of one partition in the file to that of the next."""
        return padded(self.per_partition * self.row_bytes)

    def bytes_of(self, partition: int) -> int:
        """Bytes that are moved when a partition is read or written."""
        return padded(self.rows_of(partition) * self.row_bytes)

    def bytes_in(self, partitions: Ints) -> int:
        """Bytes that are moved for several partitions."""
        return sum(self.bytes_of(int(i)) for i in partitions)

    @property
    def file_bytes(self) -> int:
        """Bytes of the file."""
        return self.block_bytes * self.partitions

    @property
    def slot_bytes(self) -> int:
        """Bytes of a slot of the buffer: whole blocks of the disk, and whole rows."""
        unit = math.lcm(DISK_BLOCK, self.row_bytes)
        return -(-self.block_bytes // unit) * unit

    def problem(self) -> str | None:
        """Why rows cannot be cut into so many partitions, or None."""
        v, p = self.num_rows, self.partitions
        if v and (p - 1) * self.per_partition >= v:
            used = -(-v // self.per_partition)
            return (
                f"partitions: {v} rows in {p} partitions of {self.per_partition} leave "
                f"{p - used} empty; allowed for example {used}"
            )
        return None


@dataclass(frozen=True, slots=False, kw_only=True, eq=False)
class Buckets:
    """The edge file: edges by bucket.

    Args:
        counts: edges of each bucket, int64 [p, p].
        edge_bytes: of one edge.
    """

    counts: Ints
    edge_bytes: int

    @cached_property
    def offsets(self) -> Ints:
        """Edges before each bucket, row by row, int64 [p * p + 1]."""
        out = np.zeros(self.counts.size + 1, np.int64)
        np.cumsum(self.counts, out=out[1:])
        return out

    @property
    def file_bytes(self) -> int:
        """Bytes of the file."""
        return padded(int(self.offsets[-1]) * self.edge_bytes)

    def runs(self, wanted: NDArray[np.bool_]) -> Ints:
        """Runs of neighbouring buckets, as edges (first, last + 1) of the file, int64 [n, 2].

        Args:
            wanted: bool [p, p]. Empty buckets among them are no reason for a request.
        """
        flat = np.flatnonzero(wanted.ravel() & (self.counts.ravel() > 0))
        if not len(flat):
            return np.zeros((0, 2), np.int64)
        starts, stops = self.offsets[flat], self.offsets[flat + 1]
        first = np.ones(len(flat), bool)
        first[1:] = starts[1:] != stops[:-1]
        last = np.roll(first, -1)
        return np.stack([starts[first], stops[last]], axis=1)

    def spans(self, runs: Ints) -> Ints:
        """The requests for some runs, as bytes (start, stop) of whole blocks, int64 [n, 2].

        Runs whose blocks touch are one request: what lies between them is read along.
        """
        start = runs[:, 0] * self.edge_bytes // DISK_BLOCK * DISK_BLOCK
        stop = -(-runs[:, 1] * self.edge_bytes // DISK_BLOCK) * DISK_BLOCK
        if not len(runs):
            return np.zeros((0, 2), np.int64)
        first = np.ones(len(runs), bool)
        first[1:] = start[1:] > stop[:-1]
        last = np.roll(first, -1)
        return np.stack([start[first], stop[last]], axis=1)


def bucket_counts(
    sources: NDArray[np.integer], targets: NDArray[np.integer], partitions: int
) -> Ints:
    """Edges of each bucket, int64 [p, p], from the partitions of their ends."""
    pairs = sources.astype(np.int64) * partitions + targets
    flat = np.bincount(pairs, minlength=partitions * partitions)
    return flat.astype(np.int64).reshape(partitions, partitions)


def expected_requests(rows: int, share: float, partitions: int, bucket_bytes: float) -> Ints:
    """Requests and bytes for some rows of buckets of which a random share is wanted, int64 [2].

    Args:
        rows: source partitions.
        share: of their buckets that is wanted.
        partitions: buckets of a row.
        bucket_bytes: mean bytes of a bucket.
    """
    whole = rows * partitions * bucket_bytes
    # A gap of k buckets has probability (1 - share)^(k - 1) or less; short ones are read along.
    apart = (1.0 - share) ** (DISK_BLOCK / max(bucket_bytes, 1e-9))
    requests = rows * (1.0 + (partitions * share - 1.0) * (1.0 - share) * apart)
    size = whole * (share + (1.0 - share) * (1.0 - apart)) + requests * DISK_BLOCK
    return np.round([requests, size]).astype(np.int64)


def admitted_buckets(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Buckets of resident partitions that were not there before, bool [p, p]."""
    return np.outer(after, after) & ~np.outer(before, before)
