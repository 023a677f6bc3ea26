"""Ranks that another launcher has started: torchrun as it is, srun by its variables."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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
