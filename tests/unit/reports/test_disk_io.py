"""Disk traffic: bytes read and written by policy and buffer, counted and planned."""

from __future__ import annotations

from typing import Any

import pytest

from gnnbench.results import Results
from gnnbench_reports import disk_io
from gnnbench_reports.figures import disk_io as figure
from gnnbench_reports.figures import drawing
from gnnbench_reports.opening import read_study
from gnnbench_reports.report import report


def two_policies(fabricator: Any) -> Any:
    for policy, factor in (("comet", 2), ("beta", 3)):
        for buffer in (4, 8):
            fabricator.from_disk(policy, buffer, factor * 10**9 // buffer, 10**8)
    return read_study(fabricator.results)


def test_bytes_are_given_by_policy_and_share_in_memory(fabricator: Any) -> None:
    rows = disk_io.io_rows(two_policies(fabricator))
    found = {(row.policy, row.share): row for row in rows}
    assert set(found) == {("comet", 0.25), ("comet", 0.5), ("beta", 0.25), ("beta", 0.5)}
    row = found["beta", 0.25]
    assert row.counted_read_bytes == row.planned_read_bytes == 750_000_000
    assert row.counted_written_bytes == 100_000_000
    assert row.moved_bytes("planned") == 850_000_000
    assert row.equal is True


def test_the_verdict_counts_configurations_whose_bytes_equal_the_plan(fabricator: Any) -> None:
    study = two_policies(fabricator)
    found = disk_io.finding(study)
    assert found is not None
    assert found.verdict == (
        "Bytes read and written per period equal the plan's in 4 of 4 configurations that use the "
        "disk.",
    )
    assert found.cells[0][:6] == ("facts", "distmult", "out-of-core", "beta", "25 %", "715 MiB")


def test_without_disk_traffic_there_is_no_table_and_no_figure(fabricator: Any) -> None:
    fabricator.run(fabricator.spec())
    study = read_study(fabricator.results)
    assert disk_io.finding(study) is None
    assert len(figure.data(study)) == 0


@pytest.mark.parametrize(
    ("knobs", "chosen", "share"),
    [
        ({"cache": 0.25}, {}, 0.25),
        ({"partitions": 16, "buffer": 4}, {}, 0.25),
        ({"partitions": 16, "buffer": 0}, {}, 1.0),
        ({"partitions": 0, "buffer": 0}, {}, None),
        ({"partitions": 0, "buffer": 0}, {"partitions": 32, "buffer": 8}, 0.25),
        ({}, {}, None),
    ],
)
def test_the_share_in_memory_follows_from_knobs_or_from_the_plan(
    knobs: dict[str, Any], chosen: dict[str, Any], share: float | None
) -> None:
    assert disk_io.share_in_memory(knobs, chosen) == share


def test_a_policy_that_was_left_to_the_plan_has_the_name_that_it_chose(fabricator: Any) -> None:
    fabricator.from_disk("auto", 4, 10**9)
    knobs = {"partitions": 16, "buffer": 4, "policy": "auto"}
    spec = fabricator.spec("facts", "distmult", "out-of-core", 1, knobs=knobs)
    moved = {"read/load": 10**9}
    fabricator.prediction(spec, bytes=[moved] * 2, notes={"policy": "comet"})
    (row,) = disk_io.io_rows(read_study(fabricator.results))
    assert row.policy == "comet"


def test_the_figure_has_a_curve_per_policy_and_a_cross_for_what_was_skipped(
    fabricator: Any,
) -> None:
    lost = {"status": "skipped", "reason": "no room on disk", "periods": []}
    knobs = {"partitions": 16, "buffer": 2, "policy": "beta"}
    spec = fabricator.spec("facts", "distmult", "out-of-core", 1, knobs=knobs)
    fabricator.run(spec, **lost)
    frame = figure.data(two_policies(fabricator))
    assert sorted(set(frame["series"])) == ["out-of-core, beta", "out-of-core, comet"]
    with drawing.paper_style():
        drawn = drawing.save(figure.draw(frame), "svg").decode()
    assert "<title>out-of-core, beta at 12.5 %: skipped, no room on disk</title>" in drawn
    assert "counted: 811 MiB" in drawn
    words = figure.caption(frame)
    assert "per epoch" in words and "Markers: counted. Lines: planned." in words


def test_the_figure_follows_from_the_kept_table(fabricator: Any, tmp_path: Any) -> None:
    study = two_policies(fabricator)
    out = report(fabricator.results).parent
    kept = tmp_path / "kept"
    kept.mkdir()
    for name in ("comparison.csv", "disk_io.csv"):
        (kept / name).write_bytes((out / name).read_bytes())
    again = read_study(Results(kept))
    assert figure.data(again).equals(figure.data(study))
