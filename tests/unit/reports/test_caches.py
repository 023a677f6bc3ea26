"""Hit rates of feature caches, side by side."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from gnnbench_reports.caches import finding
from gnnbench_reports.comparison import Comparison


def made(measured: float | None = None, policy: str = "lru", **more: Any) -> Comparison:
    """A configuration; 900 of its rows were fetched."""
    metrics: dict[str, dict[str, float]] = {}
    if measured is not None:
        metrics = {
            "cache_hit_rate": {"mean": measured, "std": 0.0},
            "cache_misses": {"mean": 900.0, "std": 0.0},
        }
    fields: dict[str, Any] = {
        "config_id": policy,
        "label": policy,
        "approach": "sampled",
        "dataset": "g",
        "model": "gcn",
        "ranks": 2,
        "status": "ok",
        "knobs": {"cache_policy": policy, "placement": "host", "cache_share": 0.1},
        "metrics": metrics,
    }
    return Comparison(**(fields | more))


def study(rows: list[Comparison], notes: dict[str, Any] | None = None) -> Any:
    prediction = None if notes is None else SimpleNamespace(notes=notes)
    return SimpleNamespace(rows=rows, prediction_of=lambda row: prediction)


def test_measured_and_predicted_rates_stand_in_one_line() -> None:
    notes = {"cache_hit_rate": 0.71, "cache_misses": [2000, 870]}
    found = finding(study([made(0.7)], notes))
    assert found is not None
    assert found.cells == (("g", "gcn", 2, "host", "lru", "10 %", "0.700", "0.710", "900"),)
    assert "within 0.010" in found.verdict[0]


def test_a_prediction_alone_shows_its_own_rows() -> None:
    found = finding(study([made()], {"cache_hit_rate": 0.5, "cache_misses": [20, 10]}))
    assert found is not None
    assert found.cells[0][-3:] == (None, "0.500", "10")
    assert found.verdict == ()


def test_without_caches_there_is_no_table() -> None:
    assert finding(study([made(policy="none")], {})) is None
    assert finding(study([made()], {})) is None
