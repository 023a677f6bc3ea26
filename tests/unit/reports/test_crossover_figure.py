"""The crossover figure: pairs of approaches of which one sends fewer bytes on few ranks only."""

from __future__ import annotations

from typing import Any

import pytest

from gnnbench_reports.figures import crossover, drawing
from gnnbench_reports.opening import read_study


def predict(fabricator: Any, approach: str, ranks: int, moved: int, model: str = "gcn") -> None:
    spec = fabricator.spec("cora", model, approach, ranks)
    sent = {"all_to_all/forward": moved, "all_to_all/backward": moved, "all_reduce/sync": 7}
    fabricator.prediction(spec, bytes=[sent])


def test_the_ratio_counts_features_and_gradients_and_leaves_weights_out(fabricator: Any) -> None:
    for ranks, halo, relayout in ((2, 100, 400), (4, 300, 600), (8, 1800, 900)):
        predict(fabricator, "partition", ranks, halo)
        predict(fabricator, "mixture", ranks, relayout)
    frame = crossover.data(read_study(fabricator.results))
    assert frame["ranks"].tolist() == [2, 4, 8]
    assert frame["ratio"].tolist() == [0.25, 0.5, 2.0]
    assert frame["second_bytes"].tolist() == [800, 1200, 1800]
    assert set(frame["pair"]) == {"partition / mixture"}


def test_pairs_that_never_cross_are_not_drawn(fabricator: Any) -> None:
    for ranks in (2, 4):
        predict(fabricator, "partition", ranks, 100)
        predict(fabricator, "mixture", ranks, 400)
    assert len(crossover.data(read_study(fabricator.results))) == 0


def test_one_approach_alone_makes_no_pair(fabricator: Any) -> None:
    for ranks in (2, 4):
        predict(fabricator, "partition", ranks, 100)
    assert len(crossover.data(read_study(fabricator.results))) == 0


@pytest.mark.parametrize("models", [("gcn",), ("gcn", "sage")])
def test_the_figure_has_a_panel_per_model_and_a_line_at_one(
    fabricator: Any, models: tuple[str, ...]
) -> None:
    for model in models:
        for ranks in (2, 4, 64):
            predict(fabricator, "partition", ranks, 10 * ranks, model)
            predict(fabricator, "mixture", ranks, 300, model)
    with drawing.paper_style():
        figure = crossover.draw(crossover.data(read_study(fabricator.results)))
        assert drawing.save(figure, "pdf").startswith(b"%PDF")
    assert len(figure.axes) == len(models)
    for panel in figure.axes:
        low, high = panel.get_ylim()
        assert low < 1.0 < high
        assert any(list(line.get_ydata()) == [1.0, 1.0] for line in panel.lines)
