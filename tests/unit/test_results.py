"""Result folders: a record is whole or absent, and old ones stay readable."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gnnbench.atomic import write_json, write_text
from gnnbench.errors import DataError
from gnnbench.ledger import Row, write_ledger
from gnnbench.results import (
    SCHEMA,
    PredictionRecord,
    Results,
    RunRecord,
)
from gnnbench.spec import RunSpec

MakeRun = Callable[..., RunSpec]


def record_of(run: RunSpec, **fields: Any) -> RunRecord:
    return RunRecord(
        run_id=run.run_id, config_id=run.config_id, spec=run.to_dict(), **{"status": "ok", **fields}
    )


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "results")


# Whole or absent


def test_a_written_file_has_the_new_content_and_no_companion(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    write_json(path, {"a": 2})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": 2}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failing_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, error: BaseException
) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fails(*args: object) -> None:
        raise error

    monkeypatch.setattr(os, failing, fails)
    with pytest.raises(type(error)):
        write_text(path, "new")
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_json_cannot_say_is_refused_before_the_old_file_is_touched(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"loss": 1.0})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"loss": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8")) == {"loss": 1.0}


# Records


def test_a_run_record_comes_back_equal(results: Results, make_run: MakeRun) -> None:
    period = {"period": 0, "kind": "epoch", "seconds": 0.1, "bytes": {"all_reduce/sync": 8}}
    record = record_of(make_run(), periods=[period], metrics={"test_accuracy": 0.8})
    results.save_run(record)
    assert results.load_run(record.run_id) == record
    assert list(results.runs()) == [record]
    assert record.run == make_run()


@pytest.mark.parametrize(
    ("warmup", "seconds", "kind", "median"),
    [
        (1, [9.0, 1.0, 2.0, 4.0], "epoch", 2.0),
        (4, [9.0, 1.0, 2.0, 4.0], "increment", 3.0),  # none would be left: all count
        (1, [], "epoch", None),
    ],
)
def test_the_time_of_a_run_is_the_median_period_after_the_warm_up(
    make_run: MakeRun, warmup: int, seconds: list[float], kind: str, median: float | None
) -> None:
    run = make_run(training={"warmup_epochs": warmup})
    record = record_of(run, periods=[{"kind": kind, "seconds": s} for s in seconds])
    assert (record.period, record.period_s) == (kind, median)


def prediction(run: RunSpec, cluster: str, ranks_per_host: int) -> PredictionRecord:
    return PredictionRecord(
        config_id=run.config_id,
        spec=run.to_dict(),
        cluster=cluster,
        ranks_per_host=ranks_per_host,
    )


def test_predictions_of_other_clusters_and_layouts_lie_side_by_side(
    results: Results, make_run: MakeRun
) -> None:
    run = make_run("sampled", 8, batch={"fanouts_from_seeds": (2, 2)})
    wanted = [("desk", 4), ("desk", 8), ("dgx", 8)]
    for cluster, per_host in wanted:
        results.save_prediction(prediction(run, cluster, per_host))
    assert [(p.cluster, p.ranks_per_host) for p in results.predictions()] == wanted
    assert {p.run.run_id for p in results.predictions()} == {run.run_id}


def test_a_later_record_replaces_the_earlier_one(results: Results, make_run: MakeRun) -> None:
    results.save_run(record_of(make_run(), status="running"))
    results.save_run(record_of(make_run(), status="failed", reason="killed"))
    assert [(r.status, r.reason) for r in results.runs()] == [("failed", "killed")]


def test_an_unknown_run_is_none(results: Results) -> None:
    assert results.load_run("never-ran") is None


def test_ledgers_are_found_by_rank_in_rising_order(results: Results, make_run: MakeRun) -> None:
    run = make_run()
    row = Row(0, 0, "a", "gemm", "gemm_nn", "compute", "forward", 1, 0, 1, 2, 0.0, 0.5)
    predicted = prediction(run, "desk", 1)
    results.save_run(record_of(run))
    for rank in (10, 2, 0):
        path = results.run_folder(run.run_id) / f"ledger-rank{rank}.csv"
        write_ledger(path, [row._replace(bytes=rank)])
    found = results.measured_ledger(run.run_id)
    assert [(rank, rows[0].bytes) for rank, rows in found.items()] == [(0, 0), (2, 2), (10, 10)]
    assert results.predicted_ledger(predicted) == {}
    write_ledger(results.save_prediction(predicted) / "ledger-rank3.csv", [row])
    assert results.predicted_ledger(predicted) == {3: [row]}


def edited(results: Results, run: RunSpec, **changes: Any) -> None:
    """Save a record and change its file."""
    path = results.run_folder(run.run_id) / "run.json"
    results.save_run(record_of(run))
    write_json(path, {**json.loads(path.read_text(encoding="utf-8")), **changes})


def test_a_record_of_a_newer_schema_is_refused(results: Results, make_run: MakeRun) -> None:
    edited(results, make_run(), schema=SCHEMA + 1)
    newer = rf"schema {SCHEMA + 1} is newer than this program \({SCHEMA}\); upgrade"
    with pytest.raises(DataError, match=newer):
        results.load_run(make_run().run_id)


def test_fields_that_this_version_does_not_know_are_passed_over(
    results: Results, make_run: MakeRun
) -> None:
    edited(results, make_run(), colour="red")
    assert results.load_run(make_run().run_id) == record_of(make_run())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"schema": 2, "run_id"', "not a readable record"),
        ("[1, 2]", "not a record of gnnbench: it has no schema version"),
        ('{"run_id": "a"}', "not a record of gnnbench: it has no schema version"),
        (f'{{"schema": {SCHEMA}, "run_id": "a"}}', "record.config_id: missing"),
    ],
)
def test_a_damaged_record_is_passed_over_with_its_name_and_answers_no_run(
    results: Results, make_run: MakeRun, text: str, problem: str
) -> None:
    run = make_run()
    results.save_run(record_of(run))
    path = results.run_folder(run.run_id) / "run.json"
    other = record_of(make_run(training={"seed": 7}))
    results.save_run(other)
    path.write_text(text, encoding="utf-8")
    assert list(results.runs()) == [other]
    assert results.finished(run) is None
    (line,) = results.passed_over
    assert line.startswith(f"{path}: ")
    assert problem in line


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"periods": 5}, "record.periods: found 5, expected a list"),
        ({"periods": [{"seconds": "1"}]}, r"record.periods\[0\].seconds: found '1'"),
        ({"status": "fine"}, "record.status: found 'fine'"),
        ({"metrics": {"test_accuracy": "high"}}, "record.metrics.test_accuracy: found 'high'"),
        ({"spec": {}}, "record.spec.suite: missing"),
    ],
)
def test_a_record_of_wrong_values_is_no_record(
    results: Results, make_run: MakeRun, change: dict[str, Any], problem: str
) -> None:
    edited(results, make_run(), **change)
    with pytest.raises(DataError, match=problem):
        results.load_run(make_run().run_id)


def test_an_ok_record_is_never_replaced_by_one_that_is_not(
    results: Results, make_run: MakeRun
) -> None:
    results.save_run(record_of(make_run()))
    results.save_run(record_of(make_run(), status="running", reason="interrupted"))
    assert [record.status for record in results.runs()] == ["ok"]


@pytest.mark.parametrize(
    ("status", "kept", "kept_on_retry"),
    [
        ("ok", True, True),
        ("diverged", True, False),
        ("failed", True, False),
        ("skipped", False, False),
        ("running", False, False),
    ],
)
def test_what_ended_is_not_run_again(
    results: Results, make_run: MakeRun, status: str, kept: bool, kept_on_retry: bool
) -> None:
    results.save_run(record_of(make_run(), status=status))
    found = [results.finished(make_run(), retry_failed=retry) for retry in (False, True)]
    assert [record is not None for record in found] == [kept, kept_on_retry]


# Folders


def test_a_results_folder_is_made_if_absent(tmp_path: Path) -> None:
    assert Results(tmp_path / "a" / "b").cache("metis").is_dir()


def test_reading_an_absent_results_folder_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such results folder; `gnnbench run SUITE"):
        Results(tmp_path / "none", create=False)
    assert not (tmp_path / "none").exists()
