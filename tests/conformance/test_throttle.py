"""Runs on a disk that is held to a limit, and their predictions."""

from __future__ import annotations

import dataclasses
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the runtime extra")

from gnnbench.approaches.base import Layout, example
from gnnbench.approaches.names import APPROACHES
from gnnbench.cluster import load_cluster
from gnnbench.costs.storage import disk_seconds, limited
from gnnbench.data.source import Library
from gnnbench.disk_limit import DiskLimit
from gnnbench_runtime.conformance.perform import make_trainer, perform
from gnnbench_runtime.disk import Throttle
from gnnbench_simulator.predict import predict_plan

CLUSTER = load_cluster("cpu-2core")
LINKS: dict[str, Any] = {
    "kind": "triples",
    "model": {"kind": "embedding", "decoder": "distmult"},
    "batch": {"size": 64, "negatives": 20},
    "training": {"optimizer": "adagrad", "epochs": 1},
}
RUNS = [
    example("out-of-core", 1, knobs={"partitions": 4, "buffer": 2}, **LINKS),
    example("out-of-core", 1, knobs={"partitions": 4, "buffer": 2}, training={"epochs": 1}),
    example("belady", 1, training={"epochs": 1}),
    example("mmap", 1, training={"epochs": 1}, options={"num_features": 100}),
]


def slowed(run: Any, **limit: float) -> Any:
    return dataclasses.replace(run, knobs={**run.knobs, **limit})


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.approach)
def test_a_limited_disk_takes_its_time_and_is_predicted_to(run: Any) -> None:
    """Bytes over the limit explain nearly all of an epoch that the limit dominates."""
    data, card = Library([]).open(run.dataset), APPROACHES.get(run.approach)
    plan = card.plan(data, run, card.structure(data, run), Layout(world_size=1, ranks_per_host=1))
    size = sum(plan.moved_bytes(0).values())
    run = slowed(run, disk_bytes_per_s=size / 0.8)
    plan = card.plan(data, run, card.structure(data, run), Layout(world_size=1, ranks_per_host=1))
    predicted = predict_plan(plan, CLUSTER).period_s
    with tempfile.TemporaryDirectory() as folder:
        trainer, recorder, _ = make_trainer(0, 1, run, data, Path(folder))
        recorder.period_begin(0)
        began = time.perf_counter()
        trainer.train_period(0)
        seconds = time.perf_counter() - began
        recorder.period_end()
        trainer.close()
    assert 0.8 <= predicted < 1.0
    assert seconds >= 0.8  # a busy machine makes it longer, and nothing makes it shorter


def test_a_limit_changes_no_result() -> None:
    run = RUNS[0]
    data = Library([]).open(run.dataset)
    found = [perform(0, 1, r, data) for r in (run, slowed(run, disk_iops=2000.0))]
    assert np.array_equal(found[0].learnt, found[1].learnt)
    assert found[0].moved == found[1].moved


def test_threads_share_one_limited_disk() -> None:
    throttle = Throttle(DiskLimit(bytes_per_s=1e6, iops=100))

    def transfers() -> None:
        for _ in range(4):
            with throttle.transfer(10_000):
                pass

    threads = [threading.Thread(target=transfers) for _ in range(3)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.perf_counter() - began >= 12 * (0.01 + 0.01)


def test_the_constants_of_a_limited_disk() -> None:
    """Requests wait for the slower of both disks; a limit above the real disk changes nothing."""
    storage = CLUSTER.storage
    assert storage is not None
    slow = limited(CLUSTER, DiskLimit(bytes_per_s=1e6, iops=50)).storage
    fast = limited(CLUSTER, DiskLimit(bytes_per_s=1e12)).storage
    assert slow is not None and fast is not None
    for write in (False, True):
        assert disk_seconds(slow, 1e6, 10.0, write=write) == pytest.approx((1.2, 1.2))
        wanted = disk_seconds(storage, 1e6, 10.0, write=write)
        assert disk_seconds(fast, 1e6, 10.0, write=write) == pytest.approx(wanted)
    assert limited(CLUSTER, DiskLimit()) is CLUSTER


def test_sleeps_that_end_late_do_not_slow_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of its own: late sleeps are made up for, time that the disk takes is not."""
    now = [0.0]

    def late_sleep(seconds: float) -> None:
        now[0] += seconds + 8e-4

    monkeypatch.setattr("gnnbench_runtime.disk.perf_counter", lambda: now[0])
    monkeypatch.setattr("gnnbench_runtime.disk.sleep", late_sleep)
    for own, wanted in ((0.0, 1e-3), (4e-4, 1e-3), (3e-3, 3e-3)):
        throttle, begin = Throttle(DiskLimit(iops=1000)), now[0]
        for _ in range(200):
            with throttle.transfer(1):
                now[0] += own
        assert now[0] - begin == pytest.approx(200 * wanted, abs=2e-3), own
