"""The reader of published rows: strict columns, errors of one line, words for numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from gnnbench.errors import DataError
from gnnbench.published.rows import OPTIONAL, REQUIRED, read_rows, shipped_rows

HEADER = ",".join(REQUIRED)
REPO = Path(__file__).resolve().parents[3]


def line(**given: str) -> str:
    cells = dict.fromkeys(REQUIRED, "") | {"system": "PipeGCN", "metric": "epoch_time"}
    return ",".join((cells | {"value": "1.5"} | given).values())


def written(folder: Path, *lines: str) -> Path:
    path = folder / "rows.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_row_is_read_with_its_place_in_the_file(tmp_path: Path) -> None:
    (row,) = read_rows(written(tmp_path, HEADER, "", line(layers="3.0", gpus="4")))
    assert (row.row_id, row.value, row.num_layers, row.ranks) == ("rows:3", 1.5, 3, 4)


@pytest.mark.parametrize("words", ["", "2-3", "2->16", "-1", "1.5", "nan", "inf"])
def test_a_count_that_is_no_whole_number_is_not_stated(tmp_path: Path, words: str) -> None:
    (row,) = read_rows(written(tmp_path, HEADER, line(layers=words)))
    assert row.num_layers is None
    assert row.layers == words


def test_optional_columns_may_stand_anywhere(tmp_path: Path) -> None:
    path = written(tmp_path, f"fanout,{HEADER},storage", f"10-10,{line()},disk")
    (row,) = read_rows(path)
    assert (row.fanout, row.storage, row.batch) == ("10-10", "disk", "")


def test_a_quoted_cell_may_hold_a_line_break(tmp_path: Path) -> None:
    rows = read_rows(written(tmp_path, HEADER, line(notes='"a\nb"'), line()))
    assert [row.notes for row in rows] == ["a\nb", ""]


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ((), "empty"),
        ((HEADER.replace("metric", "metrik"),), "did you mean 'metric'"),
        ((HEADER.replace("notes", "value"),), "column 'value' twice"),
        ((HEADER.replace(",notes", ""),), "missing column notes"),
        ((HEADER, line() + ",more"), "line 2: 14 cells, allowed: 13"),
        ((HEADER, line(value="fast")), "line 2: value: found 'fast'"),
        ((HEADER, line(value="nan")), "allowed: a finite number"),
        ((HEADER, line(system="")), "line 2: system: empty"),
        ((HEADER, line(notes='"open')), "line 2"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    tmp_path: Path, lines: tuple[str, ...], problem: str
) -> None:
    path = written(tmp_path, *lines)
    with pytest.raises(DataError) as caught:
        read_rows(path)
    assert problem in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_absent_or_binary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        read_rows(tmp_path / "none.csv")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not UTF-8"):
        read_rows(tmp_path / "b.csv")


def test_the_shipped_rows_are_small_and_say_where_they_are_from() -> None:
    folder = REPO / "gnnbench" / "catalogue" / "published"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 200_000
    rows = shipped_rows()
    assert len(rows) > 400
    assert all(row.source for row in rows)
    assert len({row.row_id for row in rows}) == len(rows)


def test_the_collection_they_come_from_is_read_whole() -> None:
    path = REPO / ".." / "shared" / "published" / "fullgraph.csv"
    if not path.is_file():
        pytest.skip("no published rows beside this checkout (../shared/published)")
    rows = read_rows(path)
    assert len(rows) == len({row.row_id for row in rows}) > 700


def test_required_and_optional_columns_do_not_overlap() -> None:
    assert not set(REQUIRED) & set(OPTIONAL)
