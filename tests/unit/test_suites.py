"""Suites: products of lists, every mistake told at once, and the suites that ship."""

from __future__ import annotations

import copy
import datetime
import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gnnbench.approaches.names import APPROACHES
from gnnbench.errors import SpecError, UnknownName
from gnnbench.spec import BatchSpec, DatasetRef, MemorySpec
from gnnbench.suites import Suite, find_suite, parse_suite, suite_files

BASE: dict[str, Any] = {
    "schema": 2,
    "name": "mine",
    "datasets": {
        "small": {"generator": "uniform", "options": {"num_nodes": 10, "mean_degree": 2}},
        "large": {"path": "somewhere/cora", "features": "row"},
    },
    "models": {"gcn": {"kind": "gcn"}, "deep": {"kind": "sage", "layers": 3}},
    "training": {"epochs": 7},
}
ENTRY = {"dataset": "small", "model": "gcn", "approach": "single"}


def suite(*runs: dict[str, Any], **changes: Any) -> Suite:
    table = {"runs": [{**ENTRY, **run} for run in runs or ({},)], **copy.deepcopy(BASE), **changes}
    return parse_suite(table, "s.toml")


def problems(*runs: dict[str, Any], **changes: Any) -> tuple[str, ...]:
    with pytest.raises(SpecError) as caught:
        suite(*runs, **changes)
    return caught.value.problems


# Expansion


def test_an_entry_is_the_product_of_its_lists() -> None:
    lists = {"dataset": ["small", "large"], "model": ["gcn", "deep"], "ranks": [1, 2, 4]}
    runs = suite({**lists, "approach": "partition"}).runs
    asked = [(run.dataset.name, run.model.name, run.ranks) for run in runs]
    assert len(asked) == len(set(asked)) == 12
    first = [("small", "gcn", 1), ("small", "gcn", 2), ("small", "gcn", 4), ("small", "deep", 1)]
    assert asked[:4] == first


def test_repeats_are_interleaved_over_all_entries() -> None:
    found = suite({"repeats": 2}, {"approach": "partition", "repeats": 3})
    order = [("single", 0), ("partition", 0), ("single", 1), ("partition", 1), ("partition", 2)]
    assert [(run.approach, run.repeat) for run in found.runs] == order
    assert [run.approach for run in found.configurations()] == ["single", "partition"]


def test_a_run_asked_for_twice_is_done_once() -> None:
    assert [run.repeat for run in suite({"repeats": 2}, {"ranks": [1, 1]}).runs] == [0, 1]


def test_sections_are_the_suites_unless_the_entry_says_otherwise() -> None:
    own = {"training": {"lr": 0.5}, "batch": {"size": 9}, "memory": {"host": "2 GB"}}
    sections = {"batch": {"negatives": 3}, "memory": {"device": 8}}
    plain, changed = suite({"approach": "sampled"}, {"approach": "sampled", **own}, **sections).runs
    assert (plain.training.epochs, plain.training.lr) == (7, 0.01)
    assert (changed.training.epochs, changed.training.lr) == (7, 0.5)
    assert (plain.batch, changed.batch) == (
        BatchSpec(negatives=3),
        BatchSpec(negatives=3, size=9),
    )
    assert changed.memory == MemorySpec(device=8, host=2_000_000_000)


def test_a_batch_tells_no_runs_apart_whose_approach_has_none() -> None:
    single, sampled = suite({"approach": ["single", "sampled"]}, batch={"size": 9}).runs
    assert (single.batch, sampled.batch.size) == (BatchSpec(), 9)
    assert single.config_id == suite().runs[0].config_id


def test_an_entry_runs_once_per_seed() -> None:
    runs = suite({"seeds": [3, 5]}).runs
    assert [run.training.seed for run in runs] == [3, 5]
    assert len({run.config_id for run in runs}) == 2


