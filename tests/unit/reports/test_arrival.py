"""Throughput against arrival rate: rates, the flip, its table, its figure and its kept rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gnnbench.results import Results
from gnnbench_reports import arrival
from gnnbench_reports.arrival import ArrivalRow, pace
from gnnbench_reports.figures import arrival as figure
from gnnbench_reports.finding import finding
from gnnbench_reports.opening import read_study
from gnnbench_reports.report import report

EVENTS = 100
STREAM = {"dataset": "events", "model": "tgn"}


def test_rates_leave_the_first_period_out() -> None:
    """100 events each second, in 0.5 s: a load of a half; the lag is the last period's time."""
    found = pace([100] * 4, [1.0, 2.0, 3.0, 4.0], [9.0, 0.5, 0.5, 0.5])
    assert found is not None
    assert (found.arrival_per_s, found.capacity_per_s) == (100.0, 200.0)
    assert found.lag_s == pytest.approx(7.5), "the first period's backlog is not yet worked off"


def test_a_period_without_arrivals_is_no_part_of_the_rates() -> None:
    """An offline phase of 3 s delays the first increments and is not counted."""
    found = pace([0, 10, 10, 10], [0.0, 1.0, 2.0, 3.0], [3.0, 0.5, 0.5, 0.5])
    assert found is not None and found.periods == 3
    assert (found.arrival_per_s, found.capacity_per_s) == (10.0, 20.0)
    assert found.lag_s == pytest.approx(1.5)


@pytest.mark.parametrize("count", [0, 2])
def test_too_few_arrivals_have_no_rate(count: int) -> None:
    times = [float(at) for at in range(count)]
    assert pace([5] * count, times, times) is None


def test_each_run_is_on_one_side_of_the_flip(fabricator: Any) -> None:
    """Capacity 200 measured, 220 predicted: at 210 events/s only the prediction keeps up."""
    for rate in (50, 210, 800):
        fabricator.arriving(EVENTS / rate, EVENTS / 200, EVENTS / 220, **STREAM)
    rows = arrival.rows_of(read_study(fabricator.results))
    assert [round(row.arrival_per_s) for row in rows] == [50, 210, 800]
    assert [row.keeps_up("measured") for row in rows] == [True, False, False]
    assert [row.keeps_up("predicted") for row in rows] == [True, True, False]
    assert [row.near for row in rows] == [False, True, False]
    assert {row.approach for row in rows} == {"continuous"}, "the speed-up is no part of the line"
    lags = [row.measured_lag_s for row in rows]
    assert lags == sorted(lags) and lags[0] == pytest.approx(EVENTS / 200)


def test_errors_near_the_flip_are_counted_apart(fabricator: Any) -> None:
    for rate in (50, 210, 800):
        fabricator.arriving(EVENTS / rate, EVENTS / 200, EVENTS / 220, **STREAM)
    found = finding("arrival", read_study(fabricator.results))
    assert found is not None and len(found.cells) == 3
    capacity, sides = found.verdict
    assert "1 configuration: median error of the prediction 10 %" in capacity
    assert "2 of 2 runs with a load more than 15 % from 1" in sides
    assert "0 of 1 runs nearer" in sides


def test_ranks_and_settings_are_lines_of_their_own(fabricator: Any) -> None:
    for ranks in (1, 2):
        for knobs in ({}, {"replay": 0.5}):
            fabricator.arriving(1.0, 0.5, 0.5, ranks=ranks, knobs=knobs, **STREAM)
    frame = figure.data(read_study(fabricator.results))
    assert set(frame["line"]) == {
        f"continuous{settings}, {ranks}"
        for settings in ("", " [replay=0.5]")
        for ranks in ("1 rank", "2 ranks")
    }
    assert len(frame) == 8


def test_a_stream_that_is_there_at_once_has_no_arrival_rate(fabricator: Any) -> None:
    fabricator.run(fabricator.spec())
    study = read_study(fabricator.results)
    assert finding("arrival", study) is None and len(figure.data(study)) == 0


def test_the_report_draws_the_lags_and_keeps_the_rows(fabricator: Any, tmp_path: Path) -> None:
    """The CSV is enough to draw the figure again."""
    for rate in (50, 400):
        fabricator.arriving(EVENTS / rate, EVENTS / 200, EVENTS / 220, **STREAM)
    out = report(fabricator.results).parent
    assert (out / "figures" / "arrival.svg").is_file()
    assert "Throughput against arrival rate" in (out / "index.html").read_text()
    kept = tmp_path / "kept"
    kept.mkdir()
    for name in ("comparison.csv", "arrival.csv"):
        (kept / name).write_bytes((out / name).read_bytes())
    again = read_study(Results(kept))
    assert [row.speedup for row in again.kept["arrival"]] == [0.5, 4.0]
    assert len(figure.data(again)) == 4


def test_a_prediction_alone_shows_where_it_falls_behind() -> None:
    row = ArrivalRow(
        dataset="d",
        model="m",
        approach="continuous",
        ranks=1,
        speedup=1.0,
        periods=9,
        arrival_per_s=110.0,
        predicted_capacity_per_s=100.0,
        predicted_lag_s=3.0,
    )
    assert row.keeps_up("measured") is None and row.keeps_up("predicted") is False
    assert row.near
    found = arrival.table([row])
    assert found is not None and found.verdict == ()
