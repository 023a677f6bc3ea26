"""Result folders: a record is whole or absent, and old ones stay readable."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gnnbench.errors import DataError
from gnnbench.ledger import Row, write_ledger
from gnnbench.results import PredictionRecord, Results, RunRecord, write_json, write_text
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
def test_a_failing_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new")
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_text(path, "new")
    assert [p.read_text(encoding="utf-8") for p in tmp_path.iterdir()] == ["old"]


def test_what_json_cannot_say_is_refused_before_the_old_file_is_touched(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"loss": 1.0})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"loss": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8")) == {"loss": 1.0}


# Records


def test_a_run_record_comes_back_equal(results: Results, make_run: MakeRun) -> None:
    record = record_of(
        make_run(), epochs=[{"epoch": 0, "seconds": 0.1, "bytes": {"all_reduce/sync": 8}}],
        accuracy={"test": 0.8}, failed_rank=None,
    )  # fmt: skip
    results.save_run(record)
    assert results.load_run(record.run_id) == record
    assert list(results.runs()) == [record]
    assert record.run == make_run()


def test_a_prediction_comes_back_equal_and_knows_its_cluster(
    results: Results, make_run: MakeRun
) -> None:
    run = make_run("sampled", fanouts_from_seeds=[2, 2])
    for cluster in ("desk", "dgx"):
        results.save_prediction(
            PredictionRecord(
                config_id=run.config_id, spec=run.to_dict(), cluster=cluster, epoch_s=0.5
            )
        )
    assert [p.cluster for p in results.predictions()] == ["desk", "dgx"]
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
    results.save_run(record_of(run))
    for rank in (10, 2, 0):
        path = results.run_folder(run.run_id) / f"ledger-rank{rank}.csv"
        write_ledger(path, [row._replace(bytes=rank)])
    found = results.measured_ledger(run.run_id)
    assert [(rank, rows[0].bytes) for rank, rows in found.items()] == [(0, 0), (2, 2), (10, 10)]
    assert results.predicted_ledger(run.config_id, "desk") == {}


def saved_as(results: Results, run: RunSpec, text: str) -> Path:
    path = results.run_folder(run.run_id) / "run.json"
    results.save_run(record_of(run))
    path.write_text(text, encoding="utf-8")
    return path


def test_a_record_of_a_newer_schema_is_refused(results: Results, make_run: MakeRun) -> None:
    run = make_run()
    path = results.run_folder(run.run_id) / "run.json"
    results.save_run(record_of(run))
    table = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, {**table, "schema": 2})
    with pytest.raises(DataError, match=r"schema 2 is newer than this program \(1\); upgrade"):
        results.load_run(run.run_id)


def test_fields_that_this_version_does_not_know_are_passed_over(
    results: Results, make_run: MakeRun
) -> None:
    run = make_run()
    path = results.run_folder(run.run_id) / "run.json"
    results.save_run(record_of(run))
    table = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, {**table, "colour": "red"})
    assert results.load_run(run.run_id) == record_of(run)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"schema": 1, "run_id"', "not a readable record"),
        ("[1, 2]", "not a record of gnnbench: it has no schema version"),
        ('{"run_id": "a"}', "not a record of gnnbench: it has no schema version"),
        ('{"schema": 1, "run_id": "a"}', "incomplete record"),
    ],
)
def test_a_damaged_record_is_named(
    results: Results, make_run: MakeRun, text: str, problem: str
) -> None:
    run = make_run()
    path = saved_as(results, run, text)
    with pytest.raises(DataError, match=problem) as caught:
        list(results.runs())
    assert str(path) in str(caught.value)


# Folders


def test_a_results_folder_is_made_if_absent(tmp_path: Path) -> None:
    assert Results(tmp_path / "a" / "b").cache("metis").is_dir()


def test_reading_an_absent_results_folder_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such results folder; `gnnbench run SUITE"):
        Results(tmp_path / "none", create=False)
    assert not (tmp_path / "none").exists()
