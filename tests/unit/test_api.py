"""The Python functions: records and rows of what the command line would print."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import gnnbench as gb
from gnnbench.cluster import load_cluster
from gnnbench.commands import calibrate as calibrate_command
from gnnbench.data.generators import uniform
from gnnbench.errors import DataError, MissingExtra, SpecError, UnknownName, Unsupported
from gnnbench.results import Results

SUITE = """
name = "small"
[datasets.g]
generator = "planted_partition"
options = { num_nodes = 200, mean_degree = 6, num_classes = 4, num_features = 8 }
[models.m]
[[runs]]
dataset = "g"
model = "m"
approach = ["single", "partition"]
"""


@pytest.fixture
def suite_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(SUITE, encoding="utf-8")
    return path


def test_a_suite_is_a_name_a_file_or_itself(suite_file: Path) -> None:
    assert gb.load_suite("demo").name == "demo"
    loaded = gb.load_suite(suite_file)
    assert loaded.name == "small"
    assert gb.load_suite(loaded) is loaded
    with pytest.raises(UnknownName, match="did you mean 'demo'"):
        gb.load_suite("demos")


def test_predict_returns_a_record_per_configuration_and_rank_count(suite_file: Path) -> None:
    records = gb.predict(suite_file, "cpu-2core", ranks=[1, 2, 4])
    asked = [(r.run.approach, r.run.ranks) for r in records]
    assert asked == [("single", 1), ("partition", 1), ("partition", 2), ("partition", 4)]
    assert all(r.period_s > 0 for r in records)


def test_predict_takes_a_cluster_by_object_and_file_too(suite_file: Path, tmp_path: Path) -> None:
    from gnnbench.cluster import save_cluster

    cluster = load_cluster("dgx-a100")
    save_cluster(cluster, tmp_path / "c.toml")
    times = [
        [record.period_s for record in gb.predict(suite_file, one)]
        for one in ("dgx-a100", cluster, tmp_path / "c.toml")
    ]
    assert times[0] == times[1] == times[2]


def test_saved_predictions_can_be_compared(suite_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    gb.predict(suite_file, "dgx-a100", results=folder)
    assert len(list(Results(folder).predictions())) == 2
    rows = gb.compare(folder)
    assert {(row.approach, row.status) for row in rows} == {
        *(("single", "predicted"), ("partition", "predicted"))
    }
    with pytest.raises(UnknownName, match="cluster among the predictions 'dgx-h100'"):
        gb.compare(folder, "dgx-h100")


def test_a_suite_may_be_a_dictionary_of_its_tables(suite_file: Path) -> None:
    table = tomllib.loads(suite_file.read_text(encoding="utf-8"))
    assert gb.load_suite(table).runs == gb.load_suite(suite_file).runs
    with pytest.raises(SpecError, match=r"suite: runs\[0\]\.approach: unknown approach 'singel'"):
        gb.load_suite({**table, "runs": [{"dataset": "g", "model": "m", "approach": "singel"}]})


def test_a_comparison_has_an_answer_a_table_and_figures(suite_file: Path, tmp_path: Path) -> None:
    gb.predict(suite_file, "dgx-a100", ranks=[1, 2, 4], results=tmp_path / "results")
    rows = gb.compare(tmp_path / "results")
    assert rows.answer.startswith("g, m: ")
    frame = rows.frame
    assert list(frame["ranks"]) == [row.ranks for row in rows]
    assert frame["planned_bytes"].max() == max(row.planned_bytes or 0 for row in rows) > 0
    figure = rows.figure("volume")
    assert figure.svg.count("<svg") == 1
    assert figure.save(tmp_path / "v.pdf").read_bytes().startswith(b"%PDF")
    assert figure.save(tmp_path / "v.csv").read_text().count("\n") == len(figure.frame) + 1
    with pytest.raises(SpecError, match=r"found suffix '.gif', allowed: .csv, .pdf, .png, .svg"):
        figure.save(tmp_path / "v.gif")
    with pytest.raises(UnknownName, match="did you mean 'volume'"):
        rows.figure("volumes")
    with pytest.raises(Unsupported, match=r"figure parity: .* has no numbers to draw"):
        rows.figure("parity")


def test_advice_is_the_text_of_the_command_and_tables() -> None:
    answer = gb.advise(
        "ogbn-arxiv", ["1xt4", "1xrtx3090x4"], approaches=["single", "sampled"], epochs=10
    )
    assert str(answer).startswith("1 x ")
    assert answer.advice.best is not None
    best = answer.machines.iloc[0]
    assert best["machine"] == answer.advice.best.machine.name
    assert best["low_s"] <= best["total_s"] <= best["high_s"]
    assert set(answer.approaches["promise"]) <= {"exact", "unbiased"}
    with pytest.raises(UnknownName, match="did you mean 'ogbn-arxiv'"):
        gb.advise("ogbn-arxivs", ["1xt4"])


def test_comparing_an_absent_folder_says_so(tmp_path: Path) -> None:
    for function in (gb.compare, gb.report):
        with pytest.raises(DataError, match="no such results folder"):
            function(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_profile_takes_an_object_a_folder_or_a_name(tmp_path: Path) -> None:
    from gnnbench.data.formats import native

    graph = uniform(50, 4, name="u")
    native.save(graph, tmp_path / "u")
    one, other = (gb.profile(source, parts=(2,)) for source in (graph, tmp_path / "u"))
    assert (one.num_edges, one.halo) == (other.num_edges, other.halo)
    assert gb.profile("reddit").num_nodes == 232_965
    with pytest.raises(SpecError, match="parts: reddit is a stored profile"):
        gb.profile("reddit", parts=(2,))
    with pytest.raises(UnknownName, match="did you mean 'reddit'"):
        gb.profile("redit")


def test_load_dataset_reads_what_convert_wrote(tmp_path: Path) -> None:
    from gnnbench.data.formats import native

    native.save(uniform(50, 4), tmp_path / "u")
    assert gb.load_dataset(tmp_path / "u").num_nodes == 50


def test_calibrate_writes_the_cluster_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, object] = {}

    def measure(**settings: object) -> gb.Cluster:
        asked.update(settings)
        return load_cluster("cpu-2core")

    monkeypatch.setattr(calibrate_command, "calibration", lambda: measure)
    cluster = gb.calibrate(tmp_path / "here.toml", quick=True, threads=2)
    assert load_cluster(tmp_path / "here.toml") == cluster
    assert (asked["quick"], asked["threads"], asked["name"]) == (True, 2, "here")


def test_training_and_calibrating_without_torch_name_the_install_line(
    suite_file: Path, tmp_path: Path
) -> None:
    code = (
        "import json, sys\n"
        "sys.modules['torch'] = None\n"  # as if it were not installed
        "import gnnbench as gb\n"
        "said = []\n"
        "for call in (lambda: gb.run(*sys.argv[1:]), gb.calibrate):\n"
        "    try:\n"
        "        call()\n"
        "    except gb.GnnbenchError as error:\n"
        "        said.append([type(error).__name__, str(error)])\n"
        "print(json.dumps(said))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(suite_file), str(tmp_path / "results")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert [kind for kind, _ in said] == [MissingExtra.__name__] * 2
    assert all("pip install 'gnnbench[runtime]'" in words for _, words in said)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_run_trains_and_returns_records(suite_file: Path, tmp_path: Path) -> None:
    records = gb.run(suite_file, tmp_path / "results", only="*single*", device="cpu")
    assert [(r.run.approach, r.status) for r in records] == [("single", "ok")]
