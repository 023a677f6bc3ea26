"""Feature caches of ranks, and batches that are drawn before their turn: what both worlds decide.

A rank caches rows that it would fetch: all rows of features in the host's memory, or rows of other
owners. The plan asks for sizes, the trainer for ids.

Source: sampling reference section 5; SALIENT++ (Kaler et al., MLSys 2023) for inclusion
probabilities, GNNLab (Yang et al., EuroSys 2022) for pre-sampling, Ginex (Park et al., VLDB 2022)
for draws known ahead.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gnnbench import work
from gnnbench.data.caching import Cache, PlannedCache, RecentCache, StaticCache, Turn
from gnnbench.data.dealing import Dealt
from gnnbench.steps import Ints, Size, Work

NONE, LRU, PLANNED = "none", "lru", "planned"
STATIC = ("degree", "presampling", "inclusion")
POLICIES = (NONE, *STATIC, LRU, PLANNED)

Scores = Callable[[int], NDArray[np.floating]]
"""From a rank to the score of every row, float [N]: static caches hold those of the highest."""


@dataclass(frozen=True, slots=True, eq=False)
class CacheSizes:
    """What a batch does to the cache of every rank, int64 [P] each.

    Args:
        hits, misses: rows that the cache may hold: found in it, and fetched.
        ranked: rows among which the cache chooses those that it keeps.
        inserted: missed rows that enter the cache.
    """

    hits: Ints
    misses: Ints
    ranked: Ints
    inserted: Ints


class RowCache:
    """The cache of one rank.

    Args:
        policy: one of `POLICIES`, not "none".
        num_rows: of the table of features.
        capacity: rows of the cache.
        rank: of the rank.
        owner: int32 [N]; None where all rows are in the host's memory.
        scores: of static policies.
        settled: whether a static cache is full from the start, for batches out of their order.
    """

    def __init__(
        self,
        policy: str,
        num_rows: int,
        capacity: int,
        rank: int,
        owner: NDArray[np.int32] | None,
        scores: Scores,
        *,
        settled: bool = False,
    ) -> None:
        self.rank, self.owner = rank, owner
        self.capacity, self.starts = capacity, 0
        self._policy, self._num_rows = policy, num_rows
        self._chosen = np.empty(0, np.int64)
        self._settled = settled
        self._foreseen: list[tuple[Ints, bool]] = []
        if policy in STATIC:
            self._chosen = best_rows(scores(rank), capacity, rank, owner)
        self.restart()

    def restart(self) -> None:
        """Empty the cache, and forget which batches are known; `starts` counts how often."""
        self.starts += 1
        self._foreseen.clear()
        if self._policy == LRU:
            self.cache: Cache = RecentCache(self._num_rows, self.capacity)
        elif self._policy == PLANNED:
            self.cache = PlannedCache(self._num_rows, self.capacity)
        else:
            self.cache = StaticCache(self._num_rows, self._chosen)
            if self._settled:
                self.cache.fill(self._chosen)

    def may_hold(self, ids: Ints) -> NDArray[np.bool_]:
        """Whether the cache may hold each row: those that the rank would have to fetch."""
        if self.owner is None:
            return np.ones(len(ids), bool)
        others: NDArray[np.bool_] = self.owner[ids] != self.rank
        return others

    def wanted(self, ids: Ints) -> Ints:
        """Those of a batch's rows that the cache may hold."""
        return ids[self.may_hold(ids)]

    def foresee(self, ids: Ints, *, last: bool) -> None:
        """Make a batch known; `last` if no other follows it. The next turn takes note of it."""
        if self._policy == PLANNED:
            self._foreseen.append((ids, last))

    def turn(self, ids: Ints) -> Turn:
        """Take the next batch of input vertices."""
        if isinstance(self.cache, PlannedCache):
            for known, last in self._foreseen:
                self.cache.foresee(self.wanted(known))
                self.cache.complete = last
            self._foreseen.clear()
        return self.cache.turn(self.wanted(ids))

    @property
    def policy(self) -> str:
        """One of `POLICIES`."""
        return self._policy

    @property
    def fixed(self) -> bool:
        """Whether what it holds does not depend on the batches before."""
        return self._policy in STATIC

    @property
    def held_rows(self) -> int:
        """Rows in the cache now."""
        return self.cache.held_rows


def best_rows(
    scores: NDArray[np.floating], capacity: int, rank: int, owner: NDArray[np.int32] | None
) -> Ints:
    """Ids with the highest positive scores that are not the rank's own; of equal ones the lower."""
    score = np.asarray(scores, np.float64)
    if owner is not None:
        score = np.where(owner == rank, 0.0, score)
    order = np.argsort(-score, kind="stable")[:capacity]
    return order[score[order] > 0].astype(np.int64)


def index_bytes(policy: str, num_rows: int) -> int:
    """Bytes of a cache's tables over all rows of the features.

    Slots (int64), and a mask of the rows it has; chosen rows of a static cache; time of last use of
    LRU; next use and number of the last known use as well, if planned.
    """
    own = {LRU: 8, PLANNED: 8 + 2 * 8}.get(policy, 1)
    return (8 + 1 + own) * num_rows


def ranking(policy: str, candidates: Size, used: Size) -> Work:
    """Choosing the rows that a cache keeps.

    Args:
        policy: of the cache.
        candidates: rows that it held and rows that it lacked.
        used: rows of the batch, whose use the policies lru and planned note.
    """
    return work.rank_rows(candidates, used, policy if policy in (LRU, PLANNED) else "static")


def ranking_bytes(candidates: Size) -> Size:
    """Bytes of temporary arrays while a cache ranks rows: ids, ranks, order, kept; see `Cache`."""
    return 5 * 8 * candidates


class Ahead:
    """A rank's batches in order, some of them drawn before their turn.

    Args:
        draw: from epoch and step to the rank's part of that batch.
        steps, total: batches of an epoch, and of the run.
        lookahead: batches that are drawn before their turn.
        cache: receives every batch that is drawn.
    """

    def __init__(
        self,
        draw: Callable[[int, int], Dealt],
        steps: int,
        total: int,
        lookahead: int = 0,
        cache: RowCache | None = None,
    ) -> None:
        self._draw, self._steps, self._total = draw, steps, total
        self._lookahead, self._cache = lookahead, cache
        self._waiting: deque[Dealt] = deque()
        self._next = self._end = 0

    def take(self, epoch: int, step: int) -> tuple[Dealt, list[Dealt]]:
        """Return the batch of a step, and all that were drawn now.

        Batches out of order start anew, with an empty cache.
        """
        number = epoch * self._steps + step
        if number != self._next:
            self._waiting.clear()
            self._next = self._end = number
            if self._cache is not None:
                self._cache.restart()
        last = max(min(number + self._lookahead, self._total - 1), number)
        drawn = []
        while self._end <= last:
            dealt = self._draw(*divmod(self._end, self._steps))
            if self._cache is not None:
                self._cache.foresee(dealt.batch.input_nodes, last=self._end == self._total - 1)
            drawn.append(dealt)
            self._end += 1
        self._waiting += drawn
        self._next += 1
        return self._waiting.popleft(), drawn

    @property
    def waiting(self) -> list[Dealt]:
        """Batches that are drawn and whose turn has not come."""
        return list(self._waiting)
