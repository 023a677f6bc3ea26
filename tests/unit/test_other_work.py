"""Processors that other programs keep busy: own work is not among it, that of others is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gnnbench import other_work
from gnnbench.other_work import OtherWork, busy_ticks

LINE = "cpu{number} {user} 0 10 1000 50 1 2 {stolen} 0 0\n"


@pytest.fixture
def counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file of counters of processors 0 and 1, of which only 0 is ours."""
    path = tmp_path / "stat"
    monkeypatch.setattr(other_work, "STAT", path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    monkeypatch.setattr(os, "sysconf", lambda _: 100)
    yield path


def write(path: Path, first: int, second: int, stolen: int = 0) -> None:
    path.write_text(
        "cpu  7 7 7 7 7 7 7 7 7 7\n"
        + LINE.format(number=0, user=first, stolen=stolen)
        + LINE.format(number=1, user=second, stolen=0)
        + "intr 9\n"
    )


def test_ticks_are_those_in_which_a_processor_worked_or_was_taken_away() -> None:
    assert busy_ticks(LINE.format(number=3, user=100, stolen=40)) == 100 + 10 + 1 + 2 + 40


def test_work_of_others_is_what_is_left_of_our_processors(
    counters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter((10.0, 20.0))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    used = iter((3.0, 5.0))
    monkeypatch.setattr(os, "times", lambda: os.times_result((next(used), 0.0, 0.0, 0.0, 0.0)))
    write(counters, first=0, second=0)
    watch = OtherWork()
    write(counters, first=500, second=900, stolen=200)  # 7 s of processor 0, of which 2 are ours
    assert watch.processors == pytest.approx(0.5)


def test_without_counters_nothing_is_said(counters: Path) -> None:
    assert OtherWork().processors is None


@pytest.mark.skipif(not other_work.STAT.exists(), reason="no counters of processors here")
def test_a_child_that_has_ended_is_own_work() -> None:
    watch = OtherWork()
    busy = "import time; end = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
    subprocess.run([sys.executable, "-c", busy], check=True)
    own = watch._read()
    assert own is not None and watch._start is not None
    assert own["own"] - watch._start["own"] >= 0.5
