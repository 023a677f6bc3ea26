"""Ginex' cache and its reads: invariants 11 and 13 of the out-of-core reference, section 15."""

from __future__ import annotations

import itertools
from collections import OrderedDict

import numpy as np
import pytest

from gnnbench.approaches.base import Layout, example
from gnnbench.approaches.out_of_core.belady import APPROACH, REQUEST_BYTES, Read
from gnnbench.approaches.out_of_core.caching import AlignedRows
from gnnbench.approaches.out_of_core.storage import DISK_BLOCK
from gnnbench.data.caching import inspect, superbatches
from gnnbench.data.profile import profile
from gnnbench.data.source import Library
from gnnbench.plan import Plan
from gnnbench.steps import Ints, Kind, Space


def trace(seed: int, rows: int, batches: int, size: int) -> list[Ints]:
    rng = np.random.default_rng(seed)
    return [rng.choice(rows, size, replace=False).astype(np.int64) for _ in range(batches)]


def reads(batches: list[Ints], capacity: int, rows: int) -> int:
    made = inspect(batches, capacity, rows)
    return len(made.initial) + sum(len(turn.misses) for turn in made.turns)


def fewest(batches: list[Ints], capacity: int) -> int:
    """Over all policies with bypass: a cache may keep any of what it holds and what was used."""
    best: dict[frozenset[int], int] = {frozenset(): 0}
    for ids in batches:
        used = frozenset(ids.tolist())
        found: dict[frozenset[int], int] = {}
        for cached, cost in best.items():
            total = cost + len(used - cached)
            held = sorted(cached | used)
            for kept in itertools.combinations(held, min(capacity, len(held))):
                key = frozenset(kept)
                found[key] = min(found.get(key, total), total)
        best = found
    return min(best.values())


def lru(batches: list[Ints], capacity: int) -> int:
    cache: OrderedDict[int, None] = OrderedDict()
    missed = 0
    for ids in batches:
        missed += sum(int(i) not in cache for i in ids)
        for i in ids.tolist():
            cache.pop(i, None)
            cache[i] = None
            if len(cache) > capacity:
                cache.popitem(last=False)
    return missed


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("capacity", [0, 1, 2, 3])
def test_no_policy_reads_fewer_rows(seed: int, capacity: int) -> None:
    batches = trace(seed, 7, 5, 3)
    assert reads(batches, capacity, 7) == fewest(batches, capacity)


@pytest.mark.parametrize("capacity", [0, 10, 60, 200])
def test_the_cache_is_never_worse_than_others_and_never_too_large(capacity: int) -> None:
    batches, rows = trace(1, 200, 30, 40), 200
    made = inspect(batches, capacity, rows)
    counts = np.bincount(np.concatenate(batches), minlength=rows)
    popular = np.argsort(-counts)[:capacity]
    static = len(popular) + int(counts.sum() - counts[popular].sum())
    found = reads(batches, capacity, rows)
    assert found <= lru(batches, capacity)
    assert found <= static
    cached = set(made.initial.tolist())
    for ids, turn in zip(batches, made.turns, strict=True):
        assert set(turn.misses.tolist()) == set(ids.tolist()) - cached
        assert set(turn.inserted.tolist()) <= set(turn.misses.tolist())
        assert set(turn.evicted.tolist()) <= cached
        cached = (cached - set(turn.evicted.tolist())) | set(turn.inserted.tolist())
        assert len(cached) <= capacity
    if capacity == rows:
        assert found == len(np.unique(np.concatenate(batches)))


