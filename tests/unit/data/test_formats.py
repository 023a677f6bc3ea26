"""Readers on small fabricated files: what they keep, and one line for what is broken."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import pickle

import numpy as np
import pytest
import scipy.io
import scipy.sparse

from gnnbench.data import formats
from gnnbench.data.formats import native
from gnnbench.data.graph import from_edges
from gnnbench.errors import DataError, SpecError, UnknownName


def neighbours(graph):
    return [
        graph.indices[a:b].tolist() for a, b in zip(graph.indptr, graph.indptr[1:], strict=False)
    ]


def one_line(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.fixture
def triangle():
    return from_edges(
        "triangle",
        [0, 1, 2],
        [1, 2, 0],
        4,
        features=np.arange(8, dtype=np.float32).reshape(4, 2),
        labels=np.array([0, 1, 0, -1]),
        num_classes=2,
        train_mask=np.array([True, False, False, False]),
    )


class TestRegistry:
    def test_unknown_format_suggests_the_near_one(self, tmp_path):
        with pytest.raises(UnknownName, match="did you mean 'planetoid'"):
            formats.read("planetiod", tmp_path)

    def test_unknown_option_suggests_the_near_one(self, tmp_path):
        with pytest.raises(UnknownName, match="did you mean 'directed'"):
            formats.read("snap", tmp_path, direction=True)

    def test_options_given_as_text_are_converted(self, tmp_path):
        (tmp_path / "g.txt").write_text("0 1\n")
        graph = formats.read("snap", tmp_path, directed="true", num_nodes="5")
        assert graph.num_edges == 1 and graph.num_nodes == 5

    @pytest.mark.parametrize("value", ["five", 2.5, True])
    def test_an_option_of_the_wrong_type_is_refused(self, tmp_path, value):
        with pytest.raises(SpecError, match="num_nodes"):
            formats.read("snap", tmp_path, num_nodes=value)

    def test_a_missing_path_is_a_data_error(self, tmp_path):
        with pytest.raises(DataError, match="no such"):
            formats.read("snap", tmp_path / "absent.txt")

    def test_what_looks_like_nothing_is_not_guessed(self, tmp_path):
        (tmp_path / "notes.doc").write_text("hello")
        with pytest.raises(DataError, match="no known dataset format"):
            formats.detect(tmp_path)

    def test_a_webgraph_file_is_not_taken_for_metis(self, tmp_path):
        for name in ("g.graph", "g.properties"):
            (tmp_path / name).write_bytes(b"\x00\x01")
        assert formats.detect(tmp_path / "g.graph") == "webgraph"

    def test_every_format_has_a_read_with_documented_options(self):
        for name in formats.FORMATS:
            assert formats.reader(name).__doc__
            assert "name" in formats.options(name)


class TestNative:
    def test_a_graph_survives_saving(self, triangle, tmp_path):
        native.save(triangle, tmp_path / "g")
        back = native.load(tmp_path / "g", verify=True)
        assert neighbours(back) == [[1, 2], [0, 2], [0, 1], []]
        assert np.array_equal(back.features, triangle.features)
        assert back.num_classes == 2 and back.notes == triangle.notes and back.val_mask is None

    def test_arrays_are_mapped_and_cannot_be_written(self, triangle, tmp_path):
        native.save(triangle, tmp_path / "g")
        back = native.load(tmp_path / "g")
        assert isinstance(back.features, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            back.features[0, 0] = 1

    def test_a_graph_without_edges_survives(self, tmp_path):
        native.save(from_edges("bare", [], [], 3), tmp_path / "g")
        assert native.load(tmp_path / "g").num_nodes == 3

    def test_saving_twice_replaces_and_leaves_nothing_behind(self, triangle, tmp_path):
        native.save(triangle, tmp_path / "g")
        native.save(from_edges("other", [0], [1], 2), tmp_path / "g")
        assert native.load(tmp_path / "g").name == "other"
        assert [entry.name for entry in tmp_path.iterdir()] == ["g"]

    def test_a_foreign_folder_is_not_overwritten(self, triangle, tmp_path):
        (tmp_path / "precious").write_text("x")
        with pytest.raises(DataError, match="not a gnnbench dataset"):
            native.save(triangle, tmp_path)
        assert (tmp_path / "precious").exists()

    def test_a_failed_save_leaves_the_old_graph(self, triangle, tmp_path):
        native.save(triangle, tmp_path / "g")
        broken = from_edges("broken", [0], [1], 2, labels=np.array([object()]))
        with pytest.raises(ValueError):
            native.save(broken, tmp_path / "g")
        assert native.load(tmp_path / "g").name == "triangle"
        assert len(list(tmp_path.iterdir())) == 1

    def test_a_truncated_array_is_told_in_one_line(self, triangle, tmp_path):
        native.save(triangle, tmp_path / "g")
        file = tmp_path / "g" / "features.npy"
        file.write_bytes(file.read_bytes()[:-4])
        with pytest.raises(DataError) as error:
            native.load(tmp_path / "g")
        assert "features.npy" in one_line(error)

    def test_verify_finds_a_flipped_byte(self, triangle, tmp_path):
        native.save(triangle, tmp_path / "g")
        file = tmp_path / "g" / "features.npy"
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        native.load(tmp_path / "g")
        with pytest.raises(DataError, match="sha256"):
            native.load(tmp_path / "g", verify=True)

    @pytest.mark.parametrize(
        ("change", "problem"),
        [({"schema": 99}, "schema 99"), ({"kind": "zip"}, "not a gnnbench"), ({"name": 3}, "name")],
    )
    def test_a_wrong_meta_is_refused(self, triangle, tmp_path, change, problem):
        native.save(triangle, tmp_path / "g")
        file = tmp_path / "g" / "meta.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
        with pytest.raises(DataError, match=problem):
            native.load(tmp_path / "g")

    def test_pickled_objects_are_not_loaded(self, triangle, tmp_path):
        native.save(triangle, tmp_path / "g")
        np.save(tmp_path / "g" / "labels.npy", np.array([{}], object), allow_pickle=True)
        with pytest.raises(DataError, match="labels"):
            native.load(tmp_path / "g")


def write_planetoid(folder, **changes):
    """Five nodes: 0, 1 labelled for training, 2 only in allx, 3 missing, 4 the test node."""
    rows = np.eye(5, 3, dtype=np.float32)
    parts = {
        "x": rows[:2],
        "y": np.eye(2, dtype=np.int32),
        "allx": rows[:3],
        "ally": np.eye(2, dtype=np.int32)[[0, 1, 1]],
        "tx": rows[4:],
        "ty": np.eye(2, dtype=np.int32)[[0]],
        "graph": {0: [1, 1, 0], 1: [0, 0], 2: [4], 3: [], 4: [2]},
        **changes,
    }
    for part, content in parts.items():
        (folder / f"ind.toy.{part}").write_bytes(pickle.dumps(content, protocol=4))
    (folder / "ind.toy.test.index").write_text("4\n")
    return folder


class Nasty:
    def __reduce__(self):
        return print, ("executed",)


class TestPlanetoid:
    def test_missing_test_ids_are_isolated_and_unlabelled(self, tmp_path):
        graph = formats.read("planetoid", write_planetoid(tmp_path))
        assert neighbours(graph) == [[1], [0], [4], [], [2]]
        assert graph.labels.tolist() == [0, 1, 1, -1, 0]
        assert graph.train_mask.tolist() == [True, True, False, False, False]
        assert graph.test_mask.tolist() == [False] * 4 + [True]
        assert graph.notes == {"self_loops": 1, "repeated_edges": 2}

    def test_a_file_that_names_another_class_is_refused_unexecuted(self, tmp_path, capsys):
        with pytest.raises(DataError, match="refused") as error:
            formats.read("planetoid", write_planetoid(tmp_path, graph=Nasty()))
        one_line(error)
        assert capsys.readouterr().out == ""

    def test_a_truncated_pickle_is_told(self, tmp_path):
        file = write_planetoid(tmp_path) / "ind.toy.allx"
        file.write_bytes(file.read_bytes()[:40])
        with pytest.raises(DataError, match=r"ind\.toy\.allx"):
            formats.read("planetoid", tmp_path)

    def test_a_missing_part_is_named(self, tmp_path):
        (write_planetoid(tmp_path) / "ind.toy.ty").unlink()
        with pytest.raises(DataError, match=r"ind\.toy\.ty: no such file"):
            formats.read("planetoid", tmp_path)

    def test_lengths_that_disagree_are_refused(self, tmp_path):
        write_planetoid(tmp_path, tx=np.ones((2, 3), np.float32))
        with pytest.raises(DataError, match="differ in length"):
            formats.read("planetoid", tmp_path)


class TestNpz:
    def test_csr_parts_become_both_directions(self, tmp_path):
        np.savez(
            tmp_path / "g.npz",
            adj_data=np.ones(2),
            adj_indices=np.array([1, 2]),
            adj_indptr=np.array([0, 1, 2, 2]),
            adj_shape=np.array([3, 3]),
            labels=np.array([0, 1, 1]),
        )
        graph = formats.read("auto", tmp_path / "g.npz")
        assert neighbours(graph) == [[1], [0, 2], [1]] and graph.num_classes == 2
        arcs = formats.read("npz_csr", tmp_path, directed=True)
        assert neighbours(arcs) == [[], [0], [1]]

    def test_a_foreign_npz_is_told(self, tmp_path):
        np.savez(tmp_path / "g.npz", something=np.ones(2))
        with pytest.raises(DataError, match="adj_indptr"):
            formats.read("npz_csr", tmp_path)

    def test_a_truncated_npz_is_told(self, tmp_path):
        (tmp_path / "g.npz").write_bytes(b"PK\x03\x04 nothing")
        with pytest.raises(DataError) as error:
            formats.read("npz_dense", tmp_path)
        one_line(error)

    def test_a_split_outside_the_file_is_refused(self, tmp_path):
        train = np.array([[True, False], [False, True]])
        masks = {"train_masks": train, "val_masks": ~train, "test_masks": train & ~train}
        np.savez(
            tmp_path / "g.npz",
            node_features=np.ones((2, 1)),
            node_labels=np.array([0, 1]),
            edges=np.array([[0, 1]]),
            **masks,
        )
        assert formats.read("auto", tmp_path, split=1).train_mask.tolist() == [False, True]
        with pytest.raises(SpecError, match=r"0\.\.1"):
            formats.read("npz_dense", tmp_path, split=2)


def write_musae(folder, edges="id_1,id_2\n0,1\n1,1\n1,2\n", target="id,kind\n2,b\n0,a\n1,a\n"):
    (folder / "toy_edges.csv").write_text(edges)
    (folder / "toy_target.csv").write_text(target)
    with gzip.open(folder / "toy_features.json.gz", "wt") as stream:
        json.dump({"0": [0, 3], "1": [], "2": [1]}, stream)
    return folder


class TestMusae:
    def test_plain_and_packed_files_are_read_together(self, tmp_path):
        graph = formats.read("auto", write_musae(tmp_path))
        assert neighbours(graph) == [[1], [0, 2], [1]]
        assert graph.labels.tolist() == [0, 0, 1]
        assert graph.features.tolist() == [[1, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]]

    def test_nodes_are_keyed_by_new_id_where_there_is_one(self, tmp_path):
        target = "id,mature,new_id\n900,True,1\n7,False,0\n7,False,0\n5,True,2\n"
        graph = formats.read("musae", write_musae(tmp_path, target=target))
        assert graph.labels.tolist() == [0, 1, 1]

    def test_an_unknown_label_column_is_refused(self, tmp_path):
        with pytest.raises(UnknownName, match="did you mean 'kind'"):
            formats.read("musae", write_musae(tmp_path), label="kinds")

    def test_too_few_features_are_refused(self, tmp_path):
        with pytest.raises(DataError, match="must be 4"):
            formats.read("musae", write_musae(tmp_path), num_features=3)

    def test_a_truncated_edge_row_is_told(self, tmp_path):
        with pytest.raises(DataError, match="toy_edges"):
            formats.read("musae", write_musae(tmp_path, edges="a,b\n0,1\n1"))

    def test_a_truncated_gzip_is_told(self, tmp_path):
        file = write_musae(tmp_path) / "toy_features.json.gz"
        file.write_bytes(file.read_bytes()[:-9])
        with pytest.raises(DataError, match="toy_features") as error:
            formats.read("musae", tmp_path)
        one_line(error)


@pytest.mark.parametrize("place, value", [(6, 204), (8, 1)])
def test_an_archive_of_a_later_version_or_encrypted_is_told(tmp_path, place, value):
    """Byte 6 of an entry of a zip's directory is the version it needs, bit 0 of byte 8 says that
    it is encrypted."""
    file = tmp_path / "g.npz"
    np.savez(file, indptr=np.array([0, 1, 2]), indices=np.array([1, 0]), shape=np.array([2, 2]))
    content = bytearray(file.read_bytes())
    start = -1
    while (start := content.find(b"PK\x01\x02", start + 1)) >= 0:
        content[start + place] = value
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"g[.]npz") as error:
        formats.read("auto", file)
    one_line(error)


class TestFacebook100:
    def test_missing_values_have_no_bit_and_no_label(self, tmp_path):
        info = np.array([[1, 0, 5, 0, 0, 9, 1], [1, 2, 6, 0, 0, 0, 1], [2, 1, 0, 0, 0, 9, 1]])
        adjacency = scipy.sparse.csc_array(np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]], float))
        scipy.io.savemat(tmp_path / "A b.mat", {"A": adjacency, "local_info": info})
        graph = formats.read("auto", tmp_path)
        assert graph.labels.tolist() == [-1, 1, 0] and graph.name == "A b"
        assert graph.features.sum(axis=1).tolist() == [4, 3, 3]

    def test_an_unknown_column_is_refused(self, tmp_path):
        (tmp_path / "a.mat").write_bytes(b"")
        with pytest.raises(UnknownName, match="did you mean 'gender'"):
            formats.read("facebook100", tmp_path, label="gendr")

    @pytest.mark.parametrize("content", [b"", b"MATLAB 5.0 MAT-file, cut", b"x" * 400])
    def test_a_broken_file_is_told(self, tmp_path, content):
        (tmp_path / "a.mat").write_bytes(content)
        with pytest.raises(DataError) as error:
            formats.read("facebook100", tmp_path)
        one_line(error)


def write_ogb(folder, nodes=3, **extra):
    files = {"raw/edge": "0,1\n2,1\n", "raw/num-node-list": f"{nodes}\n", **extra}
    for name, text in files.items():
        file = folder / f"{name}.csv.gz"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(gzip.compress(text.encode()))
    return folder


class TestOgb:
    def test_features_labels_and_split_are_read_where_present(self, tmp_path):
        split = {
            f"split/time/{part}": f"{i}\n" for i, part in enumerate(("train", "valid", "test"))
        }
        extra = {"raw/node-feat": "1,2\n3,4\n5,6.5\n", "raw/node-label": "0\nnan\n4\n", **split}
        graph = formats.read("auto", write_ogb(tmp_path, **extra))
        assert neighbours(graph) == [[1], [0, 2], [1]]
        assert graph.labels.tolist() == [0, -1, 4] and graph.num_classes == 5
        assert graph.features[2].tolist() == [5, 6.5]
        assert graph.val_mask.tolist() == [False, True, False]

    def test_direction_can_be_kept(self, tmp_path):
        assert neighbours(formats.read("ogb", write_ogb(tmp_path), directed=True)) == [
            [],
            [0, 2],
            [],
        ]

    def test_several_label_columns_are_multi_label(self, tmp_path):
        graph = formats.read("ogb", write_ogb(tmp_path, **{"raw/node-label": "0,1\n1,1\n0,0\n"}))
        assert graph.labels.shape == (3, 2) and graph.labels.dtype == np.float32

    def test_a_short_feature_table_is_told(self, tmp_path):
        with pytest.raises(DataError, match="2 rows for 3 nodes"):
            formats.read("ogb", write_ogb(tmp_path, **{"raw/node-feat": "1\n2\n"}))

    def test_an_edge_to_a_node_that_is_not_there_is_told(self, tmp_path):
        with pytest.raises(DataError, match=r"0\.\.1"):
            formats.read("ogb", write_ogb(tmp_path, nodes=2))

    def test_a_folder_without_raw_files_is_told(self, tmp_path):
        with pytest.raises(DataError, match="num-node-list"):
            formats.read("ogb", tmp_path)


class TestSnap:
    @pytest.mark.parametrize(
        ("suffix", "pack"),
        [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress), (".bz2", bz2.compress)],
    )
    def test_every_packing_is_read(self, tmp_path, suffix, pack):
        text = b"# a comment\n0\t1\n\n1\t2 \n# late\n2\t2\n"
        (tmp_path / f"g.txt{suffix}").write_bytes(pack(text))
        graph = formats.read("auto", tmp_path)
        assert neighbours(graph) == [[1], [0, 2], [1]] and graph.name == "g"

    def test_sparse_ids_are_made_dense_in_order(self, tmp_path):
        (tmp_path / "g.txt").write_text("90 7 12\n7 1000000000000 13\n")
        graph = formats.read("snap", tmp_path)
        assert neighbours(graph) == [[1, 2], [0], [0]]
        assert "7..1000000000000" in graph.notes["renumbered_from"]

    def test_given_a_node_count_ids_stay(self, tmp_path):
        (tmp_path / "g.txt").write_text("0 3\n")
        assert neighbours(formats.read("snap", tmp_path, num_nodes=5)) == [[3], [], [], [0], []]
        with pytest.raises(DataError, match=r"0\.\.2"):
            formats.read("snap", tmp_path, num_nodes=3)

    def test_further_columns_are_counted_and_a_kind_must_be_named(self, tmp_path):
        (tmp_path / "g.txt").write_text("0 1 7\n1 2 7\n")
        assert formats.read("auto", tmp_path, kind="graph").notes["columns_left_out"] == 1
        with pytest.raises(DataError, match="kind = 'stream'"):
            formats.read("auto", tmp_path)

    @pytest.mark.parametrize("text", ["", "# nothing\n"])
    def test_a_file_without_edges_needs_a_number_of_nodes(self, tmp_path, text):
        (tmp_path / "g.txt").write_text(text)
        with pytest.raises(DataError, match=r"no edges.*num_nodes"):
            formats.read("snap", tmp_path)
        assert formats.read("snap", tmp_path, num_nodes=3).num_nodes == 3

    def test_quotes_and_semicolons_of_a_csv_are_read(self, tmp_path):
        for text in ('"source","target"\n"0","1"\n"1","2"\n', "source;target\n0;1\n1;2\n"):
            (tmp_path / "g.csv").write_text(text)
            assert neighbours(formats.read("snap", tmp_path)) == [[1], [0, 2], [1]]

    def test_utf_16_is_named(self, tmp_path):
        (tmp_path / "g.txt").write_bytes("0 1\n".encode("utf-16"))
        with pytest.raises(DataError, match=r"UTF-16.*UTF-8"):
            formats.read("snap", tmp_path)

    @pytest.mark.parametrize(
        ("text", "problems"),
        [
            ("0 1\n2\n3 4 5\n", ["line 2: 1 fields, expected 2", "line 3: 3 fields, expected 2"]),
            ("# c\n0 1\n\nx y\n", ["line 4: field 1 is 'x', expected a whole number"]),
            ("0 1\n2 1.5\n", ["line 2: field 2 is '1.5', expected a whole number"]),
            (f"0 1\n{2**64} 1\n", [f"line 2: field 1 is {2**64}, larger than int64 can hold"]),
            ("-1 2\n", ["node ids must not be negative, found -1"]),
            (
                "0|1\n",
                ["rows have one field: '0|1'; set option delimiter to the separator"],
            ),
        ],
    )
    def test_every_malformed_line_is_named(self, tmp_path, text, problems):
        (tmp_path / "g.txt").write_text(text)
        with pytest.raises(DataError) as error:
            formats.read("snap", tmp_path)
        assert str(error.value).splitlines() == [f"{tmp_path / 'g.txt'}: {p}" for p in problems]

    @pytest.mark.parametrize(
        "text",
        ["\ufeff0 1\n1 2\n", "% konect\n0 1\n1 2\n", "0,1\n1,2\n", "source,target\n0,1\n1,2\n"],
    )
    def test_common_forms_are_read(self, tmp_path, text):
        (tmp_path / "g.csv").write_text(text, encoding="utf-8")
        assert neighbours(formats.read("auto", tmp_path / "g.csv")) == [[1], [0, 2], [1]]

    @pytest.mark.parametrize(("suffix", "pack"), [(".xz", lzma.compress), (".bz2", bz2.compress)])
    def test_a_truncated_archive_is_told(self, tmp_path, suffix, pack):
        (tmp_path / f"g.txt{suffix}").write_bytes(pack(b"0 1\n" * 99)[:-12])
        with pytest.raises(DataError) as error:
            formats.read("snap", tmp_path)
        one_line(error)


class TestMetis:
    def test_blank_lines_are_nodes_without_neighbours(self, tmp_path):
        (tmp_path / "g.graph").write_text("% comment\n4 2\n 2 3\n1\n1\n\n")
        assert neighbours(formats.read("auto", tmp_path)) == [[1, 2], [0], [0], []]

    def test_weights_are_left_out(self, tmp_path):
        (tmp_path / "g.graph").write_text("2 1 011 2\n5 6 2 9\n7 8 1 9\n")
        assert neighbours(formats.read("metis", tmp_path)) == [[1], [0]]

    @pytest.mark.parametrize(
        "text",
        ["", "x\n", "3 1\n2\n1\n", "2 2\n2\n1\n", "2 1\n3\n1\n", "2 1\n2\n1\n\n2\n", "2 1\nb\n1\n"],
    )
    def test_a_file_that_contradicts_itself_is_told(self, tmp_path, text):
        (tmp_path / "g.graph").write_text(text)
        with pytest.raises(DataError) as error:
            formats.read("metis", tmp_path)
        one_line(error)
