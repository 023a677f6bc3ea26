"""Commands killed at random moments lose no record, leave nothing behind and can be resumed.

`make kill` repeats this a thousand times: GNNBENCH_KILLS is the number of kills.
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

import pytest

from gnnbench.results import Results

pytestmark = pytest.mark.distributed

KILLS = int(os.environ.get("GNNBENCH_KILLS", "20"))
SUITE = """
name = "killed"
[datasets.p]
generator = "planted_partition"
options = { num_nodes = 60, mean_degree = 4, num_classes = 3, num_features = 8 }
[models.gcn]
hidden = 4
[training]
epochs = 2
[[runs]]
dataset = "p"
model = "gcn"
approach = ["single", "partition"]
ranks = 1
seeds = [0, 1]
"""


def command(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "gnnbench", *words],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder / "tmp")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def ok_records(folder: Path) -> dict[str, bytes]:
    """The bytes of every record that says ok; a record that is no JSON fails the test."""
    found = {}
    for path in sorted((folder / "r").glob("*/*/*.json")):
        content = path.read_bytes()
        if json.loads(content)["status"] == "ok":
            found[str(path)] = content
    return found


def test_random_kills_lose_no_record_and_leave_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "s.toml").write_text(SUITE)
    jobs = (
        ("run", "s.toml", "--results", "r", "--device", "cpu"),
        ("predict", "s.toml", "--results", "r"),
        ("report", "r"),
    )
    chance = random.Random(14)
    for number in range(KILLS):
        before = ok_records(tmp_path)
        # Training takes longest and keeps most, so it is killed most often.
        words = jobs[chance.choice((0, 0, 1, 2) if (tmp_path / "r").is_dir() else (0,))]
        process = command(tmp_path, *words)
        time.sleep(chance.uniform(0.05, 1.5))
        process.send_signal(chance.choice((signal.SIGKILL, signal.SIGTERM)))
        _, said = process.communicate(timeout=30)
        assert b"Traceback" not in said, (number, said.decode())
        after = ok_records(tmp_path)
        runs = {path: text for path, text in before.items() if "/runs/" in path}
        assert runs.items() <= after.items(), number
        assert before.keys() <= after.keys(), number
    last = command(tmp_path, *jobs[0])
    last.communicate(timeout=120)
    assert last.returncode == 0
    results = Results(tmp_path / "r")
    assert [record.status for record in results.runs()] == ["ok"] * 4
    assert not results.passed_over
    assert not list((tmp_path / "tmp").glob("gnnbench-*~"))
    assert not list((tmp_path / "r").rglob("*~"))
    assert not list((tmp_path / "r").rglob(".owner"))
