"""The page model of `mmap`: pages of rows, LRU, and what is expected from degrees alone."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnnbench.approaches.base import Layout, example
from gnnbench.approaches.out_of_core.mmap import APPROACH
from gnnbench.approaches.out_of_core.pages import AccessProfile, PageCache, PagedRows
from gnnbench.data.profile import profile
from gnnbench.data.source import Library
from gnnbench.plan import Plan
from gnnbench.steps import Kind, Phase, Space

PAGE = 4096
LAYOUT = Layout(world_size=1, ranks_per_host=1)


@given(
    row_bytes=st.integers(1, 3 * PAGE),
    ids=st.lists(st.integers(0, 60), unique=True).map(sorted),
)
def test_pages_are_those_that_hold_a_byte_of_a_row(row_bytes: int, ids: list[int]) -> None:
    rows = PagedRows(num_rows=61, row_bytes=row_bytes)
    wanted = {byte // PAGE for i in ids for byte in (i * row_bytes, (i + 1) * row_bytes - 1)}
    wanted |= {
        page
        for i in ids
        for page in range(i * row_bytes // PAGE, ((i + 1) * row_bytes - 1) // PAGE + 1)
    }
    found = rows.pages(np.array(ids, np.int64))
    assert found.tolist() == sorted(wanted)
    assert found.max(initial=0) < rows.num_pages <= rows.file_bytes // PAGE


def test_a_page_has_parts_of_so_many_rows() -> None:
    """Counted over a period after which rows and pages begin at the same byte again."""
    for row_bytes in (56, 400, 4096, 4800):
        pages = np.lcm(row_bytes, PAGE) // PAGE
        rows = PagedRows(num_rows=pages * PAGE // row_bytes, row_bytes=row_bytes)
        every = [rows.pages(np.array([i])) for i in range(rows.num_rows)]
        assert rows.rows_per_page == pytest.approx(sum(map(len, every)) / pages)


@given(
    batches=st.lists(
        st.lists(st.integers(0, 19), unique=True, min_size=1).map(sorted), min_size=1, max_size=8
    ),
    capacity=st.integers(0, 22),
)
def test_the_cache_is_lru(batches: list[list[int]], capacity: int) -> None:
    cache, known = PageCache(capacity, 20), OrderedDict[int, None]()
    for pages in batches:
        faults = cache.touch(np.array(pages, np.int64))
        assert faults.missed.tolist() == [page for page in pages if page not in known]
        for page in pages:
            known.pop(page, None)
            known[page] = None
        gone = [known.popitem(last=False)[0] for _ in range(max(len(known) - capacity, 0))]
        assert faults.dropped.tolist() == sorted(gone)
        assert np.flatnonzero(cache.last_use >= 0).tolist() == sorted(known)


def test_a_restored_cache_goes_on_as_the_other() -> None:
    first, second = PageCache(3, 9), PageCache(3, 9)
    first.touch(np.array([1, 4, 5, 7]))
    first.touch(np.array([0, 5]))
    second.restore(first.last_use.copy())
    for pages in ([2, 5], [4, 7], [0, 1]):
        found, wanted = (cache.touch(np.array(pages)) for cache in (first, second))
        assert found.missed.tolist() == wanted.missed.tolist()
        assert found.dropped.tolist() == wanted.dropped.tolist()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.4, 0.9])
def test_expected_faults_are_near_those_of_independent_draws(share: float) -> None:
    """Che's approximation against draws, whose rows are used with unlike chances."""
    rng = np.random.default_rng(3)
    paged = PagedRows(num_rows=8000, row_bytes=512)
    classes = AccessProfile(rows=np.array([6000.0, 2000.0]), chance=np.array([0.01, 0.15]))
    chance = rng.permutation(np.repeat(classes.chance, classes.rows.astype(int)))
    cache = PageCache(int(share * paged.num_pages), paged.num_pages)
    pages = [paged.pages(np.flatnonzero(rng.random(8000) < chance)) for _ in range(60)]
    counted = [len(cache.touch(touched).missed) for touched in pages]
    age = classes.age(paged, cache.capacity)
    expected = [classes.missed(paged, age, before) for before in range(60)]
    assert sum(expected) == pytest.approx(sum(counted), rel=0.05)
    assert expected[0] == pytest.approx(classes.touched(paged))
    assert expected[0] == pytest.approx(np.mean([len(touched) for touched in pages]), rel=0.02)


