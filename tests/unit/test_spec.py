"""Runs and their ids: the hash covers what differs from the defaults, and nothing else."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from gnnbench.approaches.names import APPROACHES
from gnnbench.errors import SpecError
from gnnbench.spec import (
    BatchSpec,
    DatasetRef,
    MemorySpec,
    ModelSpec,
    RunSpec,
    TaskSpec,
    TrainingSpec,
)

RUN = RunSpec(
    suite="s",
    dataset=DatasetRef(name="d", path="a"),
    model=ModelSpec(name="m"),
    training=TrainingSpec(),
    approach="single",
    ranks=1,
)


def digest(run: RunSpec) -> str:
    return run.config_id.rsplit("-", 1)[1]


# Ids


def test_ids_are_readable_and_end_in_a_hash() -> None:
    run = dataclasses.replace(RUN, approach="partition", ranks=4, repeat=1)
    assert run.config_id.startswith("d-m-partition-p4-")
    assert len(digest(run)) == 8
    assert run.run_id == f"{run.config_id}-r1"


def test_an_id_is_a_folder_name_whatever_the_dataset_is_called() -> None:
    run = dataclasses.replace(RUN, dataset=DatasetRef(name="a/b c", profile="reddit"))
    assert "/" not in run.run_id
    assert " " not in run.run_id


@pytest.mark.parametrize(
    "change",
    [
        {"suite": "other"},
        {"repeat": 5},
        {"dataset": DatasetRef(name="other", path="a")},
        {"model": ModelSpec(name="other")},
        {"task": TaskSpec(name="other")},
    ],
)
def test_the_hash_depends_on_no_name_and_not_on_the_repeat(change: dict[str, Any]) -> None:
    assert digest(dataclasses.replace(RUN, **change)) == digest(RUN)


PARTS: dict[str, tuple[Any, list[dict[str, Any]]]] = {
    "dataset": (
        RUN.dataset,
        [
            *({"path": "b"}, {"kind": "graph"}, {"format": "snap"}, {"features": "row"}),
            *({"options": {"k": 1}}, {"synthetic": {"num_classes": 2}}, {"split": {"seed": 2}}),
            *({"digest": "0" * 16}, {"path": "", "generator": "a"}, {"path": "", "profile": "a"}),
            *({"path": "", "profile": "a", "override": {"num_features": 9}}, {"order": "rcm"}),
        ],
    ),
    "task": (
        RUN.task,
        [
            *({"kind": "link_prediction"}, {"negatives": 5}),
            *({"protocol": "unfiltered"}, {"metric": "auc"}),
        ],
    ),
    "model": (
        RUN.model,
        [
            *({"kind": "sage"}, {"hidden": 8}, {"layers": 3}, {"heads": 2}, {"dropout": 0.5}),
            *({"input_dropout": 0.5}, {"norm": "layer"}, {"decoder": "distmult"}),
        ],
    ),
    "batch": (
        RUN.batch,
        [{"size": 9}, {"fanouts_from_seeds": (3, 2)}, {"negatives": 4}],
    ),
    "training": (
        RUN.training,
        [
            *({"epochs": 8}, {"increments": 5}, {"speedup": 2.0}, {"warmup_epochs": 3}),
            *({"optimizer": "sgd"}, {"lr": 0.02}, {"weight_decay": 0.1}, {"seed": 1}),
            *({"precision": "float64"}, {"evaluate_every": 1}, {"threads_per_rank": 2}),
            {"timeout_s": 9.0},
        ],
    ),
    "memory": (RUN.memory, [{"device": 10}, {"host": 10}]),
}
OTHERS: list[dict[str, Any]] = [
    *({"approach": "partition"}, {"ranks": 2}, {"knobs": {"order": "transform_first"}}),
]


DEFAULTED = {"task", "batch", "memory"}


def test_the_hash_depends_on_everything_else() -> None:
    changes = [{k: dataclasses.replace(p, **c)} for k, (p, cs) in PARTS.items() for c in cs]
    runs = [RUN, *(dataclasses.replace(RUN, **change) for change in (*changes, *OTHERS))]
    assert len({digest(run) for run in runs}) == len(runs)
    # A new field must be judged here.
    for part, changed in PARTS.values():
        fields = {field.name for field in dataclasses.fields(part)}
        assert {key for change in changed for key in change} | {"name"} >= fields
    assert {field.name for field in dataclasses.fields(RunSpec)} == {
        *("suite", "repeat", *PARTS, *(key for change in OTHERS for key in change))
    }


@pytest.mark.parametrize("part", PARTS)
def test_a_new_field_with_a_default_renames_no_run(part: str) -> None:
    """The next version's run, with one more field in one part, against today's."""
    old = getattr(RUN, part)
    added = [("novel", int, dataclasses.field(default=3))]
    next_part = dataclasses.make_dataclass(
        "Next", added, bases=(type(old),), frozen=True, kw_only=True
    )
    next_run = dataclasses.make_dataclass(
        "NextRun",
        [(part, next_part, dataclasses.field(default_factory=next_part))]
        if part in DEFAULTED
        else [(part, next_part)],
        bases=(RunSpec,),
        frozen=True,
        kw_only=True,
    )
    held = {field.name: getattr(RUN, field.name) for field in dataclasses.fields(RUN)}
    fields = {field.name: getattr(old, field.name) for field in dataclasses.fields(old)}
    assert next_run(**{**held, part: next_part(**fields)}).config_id == RUN.config_id
    assert next_run(**{**held, part: next_part(**fields, novel=4)}).config_id != RUN.config_id


def test_the_ids_of_recorded_runs_stay_what_they_are() -> None:
    """If this fails, every folder of results has to be migrated."""
    run = dataclasses.replace(RUN, ranks=2, training=TrainingSpec(epochs=3, seed=7))
    assert run.config_id == "d-m-single-p2-ec4b6d35"


# To JSON and back


@pytest.mark.parametrize("approach", ["single", "sampled"])
def test_a_record_gives_back_the_run_it_was_made_from(approach: str) -> None:
    knobs = {"single": {"precompute": True}, "sampled": {"prefetch": 2}}[approach]
    batch = BatchSpec(size=9, fanouts_from_seeds=(3, 2))
    memory = MemorySpec(host=10**9)
    run = dataclasses.replace(RUN, approach=approach, knobs=knobs, batch=batch, memory=memory)
    again = RunSpec.from_dict(json.loads(json.dumps(run.to_dict())))
    assert again == run
    assert again.run_id == run.run_id
    card = APPROACHES.get(approach)
    assert card.knobs(again) == card.knobs(run)


def test_what_a_record_calls_non_defaults_is_what_was_set() -> None:
    run = dataclasses.replace(RUN, training=TrainingSpec(lr=0.5), knobs={"precompute": True})
    found = run.non_defaults()
    assert found["training"] == {"lr": 0.5}
    assert found["knobs"] == {"precompute": True}
    assert not {"batch", "memory", "task", "repeat"} & found.keys()


def test_a_damaged_record_is_a_specification_error() -> None:
    table = RUN.to_dict()
    table["ranks"], table["model"]["hidden"] = "two", 0
    del table["approach"]
    with pytest.raises(SpecError) as caught:
        RunSpec.from_dict(table, "run.json")
    assert len(caught.value.problems) == 3


# Parts


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "give exactly one of path, generator, profile; found none"),
        ({"path": "a", "profile": "b"}, "found ['path', 'profile']"),
        ({"profile": "a", "split": {"train": 0.5}}, "split: a profile has statistics and no data"),
        ({"path": "a", "override": {"num_nodes": 1}}, "override: found without a profile"),
    ],
)
def test_a_dataset_comes_from_one_place(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(SpecError) as caught:
        DatasetRef(**fields)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("given", "layers", "fanouts"),
    [((), 2, (15, 10)), ((), 5, (15, 10, 5, 5, 5)), ((4, 3), 2, (4, 3))],
)
def test_fan_outs_have_a_default_for_any_number_of_layers(
    given: tuple[int, ...], layers: int, fanouts: tuple[int, ...]
) -> None:
    assert BatchSpec(fanouts_from_seeds=given).fanouts(layers) == fanouts


def test_caps_are_those_that_are_set() -> None:
    assert MemorySpec().caps() == {}
    assert MemorySpec(host=5).caps() == {"host": 5.0}


@pytest.mark.parametrize(
    ("kind", "task"),
    [("graph", "node_classification"), ("triples", "link_prediction"), ("auto", "")],
)
def test_every_kind_of_dataset_has_a_task_of_its_own(kind: str, task: str) -> None:
    run = dataclasses.replace(RUN, dataset=DatasetRef(path="a", kind=kind))
    assert run.task_kind == task
    asked = dataclasses.replace(run, task=TaskSpec(kind="temporal_link_prediction"))
    assert asked.task_kind == "temporal_link_prediction"
