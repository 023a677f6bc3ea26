"""A suite goes on after a failure, and goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gnnbench.cli import main
from gnnbench.results import Results

pytestmark = pytest.mark.distributed


@pytest.fixture
def suite(toy: None, native_graph: Path, tmp_path: Path) -> Path:
    path = tmp_path / "suite.toml"
    path.write_text(
        """
        name = "resume"
        [datasets.small]
        path = "graph"
        [datasets.absent]
        path = "not/there"
        [models.gcn]
        [training]
        epochs = 2
        timeout_s = 60
        [[runs]]
        dataset = ["small", "absent"]
        model = "gcn"
        approach = "toy"
        ranks = [1, 2]
        """
    )
    return path


@pytest.fixture
def run(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, dict[str, dict[str, object]]]]:
    """Return what runs the suite and hands back the exit code and the rows by a short name."""

    def call(*more: str) -> tuple[int, dict[str, dict[str, object]]]:
        results = str(tmp_path / "results")
        code = main(["run", str(suite), "--results", results, "--device", "cpu", "--json", *more])
        rows = json.loads(capsys.readouterr().out)["runs"]
        return code, {"-".join(r["run_id"].split("-")[::3][:2]): r for r in rows}

    return call


def test_finished_runs_are_not_run_twice(run: Callable[..., tuple[int, dict]]) -> None:
    code, first = run("--only", "small-*")
    assert code == 0
    assert [row["kept"] for row in first.values()] == [False, False]
    code, second = run("--only", "small-*")
    assert code == 0
    assert [row["kept"] for row in second.values()] == [True, True]
    assert [row["wall_s"] for row in second.values()] == [row["wall_s"] for row in first.values()]


def test_the_suite_continues_after_a_failure_and_the_exit_code_is_one(
    run: Callable[..., tuple[int, dict]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GNNBENCH_TEST_FAULT", "rank=0,period=0,kind=raise,run=toy-p1")
    code, rows = run("--only", "small-*")
    assert code == 1
    assert [rows[key]["status"] for key in ("small-p1", "small-p2")] == ["failed", "ok"]


def test_a_failed_run_is_kept_unless_asked_to_retry(
    run: Callable[..., tuple[int, dict]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GNNBENCH_TEST_FAULT", "rank=0,period=0,kind=raise")
    run("--only", "small-*-p1-*")
    monkeypatch.delenv("GNNBENCH_TEST_FAULT")
    code, rows = run("--only", "small-*-p1-*")
    assert (code, rows["small-p1"]["kept"], rows["small-p1"]["status"]) == (1, True, "failed")
    code, rows = run("--only", "small-*-p1-*", "--retry-failed")
    assert (code, rows["small-p1"]["kept"], rows["small-p1"]["status"]) == (0, False, "ok")


def test_an_interrupted_run_is_run_again(
    run: Callable[..., tuple[int, dict]], tmp_path: Path
) -> None:
    run("--only", "small-*-p1-*")
    results = Results(tmp_path / "results")
    (record,) = results.runs()
    (results.run_folder(record.run_id) / "run.json").unlink()
    record.status, record.reason = "running", "interrupted"
    results.save_run(record)
    _, rows = run("--only", "small-*-p1-*")
    assert (rows["small-p1"]["kept"], rows["small-p1"]["status"]) == (False, "ok")


def test_a_missing_graph_is_skipped_with_a_reason_that_says_what_to_do(
    run: Callable[..., tuple[int, dict]],
) -> None:
    code, rows = run("--only", "absent-*")
    assert code == 0
    assert {row["status"] for row in rows.values()} == {"skipped"}
    assert "not/there" in rows["absent-p1"]["reason"]
    assert "--data" in rows["absent-p1"]["reason"]


def test_a_truncated_graph_fails_its_runs_and_no_others(
    run: Callable[..., tuple[int, dict]], native_graph: Path
) -> None:
    file = native_graph / "indices.npy"
    file.write_bytes(file.read_bytes()[:-40])
    code, rows = run()
    assert code == 1
    assert {rows[key]["status"] for key in ("small-p1", "small-p2")} == {"failed"}
    assert "indices.npy" in str(rows["small-p1"]["reason"])
    assert {rows[key]["status"] for key in ("absent-p1", "absent-p2")} == {"skipped"}


def test_a_pattern_that_matches_nothing_is_wrong_usage(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["run", str(suite), "--results", str(tmp_path / "r"), "--only", "nothing"])
    assert code == 2
    assert "matches no run" in capsys.readouterr().err


def test_repeats_are_interleaved(suite: Path) -> None:
    from gnnbench.suites import find_suite

    runs = find_suite(str(suite)).chosen(only="small-*", repeats=2)
    assert [(r.ranks, r.repeat) for r in runs] == [(1, 0), (2, 0), (1, 1), (2, 1)]
