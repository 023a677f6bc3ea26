"""The mixture of accelerators: one chunk against several, in each world by itself."""

from __future__ import annotations

import pytest

from gnnbench_reports.comparison import Comparison
from gnnbench_reports.pipelines import pipelines


def made(
    chunks: int, measured: float | None, predicted: float | None = None, **more: object
) -> Comparison:
    fields: dict[str, object] = {
        "config_id": str((chunks, more)),
        "label": str(chunks),
        "approach": "mixed-accelerators",
        "dataset": "g",
        "model": "gcn",
        "ranks": 4,
        "status": "ok",
        "knobs": {"chunks": chunks, "node_order": "natural", "sparse_ranks": 0},
        "measured_period_s": measured,
        "predicted_period_s": predicted,
    }
    return Comparison(**(fields | more))  # type: ignore[arg-type]


def test_each_world_names_its_own_best() -> None:
    (row,) = pipelines([made(1, 1.2, 1.0), made(4, 0.8, 0.9), made(16, 1.0, 0.5)])
    assert (row.measured_settings, row.predicted_settings) == (
        "4 chunks, natural",
        "16 chunks, natural",
    )
    assert row.measured_gain == pytest.approx(1.5)
    assert row.predicted_gain == pytest.approx(2.0)
    assert (row.sparse_ranks, row.ranks) == (2, 4)


def test_without_a_serial_run_there_is_nothing_to_gain_on() -> None:
    assert pipelines([made(4, 0.8), made(16, 1.0)]) == []


def test_a_world_without_serial_leaves_the_other_alone() -> None:
    (row,) = pipelines([made(1, None, 1.0), made(4, 0.8, 0.5)])
    assert row.measured_gain is None
    assert row.predicted_gain == pytest.approx(2.0)


def test_splits_of_the_ranks_are_not_mixed() -> None:
    one = {"knobs": {"chunks": 4, "sparse_ranks": 1}}
    assert pipelines([made(1, 1.0), made(4, 0.1, **one)]) == []
