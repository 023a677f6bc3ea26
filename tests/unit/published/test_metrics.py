"""Metrics of rows: which can be predicted, in which units, and what ledgers say of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from published_cases import row

from gnnbench.ledger import Row
from gnnbench.published.metrics import TIMES, check_metric, si_value, time_of
from gnnbench.published.reason import NotModelled


def step(kind: str, phase: str, start_s: float, seconds: float, period: int = 1) -> Row:
    return Row(
        period=period,
        iteration=0,
        name=f"{phase}/{kind}",
        kind=kind,
        op=kind,
        lane="compute",
        phase=phase,
        layer=1,
        group_size=1,
        bytes=0,
        flops=0,
        start_s=start_s,
        duration_s=seconds,
    )


# Two ranks; the second computes longer and waits less. An earlier epoch does not count.
FAST = [
    step("spmm", "forward", 0.0, 90.0, period=0),
    step("all_to_all", "forward", 10.0, 3.0),
    step("spmm", "forward", 13.0, 2.0),
    step("all_to_all", "backward", 15.0, 1.0),
    step("gemm", "backward", 16.0, 0.5),
    step("all_reduce", "sync", 16.5, 0.25),
]
SLOW = [
    step("all_to_all", "forward", 10.0, 1.0),
    step("spmm", "forward", 11.0, 4.0),
    step("all_to_all", "backward", 15.0, 1.0),
    step("gemm", "backward", 16.0, 0.5),
    step("all_reduce", "sync", 16.5, 0.25),
]


@pytest.mark.parametrize(
    ("metric", "seconds"),
    [
        ("epoch_time", 7.0),
        ("comm_time", 4.0),
        ("comm_time_max_rank", 4.0),
        ("comm_time_min_rank", 2.0),
        ("compute_time_max_rank", 4.5),
        ("compute_time_min_rank", 2.5),
        ("grad_allreduce_time", 0.25 + 0.5),
    ],
)
def test_a_time_is_read_off_the_last_epoch_of_the_ledgers(metric: str, seconds: float) -> None:
    """The timer of the reduction sees the backward work that was issued before it."""
    assert metric in TIMES
    assert time_of(metric, 7.0, {0: FAST, 1: SLOW}, hidden_exchange=False) == seconds


def test_of_a_hidden_exchange_a_timer_sees_what_the_epoch_is_longer_than_the_work() -> None:
    found = time_of("comm_time", 7.0, {0: FAST, 1: SLOW}, hidden_exchange=True)
    assert found == 7.0 - 2.5 - 0.25
    assert time_of("comm_time", 1.0, {0: FAST}, hidden_exchange=True) == 0.0
    assert time_of("grad_allreduce_time", 7.0, {0: FAST}, hidden_exchange=True) == 0.25


def test_units_are_turned_into_seconds_and_bytes() -> None:
    assert si_value(row(unit="ms", value=24.0)) == pytest.approx(0.024)
    assert si_value(row(metric="peak_gpu_memory", unit="MB", value=3.0)) == 3 * 2**20


def test_a_metric_that_can_be_predicted_passes_and_another_says_why_not() -> None:
    check_metric(row())
    with pytest.raises(NotModelled, match="metric not modelled: loss"):
        check_metric(row(metric="loss", unit=""))
