"""Two engines in a pipeline: recurrence = SimPy = closed form, Johnson's order, chunk counts.

FG-62, FG-63.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnnbench_simulator.pipeline import (
    best_chunks,
    closed_form,
    johnson,
    lower_bound,
    pipeline,
    shared_pipeline,
    simulate,
)

times = st.floats(0, 10, allow_nan=False, width=32)
jobs = st.lists(st.tuples(times, times), min_size=1, max_size=12)


def arrays(pairs: list[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


@given(jobs, times, st.integers(1, 14))
@settings(max_examples=150, deadline=None)
def test_the_recurrence_equals_simpy(
    pairs: list[tuple[float, float]], carry: float, slots: int
) -> None:
    """FG-62: chunk by chunk, for any number of buffers and any link."""
    a, u = arrays(pairs)
    link = np.full(len(a), carry)
    fast, slow = pipeline(a, link, u, slots), simulate(a, link, u, slots)
    for ours, theirs in (
        (fast.producer_s, slow.producer_s),
        (fast.link_s, slow.link_s),
        (fast.consumer_s, slow.consumer_s),
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


@given(jobs)
@settings(max_examples=150, deadline=None)
def test_with_buffers_enough_the_makespan_is_the_closed_form(
    pairs: list[tuple[float, float]],
) -> None:
    """FG-62: and it lies between the larger sum and the sum of sums, above the lower bound."""
    a, u = arrays(pairs)
    span = pipeline(a, np.zeros(len(a)), u, len(a)).makespan_s
    assert span == pytest.approx(closed_form(a, u), abs=1e-9)
    assert max(a.sum(), u.sum()) - 1e-9 <= span <= a.sum() + u.sum() + 1e-9
    assert span >= lower_bound(a, u) - 1e-9


def test_uniform_chunks_take_what_the_reference_says() -> None:
    a, u, k = 2.0, 3.0, 5
    span = pipeline(np.full(k, a), np.zeros(k), np.full(k, u), k).makespan_s
    assert span == pytest.approx(a + u + (k - 1) * max(a, u))


@given(jobs, st.integers(2, 5))
@settings(max_examples=150, deadline=None)
def test_finer_chunks_never_hurt_without_overhead(
    pairs: list[tuple[float, float]], parts: int
) -> None:
    """FG-62: every chunk cut into equal parts."""
    a, u = arrays(pairs)
    coarse = closed_form(a, u)
    fine = closed_form(np.repeat(a / parts, parts), np.repeat(u / parts, parts))
    assert fine <= coarse + 1e-9


@given(jobs)
@settings(max_examples=200, deadline=None)
def test_johnsons_order_is_never_worse(pairs: list[tuple[float, float]]) -> None:
    """FG-63."""
    a, u = arrays(pairs)
    order = johnson(a, u)
    assert sorted(order) == list(range(len(a)))
    assert closed_form(a[order], u[order]) <= closed_form(a, u) + 1e-9


@given(st.lists(st.tuples(times, times), min_size=2, max_size=5))
@settings(max_examples=60, deadline=None)
def test_johnsons_order_is_the_best_of_all(pairs: list[tuple[float, float]]) -> None:
    from itertools import permutations

    a, u = arrays(pairs)
    order = johnson(a, u)
    best = min(closed_form(a[list(p)], u[list(p)]) for p in permutations(range(len(a))))
    assert closed_form(a[order], u[order]) == pytest.approx(best, abs=1e-9)


def test_rising_work_goes_first_towards_a_constant_consumer() -> None:
    """Ascending degree is Johnson's order when dense time per chunk is constant."""
    a, u = np.array([5.0, 1.0, 3.0, 0.5]), np.full(4, 6.0)
    assert johnson(a, u).tolist() == [3, 1, 2, 0]
    assert johnson(u, a).tolist() == [0, 2, 1, 3]


def test_one_buffer_is_the_serial_order() -> None:
    a, u = np.array([1.0, 2.0, 3.0]), np.array([2.0, 1.0, 4.0])
    assert pipeline(a, np.zeros(3), u, 1).makespan_s == pytest.approx(13.0)


def test_the_best_chunk_count_minimises_the_closed_form() -> None:
    """Section 10: T(K) = max + min / K + (K + 1) o."""
    large, small, overhead = 9.0, 4.0, 0.01
    counts = np.arange(1, 200)
    total = large + small / counts + (counts + 1) * overhead
    assert best_chunks(large, small, overhead, 200) == counts[total.argmin()]
    assert best_chunks(1.0, 1.0, 0.0, 77) == 77


def test_a_hundred_thousand_chunks_are_fast() -> None:
    """A scan where buffers suffice, one short loop where they do not."""
    from time import perf_counter

    rng = np.random.default_rng(0)
    a, u = rng.random(100_000), rng.random(100_000)
    begun = perf_counter()
    pipeline(a, np.zeros_like(a), u, len(a))
    pipeline(a, np.zeros_like(a), u, 2)
    assert perf_counter() - begun < 2.0


@given(jobs, times, st.integers(1, 14))
@settings(max_examples=100, deadline=None)
def test_a_shared_memory_that_nobody_fills_changes_nothing(
    pairs: list[tuple[float, float]], carry: float, slots: int
) -> None:
    a, u = arrays(pairs)
    link, half = np.full(len(a), carry), np.full(len(a), 0.5)
    ends, first, second = shared_pipeline(a, link, u, half, half, slots)
    alone = pipeline(a, link, u, slots)
    np.testing.assert_allclose(ends.producer_s, alone.producer_s, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(ends.consumer_s, alone.consumer_s, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(first, a, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(second, u, rtol=1e-6, atol=1e-6)


@given(jobs, st.integers(1, 14))
@settings(max_examples=100, deadline=None)
def test_two_engines_that_both_need_the_whole_memory_gain_nothing(
    pairs: list[tuple[float, float]], slots: int
) -> None:
    """Work is conserved: neither lost nor gained by sharing fairly."""
    a, u = arrays(pairs)
    one = np.ones(len(a))
    ends, _, _ = shared_pipeline(a, np.zeros(len(a)), u, one, one, slots)
    assert ends.makespan_s == pytest.approx(a.sum() + u.sum(), rel=1e-6, abs=1e-6)


def test_fair_sharing_worked_by_hand() -> None:
    """Chunk 2 of the producer and chunk 1 of the consumer want 1.0 and 0.5 of the memory."""
    a, u = np.array([2.0, 2.0]), np.array([2.0, 2.0])
    needs = np.array([1.0, 1.0]), np.array([0.5, 0.5])
    ends, first, second = shared_pipeline(a, np.zeros(2), u, *needs, 2)
    # The producer runs at half speed beside the consumer from 2 to 4, then alone from 4 to 5.
    assert ends.producer_s.tolist() == [2.0, 5.0]
    assert ends.consumer_s.tolist() == [4.0, 7.0]
    assert first.tolist() == [2.0, 3.0]
    assert second.tolist() == [2.0, 2.0]
