"""Accuracy against `single`: paired by seed, judged by what the approach promises."""

from __future__ import annotations

import math
from typing import Any

import pytest

from gnnbench_reports.accuracy import accuracies, finding, judge
from gnnbench_reports.compare import compare
from gnnbench_reports.study import read_study


def trained(
    fabricator: Any, approach: str, tests: tuple[float, ...], ranks: int = 2, **spec: Any
) -> None:
    for seed, test in enumerate(tests):
        run = fabricator.spec("cora", "gcn", approach, ranks, seed=seed, **spec)
        fabricator.run(run, accuracy={"train": 1.0, "val": 0.8, "test": test})


def test_seeds_of_one_configuration_are_one_row(fabricator: Any) -> None:
    trained(fabricator, "partition", (0.8, 0.82, 0.84))
    (row,) = compare(fabricator.results)
    assert (row.label, row.repeats, len(row.config_ids)) == ("partition", 3, 3)
    assert row.accuracy["test"]["mean"] == pytest.approx(0.82)
    assert row.accuracy["test"]["std"] == pytest.approx(0.02)


def test_other_settings_than_the_seed_stay_apart(fabricator: Any) -> None:
    trained(fabricator, "bns", (0.8, 0.8), knobs={"rate": 0.1})
    trained(fabricator, "bns", (0.8, 0.8), knobs={"rate": 0.5})
    labels = {row.label for row in compare(fabricator.results)}
    assert labels == {"bns [rate=0.1]", "bns [rate=0.5]"}


def test_bytes_of_a_row_are_equal_only_if_they_are_with_every_seed(fabricator: Any) -> None:
    for seed, planned in enumerate((96, 100)):
        spec = fabricator.spec(seed=seed)
        counted = [{"epoch": 0, "seconds": 1.0, "bytes": {"all_reduce/sync": 96}}]
        fabricator.run(spec, epochs=counted)
        fabricator.prediction(spec, bytes=[{"all_reduce/sync": planned}])
    (row,) = compare(fabricator.results)
    (volume,) = row.volumes
    assert row.bytes_equal is False
    assert (volume.measured_bytes, volume.predicted_bytes) == (96, 98)


def test_a_difference_is_taken_seed_by_seed(fabricator: Any) -> None:
    # Seeds spread by ten points; the approach follows each of them within a twentieth of one.
    trained(fabricator, "single", (0.70, 0.80, 0.75), ranks=1)
    trained(fabricator, "partition", (0.7005, 0.8005, 0.7495))
    single, partition = accuracies(read_study(fabricator.results))
    assert (single.label, single.within) == ("single", None)
    assert partition.difference == pytest.approx(0.0005 / 3)
    assert partition.within is True


def test_an_exact_approach_may_not_hide_behind_its_noise() -> None:
    verdict = judge([0.78, 0.83], [0.80, 0.80], exact=True)
    assert verdict["difference"] == pytest.approx(0.005)
    assert verdict["within"] is False


def test_an_approximate_approach_may_differ_by_a_point_or_two_standard_errors() -> None:
    assert judge([0.79, 0.79], [0.80, 0.80], exact=False)["within"] is True
    assert judge([0.785, 0.785], [0.80, 0.80], exact=False)["within"] is False
    noisy = judge([0.76, 0.80], [0.80, 0.80], exact=False)
    assert noisy["error"] == pytest.approx(math.sqrt(0.0008) / math.sqrt(2))
    assert noisy["within"] is True


def test_only_an_exact_approach_must_not_be_better_than_single() -> None:
    assert judge([0.85, 0.85], [0.80, 0.80], exact=False)["within"] is True
    assert judge([0.85, 0.85], [0.80, 0.80], exact=True)["within"] is False


def test_one_seed_does_not_judge_an_approximate_approach() -> None:
    alone = judge([0.70], [0.80], exact=False)
    assert alone["difference"] == pytest.approx(-0.1)
    assert "within" not in alone
    assert judge([0.70], [0.80], exact=True)["within"] is False


def test_accuracy_after_fewer_epochs_is_not_compared(fabricator: Any) -> None:
    trained(fabricator, "single", (0.8,), ranks=1)
    trained(fabricator, "partition", (0.8,), epochs=3)
    assert finding(read_study(fabricator.results)) is None


def test_the_verdict_counts_exact_and_approximate_apart(fabricator: Any) -> None:
    trained(fabricator, "single", (0.80, 0.80), ranks=1)
    trained(fabricator, "partition", (0.80, 0.80))
    trained(fabricator, "mixture", (0.82, 0.82))
    trained(fabricator, "bns", (0.805, 0.805))
    found = finding(read_study(fabricator.results))
    assert found is not None
    exact, approximate = found.verdict
    assert "1 of 2 exact" in exact
    assert "furthest mixture on cora, gcn, +2.00" in exact
    assert "1 of 1 approximate" in approximate


def test_ticks_of_accuracies_that_lie_close_are_told_apart(fabricator: Any) -> None:
    from gnnbench_reports.figures import accuracy

    for at, approach in enumerate(("single", "partition", "bns")):
        trained(fabricator, approach, (0.9148 + 0.0002 * at,))
    points = accuracy.data(read_study(fabricator.results))
    figure = accuracy.draw(points[points["split"] == "test"])
    figure.canvas.draw()
    (panel,) = figure.axes
    labels = [label.get_text() for label in panel.get_yticklabels()]
    assert len(labels) == len(set(labels)) > 2
