"""Feature rows on the disk and the optimal cache before them: which rows are read, and when.

Inspector and executor: the batches of a superbatch are drawn first, so that the next use of every
row is known, and the cache keeps those that are used again soonest. A row that is used again later
than all cached ones is not cached (bypass). Within a superbatch no policy reads fewer rows.

Source: Belady, IBM Systems Journal 1966; Park et al., "Ginex", VLDB 2022; out-of-core reference
sections 2 and 9.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gnnbench.approaches.out_of_core.storage import DISK_BLOCK, padded
from gnnbench.steps import Ints

NEVER = np.iinfo(np.int64).max
"""The next use of a row that is not used again."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Turn:
    """What one batch does to the cache.

    Args:
        misses: ids of its rows that are read from the disk, rising.
        evicted: ids that leave the cache after it.
        inserted: ids of its own missed rows that enter the cache then.
    """

    misses: Ints
    evicted: Ints
    inserted: Ints


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Inspection:
    """A superbatch as its executor needs it.

    Args:
        initial: ids that fill the cache before the first batch, rising.
        turns: one per batch.
    """

    initial: Ints
    turns: list[Turn]


def inspect(batches: Sequence[Ints], capacity: int, num_rows: int) -> Inspection:
    """Decide what the cache holds.

    Args:
        batches: distinct ids that each batch uses.
        capacity: rows of the cache.
        num_rows: of the table.
    """
    following = _next_uses(batches, num_rows)
    initial = _first(batches, capacity)
    cached = np.zeros(num_rows, bool)
    cached[initial] = True
    next_use = np.full(num_rows, NEVER, np.int64)
    for number in range(len(batches) - 1, -1, -1):
        next_use[batches[number]] = number  # ends as the first use of every row
    turns = []
    for ids, later in zip(batches, following, strict=True):
        misses = np.sort(ids[~cached[ids]])
        next_use[ids] = later
        candidates = np.union1d(np.flatnonzero(cached), ids)
        candidates = candidates[next_use[candidates] < NEVER]
        # Of rows that are used again at the same time, those with the smaller id stay.
        order = np.argsort(next_use[candidates], kind="stable")
        kept = np.zeros(num_rows, bool)
        kept[candidates[order[:capacity]]] = True
        turns.append(
            Turn(
                misses=misses,
                evicted=np.flatnonzero(cached & ~kept),
                inserted=np.flatnonzero(kept & ~cached),
            )
        )
        cached = kept
    return Inspection(initial=initial, turns=turns)


def _next_uses(batches: Sequence[Ints], num_rows: int) -> list[Ints]:
    """Per batch the number of the next batch that uses each of its rows."""
    following: list[Ints] = []
    next_use = np.full(num_rows, NEVER, np.int64)
    for number in range(len(batches) - 1, -1, -1):
        ids = batches[number]
        following.append(next_use[ids])
        next_use[ids] = number
    return following[::-1]


def _first(batches: Sequence[Ints], capacity: int) -> Ints:
    """The first distinct ids in the order of use, as many as fit, rising."""
    found = np.empty(0, np.int64)
    for ids in batches:
        new = np.setdiff1d(ids, found, assume_unique=True)
        found = np.concatenate([found, new[: capacity - len(found)]])
        if len(found) >= capacity:
            break
    return np.sort(found)


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


def superbatches(steps: int, size: int) -> Iterator[range]:
    """Numbers of the batches of each superbatch of an epoch."""
    for start in range(0, steps, size):
        yield range(start, min(start + size, steps))


def capacity_of(share: float, num_rows: int) -> int:
    """Rows of a cache that holds some share of all rows."""
    return int(share * num_rows)