@pytest.mark.parametrize(
    ("row_bytes", "stride"), [(1, 1), (56, 64), (400, 512), (512, 512), (4096, 4096), (4100, 8192)]
)
def test_no_row_straddles_more_blocks_than_it_must(row_bytes: int, stride: int) -> None:
    """Invariant 13: a row read alone costs exactly its blocks."""
    rows = AlignedRows(num_rows=5000, row_bytes=row_bytes)
    assert rows.stride == stride
    blocks = -(-row_bytes // DISK_BLOCK) * DISK_BLOCK
    for row in (0, 7, 4999):
        [[start, stop]], [place] = (part.tolist() for part in rows.spans(np.array([row])))
        assert stop - start == blocks
        assert start + place * stride == row * stride
        assert stop <= rows.file_bytes


def test_rows_of_one_block_are_one_request_and_neighbours_too() -> None:
    rows = AlignedRows(num_rows=5000, row_bytes=512)  # eight rows in a block
    spans, places = rows.spans(np.array([0, 3, 9, 100, 101]))
    assert spans.tolist() == [[0, 8192], [12 * 4096, 13 * 4096]]
    assert places.tolist() == [0, 3, 9, 16 + 4, 16 + 5]
    assert len(rows.spans(np.empty(0, np.int64))[0]) == 0


def test_a_larger_cache_reads_less_and_holds_more() -> None:
    batch = {"size": 16, "fanouts_from_seeds": (4, 3)}
    found = []
    for cache in (0.0, 0.3, 1.0):
        run = example(
            "belady",
            1,
            batch=batch,
            knobs={"cache": cache, "superbatch": 4},
            options={"num_features": 512},
        )
        data = Library([]).open(run.dataset)
        structure = APPROACH.structure(data, run)
        plan = APPROACH.plan(data, run, structure, Layout(world_size=1, ranks_per_host=1))
        plan.validate()
        read = sum(size for (kind, _), size in plan.moved_bytes(0).items() if kind == Kind.READ)
        held = next(buffer.bytes for buffer in plan.resident if buffer.name == "cache")
        assert held == int(cache * 90) * 512 * 8
        assert plan.peak_bytes(Space.HOST)[0] > held
        found.append(read)
    assert found[0] > found[1] >= found[2] > 0
    assert APPROACH.cannot_run(run, profile(data, parts=())) is None


def planned(cache: float, *, known: bool) -> Plan:
    run = example(
        "belady",
        1,
        batch={"size": 64, "fanouts_from_seeds": (5, 3)},
        knobs={"cache": cache, "superbatch": 16},
        training={"epochs": 2},
        options={"num_nodes": 20_000, "num_features": 96, "train_fraction": 0.1},
    )
    data = Library([]).open(run.dataset)
    facts = data if known else profile(data, parts=())
    layout = Layout(world_size=1, ranks_per_host=1)
    plan = APPROACH.plan(facts, run, APPROACH.structure(facts, run), layout)
    plan.validate()
    return plan


@pytest.mark.parametrize("cache", [0.0, 0.1, 0.5])
def test_reads_expected_from_a_profile_are_near_the_counted_ones(cache: float) -> None:
    counted, expected = planned(cache, known=True), planned(cache, known=False)
    assert counted.counted and not expected.counted
    assert expected.periods == counted.periods
    found = [
        sum(size for (kind, _), size in plan.moved_bytes(1).items() if kind == Kind.READ)
        for plan in (counted, expected)
    ]
    assert found[1] == pytest.approx(found[0], rel=0.15)


def test_rows_that_lie_apart_are_requests_of_a_block_each() -> None:
    rows = AlignedRows(num_rows=1_000_000, row_bytes=512)  # eight rows in a block
    few = Read.apart(rows, 100, rows.num_rows)
    assert (few.requests, few.bytes) == (100, 100 * DISK_BLOCK)
    ids = np.sort(np.random.default_rng(0).choice(rows.num_rows, 60_000, replace=False))
    many, drawn = Read.apart(rows, 60_000, rows.num_rows), Read.of(rows, ids)
    assert many.bytes == pytest.approx(drawn.bytes, rel=0.02)
    assert many.requests == pytest.approx(drawn.requests, rel=0.02)
    assert Read.apart(rows, 0, rows.num_rows) == Read(rows=0, requests=0, bytes=0)


def test_superbatches_cover_an_epoch() -> None:
    assert [list(numbers) for numbers in superbatches(7, 3)] == [[0, 1, 2], [3, 4, 5], [6]]


def test_inspecting_holds_no_more_than_the_plan_says() -> None:
    """Traced: what grows with the cache, and objects of requests that read single blocks."""
    import sys
    import tracemalloc

    batches, rows, capacity = trace(2, 40_000, 4, 9000), 40_000, 20_000
    inspect(batches, capacity, rows)
    tracemalloc.start()
    inspect(batches, capacity, rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    uses, largest = 4 * 9000, 9000
    planned = 4 * 8 * uses + 5 * 8 * (capacity + largest) + (2 * 8 + 2) * rows
    assert peak <= planned
    assert peak > planned / 2
    view = np.empty(8192, np.uint8)[:4096]
    number = sys.getsizeof(2**40) + 8
    assert sys.getsizeof(view) + sys.getsizeof((view, 0)) + 3 * number + 8 == REQUEST_BYTES
