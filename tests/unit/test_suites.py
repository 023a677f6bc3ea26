"""Suites by name or file."""

from __future__ import annotations

from pathlib import Path

import pytest

from gnnbench.errors import SpecError, UnknownName
from gnnbench.suites import find_suite, suite_files


@pytest.mark.parametrize("name", sorted(suite_files()))
def test_every_suite_that_ships_can_be_read(name: str) -> None:
    suite = find_suite(name)
    assert suite.name == name
    assert suite.description
    assert suite.runs


def test_the_demo_has_every_first_approach_on_one_and_two_ranks() -> None:
    runs = {(run.approach, run.ranks) for run in find_suite("demo").runs}
    assert runs >= {
        ("single", 1),
        *((approach, ranks) for approach in ("partition", "sampled") for ranks in (1, 2)),
    }


def test_a_suite_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(suite_files()["demo"].read_text())
    suite = find_suite(str(path))
    assert (suite.name, suite.folder) == ("demo", tmp_path)


def test_a_misspelt_name_is_told_with_a_suggestion() -> None:
    with pytest.raises(UnknownName, match="did you mean 'demo'"):
        find_suite("dmo")


def test_a_missing_file_is_told_as_a_file() -> None:
    with pytest.raises(SpecError, match=r"none\.toml: no such suite file"):
        find_suite("none.toml")


def test_the_whole_graph_suite_runs_every_whole_graph_approach_at_least_fifty_times() -> None:
    from gnnbench.approaches.names import APPROACHES

    runs = find_suite("wholegraph").runs
    done = [run for run in runs if APPROACHES.get(run.approach).cannot_run(run) is None]
    assert len(done) >= 50
    assert {run.approach for run in done} == set(registry.APPROACHES) - {"sampled"}
    assert {run.ranks for run in done} == {1, 2, 4}
    assert len({run.graph.name for run in done}) == 3


def test_the_accuracy_suite_trains_every_approach_on_three_graphs_with_three_seeds() -> None:
    from gnnbench.approaches.names import APPROACHES

    suite = find_suite("accuracy")
    trained = {(run.approach, run.graph.name, run.training.seed) for run in suite.runs}
    graphs = {run.graph.name for run in suite.runs}
    assert len(graphs) == 3
    assert trained == {
        (approach, graph, seed)
        for approach in registry.APPROACHES
        for graph in graphs
        for seed in (0, 1, 2)
    }
    assert all(APPROACHES.get(run.approach).cannot_run(run) is None for run in suite.runs)
