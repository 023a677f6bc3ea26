"""Numbers are written with the digits that their spread supports."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnnbench_reports import numbers


@pytest.mark.parametrize(
    ("value", "spread", "written"),
    [
        (0.5317, 0.03, "530 ms"),
        (0.5317, 0.008, "532 ms"),
        (1.2345, 0.0, "1.234 s"),
        (0.0000123, 0.2, "12 µs"),
        (0.0000123, None, "12.3 µs"),
        (None, 0.1, "–"),
    ],
)
def test_seconds_stop_at_the_digit_that_the_spread_makes_uncertain(
    value: float | None, spread: float | None, written: str
) -> None:
    assert numbers.seconds(value, spread) == written


@given(st.floats(1e-9, 1e9), st.floats(1e-4, 1.0))
def test_rounding_moves_a_number_by_less_than_its_uncertainty_or_a_thousandth(
    value: float, relative: float
) -> None:
    kept = float(numbers.rounded(value, value * relative))
    first = 10.0 ** math.floor(math.log10(value))
    assert abs(kept - value) <= max(value * relative, first / 1000) * 0.5 * (1 + 1e-6)


def test_an_interval_is_written_in_one_unit() -> None:
    assert numbers.interval(0.79, 1.16) == "790 … 1160 ms"


def test_percent_gives_tenths_only_for_tiny_spreads_and_no_negative_zero() -> None:
    assert numbers.percent(0.1234, 0.03, signed=True) == "+12 %"
    assert numbers.percent(0.1234, 0.001) == "12.3 %"
    assert numbers.percent(-0.001) == "0 %"


def test_sizes_have_three_digits_and_counts_have_all() -> None:
    assert numbers.size(3 * 2**20 + 2**19) == "3.50 MiB"
    assert numbers.size(512) == "512 B"
    assert numbers.whole(1_234_567) == "1,234,567"
