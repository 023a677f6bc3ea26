"""Recorder, merging, memory and rehearsal: what a rank writes down about itself."""

from __future__ import annotations

import dataclasses
import statistics
import threading
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
import torch

from gnnbench.data.generators import generate
from gnnbench.iterations import Iteration
from gnnbench.ledger import LedgerWriter, read_ledger
from gnnbench.plan import Plan, repeated
from gnnbench.results import RunRecord
from gnnbench.steps import Kind, Lane, Phase, Step, Work
from gnnbench_runtime import memory
from gnnbench_runtime.merge import merge
from gnnbench_runtime.probe import speed_probe
from gnnbench_runtime.recorder import Recorder

CPU = torch.device("cpu")
WORK = Work(kind=Kind.SPMM, op="spmm", bytes=100, flops=200)


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger-rank0.csv"


@pytest.fixture
def recorder(ledger: Path) -> Iterator[Recorder]:
    recorder = Recorder(CPU, writer=LedgerWriter(ledger))
    yield recorder
    recorder.close()


def test_steps_are_kept_between_begin_and_end_of_an_epoch_only(
    recorder: Recorder, ledger: Path
) -> None:
    with recorder.step("work", WORK, phase=Phase.FORWARD, layer=2):
        pass
    recorder.period_begin(4)
    recorder.at(3)
    with recorder.step("work", WORK, phase=Phase.FORWARD, layer=2):
        pass
    recorder.period_end()
    with recorder.step("work", WORK, phase=Phase.FORWARD, layer=2):
        pass
    (row,) = read_ledger(ledger)
    assert row[:11] == (4, 3, "work", "spmm", "spmm", "compute", "forward", 2, 0, 100, 200)
    assert row.start_s >= 0
    assert row.duration_s >= 0


def test_rows_are_on_disk_when_their_epoch_has_ended(recorder: Recorder, ledger: Path) -> None:
    for epoch in range(2):
        recorder.period_begin(epoch)
        with recorder.step("work", WORK, phase=Phase.FORWARD, layer=2):
            pass
        recorder.period_end()
    assert [row.period for row in read_ledger(ledger)] == [0, 1]


def test_a_step_that_raises_has_not_happened(recorder: Recorder, ledger: Path) -> None:
    recorder.period_begin(0)
    with (
        pytest.raises(ValueError, match="broken"),
        recorder.step("work", WORK, phase=Phase.FORWARD, layer=2),
    ):
        raise ValueError("broken")
    recorder.period_end()
    assert read_ledger(ledger) == []


def test_evaluation_overrides_the_phase(recorder: Recorder, ledger: Path) -> None:
    recorder.period_begin(0)
    recorder.period_end()
    with recorder.evaluating(), recorder.step("work", WORK, phase=Phase.FORWARD, layer=2):
        pass
    assert [row.phase for row in read_ledger(ledger)] == ["evaluate"]


def test_a_rehearsal_records_nothing(recorder: Recorder, ledger: Path) -> None:
    """A stream is predicted before it is learnt from, in the rehearsal as in a period."""
    with recorder.evaluating(), recorder.step("work", WORK, phase=Phase.FORWARD, layer=2):
        pass
    assert read_ledger(ledger) == []


def test_a_transfer_that_ends_late_counts_for_the_epoch_it_began_in(
    recorder: Recorder, ledger: Path
) -> None:
    recorder.period_begin(0)
    sent = Work(kind=Kind.ALL_TO_ALL, op="a", bytes=64)
    late = recorder.step("late", sent, phase=Phase.FETCH, lane=Lane.BACKGROUND)
    late.start()
    assert recorder.period_end() == {"all_to_all/fetch": 64}
    recorder.period_begin(1)
    late.stop()
    assert recorder.period_end() == {}
    assert [(row.period, row.bytes) for row in read_ledger(ledger)] == [(0, 64)]


def test_a_thread_has_an_iteration_of_its_own(recorder: Recorder, ledger: Path) -> None:
    recorder.period_begin(0)
    recorder.at(1)

    drawn = Work(kind=Kind.SAMPLE, op="sample")

    def prefetch() -> None:
        recorder.at(2)
        with recorder.step("draw", drawn, phase=Phase.SAMPLE, lane=Lane.HOST):
            pass

    thread = threading.Thread(target=prefetch)
    thread.start()
    thread.join()
    with recorder.step("work", WORK, phase=Phase.FORWARD, layer=2):
        pass
    recorder.period_end()
    rows = {row.name: row.iteration for row in read_ledger(ledger)}
    assert rows == {"draw": 2, "work": 1}


