"""What was not given the same is not compared: epochs, increments, numbers of them, disks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gnnbench_reports.answer import answers
from gnnbench_reports.opening import read_study


def periods(kind: str, seconds: float) -> list[dict[str, Any]]:
    return [
        {"period": at, "kind": kind, "iterations": 1, "seconds": seconds, "loss": 1.0, "bytes": {}}
        for at in range(3)
    ]


def test_increments_and_epochs_are_answered_apart(fabricator: Any) -> None:
    """A short increment is no fast epoch; a skipped row goes with its approach."""
    for approach, kind, seconds in (
        ("continuous", "increment", 0.1),
        ("rebuild", "increment", 0.5),
        ("tgl", "epoch", 3.0),
    ):
        spec = fabricator.spec("events", "tgn", approach, ranks=1)
        fabricator.run(spec, periods=periods(kind, seconds), ledgers=False)
    fabricator.run(
        fabricator.spec("events", "tgn", "tgl", ranks=4), status="skipped", periods=[], reason="why"
    )
    study = read_study(fabricator.results)
    models = {(row.label, row.ranks): row.model for row in study.rows}
    assert models == {
        ("continuous", 1): "tgn (increments)",
        ("rebuild", 1): "tgn (increments)",
        ("tgl", 1): "tgn (epochs)",
        ("tgl", 4): "tgn (epochs)",
    }
    found = {one.model: one.sentences[0] for one in answers(study)}
    assert found["tgn (increments)"].startswith("continuous on 1 rank is fastest per increment")
    assert "tgl" not in found["tgn (increments)"]


def test_numbers_of_increments_are_answered_apart(fabricator: Any) -> None:
    """A sixteenth of a stream is learnt sooner than a quarter of it: that is no merit."""
    for count, seconds in ((4, 0.4), (16, 0.1)):
        spec = fabricator.spec("events", "tgn", "continuous", ranks=1)
        spec = replace(spec, training=replace(spec.training, increments=count))
        fabricator.run(spec, periods=periods("increment", seconds), ledgers=False)
    study = read_study(fabricator.results)
    assert {(row.label, row.model) for row in study.rows} == {
        ("continuous", "tgn (4 increments)"),
        ("continuous", "tgn (16 increments)"),
    }
    assert [one.sentences[0] for one in answers(study)] == [
        "continuous on 1 rank takes 400 ms per increment.",
        "continuous on 1 rank takes 100 ms per increment.",
    ]


def test_disks_are_answered_apart(fabricator: Any) -> None:
    for limit in (0.0, 5e6):
        knobs = {"disk_bytes_per_s": limit}
        spec = fabricator.spec("web", "sage", "out-of-core", ranks=1, knobs=knobs)
        fabricator.run(spec, ledgers=False)
    assert {(row.label, row.model) for row in read_study(fabricator.results).rows} == {
        ("out-of-core", "sage (disk: no limit)"),
        ("out-of-core", "sage (disk: 5 MB/s)"),
    }


def test_one_kind_of_period_leaves_the_model_as_it_is(fabricator: Any) -> None:
    fabricator.run(fabricator.spec(), ledgers=False)
    assert {row.model for row in read_study(fabricator.results).rows} == {"gcn"}
