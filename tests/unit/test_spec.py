"""Suites: a product of lists, one id per result that could differ, every mistake told at once."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gnnbench.approaches.names import APPROACHES
from gnnbench.errors import SpecError
from gnnbench.spec import GraphRef, ModelSpec, RunSpec, Suite, TrainingSpec, load_suite, parse_suite

BASE: dict[str, Any] = {
    "schema": 1,
    "name": "mine",
    "graphs": {
        "small": {"generator": "uniform", "options": {"num_nodes": 10, "mean_degree": 2}},
        "large": {"path": "somewhere/cora", "features": "row"},
    },
    "models": {"gcn": {"kind": "gcn"}, "deep": {"kind": "sage", "layers": 3}},
    "training": {"epochs": 7},
    "runs": [{"graph": "small", "model": "gcn", "approach": "single"}],
}


def suite(*runs: dict[str, Any], **changes: Any) -> Suite:
    table = {**copy.deepcopy(BASE), **changes}
    if runs:
        table["runs"] = [
            {"graph": "small", "model": "gcn", "approach": "single", **r} for r in runs
        ]
    return parse_suite(table, "s.toml")


def problems(*runs: dict[str, Any], **changes: Any) -> tuple[str, ...]:
    with pytest.raises(SpecError) as caught:
        suite(*runs, **changes)
    return caught.value.problems


def digest(run: RunSpec) -> str:
    return run.config_id.rsplit("-", 1)[1]


# Expansion


def test_an_entry_is_the_product_of_its_lists() -> None:
    runs = suite(
        {"graph": ["small", "large"], "model": ["gcn", "deep"], "approach": "partition",
         "ranks": [1, 2, 4]}
    ).runs  # fmt: skip
    asked = [(r.graph.name, r.model.name, r.ranks) for r in runs]
    assert len(asked) == len(set(asked)) == 12
    assert asked[:4] == [("small", "gcn", 1), ("small", "gcn", 2), ("small", "gcn", 4),
                         ("small", "deep", 1)]  # fmt: skip


def test_repeats_are_interleaved_over_all_entries() -> None:
    found = suite({"repeats": 2}, {"approach": "partition", "repeats": 3}).runs
    assert [(r.approach, r.repeat) for r in found] == [
        ("single", 0), ("partition", 0), ("single", 1), ("partition", 1), ("partition", 2)
    ]  # fmt: skip


def test_a_run_asked_for_twice_is_done_once() -> None:
    found = suite({"repeats": 2}, {"ranks": [1, 1]}).runs
    assert [r.repeat for r in found] == [0, 1]


def test_configurations_are_the_runs_without_their_repeats() -> None:
    made = suite({"repeats": 3}, {"approach": "partition", "ranks": [1, 2]})
    assert [r.config_id for r in made.configurations()] == list(
        dict.fromkeys(r.config_id for r in made.runs)
    )


def test_training_is_the_suites_unless_the_entry_says_otherwise() -> None:
    plain, changed = suite({}, {"training": {"lr": 0.5}}).runs
    assert (plain.training.epochs, plain.training.lr) == (7, 0.01)
    assert (changed.training.epochs, changed.training.lr) == (7, 0.5)


def test_an_entry_runs_once_per_seed() -> None:
    runs = suite({"seeds": [3, 5]}).runs
    assert [r.training.seed for r in runs] == [3, 5]
    assert len({r.config_id for r in runs}) == 2


def test_a_suite_file_knows_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(
        'name = "s"\n[graphs.a]\nprofile = "reddit"\n[models.m]\n'
        '[[runs]]\ngraph = "a"\nmodel = "m"\napproach = "single"\n',
        encoding="utf-8",
    )
    made = load_suite(path)
    assert made.folder == tmp_path
    assert made.runs[0].graph == GraphRef(name="a", profile="reddit")


# Ids


def test_ids_are_readable_and_end_in_a_hash() -> None:
    run = suite({"approach": "partition", "ranks": 4, "repeats": 2}).runs[1]
    assert run.config_id.startswith("small-gcn-partition-p4-")
    assert len(digest(run)) == 8
    assert run.run_id == f"{run.config_id}-r1"


def test_an_id_is_a_folder_name_whatever_the_graph_is_called() -> None:
    run = RunSpec(
        suite="s", graph=GraphRef(name="a/b c", profile="reddit"), model=ModelSpec(name=".."),
        training=TrainingSpec(), approach="single", ranks=1,
    )  # fmt: skip
    assert "/" not in run.run_id
    assert " " not in run.run_id


def test_the_hash_depends_on_no_name_and_not_on_the_repeat() -> None:
    run = suite({}).runs[0]
    same = [
        dataclasses.replace(run, suite="other"),
        dataclasses.replace(run, repeat=5),
        dataclasses.replace(run, graph=dataclasses.replace(run.graph, name="other")),
        dataclasses.replace(run, model=dataclasses.replace(run.model, name="other")),
    ]
    assert {digest(other) for other in same} == {digest(run)}


CHANGES: list[dict[str, Any]] = [
    {"ranks": 2},
    {"approach": "partition"},
    {"knobs": {"order": "transform_first"}},
    *({"training": dataclasses.replace(TrainingSpec(), **change)} for change in (
        {"epochs": 8}, {"warmup_epochs": 3}, {"lr": 0.02}, {"weight_decay": 0.1}, {"seed": 1},
        {"precision": "float64"}, {"evaluate_every": 1}, {"threads_per_rank": 2},
        {"timeout_s": 9.0},
    )),
    *({"model": ModelSpec(**change)} for change in (
        {"kind": "sage"}, {"hidden": 8}, {"layers": 3}, {"dropout": 0.5}, {"input_dropout": 0.5},
        {"heads": 2},
    )),
    *({"graph": GraphRef(**change)} for change in (
        {"path": "b"}, {"path": "a", "format": "snap"}, {"path": "a", "features": "row"},
        {"path": "a", "options": {"k": 1}}, {"path": "a", "task": {"num_classes": 2}},
        {"path": "a", "split": {"seed": 2}}, {"generator": "a"}, {"profile": "a"},
    )),
]  # fmt: skip


def test_the_hash_depends_on_everything_else() -> None:
    run = RunSpec(
        suite="s", graph=GraphRef(path="a"), model=ModelSpec(), training=TrainingSpec(),
        approach="single", ranks=1,
    )  # fmt: skip
    digests = [digest(run), *(digest(dataclasses.replace(run, **change)) for change in CHANGES)]
    assert len(set(digests)) == len(CHANGES) + 1
    fields = {f.name for cls in (RunSpec, TrainingSpec, ModelSpec, GraphRef)
              for f in dataclasses.fields(cls)}  # fmt: skip
    changed = {"suite", "repeat", "name"}
    for change in CHANGES:
        for key, value in change.items():
            changed.add(key)
            if dataclasses.is_dataclass(value):
                changed |= {
                    f.name
                    for f in dataclasses.fields(value)
                    if getattr(value, f.name) != getattr(getattr(run, key), f.name)
                }
    assert changed == fields  # a new field must be judged here


def test_a_record_gives_back_the_run_it_was_made_from() -> None:
    for run in suite({"approach": ["single", "sampled"], "model": "gcn", "graph": "large"}).runs:
        assert RunSpec.from_dict(run.to_dict()) == run
        through_json = RunSpec.from_dict(json.loads(json.dumps(run.to_dict())))
        assert through_json.run_id == run.run_id
        # JSON has no tuples; knobs are what they were all the same.
        card = APPROACHES.get(run.approach)
        assert card.knobs(through_json) == card.knobs(run)


def test_a_damaged_record_is_a_specification_error() -> None:
    table = suite({}).runs[0].to_dict()
    table["ranks"], table["model"]["hidden"] = "two", 0
    del table["approach"]
    with pytest.raises(SpecError) as caught:
        RunSpec.from_dict(table, "run.json")
    assert len(caught.value.problems) == 3


# Knobs


def test_knobs_have_their_defaults_written_out() -> None:
    assert suite({}).runs[0].knobs == {"order": "min_width", "precompute": False}


def test_approaches_of_one_entry_take_the_knobs_they_know() -> None:
    single, sampled = suite(
        {
            "approach": ["single", "sampled"],
            "knobs": {"batch_size": 9, "fanouts_from_seeds": [3, 2]},
        }
    ).runs
    assert single.knobs == {"order": "min_width", "precompute": False}
    assert sampled.knobs["batch_size"] == 9
    assert sampled.knobs["fanouts_from_seeds"] == (3, 2)


@pytest.mark.parametrize("approach", ["sampled", ["single", "sampled"]])
def test_a_knob_that_no_approach_knows_is_answered_with_what_was_meant(approach: Any) -> None:
    found = problems({"approach": approach, "knobs": {"batch_sise": 9}})
    assert len(found) == 1
    assert found[0].startswith("s.toml: runs[0].knobs.batch_sise: unknown")
    assert found[0].endswith("did you mean 'batch_size'?")


def test_a_knob_out_of_bounds_is_a_problem() -> None:
    (found,) = problems({"approach": "sampled", "knobs": {"prefetch": 65}})
    assert found == "s.toml: runs[0].knobs.prefetch: found 65, allowed >= 0 and <= 64"


def test_there_is_one_fan_out_per_layer() -> None:
    (found,) = problems(
        {"approach": "sampled", "model": "deep", "knobs": {"fanouts_from_seeds": [5, 5]}}
    )
    assert found == (
        "s.toml: runs[0].knobs.fanouts_from_seeds: found 2 fan-outs for the 3 layers of model "
        "deep; give one per layer"
    )


def test_a_fan_out_of_nothing_is_a_problem() -> None:
    (found,) = problems({"approach": "sampled", "knobs": {"fanouts_from_seeds": [5, 0]}})
    assert "0 draws nothing" in found


# Mistakes


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"schema": 2}, "s.toml: schema: found 2, allowed: 1"),
        ({"name": 3}, "s.toml: name: found 3, expected text"),
        ({"run": []}, "s.toml: run: unknown key, did you mean 'runs'?"),
        ({"runs": []}, "s.toml: runs: needs at least one [[runs]] entry"),
        ({"runs": {}}, "s.toml: runs: needs at least one [[runs]] entry"),
        ({"training": 3}, "s.toml: training: found 3, expected a table"),
        ({"training": {"epoch": 1}},
         "s.toml: training.epoch: unknown key, did you mean 'epochs'?"),
        ({"training": {"lr": float("nan")}},
         "s.toml: training.lr: found nan, expected a finite number"),
        ({"models": {"gcn": {"kind": "gcnn"}}},
         "s.toml: models.gcn.kind: unknown model 'gcnn', did you mean 'gcn'?"),
        ({"models": {"gcn": {"dropout": 1}}},
         "s.toml: models.gcn.dropout: found 1.0, allowed >= 0 and < 1"),
        ({"models": {"gcn": {"name": "x"}}},
         "s.toml: models.gcn.name: unknown key, the table's own name is used"),
        ({"graphs": {"small": {}}},
         "s.toml: graphs.small: give exactly one of path, generator, profile; found none"),
        ({"graphs": {"small": {"path": "a", "profile": "b"}}},
         "s.toml: graphs.small: give exactly one of path, generator, profile; "
         "found ['path', 'profile']"),
        ({"graphs": {"small": {"generator": "unifrom"}}},
         "s.toml: graphs.small.generator: unknown 'unifrom', did you mean 'uniform'?"),
        ({"graphs": {"small": {"generator": "rmat", "options": {"scales": 3}}}},
         "s.toml: graphs.small.options.scales: unknown option, did you mean 'scale'?"),
        ({"graphs": {"small": {"path": "a", "format": "snapp"}}},
         "s.toml: graphs.small.format: unknown 'snapp', did you mean 'snap'?"),
        ({"graphs": {"small": {"profile": "redit"}}},
         "s.toml: graphs.small.profile: unknown profile 'redit', did you mean 'reddit'?"),
        ({"graphs": {"small": {"path": "a", "options": {"day": datetime.date(2024, 1, 1)}}}},
         "s.toml: graphs.small.options.day: found datetime.date(2024, 1, 1), "
         "expected text, a number, a list or a table"),
    ],
)  # fmt: skip
def test_a_mistake_of_a_suite_is_told(changes: dict[str, Any], problem: str) -> None:
    assert problem in problems(**changes)


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"graph": "smal"}, "s.toml: runs[0].graph: unknown graph 'smal', did you mean 'small'?"),
        ({"model": "x"}, "s.toml: runs[0].model: unknown model 'x', allowed: deep, gcn"),
        ({"approach": "singel"},
         "s.toml: runs[0].approach: unknown approach 'singel', did you mean 'single'?"),
        ({"ranks": 0}, "s.toml: runs[0].ranks: found 0, allowed >= 1 and <= 1000000"),
        ({"ranks": [1, True]}, "s.toml: runs[0].ranks[1]: found True, expected a whole number"),
        ({"ranks": []}, "s.toml: runs[0].ranks: found an empty list, expected at least one"),
        ({"repeats": 1.5}, "s.toml: runs[0].repeats: found 1.5, expected a whole number"),
        ({"rank": 2}, "s.toml: runs[0].rank: unknown key, did you mean 'ranks'?"),
        ({"training": {"lr": -1.0}},
         "s.toml: runs[0].training.lr: found -1.0, allowed >= 0 and <= 100"),
        ({"seeds": [-1]}, "s.toml: runs[0].seeds[0]: found -1, allowed >= 0 and <= 2147483647"),
    ],
)  # fmt: skip
def test_a_mistake_of_an_entry_is_told(entry: dict[str, Any], problem: str) -> None:
    assert problem in problems(entry)


def test_every_mistake_of_a_file_is_told_once_and_in_one_go() -> None:
    found = problems(
        {"graph": "nope", "seeds": [1, 2]},
        {"approach": "sampled", "knobs": {"placment": "x"}, "seeds": [1, 2]},
        {"ranks": -1},
        training={"epochs": 0},
        graphs={"small": {"generator": "uniform", "sede": 1}},
        title="x",
    )
    assert len(found) == len(set(found))
    for word in ("nope", "placment", "runs[2].ranks", "training.epochs", "sede", "title"):
        assert sum(word in line for line in found) == 1, word
    assert all(line.startswith("s.toml: ") for line in found)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from(["graphs", "models", "training", "runs", "name", "schema", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=3),
            lambda inner: (
                st.lists(inner, max_size=2)
                | st.dictionaries(
                    st.sampled_from(["a", "graph", "model", "approach", "path", "kind"]), inner
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


def test_a_wrong_value_does_not_hide_wrong_names_of_the_same_entry() -> None:
    table = {
        "graphs": {"g": {"generator": "uniform"}},
        "models": {"m": {"kind": "gnc", "hidden": -1}},
        "runs": [
            {
                "graph": "h",
                "model": "m",
                "approach": "partitionn",
                "ranks": [0],
                "knobs": {"batchsize": 3},
            }
        ],
    }
    with pytest.raises(SpecError) as caught:
        parse_suite(table, "suite.toml")
    told = "\n".join(caught.value.problems)
    for found in ("ranks[0]", "'h'", "'partition'", "'gnc'", "hidden", "batch_size"):
        assert found in told