def test_an_entry_may_name_its_task() -> None:
    links = {"kind": "link_prediction", "negatives": 500, "metric": "hits_10"}
    plain, linked = suite({}, {"task": "links"}, tasks={"links": links}).runs
    assert (plain.task.kind, linked.task.kind, linked.task.negatives) == (
        *("", "link_prediction", 500),
    )


def test_runs_are_chosen_by_pattern_and_repeats() -> None:
    made = suite({"approach": ["single", "partition"], "repeats": 3})
    assert [run.run_id[-2:] for run in made.chosen(only="*-single-*", repeats=2)] == ["r0", "r1"]
    with pytest.raises(SpecError, match=r"--only 'x' matches no run; a run id is like 'small-"):
        made.chosen(only="x")


def test_other_rank_counts_leave_out_who_cannot_and_say_why() -> None:
    made = suite({"approach": ["single", "partition"], "ranks": [1, 2]})
    asked = [(run.approach, run.ranks) for run in made.at_ranks([1, 4])]
    assert asked == [("single", 1), ("partition", 1), ("partition", 4)]
    assert made.left_out([1, 4]) == ["left out: single on 4 ranks: single runs on 1 rank, 4 asked"]
    assert len(made.at_ranks(None)) == 4
    assert made.left_out(None) == []  # what the suite asks for itself is a skip, with its reason


# Knobs


def test_knobs_that_differ_from_their_defaults_are_kept_and_no_others() -> None:
    changed, plain = suite(
        {"knobs": {"order": "transform_first"}}, {"knobs": {"order": "min_width"}}
    ).runs
    assert (changed.knobs, plain.knobs) == ({"order": "transform_first"}, {})
    assert plain.config_id == suite().runs[0].config_id


def test_knobs_go_to_those_who_know_them_or_whose_name_they_stand_under() -> None:
    knobs = {"objective": "cut", "sampled": {"objective": "vol", "prefetch": 2}}
    single, partition, sampled = suite(
        {"approach": ["single", "partition", "sampled"], "knobs": knobs}
    ).runs
    assert (single.knobs, partition.knobs) == ({}, {"objective": "cut"})
    assert sampled.knobs == {"prefetch": 2}  # "vol" is the default
    # A table of an approach that this entry does not run is no mistake: the entry was cut short.
    assert suite({"knobs": {"sampled": {"prefetch": 2}}}).runs[0].knobs == {}


@pytest.mark.parametrize(
    ("approach", "knobs", "problem"),
    [
        ("sampled", {"prefetsch": 9}, "prefetsch: unknown knob, did you mean 'prefetch'?"),
        (["single", "sampled"], {"rate": 1}, "rate: a knob of bns, and this entry runs single, sa"),
        ("sampled", {"prefetch": 65}, "prefetch: found 65, allowed >= 0 and <= 64"),
        (
            "sampled",
            {"placement": "x"},
            "placement: found 'x', allowed: host, partitioned, replicated",
        ),
        ("sampled", {"sampeld": {}}, "sampeld: unknown approach, did you mean 'sampled'?"),
        ("single", {"sampled": {"prefetsch": 1}}, "sampled.prefetsch: unknown knob, did you mean"),
        ("sampled", {"sampled": {"x": 1}}, "x: unknown key, allowed: cache_policy, cache_share,"),
    ],
)
def test_a_wrong_knob_is_answered_with_what_is_allowed(
    approach: Any, knobs: dict[str, Any], problem: str
) -> None:
    (found,) = problems({"approach": approach, "knobs": knobs})
    assert found.startswith(f"s.toml: runs[0].knobs.{problem}")


@pytest.mark.parametrize(
    ("fanouts", "problem"),
    [
        ([5, 5], "found 2 fan-outs for the 3 layers of model deep; give one per layer"),
        ([5, 0, 5], "found [5, 0, 5], and 0 draws nothing"),
        ([5, -2, 5], "found -2, allowed >= -1"),
    ],
)
def test_there_is_one_fan_out_per_layer(fanouts: list[int], problem: str) -> None:
    entry = {"approach": "sampled", "model": "deep", "batch": {"fanouts_from_seeds": fanouts}}
    (found,) = problems(entry)
    assert found.startswith("s.toml: runs[0].batch.fanouts_from_seeds")
    assert found.endswith(problem)


