"""`list`, `info` and `check`, from the command line inwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gnnbench.accelerators import list_accelerators
from gnnbench.approaches.names import APPROACHES
from gnnbench.cluster import list_clusters
from gnnbench.data.formats import FORMATS
from gnnbench.data.generators import GENERATORS
from gnnbench.data.profile import list_profiles
from gnnbench.metrics import TASKS
from gnnbench.models.names import MODELS
from gnnbench.suites import suite_files

Say = Callable[..., tuple[int, str, str]]
KINDS = ("accelerators", "approaches", "clusters", "datasets", "models", "suites", "tasks")

SUITE = """
name = "mine"
[datasets.made]
generator = "uniform"
options = { num_nodes = 30, mean_degree = 4, num_features = 4, num_classes = 2 }
[datasets.filed]
path = "edges.txt"
[models.m]
[[runs]]
dataset = ["made", "filed"]
model = "m"
approach = ["single", "partition"]
ranks = [1, 2]
repeats = 2
"""


@pytest.fixture
def suite_file(tmp_path: Path) -> Path:
    path = tmp_path / "s.toml"
    path.write_text(SUITE, encoding="utf-8")
    (tmp_path / "edges.txt").write_text("0 1\n1 2\n", encoding="utf-8")
    return path


# list


@pytest.mark.parametrize("kind", KINDS)
def test_list_names_everything_there_is(say: Say, kind: str) -> None:
    code, out, _ = say("list", kind, "--json")
    assert code == 0
    names = [row["name"] for row in json.loads(out)]
    there = {
        "accelerators": list_accelerators(),
        "approaches": APPROACHES.names(),
        "models": MODELS.names(),
        "clusters": list_clusters(),
        "suites": list(suite_files()),
        "tasks": list(TASKS),
        "datasets": [*FORMATS, *GENERATORS, *list_profiles()],
    }
    assert sorted(names) == sorted(there[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_list_prints_a_line_per_name_below_its_columns(say: Say, kind: str) -> None:
    _, as_json, _ = say("list", kind, "--json")
    code, out, err = say("list", kind)
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == 1 + len(json.loads(as_json))
    assert out.startswith("name")


def test_list_of_something_else_is_wrong_usage(say: Say) -> None:
    code, out, err = say("list", "dataset")
    assert (code, out) == (2, "")
    assert "invalid choice: 'dataset'" in err
    assert err.count("\n") == 1


# info


def knobs_of(say: Say, name: str) -> list[dict[str, object]]:
    knobs: list[dict[str, object]] = json.loads(say("info", name, "--json")[1])["knobs"]
    return knobs


@pytest.mark.parametrize("kind", KINDS)
def test_info_knows_every_name_that_list_shows(say: Say, kind: str) -> None:
    _, out, _ = say("list", kind, "--json")
    for row in json.loads(out):
        code, described, _ = say("info", row["name"], "--json")
        assert code == 0
        card = json.loads(described)
        assert card["kind"]
        assert card["name"] == row["name"]
        code, shown, err = say("info", row["name"])
        assert (code, err) == (0, "")
        assert shown.startswith(f"kind: {card['kind']}\n")


def test_info_of_an_approach_shows_each_knob_with_what_is_allowed(say: Say) -> None:
    _, out, _ = say("info", "partition", "--json")
    knobs = {knob["knob"]: knob for knob in json.loads(out)["knobs"]}
    allowed = "metis | fennel | hash | chunk"
    meaning = "how vertices are assigned to ranks."
    assert knobs["partitioner"] == {
        **{"knob": "partitioner", "default": "metis", "allowed": allowed},
        "meaning": meaning,
    }
    assert all(knob["meaning"] for name in APPROACHES.names() for knob in knobs_of(say, name))
    assert knobs["precompute"]["allowed"] == "true | false"
    names = "partitioner objective order precompute overlap transport"
    assert set(knobs) == set(names.split())
    _, shown, _ = say("info", "sampled")
    assert ">= 0, <= 64" in shown  # prefetch
    assert "unbiased" in shown


def test_info_of_a_cluster_shows_value_status_and_source_of_a_constant(say: Say) -> None:
    _, out, _ = say("info", "dgx-a100")
    line = next(x for x in out.splitlines() if x.strip().startswith("memory_bytes_per_s: 2.039e"))
    assert "(published: " in line


def test_info_of_a_generator_shows_its_options(say: Say) -> None:
    _, out, _ = say("info", "uniform", "--json")
    options = {option["option"]: option for option in json.loads(out)["options"]}
    assert options["num_nodes"] == {"option": "num_nodes", "type": "int", "default": "required"}
    assert options["seed"]["default"] == 0


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("partitoin", "did you mean 'partition'?"),
        ("redit", "did you mean 'reddit'?"),
        ("demo1", "did you mean 'demo'?"),
        ("qqqqqq", "`gnnbench list WHAT` shows the "),
    ],
)
def test_info_of_a_misspelt_name_says_what_was_meant(say: Say, name: str, answer: str) -> None:
    code, out, err = say("info", name)
    assert (code, out) == (2, "")
    assert err.startswith(f"gnnbench: error: unknown name {name!r}: {answer}")


def test_info_tells_how_each_constant_of_an_accelerator_is_known(say: Say) -> None:
    _, out, _ = say("info", "hygcn")
    (lanes,) = [line for line in out.splitlines() if line.strip().startswith("lanes:")]
    assert lanes.strip().startswith("lanes: 512  (unverified: HyGCN")


# check


def test_check_shows_each_configuration_and_why_one_is_skipped(say: Say, suite_file: Path) -> None:
    code, out, _ = say("check", str(suite_file), "--json")
    assert code == 0
    document = json.loads(out)
    assert (document["suite"], document["runs"], document["datasets"]) == ("mine", 16, [])
    rows = document["configurations"]
    assert len(rows) == 8
    assert {row["repeats"] for row in rows} == {2}
    skipped = {row["reason"] for row in rows if row["status"] == "skipped"}
    assert skipped == {"single runs on 1 rank, 2 asked"}
    assert sum(row["status"] == "ok" for row in rows) == 6


def test_check_prints_the_same_as_a_table(say: Say, suite_file: Path) -> None:
    code, out, _ = say("check", str(suite_file))
    assert code == 0
    lines = out.splitlines()
    assert len(lines) == 1 + 8 + 1 + 1
    assert lines[0] == f"{suite_file}: 16 runs of 8 configurations"
    # The reason follows the table, once, with the configurations that have it.
    assert lines[-1].startswith("skipped: single runs on 1 rank, 2 asked: made-m-single-p2-")


def test_check_opens_datasets_when_asked(say: Say, suite_file: Path) -> None:
    code, out, _ = say("check", str(suite_file), "--datasets", "--json")
    assert code == 1
    made, filed = json.loads(out)["datasets"]
    sizes = "graph: 30 nodes, 120 edges, 4 features, 2 classes, 18 train"
    assert (made["dataset"], made["status"], made["detail"]) == ("made", "ok", sizes)
    assert filed["status"] == "untrainable"
    assert filed["detail"].startswith("graph filed has no features and no labels: set synthetic = ")


def test_a_dataset_that_cannot_be_opened_fails_the_check_and_hides_no_other(
    say: Say, suite_file: Path
) -> None:
    (suite_file.parent / "edges.txt").unlink()
    code, out, _ = say("check", str(suite_file), "--datasets", "--json")
    assert code == 1
    made, filed = json.loads(out)["datasets"]
    assert (made["status"], filed["status"]) == ("ok", "failed")
    assert "dataset not found: edges.txt" in filed["detail"]


@pytest.mark.parametrize("name", sorted(suite_files()))
def test_the_built_in_suites_are_right(say: Say, name: str) -> None:
    code, out, _ = say("check", name, "--json")
    assert code == 0
    assert json.loads(out)["runs"] > 0


def test_every_mistake_of_a_suite_is_a_line_and_the_exit_code_2(say: Say, suite_file: Path) -> None:
    text = SUITE.replace("approach =", "aproach =").replace("num_nodes = 30", "num_nods = 30")
    suite_file.write_text(text + "\n[training]\nlr = -1\n", encoding="utf-8")
    code, out, err = say("check", str(suite_file))
    assert (code, out) == (2, "")
    for line in (
        "runs[0].aproach: unknown key, did you mean 'approach'?",
        "runs[0].approach: missing, expected ",
        "datasets.made.options.num_nods: unknown option, did you mean 'num_nodes'?",
        "training.lr: found -1.0, allowed >= 0 and <= 100",
    ):
        assert f"{suite_file}: {line}" in err


@pytest.mark.parametrize(
    ("suite", "answer"),
    [
        ("dmo", "unknown suite 'dmo': did you mean 'demo'?"),
        ("none.toml", "none.toml: no such suite file; built-in suites: "),
    ],
)
def test_an_absent_suite_is_one_line(say: Say, suite: str, answer: str) -> None:
    code, out, err = say("check", suite)
    assert (code, out) == (2, "")
    assert answer in err
    assert err.count("\n") == 1


def test_a_missing_word_is_asked_for_with_those_allowed(say: Say) -> None:
    code, _, err = say("list")
    assert code == 2
    assert f"are required: WHAT, one of {', '.join(KINDS)} (see gnnbench list --help)" in err


def test_of_many_names_the_command_is_named_that_lists_them(say: Say) -> None:
    code, _, err = say("predict", "demo", "--cluster", "xyzzy")
    assert code == 2
    assert f"`gnnbench list clusters` shows the {len(list_clusters())} that are allowed" in err


def test_several_values_of_a_knob_are_told_to_be_several_entries(
    say: Say, suite_file: Path
) -> None:
    knobs = 'knobs = { objective = ["vol", "cut"] }\n'
    suite_file.write_text(SUITE.replace("repeats = 2\n", knobs), encoding="utf-8")
    code, _, err = say("check", str(suite_file))
    assert code == 2
    assert "runs[0].knobs.objective: found ['vol', 'cut'], expected text: one value; " in err
