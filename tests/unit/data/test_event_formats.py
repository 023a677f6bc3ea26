"""Readers of streams and triples: the forms of the field, and one line for what is broken."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from gnnbench.data import formats
from gnnbench.data.formats import columns
from gnnbench.data.triples import unpacked_names
from gnnbench.errors import DataError, SpecError

JODIE = "user_id,item_id,timestamp,state_label,comma_separated_list_of_features\n"
FACTS = {"train": "a\tlikes\tb\nb\tlikes\tc\n", "valid": "a\tknows\tc\n", "test": "d\tlikes\ta\n"}


def events(data) -> list[tuple[int, int, int]]:
    held = (data.sources, data.destinations, data.times)
    return list(zip(*(array.tolist() for array in held), strict=True))


def read(path: Path, text: str, kind: str = "stream", **options):
    path.write_text(text, encoding="utf-8")
    return formats.read("auto", path, kind, **options)


def told(path: Path, text: str, kind: str = "stream", **options) -> list[str]:
    """The problems of a file, without its name."""
    with pytest.raises(DataError) as error:
        read(path, text, kind, **options)
    lines = str(error.value).splitlines()
    assert all(line.startswith(f"{path}: ") for line in lines)
    return [line.removeprefix(f"{path}: ") for line in lines]


class TestText:
    def test_ids_are_numbered_in_order_and_late_events_are_sorted(self, tmp_path):
        data = read(tmp_path / "m.txt", "# c\n9 3 50\n3 9 20\n\n9 7 50\n")
        assert events(data) == [(0, 2, 20), (2, 0, 50), (2, 1, 50)]
        assert data.notes == {
            "renumbered_from": "ids 3..9, order kept",
            "sorted": "1 steps back in time; sorted by time, ties in file order",
        }

    @pytest.mark.parametrize("pack", ["gz", "zip", "tar.gz"])
    def test_packed_files_are_read_and_named_alike(self, tmp_path, pack):
        path = tmp_path / f"m.txt.{pack}"
        if pack == "gz":
            path.write_bytes(gzip.compress(b"0 1 5\n"))
        elif pack == "zip":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("m.txt", "0 1 5\n")
        else:
            _tar(path, {"m.txt": "0 1 5\n"})
        for place in (path, tmp_path):
            data = formats.read("auto", place, "stream")
            assert events(data) == [(0, 1, 5)]
        assert formats.read("auto", path, "stream").name == "m"

    def test_blocks_join_without_a_seam(self, tmp_path, monkeypatch):
        monkeypatch.setattr(columns, "BLOCK_ROWS", 7)
        rows = [(i % 5, (i * i) % 5, i // 3, i / 4) for i in range(50)]
        text = "".join("{} {} {} {}\n".format(*row) for row in rows)
        data = read(tmp_path / "m.txt", text, columns="source,destination,time,feature")
        assert events(data) == [row[:3] for row in rows]
        assert data.edge_features[:, 0].tolist() == [row[3] for row in rows]

    def test_columns_can_be_named_and_names_are_numbered_as_they_come(self, tmp_path):
        text = "20,bob,eve,0\n20,eve,bob,1\n"
        data = read(tmp_path / "m.txt", text, columns="time,source,destination,label")
        assert events(data) == [(0, 1, 20), (1, 0, 20)]
        assert data.labels.tolist() == [0, 1]

    def test_fractional_times_need_a_scale(self, tmp_path):
        text = "0 1 0.25\n1 0 1.0\n"
        assert "time 0.25 is a fraction" in told(tmp_path / "m.txt", text)[0]
        data = read(tmp_path / "m.txt", text, time_scale="100")
        assert data.times.tolist() == [25, 100]

    def test_times_beyond_float64_stay_exact(self, tmp_path):
        late = 2**62 + 1
        assert read(tmp_path / "m.txt", f"0 1 {late}\n").times.tolist() == [late]

    @pytest.mark.parametrize(
        ("text", "problems"),
        [
            (
                "0 1 5\n0 1\n0 x 5\n",
                [
                    "line 2: 2 fields, expected 3",
                    "line 3: field 2 is 'x', expected a whole number",
                ],
            ),
            (
                "# c\n0 1 5\n" + "0\n" * 12,
                [
                    *(f"line {n}: 1 fields, expected 3" for n in range(3, 11)),
                    "and 4 more lines",
                ],
            ),
            ("-1 0 5\n", ["node ids must not be negative, found -1"]),
            (
                "0 1\n",
                [
                    "rows have 2 columns, expected source,destination,time: name them by option "
                    "columns = 'source,destination,time,-', for example"
                ],
            ),
            ("# nothing\n", ["found no data rows"]),
        ],
    )
    def test_every_wrong_line_is_named(self, tmp_path, text, problems):
        assert told(tmp_path / "m.txt", text) == problems

    def test_wrong_options_are_named(self, tmp_path):
        (tmp_path / "m.txt").write_text("0 1 5\n")
        with pytest.raises(SpecError, match="did you mean 'source'"):
            formats.read("temporal_text", tmp_path, columns="sorce,destination,time")
        with pytest.raises(DataError, match=r"node 1 is outside num_nodes = 1"):
            formats.read("temporal_text", tmp_path, num_nodes=1)

    def test_a_table_that_could_be_several_kinds_needs_its_kind(self, tmp_path):
        (problem,) = told(tmp_path / "m.txt", "0 1 5\n", kind="auto")
        assert "kind = 'stream'" in problem
        assert "--kind" in problem
        (problem,) = told(tmp_path / "m.txt", "a likes b\n", kind="auto")
        assert "'triples'" in problem
        (tmp_path / "m.txt").write_text("0 1\n")
        with pytest.raises(DataError, match="holds a graph, found kind = 'stream'"):
            formats.read("snap", tmp_path, "stream")


class TestCsv:
    def test_jodie_numbers_items_after_users_and_reads_features(self, tmp_path):
        text = JODIE + "0,0,0.0,0,0.5,-1\n1,0,36.0,1,1,2\n0,1,36.0,0,0,0\n"
        data = read(tmp_path / "wikipedia.csv", text, kind="auto")
        assert events(data) == [(0, 2, 0), (1, 2, 36), (0, 3, 36)]
        assert (data.num_sources, data.num_nodes, data.num_classes) == (2, 4, 2)
        assert data.edge_features.tolist() == [[0.5, -1], [1, 2], [0, 0]]
        assert data.labels.tolist() == [0, 1, 0]

    def test_tgl_edges_bring_their_split(self, tmp_path):
        header = ",src,dst,time,int_roll,ext_roll\n"
        text = header + "0,0,2,5,0,0\n1,1,2,6,0,0\n2,0,2,7,0,1\n3,2,1,9,0,2\n"
        (tmp_path / "edges.csv").write_text(text)
        data = formats.read("auto", tmp_path)
        assert (data.name, data.train_end, data.val_end, data.own_split) == ("edges", 2, 3, True)
        assert data.edge_features is None
        text = header + "0,0,2,5,0,1\n1,1,2,6,0,0\n"
        assert "split column: expected 0 (train)" in told(tmp_path / "edges.csv", text)[0]

    def test_columns_that_are_not_understood_are_told_with_the_option_that_helps(self, tmp_path):
        (problem,) = told(tmp_path / "m.csv", "src,dst,ts,colour\n0,1,5,7\n")
        assert problem.startswith("columns not understood: colour: ")
        assert "option columns = " in problem
        (problem,) = told(tmp_path / "m.csv", JODIE + "0,0,1,0,0.5\n0,0,2,0,oops\n")
        assert problem == "line 3: field 5 is 'oops', expected a number"
        (problem,) = told(tmp_path / "m.csv", "src,dst,ts\n0,1,5.0\n0,1,nan\n")
        assert problem == "line 3: field 3 is nan, expected a number"
        (problem,) = told(tmp_path / "m.csv", JODIE + "0,0,1,0,0.5\n0,0,2,0,inf\n")
        assert problem == "edge_features: inf in row 1, column 0; allowed are finite numbers"


def _tar(path: Path, files: dict[str, str]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))


class TestTriples:
    @pytest.mark.parametrize("pack", ["folder", "tar.gz", "zip"])
    def test_three_files_are_read_from_folders_and_archives(self, tmp_path, pack):
        files = {f"kg/{split}.txt": text for split, text in FACTS.items()}
        path = tmp_path / ("kg" if pack == "folder" else f"kg.{pack}")
        if pack == "tar.gz":
            _tar(path, {**files, "kg/._train.txt": "junk"})
        elif pack == "zip":
            with zipfile.ZipFile(path, "w") as archive:
                for name, text in files.items():
                    archive.writestr(name, text)
        else:
            path.mkdir()
            for name, text in files.items():
                (tmp_path / name).write_text(text)
        data = formats.read("auto", path)
        assert (data.kind, data.name) == ("triples", "kg")
        assert unpacked_names(data.entity_names) == ["a", "b", "c", "d"]
        assert unpacked_names(data.relation_names) == ["likes", "knows"]
        assert data.heads.tolist() == [0, 1, 0, 3]
        assert data.tails.tolist() == [1, 2, 2, 0]
        assert (data.train_end, data.val_end) == (2, 3)
        assert set(data.notes) == {"unseen_in_val", "unseen_in_test"}

    def test_integer_ids_stay_and_counts_of_openke_are_passed_over(self, tmp_path):
        for split, text in {
            "train": "2\n0 5 1\n1 2 1\n",
            "valid": "1\n3 0 0\n",
            "test": "1\n0 1 0\n",
        }.items():
            (tmp_path / f"{split}2id.txt").write_text(text)
        data = formats.read("auto", tmp_path, ids="integers", order="htr")
        assert (data.num_entities, data.num_relations) == (6, 2)
        assert data.tails.tolist() == [5, 2, 0, 1]
        assert data.entity_names is None

    def test_ids_with_leading_zeros_and_signs_of_comments_are_names(self, tmp_path):
        data = read(tmp_path / "k.txt", "007\t#r\t07\n07\t#r\t7\n", kind="triples")
        assert unpacked_names(data.entity_names) == ["007", "07", "7"]
        assert (data.train_end, data.own_split) == (2, False)

    @pytest.mark.parametrize("name", ["bad.tar.gz", "bad.zip", "bad.txt.gz"])
    @pytest.mark.parametrize("kind", ["stream", "triples"])
    def test_what_is_packed_wrongly_is_told(self, tmp_path, name, kind):
        (tmp_path / name).write_bytes(b"PK nothing of the kind")
        with pytest.raises(DataError, match="truncated or not") as error:
            formats.read("auto", tmp_path / name, kind)
        assert str(error.value).count("\n") == 0

    def test_wrong_files_are_told(self, tmp_path):
        assert told(tmp_path / "k.txt", "a\tr\tb\na\tr\nx\t\ty\n", kind="triples") == [
            "line 2: 2 fields, expected 3",
            "line 3: field 2 is empty",
        ]
        assert "kind = 'stream'" in told(tmp_path / "k.txt", "1\t2\t3\t4\n", kind="triples")[0]
        folder = tmp_path / "kg"
        folder.mkdir()
        (folder / "train.txt").write_text("a\tr\tb\n")
        with pytest.raises(DataError, match=r"train, valid and test.*found 'train.txt'"):
            formats.read("triples", folder)

    def test_a_truncated_archive_is_told_in_one_line(self, tmp_path):
        path = tmp_path / "kg.tar.gz"
        _tar(path, {f"{split}.txt": text * 99 for split, text in FACTS.items()})
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(DataError) as error:
            formats.read("auto", path)
        assert str(error.value).count("\n") == 0


def test_facts_with_times_are_a_stream_split_by_files(tmp_path):
    for split, text in {
        "train": "4 1 0 9 0\n0 0 2 3 0\n",
        "valid": "2 1 4 9 0\n",
        "test": "0 0 4 12 0\n",
    }.items():
        (tmp_path / f"{split}.txt").write_text(text.replace(" ", "\t"))
    data = formats.read("auto", tmp_path)
    assert events(data) == [(0, 1, 3), (2, 0, 9), (1, 2, 9), (0, 2, 12)]
    assert data.labels.tolist() == [0, 1, 1, 0]
    assert (data.train_end, data.val_end, data.num_classes) == (2, 3, 2)
    (tmp_path / "test.txt").write_text("0\t0\t4\t8\t0\n")
    with pytest.raises(DataError, match="time 8 lies before 9"):
        formats.read("auto", tmp_path)


def test_numpy_arrays_grow_by_blocks_without_loss():
    grown = columns.Growing(np.float32, 2)
    for start in range(0, 60, 6):
        block = np.arange(start, start + 6, dtype=np.float32)
        grown.append([block, -block])
    assert grown.done().tolist() == [[i, -i] for i in range(60)]
