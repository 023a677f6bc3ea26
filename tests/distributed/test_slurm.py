"""Runs as jobs of a real Slurm on this machine: submitted, finished, queued, cancelled, missing."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from slurm_cluster import missing, slurm

from gnnbench.results import Results

pytestmark = [
    pytest.mark.distributed,
    pytest.mark.skipif(bool(missing()), reason=missing() or "can be started"),
]

SUITE = """
name = "queued"
[datasets.small]
generator = "planted_partition"
options = { num_nodes = 200, mean_degree = 6, num_classes = 3, num_features = 8 }
[models.gcn]
hidden = 8
[training]
epochs = 2
[[runs]]
dataset = "small"
model = "gcn"
approach = ["single", "partition"]
ranks = [1, 2]
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    try:
        with slurm(tmp_path_factory.mktemp("slurm")) as found:
            yield {**found, "GLOO_SOCKET_IFNAME": "lo"}
    except RuntimeError as error:
        pytest.skip(str(error)[:300])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("suite")
    (made / "suite.toml").write_text(SUITE)
    return made


def submit(folder: Path, environment: dict[str, str], *more: str) -> dict[str, dict[str, Any]]:
    """Run the command; returns what became of each run."""
    command = [sys.executable, "-m", "gnnbench", "run", str(folder / "suite.toml")]
    command += ["--results", str(folder / "results"), "--launcher", "slurm", "--json"]
    done = subprocess.run(
        [*command, "--cluster", "cpu-2core", "--device", "cpu", *more],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {run["run_id"]: run for run in json.loads(done.stdout)["runs"]}


def wait_for(environment: dict[str, str], folder: Path, limit_s: float = 240.0) -> None:
    """Wait until no job is queued or running."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        done = subprocess.run(
            ["squeue", "--noheader"], env=environment, capture_output=True, text=True, check=True
        )
        if not done.stdout.strip():
            return
        time.sleep(1)
    logs = [path.read_text()[-500:] for path in (folder / "results" / "jobs").glob("*.log")]
    pytest.fail("jobs did not end: " + "\n".join(logs))


def words(found: dict[str, dict[str, Any]]) -> list[str]:
    return sorted(run["word"] for run in found.values())


def test_each_missing_run_is_one_job_and_a_resubmission_runs_only_what_is_missing(
    folder: Path, environment: dict[str, str]
) -> None:
    first = submit(folder, environment)
    # `single` on two ranks cannot run: three jobs.
    assert words(first) == ["skipped", "submitted", "submitted", "submitted"]
    wait_for(environment, folder)
    results = Results(folder / "results")
    ok = {record.run_id: record for record in results.runs() if record.status == "ok"}
    logs = [path.read_text()[-800:] for path in (folder / "results" / "jobs").glob("*.log")]
    assert len(ok) == 3, "\n".join(logs)
    (two,) = [record for record in ok.values() if record.run.ranks == 2]
    assert two.device["ranks_per_host"] == 2
    assert sorted(results.measured_ledger(two.run_id)) == [0, 1]
    again = submit(folder, environment)
    assert words(again) == ["kept", "kept", "kept", "skipped"]


def test_a_queued_run_is_left_alone_and_a_cancelled_one_is_marked_and_submitted_again(
    folder: Path, environment: dict[str, str]
) -> None:
    later = ("--repeats", "2", "--only", "*-partition-p2-*-r1", "--job", "begin=now+1hour")
    ((run_id, first),) = submit(folder, environment, *later).items()
    assert first["word"] == "submitted"
    queued = submit(folder, environment, *later)[run_id]
    assert (queued["word"], queued["job"]) == ("queued", first["job"])
    subprocess.run(["scancel", first["job"]], env=environment, check=True)
    now = submit(folder, environment, *later[:4])[run_id]
    assert (now["word"], now["before"]) == ("submitted", "CANCELLED")
    record = Results(folder / "results").load_run(run_id)
    assert record is not None
    assert record.status in ("skipped", "running", "ok")  # marked, unless its new job has begun
    wait_for(environment, folder)
    record = Results(folder / "results").load_run(run_id)
    assert record is not None and record.status == "ok"
    assert submit(folder, environment, *later[:4])[run_id]["word"] == "kept"
