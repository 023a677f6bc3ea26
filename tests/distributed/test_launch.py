"""The launcher on runs that go well: what the record and the ledgers say."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gnnbench.results import Results, RunRecord
from gnnbench.spec import RunSpec

pytestmark = pytest.mark.distributed
Maker = Callable[..., RunSpec]
Train = Callable[..., RunRecord]

MEGABYTE = 2**20


@pytest.fixture
def pair(toy_run: Maker, train: Train) -> RunRecord:
    return train(toy_run(2, training={"evaluate_every": 2}))


def test_two_ranks_end_in_one_record_that_is_on_disk(pair: RunRecord, results: Results) -> None:
    assert (pair.status, pair.reason) == ("ok", "")
    assert [epoch["loss"] for epoch in pair.periods] == [120.0, 60.0, 40.0]
    assert results.load_run(pair.run_id) == pair


def test_bytes_of_an_epoch_are_summed_over_ranks_and_leave_evaluation_out(pair: RunRecord) -> None:
    ring = 2 * (2 - 1) * 60 * 8 // 2
    assert [epoch["bytes"] for epoch in pair.periods] == [{"all_reduce/sync": 2 * ring}] * 3


def test_accuracy_is_kept_where_it_was_asked_for_and_at_the_end(pair: RunRecord) -> None:
    assert ["test_accuracy" in epoch["metrics"] for epoch in pair.periods] == [False, True, True]
    assert pair.metrics == {"train_accuracy": 1.0, "val_accuracy": 0.5, "test_accuracy": 0.5}


def test_ledgers_hold_each_step_with_times_inside_the_run(
    pair: RunRecord, results: Results
) -> None:
    ledgers = results.measured_ledger(pair.run_id)
    assert sorted(ledgers) == [0, 1]
    for rows in ledgers.values():
        training = [row for row in rows if row.phase != "evaluate"]
        assert [(row.period, row.name) for row in training] == [
            (epoch, name) for epoch in range(3) for name in ("work", "sum")
        ]
        starts = [row.start_s for row in rows]
        assert starts == sorted(starts)
        assert starts[0] >= 0
        for epoch in pair.periods:
            spent = sum(r.duration_s for r in training if r.period == epoch["period"])
            assert spent <= epoch["seconds"]


def test_steps_of_an_evaluation_are_told_apart(pair: RunRecord, results: Results) -> None:
    rows = results.measured_ledger(pair.run_id)[0]
    assert [(r.period, r.name) for r in rows if r.phase == "evaluate"] == [
        (1, "count"),
        (2, "count"),
    ]


def test_the_record_names_device_versions_probe_and_setup(pair: RunRecord) -> None:
    assert pair.device["backend"] == "gloo"
    assert pair.device["ranks_per_host"] == 2
    assert not pair.device["practice"]
    assert {"python", "torch", "numpy", "gnnbench"} <= pair.versions.keys()
    assert min(pair.probe["before_s"], pair.probe["after_s"]) > 0
    assert {"start", "structure", "trainer", "warm_up"} <= pair.setup_s.keys()
    assert pair.wall_s > sum(epoch["seconds"] for epoch in pair.periods)


def test_nothing_of_the_launcher_is_left_in_the_run_folder(
    pair: RunRecord, results: Results
) -> None:
    names = sorted(path.name for path in results.run_folder(pair.run_id).iterdir())
    assert names == ["ledger-rank0.csv", "ledger-rank1.csv", "run.json"]


def test_memory_held_in_an_epoch_shows_in_the_peak_within_five_percent(
    toy_run: Maker, train: Train
) -> None:
    record = train(toy_run(1, megabytes=200))
    memory = record.memory[0]
    assert memory["source"] == "resident set"
    seen = memory["peak_bytes"] - memory["start_bytes"]
    assert seen == pytest.approx(200 * MEGABYTE, rel=0.05)
    # Freed before evaluation, so it is not in that peak.
    assert memory["evaluation_peak_bytes"] - memory["start_bytes"] < 20 * MEGABYTE


def test_a_trainer_that_cannot_do_it_is_a_reasoned_skip(toy_run: Maker, train: Train) -> None:
    record = train(toy_run(1, unsupported=True))
    assert (record.status, record.reason) == ("skipped", "toy cannot do this here")
    assert record.failed_rank is None


def test_asking_for_a_gpu_where_there_is_none_is_a_reasoned_skip(
    toy_run: Maker, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gnnbench_runtime.launch.cuda_devices", lambda: 0)
    record = train(toy_run(1), "cuda")
    assert record.status == "skipped"
    assert "no CUDA device" in record.reason
