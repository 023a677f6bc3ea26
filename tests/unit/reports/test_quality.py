"""The test metric against the reference: paired by seed, judged by the approach's promise."""

from __future__ import annotations

import math
from typing import Any

import pytest

from gnnbench_reports.compare import compare
from gnnbench_reports.opening import read_study
from gnnbench_reports.quality import compare as differ
from gnnbench_reports.quality import finding, judge, qualities


def trained(
    fabricator: Any, approach: str, tests: tuple[float, ...], ranks: int = 2, **spec: Any
) -> None:
    for seed, test in enumerate(tests):
        run = fabricator.spec("cora", "gcn", approach, ranks, seed=seed, **spec)
        fabricator.run(run, metrics={"test_accuracy": test})


def test_seeds_of_one_configuration_are_one_row(fabricator: Any) -> None:
    trained(fabricator, "partition", (0.8, 0.82, 0.84))
    (row,) = compare(fabricator.results)
    assert (row.label, row.repeats, len(row.config_ids)) == ("partition", 3, 3)
    assert row.test_metric["mean"] == pytest.approx(0.82)
    assert row.test_metric["std"] == pytest.approx(0.02)


def test_other_settings_than_the_seed_stay_apart(fabricator: Any) -> None:
    trained(fabricator, "bns", (0.8, 0.8), knobs={"rate": 0.1})
    trained(fabricator, "bns", (0.8, 0.8), knobs={"rate": 0.5})
    labels = {row.label for row in compare(fabricator.results)}
    assert labels == {"bns [rate=0.1]", "bns [rate=0.5]"}


def test_bytes_of_a_row_are_equal_only_if_they_are_with_every_seed(fabricator: Any) -> None:
    for seed, planned in enumerate((96, 100)):
        spec = fabricator.spec(seed=seed)
        counted = [{"period": 0, "seconds": 1.0, "bytes": {"all_reduce/sync": 96}}]
        fabricator.run(spec, periods=counted)
        fabricator.prediction(spec, bytes=[{"all_reduce/sync": planned}])
    (row,) = compare(fabricator.results)
    (volume,) = row.volumes
    assert row.bytes_equal is False
    assert (volume.counted_bytes, volume.planned_bytes) == (96, 98)


def test_a_difference_is_taken_seed_by_seed(fabricator: Any) -> None:
    # Seeds spread by ten points; the approach follows each of them within a twentieth of one.
    trained(fabricator, "single", (0.70, 0.80, 0.75), ranks=1)
    trained(fabricator, "partition", (0.7005, 0.8005, 0.7495))
    single, partition = qualities(read_study(fabricator.results))
    assert (single.label, single.within) == ("single", None)
    assert partition.difference == pytest.approx(0.0005 / 3)
    assert partition.within is True


def test_an_exact_approach_may_not_hide_behind_its_noise() -> None:
    values, references = [0.78, 0.83], [0.80, 0.80]
    assert differ(values, references)["difference"] == pytest.approx(0.005)
    assert judge(values, references, exact=True, metric="accuracy")["within"] is False


def test_an_approximate_approach_may_differ_by_a_point_or_two_standard_errors() -> None:
    assert judge([0.79, 0.79], [0.80, 0.80], exact=False, metric="accuracy")["within"] is True
    assert judge([0.785, 0.785], [0.80, 0.80], exact=False, metric="accuracy")["within"] is False
    noisy = judge([0.76, 0.80], [0.80, 0.80], exact=False, metric="accuracy")
    error = differ([0.76, 0.80], [0.80, 0.80])["error"]
    assert error == pytest.approx(math.sqrt(0.0008) / math.sqrt(2))
    assert noisy["within"] is True


def test_only_an_exact_approach_must_not_be_better_than_single() -> None:
    assert judge([0.85, 0.85], [0.80, 0.80], exact=False, metric="accuracy")["within"] is True
    assert judge([0.85, 0.85], [0.80, 0.80], exact=True, metric="accuracy")["within"] is False


def test_one_seed_does_not_judge_an_approximate_approach() -> None:
    assert judge([0.70], [0.80], exact=False, metric="accuracy") == {}
    assert judge([0.70], [0.80], exact=True, metric="accuracy")["within"] is False


