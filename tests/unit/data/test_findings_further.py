"""Further inputs of the kinds of `test_findings`: each is read rightly, or refused with its reason.

Sources are reports on loaders of graphs: masks of several columns (awslabs/graphstorm#215), edges
that lie across (CrawlScript/tf_geometric#37, Graph-Learning-Benchmarks/gli#72), a first row of a
knowledge graph taken for a header and the reverse (gnn4dr/DRKG#29), head-tail-relation order
(hwwang55/DKN#17), weights in METIS files (KarlsruheMIS/KaMIS#13, sparcityeu/SparseBase#178), nan
among several labels (snap-stanford/ogb#4), and variations of our own.
"""

from __future__ import annotations

import bz2
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sample_files
import scipy.io

from gnnbench.cli import main
from gnnbench.data import formats
from gnnbench.data.formats import planetoid
from gnnbench.data.formats.reading import reading
from gnnbench.data.generators import GENERATORS, generate
from gnnbench.errors import DataError, GnnbenchError, SpecError
from gnnbench.suites import parse_suite

EDGES = np.array([[0, 1], [1, 2], [2, 3], [3, 0]])
TRAIN = np.array([True, True, False, False])


def dense(folder: Path, **arrays: Any) -> Any:
    """A file of dense arrays of four nodes, with some arrays replaced or, by None, left out."""
    parts = {
        "edges": EDGES,
        "node_features": np.ones((4, 2)),
        "node_labels": np.array([0, 1, 0, 1]),
        "train_masks": TRAIN,
        "val_masks": ~TRAIN,
        "test_masks": TRAIN & False,
        **arrays,
    }
    np.savez(folder / "g.npz", **{k: v for k, v in parts.items() if v is not None})
    return formats.read("auto", folder / "g.npz")


def arcs(graph: Any) -> set[tuple[int, int]]:
    """Pairs with the smaller end first."""
    targets = np.repeat(np.arange(graph.num_nodes), graph.in_degrees())
    return {
        (min(a, b), max(a, b))
        for a, b in zip(graph.indices.tolist(), targets.tolist(), strict=True)
    }


RING = {(0, 1), (1, 2), (2, 3), (0, 3)}


@pytest.mark.parametrize(
    "arrays",
    [
        {"edges": EDGES.T},
        {"edges": None, "edge_index": EDGES.T},
        {"edges": EDGES.astype(float)},
        {"train_masks": TRAIN[None], "val_masks": ~TRAIN[None], "test_masks": TRAIN[None] & False},
        {"train_masks": np.stack([TRAIN, ~TRAIN, TRAIN], 1), "val_masks": None},
        {"train_masks": None, "train_mask": TRAIN.astype(np.int8)[:, None]},
        {"node_labels": np.array(["cat", "dog", "cat", "dog"])},
        {"node_labels": np.array([[0.0], [1.0], [0.0], [1.0]])},
        {"node_labels": np.array([False, True, False, True])},
        {"node_features": np.ones(4), "node_labels": np.array([b"a", b"b", b"a", b"b"])},
        {
            **dict.fromkeys(("edges", "node_features", "node_labels")),
            **{"edge_index": EDGES.T, "x": np.ones((4, 3)), "y": np.array([0, 1, 0, 1])},
        },
    ],
    ids=[
        *("across", "edge_index", "float", "one-split", "by-column", "column", "words"),
        *("float-column", "truth", "one-feature", "geometric"),
    ],
)
def test_arrays_are_read_whatever_way_they_lie(tmp_path: Path, arrays: dict[str, Any]) -> None:
    graph = dense(tmp_path, **arrays)
    assert arcs(graph) == RING
    assert graph.labels.tolist() == [0, 1, 0, 1]
    assert graph.train_mask.tolist() == TRAIN.tolist()


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"edges": EDGES + 0.5}, "edges: found 0.5, expected whole numbers"),
        ({"edges": np.ones((3, 4, 2))}, r"edges of shape \(3, 4, 2\)"),
        ({"train_masks": np.array([0, 1])}, "true or false for each node, not ids"),
        ({"train_masks": np.array([0, 1, 2, 3])}, "train_masks holds more than 0 and 1"),
        ({"train_masks": np.stack([TRAIN] * 3), "val_masks": np.stack([~TRAIN] * 2)}, "unlike num"),
        ({"node_labels": np.array([1.5, 0, 1, 0])}, "label 1.5 of node 0 is no class: a fraction"),
        ({"node_labels": np.array([np.inf, 0, 1, 0])}, "label inf of node 0 .* not finite"),
        ({"node_labels": np.array([7000, 0, 1, 0])}, "label 7000 of node 0: more classes than"),
        (
            {"node_labels": np.array([[1.0, np.nan], [1, 1], [0, 1], [1, 1]])},
            "labels: nan in row 0",
        ),
        ({"node_labels": np.array([1j, 0, 1, 0])}, "labels of type complex128"),
        ({"node_labels": np.array([{}, 0, 1, 0], object)}, "node_labels holds Python objects"),
        ({"node_features": np.ones((4, 2)) * 1e300}, r"features: 1e\+300 in row 0"),
        ({"node_features": np.ones((4, 2, 2))}, r"features of shape \(4, 2, 2\)"),
        ({"node_features": np.array([["a"]] * 4)}, "features of type"),
        ({"node_features": np.ones((4, 2)) * 1j}, "features of type complex128"),
        ({"edges": None}, "arrays of no known format"),
    ],
)
def test_what_would_be_cut_or_guessed_is_refused(
    tmp_path: Path, arrays: dict[str, Any], problem: str
) -> None:
    with pytest.raises(DataError, match=rf"g\.npz: .*{problem}"):
        dense(tmp_path, **arrays)


