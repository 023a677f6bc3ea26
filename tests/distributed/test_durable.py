"""Durable runs that are killed go on behind the last commit, and learn what others learn.

GNNBENCH_KILLS is the number of kills at random moments; five by default.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the runtime extra")

from gnnbench.approaches.base import example
from gnnbench.spec import RunSpec

pytestmark = pytest.mark.distributed

HERE = Path(__file__).resolve().parent
KILLS = min(int(os.environ.get("GNNBENCH_KILLS", "5")), 50)
RUN = example(
    "out-of-core",
    1,
    kind="triples",
    model={"kind": "embedding", "decoder": "complex"},
    batch={"size": 50, "negatives": 20},
    training={"optimizer": "adagrad", "epochs": 30},
    knobs={"partitions": 6, "buffer": 2, "read_ahead": 1, "durable": 1},
)


def start(run: RunSpec, folder: Path) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    job = folder / "job.json"
    given = {"run": run.to_dict(), "cache": str(folder), "learnt": str(folder / "learnt.json")}
    job.write_text(json.dumps(given))
    return subprocess.Popen(
        [sys.executable, str(HERE / "durable_rank.py"), str(job)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(run: RunSpec, folder: Path) -> dict[str, Any]:
    process = start(run, folder)
    _, problem = process.communicate(timeout=300)
    assert process.returncode == 0, problem
    found: dict[str, Any] = json.loads((folder / "learnt.json").read_text())
    return found


def committed(process: subprocess.Popen[str], chance: random.Random) -> tuple[int, int]:
    """Kill a process at some moment of its training; periods at its start, and committed."""
    assert process.stdout is not None
    resumed = int(process.stdout.readline().split()[1])
    line, wanted = "", chance.randrange(1, 5)
    for _ in range(wanted):
        line = process.stdout.readline() or line
    time.sleep(chance.random() * 0.03)
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate(timeout=60)
    lines = [line, *rest.splitlines()]
    last = [int(text.split()[1]) + 1 for text in lines if text.startswith("committed")]
    return resumed, last[-1] if last else resumed


def test_kills_at_random_moments_lose_the_epoch_under_way_and_nothing_else(tmp_path: Path) -> None:
    """Invariant 23, and in the end what an unbroken run learns, to the bit."""
    wanted, chance = finished(RUN, tmp_path / "whole"), random.Random(5)
    known = 0
    for _ in range(KILLS):
        resumed, last = committed(start(RUN, tmp_path / "killed"), chance)
        # The commit may have happened and the word of it not have been written.
        assert known <= resumed <= known + 1
        known = max(last, resumed)
        if known >= RUN.training.epochs:
            break
    assert known > 0
    assert finished(RUN, tmp_path / "killed") == wanted


SUITE = """
name = "durable"
[datasets.facts]
generator = "synthetic_triples"
options = { num_entities = 60, num_relations = 4, num_triples = 600, spread = 3 }
[models.distmult]
kind = "embedding"
hidden = 8
decoder = "distmult"
[batch]
size = 64
negatives = 20
[training]
epochs = 4
optimizer = "adagrad"
lr = 0.1
evaluate_every = 1
[[runs]]
dataset = "facts"
model = "distmult"
approach = "out-of-core"
ranks = 1
knobs = { partitions = 4, buffer = 2, durable = 1 }
"""


def test_a_killed_run_is_continued_by_the_next_command(tmp_path: Path) -> None:
    """Its record has the periods of both processes, and its ledger holds to the plan."""
    (tmp_path / "s.toml").write_text(SUITE)

    def ran(results: str, *more: str, **environment: str) -> dict[str, Any]:
        subprocess.run(
            [
                *(sys.executable, "-m", "gnnbench", "run", "s.toml"),
                *("--results", results, "--device", "cpu", *more),
            ],
            cwd=tmp_path,
            env={**os.environ, **environment},
            capture_output=True,
            timeout=300,
            check=False,
        )
        [record] = (tmp_path / results / "runs").glob("*/run.json")
        found: dict[str, Any] = json.loads(record.read_text())
        return found

    killed = ran("r", GNNBENCH_TEST_FAULT="rank=0,period=2,kind=kill")
    assert killed["status"] == "failed"
    kept = list((tmp_path / "r").rglob("manifest.json"))
    assert [json.loads(path.read_text())["generation"] for path in kept] == [1]
    # A fault in period 1 would end a run that began at the beginning.
    again = ran("r", "--retry-failed", GNNBENCH_TEST_FAULT="rank=0,period=1,kind=kill")
    whole = ran("whole")
    assert again["status"] == whole["status"] == "ok", again["reason"]
    assert [p["loss"] for p in again["periods"]] == [p["loss"] for p in whole["periods"]]
    assert again["metrics"] == whole["metrics"]
    assert again["held"] == whole["held"]
    assert not list((tmp_path / "r").rglob("manifest.json"))