def planned(cache: float, *, known: bool, epochs: int = 3) -> Plan:
    run = example(
        "mmap",
        1,
        batch={"size": 64, "fanouts_from_seeds": (5, 3)},
        knobs={"cache": cache},
        training={"epochs": epochs},
        options={"num_nodes": 4000, "num_features": 96, "train_fraction": 0.1},
    )
    data = Library([]).open(run.dataset)
    facts = data if known else profile(data, parts=())
    plan = APPROACH.plan(facts, run, APPROACH.structure(facts, run), LAYOUT)
    plan.validate()
    return plan


@pytest.mark.parametrize("cache", [0.0, 0.25, 1.0])
def test_faults_expected_from_a_profile_are_near_the_counted_ones(cache: float) -> None:
    counted, expected = planned(cache, known=True), planned(cache, known=False)
    assert counted.counted and not expected.counted
    read = Kind.READ, Phase.FETCH
    found = [
        sum(plan.moved_bytes(period).get(read, 0) for period in range(3))
        for plan in (counted, expected)
    ]
    assert found[1] == pytest.approx(found[0], rel=0.12)
    assert expected.periods == counted.periods


def test_an_unbounded_cache_reads_each_page_once() -> None:
    plan = planned(1.0, known=True)
    total = sum(plan.moved_bytes(p).get((Kind.READ, Phase.FETCH), 0) for p in range(3))
    assert total <= 4096 * plan.notes["pages"]
    small, large = (planned(share, known=True).peak_bytes(Space.HOST)[0] for share in (0.0, 1.0))
    assert large - small > 0.5 * 4000 * 96 * 8


def test_epochs_that_were_not_drawn_repeat_the_last_one() -> None:
    plan = planned(0.25, known=False, epochs=5)
    assert len(plan.schedule) == 5 * plan.periods[0]
    warm = [plan.moved_bytes(period)[Kind.READ, Phase.FETCH] for period in (1, 2, 4)]
    assert len(set(warm)) == 1
    assert warm[0] < plan.moved_bytes(0)[Kind.READ, Phase.FETCH]


def test_it_refuses_with_a_reason() -> None:
    run = example("mmap", 2)
    assert "one rank" in (APPROACH.cannot_run(run) or "")
    single = dataclasses.replace(run, ranks=1)
    data = Library([]).open(run.dataset)
    bare = dataclasses.replace(data, train_mask=np.zeros(data.num_nodes, bool))
    assert "no training vertices" in (APPROACH.cannot_run(single, bare) or "")


def test_a_profile_of_papers_size_is_planned_in_seconds() -> None:
    import time

    from gnnbench.data.profile import GraphProfile

    papers = GraphProfile(
        name="papers100m",
        source="out-of-core reference, section 12",
        status="published",
        num_nodes=111_059_956,
        num_edges=1_615_685_872,
        num_features=128,
        num_classes=172,
        num_train=1_207_179,
        degree_spread=1.5,
    )
    run = example(
        "mmap",
        1,
        model={"kind": "sage", "hidden": 256, "layers": 3},
        batch={"size": 1000, "fanouts_from_seeds": (15, 10, 5)},
        training={"epochs": 3, "precision": "float32"},
        knobs={"cache": 0.1},
    )
    began = time.process_time()
    plan = APPROACH.plan(papers, run, APPROACH.structure(papers, run), LAYOUT)
    plan.validate()
    assert len(plan.iterations) < 100 < len(plan.schedule)
    read = plan.moved_bytes(2)[Kind.READ, Phase.FETCH]
    # Eight rows of 512 bytes share a page: far more bytes than are asked for, and no more than
    # a page for every row.
    steps = [step for it in plan.of_period(2) for step in it[0] if step.name == "fetch/gather"]
    rows = sum(int(step.work.rows) for step in steps)
    assert 2 * 512 * rows < read <= 4096 * rows
    assert time.process_time() - began < 10