def sample(folder: Path, name: str, **changes: str | bytes | None) -> Path:
    """A sample of a format with some files replaced, removed (None) or added."""
    sample_files.WRITERS[name][0](folder)
    for file, content in changes.items():
        path = folder / file
        if content is None:
            path.unlink()
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content)
    return folder


READ = [
    # file, content, edges, and a word of the notes
    ("snap", {"g.txt": "# a\r# b\r0 1\r1 2\r2 3\r3 0\r"}, ""),
    ("snap", {"g.txt": "0 1\x0b\n1 2\n2 3\n3 0\n"}, ""),
    ("snap", {"g.txt": f"{2**63} {2**64 - 1}\n{2**64 - 1} 3\n3 0\n0 {2**63}\n"}, "order kept"),
    ("snap", {"g.txt": "# Nodes: 4 Edges: 9\n0 1\n1 2\n2 3\n3 0\n"}, "truncated"),
    ("snap", {"g.txt": "4 4\n0 1\n1 2\n2 3\n3 0\n"}, "put '#' before it"),
    (
        "matrix_market",
        {
            "g.mtx": "%%MatrixMarket matrix coordinate real general\n4 4 4\n1 2 0\n"
            "2 3 1\n3 4 1\n4 1 1\n"
        },
        "1 entries of value 0",
    ),
    (
        "metis",
        {"g.graph": "4 4 11 2\n1 1 2 5 4 5\n1 1 1 5 3 5\n1 1 2 5 4 5\n1 1 3 5 1 5\n"},
        "vertex weights, edge weights",
    ),
    ("musae", {"toy_edges.csv": "a,b\r0,1\r1,2\r2,3\r3,0\r"}, ""),
    ("musae", {"toy_edges.csv": "a,b,w\n0,1,9\n1,2,9\n2,3,9\n3,0,9\n"}, "1"),
    ("musae", {"toy_target.csv": "id,views,kind\n0,9,a\n1,8,NA\n2,7,\n3,6,b\n"}, "2 nodes without"),
    ("ogb", {"raw/edge.csv": "\ufeff0, 1\r\n1, 2\r\n2, 3\r\n3, 0\r\n"}, ""),
    ("ogb", {"raw/edge-feat.csv": "1\n1\n1\n1\n"}, "edge-feat.csv"),
    ("graphs_jl", {"g.jlg": "\ufeff4,4,u,g\n1,2\n2,3\n3,4\n4,1\n"}, ""),
]


@pytest.mark.parametrize(("name", "changes", "noted"), READ)
def test_files_in_common_forms_are_read_and_what_is_odd_is_noted(
    tmp_path: Path, name: str, changes: dict[str, str], noted: str
) -> None:
    graph = formats.read("auto", sample(tmp_path, name, **changes))
    if "4 4\n0 1" not in str(changes.values()):
        assert len(arcs(graph)) == 4
    assert noted in " ".join(map(str, graph.notes.values()))


