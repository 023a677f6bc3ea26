"""From a reference to a graph: where it is looked up, what is done to it, what is kept."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from gnnbench.approaches.base import example
from gnnbench.data.formats import native
from gnnbench.data.source import (
    Library,
    data_roots,
    describe,
    native_folder,
    reference_problems,
)
from gnnbench.errors import DataError, SpecError, UnknownName, Unsupported
from gnnbench.spec import DEFAULT_TASKS, DatasetRef

EDGES = "0 1\n1 2\n2 3\n3 0\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "ring.txt").write_text(EDGES)
    return folder


def test_a_path_is_looked_up_in_each_root_in_order(data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    ref = DatasetRef(name="ring", path="ring.txt")
    assert Library([other, data]).dataset(ref).num_nodes == 4
    (other / "ring.txt").write_text("0 1\n")
    assert Library([other, data]).dataset(ref).num_nodes == 2


def test_a_missing_path_names_it_and_where_was_looked_and_what_to_do(data: Path) -> None:
    with pytest.raises(Unsupported, match=r"no\.txt.*data.*--data"):
        Library([data]).dataset(DatasetRef(name="no", path="no.txt"))


def test_roots_are_the_option_the_variable_the_suite_and_here(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GNNBENCH_DATA", str(tmp_path))
    assert data_roots(data, Path("suites")) == [data, tmp_path, Path("suites"), Path()]
    monkeypatch.delenv("GNNBENCH_DATA")
    assert data_roots() == [Path()]


def test_a_data_folder_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no such folder"):
        data_roots(tmp_path / "absent")


def test_a_file_is_converted_once_and_again_when_it_changes(data: Path, tmp_path: Path) -> None:
    ref, cache = DatasetRef(name="ring", path="ring.txt"), tmp_path / "cache"
    folder = native_folder(ref, [data], cache)
    stamp = (folder / "meta.json").stat().st_mtime_ns
    assert native_folder(ref, [data], cache) == folder
    assert (folder / "meta.json").stat().st_mtime_ns == stamp
    (data / "ring.txt").write_text(EDGES + "4 0\n")
    os.utime(data / "ring.txt", ns=(1, 1))
    changed = native_folder(ref, [data], cache)
    assert changed != folder
    assert native.load(changed).num_nodes == 5


def test_a_native_graph_stays_where_it_is_unless_something_is_done_to_it(
    data: Path, tmp_path: Path
) -> None:
    ring = Library([data]).dataset(DatasetRef(name="ring", path="ring.txt"))
    native.save(ring, data / "native")
    cache = tmp_path / "cache"
    assert native_folder(DatasetRef(path="native"), [data], cache) == data / "native"
    with_split = DatasetRef(path="native", split={"train": 0.5, "val": 0.25})
    folder = native_folder(with_split, [data], cache)
    assert folder.is_relative_to(cache)
    assert native.load(folder).num_train == 2


def test_synthetic_and_split_make_a_bare_topology_trainable(data: Path) -> None:
    ref = DatasetRef(
        name="ring",
        path="ring.txt",
        synthetic={"num_features": 3, "num_classes": 2},
        split={"train": 0.5, "val": 0.25},
    )
    graph = Library([data]).dataset(ref)
    assert (graph.num_features, graph.num_classes, graph.num_train) == (3, 2, 2)


def test_a_misspelt_synthetic_key_is_told_with_a_suggestion(data: Path) -> None:
    ref = DatasetRef(name="ring", path="ring.txt", synthetic={"num_feature": 3, "num_classes": 2})
    with pytest.raises(SpecError, match=r"datasets\.ring\.synthetic\.num_feature: .*num_features"):
        Library([data]).dataset(ref)


def test_row_features_sum_to_one_and_empty_rows_stay_empty(data: Path) -> None:
    ring = Library([data]).dataset(DatasetRef(name="ring", path="ring.txt"))
    counts = np.array([[1, 3], [0, 0], [2, 2], [0, 5]], np.float32)
    native.save(dataclasses.replace(ring, features=counts), data / "words")
    graph = Library([data]).dataset(DatasetRef(path="words", features="row"))
    assert graph.features is not None
    assert graph.features.dtype == np.float32
    assert graph.features.tolist() == [[0.25, 0.75], [0, 0], [0.5, 0.5], [0, 1]]


def test_row_features_of_a_graph_without_features_are_an_error(data: Path) -> None:
    with pytest.raises(SpecError, match="no features"):
        Library([data]).dataset(DatasetRef(path="ring.txt", features="row"))


def test_a_generator_is_named_after_the_reference_and_kept(tmp_path: Path) -> None:
    options = {"num_nodes": 50, "mean_degree": 4}
    ref = DatasetRef(name="drawn", generator="uniform", options=options)
    graph = Library([], tmp_path).dataset(ref)
    assert graph.name == "drawn"
    assert describe(graph, ref)["num_nodes"] == 50
    assert [path.name[:6] for path in (tmp_path / "datasets").iterdir()] == ["drawn-"]


def test_an_unknown_generator_is_told_with_a_suggestion() -> None:
    with pytest.raises(UnknownName, match="uniform"):
        Library([]).dataset(DatasetRef(generator="unifrom"))


def test_a_profile_cannot_be_trained_on() -> None:
    with pytest.raises(Unsupported, match="predicted"):
        Library([]).dataset(DatasetRef(name="far", profile="papers"))


def test_a_dataset_is_converted_once_whether_its_kind_is_known_or_found(
    data: Path, tmp_path: Path
) -> None:
    (data / "m.txt").write_text("0 1 5\n1 2 6\n")
    drawn = {"num_entities": 9, "num_relations": 2, "num_triples": 20}
    refs = {
        "graph": DatasetRef(name="ring", path="ring.txt"),
        "triples": DatasetRef(name="t", generator="synthetic_triples", options=drawn),
    }
    for kind, ref in refs.items():
        folder = native_folder(ref, [data], tmp_path)
        assert native.kind(folder) == kind
        assert native_folder(dataclasses.replace(ref, kind=kind), [data], tmp_path) == folder
    kinds = [DatasetRef(path="m.txt", kind=kind) for kind in ("graph", "stream")]
    folders = [native_folder(ref, [data], tmp_path) for ref in kinds]
    assert [native.kind(folder) for folder in folders] == ["graph", "stream"]
    with pytest.raises(DataError, match="set kind"):
        native_folder(DatasetRef(path="m.txt"), [data], tmp_path)


@pytest.mark.parametrize(
    ("ref", "problem"),
    [
        ({"kind": "stream", "split": {"seed": 1}}, "split.seed: unknown key"),
        ({"kind": "stream", "format": "triples"}, "format: triples holds kind 'triples'"),
        ({"split": {"tear": True, "trian": 0.5}}, "split.trian: unknown key"),
    ],
)
def test_a_reference_is_checked_without_its_file(ref: dict, problem: str) -> None:
    lines = reference_problems(DatasetRef(path="m.txt", **ref))
    assert len(lines) == 1
    assert lines[0].startswith(problem)


def test_what_is_for_graphs_is_refused_for_other_kinds(data: Path) -> None:
    (data / "m.txt").write_text("0 1 5\n1 2 6\n")
    ref = DatasetRef(name="m", path="m.txt", kind="stream", features="row")
    with pytest.raises(SpecError, match=r"datasets\.m\.features: allowed for graphs only"):
        Library([data]).dataset(ref)
    by_time = DatasetRef(name="m", path="m.txt", kind="stream", split={"train": 0.5, "val": 0.0})
    assert Library([data]).dataset(by_time).train_end == 1


@pytest.mark.parametrize("kind", ["graph", "stream", "triples"])
def test_examples_of_every_kind_need_no_files_and_can_be_learnt(kind: str) -> None:
    run = Library([]).identified(example("single", kind=kind))
    assert (run.dataset.kind, run.task_kind) == (kind, DEFAULT_TASKS[kind])
    assert Library([]).open(run.dataset).digest == run.dataset.digest
