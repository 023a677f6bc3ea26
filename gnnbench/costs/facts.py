"""The shape facts of many pieces of work as arrays, one entry per rank that does them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gnnbench.reuse import BINS, DISTANCES, Reuse
from gnnbench.steps import Step, Work

Floats = npt.NDArray[np.float64]

FIELDS = ("flops", "bytes", "rows", "nonzeros", "width", "inner", "source_rows")
PER_CALL = ("flops", "bytes", "rows", "nonzeros")
"""Facts that are totals over the calls of a piece of work; the others are those of each call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Facts as in `steps.Work`; counts of elements, bytes and flops. `element_bytes` is s.

    `reuse` [steps, BINS] are shares of reads by reuse distance, NaN where reads are in random order
    or the order is not known; None where that is so of all steps. `blind` are steps of a graph
    whose order is not known.
    """

    flops: Floats
    bytes: Floats
    rows: Floats
    nonzeros: Floats
    width: Floats
    inner: Floats
    source_rows: Floats
    element_bytes: float = 4.0
    reuse: Floats | None = None
    blind: bool = False

    @classmethod
    def of(
        cls,
        works: Sequence[Work],
        counts: Sequence[int] | None = None,
        *,
        element_bytes: float = 4.0,
    ) -> Facts:
        """Collect facts in order. `counts` are the ranks that do each piece; 1 by default.

        Work that represents several calls is described by the facts of one call; its time is that
        of one call times the number of calls.
        """
        total = len(works) if counts is None else sum(counts)
        columns = {}
        for name in FIELDS:
            values = [getattr(work, name) for work in works]
            columns[name] = column(values, counts, total)
        if any(not isinstance(work.calls, int) or work.calls != 1 for work in works):
            calls = column([work.calls for work in works], counts, total)
            for name in PER_CALL:
                columns[name] = columns[name] / np.maximum(calls, 1.0)
        found = [work.reuse for work in works]
        return cls(
            **columns,
            element_bytes=element_bytes,
            reuse=_reuse_rows(found, counts, total),
            blind=any(one is not None and not one.known for one in found),
        )

    @classmethod
    def of_steps(cls, steps: Sequence[Step], *, element_bytes: float = 4.0) -> Facts:
        """Facts of single ranks' steps."""
        return cls.of([step.work for step in steps], element_bytes=element_bytes)

    def take(self, index: npt.NDArray[np.intp]) -> Facts:
        """Facts of some of the steps."""
        columns = {name: getattr(self, name)[index] for name in FIELDS}
        reuse = None if self.reuse is None else self.reuse[index]
        return Facts(**columns, element_bytes=self.element_bytes, reuse=reuse, blind=self.blind)

    def without_order(self) -> Facts:
        """The same steps if nothing were known of the order in which rows are read."""
        return replace(self, reuse=None, blind=True)

    def __len__(self) -> int:
        return len(self.bytes)

    @property
    def source_bytes(self) -> Floats:
        """Bytes of the table that rows are read from: the working set of spmm and gather."""
        return self.source_rows * self.width * self.element_bytes

    def row_bytes(self, line: float) -> Floats:
        """Bytes that reading one row moves, in whole cache lines (simulation 5.3)."""
        lines: Floats = np.ceil(self.width * self.element_bytes / line)
        return lines * line

    def mean_distance(self) -> Floats:
        """Geometric mean of the rows between reads of a row; of random reads, half of all rows."""
        random = np.maximum(self.source_rows / 2.0, 1.0)
        if self.reuse is None:
            return np.asarray(random)
        ordered = np.exp((self.reuse * np.log(DISTANCES)).sum(axis=1))
        return np.where(np.isnan(ordered), random, ordered)

    def missed(self, cache_bytes: float) -> Floats:
        """Share of the reads of source rows that miss a cache of this size.

        By reuse distances where they are known. Rows in random order miss with 1 - C / ws beyond
        C; skewed degrees smear the corner, which a gentler slope does as well.
        """
        random = miss_rate(self.source_bytes, cache_bytes)
        if self.reuse is None or math.isinf(cache_bytes):
            return random
        row = np.maximum(self.width * self.element_bytes, 1.0)
        rates = miss_rate(row[:, None] * DISTANCES[None, :], cache_bytes, sharpness=KNOWN_SHARPNESS)
        ordered = (self.reuse * rates).sum(axis=1)
        return np.where(np.isnan(ordered), random, ordered)

    @property
    def ordered(self) -> npt.NDArray[np.bool_]:
        """Whether the reads of each step have a known order."""
        if self.reuse is None:
            return np.zeros(len(self), bool)
        return np.asarray(~np.isnan(self.reuse[:, 0]))

    def missed_entries(self, cache_bytes: float) -> Floats:
        """Share of the entries that miss a cache, read by column of a pattern.

        `rows` are their values. Each row of the pattern has lines of its own: between two reads of
        a line lie as many lines as rows.
        """
        random = miss_rate(self.rows * self.element_bytes, cache_bytes)
        if self.reuse is None or math.isinf(cache_bytes):
            return random
        rates = miss_rate(LINE * DISTANCES, cache_bytes, sharpness=KNOWN_SHARPNESS)
        known = (self.reuse * rates[None, :]).sum(axis=1)
        return np.where(np.isnan(known), random, np.minimum(known, random))

    def missed_weights(self, cache_bytes: float) -> Floats:
        """Share of the entries whose weights, found by the column of a pattern, miss a cache.

        The weights of a column lie together. Between two of them, as many lines of other columns
        are read as rows of the source.
        """
        random = miss_rate(self.nonzeros * self.inner * self.element_bytes, cache_bytes)
        if self.reuse is None or math.isinf(cache_bytes):
            return random
        between = (LINE + self.width * self.element_bytes)[:, None] * DISTANCES[None, :]
        rates = miss_rate(between, cache_bytes, sharpness=KNOWN_SHARPNESS)
        ordered = (self.reuse * rates).sum(axis=1)
        return np.where(np.isnan(ordered), random, np.minimum(ordered, random))


