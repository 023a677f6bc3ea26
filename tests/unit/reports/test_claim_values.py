"""Intervals of claims: over seeds, and of ratios whose sides share errors."""

from __future__ import annotations

import math

import pytest

from gnnbench_reports.claims.values import Value, difference, exact, noisy, pooled, ratio, sampled


def test_the_interval_of_a_mean_is_students() -> None:
    """Three samples with a standard deviation of 1: 2.92 / sqrt(3)."""
    found = sampled({0: 1.0, 1: 2.0, 2: 3.0})
    assert (found.value, found.high - found.value) == pytest.approx((2.0, 2.92 / math.sqrt(3)))
    same = pooled(2.0, 1.0, 3)
    assert (same.low, same.high) == pytest.approx((found.low, found.high))
    assert sampled({0: 0.5}) == Value(0.5, 0.5, 0.5, samples={0: 0.5})


def test_a_difference_is_taken_seed_by_seed_where_the_seeds_are_the_same() -> None:
    """Seeds differ by 0.1, sides by 0.02 throughout: the difference is known exactly."""
    a = sampled({0: 0.5, 1: 0.6, 2: 0.7})
    b = sampled({0: 0.52, 1: 0.62, 2: 0.72})
    found = difference(a, b)
    assert (found.low, found.value, found.high) == pytest.approx((-0.02, -0.02, -0.02))
    others = sampled({3: 0.52, 4: 0.62, 5: 0.72})
    assert difference(a, others).low < -0.15


def test_independent_errors_of_a_ratio_add_up_in_squares() -> None:
    found = ratio(noisy(2.0, 0.3), noisy(1.0, 0.4))
    assert found is not None and found.value == 2.0
    assert math.log(found.high / 2) == pytest.approx(math.hypot(math.log(1.3), math.log(1.4)))
    assert ratio(noisy(1.0, 0.1), Value(0.0, 0.0, 0.0)) is None


def test_errors_that_two_predictions_share_cancel_in_their_ratio() -> None:
    """One operation makes all of the error of both, and all of it is common."""
    both = Value(1.0, math.exp(-0.5), math.exp(0.5), causes={"spmm": 0.5})
    found = ratio(both, both)
    assert found is not None and (found.low, found.high) == pytest.approx((1.0, 1.0))
    less = Value(1.0, math.exp(-0.5), math.exp(0.5), causes={"spmm": 0.3})
    part = ratio(less, less)
    assert part is not None
    assert math.log(part.high) == pytest.approx(math.sqrt(2 * 0.25 - 2 * 0.09))
    other = ratio(both, Value(1.0, math.exp(-0.5), math.exp(0.5), causes={"gemm": 0.5}))
    assert other is not None and math.log(other.high) == pytest.approx(math.sqrt(0.5))


def test_what_is_not_known_has_no_value() -> None:
    assert exact(None) is None
