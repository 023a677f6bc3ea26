"""The tornado of a report: what the time of the fastest configuration is most sensitive to."""

from __future__ import annotations

from typing import Any

import pytest

from gnnbench_reports.figures import drawing, tornado
from gnnbench_reports.opening import read_study
from gnnbench_reports.sensitivity import finding, swing_rows


def predict(fabricator: Any, approach: str, seconds: float, swings: Any, **more: Any) -> None:
    spec = fabricator.spec(approach=approach, ranks=1, **more)
    fabricator.prediction(spec, seconds=seconds, notes={"sensitivity": swings})


def test_the_fastest_configuration_is_shown(fabricator: Any) -> None:
    slow = [{**fabricator.swings[0], "name": "slow"}]
    predict(fabricator, "sampled", 2.0, slow)
    predict(fabricator, "single", 1.0, fabricator.swings)
    rows = swing_rows(read_study(fabricator.results))
    assert {row.label for row in rows} == {"single"}
    assert [row.cause for row in rows] == ["spmm", "links.inter.bytes_per_s", "gemm"]
    assert (rows[0].low, rows[0].high, rows[0].factor) == (0.83, 1.22, 1.31)


def test_a_measured_time_decides_which_is_fastest(fabricator: Any) -> None:
    predict(fabricator, "sampled", 2.0, [{**fabricator.swings[0], "name": "own"}])
    predict(fabricator, "single", 1.0, fabricator.swings)
    fabricator.run(fabricator.spec(approach="sampled", ranks=1), seconds=1.0)
    fabricator.run(fabricator.spec(approach="single", ranks=1), seconds=3.0)
    (row,) = swing_rows(read_study(fabricator.results))
    assert row.cause == "own"


def test_the_verdict_names_the_widest_swing(fabricator: Any) -> None:
    predict(fabricator, "single", 1.0, fabricator.swings)
    found = finding(read_study(fabricator.results))
    assert found is not None
    assert found.verdict == (
        "The predicted time of single on cora, gcn is most sensitive to the error of spmm: -17 % "
        "to +22 %.",
    )


def test_without_swings_there_is_nothing_to_draw(fabricator: Any) -> None:
    fabricator.prediction(fabricator.spec())
    study = read_study(fabricator.results)
    assert finding(study) is None
    assert len(tornado.data(study)) == 0


@pytest.mark.parametrize("models", [("gcn",), ("gcn", "sage", "gat")])
def test_bars_span_the_change_and_many_panels_have_fewer_bars(
    fabricator: Any, models: tuple[str, ...]
) -> None:
    many = [{**fabricator.swings[0], "name": f"op{at}"} for at in range(11)]
    for model in models:
        predict(fabricator, "single", 1.0, [*fabricator.swings, *many], model=model)
    frame = tornado.data(read_study(fabricator.results))
    assert len(frame) == len(models) * (10 if len(models) < 3 else 6)
    with drawing.paper_style():
        figure = tornado.draw(frame)
        drawn = drawing.save(figure, "svg").decode()
    assert figure.get_figwidth() == drawing.COLUMN_IN
    bar = figure.axes[0].patches[0]
    assert (bar.get_x(), bar.get_x() + bar.get_width()) == pytest.approx((0.83, 1.22))
    assert "<title>spmm ×/÷ 1.31 (measured): -17 % to +22 %</title>" in drawn
    assert "single on 1 rank of bench (cora, gcn)" in tornado.caption(frame)


def test_no_text_of_the_tornado_leaves_the_column(fabricator: Any) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    long = {**fabricator.swings[0], "name": "device.peak_flops_per_s.float32", "low": 0.7}
    predict(fabricator, "single", 1.0, [long, *fabricator.swings])
    with drawing.paper_style():
        figure = tornado.draw(tornado.data(read_study(fabricator.results)))
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        renderer = canvas.get_renderer()
        (panel,) = figure.axes
        texts = [*panel.get_yticklabels(), *panel.get_xticklabels(), *panel.texts]
        boxes = [text.get_window_extent(renderer) for text in texts if text.get_text()]
    assert min(box.x0 for box in boxes) >= 0
    assert max(box.x1 for box in boxes) <= figure.bbox.x1
