"""Inputs as public bug reports have them: read right, refused in a line, or counted in notes."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from sample_files import ogb

from gnnbench.data import formats
from gnnbench.data.graph import Graph
from gnnbench.errors import DataError, SpecError

LARGE = 2**53


def arcs(graph: Any) -> set[tuple[int, int]]:
    """Pairs of source and destination."""
    targets = np.repeat(np.arange(graph.num_nodes), graph.in_degrees())
    return set(zip(graph.indices.tolist(), targets.tolist(), strict=True))


def npz(folder: Path, arrays: dict[str, Any], **options: Any) -> Any:
    np.savez(folder / "g.npz", **arrays)
    return formats.read("auto", folder / "g.npz", **options)


def text(folder: Path, name: str, content: str | bytes, kind: str = "graph", **options: Any) -> Any:
    raw = content if isinstance(content, bytes) else content.encode()
    (folder / name).write_bytes(raw)
    return formats.read("auto", folder / name, kind=kind, **options)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("edge_index", {(0, 1), (0, 2)}), ("edges", {(1, 2)})],
)
def test_two_edges_lie_as_the_name_of_their_array_says(
    tmp_path: Path, name: str, expected: set[tuple[int, int]]
) -> None:
    graph = npz(tmp_path, {name: np.array([[0, 0], [1, 2]])}, directed=True)
    assert arcs(graph) == expected


PAIRS = np.array([[0, 0, 1], [1, 2, 0]])
RING = scipy.sparse.csr_array(np.array([[0.0, 1, 0], [1, 0, 1], [0, 1, 0]]))
CSR = {f"adj_{part}": getattr(RING, part) for part in ("indptr", "indices", "data", "shape")}


def test_a_stated_number_of_nodes_keeps_isolated_ones(tmp_path: Path) -> None:
    assert npz(tmp_path, {"edge_index": PAIRS, "num_nodes": np.array(9)}).num_nodes == 9


@pytest.mark.parametrize(
    ("arrays", "left_out"),
    [
        ({"edge_index": PAIRS, "edges": PAIRS.T}, "arrays edge_index"),
        ({"edge_index": PAIRS, "x": np.ones((3, 2)), "features": np.ones((3, 5))}, "arrays x"),
        ({**CSR, "train_mask": np.array([1, 0, 0])}, "arrays train_mask"),
        ({**CSR, "x": np.ones((3, 2))}, "arrays x"),
    ],
)
def test_arrays_that_are_not_read_are_named(
    tmp_path: Path, arrays: dict[str, Any], left_out: str
) -> None:
    assert npz(tmp_path, arrays).notes["left_out"] == left_out


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"edge_index": PAIRS, "x": np.ones((3, 1)), "num_nodes": 2}, "num_nodes is 2, and feat"),
        ({"edge_index": PAIRS, "num_nodes": np.array([3, 4])}, r"num_nodes of shape \(2,\)"),
        ({"edge_index": PAIRS > 0}, "edges of type bool"),
        ({"edge_index": PAIRS, "y": np.array([0, 1, 2**64 - 1], np.uint64)}, "label 18446744073"),
        ({**CSR, "adj_data": np.array([np.nan, 1, 1, 1])}, "adj_data: entry 0 is nan"),
        ({**CSR, "adj_data": np.array([None, 1, 1, 1], object)}, "adj_data holds Python objects"),
        ({**CSR, "adj_shape": np.array([3.5, 3])}, r"adj_shape is \[3.5, 3.0\]"),
    ],
)
def test_arrays_that_would_be_bent_are_refused(
    tmp_path: Path, arrays: dict[str, Any], problem: str
) -> None:
    with pytest.raises(DataError, match=problem):
        npz(tmp_path, arrays)


@pytest.mark.parametrize("form", ["coo", "csc", "bsr", "dia"])
def test_a_matrix_in_another_form_says_how_to_save_it(tmp_path: Path, form: str) -> None:
    scipy.sparse.save_npz(tmp_path / "g.npz", RING.asformat(form))
    with pytest.raises(DataError, match=rf"form '{form}': save matrix.tocsr\(\)"):
        formats.read("auto", tmp_path / "g.npz")


@pytest.mark.parametrize(
    ("words", "labels"),
    [(["-1", "7", "3"], [-1, 1, 0]), (["-1", "1", "1"], [0, 1, 1])],
    ids=["unlabelled", "two-classes"],
)
def test_text_of_minus_one_is_no_class_beside_several(
    tmp_path: Path, words: list[str], labels: list[int]
) -> None:
    arrays = {"edge_index": PAIRS, "x": np.ones((3, 1)), "y": np.array(words)}
    assert npz(tmp_path, arrays).labels.tolist() == labels


@pytest.mark.parametrize(
    ("content", "options"),
    [
        (",source,target\n0,5,6\n1,6,7\n", {}),
        (",a,b\n0,5,6\n1,6,7\n", {}),
        ("id,source,target\n0,5,6\n1,6,7\n", {}),
        ("target,source\n6,5\n7,6\n", {}),
        ("weight,source,target\n9,5,6\n2,6,7\n", {}),
        ("Source,Target,Type,Id,Weight\n5,6,Undirected,0,9\n6,7,Undirected,1,2\n", {}),
        ("source,weight,target\n5,9,6\n6,2,7\n", {"weighted": True}),
        ("target,source,amount\n6,5,9\n7,6,2\n", {"weighted": True}),
    ],
)
def test_columns_are_found_by_the_names_in_the_header(
    tmp_path: Path, content: str, options: dict[str, Any]
) -> None:
    graph = text(tmp_path, "g.csv", content, directed=True, **options)
    assert arcs(graph) == {(0, 1), (1, 2)}
    if options:
        assert graph.edge_weights.tolist() == [9, 2]


@pytest.mark.parametrize("small", ["1.0 2", "1e0 2", "1. 2"])
def test_ids_above_two_to_the_53rd_are_not_rounded_by_a_neighbour_with_a_point(
    tmp_path: Path, small: str
) -> None:
    with pytest.raises(DataError, match=r"line 2: field 1 is .* above 2\^53"):
        text(tmp_path, "g.txt", f"{LARGE + 1} {LARGE}\n{small}\n")
    assert text(tmp_path, "g.txt", f"{LARGE + 1} {LARGE}\n1 2\n").num_nodes == 4
    assert text(tmp_path, "g.txt", f"0 1\n{small}\n").num_nodes == 3


@pytest.mark.parametrize("mark", ["tab", r"\t", "::", "||", "|", " "])
def test_separators_of_any_length_are_taken_as_they_are(tmp_path: Path, mark: str) -> None:
    between = "\t" if mark in ("tab", r"\t") else mark
    content = f"5{between}6\n6{between}7\n"
    assert text(tmp_path, "g.txt", content, delimiter=mark).num_edges == 4


@pytest.mark.parametrize(
    "options", [{"delimiter": ""}, {"num_nodes": -1}], ids=["delimiter", "num_nodes"]
)
def test_values_of_options_that_mean_nothing_are_refused(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(SpecError, match="option"):
        text(tmp_path, "g.txt", "0 1\n", **options)


MISNAMED = [
    ("g.txt", gzip.compress(b"0 1\n"), r"unpack it, or name it \*\.gz"),
    ("g.txt.gz", gzip.compress(gzip.compress(b"0 1\n")), r"unpack it, or name it \*\.gz"),
    ("g.txt", b"\x28\xb5\x2f\xfd\x04X", "compressed by zstd"),
    ("g.txt.zst", b"\x28\xb5\x2f\xfd\x04X", "unpack it first"),
    ("g.txt", b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
    ("g.npz", b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
    ("g.mtx", b"<!DOCTYPE html>\n<html>", "a web page"),
    ("g.txt", "0 1\n".encode("utf-16"), "UTF-16"),
    ("g.txt", "0 1\n".encode("utf-16-le"), "UTF-16"),
    ("g.graph", "2 1\n2\n1\n".encode("utf-16"), "UTF-16"),
    ("g.graph", "% caf\xe9\n2 1\n2\n1\n".encode("latin1"), "byte 5 is 0xe9, which is no UTF-8"),
    ("g.txt", "0 1\n# caf\xe9\n".encode("latin1"), "byte 9 is 0xe9, which is no UTF-8"),
]


@pytest.mark.parametrize(("name", "content", "problem"), MISNAMED)
def test_a_file_of_another_content_than_its_name_says_what_helps(
    tmp_path: Path, name: str, content: bytes, problem: str
) -> None:
    with pytest.raises(DataError, match=problem) as error:
        text(tmp_path, name, content)
    assert "truncated" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("G.TXT", b"0 1\n1 2\n"),
        ("g.txt.GZ", gzip.compress(b"0 1\n1 2\n")),
        ("G.CSV", b"0,1\n1,2\n"),
        ("G.MTX", b"%%MatrixMarket matrix coordinate pattern general\n3 3 2\n1 2\n2 3\n"),
    ],
)
def test_capital_letters_in_suffixes_change_nothing(
    tmp_path: Path, name: str, content: bytes
) -> None:
    assert text(tmp_path, name, content).num_edges == 4


def test_comments_between_entries_of_a_matrix_warn_of_nothing(tmp_path: Path) -> None:
    head = "%%MatrixMarket matrix coordinate real general\n3 3 2\n"
    graph: Graph = text(tmp_path, "g.mtx", f"{head}% a\n1 2 1\n\n% b\n2 3 1 % c\n% d\n")
    assert graph.num_edges == 4


@pytest.mark.parametrize("ids", ["0\n0\n1\n", "1\n1\n0\n0\n"], ids=["twice", "mask"])
def test_a_node_that_a_split_lists_twice_is_refused(tmp_path: Path, ids: str) -> None:
    ogb(tmp_path)
    (tmp_path / "split" / "time" / "train.csv").write_text(ids)
    with pytest.raises(DataError, match=r"train\.csv: node 0 is listed twice"):
        formats.read("ogb", tmp_path)


def test_facts_that_training_and_test_share_are_counted(tmp_path: Path) -> None:
    facts = {"train": "a\tr\tb\nb\tr\tc\n", "valid": "c\tr\ta\n", "test": "a\tr\tb\nb\tq\ta\n"}
    for split, content in facts.items():
        (tmp_path / f"{split}.txt").write_text(content)
    notes = formats.read("triples", tmp_path).notes
    assert notes["shared_with_test"] == "1 facts are in training too, kept"
    assert "shared_with_val" not in notes
    assert str(notes["unseen_in_test"]).startswith("1 facts with an entity or relation")


def test_ids_of_events_may_have_64_bits_and_quoted_commas(tmp_path: Path) -> None:
    head = "src,dst,ts\n"
    stream = text(tmp_path, "e.csv", f"{head}{2**64 - 1},{2**64 - 2},1\n7,7,2\n", "stream")
    assert (stream.num_nodes, stream.sources.tolist()) == (3, [0, 1])
    stream = text(tmp_path, "f.csv", f'{head}"a,b",c,1\nc,"a,b",2\n', "stream")
    assert stream.num_nodes == 2


@pytest.mark.parametrize(
    ("edges", "problem"),
    [
        ("0,1\n1,2\n", "the first line is an edge, 0,1: put a header"),
        ("w,id_1,id_2\n9,0,1\n", "columns w,id_1,id_2: expected those of both ends first"),
        (",id_1,id_2\n0,3,1\n", "columns ,id_1,id_2: expected"),
    ],
)
def test_an_edge_is_no_header_and_other_columns_are_no_ends(
    tmp_path: Path, edges: str, problem: str
) -> None:
    (tmp_path / "toy_edges.csv").write_text(edges)
    with pytest.raises(DataError, match=problem):
        formats.read("musae", tmp_path)


def test_nodes_that_a_target_table_leaves_out_are_counted(tmp_path: Path) -> None:
    (tmp_path / "toy_edges.csv").write_text("id_1,id_2\n0,1\n1,2\n2,3\n")
    (tmp_path / "toy_target.csv").write_text("id,kind\n0,a\n1,b\n")
    graph: Any = formats.read("musae", tmp_path)
    assert graph.notes["unlabelled"] == "2 nodes without a label"
