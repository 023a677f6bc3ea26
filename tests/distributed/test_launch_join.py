"""Ranks that another launcher has started: torchrun as it is, srun by its variables."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gnnbench.cli import main
from gnnbench.results import Results
from gnnbench_runtime.join import World, joined

pytestmark = pytest.mark.distributed

_LAUNCHER_VARIABLES = (
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    *("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"),
)


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _LAUNCHER_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def suite(toy: None, native_graph: Path, tmp_path: Path) -> Path:
    path = tmp_path / "suite.toml"
    path.write_text(
        """
        name = "joined"
        [datasets.small]
        path = "graph"
        [models.gcn]
        [training]
        epochs = 2
        timeout_s = 3
        [[runs]]
        dataset = "small"
        model = "gcn"
        approach = "toy"
        ranks = [1, 2]
        """
    )
    return path


def torchrun(suite: Path, results: Path) -> subprocess.CompletedProcess[str]:
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, "-m", *launcher, "-m", "gnnbench", "run", str(suite)]
    return subprocess.run(
        [*command, "--results", str(results), "--device", "cpu"],
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_ranks_of_torchrun_train_what_fits_them_and_one_of_them_talks(
    suite: Path, tmp_path: Path
) -> None:
    done = torchrun(suite, tmp_path / "results")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["skipped", "ok", "2"]
    assert done.stdout.count("this launch has 2 ranks, the run asks for 1") == 1
    results = Results(tmp_path / "results")
    (record,) = results.runs()
    assert [epoch["bytes"] for epoch in record.periods] == [{"all_reduce/sync": 960}] * 2
    assert sorted(results.measured_ledger(record.run_id)) == [0, 1]


@pytest.mark.parametrize("kind", ["hang", "raise"])
def test_the_rank_that_fails_under_torchrun_is_the_one_recorded(
    suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("GNNBENCH_TEST_FAULT", f"rank=1,period=1,kind={kind}")
    done = torchrun(suite, tmp_path / "results")
    assert done.returncode != 0
    (record,) = Results(tmp_path / "results").runs()
    assert (record.status, record.failed_rank) == ("failed", 1)


def test_a_process_alone_joins_nothing() -> None:
    assert joined() is None


def test_srun_is_known_by_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_PROCID", "5")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    monkeypatch.setenv("SLURM_LOCALID", "1")
    monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", "4(x2)")
    assert joined() == World(rank=5, size=8, local_rank=1, local_size=4)


def test_a_batch_script_outside_of_srun_is_no_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_NTASKS", "8")
    assert joined() is None


def alone(suite: Path, rank: int, port: int) -> subprocess.CompletedProcess[str]:
    """Run one of two ranks of a launch; the other never comes."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return subprocess.run(
        [sys.executable, "-m", "gnnbench", "run", str(suite), "--results", str(suite.parent / "r")],
        env={
            **os.environ,
            **place,
            **{"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"},
            "GNNBENCH_MEETING_S": "2",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    assert "Traceback" not in done.stderr and "a bug" not in done.stderr, done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_a_port_that_is_taken_is_one_line(suite: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = alone(suite, 0, port)
    assert done.returncode == 2
    assert last_line(done).endswith(f"127.0.0.1:{port} is taken: set another MASTER_PORT")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_peer_that_is_never_reached_is_one_line(suite: Path, rank: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    done = alone(suite, rank, port)
    assert done.returncode == 1
    assert f"rank {rank}: the ranks do not meet at 127.0.0.1:{port}" in last_line(done)
    assert list(Results(suite.parent / "r").runs()) == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"MASTER_PORT": "x"}, "MASTER_PORT: found 'x', allowed 1..65535"),
        ({"GNNBENCH_MEETING_S": "soon"}, "GNNBENCH_MEETING_S: found 'soon'"),
        ({"RANK": "2"}, "RANK=2: found with WORLD_SIZE=2"),
        ({"MASTER_ADDR": ""}, "MASTER_ADDR is not set"),
    ],
)
def test_a_launch_that_says_nonsense_is_refused(
    suite: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, str],
    problem: str,
) -> None:
    launch = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    for name, value in {**launch, **changes}.items():
        monkeypatch.setenv(name, value)
    assert main(["run", str(suite), "--results", str(suite.parent / "r")]) == 2
    assert problem in capsys.readouterr().err