# Mistakes


def dataset(**fields: Any) -> dict[str, Any]:
    return {"datasets": {"small": fields}}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"schema": 1}, "schema: found 1, allowed: 2"),
        ({"name": 3}, "name: found 3, expected text"),
        ({"run": []}, "run: unknown key, did you mean 'runs'?"),
        ({"graphs": {}}, "graphs: unknown key, allowed: batch, datasets, "),
        ({"runs": []}, "runs: needs at least one [[runs]] entry"),
        ({"runs": {}}, "runs: needs at least one [[runs]] entry"),
        ({"training": 3}, "training: found 3, expected a table"),
        ({"training": {"epoch": 1}}, "training.epoch: unknown key, did you mean 'epochs'?"),
        ({"training": {"lr": float("nan")}}, "training.lr: found nan, expected a finite number"),
        ({"training": {"optimizer": "adm"}}, "training.optimizer: found 'adm', did you mean 'adam"),
        ({"batch": {"size": 0}}, "batch.size: found 0, allowed >= 1"),
        ({"memory": {"host": "2 GX"}}, "memory.host: "),
        ({"memory": {"hots": 1}}, "memory.hots: unknown key, did you mean 'host'?"),
        ({"models": 3}, "models: found 3, expected tables [models.NAME]"),
        ({"models": {"gcn": {"kind": "gcnn"}}}, "models.gcn.kind: unknown model 'gcnn', did you"),
        ({"models": {"gcn": {"dropout": 1}}}, "models.gcn.dropout: found 1.0, allowed >= 0 and < "),
        ({"models": {"gcn": {"norm": "batch"}}}, "models.gcn.norm: found 'batch', allowed: layer,"),
        ({"models": {"gcn": {"name": "x"}}}, "models.gcn.name: unknown key, it is filled in"),
        ({"tasks": {"t": {"kind": "links"}}}, "tasks.t.kind: found 'links', "),
        (
            {"tasks": {"t": {"kind": "link_prediction", "metric": "mmr"}}},
            "tasks.t.metric: unknown metric 'mmr', did you mean 'mrr'?",
        ),
        (dataset(), "datasets.small: give exactly one of path, generator, profile; found none"),
        (dataset(path="a", profile="b"), "datasets.small: give exactly one of path, generator, p"),
        (dataset(path="a", digest="0"), "datasets.small.digest: unknown key, it is filled in"),
        (dataset(path="a", kind="grph"), "datasets.small.kind: found 'grph', did you mean 'graph'"),
        (dataset(path="a", format="snapp"), "datasets.small.format: unknown 'snapp', did you mean"),
        (dataset(generator="unifrom"), "datasets.small.generator: unknown 'unifrom', did you mean"),
        (
            dataset(generator="rmat", options={"scales": 3}),
            "datasets.small.options.scales: unknown option, did you mean 'scale'?",
        ),
        (
            dataset(path="a", synthetic={"num_featurs": 1, "num_classes": 2}),
            "datasets.small.synthetic.num_featurs: unknown key, did you mean 'num_features'?",
        ),
        (dataset(path="a", split={"trian": 1}), "datasets.small.split.trian: unknown key, did you"),
        (dataset(profile="redit"), "datasets.small.profile: unknown profile 'redit', did you mean"),
        (
            dataset(profile="reddit", override={"num_featurs": 1}),
            "datasets.small.override.num_featurs: unknown fact, did you mean 'num_features'?",
        ),
        (
            dataset(path="a", options={"day": datetime.date(2024, 1, 1)}),
            "datasets.small.options.day: found datetime.date(2024, 1, 1), expected text, a ",
        ),
    ],
)
def test_a_mistake_of_a_suite_is_told(changes: dict[str, Any], problem: str) -> None:
    assert any(line.startswith(f"s.toml: {problem}") for line in problems(**changes))


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"dataset": "smal"}, "dataset: unknown dataset 'smal', did you mean 'small'?"),
        ({"model": "x"}, "model: unknown model 'x', allowed: deep, gcn"),
        ({"task": "x"}, "task: unknown task 'x', allowed: "),
        ({"approach": "singel"}, "approach: unknown approach 'singel', did you mean 'single'?"),
        ({"ranks": 0}, "ranks: found 0, allowed >= 1 and <= 1000000"),
        ({"ranks": [1, True]}, "ranks[1]: found True, expected a whole number"),
        ({"ranks": []}, "ranks: found an empty list, expected at least one"),
        ({"repeats": 1.5}, "repeats: found 1.5, expected a whole number"),
        ({"rank": 2}, "rank: unknown key, did you mean 'ranks'?"),
        ({"training": {"lr": -1.0}}, "training.lr: found -1.0, allowed >= 0 and <= 100"),
        ({"batch": {"sise": 1}}, "batch.sise: unknown key, did you mean 'size'?"),
        ({"memory": {"host": "2XB"}}, "memory.host: found '2XB', expected a size such as '2 GB'"),
        ({"memory": {"host": -5}}, "memory.host: found -5, allowed >= 0"),
        ({"seeds": [-1]}, "seeds[0]: found -1, allowed >= 0 and <= 2147483647"),
    ],
)
def test_a_mistake_of_an_entry_is_told(entry: dict[str, Any], problem: str) -> None:
    assert any(line.startswith(f"s.toml: runs[0].{problem}") for line in problems(entry))


