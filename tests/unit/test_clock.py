"""The wall clock may jump: it dates records, and nothing is timed, judged or removed by it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gnnbench import owner
from gnnbench.data import source
from gnnbench.data.formats import native
from gnnbench.data.generators import planted_partition
from gnnbench.data.source import Library
from gnnbench.errors import Busy, DataError
from gnnbench.spec import DatasetRef

ROOT = Path(__file__).resolve().parents[2]
WALL = {
    *(("time", name) for name in ("time", "time_ns", "localtime", "gmtime", "ctime")),
    *(("datetime", name) for name in ("now", "utcnow", "today")),
    ("date", "today"),
}
DATES = {
    "gnnbench/launchers/queue.py": "when a job was submitted",
    "runtime/gnnbench_runtime/launch.py": "when a run began",
    "runtime/gnnbench_runtime/calibration/fits.py": "when a machine was calibrated",
}
"""Files that ask for the date, and what for."""


def wall_clock_calls(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
            continue
        if (node.value.id, node.attr) in WALL:
            yield f"{node.value.id}.{node.attr}"


def test_only_dates_come_from_the_wall_clock() -> None:
    roots = ("gnnbench", "runtime", "simulator", "reports")
    found = {
        str(path.relative_to(ROOT)): calls
        for root in roots
        for path in (ROOT / root).rglob("*.py")
        if (calls := list(wall_clock_calls(path)))
    }
    assert found.keys() == DATES.keys()
    assert all(calls == ["datetime.now"] for calls in found.values())


@pytest.mark.parametrize("moved", [0.0, 1e11], ids=["back", "forward"])
def test_an_owner_is_judged_by_its_life_and_not_by_the_age_of_its_file(
    tmp_path: Path, moved: float
) -> None:
    lock, held = tmp_path / "lock", tmp_path / "kept~"
    hold = (
        "import sys; from pathlib import Path; from gnnbench import owner\n"
        "with owner.owned(Path(sys.argv[1]), 'works'), open(sys.argv[2], 'w') as file:\n"
        "    owner.lock(file.fileno()); print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", hold, str(lock), str(held)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    for path in (lock, held):
        os.utime(path, (moved, moved))
    with pytest.raises(Busy), owner.owned(lock, "works"):
        pass
    owner.sweep(tmp_path, "*~")
    assert held.exists()
    process.kill()
    process.communicate()
    with owner.owned(lock, "works"):
        owner.sweep(tmp_path, "*~")
    assert not held.exists()


def test_an_array_that_was_changed_while_the_clock_was_behind_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = native.save(planted_partition(40, 4, 3, 5, seed=1), tmp_path / "native")
    library, ref = Library([tmp_path], tmp_path / "cache"), DatasetRef(path="native")

    def stamps(place: Path) -> list[tuple[str, int, int, int]]:
        stats = [(path, path.stat()) for path in sorted(place.iterdir())]
        # As if every change had come before that of meta.json.
        return [
            (str(path), s.st_size, s.st_mtime_ns, s.st_ctime_ns if path.suffix == ".json" else 0)
            for path, s in stats
        ]

    monkeypatch.setattr(source, "_stamps", stamps)
    assert library.dataset(ref).digest
    np.save(folder / "features.npy", np.ones((40, 5), np.float32))
    os.utime(folder / "features.npy", (0, 0))
    with pytest.raises(DataError, match="sha256"):
        library.dataset(ref)
