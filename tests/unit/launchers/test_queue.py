"""Missing runs are submitted, finished and queued ones are not, cancelled ones are marked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gnnbench.errors import GnnbenchError, SpecError
from gnnbench.launchers import slurm
from gnnbench.launchers.job import JobRequest
from gnnbench.launchers.queue import Placed, last_submission, place
from gnnbench.results import Results, RunRecord
from gnnbench.spec import DatasetRef, ModelSpec, RunSpec, TrainingSpec

RUN = RunSpec(
    suite="s",
    dataset=DatasetRef(name="d", generator="uniform", digest="0123"),
    model=ModelSpec(name="m"),
    training=TrainingSpec(),
    approach="single",
    ranks=1,
)
JOB = JobRequest(
    run_id=RUN.run_id,
    command=("python", "-m", "gnnbench"),
    ranks=1,
    ranks_per_host=1,
    memory_bytes=2**30,
    limit_s=60,
    basis="predicted",
)


class Slurm:
    """Slurm's programs as scripts, whose answers a test sets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.next, self.jobs = 7, dict[str, str]()
        self.write("sbatch", 'echo 7; echo "$@" >> submitted')
        self.state("7", "PENDING")

    def write(self, name: str, body: str) -> None:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\ncd {self.folder}\n{body}\n")
        path.chmod(0o755)

    def state(self, job: str, state: str) -> None:
        self.write("scontrol", f"echo JobId={job} JobName=x JobState={state} Reason=None")

    @property
    def submitted(self) -> int:
        path = self.folder / "submitted"
        return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))  # a Slurm of this machine is not asked
    return Slurm(folder)


@pytest.fixture
def put(tmp_path: Path) -> Callable[[], Placed]:
    results = Results(tmp_path / "results")
    return lambda: place(RUN, JOB, results, {})


def _record(status: str) -> RunRecord:
    return RunRecord(run_id=RUN.run_id, config_id=RUN.config_id, spec=RUN.to_dict(), status=status)


def test_a_missing_run_is_submitted_once(
    cluster: Slurm, put: Callable[[], Placed], tmp_path: Path
) -> None:
    first = put()
    assert (first.word, first.job) == ("submitted", "7")
    for state in ("PENDING", "RUNNING", "COMPLETING"):
        cluster.state("7", state)
        assert (put().word, put().before) == ("queued", state)
    assert cluster.submitted == 1
    last = last_submission(Results(tmp_path / "results"), RUN.run_id)
    assert last is not None and last.job == "7"
    script = (tmp_path / "results" / "jobs" / f"{RUN.run_id}.sbatch").read_text()
    assert "#SBATCH --mem=1024M" in script


@pytest.mark.parametrize("state", ["CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL"])
def test_a_run_whose_job_ended_without_a_result_is_marked_and_submitted_again(
    cluster: Slurm, put: Callable[[], Placed], tmp_path: Path, state: str
) -> None:
    put()
    cluster.state("7", state)
    again = put()
    assert (again.word, again.before) == ("submitted", state)
    (record,) = Results(tmp_path / "results").runs()
    assert record.status == "skipped"
    assert record.reason == f"cancelled: job 7 of Slurm ended as {state} without a result"
    assert cluster.submitted == 2


def test_a_finished_run_is_kept_and_never_replaced_by_a_mark(
    cluster: Slurm, put: Callable[[], Placed], tmp_path: Path
) -> None:
    put()
    Results(tmp_path / "results").save_run(_record("ok"))
    cluster.state("7", "COMPLETED")
    kept = put()
    assert (kept.word, kept.status) == ("kept", "ok")
    assert cluster.submitted == 1


def test_a_job_that_no_one_remembers_is_gone(cluster: Slurm, put: Callable[[], Placed]) -> None:
    put()
    cluster.write("scontrol", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert put().before == slurm.GONE


def test_a_slurm_that_does_not_answer_leaves_all_as_it_is(
    cluster: Slurm, put: Callable[[], Placed]
) -> None:
    put()
    cluster.write("scontrol", "echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(GnnbenchError, match="Slurm does not answer"):
        put()
    assert cluster.submitted == 1


def test_what_slurm_refuses_is_told_in_its_words(
    cluster: Slurm, put: Callable[[], Placed], tmp_path: Path
) -> None:
    cluster.write("sbatch", "echo 'sbatch: error: invalid partition specified: gpu' >&2; exit 1")
    with pytest.raises(SpecError, match="invalid partition specified"):
        put()
    assert last_submission(Results(tmp_path / "results"), RUN.run_id) is None


def test_without_slurm_a_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SpecError, match="write job files with --emit slurm"):
        slurm.require()