REFUSED = [
    ("metis", {"g.graph": "4 4 5\n2 4\n1 3\n2 4\n3 1\n"}, "fmt '5' is not three flags"),
    ("metis", {"g.graph": "2 1 1\n2 5 1\n1 5\n"}, "node 1: 3 numbers do not fit fmt 1"),
    ("metis", {"g.graph": "2 1 10\n1 2\n\n"}, "node 2: 0 numbers do not fit fmt 10"),
    (
        "matrix_market",
        {"g.mtx": "%%MatrixMarket matrix coordinate real general\n2 2 1\n1 2 x\n"},
        "could not convert",
    ),
    (
        "matrix_market",
        {"g.mtx": "%%MatrixMarket matrix coordinate real general\n999999999 999999999 1\n1 2 1\n"},
        "999999999 nodes for 1 edges",
    ),
    ("ogb", {"raw/edge.csv": "0,1\n1,,2\n2,3\n3,0\n"}, "edge.csv: "),
    ("ogb", {"raw/edge.csv": "0,1\n1,2,7\n2,3\n3,0\n"}, "line 2: 3 fields, expected 2"),
    ("ogb", {"raw/edge.csv": "0,1\n1,9223372036854775808\n2,3\n3,0\n"}, "edge.csv: "),
    ("ogb", {"raw/num-edge-list.csv": "7\n"}, "7 edges stated, 4 in edge.csv: truncated?"),
    ("musae", {"toy_edges.csv": "a,b\n0,1\n1,9000000000\n"}, "node ids reach 9000000000"),
    ("musae", {"toy_edges.csv": "a,b\n0,1\n1,-2\n"}, "must not be negative, found -2"),
    ("musae", {"toy_target.csv": "id,kind\n-1,a\n"}, "must not be negative, found -1"),
    ("musae", {"toy_target.csv": "id,kind\n0,a\n0,b\n"}, "node 0 has two different labels"),
    ("musae", {"toy_target.csv": "id,kind\n0,0.5\n1,0.25\n"}, "is no class: a fraction"),
    ("musae", {"toy_target.csv": "id\n0\n"}, "no column of labels beside id"),
    ("musae", {"toy_features.json": '{"0": [0.5]}'}, "feature 0.5 is no id"),
    ("musae", {"toy_features.json": '{"-1": [0]}'}, "'-1' is no node id"),
    ("planetoid", {"ind.toy.test.index": "-1\n"}, "found node -1, expected ids from 3"),
    ("planetoid", {"ind.toy.test.index": "1900000000\n"}, "leaves most nodes without features"),
    ("planetoid", {"ind.toy.graph": pickle.dumps({0: [9]})}, "node ids must lie in 0..3"),
    ("planetoid", {"ind.toy.graph": pickle.dumps({0: [0.5]})}, "expected whole numbers"),
    ("planetoid", {"ind.toy.allx": pickle.dumps(np.matrix([[1.0]]))}, "refused: the pickle names"),
    ("webgraph", {"g.properties": "graphclass=BVGraph\nnodes=2000000000\narcs=4\n"}, "bytes for"),
    ("webgraph", {"g.properties": "graphclass=BVGraph\nnodes=4\narcs=4\nzetak=99\n"}, "zetak 99"),
    ("triples", {"train.txt": "3\na\tr\tb\nb\tr\tc\n"}, "3 facts by the first line, found 2"),
    ("snap", {"g.txt": None, "g.edges": "0,1\n1,2,3\n"}, "line 2: 3 fields, expected 2"),
]


@pytest.mark.parametrize(("name", "changes", "problem"), REFUSED)
def test_files_that_contradict_themselves_are_refused_in_a_line(
    tmp_path: Path, name: str, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(DataError) as error:
        formats.read("auto", sample(tmp_path, name, **changes))
    assert problem in str(error.value)
    assert str(tmp_path) in str(error.value) or "nodes for" in problem


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"Problem": np.ones(3)}, "no variables A and local_info, found Problem"),
        ({"A": np.ones((3, 2)), "local_info": np.ones((3, 7))}, "is no adjacency matrix"),
        ({"A": np.eye(3), "local_info": np.full((3, 7), 0.5)}, "local_info: found 0.5"),
        ({"A": np.eye(3), "local_info": np.ones((2, 7))}, "local_info of shape"),
    ],
)
def test_matlab_files_of_another_content_say_what_they_hold(
    tmp_path: Path, content: dict[str, Any], problem: str
) -> None:
    scipy.io.savemat(tmp_path / "a.mat", content)
    with pytest.raises(DataError, match=problem):
        formats.read("facebook100", tmp_path)
    missing = {"A": np.ones((3, 3)), "local_info": np.full((3, 7), np.nan)}
    scipy.io.savemat(tmp_path / "a.mat", missing)
    assert formats.read("facebook100", tmp_path).labels.tolist() == [-1, -1, -1]


def test_a_file_that_expands_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules["gnnbench.data.formats.reading"]  # a function has the same name
    monkeypatch.setattr(module, "_PLAUSIBLE_BYTES", 1 << 20)
    (tmp_path / "g.mtx.bz2").write_bytes(bz2.compress(b"%" * (1 << 24)))
    with pytest.raises(DataError, match="expands to more than"):
        formats.read("auto", tmp_path / "g.mtx.bz2")