def test_every_mistake_of_a_file_is_told_once_and_in_one_go() -> None:
    found = problems(
        {"dataset": "nope", "seeds": [1, 2]},
        {"approach": "sampled", "knobs": {"placment": "x"}, "seeds": [1, 2]},
        {"ranks": -1, "approach": "partitionn", "knobs": {"batchsize": 3}},
        training={"epochs": 0},
        datasets={"small": {"generator": "uniform", "sede": 1}},
        models={"gcn": {"kind": "gnc", "hidden": -1}},
        title="x",
    )
    assert len(found) == len(set(found))
    wrong = ["nope", "placment", "runs[2].ranks", "'partition'", "training.epochs", "sede", "title"]
    for word in [*wrong, "'gnc'", "hidden"]:
        assert sum(word in line for line in found) == 1, word
    assert all(line.startswith("s.toml: ") for line in found)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from(
            ["datasets", "models", "tasks", "batch", "training", "memory", "runs", "x"]
        ),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=3),
            lambda inner: (
                st.lists(inner, max_size=2)
                | st.dictionaries(
                    st.sampled_from(["a", "dataset", "model", "approach", "path", "kind"]), inner
                )
            ),
            max_leaves=6,
        ),
    )
)
def test_no_table_makes_the_parser_fail_but_by_its_problems(table: dict[str, Any]) -> None:
    try:
        made = parse_suite(table, "s.toml")
    except SpecError as error:
        assert error.problems
    else:
        assert made.runs


# Files


SHORTEST = """
name = "s"
[datasets.a]
profile = "reddit"
[models.m]
[[runs]]
dataset = "a"
model = "m"
approach = "single"
"""


def test_a_suite_file_knows_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(SHORTEST, encoding="utf-8")
    made = find_suite(str(path))
    assert (made.name, made.folder) == ("s", tmp_path)
    assert made.runs[0].dataset == DatasetRef(name="a", profile="reddit")


def test_a_missing_suite_is_answered_as_the_name_or_file_that_it_was_meant_to_be() -> None:
    with pytest.raises(UnknownName, match="did you mean 'demo'"):
        find_suite("dmo")
    with pytest.raises(SpecError, match=r"none\.toml: no such suite file"):
        find_suite("none.toml")


