"""The guard: a grid of predictions is compared with that of another revision."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from gnnbench.approaches.names import APPROACHES

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "guard.py"


def _loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("guard", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["guard"] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


guard = _loaded()
Row = guard.Row

OLD = [
    Row("a", 1.0, 0.8, 1.3),
    Row("b", 1.0, 0.8, 1.3),
    Row("c", 1.0, 0.8, 1.3),
    Row("d", reason="too small"),
    Row("e", reason="too small"),
    Row("gone", 1.0, 0.8, 1.3),
]
NOW = [
    Row("a", 1.25, 1.0, 1.5),
    Row("b", 1.35, 1.0, 1.5),
    Row("c", reason="cannot"),
    Row("d", 1.0, 0.8, 1.3),
    Row("e", reason="other words"),
    Row("new", 1.0, 0.8, 1.3),
]


def test_what_broke_moved_or_is_gone_is_listed_and_the_rest_is_counted() -> None:
    changes, counts = guard.compare(OLD, NOW)
    assert {c.key: c.what.split(":")[0].split(" s ")[0] for c in changes} == {
        "b": "1",
        "c": "refused now",
        "gone": "gone from the grid",
    }
    assert "1.35 times" in changes[0].what
    assert counts == {
        "within the interval": 1,
        "moved by more than the interval": 1,
        "worked before, refused now": 1,
        "works only now": 1,
        "refused in both": 1,
        "new in the grid": 1,
        "gone from the grid": 1,
    }
    assert guard.compare(OLD, OLD)[0] == []


def test_a_baseline_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "baseline.csv"
    guard.write(path, OLD)
    assert guard.read(path) == OLD


def test_the_grid_is_every_approach_on_several_devices_ranks_and_graphs() -> None:
    keys = [key for name in APPROACHES.names() for key, _ in guard.runs_of(name)]
    assert len(keys) == len(set(keys))
    assert len(keys) * len(guard.CLUSTERS) >= 1_800
    assert {key.split("|")[0] for key in keys} == set(APPROACHES.names())


def test_an_approach_is_predicted_on_every_cluster_and_refusals_have_a_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guard, "GRAPHS", ("pubmed",))
    rows = guard.predicted("single")
    assert {row.key.split("|")[-1] for row in rows} == set(guard.CLUSTERS)
    for row in rows:
        assert bool(row.reason) != (0 < row.low_s <= row.period_s <= row.high_s)
    assert any("1 rank" in row.reason for row in rows)
    assert sum(not row.reason for row in rows) >= 2 * len(guard.CLUSTERS)


def test_the_committed_baseline_is_of_this_grid() -> None:
    known = {row.key for row in guard.read(guard.BASELINE)}
    keys = {f"{key}|{cluster}" for key, _ in guard.runs_of("single") for cluster in guard.CLUSTERS}
    assert keys <= known
