"""Collectives inside a host: what tables say, between their points and beyond their devices."""

from __future__ import annotations

import numpy as np
import pytest

from gnnbench.costs.collective_tables import (
    collective_time,
    leave_devices_out,
    leave_ranks_out,
    leave_sizes_out,
    shipped_table,
)
from gnnbench.costs.devices import facts_of

A100, MIB = "A100-SXM4-80GB", 2.0**20


def test_a_measured_size_is_what_was_measured() -> None:
    found = collective_time(A100, "all_reduce", 8, 536870912)
    assert found is not None
    assert found.seconds == pytest.approx(4.226e-3, rel=1e-3)
    assert found.grade == "measured elsewhere"


def test_a_floor_stays_and_a_rate_goes_on_beyond_the_table() -> None:
    def at(size: float) -> float:
        found = collective_time(A100, "all_gather", 4, size)
        assert found is not None
        return found.seconds

    assert at(4) == at(512)
    assert at(4096 * MIB) == pytest.approx(8 * at(512 * MIB))


def test_a_floor_between_two_measured_counts_grows_with_the_steps_of_a_ring() -> None:
    two, four, eight = (collective_time("H100-SXM5-80GB", "all_gather", n, 64) for n in (2, 4, 8))
    assert two is not None and four is not None and eight is not None
    assert four.seconds == pytest.approx(two.seconds + (eight.seconds - two.seconds) * 2 / 6)
    assert four.grade == "transferred" and four.radius >= two.radius
    assert collective_time("H100-SXM5-80GB", "all_to_all", 16, MIB) is None


@pytest.mark.parametrize(
    ("device", "op", "share"),
    [
        ("H100-SXM5-80GB", "all_to_all", 2 / 3),  # (n - 1) / n: 0.5, 0.75, 0.875
        ("A100-SXM4-80GB", "all_reduce", 2 / 3),
    ],
)
def test_a_rate_between_two_measured_counts_goes_with_the_bytes_of_a_link(
    device: str, op: str, share: float
) -> None:
    table = shipped_table()
    table = table.without(ranks=4)
    name = next(d for d in table.devices() if facts_of(device) is facts_of(d))
    two, four, eight = (table.own(name, op, n, 512 * MIB) for n in (2, 4, 8))
    assert two is not None and four is not None and eight is not None
    low, middle, high = (np.exp(found[0]) for found in (two, four, eight))
    assert middle == pytest.approx(low + share * (high - low), rel=0.01)


def test_a_switch_that_adds_up_carries_a_buffer_once_and_its_share_again() -> None:
    """Two GPUs need no switch to add up; four of a Hopper send 1 + 1/4 buffers, eight 1 + 1/8."""
    four, eight = (collective_time("H100-SXM5-80GB", "all_reduce", n, 512 * MIB) for n in (4, 8))
    assert four is not None and eight is not None
    assert four.seconds == pytest.approx(eight.seconds * 1.25 / 1.125, rel=0.01)


def test_a_device_without_a_table_takes_its_own_generation_most() -> None:
    h100, h200 = (
        collective_time(d, "all_reduce", 8, 64.0) for d in ("H100-SXM5-80GB", "H200-SXM-141GB")
    )
    assert h100 is not None and h200 is not None
    assert h200.grade == "transferred"
    assert h200.seconds == pytest.approx(h100.seconds, rel=0.1)


def test_a_stated_link_rate_moves_the_curves_and_one_far_off_is_another_fabric() -> None:
    def at(rate: float) -> tuple[float, str] | None:
        found = collective_time(A100, "all_reduce", 8, 256 * MIB, rate)
        return None if found is None else (found.seconds, found.grade)

    as_measured, half = at(227.5e9), at(114e9)
    assert as_measured is not None and half is not None
    assert as_measured[1] == "measured elsewhere" and half[1] == "transferred"
    assert half[0] == pytest.approx(2 * as_measured[0], rel=0.06)
    assert at(3e9) is None


@pytest.mark.parametrize("device", ["V100-SXM2-32GB", "RTX4090", "an unknown GPU"])
def test_nothing_is_invented_where_no_other_host_has_such_a_fabric(device: str) -> None:
    assert collective_time(device, "all_reduce", 8, MIB) is None


def test_what_is_left_out_is_met() -> None:
    table = shipped_table()
    sizes = leave_sizes_out(table)
    assert max(j.median for j in sizes) < 0.06
    assert all(0.85 <= j.inside.mean() <= 0.97 for j in sizes)
    assert max(j.median for j in leave_ranks_out(table)) < 0.04
    assert max(j.median for j in leave_devices_out(table)) < 0.25


def test_a_floor_goes_with_what_a_load_waits_for_beyond_the_cache() -> None:
    """Nobody timed GB200 and B300 here; their loads wait as those of B200, or less."""
    b200, b300 = (collective_time(d, "all_gather", 8, 64) for d in ("B200", "B300"))
    a, b = facts_of("B200"), facts_of("B300")
    assert a is not None and b is not None and b200 is not None and b300 is not None
    assert a.memory_latency_s is not None and a.cache_latency_s is not None
    assert b.memory_latency_s is not None and b.cache_latency_s is not None
    waits = (b.memory_latency_s - b.cache_latency_s) / (a.memory_latency_s - a.cache_latency_s)
    assert b300.seconds / b200.seconds == pytest.approx(waits, rel=0.05)
