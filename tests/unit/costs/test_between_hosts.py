"""Collectives between hosts: read, interpolated over numbers of hosts, moved to other networks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gnnbench.costs.between_hosts import (
    Between,
    System,
    between_time,
    is_between_table,
    judge_between,
    leave_hosts_out,
    read_between,
    shipped_between,
)
from gnnbench.costs.operation_tables import judge

HEADER = "system,gpu,nodes,gpus_per_node,fabric,env,op,bytes,time_us_out,licence"
HERE = System(name="here", per_host=4, host_bytes_per_s=5e10)


def line(nodes: int, op: str, size: int, us: float, fabric: str = "EFA 400G") -> str:
    return f"a,A100,{nodes},4,{fabric},,{op},{size},{us},none"


def curve(*seconds: float) -> tuple[np.ndarray, np.ndarray]:
    sizes = [2.0**k for k in range(10, 10 + 10 * len(seconds), 10)]
    return np.log(sizes), np.log(seconds)


def test_rows_are_read_and_what_is_left_out_has_a_reason() -> None:
    lines = [
        HEADER,
        line(2, "all_reduce", 1024, 20.0),
        line(2, "all_reduce", 1024, 30.0),
        line(4, "alltoall", 1024, 40.0),
        line(1, "all_reduce", 1024, 5.0),
        line(2, "gloo allreduce_ring", 1024, 5.0),
        line(2, "all_reduce", 1024, 5.0, "InfiniBand (not stated)"),
    ]
    text = "\n".join(lines)
    assert is_between_table(text)
    table, left_out = read_between(text)
    assert {(op, hosts) for _, op, hosts in table.curves} == {("all_reduce", 2), ("all_to_all", 4)}
    (system,) = table.systems("all_reduce")
    assert system.host_bytes_per_s == 5e10
    reduced = table.seconds(system, "all_reduce", 2, 1024)
    assert reduced == pytest.approx(25e-6)
    assert sorted(left_out.values()) == [1, 1, 1]


def test_latency_of_trees_grows_with_the_log_of_the_hosts_and_of_rings_with_the_ranks() -> None:
    curves = {(HERE, op, n): curve(t) for op in ("all_reduce", "all_gather")
              for n, t in ((2, 20e-6), (32, 100e-6))}  # fmt: skip
    table = Between(curves=curves)
    assert table.seconds(HERE, "all_reduce", 8, 64) == pytest.approx(60e-6)
    ring = table.seconds(HERE, "all_gather", 17, 64)
    assert ring == pytest.approx(20e-6 + 80e-6 * (17 * 4 - 8) / (32 * 4 - 8))


def test_an_all_to_all_counts_only_the_bytes_that_leave_a_host() -> None:
    curves = {(HERE, "all_to_all", n): curve(t) for n, t in ((2, 1.0), (256, 2.0 * 255 / 256))}
    table = Between(curves=curves)
    assert table.seconds(HERE, "all_to_all", 8, 1024) == pytest.approx(2.0 * 7 / 8)


def test_one_number_of_hosts_does_not_tell_another() -> None:
    table = Between(curves={(HERE, "all_reduce", 2): curve(1e-5)})
    assert table.seconds(HERE, "all_reduce", 4, 64) is None
    assert table.seconds(HERE, "all_reduce", 2, 64) == pytest.approx(1e-5)


def test_a_number_of_hosts_is_judged_by_the_others() -> None:
    times = {2: 10e-6, 4: 20e-6, 8: 30e-6, 16: 40e-6}
    curves = {(HERE, "all_reduce", n): curve(t) for n, t in times.items()}
    (judged,) = leave_hosts_out(Between(curves=curves))
    assert judged.median < 1e-6
    assert len(judged.errors) == 4


def test_the_shipped_table_meets_figures_of_its_system_that_it_does_not_hold() -> None:
    """All-reduce on 8 hosts: 50 us, and 18.6 GB/s for 1 GiB (reference, Polaris tuned)."""
    table = shipped_between()
    (system,) = table.systems("all_reduce")
    assert table.seconds(system, "all_reduce", 8, 64) == pytest.approx(50e-6, rel=0.15)
    rate = 2**30 / (table.seconds(system, "all_reduce", 8, 2**30) or math.inf)
    assert rate == pytest.approx(18.6e9, rel=0.05)


def test_another_network_is_met_at_sizes_over_its_rate() -> None:
    slow = between_time("all_reduce", 4, 8, 2.0**30, 2.5e10)
    fast = between_time("all_reduce", 4, 8, 2.0**30, 1e11)
    assert slow is not None
    assert fast is not None
    assert slow.grade == "transferred"
    assert slow.seconds == pytest.approx(4 * fast.seconds, rel=0.1)
    floor = between_time("all_reduce", 4, 8, 8.0, 1e11)
    assert floor is not None
    assert floor.seconds > 1e-5


def test_a_table_of_a_new_number_of_hosts_is_judged_by_the_known_system() -> None:
    (system,) = shipped_between().systems("all_reduce")
    table = Between(curves={(system, "all_reduce", 8): curve(50e-6)})
    (judged,), reasons = judge_between(table)
    assert not reasons
    assert judged.median < 0.2


def test_the_reader_of_operations_takes_such_a_table() -> None:
    rows = [line(n, "all_reduce", 2**20, 300.0 * n) for n in (2, 4)]
    found = judge("\n".join([HEADER, *rows]), "t.csv")
    assert found.judged[0].left_out == "hosts"
    assert found.median_error is not None
