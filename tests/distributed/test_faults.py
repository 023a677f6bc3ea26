"""Ranks that die, hang or run out: a failure with rank, phase and reason; all others end."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gnnbench.errors import disk_is_full
from gnnbench.results import Results, RunRecord
from gnnbench.spec import RunSpec
from gnnbench_runtime import faults

pytestmark = pytest.mark.distributed
Maker = Callable[..., RunSpec]
Train = Callable[..., RunRecord]


@pytest.fixture
def broken(
    toy_run: Maker, train: Train, results: Results, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., RunRecord]:
    """Return what runs two ranks of which rank 1 meets a fault as epoch 1 begins."""

    def run(kind: str, timeout_s: float = 60.0) -> RunRecord:
        monkeypatch.setenv(faults.VARIABLE, f"rank=1,period=1,kind={kind}")
        spec = toy_run(2, training={"timeout_s": timeout_s})
        record = train(spec)
        assert record.status == "failed"
        assert record.failed_rank == 1
        assert record.failed_phase == "train"
        assert "\n" not in record.reason
        assert results.load_run(spec.run_id) == record
        assert _workers_of(os.getpid()) == []
        return record

    return run


def test_a_killed_rank_is_named_with_its_signal_and_its_place(
    broken: Callable[..., RunRecord],
) -> None:
    assert broken("kill").reason.startswith("killed by SIGKILL")


def test_an_exception_is_one_line_and_its_trace_lies_beside_the_record(
    broken: Callable[..., RunRecord], results: Results
) -> None:
    record = broken("raise")
    assert record.reason == "RuntimeError: an injected fault"
    log = (results.run_folder(record.run_id) / "error-rank1.log").read_text()
    assert "Traceback" in log
    assert "an injected fault" in log


def test_running_out_of_memory_says_what_was_asked_for_and_held(
    broken: Callable[..., RunRecord],
) -> None:
    reason = broken("oom").reason
    assert reason.startswith("out of memory")
    assert "PiB" in reason
    assert "the rank held" in reason


def test_a_full_disk_is_raised_and_leaves_the_run_unfinished_not_failed(
    toy_run: Maker, train: Train, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(faults.VARIABLE, "rank=1,period=1,kind=disk")
    with pytest.raises(OSError, match="the disk is full") as error:
        train(toy_run(2))
    assert disk_is_full(error.value)
    (record,) = results.runs()
    assert (record.status, results.finished(toy_run(2))) == ("running", None)


def test_a_hung_rank_is_blamed_and_not_the_one_that_waits_for_it(
    broken: Callable[..., RunRecord], results: Results
) -> None:
    begin = time.monotonic()
    record = broken("hang", timeout_s=2.0)
    assert time.monotonic() - begin < 60
    assert record.reason.startswith("rank 1 hung: no step ended for")
    assert "rank 0 waits in" in record.reason
    # The hung rank's own stack shows where it is.
    assert "inject" in (results.run_folder(record.run_id) / "error-rank1.log").read_text()


def test_a_clock_that_jumps_neither_blames_a_rank_nor_moves_its_times(
    toy_run: Maker, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    year_s, jumps = 3.2e7, itertools.count()
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + year_s * (-1) ** next(jumps))
    record = train(toy_run(2))
    assert record.status == "ok", record.reason
    assert 0 < record.wall_s < 60
    assert all(0 < period["seconds"] < 60 for period in record.periods)


def test_what_was_measured_before_a_failure_stays_readable(
    broken: Callable[..., RunRecord], results: Results
) -> None:
    record = broken("kill")
    rows = results.measured_ledger(record.run_id)[0]
    assert {row.period for row in rows} == {0}


def test_a_fault_that_does_not_exist_is_an_error_and_not_a_healthy_run(
    toy_run: Maker, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(faults.VARIABLE, "rank=0,period=0,kind=kil")
    record = train(toy_run(1))
    assert record.status == "failed"
    assert "did you mean 'kill'" in record.reason


def test_ctrl_c_ends_all_ranks_exits_130_and_leaves_the_run_to_be_done(
    toy: None, native_graph: Path, tmp_path: Path
) -> None:
    command = _command(tmp_path, native_graph, pause_s=0.2, epochs=1000)
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    # Tests that a shell starts in the background ignore Ctrl-C, and so would their commands.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    finally:
        signal.signal(signal.SIGINT, before)
    _until(lambda: len(_workers_of(process.pid)) == 2 and _has_rows(tmp_path))
    ranks = _workers_of(process.pid)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert said.strip() == "interrupted: finished runs are kept"
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks)
    (record,) = Results(tmp_path / "results").runs()
    assert (record.status, record.reason) == ("running", "interrupted")
    assert not list(tmp_path.glob("gnnbench-*"))


def test_ranks_do_not_outlive_a_launcher_that_is_killed(
    toy: None, native_graph: Path, tmp_path: Path
) -> None:
    command = _command(tmp_path, native_graph, pause_s=0.2, epochs=1000)
    # A killed launcher cannot remove its scratch folder; that is the test's to do.
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)
    _until(lambda: len(_workers_of(process.pid)) == 2 and _has_rows(tmp_path))
    ranks = _workers_of(process.pid)
    process.kill()
    process.wait()
    _until(lambda: not any(_is_running(pid) for pid in ranks))


def _command(folder: Path, graph: Path, *, pause_s: float, epochs: int) -> list[str]:
    suite = folder / "suite.toml"
    suite.write_text(
        f"""
        name = "endless"
        [datasets.small]
        path = "{graph}"
        [models.gcn]
        [training]
        epochs = {epochs}
        [[runs]]
        dataset = "small"
        model = "gcn"
        approach = "toy"
        ranks = 2
        knobs = {{ pause_s = {pause_s} }}
        """
    )
    results = str(folder / "results")
    return [sys.executable, "-m", "gnnbench", "run", str(suite), "--results", results]


def _workers_of(pid: int) -> list[int]:
    """Return the living ranks that a process has started."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        found = [int(child) for child in children.read_text().split()]
    except OSError:
        return []
    return [child for child in found if _is_running(child) and "worker" in _command_line(child)]


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def _has_rows(folder: Path) -> bool:
    ledgers = list(folder.glob("results/runs/*/ledger-rank0.csv"))
    return bool(ledgers) and len(ledgers[0].read_text().splitlines()) > 2


def _until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
