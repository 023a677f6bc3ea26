"""Feature caches against plain lists: invariants C1-C6 of the temporal reference, section 16."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnnbench.data.feature_cache import POLICIES, FeatureCache, most_asked

ROWS = 12
TRACES = st.lists(st.lists(st.integers(0, ROWS - 1), max_size=15), max_size=12)


class Plain:
    """The reference: a list of [id, score] per slot, ties by the lowest slot."""

    def __init__(self, capacity: int, policy: str) -> None:
        self.slots: list[list[int] | None] = [None] * capacity
        self.policy, self.now, self.next = policy, 0, 0

    def request(self, ids: list[int]) -> tuple[int, int, int]:
        self.now += 1
        have = {slot[0] for slot in self.slots if slot}
        hits = sum(i in have for i in ids)
        for slot in self.slots:
            if slot and slot[0] in ids and self.policy == "lru":
                slot[1] = self.now
            elif slot and slot[0] in ids and self.policy == "lfu":
                slot[1] += 1
        missed = sorted(set(ids) - have)
        if self.policy != "static" and self.slots:
            entering = missed[-len(self.slots) :]
            for place, new in zip(self.leaving(len(entering)), entering, strict=True):
                self.slots[place] = [new, self.now if self.policy == "lru" else 1]
        return hits, len(ids) - hits, len(missed)

    def leaving(self, count: int) -> list[int]:
        """Chosen before any of them is overwritten."""
        if self.policy == "fifo":
            found = [(self.next + k) % len(self.slots) for k in range(count)]
            self.next += count
            return found
        order = sorted(range(len(self.slots)), key=lambda k: (self.score(k), k))
        return sorted(order[:count])

    def score(self, slot: int) -> int:
        held = self.slots[slot]
        return held[1] if held else 0


@settings(max_examples=150, deadline=None)
@given(TRACES, st.sampled_from(POLICIES), st.integers(0, ROWS + 2))
def test_it_is_the_plain_reference(trace: list[list[int]], policy: str, capacity: int) -> None:
    """C1-C3: counts, contents, inverse maps and served rows; no slots, and more than rows."""
    cache, plain = FeatureCache(ROWS, capacity, policy), Plain(min(capacity, ROWS), policy)
    features = np.arange(ROWS) * 10
    buffer = np.full(cache.capacity, -1)
    for ids in trace:
        asked = np.array(ids, np.int64)
        found = cache.request(asked)
        hits, misses, moved, entered = found.counts
        assert (hits, misses, moved) == plain.request(ids) and hits + misses == len(ids)
        rows = np.empty(len(ids), np.int64)
        rows[found.hits] = buffer[found.slots]
        rows[found.missing] = features[found.moved][found.rows]
        assert rows.tolist() == features[asked].tolist()
        buffer[found.entered] = features[found.moved[found.entering]]
        assert len(set(found.entered.tolist())) == entered
        assert cache.id_of.tolist() == [slot[0] if slot else -1 for slot in plain.slots]
        full = np.flatnonzero(cache.id_of >= 0)
        assert (cache.slot_of[cache.id_of[full]] == full).all()
        assert (cache.slot_of >= 0).sum() == len(full) == cache.num_cached <= cache.capacity
        assert (buffer[full] == features[cache.id_of[full]]).all()


@pytest.mark.parametrize("policy", ["lru", "lfu", "fifo"])
def test_all_hit_once_everything_fits(policy: str) -> None:
    """C3: with a slot per row, all are hits after the first touch."""
    cache = FeatureCache(ROWS, ROWS, policy)
    ids = np.arange(ROWS, dtype=np.int64)
    assert cache.request(ids).counts[:3] == (0, ROWS, ROWS)
    assert cache.request(ids).counts[:3] == (ROWS, 0, 0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, ROWS - 1), max_size=60))
def test_more_slots_never_hurt_lru_and_nobody_beats_the_optimum(ids: list[int]) -> None:
    """C4, one id per request: LRU is a stack algorithm; Belady's rule is the upper bound."""

    def hits(policy: str, capacity: int) -> int:
        cache = FeatureCache(ROWS, capacity, policy)
        return sum(cache.request(np.array([i])).counts[0] for i in ids)

    lru = [hits("lru", capacity) for capacity in range(ROWS + 1)]
    assert lru == sorted(lru)
    for capacity in (1, 3, 6):
        best = optimum(ids, capacity)
        assert max(hits(policy, capacity) for policy in ("lru", "lfu", "fifo")) <= best


def optimum(ids: list[int], capacity: int) -> int:
    """Hits of the policy that evicts what is used again last."""
    held: set[int] = set()
    hits = 0
    for at, i in enumerate(ids):
        hits += i in held
        held.add(i)
        if len(held) > capacity:
            rest = ids[at + 1 :]
            held.remove(max(held, key=lambda k: rest.index(k) if k in rest else len(rest) + k))
    return hits


@pytest.mark.parametrize("policy", ["lru", "lfu", "fifo"])
def test_what_was_put_back_hits_as_before(policy: str) -> None:
    """C6: epochs that begin with the same content have the same hits; new ids are misses."""
    rng = np.random.default_rng(1)
    trace = [rng.integers(0, ROWS, 9) for _ in range(20)]
    cache, first = FeatureCache(ROWS, 5, policy), np.arange(5, dtype=np.int64)
    epochs = []
    for _ in range(2):
        cache.put(first)
        epochs.append([cache.request(ids).counts for ids in trace])
    assert epochs[0] == epochs[1]
    assert cache.put(first[:3]).size <= 3 and cache.num_cached == 3
    assert cache.put(first[:3]).tolist() == [], "what lies in its slot already does not move"


def test_a_state_is_taken_over() -> None:
    rng = np.random.default_rng(2)
    one, other = FeatureCache(ROWS, 4, "lfu"), FeatureCache(ROWS, 4, "lfu")
    for _ in range(6):
        one.request(rng.integers(0, ROWS, 5))
    other.restore({name: array.copy() for name, array in one.state().items()})
    ids = rng.integers(0, ROWS, 30)
    assert one.request(ids).counts == other.request(ids).counts


def test_the_rows_asked_for_most_are_chosen() -> None:
    """Ties: the lowest id; never what nobody asked for."""
    counts = np.zeros(6, np.int64)
    for i, number in Counter([3, 3, 1, 4, 4]).items():
        counts[i] = number
    assert most_asked(counts, 2).tolist() == [3, 4]
    assert most_asked(counts, 6).tolist() == [3, 4, 1]
