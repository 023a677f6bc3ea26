"""Faults of kinds in public reports that no list named: each is read right or told in a line."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from gnnbench.data.formats import read
from gnnbench.data.graph import Graph
from gnnbench.errors import DataError, GnnbenchError

_MATRIX = "%%MatrixMarket matrix coordinate "


def _graph(path: Path, **options: Any) -> Graph:
    graph = read("auto", path, kind="graph", **options)
    assert isinstance(graph, Graph)
    return graph


@pytest.mark.parametrize(
    "text",
    [
        ",source,target\n0,5,6\n1,6,7\n",
        "id,source,target\n0,5,6\n1,6,7\n",
        "weight,Source,Target\n9,5,6\n4,6,7\n",
        "target,source\n6,5\n7,6\n",
        '"to","label","from"\n6,1,5\n7,1,6\n',
        "5,6\n6,7\n",
    ],
)
def test_ends_of_edges_are_found_by_the_names_in_the_header(tmp_path: Path, text: str) -> None:
    (tmp_path / "g.csv").write_text(text)
    (tmp_path / "plain.txt").write_text("5 6\n6 7\n")
    found, right = (_graph(tmp_path / f, directed=True) for f in ("g.csv", "plain.txt"))
    assert np.array_equal(found.indptr, right.indptr)
    assert np.array_equal(found.indices, right.indices)
    assert ("columns" in found.notes) == (not text.startswith("5"))


def test_the_weight_is_found_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "g.csv").write_text("weight,time,source,target\n2.5,7,0,1\n0.5,8,1,2\n")
    weights = _graph(tmp_path / "g.csv", directed=True, weighted=True).edge_weights
    assert weights is not None
    assert sorted(weights.tolist()) == [0.5, 2.5]


@pytest.mark.parametrize(
    ("file", "text", "options", "said"),
    [
        ("g.csv", "id,a,b\n0,5,6\n1,6,7\n", {}, "call the ends of an edge source and target"),
        ("g.txt", "1_000 2\n2 3\n", {}, "line 1: field 1 is '1_000'"),
        ("g.txt", "0 1\n", {"num_nodes": -3}, "found -3, allowed >= 0"),
        ("g.mtx", _MATRIX + "pattern general\n-2 -2 0\n", {}, "rows columns entries"),
        ("g.mtx", _MATRIX + "pattern general\n", {}, "rows columns entries"),
        (
            "g.mtx",
            _MATRIX + "real skew-symmetric\n2 2 1\n2 1 4\n",
            {"weighted": True},
            "negative weights",
        ),
        ("g.graph", "-1 0\n", {}, "negative numbers"),
        ("g.txt.zst", "0 1\n", {}, "unpack it"),
    ],
)
def test_what_is_not_understood_is_told(
    tmp_path: Path, file: str, text: str, options: dict[str, Any], said: str
) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(GnnbenchError, match=said):
        _graph(tmp_path / file, **options)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.array([0, 255, 1, 1], np.uint8), "as -1 becomes"),
        (np.array([0, 2**16 - 1, 1, 1], np.uint16), "as -1 becomes"),
        (np.array([0, 2**64 - 1, 1, 1], np.uint64), "as -1 becomes"),
        (np.array([b"a", b"\xff", b"b", b"c"]), "not UTF-8"),
    ],
)
def test_labels_that_lost_their_meaning_are_refused(
    tmp_path: Path, labels: np.ndarray[Any, Any], said: str
) -> None:
    edges = np.array([[0, 1, 2], [1, 2, 3]])
    np.savez(tmp_path / "g.npz", edge_index=edges, x=np.ones((4, 2)), y=labels)
    with pytest.raises(DataError, match=said):
        _graph(tmp_path / "g.npz")


def test_labels_as_bytes_are_utf8(tmp_path: Path) -> None:
    edges = np.array([[0, 1, 2], [1, 2, 3]])
    labels = np.array([word.encode() for word in ("é", "a", "é", "b")])
    np.savez(tmp_path / "g.npz", edge_index=edges, x=np.ones((4, 2)), y=labels)
    assert _graph(tmp_path / "g.npz").labels.tolist() == [2, 0, 2, 1]  # type: ignore[union-attr]


@pytest.mark.parametrize("form", ["coo", "dia"])
def test_other_sparse_matrices_name_the_remedy(tmp_path: Path, form: str) -> None:
    scipy.sparse.save_npz(tmp_path / "g.npz", scipy.sparse.eye(4).asformat(form))
    with pytest.raises(DataError, match="tocsr"):
        _graph(tmp_path / "g.npz")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("g.mtx", _MATRIX + "pattern general\n% x\n\n3 3 2\n1 2\n\n2 3\n\n"),
        ("g.graph", "  % x\n3 2\n2\n % y\n1 3\n2\n"),
    ],
)
def test_blank_lines_and_indented_comments_are_passed_over(
    tmp_path: Path, file: str, text: str
) -> None:
    (tmp_path / file).write_text(text)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graph = _graph(tmp_path / file)
    assert (graph.num_nodes, graph.num_edges) == (3, 4)