LINE = 64.0
"""Bytes of a cache line."""
SHARPNESS = 1.5
"""How sharply reads in random order start to miss when a working set outgrows a cache."""
KNOWN_SHARPNESS = 3.0
"""The same of reads at one known distance: a cache is not fully associative, and is shared."""


def miss_rate(distance: Floats, cache_bytes: float, *, sharpness: float = SHARPNESS) -> Floats:
    """Share of re-references that miss a cache: 0 for near ones, 1 for far ones, 1/2 at its size.

    Args:
        distance: bytes read between a read and the next one of the same row.
        cache_bytes: size of the cache.
        sharpness: of the step.
    """
    rate: Floats = 1.0 / (1.0 + (cache_bytes / np.maximum(distance, 1.0)) ** sharpness)
    return rate


def _reuse_rows(
    found: Sequence[Reuse | None], counts: Sequence[int] | None, total: int
) -> Floats | None:
    """Shares of each step's ranks, one below the other; None if none are known."""
    if not any(one is not None and one.known for one in found):
        return None
    rows, start = np.full((total, BINS), np.nan), 0
    for one, count in zip(found, counts or [1] * len(found), strict=True):
        if one is not None:
            rows[start : start + count] = one.shares
        start += count
    return rows


def column(values: Sequence[object], counts: Sequence[int] | None, total: int) -> Floats:
    """Concatenate sizes of several pieces of work, each repeated for its number of ranks."""
    if counts is None:
        return np.array(values, dtype=np.float64)
    out = np.empty(total)
    start = 0
    for value, count in zip(values, counts, strict=True):
        out[start : start + count] = value  # type: ignore[call-overload]
        start += count
    return out
