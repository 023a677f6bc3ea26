"""Before a run: what partition parallelism and the mixture will send."""

from __future__ import annotations

from pathlib import Path

import pytest

from gnnbench.approaches.crossover import crossover
from gnnbench.cli import main
from gnnbench.commands import volumes
from gnnbench.data.source import open_graph
from gnnbench.results import Results, RunRecord
from gnnbench.spec import RunSpec, load_suite
from gnnbench_reports import numbers

SUITE = """
name = "both"
[graphs.g]
generator = "planted_partition"
options = { num_nodes = 200, mean_degree = 8, num_classes = 4, num_features = 16, seed = 1 }
[models.gcn]
hidden = 8
[models.gat]
kind = "gat"
hidden = 8
[[runs]]
graph = "g"
model = ["gcn", "gat"]
approach = ["single", "partition", "mixture"]
ranks = [1, 2, 4]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "both.toml"
    path.write_text(SUITE, encoding="utf-8")
    return path


def gcn(path: Path) -> list[RunSpec]:
    return [run for run in load_suite(path).runs if run.model.kind == "gcn"]


def test_a_line_for_each_rank_count_on_which_both_can_run(path: Path) -> None:
    lines = list(volumes.volume_lines(gcn(path), [path.parent]))
    assert [line.split(":")[0] for line in lines] == ["g, gcn, 2 ranks", "g, gcn, 4 ranks"]


def test_the_bytes_are_those_of_the_crossover_with_the_weights(path: Path) -> None:
    runs = gcn(path)
    (point,) = crossover(open_graph(runs[0].graph, [path.parent]), runs[0].model, [4]).points
    (line,) = [
        line for line in volumes.volume_lines(runs, [path.parent]) if line.startswith("g, gcn, 4")
    ]
    partition = numbers.size(point.partition_bytes + point.weights_bytes)
    mixture = numbers.size(point.mixture_bytes + point.weights_bytes)
    assert f"partition sends {partition} per epoch, mixture {mixture}: " in line


def test_finished_runs_are_not_counted_again(path: Path, tmp_path: Path) -> None:
    results = Results(tmp_path / "results")
    runs = gcn(path)
    for run in runs:
        if run.ranks == 2:
            results.save_run(
                RunRecord(
                    run_id=run.run_id, config_id=run.config_id, spec=run.to_dict(), status="ok"
                )
            )
    lines = list(volumes.volume_lines(runs, [path.parent], results))
    assert [line.split(":")[0] for line in lines] == ["g, gcn, 4 ranks"]


def test_a_large_graph_is_left_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumes, "MOST_EDGES", 100)
    assert list(volumes.volume_lines(gcn(path), [path.parent])) == []


def test_a_suite_without_the_mixture_says_nothing(path: Path) -> None:
    runs = [run for run in gcn(path) if run.approach != "mixture"]
    assert list(volumes.volume_lines(runs, [path.parent])) == []


def test_check_says_it_where_graphs_are_opened(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(path)]) == 0
    assert "partition sends" not in capsys.readouterr().out
    assert main(["check", str(path), "--graphs"]) == 0
    assert "g, gcn, 4 ranks: partition sends" in capsys.readouterr().out


def test_predict_says_the_same_and_keeps_its_cluster(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "results"
    assert main(["predict", str(path), "--results", str(folder)]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if "partition sends" in line]
    counted = list(volumes.volume_lines(gcn(path), [path.parent]))
    assert [line for line in told if ", gcn," in line] == counted
    assert Results(folder).cluster_file("cpu-2core").is_file()
