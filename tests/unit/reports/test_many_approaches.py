"""Figures with more approaches than lines can tell apart."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from matplotlib.collections import PolyCollection

from gnnbench.approaches.names import APPROACHES
from gnnbench_reports.figures import bars, dodged, drawing, parity, phases, scaling, volume
from gnnbench_reports.labels import printable
from gnnbench_reports.opening import read_study

NINE = (
    "single",
    "partition",
    "bns",
    "pipegcn",
    "mixture",
    "mixed-accelerators",
    "cagnet-1d",
    "cagnet-1.5d",
    "cagnet-2d",
)


def suite(fabricator: Any, approaches: tuple[str, ...], predicted: tuple[int, ...]) -> Any:
    fabricator.whole_suite(
        datasets=("cora",),
        models=("gcn",),
        approaches=approaches,
        measured=(1, 2, 4),
        predicted=predicted,
        repeats=2,
    )
    return read_study(fabricator.results)


def test_many_approaches_on_few_rank_counts_stand_side_by_side(fabricator: Any) -> None:
    frame = scaling.data(suite(fabricator, NINE, (1, 2, 4)))
    assert dodged.suits(frame)
    with drawing.paper_style():
        figure = scaling.draw(frame)
    (panel,) = figure.axes
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["1", "2", "4"]
    filled = [line for line in panel.lines if line.get_markeredgecolor() == "white"]
    places = [round(float(line.get_xdata()[0]), 6) for line in filled]
    assert len(places) == len(set(places)) == 1 + 8 * 3


def test_few_approaches_or_many_rank_counts_are_lines(fabricator: Any) -> None:
    study = suite(fabricator, NINE, (1, 2, 4, 8, 16))
    frame = scaling.data(study)
    assert dodged.crowded(frame)
    assert not dodged.suits(frame)
    assert not dodged.crowded(frame[frame["approach"].isin(NINE[:4])])
    with drawing.paper_style():
        (panel,) = scaling.draw(frame).axes
    assert panel.get_xscale() == "log"
    assert not [one for one in panel.collections if isinstance(one, PolyCollection)]


def test_a_failure_is_crossed_where_it_would_have_stood_and_a_skip_takes_no_room(
    fabricator: Any,
) -> None:
    for approach in NINE[1:7]:
        fabricator.run(fabricator.spec("cora", "gcn", approach, 2), seconds=1.0)
    none: dict[str, Any] = {"periods": [], "memory": [], "metrics": {}}
    broken = fabricator.spec("cora", "gcn", "cagnet-1d", 4)
    fabricator.run(broken, status="failed", reason="x", **none)
    fabricator.run(
        fabricator.spec("cora", "gcn", "cagnet-2d", 8), status="skipped", reason="y", **none
    )
    frame = scaling.data(read_study(fabricator.results))
    with drawing.paper_style():
        (panel,) = scaling.draw(frame).axes
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["2", "4"]
    assert [line.get_marker() for line in panel.lines].count("x") == 1


def test_planned_and_counted_bytes_stand_on_one_place(fabricator: Any) -> None:
    frame = volume.data(suite(fabricator, NINE, (1, 2, 4)))
    with drawing.paper_style():
        (panel,) = volume.draw(frame).axes
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["2", "4"]


def test_lines_that_lie_on_each_other_are_dashed(fabricator: Any) -> None:
    for approach, moved in (("partition", 100), ("pipegcn", 100), ("mixture", 50)):
        for ranks in (2, 4):
            spec = fabricator.spec("cora", "gcn", approach, ranks)
            fabricator.prediction(spec, bytes=[{"all_to_all/forward": moved * ranks}])
    frame = volume.data(read_study(fabricator.results))
    with drawing.paper_style():
        (panel,) = volume.draw(frame).axes
    looks = drawing.looks(frame["approach"])
    lines = [line for line in panel.lines if len(line.get_xdata()) == 2]
    styles = {
        line.get_color(): line.get_linestyle() for line in lines if line.get_marker() == "None"
    }
    assert styles[looks["partition"].colour] == "-"
    assert styles[looks["pipegcn"].colour] == "--"
    assert styles[looks["mixture"].colour] == "-"


def test_a_long_legend_leaves_the_points_alone(fabricator: Any) -> None:
    frame = parity.data(suite(fabricator, NINE, (1, 2, 4)))
    with drawing.paper_style():
        figure = parity.draw(frame)
    assert figure.axes[0].get_legend() is None
    assert len(figure.legends) == 1


def test_a_line_of_panels_with_gaps_keeps_its_labels_at_its_left() -> None:
    keys = [("a", "gcn"), ("b", "gcn"), ("b", "sage"), ("c", "gcn")]
    _, axes = drawing.panels(keys, heights=1.0)
    left = drawing.leftmost(axes)
    assert axes["b", "gcn"] in left
    assert axes["b", "sage"] in left
    assert len(left) == 2


def test_every_approach_looks_as_its_card_says_and_like_no_other() -> None:
    names = APPROACHES.names()
    looks = drawing.looks([*names, "of no card", "bns [rate=0.1]"])
    assert {name: looks[name] for name in names} == {n: APPROACHES.get(n).look for n in names}
    assert len({(look.colour, look.marker) for look in looks.values()}) == len(names) + 2


@pytest.mark.parametrize(
    ("label", "limit", "shown"),
    [
        ("mixture", 26, "mixture"),
        ("mixed-accelerators [chunks=4, node_order=degree]", 40, "mixed-accelerators [4, degree]"),
        ("mixed-accelerators [chunks=4, node_order=degree]", 20, "mixed-a… [4, degree]"),
        ("an approach with a name that never ends", 12, "an approach…"),
        ("a [b=" + "c" * 50 + "]", 12, "a [ccccccc…]"),
        ("sampled [placement=partitioned, cache_policy=none]", 22, "sam… [partitio…, none]"),
        ("sampled [placement=replicated, cache_policy=none]", 22, "sam… [replicat…, none]"),
    ],
)
def test_a_long_label_gives_up_what_tells_least(label: str, limit: int, shown: str) -> None:
    assert printable(label, limit) == shown
    assert len(shown) <= limit


def test_a_long_legend_leaves_the_panels_their_height(fabricator: Any) -> None:
    from matplotlib.lines import Line2D

    heights = []
    for count in (2, 40):
        figure, axes = drawing.panels([("cora", "gcn")], heights=1.4)
        handles = [Line2D([], [], label=f"a label of some length {at}") for at in range(count)]
        with drawing.paper_style():
            drawing.legend_above(figure, handles)
            drawing.save(figure, "png")
        (panel,) = axes.values()
        heights.append(panel.get_position().height * figure.get_figheight())
    assert heights[1] > 0.8 * heights[0]


def test_bars_of_very_many_runs_are_those_on_the_fewest_and_most_ranks() -> None:
    def made(at: int, ranks: int) -> Any:
        return SimpleNamespace(
            dataset=f"d{at}", model="m", label="x", ranks=ranks, measured=True, predicted=False
        )

    few = [made(at, ranks) for at in range(20) for ranks in (1, 2, 4, 8)]
    assert bars.chosen(few) == few
    many = [made(at, ranks) for at in range(60) for ranks in (1, 2, 4, 8)]
    kept = bars.chosen(many)
    assert {row.ranks for row in kept} == {1, 8}
    assert len(kept) == 60 * 2
    for rows, told in ((few, False), (many, True)):
        frame = bars.marked(pd.DataFrame([_part("forward", 1.0)]), rows)
        assert (str(bars.MOST_MEASURED) in phases.caption(frame)) is told


def _part(part: str, seconds: float, mark: float = 1.0) -> dict[str, Any]:
    """A part of a bar of the figure of phases; its period takes `mark` seconds."""
    place = {"dataset": "d", "model": "m", "approach": "a", "ranks": 2, "side": "measured"}
    return {**place, "part": part, "seconds": seconds, "mark": mark}


def test_a_matrix_of_which_half_is_empty_runs_on_line_by_line() -> None:
    assert drawing.is_matrix([("a", "gcn"), ("a", "sage"), ("b", "gcn")])
    assert not drawing.is_matrix([("a", "gcn"), ("b", "wide")])
