"""The temporal store and its sampler against sorted lists: invariants S1-S9 and D2.

Source: temporal reference section 16.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnnbench.data.negatives import draw_negatives
from gnnbench.data.synthetic_stream import synthetic_stream
from gnnbench.data.temporal_sampling import TemporalSampler
from gnnbench.data.temporal_store import TemporalStore, block_of
from gnnbench.errors import DataError

NODES = 5
Edge = tuple[int, int, int]
"""Neighbour, time, event."""


class SortedLists:
    """The oracle: a list per vertex."""

    def __init__(self) -> None:
        self.of: list[list[Edge]] = [[] for _ in range(NODES)]

    def insert(self, u: int, v: int, t: int, event: int) -> None:
        self.of[u].append((v, t, event))
        self.of[v].append((u, t, event))

    def expire(self, before: int) -> None:
        self.of = [[e for e in edges if e[1] >= before] for edges in self.of]

    def seen(self, v: int, t: int, window: int = 0) -> list[Edge]:
        return [e for e in self.of[v] if e[1] < t and (not window or e[1] >= t - window)]


def rows(hop: object, query: int) -> list[Edge]:
    part = slice(hop.indptr[query], hop.indptr[query + 1])  # type: ignore[attr-defined]
    columns = (hop.neighbours, hop.times, hop.events)  # type: ignore[attr-defined]
    return list(zip(*(c[part].tolist() for c in columns), strict=True))


def ask(store: TemporalStore, strategy: str, fanout: int, t: int, window: int = 0) -> list:
    """What every vertex sees at a time."""
    sampler = TemporalSampler(store, (fanout,), strategy, 3, window=window)
    nodes = np.arange(NODES, dtype=np.int64)
    hop = sampler.sample(nodes, np.full(NODES, t, np.int64), 17).hops[0]
    assert (hop.deltas > 0).all()
    return [rows(hop, v) for v in range(NODES)]


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("insert"),
            st.lists(st.tuples(*[st.integers(0, NODES - 1)] * 2, st.integers(0, 3)), max_size=40),
        ),
        st.tuples(st.just("expire"), st.integers(0, 12)),
        st.tuples(st.just("ask"), st.tuples(st.integers(-3, 3), st.integers(0, 9))),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(STEPS, st.sampled_from([(1, 1), (1, 4), (2, 8), (4, 4)]))
def test_it_is_a_sorted_list_per_vertex(steps: list, sizes: tuple[int, int]) -> None:
    """S1-S3, S5, S6: any interleaving of insert, expire and sample; ties and self loops."""
    store, lists = TemporalStore(NODES, first=sizes[0], block=sizes[1]), SortedLists()
    now, count = -4, 0
    for kind, what in steps:
        if kind == "insert":
            times = now + np.cumsum([gap for _, _, gap in what], dtype=np.int64)
            ends = np.array([pair[:2] for pair in what], np.int32).reshape(-1, 2)
            store.insert(ends[:, 0], ends[:, 1], times, count)
            for (u, v, _), t in zip(what, times.tolist(), strict=True):
                lists.insert(u, v, t, count)
                count += 1
            now = int(times[-1]) if len(times) else now
        elif kind == "expire":
            for _ in range(2):  # S6: idempotent
                store.expire(now - what)
            lists.expire(now - what)
        else:
            t, window = now + what[0], what[1]
            recent = ask(store, "recent", 3, t, window)
            uniform = ask(store, "uniform", 3, t, window)
            for v in range(NODES):
                seen = lists.seen(v, t, window)
                assert recent[v] == seen[::-1][:3]
                assert len(uniform[v]) == min(3, len(seen))
                # A self loop is stored twice, under one event.
                assert all(uniform[v].count(e) <= seen.count(e) for e in uniform[v])
        assert store.degrees().tolist() == [len(edges) for edges in lists.of]
        owned = [b for v in range(NODES) for b in store.blocks(v)]
        slots = [a + k for a, size in owned for k in range(size)]
        assert len(slots) == len(set(slots)), "a slot is owned twice"


def test_blocks_double_and_then_stay() -> None:
    """S5: 4, 8 ... 256, 256: the golden values of section 3.2."""
    assert [block_of(p, 4, 256) for p in (0, 3, 4, 11, 12, 251, 252, 507, 508)] == [
        0,
        0,
        1,
        1,
        2,
        5,
        6,
        6,
        7,
    ]
    store = TemporalStore(2)
    many = 600
    zero = np.zeros(many, np.int32)
    store.insert(zero, zero + 1, np.arange(many, dtype=np.int64), 0)
    assert [size for _, size in store.blocks(0)] == [4, 8, 16, 32, 64, 128, 256, 256]


def test_a_stream_in_pieces_is_the_stream_at_once() -> None:
    """S7, S8, S9: answers and bytes; times are int64, a second apart at 1.7e9 too."""
    stream = synthetic_stream(30, 900, seed=2, mean_gap=2)
    times = stream.times + 1_700_000_000
    whole, pieces = TemporalStore(30), TemporalStore(30)
    whole.insert(stream.sources, stream.destinations, times, 0)
    for a, b in ((0, 1), (1, 400), (400, 400), (400, 900)):
        pieces.insert(stream.sources[a:b], stream.destinations[a:b], times[a:b], a)
    nodes, when = np.arange(30, dtype=np.int64), np.full(30, times[600], np.int64)
    found = [
        TemporalSampler(s, (4, 3), "uniform", 5).sample(nodes, when, 1) for s in (whole, pieces)
    ]
    for name in ("nodes", "times"):
        np.testing.assert_array_equal(*(getattr(f, name) for f in found))
    assert found[0].times.dtype == np.int64 and (found[0].times[30:] < times[600]).all()
    assert whole.num_bytes == pieces.num_bytes and whole.tops.tolist() == pieces.tops.tolist()
    held = [getattr(part, "array", part) for part in vars(whole).values()]
    arrays = [part for part in held if isinstance(part, np.ndarray)]
    small = whole.tops.nbytes + whole.free.nbytes
    assert whole.num_bytes == sum(a.nbytes for a in arrays) - small
    hidden = TemporalSampler(whole, (50,), "recent", 5).sample(nodes, when, before_event=300)
    assert int(hidden.hops[0].events.max()) == 299
    since = int(times[200])
    left = TemporalSampler(whole, (50,), "recent", 5).sample(nodes, when, since=since)
    whole.expire(since)
    again = TemporalSampler(whole, (50,), "recent", 5).sample(nodes, when)
    np.testing.assert_array_equal(left.hops[0].events, again.hops[0].events)


def test_what_is_late_is_refused() -> None:
    store = TemporalStore(3)
    store.insert(np.array([0]), np.array([1]), np.array([10]), 0)
    with pytest.raises(DataError, match="event 1 at 9 is older"):
        store.insert(np.array([1]), np.array([2]), np.array([9]), 1)
    store.expire(20)
    with pytest.raises(DataError, match="expired"):
        store.insert(np.array([2]), np.array([2]), np.array([19]), 1)


def test_a_refused_batch_leaves_no_trace() -> None:
    """Its last event is late for one of its ends; those before it are not inserted either."""
    store = TemporalStore(40)
    store.insert(np.array([0, 1]), np.array([1, 2]), np.array([10, 20]), 0)
    before = store.degrees().tolist(), store.tops.tolist()
    with pytest.raises(DataError, match="event 3 at 15 is older"):
        store.insert(np.array([3, 2]), np.array([4, 0]), np.array([30, 15]), 2)
    assert (store.degrees().tolist(), store.tops.tolist()) == before
    # Order is per vertex: an event may be older than those of other vertices.
    store.insert(np.array([3]), np.array([4]), np.array([5]), 2)
    assert store.degrees()[3] == 1


def test_bytes_do_not_depend_on_the_batches() -> None:
    """S7, S9: few vertices of many, and many of few, are counted in different ways."""
    rng = np.random.default_rng(3)
    ends = (rng.random((2, 5000)) ** 3 * 700).astype(np.int32)
    times = np.arange(5000, dtype=np.int64) // 3
    stores = []
    for step in (17, 400, 5000):
        store = TemporalStore(700, first=2, block=32)
        for at in range(0, 5000, step):
            part = slice(at, at + step)
            store.insert(ends[0, part], ends[1, part], times[part], at)
        stores.append(store)
    assert len({store.num_bytes for store in stores}) == 1
    assert len({tuple(store.tops.tolist()) for store in stores}) == 1
    capacities = sum(size for v in range(700) for _, size in stores[0].blocks(v))
    assert stores[0].tops[0] == capacities and stores[0].num_edges == 10_000
    found = [
        TemporalSampler(store, (9,), "uniform", 2).sample(np.arange(700), np.full(700, 1500))
        for store in stores
    ]
    for other in found[1:]:
        np.testing.assert_array_equal(found[0].hops[0].events, other.hops[0].events)


def test_a_sliding_window_needs_no_more_room() -> None:
    """S6: what expires is given out again."""
    store = TemporalStore(4, first=2, block=8)
    rng = np.random.default_rng(0)
    sizes = []
    for step in range(60):
        ends = rng.integers(0, 4, (2, 50)).astype(np.int32)
        store.insert(*ends, np.arange(50, dtype=np.int64) + 50 * step, 50 * step)
        store.expire(50 * step - 100)
        sizes.append(int(store.tops[0]))
    assert sizes[-1] <= 1.1 * sizes[10]


def test_uniform_picks_are_unbiased() -> None:
    """S4: chi-square of positions over many seeds, across the borders of blocks."""
    store, edges, seeds = TemporalStore(2, first=4, block=16), 30, 3000
    zero = np.zeros(edges, np.int32)
    store.insert(zero, zero + 1, np.arange(edges, dtype=np.int64), 0)
    counts = np.zeros(edges)
    one = np.zeros(1, np.int64)
    for seed in range(seeds):
        hop = TemporalSampler(store, (5,), "uniform", seed).sample(one, one + edges).hops[0]
        counts[hop.events] += 1
    expected = seeds * 5 / edges
    # The .999 quantile of chi-square with 29 degrees of freedom.
    assert ((counts - expected) ** 2 / expected).sum() * edges / (edges - 5) < 58.3


def test_a_sample_does_not_depend_on_who_else_asks() -> None:
    """D2: alone, in another order, in parts."""
    stream = synthetic_stream(20, 800, seed=1)
    store = TemporalStore(20)
    store.insert(stream.sources, stream.destinations, stream.times, 0)
    sampler = TemporalSampler(store, (4,), "uniform", 9)
    nodes, times = np.asarray(stream.sources[700:], np.int64), stream.times[700:]
    whole = sampler.sample(nodes, times, 2).hops[0]
    for q in (0, 37, 99):
        alone = sampler.sample(nodes[q : q + 1], times[q : q + 1], 2).hops[0]
        assert rows(alone, 0) == rows(whole, q)
    assert whole.slots(4).max() < 400 and len(set(whole.slots(4).tolist())) == whole.num_edges


def test_negatives_are_none_of_the_true_ones() -> None:
    """E2, with ties; and the same for any share of the events."""
    stream = synthetic_stream(12, 400, bipartite=True, burst=0.9, seed=4)
    events = np.arange(400, dtype=np.int64)
    found = draw_negatives(stream, events, 3, 1, 2)
    low, high = stream.destination_range()
    assert found.min() >= low and found.max() < high
    true = set(
        zip(
            stream.sources.tolist(),
            stream.destinations.tolist(),
            stream.times.tolist(),
            strict=True,
        )
    )
    for event, row in enumerate(found.tolist()):
        for v in row:
            assert (int(stream.sources[event]), v, int(stream.times[event])) not in true
    np.testing.assert_array_equal(draw_negatives(stream, events[50:60], 3, 1, 2), found[50:60])
