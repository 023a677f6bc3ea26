"""Does it fit: the numbers that a prediction was judged by, also where it does not fit."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from gnnbench_reports.figures import fits as figure
from gnnbench_reports.fits import finding, fit_rows
from gnnbench_reports.opening import read_study

MIB = 2**20


def _memory(fabricator: Any, limit: int) -> list[dict[str, Any]]:
    judged = fabricator.judged(205 * MIB, 100 * MIB, limit=limit)
    return [{"rank": 0, "peak_bytes": 0, **judged}]


@pytest.fixture
def study(fabricator: Any) -> Any:
    fabricator.prediction(fabricator.spec(ranks=1), memory=_memory(fabricator, 400 * MIB))
    reason = "out of memory: rank 0 needs 0.3 GiB of memory, 0.2 GiB there are"
    large = fabricator.spec(ranks=2)
    fabricator.prediction(
        large, memory=_memory(fabricator, 300 * MIB), status="skipped", reason=reason
    )
    return read_study(fabricator.results)


def test_what_does_not_fit_is_kept_beside_what_does(study: Any) -> None:
    rows = {row.ranks: row for row in fit_rows(study)}
    assert (rows[1].verdict, rows[2].verdict) == ("fits", "does not fit")
    assert rows[1].needed_bytes == rows[2].needed_bytes == 305 * MIB
    assert (rows[1].headroom_bytes, rows[2].headroom_bytes) == (95 * MIB, -5 * MIB)


def test_the_table_says_how_many_fit_and_by_how_much_the_others_do_not(study: Any) -> None:
    found = finding(study)
    assert found is not None
    assert found.verdict == ("Memory by prediction: 1 of 2 configurations fit, 1 do not fit.",)
    heads = [column.heading for column in found.columns]
    line = dict(zip(heads, found.cells[1], strict=True))
    assert (line["needs"], line["limit"], line["free"]) == ("305 MiB", "300 MiB", "-5.00 MiB")
    assert (line["P(oom)"], line["verdict"]) == ("99 %", "does not fit")


def test_the_figure_draws_both_with_their_limit(study: Any) -> None:
    frame = figure.data(study)
    assert set(frame["ranks"]) == {1, 2}
    for ranks, group in frame.groupby("ranks"):
        assert group["bytes"].sum() == 305 * MIB
        assert set(group["mark"]) == {(400 if ranks == 1 else 300) * MIB}
        assert set(group["note"]) == {"" if ranks == 1 else "does not fit"}


def test_records_of_an_earlier_version_have_no_such_table(fabricator: Any) -> None:
    fabricator.prediction(fabricator.spec(), memory=[{"rank": 0, "peak_bytes": 1}])
    assert finding(read_study(fabricator.results)) is None


def test_a_table_in_which_all_fit_asks_for_no_attention(study: Any, fabricator: Any) -> None:
    found = finding(study)
    assert found is not None
    assert not found.calm
    for record in [*fabricator.results.predictions()]:
        if record.spec["ranks"] == 2:
            shutil.rmtree(fabricator.results.prediction_folder(record))
    found = finding(read_study(fabricator.results))
    assert found is not None
    assert found.calm


def test_a_limit_far_beyond_the_bars_is_a_number_and_squeezes_none(fabricator: Any) -> None:
    fabricator.prediction(fabricator.spec(ranks=1), memory=_memory(fabricator, 12_000 * MIB))
    frame = figure.data(read_study(fabricator.results))
    panel = figure.draw(frame).axes[0]
    assert panel.get_xlim()[1] < 400 * MIB
    assert "of 11.7 GiB" in {text.get_text() for text in panel.texts}
    assert "Number after a bar: the capacity or cap" in figure.caption(frame)
    assert "Black tick" not in figure.caption(frame)


def test_a_limit_close_to_the_bars_is_a_tick(study: Any) -> None:
    frame = figure.data(study)
    assert figure.draw(frame).axes[0].get_xlim()[1] > 400 * MIB
    assert "Black tick: capacity or cap" in figure.caption(frame)