@pytest.mark.parametrize(
    ("header", "order"),
    [("head\trelation\ttail", "hrt"), ("subject\tobject\tpredicate", "htr")],
)
def test_a_header_names_the_columns_of_facts(tmp_path: Path, header: str, order: str) -> None:
    row = {"h": "a", "r": "r", "t": "b"}
    for split in ("train", "valid", "test"):
        text = "\t".join(row[letter] for letter in order)
        (tmp_path / f"{split}.tsv").write_text(f"{header}\n{text}\n")
    data = formats.read("auto", tmp_path)
    assert (data.num_entities, data.num_relations, data.num_triples) == (2, 1, 3)
    assert "left out" in data.notes["header"]


def test_openke_files_are_read_in_their_own_order(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}2id.txt").write_text("2\n0 5 1\n5 7 0\n")
    data = formats.read("auto", tmp_path, ids="integers")
    assert (data.num_entities, data.num_relations) == (8, 2)
    assert "tail, relation" in data.notes["order"]


@pytest.mark.parametrize(
    ("text", "options", "problem"),
    [
        ("0 1 5\n1 2 6\n", {"time_scale": 0}, "time_scale.*allowed >= 1"),
        (f"0 1 {2**62}\n1 2 6\n", {"time_scale": 1000}, "larger than int64"),
        ("0.5 1 5\n1.0 2 6\n", {}, "source 0.5 is a fraction"),
        ("0 1 2014-01-01\n1 2 2014-01-02\n", {}, "expected a"),
    ],
)
def test_events_that_would_be_bent_are_refused(
    tmp_path: Path, text: str, options: dict[str, Any], problem: str
) -> None:
    (tmp_path / "e.txt").write_text(text)
    with pytest.raises(GnnbenchError, match=problem):
        formats.read("temporal_text", tmp_path / "e.txt", **options)


def test_ids_that_a_table_program_wrote_with_a_point_are_one_with_whole_ones(
    tmp_path: Path,
) -> None:
    (tmp_path / "e.csv").write_text("src,dst,time\n0.0,1,5\n1.0,2,6\n2.0,0,7\n")
    assert formats.read("auto", tmp_path / "e.csv").num_nodes == 3


BASE = {"num_nodes": 100, "mean_degree": 4}
WRONG_VALUES = [
    ("planted_partition", {**BASE, "num_classes": 3, "num_features": 4, "homophily": 1.5}),
    ("planted_partition", {**BASE, "num_classes": 90, "num_features": 4}),
    ("planted_partition", {**BASE, "num_classes": 3, "num_features": 4, "train_fraction": 0.9}),
    ("rmat", {"scale": 31}),
    ("rmat", {"scale": 3, "a": 0.9, "b": 0.3}),
    ("uniform", {**BASE, "mean_degree": 100}),
    ("uniform", {**BASE, "num_features": 4}),
    *((name, {**BASE, "mean_degree": 0}) for name in ("web", "grid", "stars", "bipartite")),
    ("synthetic_stream", {"num_nodes": 2, "num_edges": 5, "bipartite": True}),
    ("synthetic_stream", {"num_nodes": 20, "num_edges": 5, "mean_gap": -1.0}),
    ("synthetic_triples", {"num_entities": 3, "num_relations": 1, "num_triples": 100}),
    ("synthetic_triples", {"num_entities": 9, "num_relations": 1, "num_triples": 5, "val": 0.9}),
]


@pytest.mark.parametrize(("generator", "options"), WRONG_VALUES)
def test_values_that_a_generator_cannot_draw_from_are_told_when_the_suite_is_read(
    generator: str, options: dict[str, Any]
) -> None:
    with pytest.raises(SpecError, match=r"s\.toml: datasets\.d\.options\."):
        parse_suite(suite({"generator": generator, "options": options}), "s.toml")
    with pytest.raises(SpecError):
        generate(generator, **options)
    with pytest.raises(SpecError):
        GENERATORS[generator](**options)


def suite(dataset: dict[str, Any]) -> dict[str, Any]:
    return {
        "datasets": {"d": dataset},
        "models": {"m": {}},
        "runs": [{"dataset": "d", "model": "m", "approach": "single"}],
    }


