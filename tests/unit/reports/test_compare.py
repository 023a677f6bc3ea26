"""Runs and predictions meet in one row per configuration."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from gnnbench.errors import UnknownName
from gnnbench_reports.compare import compare
from gnnbench_reports.comparison import Comparison
from gnnbench_reports.opening import read_study


def only(rows: list[Comparison]) -> Comparison:
    assert len(rows) == 1
    return rows[0]


def periods(*seconds: float, **more: Any) -> list[dict[str, Any]]:
    return [{"period": at, "seconds": s, "loss": 1.0, **more} for at, s in enumerate(seconds)]


def test_warm_up_epochs_do_not_count(fabricator: Any) -> None:
    fabricator.run(fabricator.spec(), periods=periods(100.0, 2.0, 3.0, 4.0))
    assert only(compare(fabricator.results)).measured_period_s == 3.0


def test_epochs_that_are_all_warm_up_count_after_all(fabricator: Any) -> None:
    fabricator.run(fabricator.spec(), periods=periods(5.0))
    assert only(compare(fabricator.results)).measured_period_s == 5.0


def test_repeats_are_pooled_by_the_median_of_their_medians(fabricator: Any) -> None:
    for repeat, seconds in enumerate((1.0, 1.1, 1.6)):
        fabricator.run(fabricator.spec(repeat=repeat), periods=periods(9.0, seconds, seconds))
    row = only(compare(fabricator.results))
    assert row.repeats == 3
    assert row.measured_period_s == pytest.approx(1.1)
    assert row.repeat_spread == pytest.approx(0.3 / 1.1)


def test_one_repeat_has_no_repeat_spread(fabricator: Any) -> None:
    fabricator.run(fabricator.spec())
    assert only(compare(fabricator.results)).repeat_spread is None


def test_error_ratio_and_interval_come_from_the_medians(fabricator: Any) -> None:
    fabricator.run(fabricator.spec(), seconds=1.0)
    fabricator.prediction(fabricator.spec(), seconds=1.25, low_s=1.1, high_s=1.4)
    row = only(compare(fabricator.results))
    assert row.ratio == pytest.approx(1.25)
    assert row.error == pytest.approx(0.25)
    assert row.inside_interval is False
    assert row.grade == "measured"


def test_a_slower_machine_is_taken_out_of_the_speed_adjusted_error(fabricator: Any) -> None:
    fabricator.run(fabricator.spec(), seconds=1.2, probe={"before_s": 0.011, "after_s": 0.013})
    fabricator.prediction(fabricator.spec(), seconds=1.0, probe_s=0.010)
    row = only(compare(fabricator.results))
    assert row.probe_ratio == pytest.approx(1.2)
    assert row.speed_adjusted_error == pytest.approx(0.0)


def test_runs_and_predictions_without_a_partner_both_appear(fabricator: Any) -> None:
    fabricator.run(fabricator.spec(ranks=1))
    fabricator.prediction(fabricator.spec(ranks=64))
    rows = {row.ranks: row for row in compare(fabricator.results)}
    assert (rows[1].status, rows[1].measured, rows[1].predicted) == ("ok", True, False)
    assert (rows[64].status, rows[64].measured, rows[64].predicted) == ("predicted", False, True)


def test_a_failed_configuration_says_where_and_why(fabricator: Any) -> None:
    fabricator.run(
        fabricator.spec(),
        status="failed",
        reason="out of memory",
        failed_rank=1,
        failed_phase="backward",
    )
    row = only(compare(fabricator.results))
    assert (row.status, row.reason, row.failed_rank) == ("failed", "out of memory", 1)
    assert not row.measured


def test_one_finished_repeat_is_enough_and_the_lost_one_is_told(fabricator: Any) -> None:
    fabricator.run(fabricator.spec(repeat=0))
    fabricator.run(fabricator.spec(repeat=1), status="failed", reason="rank 0 died")
    row = only(compare(fabricator.results))
    assert (row.status, row.repeats) == ("ok", 1)
    assert row.reason == "1 of 2 repeats failed: rank 0 died"


def test_an_unfinished_run_gives_no_time(fabricator: Any) -> None:
    fabricator.run(fabricator.spec(), status="running")
    row = only(compare(fabricator.results))
    assert row.status == "running"
    assert not row.measured


def test_a_prediction_that_could_not_be_made_gives_its_reason(fabricator: Any) -> None:
    fabricator.prediction(fabricator.spec(), status="skipped", reason="needs 2 hosts", period_s=0.0)
    row = only(compare(fabricator.results))
    assert (row.status, row.reason, row.predicted) == ("skipped", "needs 2 hosts", False)


def test_the_measured_grade_is_preferred_among_clusters(fabricator: Any) -> None:
    spec = fabricator.spec()
    fabricator.run(spec)
    fabricator.prediction(spec, cluster="a_datasheet", grade="datasheet")
    fabricator.prediction(spec, cluster="z_calibrated", grade="measured")
    assert only(compare(fabricator.results)).cluster == "z_calibrated"
    assert only(compare(fabricator.results, "a_datasheet")).grade == "datasheet"


def test_an_unknown_cluster_is_answered_with_those_there_are(fabricator: Any) -> None:
    fabricator.prediction(fabricator.spec(), cluster="desk")
    with pytest.raises(UnknownName, match="did you mean 'desk'"):
        compare(fabricator.results, "dask")


def test_memory_is_that_of_the_neediest_rank_with_the_workload_apart(fabricator: Any) -> None:
    def rank(number: int, baseline: int, peak: int) -> dict[str, Any]:
        return {"rank": number, "baseline_bytes": baseline, "peak_bytes": peak}

    fabricator.run(fabricator.spec(), memory=[rank(0, 100, 150), rank(1, 100, 200)])
    fabricator.prediction(
        fabricator.spec(),
        memory=[
            rank(0, 100, 160) | {"workload_bytes": 60},
            rank(1, 100, 220) | {"workload_bytes": 120},
        ],
    )
    memory = only(compare(fabricator.results)).memory
    assert memory.peak_ratio == pytest.approx(1.1)
    assert memory.workload_ratio == pytest.approx(1.2)
    assert memory.measured_workload_bytes == 100


def test_accuracy_is_the_mean_over_repeats_with_its_deviation(fabricator: Any) -> None:
    for repeat, test in enumerate((0.80, 0.82)):
        fabricator.run(fabricator.spec(repeat=repeat), metrics={"test_accuracy": test})
    row = only(compare(fabricator.results))
    assert row.test_metric["mean"] == pytest.approx(0.81)
    assert row.test_metric["std"] == pytest.approx(0.02 / 2**0.5)


def test_knobs_are_in_the_label_only_where_they_tell_approaches_apart(fabricator: Any) -> None:
    for partitioner in ("metis", "hash"):
        fabricator.run(fabricator.spec(knobs={"partitioner": partitioner, "depth": 2}))
    fabricator.run(fabricator.spec(approach="sampled", knobs={"depth": 2}))
    assert [row.label for row in compare(fabricator.results)] == [
        "partition [partitioner=hash]",
        "partition [partitioner=metis]",
        "sampled",
    ]


def test_a_setting_that_is_off_by_default_is_named_where_it_is_on(fabricator: Any) -> None:
    """Passes over a stream, increments, and increments that arrive late and are replayed."""
    base = fabricator.spec("events", "tgn", "continuous")
    for training, knobs in (
        ({"epochs": 4}, {}),
        ({"increments": 10}, {}),
        (
            {"increments": 10, "speedup": 1e5},
            {"replay": 0.1, "retrain_every": 2, "sampling": "recent"},
        ),
    ):
        changed = dataclasses.replace(base.training, **training)
        fabricator.run(dataclasses.replace(base, training=changed, knobs=knobs))
    assert [row.label for row in compare(fabricator.results)] == [
        "continuous",
        "continuous [increments=10]",
        "continuous [increments=10, replay=0.1]",
    ]


def test_arrival_rates_are_whole_numbers_in_labels(fabricator: Any) -> None:
    base = fabricator.spec("events", "tgn", "continuous")
    for speedup in (1e5, 0.5, 400.0):
        training = dataclasses.replace(base.training, increments=10, speedup=speedup)
        fabricator.run(dataclasses.replace(base, training=training))
    labels = [row.label for row in compare(fabricator.results)]
    assert labels == [f"continuous [speedup={speed}]" for speed in ("0.5", 400, 100000)]


def test_a_broken_record_is_passed_over_and_named(fabricator: Any) -> None:
    fabricator.run(fabricator.spec())
    path = next(fabricator.results.folder.glob("runs/*/run.json"))
    path.write_text(path.read_text()[:100])
    assert compare(fabricator.results) == []
    assert "run.json" in fabricator.results.passed_over[0]


def test_a_broken_ledger_costs_its_phases_only(fabricator: Any) -> None:
    fabricator.run(fabricator.spec())
    path = next(fabricator.results.folder.glob("runs/*/ledger-rank0.csv"))
    path.write_text("nothing\n")
    row = only(compare(fabricator.results))
    assert row.measured
    assert str(path) in fabricator.results.passed_over[0]


@pytest.mark.parametrize(("others", "status"), [(0, "diverged"), (1, "ok")])
def test_a_diverged_run_is_no_measurement(fabricator: Any, others: int, status: str) -> None:
    for repeat in range(others + 1):
        fabricator.run(fabricator.spec(repeat=repeat))
    record = next(fabricator.results.runs())
    (fabricator.results.run_folder(record.run_id) / "run.json").unlink()
    record.status, record.reason = "diverged", "the loss is not finite from epoch 3 on"
    fabricator.results.save_run(record)
    row = only(compare(fabricator.results))
    assert (row.status, row.repeats) == (status, others)
    assert "not finite" in row.reason


def test_a_record_of_an_earlier_schema_is_passed_over_in_one_line(fabricator: Any) -> None:
    fabricator.run(fabricator.spec())
    path = next(fabricator.results.folder.glob("runs/*/run.json"))
    path.write_text(path.read_text().replace('"schema": 2', '"schema": 1'))
    assert compare(fabricator.results) == []
    (line,) = fabricator.results.passed_over
    assert re.search(r"schema 1 is of an earlier gnnbench.*into a new folder", line)


def test_a_prediction_for_another_layout_of_the_ranks_is_another_row(fabricator: Any) -> None:
    spec = fabricator.spec(ranks=4)
    fabricator.run(spec, seconds=1.0)
    fabricator.prediction(spec, seconds=1.1, ranks_per_host=4)
    fabricator.prediction(spec, seconds=3.0, ranks_per_host=2)
    rows = {row.label: row for row in compare(fabricator.results)}
    assert rows["partition [ranks_per_host=4]"].ratio == pytest.approx(1.1)
    other = rows["partition [ranks_per_host=2]"]
    assert (other.measured, other.predicted_period_s) == (False, pytest.approx(3.0))


def test_a_skip_without_digest_is_the_row_of_its_skipped_prediction(fabricator: Any) -> None:
    asked = fabricator.spec(approach="single", ranks=2)
    opened = dataclasses.replace(asked, dataset=dataclasses.replace(asked.dataset, digest="abc"))
    device: dict[str, Any] = {}
    fabricator.run(asked, status="skipped", reason="one rank", periods=[], device=device)
    fabricator.prediction(opened, status="skipped", reason="one rank", period_s=0.0)
    row = only(compare(fabricator.results))
    assert (row.config_id, row.label) == (opened.config_id, "single")


def test_contents_of_one_name_are_rows_of_their_own(fabricator: Any) -> None:
    spec = fabricator.spec()
    for digest in ("abc", "def"):
        dataset = dataclasses.replace(spec.dataset, digest=digest)
        fabricator.run(dataclasses.replace(spec, dataset=dataset))
    assert [row.label for row in compare(fabricator.results)] == [
        "partition [dataset.digest=abc]",
        "partition [dataset.digest=def]",
    ]


def test_a_study_finds_the_records_of_a_row(fabricator: Any) -> None:
    for seed in (1, 0):
        for repeat in range(2):
            fabricator.run(fabricator.spec(seed=seed, repeat=repeat))
    fabricator.run(fabricator.spec(approach="sampled"))
    fabricator.prediction(fabricator.spec(seed=0))
    study = read_study(fabricator.results)
    row = next(row for row in study.rows if row.approach == "partition")
    runs = study.runs_of(row)
    assert [run for run in study.runs if run in runs] == runs
    assert len(runs) == 4 and {run.spec["approach"] for run in runs} == {"partition"}
    prediction = study.prediction_of(row)
    assert prediction is not None and prediction.config_id == row.config_id
    other = next(row for row in study.rows if row.approach == "sampled")
    assert study.prediction_of(other) is None
    assert study.spec(other)["approach"] == "sampled"
