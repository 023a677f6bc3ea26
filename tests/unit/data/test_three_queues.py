"""Misses of S3-FIFO: the estimate against the queues themselves, and its limits."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
from numpy.typing import NDArray

from gnnbench.data.expected_hits import Chances, expected_hits
from gnnbench.data.three_queues import s3_fifo_misses

Floats = NDArray[np.float64]
ROWS = 2000


def chances(spread: float) -> Floats:
    """Chances of rows to be in a batch, log-normal, 2 % in the mean."""
    drawn = np.exp(spread * np.random.default_rng(1).standard_normal(ROWS))
    return np.clip(0.02 * drawn / drawn.mean(), 0.0, 0.9)


class Queues:
    """The three queues of S3-FIFO, one row at a time."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.small_rows = capacity, capacity // 10
        self.small: deque[int] = deque()
        self.main: deque[int] = deque()
        self.ghost: deque[int] = deque()
        self.uses: dict[int, int] = {}

    def missed(self, row: int) -> bool:
        if row in self.uses:
            self.uses[row] = min(self.uses[row] + 1, 3)
            return False
        if len(self.uses) >= self.capacity:
            self._make_room()
        if row in self.ghost:
            self.ghost.remove(row)
            self.main.append(row)
        else:
            self.small.append(row)
        self.uses[row] = 0
        return True

    def _make_room(self) -> None:
        while len(self.small) > self.small_rows:
            row = self.small.popleft()
            if not self.uses[row]:
                del self.uses[row]
                self.ghost.append(row)
                if len(self.ghost) > self.capacity - self.small_rows:
                    self.ghost.popleft()
                return
            self.uses[row] = 0
            self.main.append(row)
        while self.uses[self.main[0]]:
            self.uses[self.main[0]] -= 1
            self.main.rotate(-1)
        del self.uses[self.main.popleft()]


def counted(chance: Floats, capacity: int) -> float:
    """Share of the uses that the queues miss once they are warm."""
    rng, queues, uses, misses = np.random.default_rng(0), Queues(capacity), 0, 0
    for batch in range(1200):
        for row in rng.permutation(np.flatnonzero(rng.random(ROWS) < chance)).tolist():
            missed = queues.missed(row)
            if batch >= 600:
                uses, misses = uses + 1, misses + missed
    return misses / uses


@pytest.mark.parametrize(("spread", "capacity"), [(1.0, 200), (1.0, 800), (1.8, 400)])
def test_the_estimate_meets_the_queues(spread: float, capacity: int) -> None:
    chance = chances(spread)
    found = s3_fifo_misses(np.ones(ROWS), chance, capacity)
    assert found == pytest.approx(counted(chance, capacity), abs=0.015)


def test_a_larger_cache_misses_less_and_one_of_all_rows_nothing() -> None:
    rows, chance = np.ones(ROWS), chances(1.5)
    found = [s3_fifo_misses(rows, chance, c) for c in (0, 100, 400, 1600, ROWS)]
    assert found[0] == 1.0
    assert found[-1] == 0.0
    assert found == sorted(found, reverse=True)
    assert len(set(found)) == len(found)


def test_popular_rows_stay_where_a_cache_of_the_rows_used_last_loses_them() -> None:
    rows, chance = np.ones(ROWS), chances(1.8)
    alike = Chances(weight=rows, seed=0.0 * rows, inclusion=chance, degree=rows)
    recent = 1.0 - expected_hits(alike, "lru", 0.2, 1000).hits
    assert s3_fifo_misses(rows, chance, 0.2 * ROWS) < 0.95 * recent


def test_rows_that_no_batch_uses_take_no_room() -> None:
    rows, chance = np.array([1000.0, 1e6]), np.array([0.01, 0.0])
    assert s3_fifo_misses(rows, chance, 1000.0) == 0.0
    assert s3_fifo_misses(rows, chance, 500.0) == s3_fifo_misses(rows[:1], chance[:1], 500.0) > 0
