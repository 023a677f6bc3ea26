"""Energy: a reading where there is one, else a model between idle power and board power."""

from __future__ import annotations

import dataclasses

import pytest

from gnnbench.cluster import Cluster, Constant, load_cluster
from gnnbench.steps import Kind, Work
from gnnbench_simulator.energy import Volumes, energy, of_work

NOTHING = Volumes()


def _cluster(**readings: float) -> Cluster:
    cluster = load_cluster("p4de.24xlarge")
    assert cluster.power is not None
    changed = {
        name: Constant(value=value, status="measured", source="NVML energy counter")
        for name, value in readings.items()
    }
    return dataclasses.replace(cluster, power=dataclasses.replace(cluster.power, **changed))


def test_an_idle_period_draws_idle_power_on_all_devices_that_are_paid_for() -> None:
    found = energy(NOTHING, _cluster(), 10.0, ranks=4, ranks_per_host=4)
    assert found is not None
    assert found.joules == pytest.approx(8 * 60.0 * 10.0 * 1.2)  # 15 % of 400 W, PUE 1.2
    assert found.low_j == pytest.approx(found.joules)
    assert found.high_j == pytest.approx((4 * 400.0 + 4 * 60.0) * 10.0 * 1.2)
    assert found.grade == "datasheet"


def test_flops_and_bytes_add_to_it_each_at_its_price() -> None:
    done = Volumes(flops=1e12, memory_bytes=1e9, cache_bytes=1e9, link_bytes=1e9, host_bytes=1e9)
    idle = energy(NOTHING, _cluster(), 1.0, ranks=8, ranks_per_host=8)
    busy = energy(done, _cluster(), 1.0, ranks=8, ranks_per_host=8)
    assert idle is not None and busy is not None
    spent = 1e12 * 7.5e-13 + 1e9 * (3.2e-11 + 8e-12 + 6.4e-11 + 4.8e-11)
    assert busy.joules - idle.joules == pytest.approx(1.2 * spent)


def test_the_model_never_exceeds_board_power() -> None:
    found = energy(Volumes(flops=1e18), _cluster(), 1.0, ranks=8, ranks_per_host=8)
    assert found is not None
    assert found.joules == found.high_j


def test_a_reading_replaces_the_model_and_is_graded_as_such() -> None:
    found = energy(Volumes(flops=1e18), _cluster(training_w=250.0), 10.0, ranks=8, ranks_per_host=8)
    assert found is not None
    assert found.joules == pytest.approx(8 * 250.0 * 10.0 * 1.2)
    assert found.grade == "measured"
    assert "NVML" in found.basis


def test_where_no_power_is_known_no_energy_is_invented() -> None:
    assert energy(NOTHING, load_cluster("cpu-2core"), 1.0, ranks=1, ranks_per_host=1) is None


def test_work_counts_where_its_bytes_move() -> None:
    product = Work(kind=Kind.SPMM, op="spmm", bytes=100, flops=40, nonzeros=10, width=2)
    assert of_work(product, 3, 4.0).tolist() == [120.0, 300.0, 240.0, 0.0, 0.0]
    sent = Work(kind=Kind.ALL_REDUCE, op="all_reduce", bytes=7)
    assert of_work(sent, 2, 4.0).tolist() == [0.0, 0.0, 0.0, 14.0, 0.0]
    copied = Work(kind=Kind.COPY, op="copy", bytes=5)
    assert of_work(copied, 2, 4.0).tolist() == [0.0, 0.0, 0.0, 0.0, 10.0]
    assert of_work(Work(kind=Kind.READ, op="read", bytes=5), 2, 4.0).sum() == 0.0
