"""The page model: which pages of a memory-mapped file a batch touches, and which of them it faults.

Rows lie one behind another by id, so a row may straddle pages and a page has parts of several rows.
A bounded page cache keeps the pages that were touched last (LRU by batch). Both are counted where
ids are known. Where only degrees are known, the expected numbers follow from the access profile: q,
the chance of a row to be in a batch. Rows are assumed to lie in an order that has nothing to do
with q, batches to be independent draws.

Source: Che, Tung, Wang, "Hierarchical Web caching systems", IEEE JSAC 2002 (the age at which LRU
evicts); out-of-core reference sections 9.1 and 13 (page cache by miss-ratio curve).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gnnbench.approaches.out_of_core.storage import DISK_BLOCK, padded
from gnnbench.data.histogram import distinct
from gnnbench.steps import Ints

_OLDEST = 2.0**40
"""Batches after which a page that was not evicted never will be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PagedRows:
    """A table in a file that is mapped into memory, row behind row.

    Args:
        num_rows: V.
        row_bytes: F.
        page_bytes: what one fault reads.
    """

    num_rows: int
    row_bytes: int
    page_bytes: int = DISK_BLOCK

    @property
    def file_bytes(self) -> int:
        """Bytes of the file."""
        return padded(self.num_rows * self.row_bytes)

    @property
    def num_pages(self) -> int:
        """Pages of the file."""
        return -(-self.num_rows * self.row_bytes // self.page_bytes)

    @property
    def rows_per_page(self) -> float:
        """Rows of which a page has at least a part, on average over the pages of a long file."""
        shared = math.gcd(self.row_bytes, self.page_bytes)
        return (self.page_bytes + self.row_bytes - shared) / self.row_bytes

    def pages(self, ids: Ints) -> Ints:
        """The distinct pages that some rows lie on, rising."""
        if not len(ids):
            return np.empty(0, np.int64)
        first = ids * self.row_bytes // self.page_bytes
        count = ((ids + 1) * self.row_bytes - 1) // self.page_bytes - first + 1
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        return distinct(np.repeat(first, count) + within)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Faults:
    """What a batch does to the page cache.

    Args:
        missed: pages that are read from the disk, rising.
        dropped: pages that leave the cache after the batch, rising.
    """

    missed: Ints
    dropped: Ints


class PageCache:
    """Pages in memory: those of the current batch, and after it the `capacity` touched last.

    Of pages that were touched by the same batch, those at the end of the file stay.

    Args:
        capacity: pages that stay between batches.
        num_pages: of the file.
    """

    def __init__(self, capacity: int, num_pages: int) -> None:
        self.capacity = capacity
        self.last_use = np.full(num_pages, -1, np.int64)
        """The batch that touched each page last; -1 for a page that is not in memory."""
        self._batch = 0

    def touch(self, pages: Ints) -> Faults:
        """Take in the pages of a batch, distinct and rising."""
        missed = pages[self.last_use[pages] < 0]
        self.last_use[pages] = self._batch
        self._batch += 1
        held = np.flatnonzero(self.last_use >= 0)
        over = max(len(held) - self.capacity, 0)
        order = np.argsort(self.last_use[held], kind="stable")
        dropped = np.sort(held[order[:over]])
        self.last_use[dropped] = -1
        return Faults(missed=missed, dropped=dropped)

    def restore(self, last_use: Ints) -> None:
        """Go on from the `last_use` of another cache."""
        self.last_use[:] = last_use
        self._batch = int(last_use.max(initial=-1)) + 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AccessProfile:
    """How often rows are used: `rows[k]` rows are in a batch with chance `chance[k]`, float64."""

    rows: NDArray[np.float64]
    chance: NDArray[np.float64]

    def untouched(self, paged: PagedRows, batches: float) -> float:
        """Chance of a page to be touched by none of so many batches.

        A page has `rows_per_page` rows that are drawn from the profile.
        """
        spared = float((self.rows * (1.0 - self.chance) ** batches).sum())
        return float((spared / max(self.rows.sum(), 1e-300)) ** paged.rows_per_page)

    def age(self, paged: PagedRows, capacity: int) -> float:
        """Batches for which a page stays in an LRU cache without being touched (Che's T)."""

        def held(batches: float) -> float:
            return paged.num_pages * (1.0 - self.untouched(paged, batches))

        if held(_OLDEST) <= capacity:
            return _OLDEST
        low, high = 0.0, 1.0
        while held(high) < capacity:
            low, high = high, 2.0 * high
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if held(middle) < capacity else (low, middle)
        return low

    def touched(self, paged: PagedRows) -> float:
        """Expected pages of a batch."""
        return paged.num_pages * (1.0 - self.untouched(paged, 1.0))

    def missed(self, paged: PagedRows, age: float, before: int) -> float:
        """Expected pages that a batch faults: touched now, and not for as long as pages stay.

        Args:
            paged: the table.
            age: of the cache, see `age`.
            before: batches since the cache was empty.
        """
        batches = min(age, float(before))
        spared = self.untouched(paged, batches) - self.untouched(paged, batches + 1.0)
        return paged.num_pages * spared


def capacity_pages(share: float, paged: PagedRows) -> int:
    """Pages of a cache that holds some share of the file."""
    return int(share * paged.num_pages)
