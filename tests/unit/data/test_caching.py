"""Caches of rows: what each policy holds, against brute force and against each other (SA-P5)."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnnbench.data.caching import Cache, PlannedCache, RecentCache, StaticCache, Turn
from gnnbench.steps import Ints

ROWS = 200


def trace(seed: int, rows: int, batches: int, size: int) -> list[Ints]:
    """Batches of distinct rows, the low ids more often."""
    rng = np.random.default_rng(seed)
    odds = 1.0 / np.arange(1, rows + 1)
    odds /= odds.sum()
    return [rng.choice(rows, size, replace=False, p=odds).astype(np.int64) for _ in range(batches)]


def planned(batches: list[Ints], rows: int, capacity: int, lookahead: int) -> list[Turn]:
    """Turns of a planned cache that knows so many batches beyond the present one."""
    cache, turns, known = PlannedCache(rows, capacity), [], 0
    for number, ids in enumerate(batches):
        while known <= min(number + lookahead, len(batches) - 1):
            cache.foresee(batches[known])
            known += 1
        cache.complete = known == len(batches)
        turns.append(cache.turn(ids))
    return turns


def fetched(turns: list[Turn]) -> int:
    return sum(len(turn.misses) for turn in turns)


def popular(batches: list[Ints], capacity: int, rows: int) -> Ints:
    """The best fixed set: rows with most uses."""
    counts = np.bincount(np.concatenate(batches), minlength=rows)
    return np.argsort(-counts, kind="stable")[:capacity]


def fewest(batches: list[Ints], capacity: int) -> int:
    """Fetches of the best policy of all that may keep any of what they held and what was used."""
    best: dict[frozenset[int], int] = {frozenset(): 0}
    for ids in batches:
        used = frozenset(ids.tolist())
        found: dict[frozenset[int], int] = {}
        for held, cost in best.items():
            total, every = cost + len(used - held), sorted(held | used)
            for kept in itertools.combinations(every, min(capacity, len(every))):
                key = frozenset(kept)
                found[key] = min(found.get(key, total), total)
        best = found
    return min(best.values())


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("capacity", [1, 2, 3])
def test_a_planned_cache_that_knows_all_batches_fetches_as_few_rows_as_any(
    seed: int, capacity: int
) -> None:
    rng = np.random.default_rng(seed)
    batches = [rng.choice(7, 3, replace=False).astype(np.int64) for _ in range(5)]
    assert fetched(planned(batches, 7, capacity, len(batches))) == fewest(batches, capacity)


POLICIES: dict[str, Callable[[list[Ints], int], list[Turn]]] = {
    "lru": lambda batches, capacity: _turns(RecentCache(ROWS, capacity), batches),
    "static": lambda batches, capacity: _turns(
        StaticCache(ROWS, popular(batches, capacity, ROWS)), batches
    ),
    "planned": lambda batches, capacity: planned(batches, ROWS, capacity, len(batches)),
    "planned 3 ahead": lambda batches, capacity: planned(batches, ROWS, capacity, 3),
}


def _turns(cache: Cache, batches: list[Ints]) -> list[Turn]:
    return [cache.turn(ids) for ids in batches]


@pytest.mark.parametrize("capacity", [0, 1, 10, 60, 199, 200])
@pytest.mark.parametrize("seed", range(4))
def test_planned_never_fetches_more_than_lru_or_the_best_static_set(
    seed: int, capacity: int
) -> None:
    batches = trace(seed, ROWS, 30, 40)
    found = {name: fetched(turns(batches, capacity)) for name, turns in POLICIES.items()}
    assert found["planned"] <= found["planned 3 ahead"]
    assert found["planned"] <= min(found["lru"], found["static"])
    if capacity == ROWS:
        assert found["planned"] == found["lru"] == len(np.unique(np.concatenate(batches)))
    if capacity == 0:
        assert set(found.values()) == {30 * 40}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("capacity", [0, 7, 60, 200])
def test_turns_are_those_of_one_cache_of_that_capacity(policy: str, capacity: int) -> None:
    held: set[int] = set()
    batches = trace(3, ROWS, 20, 30)
    for ids, turn in zip(batches, POLICIES[policy](batches, capacity), strict=True):
        assert turn.misses.tolist() == [i for i in ids.tolist() if i not in held]
        assert set(turn.evicted.tolist()) <= held
        assert set(turn.inserted.tolist()) <= set(turn.misses.tolist())
        held = (held - set(turn.evicted.tolist())) | set(turn.inserted.tolist())
        assert len(held) <= capacity


def test_lru_keeps_what_was_used_last_and_a_static_cache_its_set() -> None:
    a, b = np.array([0, 1, 2]), np.array([3, 4])
    recent = RecentCache(5, 3)
    assert recent.turn(a).inserted.tolist() == [0, 1, 2]
    turn = recent.turn(b)
    assert (len(turn.evicted), turn.inserted.tolist()) == (2, [3, 4])
    # 3 is a hit, which stays; one of the others makes room for what is missed.
    turn = recent.turn(np.array([3, 0, 1, 2]))
    assert 3 not in turn.misses.tolist() + turn.evicted.tolist()
    assert 4 in turn.evicted.tolist()
    static = StaticCache(5, np.array([4, 0]))
    assert static.turn(a).inserted.tolist() == [0]
    assert static.turn(b).misses.tolist() == [3, 4]
    assert static.turn(np.array([0, 4])).misses.tolist() == []


def test_a_planned_cache_without_lookahead_is_lru() -> None:
    batches = trace(5, ROWS, 25, 30)
    ahead = planned([*batches, np.array([0])], ROWS, 50, 0)[:-1]
    for known, last in zip(ahead, _turns(RecentCache(ROWS, 50), batches), strict=True):
        assert known.misses.tolist() == last.misses.tolist()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sets(st.integers(0, 11), min_size=1, max_size=6), min_size=1, max_size=9),
    st.integers(0, 12),
    st.integers(0, 9),
)
def test_knowing_all_batches_is_never_worse_than_knowing_some(
    drawn: list[set[int]], capacity: int, lookahead: int
) -> None:
    batches = [np.array(sorted(ids), np.int64) for ids in drawn]
    every = fetched(planned(batches, 12, capacity, len(batches)))
    assert every <= fetched(planned(batches, 12, capacity, lookahead))
    assert every <= fetched(_turns(RecentCache(12, capacity), batches))
    assert every >= len(np.unique(np.concatenate(batches)))
