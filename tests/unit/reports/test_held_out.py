"""Held-out protocols: what the other runs say of a graph, a model, an approach or a scale."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gnnbench.cli import main
from gnnbench_reports.comparison import Comparison
from gnnbench_reports.held_out import held_out

MEASURED = Path(__file__).resolve().parents[3] / "reports" / "measured"


def rows(bias: float = 1.0, odd: str = "") -> list[Comparison]:
    """Measured and predicted runs; those of the graph `odd` take three times as long as others."""
    rng = np.random.default_rng(0)
    made = []
    for graph in "abc":
        for approach in ("single", "partition"):
            for ranks in (1, 2, 4):
                slow = 3.0 if graph == odd else 1.0
                made.append(
                    Comparison(
                        config_id=f"{graph}-{approach}-{ranks}",
                        label=approach,
                        approach=approach,
                        dataset=graph,
                        model="gcn",
                        ranks=ranks,
                        status="ok",
                        measured_period_s=bias * slow * float(np.exp(0.01 * rng.standard_normal())),
                        predicted_period_s=1.0,
                    )
                )
    return made


def test_a_bias_that_all_runs_share_is_learnt_from_the_others() -> None:
    found = {one.left_out: one for one in held_out(rows(bias=1.5))}
    assert set(found) == {"graph", "approach", "ranks > 1", "ranks > 2"}
    for one in found.values():
        assert one.error == pytest.approx(1 - 1 / 1.5, abs=0.02)
        assert one.corrected < 0.03
        assert one.inside > 0.6
    assert (found["graph"].groups, found["graph"].runs) == (3, 18)
    assert found["ranks > 1"].runs == 12


def test_an_error_of_one_graph_is_not_foreseen_by_the_others() -> None:
    found = {one.left_out: one for one in held_out(rows(odd="b"))}
    assert found["graph"].worst[0] == "b"
    assert found["graph"].worst[1] == pytest.approx(2 / 3, abs=0.02)
    assert found["graph"].inside < 0.9


def test_nothing_is_left_out_where_nothing_is_left() -> None:
    assert held_out([]) == []
    assert held_out(rows()[:4]) == []


def test_a_committed_folder_is_judged(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(MEASURED / "2026-11-28-mixed"), "--json"]) == 0
    (document,) = json.loads(capsys.readouterr().out)["runs"]
    assert {one["left_out"] for one in document["held_out"]} >= {"model", "ranks > 2"}
    assert main(["validate", str(MEASURED / "2026-11-28-mixed"), "--only", "x"]) != 0