@pytest.mark.bench
def test_a_step_costs_less_than_two_percent_of_half_a_millisecond() -> None:
    recorder = Recorder(CPU)
    recorder.period_begin(0)
    times = []
    for _ in range(5):
        begin = perf_counter()
        for _ in range(2000):
            with recorder.step("work", WORK, phase=Phase.FORWARD, layer=2):
                pass
        times.append((perf_counter() - begin) / 2000)
    assert min(times) < 0.02 * 0.5e-3, statistics.median(times)


def test_merging_takes_the_slowest_rank_and_the_sum_of_bytes() -> None:
    def part(rank: int, seconds: float, sent: int) -> dict[str, object]:
        moved = {"all_to_all/fetch": sent}
        period = {"period": 0, "seconds": seconds, "loss": 2.0, "metrics": {}, "bytes": moved}
        return {
            "rank": rank,
            "periods": [period],
            "finite": True,
            "memory": {"rank": rank},
            "metrics": {"test_accuracy": 0.5},
            "probe": {"before_s": seconds, "after_s": 1.0},
            "setup_s": {"start": 1.0},
            "energy": {},
            "device": {"kind": "cpu"},
            "versions": {},
        }

    exchange = Work(kind=Kind.ALL_TO_ALL, op="all_to_all", bytes=6)
    step = Step(name="x", work=exchange, lane=Lane.COMM, phase=Phase.FETCH, group=(0, 1))
    plan = Plan(approach="a", world_size=2, **repeated([Iteration.of_ranks([[step]] * 2)], 1))
    record = RunRecord(run_id="a", config_id="a", spec={})
    merged = merge(record, [part(1, 3.0, 5), part(0, 2.0, 7)], plan)
    assert merged.periods == [
        {
            "period": 0,
            "kind": "epoch",
            "iterations": 1,
            "seconds": 3.0,
            "loss": 2.0,
            "metrics": {},
            "bytes": {"all_to_all/fetch": 12},
            "planned": {"all_to_all/fetch": 12},
        }
    ]
    # What a plan estimates is no promise.
    estimate = dataclasses.replace(plan, counted=False)
    [period] = merge(record, [part(1, 3.0, 5), part(0, 2.0, 7)], estimate).periods
    assert period["planned"] is None
    assert [entry["rank"] for entry in merged.memory] == [0, 1]
    assert merged.probe == {"before_s": 3.0, "after_s": 1.0}


def test_energy_of_a_shared_gpu_is_counted_once() -> None:
    from gnnbench_runtime.merge import _energy

    one = {"device": "a", "seconds": 2.0, "joules": 10.0, "source": "s", "mean_w": 5.0}
    assert _energy([one, one])["joules"] == 10.0
    assert _energy([one, {**one, "device": "b"}])["joules"] == 20.0


@pytest.mark.parametrize("can_reset", [True, False])
def test_a_peak_that_is_gone_again_is_still_seen(can_reset: bool) -> None:
    gauge = memory.ResidentSet()
    gauge._can_reset = gauge._can_reset and can_reset
    peaks: dict[str, int] = {}
    before = gauge.now_bytes()
    with gauge.peak(peaks, "peak"):
        held = np.ones(64 * 2**20, np.uint8)
        threading.Event().wait(0.05)  # the fallback samples
        del held
    assert peaks["peak"] - before == pytest.approx(64 * 2**20, rel=0.05)
    assert gauge.now_bytes() - before < 8 * 2**20


def test_the_speed_probe_takes_a_few_milliseconds() -> None:
    assert 0 < speed_probe(rounds=1) < 1.0


def test_a_miniature_keeps_types_and_widths_and_has_a_split_of_its_own() -> None:
    graph = generate(
        "planted_partition", num_nodes=300, mean_degree=6, num_classes=3, num_features=5
    )
    small = graph.miniature(100)
    small.check()
    assert (small.num_nodes, small.num_features, small.num_classes) == (100, 5, 3)
    assert small.indices.dtype == graph.indices.dtype
    assert 0 < small.num_edges < graph.num_edges
    assert small.num_train == 34
    assert not small.indices.flags.writeable
    for node in (0, 50, 99):
        whole = graph.indices[graph.indptr[node] : graph.indptr[node + 1]]
        kept = small.indices[small.indptr[node] : small.indptr[node + 1]]
        assert kept.tolist() == [source for source in whole.tolist() if source < 100]


def test_a_graph_smaller_than_the_miniature_is_taken_whole() -> None:
    graph = generate(
        "planted_partition", num_nodes=20, mean_degree=3, num_classes=2, num_features=2
    )
    assert graph.miniature(100).num_edges == graph.num_edges
