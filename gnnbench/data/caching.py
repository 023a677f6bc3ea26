"""Caches of rows before a larger table: which rows of a batch are hits, and what the cache keeps.

A batch uses distinct rows, all at once: hits are the rows that the cache holds before it. After the
batch the cache keeps the best `capacity` of what it held and what the batch brought (bypass is
allowed). Policies differ in the order of rows alone:

static    rows of a fixed set; it fills as they are first used
lru       rows used last
planned   rows used again soonest. Draws are keyed by counters, so the next batches are known; of
          rows that they do not use, those used last. With all batches known no policy with the same
          capacity fetches fewer rows.

Source: Belady, IBM Systems Journal 1966; sampling reference section 5 (cache policies); out-of-core
reference sections 2 and 9.2 (`inspect`, the superbatches of Ginex).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gnnbench.data import keys
from gnnbench.steps import Ints

NEVER = np.iinfo(np.int64).max
"""The next use of a row that no known batch uses again."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Turn:
    """What one batch does to the cache.

    Args:
        hits: its rows that the cache holds.
        misses: ids of its rows that the cache lacks, in the order of the batch.
        entering: which of them enter the cache after it, bool.
        evicted: ids that leave the cache then.
    """

    hits: int
    misses: Ints
    entering: NDArray[np.bool_]
    evicted: Ints

    @property
    def inserted(self) -> Ints:
        """Ids that enter the cache."""
        return self.misses[self.entering]

    def rising(self) -> Turn:
        """The same with the missed ids in rising order."""
        order = np.argsort(self.misses)
        return replace(self, misses=self.misses[order], entering=self.entering[order])


class Cache(ABC):
    """Rows that a cache holds; a policy ranks them.

    Args:
        num_rows: of the table.
        capacity: rows of the cache.
    """

    def __init__(self, num_rows: int, capacity: int) -> None:
        self.capacity = capacity
        self.held = np.zeros(num_rows, bool)
        self._rows = np.empty(0, np.int64)

    def fill(self, ids: Ints) -> None:
        """Hold these rows, and no others."""
        self.held[:] = False
        self.held[ids] = True
        self._rows = ids

    @property
    def held_rows(self) -> int:
        """Rows that it holds now."""
        return len(self._rows)

    def turn(self, ids: Ints) -> Turn:
        """Take the next batch; return what it does."""
        misses = ids[~self.held[ids]]
        self.used(ids)
        candidates = np.concatenate([self._rows, misses])
        kept = self._best(candidates, len(self._rows))
        entering = kept[len(self._rows) :]
        evicted = self._rows[~kept[: len(self._rows)]]
        self.held[evicted] = False
        self.held[misses[entering]] = True
        self._rows = candidates[kept]
        hits = len(ids) - len(misses)
        return Turn(hits=hits, misses=misses, entering=entering, evicted=evicted)

    @abstractmethod
    def used(self, ids: Ints) -> None:
        """Note a use of rows."""

    @abstractmethod
    def ranks(self, candidates: Ints) -> tuple[Ints, NDArray[np.bool_]]:
        """How soon each row should leave (small stays), and which rows need not be kept at all."""

    def _best(self, candidates: Ints, held: int) -> NDArray[np.bool_]:
        """Which candidates the cache keeps; of equal ones the first, so held rows stay."""
        rank, useless = self.ranks(candidates)
        wanted = ~useless
        # A held row that is of no use stays while there is room: evicting it gains nothing.
        wanted[:held] = True
        places = np.flatnonzero(wanted)
        if len(places) > self.capacity:
            last = np.where(useless[places], NEVER, rank[places])
            bar = np.partition(last, self.capacity)[self.capacity]
            equal = np.flatnonzero(last == bar)
            room = self.capacity - int(np.count_nonzero(last < bar))
            wanted[places[last > bar]] = False
            wanted[places[equal[room:]]] = False
        return wanted


class StaticCache(Cache):
    """Rows of a fixed set.

    Args:
        num_rows: of the table.
        chosen: ids that may enter, as many as the cache has rows.
    """

    def __init__(self, num_rows: int, chosen: Ints) -> None:
        super().__init__(num_rows, len(chosen))
        self._chosen = np.zeros(num_rows, bool)
        self._chosen[chosen] = True

    def used(self, ids: Ints) -> None:
        """Nothing: uses change no rank."""

    def ranks(self, candidates: Ints) -> tuple[Ints, NDArray[np.bool_]]:
        return np.zeros(len(candidates), np.int64), ~self._chosen[candidates]


class RecentCache(Cache):
    """Least recently used rows leave (LRU).

    The rows of a batch are used at once: of them, hits stay before misses, and both go by a hash of
    their id. The order of the batch would favour one hop over the others.
    """

    def __init__(self, num_rows: int, capacity: int) -> None:
        super().__init__(num_rows, capacity)
        self._last = np.full(num_rows, -1, np.int64)
        self._clock = 0

    def used(self, ids: Ints) -> None:
        """Stamp rows: the batch, whether the cache held it, and a hash that parts equal ones."""
        mixed = ids.astype(np.uint64) * np.uint64(keys.GOLDEN) >> np.uint64(32)
        turn = (2 * self._clock + self.held[ids]) << 32
        self._last[ids] = turn | mixed.astype(np.int64)
        self._clock += 1

    def ranks(self, candidates: Ints) -> tuple[Ints, NDArray[np.bool_]]:
        return -self._last[candidates], np.zeros(len(candidates), bool)