@pytest.mark.parametrize("name", sorted(suite_files()))
def test_every_suite_that_ships_can_be_read(name: str) -> None:
    made = find_suite(name)
    assert made.name == name
    assert made.description
    assert made.runs


def test_the_demo_has_every_first_approach_on_one_and_two_ranks() -> None:
    runs = {(run.approach, run.ranks) for run in find_suite("demo").runs}
    wanted = {(approach, ranks) for approach in ("partition", "sampled") for ranks in (1, 2)}
    assert runs >= {("single", 1), *wanted}


def test_the_whole_graph_suite_runs_every_whole_graph_approach_at_least_fifty_times() -> None:
    runs = find_suite("wholegraph").runs
    done = [run for run in runs if APPROACHES.get(run.approach).cannot_run(run) is None]
    assert len(done) >= 50
    family = {n for n in APPROACHES.names() if APPROACHES.get(n).family == "whole_graph"}
    assert {run.approach for run in done} == family
    assert {run.ranks for run in done} == {1, 2, 4}
    assert len({run.dataset.name for run in done}) == 3


def test_the_mini_batch_suite_runs_every_approach_of_the_family_at_least_sixty_times() -> None:
    runs = find_suite("mini-batch").runs
    done = [run for run in runs if APPROACHES.get(run.approach).cannot_run(run) is None]
    assert len({run.config_id for run in done}) >= 60
    family = {n for n in APPROACHES.names() if APPROACHES.get(n).family == "mini_batch"}
    assert {run.approach for run in done} == family
    assert {run.ranks for run in done} == {1, 2, 4}
    assert len({run.dataset.name for run in done}) == 4


def test_the_temporal_grid_is_of_models_caches_ranks_and_increments() -> None:
    runs = find_suite("temporal-grid").runs
    assert all(APPROACHES.get(run.approach).cannot_run(run) is None for run in runs)
    assert len({run.config_id for run in runs}) >= 40
    axes = {
        (
            run.model.kind,
            run.knobs.get("edge_cache", 0.0),
            run.ranks,
            run.training.increments,
        )
        for run in runs
        if run.approach == "continuous" and "store" not in run.knobs
    }
    models, shares = ("tgn", "tgat", "graphmixer"), (0.0, 0.05, 0.2)
    assert axes == set(itertools.product(models, shares, (1, 2), (4, 16)))
    assert {run.approach for run in runs} == {"continuous", "rebuild", "tgl"}
    assert not any(run.training.speedup for run in runs), "late arrivals hide the time of a run"


def test_the_suite_of_gist_times_one_to_eight_sub_models_on_two_graphs() -> None:
    runs = find_suite("gist-time").runs
    assert all(APPROACHES.get(run.approach).cannot_run(run) is None for run in runs)
    timed = {
        (run.dataset.name, run.knobs["parts"])
        for run in runs
        if run.approach == "gist" and run.training.evaluate_every
    }
    assert timed == {(name, m) for name in ("cora", "planted") for m in (1, 2, 4, 8)}
    counted = {(run.approach, run.ranks) for run in runs if not run.training.evaluate_every}
    assert counted == {(name, m) for name in ("gist", "sampled") for m in (4, 8)}


def test_the_accuracy_suite_trains_every_approach_on_three_datasets_with_three_seeds() -> None:
    made = find_suite("accuracy")
    trained = {(run.approach, run.dataset.name, run.training.seed) for run in made.runs}
    datasets = {run.dataset.name for run in made.runs}
    # Who trains something else, or on something else, owes no accuracy of `single`'s.
    cards = [APPROACHES.get(name) for name in APPROACHES.names()]
    on_graphs = [card for card in cards if "graph" in card.accepts.datasets]
    owing = [card for card in on_graphs if card.promise.reference == "single"]
    names = [card.name for card in owing if card.promise.kind != "own"]
    assert trained == {(name, one, seed) for name in names for one in datasets for seed in range(3)}
    assert len(datasets) == 3
    assert all(APPROACHES.get(run.approach).cannot_run(run) is None for run in made.runs)