def test_accuracy_after_fewer_epochs_is_not_compared(fabricator: Any) -> None:
    trained(fabricator, "single", (0.8,), ranks=1)
    trained(fabricator, "partition", (0.8,), epochs=3)
    assert finding(read_study(fabricator.results)) is None


def test_the_verdict_counts_exact_and_approximate_apart(fabricator: Any) -> None:
    trained(fabricator, "single", (0.80, 0.80), ranks=1)
    trained(fabricator, "partition", (0.80, 0.80))
    trained(fabricator, "partition", (0.82, 0.82), ranks=4)
    trained(fabricator, "bns", (0.805, 0.805))
    found = finding(read_study(fabricator.results))
    assert found is not None
    exact, approximate = found.verdict
    assert "1 of 2 exact" in exact
    assert "largest difference: partition on cora, gcn, +2.00" in exact
    assert "1 of 1 approximate" in approximate


def test_settings_and_programs_that_equal_the_reference_make_an_approximation_exact(
    fabricator: Any,
) -> None:
    trained(fabricator, "single", (0.80,), ranks=1)
    for ranks, knobs in ((2, {"rate": 1.0}), (2, {"rate": 0.5}), (1, {"rate": 0.5})):
        trained(fabricator, "bns", (0.80,), ranks=ranks, knobs=knobs)
    for approach, ranks, knobs in (("single", 1, {}), ("bns", 1, {"rate": 0.5})):
        spec = fabricator.spec("cora", "gcn", approach, ranks, knobs=knobs)
        fabricator.prediction(spec, notes={"program": "same"})
    exact = {(row.label, row.ranks): row.exact for row in qualities(read_study(fabricator.results))}
    assert exact["bns [rate=1]", 2] is True
    assert exact["bns [rate=0.5]", 2] is False
    assert exact["bns [rate=0.5]", 1] is True


def test_the_metric_is_the_tasks_own_and_its_direction_decides(fabricator: Any) -> None:
    for approach, ranks, mrr in (("single", 1, 0.30), ("partition", 2, 0.31)):
        run = fabricator.spec("fb", "gcn", approach, ranks, task="link_prediction")
        fabricator.run(run, metrics={"test_mrr": mrr, "test_accuracy": 0.1})
    found = finding(read_study(fabricator.results))
    assert found is not None
    assert found.title == "Test MRR against the reference"
    assert [column.heading for column in found.columns][5] == "test MRR"
    lower = judge([1.0, 1.0], [1.5, 1.5], exact=False, metric="loss")
    higher = judge([2.0, 2.0], [1.5, 1.5], exact=False, metric="loss")
    assert (lower["within"], higher["within"]) == (True, False)


def test_the_figure_of_a_stream_shows_its_own_metric_over_increments(fabricator: Any) -> None:
    from gnnbench_reports.figures import quality, scaling

    spec = fabricator.spec("messages", task="temporal_link_prediction")
    parts = [
        {"period": n, "kind": "increment", "seconds": 2.0, "metrics": {"test_mrr": 0.1 * n}}
        for n in range(4)
    ]
    fabricator.run(spec, periods=parts, metrics={"test_mrr": 0.3})
    study = read_study(fabricator.results)
    frame = quality.data(study)
    assert frame["value"].tolist() == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.3])
    assert frame["trained_s"].tolist() == [2.0, 4.0, 6.0, 8.0, 8.0]
    assert quality.draw(frame).axes[0].get_ylabel() == "MRR, %"
    assert scaling.draw(scaling.data(study)).axes[0].get_ylabel() == "time per increment"


def test_ticks_of_accuracies_that_lie_close_are_told_apart(fabricator: Any) -> None:
    from gnnbench_reports.figures import quality

    for at, approach in enumerate(("single", "partition", "bns")):
        trained(fabricator, approach, (0.9148 + 0.0002 * at,))
    points = quality.data(read_study(fabricator.results))
    figure = quality.draw(points[points["split"] == "test"])
    figure.canvas.draw()
    (panel,) = figure.axes
    labels = [label.get_text() for label in panel.get_yticklabels()]
    assert len(labels) == len(set(labels)) > 2
