"""`gnnbench dataset`, from the command line inwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gnnbench.cli import main
from gnnbench.data import formats
from gnnbench.data.histogram import median
from gnnbench.data.profile import load_profile
from gnnbench.data.source import open_source

SMALL = [
    "planted_partition",
    *(
        word
        for option in ("num_nodes=400", "mean_degree=6", "num_classes=4", "num_features=8")
        for word in ("--option", option)
    ),
]
Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(say: Say) -> Say:
    """Return (exit code, stdout, stderr) of `gnnbench dataset` with these words."""
    return lambda *words: say("dataset", *words)


def test_a_generated_graph_is_profiled_as_asked(say: Say) -> None:
    code, out, _ = say(
        *(*SMALL, "--parts", "2,4", "--methods", "metis-vol,hash"),
        *("--fanouts", "3,2", "--fanouts", "5", "--batch", "20", "--json"),
    )
    assert code == 0
    card = json.loads(out)
    assert (card["num_nodes"], card["num_edges"], card["num_train"]) == (400, 2400, 240)
    assert card["degree_mean"] == 6
    assert 0.7 < card["edge_homophily"] < 0.9
    points = [(p["method"], p["parts"]) for p in card["halo"]]
    assert points == [("metis-vol", 2), ("metis-vol", 4), ("hash", 2), ("hash", 4)]
    drawn = [(p["fanouts_from_seeds"], p["batch"]) for p in card["frontier"]]
    assert drawn[:2] == [([3, 2], 20), ([5], 20)]
    assert len(drawn) > 10, "other batches, between which sizes are interpolated"


def test_the_table_shows_counts_degrees_and_both_curves(say: Say) -> None:
    code, out, _ = say(*SMALL, "--parts", "2")
    assert code == 0
    counts = ("nodes             400", "mean 6, median", "edge homophily", "240, 80, 80")
    for words in (*counts, "S/N", "metis-vol", "fan-outs from seeds", "10, 10"):
        assert words in out, words


def test_parts_none_leaves_partitioning_out(say: Say) -> None:
    code, out, _ = say(*SMALL, "--parts", "none", "--json")
    assert code == 0
    assert json.loads(out)["halo"] == []


def test_a_stored_profile_is_shown_as_it_is(say: Say) -> None:
    code, out, _ = say("reddit", "--json")
    assert code == 0
    card = json.loads(out)
    assert card["num_nodes"] == load_profile("reddit").num_nodes
    assert card["degree_median"] is None
    code, out, _ = say("reddit")
    assert (code, "232,965" in out, "published" in out) == (0, True, True)


def test_a_saved_profile_can_be_shown_again_and_predicted_with(say: Say, tmp_path: Path) -> None:
    path = tmp_path / "new" / "mine.toml"
    _, first, _ = say(*SMALL, "--parts", "2", "--save", str(path), "--json")
    _, again, _ = say(str(path), "--json")
    shown, stored = json.loads(first), json.loads(again)
    assert shown.pop("saved") == str(path)
    assert stored.pop("saved") is None
    assert (shown.pop("notes")["generator"], stored.pop("notes")) == ("planted_partition", {})
    assert shown == stored
    suite = tmp_path / "s.toml"
    suite.write_text(
        f'[datasets.g]\nprofile = "{path}"\n[models.m]\n'
        '[[runs]]\ndataset = "g"\nmodel = "m"\napproach = "partition"\nranks = 2\n',
        encoding="utf-8",
    )
    assert main(["predict", str(suite), "--json"]) == 0


def test_a_converted_graph_reads_back_equal(say: Say, tmp_path: Path) -> None:
    folder = tmp_path / "native"
    code, out, _ = say(*SMALL, "--parts", "none", "--convert", str(folder))
    assert code == 0
    assert f"wrote the dataset to {folder}" in out
    graph = formats.read("native", folder)
    assert (graph.num_nodes, graph.num_edges, graph.num_classes) == (400, 2400, 4)
    _, out, _ = say(str(folder), "--parts", "none", "--json")
    assert json.loads(out)["num_edges"] == 2400


def test_a_file_is_read_with_its_format_and_options(say: Say, tmp_path: Path) -> None:
    path = tmp_path / "edges.txt"
    path.write_text("0 1\n1 2\n2 0\n", encoding="utf-8")
    code, out, _ = say(str(path), "--format", "snap", "--option", "directed=yes", "--json")
    assert code == 0
    card = json.loads(out)
    assert (card["num_nodes"], card["num_edges"], card["undirected"]) == (3, 3, False)
    assert card["frontier"] == []  # no split, nothing to draw batches from


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["redit"], "unknown dataset 'redit': did you mean 'reddit'?"),
        (["no/such"], "no/such: no such file or folder"),
        (["rmat"], "generator 'rmat' needs scale"),
        (["rmat", "--option", "scale=big"], "scale: found 'big', expected a whole number"),
        (["rmat", "--option", "scale=3", "--option", "edge_fctor=1"], "did you mean 'edge_factor'"),
        (["rmat", "--format", "snap"], "rmat is a generator"),
        (["reddit", "--parts", "2", "--convert", "x"], "--parts, --convert: reddit is a stored"),
        (["rmat", "--option", "scale"], "'scale' is not of the form key=value"),
        (["rmat", "--parts", "2,x"], "'2,x' is not a list of parts"),
        (["rmat", "--parts", "0"], "'0' is not a list of parts"),
        (["rmat", "--methods", "metis"], "'metis': did you mean 'metis-vol'"),
        (["rmat", "--fanouts", "5,0"], "'5,0' is not a list of fan-outs"),
        (["rmat", "--batch", "0"], "'0' is not a whole number of at least 1"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(say: Say, words: list[str], problem: str) -> None:
    code, out, err = say(*words)
    assert (code, out) == (2, "")
    assert problem in err
    assert err.count("\n") == 1


def test_the_median_degree_is_that_of_the_histogram() -> None:
    assert median((0.0, 1.0, 7.0), (1, 2, 2)) == 1.0
    assert median((), ()) is None


def test_options_of_a_generator_are_read_as_a_suite_would() -> None:
    graph = open_source("rmat", None, {"scale": "5", "edge_factor": "2.5", "name": "g"})
    assert (graph.num_nodes, graph.name) == (32, "g")


def test_an_edge_list_is_converted_within_a_cap(say: Say, tmp_path: Path) -> None:
    file, folder = tmp_path / "list.txt", tmp_path / "converted"
    file.write_text("".join(f"{at % 97} {at * at % 89}\n" for at in range(2000)))
    code, out, _ = say(str(file), "--memory", "200MB", "--convert", str(folder), "--parts", "2,3")
    assert code == 0
    for words in ("nodes", "97", "self loops", "repeated edges", "allowed 200 MB", "wrote the"):
        assert words in out, words
    made = open_source(str(folder))
    read = open_source(str(file))
    assert made.num_edges == read.num_edges and made.notes == read.notes


def test_a_cap_that_is_too_small_says_what_is_needed(say: Say, tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_text("0 1\n")
    code, _, err = say(str(file), "--memory", "1MB", "--convert", str(tmp_path / "converted"))
    assert code == 2 and "found 1 MB" in err and "need" in err
    code, _, err = say(str(file), "--memory", "1GB")
    assert code == 2 and "--convert is missing" in err
    code, _, err = say(str(file), "--memory", "many", "--convert", str(tmp_path / "converted"))
    assert code == 2 and "'many'" in err


def test_partitioners_are_set_beside_each_other(say: Say) -> None:
    code, out, _ = say(*SMALL, "--parts", "4", "--fanouts", "2", "--partitioners")
    assert code == 0
    rows = [line.split() for line in out[out.index("partitioners:") :].splitlines()]
    found = {row[0]: row for row in rows if row and row[0] in ("metis-cut", "fennel", "hash")}
    cut = {name: float(row[2].rstrip("%")) for name, row in found.items()}
    assert cut["metis-cut"] < cut["hash"] and cut["fennel"] < cut["hash"]
