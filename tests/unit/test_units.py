"""Rates of events as people write them."""

from __future__ import annotations

import pytest

from gnnbench.errors import SpecError
from gnnbench.units import rate_per_s


@pytest.mark.parametrize(
    ("text", "per_s"),
    [
        ("579", 579.0),
        ("1e6", 1e6),
        ("2k/s", 2000.0),
        ("50M/day", 50e6 / 86400),
        ("1.5 b / h", 1.5e9 / 3600),
    ],
)
def test_a_rate_has_a_number_and_may_have_a_multiple_and_a_time(text: str, per_s: float) -> None:
    assert rate_per_s(text) == pytest.approx(per_s)


@pytest.mark.parametrize("text", ["", "0", "-5", "fast", "5/year", "50Q", "1e400", "nan", "1.2.3"])
def test_what_is_no_rate_above_zero_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(SpecError, match="expected a rate such as '579', '2k/s' or '50M/day'"):
        rate_per_s(text)
