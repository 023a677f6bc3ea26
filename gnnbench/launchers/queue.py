"""One job per missing run: what is finished is kept, what is queued is left, the rest submitted.

    RESULTS/jobs/<run_id>.json      the last job of a run: its number, and when it was submitted
    RESULTS/jobs/<run_id>.sbatch    its batch script; logs lie beside it

The record of a run is written by its job, whole or not at all. A job that ended without one was
cancelled, ran out of its limits or lost its host; its run is marked, and submitted again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from gnnbench.atomic import write_json, write_text
from gnnbench.launchers import slurm
from gnnbench.launchers.emit import emit
from gnnbench.launchers.job import JobRequest
from gnnbench.results import Results, RunRecord
from gnnbench.spec import RunSpec

KEPT, QUEUED, SUBMITTED = "kept", "queued", "submitted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """The last job of a run."""

    run_id: str
    job: str
    submitted_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """What became of a run: kept, queued or submitted; `before` is how its last job ended."""

    run_id: str
    word: str
    job: str = ""
    before: str = ""
    status: str = ""


def place(
    run: RunSpec,
    job: JobRequest,
    results: Results,
    options: Mapping[str, str],
    *,
    retry_failed: bool = False,
) -> Placed:
    """Submit a run's job, unless the run is finished or its job may still train.

    Args:
        run: with its dataset identified: its id is that of its record.
        job: what it asks for.
        results: a folder that all hosts see.
        options: of sbatch.
        retry_failed: submit runs again whose training failed or diverged.

    Raises:
        SpecError: Slurm refuses the job.
        GnnbenchError: Slurm does not answer.
    """
    finished = results.finished(run, retry_failed=retry_failed)
    if finished is not None:
        return Placed(run_id=run.run_id, word=KEPT, status=finished.status)
    before = ""
    last = last_submission(results, run.run_id)
    if last is not None:
        state = slurm.state(last.job)
        if state in slurm.ACTIVE:
            return Placed(run_id=run.run_id, word=QUEUED, job=last.job, before=state)
        # The job may have written its record since it was looked for.
        finished = results.finished(run, retry_failed=retry_failed)
        if finished is not None:
            return Placed(run_id=run.run_id, word=KEPT, status=finished.status)
        before = state
        _mark(results, run, last, state)
    _folder(results).mkdir(parents=True, exist_ok=True)
    script = _folder(results) / f"{run.run_id}.sbatch"
    log = _folder(results) / f"{run.run_id}-%j.log"
    write_text(script, emit("slurm", job, {"output": str(log), **options}))
    number = slurm.submit(script)
    write_json(
        _folder(results) / f"{run.run_id}.json",
        asdict(
            Submission(
                run_id=run.run_id,
                job=number,
                submitted_at=datetime.now(UTC).isoformat(timespec="seconds"),
            )
        ),
    )
    return Placed(run_id=run.run_id, word=SUBMITTED, job=number, before=before)


def last_submission(results: Results, run_id: str) -> Submission | None:
    """The last job of a run; None where there is none, or its file cannot be read."""
    path = _folder(results) / f"{run_id}.json"
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        return Submission(**{k: str(table[k]) for k in ("run_id", "job", "submitted_at")})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _folder(results: Results) -> Path:
    return (results.folder / "jobs").absolute()


def _mark(results: Results, run: RunSpec, last: Submission, state: str) -> None:
    """Record that a run has no result, so that `compare` says why; a result is never replaced."""
    results.save_run(
        RunRecord(
            run_id=run.run_id,
            config_id=run.config_id,
            spec=run.to_dict(),
            non_defaults=run.non_defaults(),
            status="skipped",
            reason=f"cancelled: job {last.job} of Slurm ended as {state} without a result",
        )
    )