class PlannedCache(RecentCache):
    """Rows stay that known batches use again soonest, then those that were used last.

    `foresee` makes batches known, in order; `turn` takes them. `complete` tells the cache that no
    further batch will come: rows that are not used again need not be kept then.
    """

    def __init__(self, num_rows: int, capacity: int) -> None:
        super().__init__(num_rows, capacity)
        self.complete = False
        self._next = np.full(num_rows, NEVER, np.int64)
        # Uses are numbered over all known batches: of a row, the number of its last known use.
        self._use = np.full(num_rows, -1, np.int64)
        self._after = _Uses()
        self._batches = 0

    def foresee(self, ids: Ints) -> None:
        """Make the next batch known."""
        number, after, earlier = self._batches, self._after, self._use[ids]
        waiting = earlier >= after.first
        self._next[ids[~waiting]] = number
        after.put(earlier[waiting], number)
        self._use[ids] = np.arange(after.end, after.end + len(ids))
        after.add(len(ids))
        self._batches += 1

    def used(self, ids: Ints) -> None:
        """Stamp rows, and learn when they are used again."""
        super().used(ids)
        self._next[ids] = self._after.take(len(ids))

    def ranks(self, candidates: Ints) -> tuple[Ints, NDArray[np.bool_]]:
        rank = self._next[candidates].copy()
        unknown = rank == NEVER
        # Behind all known uses, in the order of LRU.
        rank[unknown] = NEVER - 1 - self._last[candidates[unknown]]
        return rank, unknown if self.complete else np.zeros(len(rank), bool)


class _Uses:
    """Of each use whose turn has not come, by number: the batch that uses its row next."""

    def __init__(self) -> None:
        self.first = self.end = 0
        self._room = np.empty(0, np.int64)
        self._start = 0  # number of the use that lies first in the room

    def put(self, numbers: Ints, batch: int) -> None:
        self._room[numbers - self._start] = batch

    def add(self, count: int) -> None:
        """Number `count` more uses, of rows that no known batch uses again."""
        if self.end - self._start + count > len(self._room):
            # Twice what is needed, so that many batches ahead are not copied for each.
            waiting = self._room[self.first - self._start : self.end - self._start]
            room = np.empty(2 * (len(waiting) + count), np.int64)
            room[: len(waiting)] = waiting
            self._room, self._start = room, self.first
        at = self.end - self._start
        self._room[at : at + count] = NEVER
        self.end += count

    def take(self, count: int) -> Ints:
        """The next batches of the first uses, whose turn has come."""
        at = self.first - self._start
        self.first += count
        return self._room[at : at + count]


# -- hit rates -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class HitRates:
    """Means per batch as shares of the rows that a cache may hold in it.

    Args:
        hits: found in the cache.
        inserted: fetched, and kept by the cache.
        held: rows that the cache holds, as a share of its capacity.
    """

    hits: float
    inserted: float
    held: float


def cache_of(
    policy: str, num_rows: int, capacity: int, scores: NDArray[np.floating] | None = None
) -> Cache:
    """The cache of a policy; static ones hold the rows with the highest scores from the start."""
    if policy == "lru":
        return RecentCache(num_rows, capacity)
    if policy == "planned":
        return PlannedCache(num_rows, capacity)
    assert scores is not None
    chosen = np.argsort(-scores, kind="stable")[:capacity]
    cache = StaticCache(num_rows, chosen)
    cache.fill(chosen)
    return cache


def count_hits(cache: Cache, batches: list[Ints], warm: int, lookahead: int) -> HitRates:
    """Run batches through a cache; count after the first `warm` of them.

    A planned cache knows `lookahead` batches beyond the present one.
    """
    used = hits = inserted = held = known = 0
    for number, ids in enumerate(batches):
        if isinstance(cache, PlannedCache):
            while known <= min(number + lookahead, len(batches) - 1):
                cache.foresee(batches[known])
                known += 1
        before = cache.held_rows
        turn = cache.turn(ids)
        if number >= warm:
            used += len(ids)
            hits += len(ids) - len(turn.misses)
            inserted += len(turn.inserted)
            held += before
    full = max(cache.capacity * (len(batches) - warm), 1)
    return HitRates(hits=hits / max(used, 1), inserted=inserted / max(used, 1), held=held / full)


# -- superbatches --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Inspection:
    """A superbatch as its executor needs it.

    Args:
        initial: ids that fill the cache before the first batch, rising.
        turns: one per batch, missed ids in rising order.
    """

    initial: Ints
    turns: list[Turn]


def inspect(batches: Sequence[Ints], capacity: int, num_rows: int) -> Inspection:
    """Decide what the cache holds during a superbatch, whose batches are all known.

    Args:
        batches: distinct ids that each batch uses.
        capacity: rows of the cache.
        num_rows: of the table.
    """
    initial = _first(batches, capacity)
    cache = PlannedCache(num_rows, capacity)
    cache.fill(initial)
    cache.complete = True
    for ids in batches:
        cache.foresee(ids)
    return Inspection(initial=initial, turns=[cache.turn(ids).rising() for ids in batches])


def _first(batches: Sequence[Ints], capacity: int) -> Ints:
    """The first distinct ids in the order of use, as many as fit, rising."""
    found = np.empty(0, np.int64)
    for ids in batches:
        new = np.setdiff1d(ids, found, assume_unique=True)
        found = np.concatenate([found, new[: capacity - len(found)]])
        if len(found) >= capacity:
            break
    return np.sort(found)


def superbatches(steps: int, size: int) -> Iterator[range]:
    """Numbers of the batches of each superbatch of an epoch."""
    for start in range(0, steps, size):
        yield range(start, min(start + size, steps))


def capacity_of(share: float, num_rows: int) -> int:
    """Rows of a cache that holds some share of all rows."""
    return int(share * num_rows)
