"""Time to one metric: measured, predicted, and what was sent until then."""

from __future__ import annotations

from typing import Any

import pytest

from gnnbench_reports.opening import read_study
from gnnbench_reports.reaching import reach
from gnnbench_reports.time_to_metric import BEST, COMMON, finding, target_rows
from gnnbench_reports.traffic import finding as traffic


def evaluated(seconds: float, *values: float | None, sent: int = 0) -> list[dict[str, Any]]:
    """Periods of so many seconds; None is a period without an evaluation."""
    return [
        {"period": at, "kind": "epoch", "iterations": 4, "seconds": seconds, "loss": 1.0}
        | {"bytes": {"all_reduce/sync": sent} if sent else {}}
        | {"metrics": {} if value is None else {"val_accuracy": value}}
        for at, value in enumerate(values)
    ]


def trained(fabricator: Any, approach: str, *values: float | None, **more: Any) -> Any:
    """A run of one-second epochs with these metrics, and the spec."""
    ranks, seconds, sent = more.get("ranks", 1), more.get("seconds", 1.0), more.get("sent", 0)
    spec = fabricator.spec(approach=approach, ranks=ranks, knobs=more.get("knobs"))
    fabricator.run(spec, periods=evaluated(seconds, *values, sent=sent), ledgers=False)
    return spec


def test_the_prediction_is_the_predicted_epoch_times_the_measured_epochs(fabricator: Any) -> None:
    spec = trained(fabricator, "single", 0.3, 0.5, 0.8, 0.8)
    fabricator.prediction(spec, seconds=1.5)
    (row,) = target_rows(read_study(fabricator.results))
    assert (row.rule, row.periods, row.measured_s) == (BEST, 3, 3.0)
    assert row.target == pytest.approx(0.79)
    assert row.predicted_s == pytest.approx(4.5)
    assert row.error == pytest.approx(0.5)


def test_epochs_between_evaluations_are_counted(fabricator: Any) -> None:
    """Evaluated every second epoch: the target is reached in the fourth, at the second look."""
    trained(fabricator, "single", None, 0.3, None, 0.8)
    study = read_study(fabricator.results)
    found = reach(study, study.rows[0], 0.79)
    assert found is not None
    assert (found.periods, found.seconds) == (4, 4.0)


def test_where_some_miss_the_target_a_second_one_is_reached_by_all(fabricator: Any) -> None:
    trained(fabricator, "single", 0.3, 0.6, 0.9)
    trained(fabricator, "sampled", 0.7, 0.71, 0.7, seconds=0.5)
    rows = target_rows(read_study(fabricator.results))
    of = {(row.rule, row.label): row for row in rows}
    assert of[BEST, "single"].periods == 3
    assert of[BEST, "sampled"].periods is None
    assert of[COMMON, "single"].target == pytest.approx(0.70)
    assert (of[COMMON, "single"].measured_s, of[COMMON, "sampled"].measured_s) == (3.0, 0.5)
    assert [row.label for row in rows if row.rule == COMMON] == ["sampled", "single"]


def test_the_table_says_what_was_not_reached_and_how_far_predictions_are_off(
    fabricator: Any,
) -> None:
    spec = trained(fabricator, "single", 0.3, 0.9, sent=0)
    fabricator.prediction(spec, seconds=1.1)
    trained(fabricator, "sampled", 0.1, 0.1, ranks=2, sent=4096)
    found = finding(read_study(fabricator.results))
    assert found is not None
    heads = [column.heading for column in found.columns]
    lines = [dict(zip(heads, cells, strict=True)) for cells in found.cells]
    missed = next(line for line in lines if line["periods"] == "not reached")
    assert (missed["approach"], missed["target"]) == ("sampled", "89.0 %")
    reached = next(line for line in lines if line["approach"] == "sampled" and line["measured"])
    assert reached["bytes sent"] == "4.00 KiB"
    assert "median error 10 %" in found.verdict[0]


def test_runs_that_are_evaluated_once_have_no_time_to_a_metric(fabricator: Any) -> None:
    trained(fabricator, "single", None, 0.8)
    assert finding(read_study(fabricator.results)) is None


def test_traffic_is_counted_per_step_against_the_reference(fabricator: Any) -> None:
    """Rounds end in some epochs only: bytes are spread over the steps of the run."""
    knobs = {"base": "sampled", "parts": 2}
    trained(fabricator, "gist", 0.5, 0.5, ranks=2, knobs=knobs, sent=100)
    trained(fabricator, "sampled", 0.5, 0.5, ranks=2, sent=1600)
    trained(fabricator, "sampled", 0.5, 0.5, ranks=4, sent=9)
    found = traffic(read_study(fabricator.results))
    assert found is not None
    (row,) = found.rows
    assert (row.label, row.reference_label, row.step_bytes) == ("gist", "sampled", 25.0)
    assert row.ratio == pytest.approx(1 / 16)
    assert found.cells[0][-1] == "0.0625×"


def test_without_its_reference_nothing_has_a_traffic_ratio(fabricator: Any) -> None:
    trained(fabricator, "gist", 0.5, 0.5, ranks=2, knobs={"base": "sampled"}, sent=100)
    assert traffic(read_study(fabricator.results)) is None
