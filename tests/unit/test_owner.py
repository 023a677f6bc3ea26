"""Ownership ends with the process; what dead owners have left is removed, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gnnbench import owner
from gnnbench.atomic import write_text
from gnnbench.errors import Busy

# Owns the file or folder, says so, and waits to be killed.
HOLD = {
    "file": "from gnnbench.owner import owned as take; args = (Path(sys.argv[1]), 'trains')",
    "scratch": "from gnnbench.owner import scratch as take; args = ('work-', Path(sys.argv[1]))",
}


def holder(kind: str, path: Path) -> subprocess.Popen[str]:
    block = "with take(*args): print(1, flush=True); sys.stdin.read()"
    code = f"import sys; from pathlib import Path; {HOLD[kind]}\n{block}"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], text=True, **pipes)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_a_second_owner_is_refused_with_the_name_of_the_first_until_that_dies(tmp_path) -> None:
    path = tmp_path / "runs" / ".owner"
    first = holder("file", path)
    with pytest.raises(Busy, match=f"process {first.pid} on .* trains: wait"):
        owner.owned(path, "trains").__enter__()
    end(first)
    assert path.exists()
    with owner.owned(path, "trains"):
        assert f"process {os.getpid()} on" in path.read_text()
    assert not path.exists()


def test_scratch_folders_of_dead_owners_go_and_those_of_living_ones_stay(tmp_path) -> None:
    alive, dead = holder("scratch", tmp_path), holder("scratch", tmp_path)
    users = tmp_path / "work-of-a-user"
    users.mkdir()
    (before,) = set(tmp_path.glob("work-*~")) - _held_by(alive, tmp_path)
    end(dead)
    with owner.scratch("work-", tmp_path) as mine:
        assert not before.exists()
        assert len(list(tmp_path.glob("work-*~"))) == 2
        assert mine.is_dir()
    assert users.is_dir()
    end(alive)


def _held_by(alive: subprocess.Popen[str], folder: Path) -> set[Path]:
    """The scratch folders that a process has open."""
    links = Path(f"/proc/{alive.pid}/fd").iterdir()
    return {Path(os.readlink(link)) for link in links} & set(folder.glob("work-*~"))


def test_half_written_files_of_dead_writers_are_swept_by_the_next_start(tmp_path) -> None:
    (tmp_path / ".run.json.abc~").write_text("{")
    write_text(tmp_path / "run.json", "whole")
    owner.sweep(tmp_path, ".*~")
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_link_is_never_followed_when_sweeping(tmp_path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / ".trap~").symlink_to(tmp_path / "precious")
    owner.sweep(tmp_path, ".*~")
    assert (tmp_path / "precious").is_dir()