@pytest.mark.parametrize(
    ("dataset", "problem"),
    [
        ({"path": "g", "split": {"train": "0.6"}}, "split.train: found '0.6', expected a number"),
        ({"path": "g", "split": {"train": 0.9, "val": 0.3}}, "allowed sum <= 1"),
        ({"path": "g", "split": {"train": -0.1}}, "split.train: found -0.1"),
        ({"path": "g", "split": {"seed": 1.5}}, "split.seed: found 1.5, expected a whole number"),
        (
            {"path": "g", "synthetic": {"num_features": 0, "num_classes": 2}},
            "num_features: found 0",
        ),
        (
            {"path": "g", "format": "snap", "options": {"directed": "maybe"}},
            "found 'maybe', allowed",
        ),
        ({"profile": "reddit", "override": {"num_features": -5}}, "num_features: found -5"),
        ({"profile": "reddit", "override": {"num_features": 10**12}}, "num_features: found 10000"),
    ],
)
def test_values_of_a_dataset_are_checked_when_the_suite_is_read(
    dataset: dict[str, Any], problem: str
) -> None:
    with pytest.raises(SpecError) as error:
        parse_suite(suite(dataset), "s.toml")
    assert problem in str(error.value)


def test_the_command_tells_what_a_reader_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample(tmp_path, "musae")
    (tmp_path / "toy_target.csv").write_text("id,kind\n0,red\n1,\n2,blue\n3,red\n")
    assert main(["dataset", str(tmp_path), "--parts", "none", "--json"]) == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert notes["classes"] == "blue, red"
    assert notes["unlabelled"] == "1 nodes without a label"


@pytest.mark.parametrize("between", ["# a remark: 7 8\n", "\n", ""])
@pytest.mark.parametrize("largest", [3, 2**64 - 1])
def test_a_header_is_one_too_if_a_remark_follows_it(
    between: str, largest: int, tmp_path: Path
) -> None:
    (tmp_path / "g.txt").write_text(f"\nfrom to\n{between}1 2\n{largest} 1\n")
    graph = formats.read("snap", tmp_path / "g.txt")
    assert (graph.num_nodes, graph.num_edges) == (3, 4)
    assert graph.notes["header"] == "left out: from to"


def test_empty_bytes_of_an_old_pickle_are_read(tmp_path: Path) -> None:
    """Protocol 2 writes them as a call of `bytes`; no other call of it is let through."""
    file = tmp_path / "a"
    file.write_bytes(pickle.dumps([b"", b"x"], protocol=2))
    assert planetoid._unpickle(file) == [b"", b"x"]
    file.write_bytes(b"cbuiltins\nbytes\n(I999999999999\ntR.")
    with pytest.raises(DataError, match="not a Planetoid pickle"):
        planetoid._unpickle(file)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"J\xff\xff\xff\xffJ\xff\xff\xff\xff", b"J\xff\xff\xff\x04\x85\x94"),
        (b"K\x02\x85\x94h", b"K\x09\x85\x94h"),
        (b"i4", b"i9"),
        (b"i4", b"V4"),
    ],
    ids=["type", "shape", "width", "kind"],
)
def test_a_state_that_numpy_cannot_take_is_a_broken_file(
    old: bytes, new: bytes, tmp_path: Path
) -> None:
    """numpy's own code fails without an exception, or crashes, on such states."""
    whole = pickle.dumps(np.zeros(2, np.int32), protocol=4)
    broken = whole.replace(old, new, 1)
    assert broken != whole
    (tmp_path / "a").write_bytes(broken)
    with pytest.raises(DataError, match="not a Planetoid pickle"):
        planetoid._unpickle(tmp_path / "a")


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        np.array([1, 2], dtype=">i8"),
        np.array(["a", "bc"]),
        np.array([True, False]),
        np.array([[0, 1], [2]], dtype=object),
    ],
    ids=["floats", "columns", "big", "words", "bools", "lists"],
)
def test_arrays_of_any_protocol_are_read(array: Any, protocol: int, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(pickle.dumps(array, protocol=protocol))
    found = planetoid._unpickle(tmp_path / "a")
    assert (found.dtype.kind, found.shape) == (array.dtype.kind, array.shape)
    assert found.tolist() == array.tolist()


def test_a_feature_matrix_without_its_pointers_is_refused() -> None:
    matrix = planetoid._Sparse()
    vars(matrix).update(_shape=(2, 2), indices=np.zeros(1, np.int32), data=np.ones(1))
    with pytest.raises(ValueError, match="has no indptr"):
        planetoid._dense(matrix)


def test_a_file_that_asks_for_more_memory_than_there_is_is_named(tmp_path: Path) -> None:
    told = pytest.raises(DataError, match="takes more memory than there is")
    with told, reading(tmp_path / "a", "a graph"):
        np.zeros((2**45, 2**10), np.int8)
