"""Mistakes in suites and in the environment that passed without a word, or failed late."""

from __future__ import annotations

from pathlib import Path

import pytest

import gnnbench as gb
from gnnbench.errors import SpecError
from gnnbench.suites import find_suite

SUITE = """
name = "s"
[datasets.{name}]
profile = "reddit"
[models.m]
[[runs]]
dataset = "{name}"
model = "m"
approach = "single"
{more}
"""


def suite(path: Path, *, name: str = "a", more: str = "") -> str:
    path.write_text(SUITE.format(name=name, more=more), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"more": "seeds = []"}, r"runs\[0\]\.seeds: found an empty list"),
        ({"more": "seeds = [0, 1, 0]"}, r"runs\[0\]\.seeds: 0 is listed twice.*repeats = 2"),
        ({"name": "x" * 81}, "found 81 bytes, allowed 1..80"),
    ],
)
def test_lists_and_names_that_would_make_other_runs_are_refused(
    tmp_path: Path, values: dict[str, str], problem: str
) -> None:
    with pytest.raises(SpecError, match=problem):
        find_suite(suite(tmp_path / "s.toml", **values))


def test_seeds_and_names_as_they_should_be_are_kept(tmp_path: Path) -> None:
    made = find_suite(suite(tmp_path / "s.toml", name="x" * 80, more="seeds = [0, 1]\nrepeats = 2"))
    assert sorted(run.training.seed for run in made.runs) == [0, 0, 1, 1]


def test_functions_that_measure_refuse_loops_that_are_not_compiled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    for measure in (lambda: gb.run("demo", tmp_path), lambda: gb.calibrate(tmp_path / "c.toml")):
        with pytest.raises(SpecError, match="NUMBA_DISABLE_JIT: found 1"):
            measure()
