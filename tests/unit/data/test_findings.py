"""Inputs that once failed or were misread: each is read rightly or refused with its reason."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from gnnbench.cli import main
from gnnbench.data import formats
from gnnbench.data.graph import Graph, from_edges
from gnnbench.data.source import Library
from gnnbench.errors import DataError, Unsupported
from gnnbench.spec import DatasetRef, ModelSpec, RunSpec, TrainingSpec

RING = {"edges": np.array([[0, 1], [1, 2], [2, 3]])}


def dense(path: Path, **arrays) -> Graph:
    """A file of dense arrays for four nodes, two of which train, with some arrays replaced."""
    train = np.array([[True, True, False, False]])
    parts = {
        **RING,
        "node_features": np.ones((4, 2)),
        "node_labels": np.array([0, 1, 0, 1]),
        "train_masks": train,
        "val_masks": ~train,
        "test_masks": train & False,
        **arrays,
    }
    np.savez(path / "g.npz", **parts)
    return formats.read("auto", path / "g.npz")


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"node_features": np.array([[1.0, 1], [1, np.nan], [1, 1], [1, 1]])}, "row 1, column 1"),
        ({"node_labels": np.array([0, 0.7, 1, 1])}, "label 0.7 of node 1 is no class"),
        (
            {"val_masks": np.array([[False, True, True, False]])},
            "1 nodes are in both train and val",
        ),
        ({"node_labels": np.array([0, 1, -2, 1])}, "labels: found -2 at 2, allowed -1..1"),
    ],
    ids=["nan", "fraction", "overlap", "negative"],
)
def test_what_no_graph_may_hold_is_refused_with_the_file(tmp_path, arrays, problem) -> None:
    with pytest.raises(DataError, match=r"g\.npz: ") as error:
        dense(tmp_path, **arrays)
    assert problem in str(error.value)


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"node_labels": np.array([-1, 1, 0, 1])}, "1 of 2 training nodes have no label"),
        ({"train_masks": np.zeros((1, 4), bool)}, "the training split is empty.*replace = true"),
        ({"node_features": np.zeros((4, 0))}, "features of 0 columns"),
    ],
    ids=["unlabelled", "empty", "no-columns"],
)
def test_what_cannot_be_learnt_is_said_before_ranks_start(tmp_path, arrays, reason) -> None:
    dense(tmp_path, **arrays)
    with pytest.raises(Unsupported, match=reason):
        Library([tmp_path]).identified(_run(DatasetRef(name="g", path="g.npz")))


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({}, r"no features and no labels: set synthetic = \{"),
        ({"synthetic": {"num_features": 3, "num_classes": 2}}, r"no split: set split = \{"),
    ],
    ids=["bare", "no-split"],
)
def test_a_bare_topology_is_told_what_it_lacks(tmp_path, more, reason) -> None:
    (tmp_path / "g.txt").write_text("0 1\n1 2\n2 0\n")
    with pytest.raises(Unsupported, match=reason):
        Library([tmp_path]).identified(_run(DatasetRef(name="g", path="g.txt", **more)))


def _run(ref: DatasetRef) -> RunSpec:
    return RunSpec(
        suite="s",
        dataset=ref,
        model=ModelSpec(name="m"),
        training=TrainingSpec(),
        approach="single",
        ranks=1,
    )


def test_one_hot_labels_are_classes_and_dense_attributes_are_features(tmp_path) -> None:
    hot = np.eye(3)[[2, 0, 1, 0]]
    assert dense(tmp_path, node_labels=hot).labels.tolist() == [2, 0, 1, 0]
    ring = scipy.sparse.csr_array((np.ones(3), ([0, 1, 2], [1, 2, 3])), shape=(4, 4))
    parts = {f"adj_{k}": getattr(ring, k) for k in ("indptr", "indices", "data", "shape")}
    np.savez(tmp_path / "g.npz", **parts, attr_matrix=np.ones((4, 6)), labels=hot)
    graph = formats.read("auto", tmp_path / "g.npz")
    assert (graph.num_features, graph.num_classes) == (6, 3)
    several = np.array([[1, 1], [0, 1], [1, 0], [0, 0]])
    assert dense(tmp_path, node_labels=several).labels.dtype == np.float32


@pytest.mark.parametrize("form", ["npz", "mtx"])
def test_matrices_of_scipy_and_matrix_market_are_read(tmp_path, form) -> None:
    if form == "npz":
        arcs = scipy.sparse.csr_array((np.ones(2), ([0, 1], [1, 2])), shape=(4, 4))
        scipy.sparse.save_npz(tmp_path / "g.npz", arcs)
    else:
        head = "%%MatrixMarket matrix coordinate pattern symmetric\n% c\n"
        (tmp_path / "g.mtx").write_text(head + "4 4 2\n2 1\n3 2\n")
    graph = formats.read("auto", tmp_path / f"g.{form}")
    assert (graph.num_nodes, graph.num_edges) == (4, 4)
    assert graph.notes["repeated_edges"] == 0


def test_an_edge_that_only_one_end_lists_is_refused(tmp_path) -> None:
    (tmp_path / "g.graph").write_text("4 2\n2\n1 3\n4\n\n")
    with pytest.raises(DataError, match="node 2 lists 3, but node 3 does not list 2"):
        formats.read("auto", tmp_path)


def test_a_matlab_73_file_says_how_to_save_it(tmp_path) -> None:
    (tmp_path / "U1.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    with pytest.raises(DataError, match="save it with"):
        formats.read("auto", tmp_path / "U1.mat")


def test_tables_with_a_byte_order_mark_are_read_and_odd_columns_named(tmp_path) -> None:
    (tmp_path / "n_edges.csv").write_text("\ufeffid_1,id_2\n0,1\n1,2\n", encoding="utf-8")
    (tmp_path / "n_features.json").write_text(json.dumps({"0": [0], "1": [1], "2": [0]}))
    target = tmp_path / "n_target.csv"
    target.write_text("\ufeffid,target\n0,10\n1,9\n2,10\n", encoding="utf-8")
    assert formats.read("auto", tmp_path).labels.tolist() == [1, 0, 1]  # 9 before 10
    target.write_text("node_id,target\n0,10\n")
    with pytest.raises(DataError, match="no column new_id or id, found node_id, target"):
        formats.read("auto", tmp_path)


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("form", ["csr_matrix", "csr_array", "lil_matrix"])
def test_planetoid_files_of_today_are_read_and_names_may_hold_dots(
    tmp_path, protocol, form
) -> None:
    make, hot = getattr(scipy.sparse, form), np.eye(2, dtype=np.int32)
    parts = {
        "x": make(np.array([[1.0, 0]])),
        "y": hot[[0]],
        "allx": make(np.array([[1.0, 0], [0, 2]])),
        "ally": hot,
        "tx": make(np.array([[3.0, 4]])),
        "ty": hot[[1]],
        "graph": {0: [1], 1: [0, 2], 2: [1]},
    }
    for part, content in parts.items():
        with (tmp_path / f"ind.web.0.01.{part}").open("wb") as file:
            pickle.dump(content, file, protocol)
    (tmp_path / "ind.web.0.01.test.index").write_text("2\n")
    graph = formats.read("auto", tmp_path)
    assert graph.name == "web.0.01"
    assert graph.features.tolist() == [[1, 0], [0, 2], [3, 4]]
    assert graph.labels.tolist() == [0, 1, 1]
    assert formats.read("auto", tmp_path / "ind.web.0.01.test.index").num_edges == 4


def test_synthetic_features_do_not_replace_own_ones_unasked(tmp_path) -> None:
    dense(tmp_path)
    options = {"num_features": 3, "num_classes": 2}
    ref = DatasetRef(name="g", path="g.npz", synthetic=options)
    with pytest.raises(Exception, match="replace = true"):
        Library([tmp_path]).dataset(ref)
    ref = DatasetRef(name="g", path="g.npz", synthetic={**options, "replace": True})
    assert Library([tmp_path]).dataset(ref).num_features == 3


def test_all_problems_of_a_graph_are_told_at_once() -> None:
    bad = from_edges(
        "g",
        np.array([0]),
        np.array([1]),
        2,
        features=np.array([[np.inf]], np.float32),
        labels=np.array([0, 5]),
        num_classes=2,
    )
    with pytest.raises(DataError) as error:
        bad.check()
    assert str(error.value).splitlines() == [
        "g: features has 1 rows for 2 nodes",
        "g: features: inf in row 0, column 0; allowed are finite numbers",
        "g: labels: found 5 at 1, allowed -1..1",
    ]


SUITE = """
schema = 2
name = "mine"
[datasets.messages]
path = "m.txt"
{kind}
[models.m]
kind = "gcn"
[[runs]]
dataset = "messages"
model = "m"
approach = "single"
ranks = 1
"""


def test_check_tells_what_is_wrong_with_a_dataset_and_dataset_converts(tmp_path, capsys) -> None:
    (tmp_path / "m.txt").write_text("".join(f"{i % 4} {i % 3} {i}\n" for i in range(40)))
    suite = tmp_path / "s.toml"
    for kind, status in (("", 1), ('kind = "stream"', 0), ('kind = "triples"', 1)):
        suite.write_text(SUITE.format(kind=kind))
        assert main(["check", str(suite), "--datasets", "--json"]) == status
        rows = json.loads(capsys.readouterr().out)["datasets"]
        assert [row["status"] for row in rows] == ["ok"] if not status else "ok" not in str(rows)
    source, native = str(tmp_path / "m.txt"), str(tmp_path / "native")
    assert main(["dataset", source, "--kind", "stream", "--convert", native]) == 0
    assert "at most 1 events at one" in capsys.readouterr().out
    assert main(["dataset", native, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_edges"] == 40
    assert main(["dataset", source]) == 2
    assert "--kind" in capsys.readouterr().err
