"""Predictions for several machines in one folder: what their figures show and leave out."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from gnnbench.cluster import load_cluster, save_cluster
from gnnbench_reports.figures import drawing, pareto, scaling
from gnnbench_reports.opening import read_study
from gnnbench_reports.study import Study

MACHINES = ("near", "far")


@pytest.fixture
def study(fabricator: Any) -> Study:
    """Two approaches on two machines: one on 1 and 2 ranks, one on a single rank."""
    for name in MACHINES:
        rented = dataclasses.replace(load_cluster("g4dn.12xlarge"), name=name)
        path = fabricator.results.cluster_file(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_cluster(rented, path)
        dear = 1.0 if name == "near" else 2.0
        for approach, ranks, seconds in (
            ("partition", 1, 2),
            ("partition", 2, 1),
            ("single", 1, 3),
        ):
            run = fabricator.spec(approach=approach, ranks=ranks)
            fabricator.prediction(run, seconds=dear * seconds, cluster=name)
    found: Study = read_study(fabricator.results)
    return found


def test_an_approach_keeps_its_look_on_every_machine_and_the_frontier_names_its_machine(
    study: Study,
) -> None:
    frame = pareto.data(study)
    assert set(frame["approach"]) == {"partition", "single"}
    assert set(frame["cluster"]) == set(MACHINES)
    with drawing.paper_style():
        figure = pareto.draw(frame)
    assert "2 near" in {text.get_text() for text in figure.axes[0].texts}
    assert "beside their marks rank count and cluster" in pareto.caption(frame)
    one = frame[frame["cluster"] == "near"]
    assert "beside their marks the rank count" in pareto.caption(one)


def test_an_approach_on_one_rank_count_has_no_panel_of_scaling(study: Study) -> None:
    frame = scaling.data(study)
    assert {model.partition(" · ")[2] for model in frame["model"]} == {"partition"}
    assert set(frame["approach"]) == set(MACHINES)


def test_lines_of_equal_times_lie_in_one_another_and_the_caption_says_so(study: Study) -> None:
    frame = scaling.data(study)
    assert "wider" not in scaling.caption(frame)
    frame.loc[frame["approach"] == "far", "predicted_period_s"] /= 2.0
    assert "A line within a wider one: equal times." in scaling.caption(frame)
    with drawing.paper_style():
        figure = scaling.draw(frame)
    looks = drawing.looks(frame["approach"])
    width = {
        name: max(
            line.get_linewidth()
            for line in figure.axes[0].lines
            if line.get_color() == looks[name].colour
        )
        for name in MACHINES
    }
    first, last = frame["approach"].sort_values().iloc[[0, -1]]
    assert width[first] > 2 * width[last]
