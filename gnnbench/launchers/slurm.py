"""Submission to Slurm through its own programs: sbatch, scontrol, sacct."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from gnnbench.errors import GnnbenchError, SpecError

ACTIVE = frozenset(
    {
        *("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED"),
        *("REQUEUED", "REQUEUE_HOLD", "RESIZING", "SIGNALING", "STAGE_OUT"),
    }
)
"""States of a job that may still train."""
GONE = "GONE"
"""State of a job that Slurm has forgotten."""
_TIMEOUT_S = 60


def require() -> None:
    """Raises SpecError where this machine has no Slurm to submit to."""
    if shutil.which("sbatch") is None:
        raise SpecError(
            "--launcher slurm: no sbatch on this machine; run it on a login node, or write job "
            "files with --emit slurm"
        )


def submit(script: Path) -> str:
    """Submit a batch script; returns the job's number. Raises SpecError with Slurm's reason."""
    done = _call(["sbatch", "--parsable", str(script)])
    if done.returncode != 0:
        raise SpecError(f"sbatch refused {script.name}: {_reason(done)}")
    return done.stdout.strip().partition(";")[0]


def state(job: str) -> str:
    """The state of a job, such as "RUNNING" or "TIMEOUT"; `GONE` if no one remembers it."""
    done = _call(["scontrol", "show", "job", "-o", job])
    found = re.search(r"\bJobState=(\w+)", done.stdout)
    if done.returncode == 0 and found:
        return found[1]
    if "Unable to contact" in done.stderr:
        raise GnnbenchError(f"Slurm does not answer: {_reason(done)}; try again later")
    if shutil.which("sacct") is not None:
        done = _call(["sacct", "--noheader", "--allocations", "-j", job, "--format=State%30"])
        words = done.stdout.split()
        if done.returncode == 0 and words:
            return words[0].rstrip("+")
    return GONE


def _call(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        raise GnnbenchError(
            f"{command[0]} has not answered for {_TIMEOUT_S} s: try again later"
        ) from None


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {done.returncode}"
