"""Ledgers on disk: what is written comes back, and a crash costs one line at most."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnnbench.errors import DataError
from gnnbench.ledger import (
    COLUMNS,
    ROW_BYTES,
    LedgerWriter,
    Row,
    format_rows,
    read_ledger,
    write_ledger,
)


def row(name: str = "forward/1/gemm", **changes: object) -> Row:
    made = Row(
        0, 2, name, "gemm", "gemm_nn", "compute", "forward", 1, 0, 4096, 65536, 0.25, 1.25e-5
    )
    return made._replace(**changes)  # type: ignore[arg-type]


def test_a_row_in_memory_has_the_bytes_that_plans_count() -> None:
    """A tuple with the collector's header, a name of its own, two integers, two times, a place."""
    made = tuple(row("forward/1/gemm", bytes=2**31, flops=2**31))
    own = [made[2], made[9], made[10], made[11], made[12]]
    assert (
        pytest.approx(sys.getsizeof(made) + 16 + sum(map(sys.getsizeof, own)) + 8, rel=0.05)
        == ROW_BYTES
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger-rank0.csv"


def test_what_is_written_comes_back(path: Path) -> None:
    rows = [row(), row("sync/gradients", layer=-1, group_size=4, bytes=2**40)]
    write_ledger(path, rows)
    assert read_ledger(path) == rows


words = st.text(st.characters(blacklist_categories=("C", "Z")), min_size=1, max_size=20)


@given(name=words, count=st.integers(-1, 2**62), seconds=st.floats(0, 1e6))
def test_any_row_comes_back_to_a_tenth_of_a_microsecond(
    tmp_path_factory: pytest.TempPathFactory, name: str, count: int, seconds: float
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "a.csv"
    write_ledger(path, [row(name, bytes=count, start_s=seconds)])
    (found,) = read_ledger(path)
    assert (found.name, found.bytes) == (name, count)
    assert found.start_s == pytest.approx(seconds, abs=1e-7)


def test_an_empty_ledger_has_its_header_and_no_rows(path: Path) -> None:
    write_ledger(path, [])
    assert path.read_text(encoding="utf-8") == ",".join(COLUMNS) + "\n"
    assert read_ledger(path) == []


def test_appended_periods_are_readable_before_the_run_ends(path: Path) -> None:
    writer = LedgerWriter(path)
    writer.append([row(period=0)])
    assert [r.period for r in read_ledger(path)] == [0]
    writer.append([row(period=1), row(period=1)])
    assert [r.period for r in read_ledger(path)] == [0, 1, 1]
    writer.close()


@pytest.mark.parametrize("keep", range(1, 40, 7))
def test_a_torn_last_line_is_dropped(path: Path, keep: int) -> None:
    write_ledger(path, [row(period=0), row(period=1)])
    whole = path.read_text(encoding="utf-8")
    last = format_rows([row(period=1)])
    path.write_text(whole[: len(whole) - len(last) + keep], encoding="utf-8")
    assert [r.period for r in read_ledger(path)] == [0]


def test_a_last_line_without_its_newline_counts_as_torn(path: Path) -> None:
    write_ledger(path, [row(period=0), row(period=1)])
    path.write_text(path.read_text(encoding="utf-8").rstrip("\n"), encoding="utf-8")
    assert len(read_ledger(path)) == 1


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("1,2,3\n", "line 3 has 3 cells, expected 13"),
        ("\n", "line 3 has 0 cells, expected 13"),
        (format_rows([row()]).replace("4096", "many"), "line 3: invalid literal for int"),
        (format_rows([row()]).replace("0.2500000", "soon"), "line 3: could not convert string"),
    ],
)
def test_a_malformed_line_before_the_last_is_named(path: Path, line: str, problem: str) -> None:
    write_ledger(path, [row()])
    with path.open("a", encoding="utf-8") as file:
        file.write(line + format_rows([row()]))
    with pytest.raises(DataError, match=problem) as caught:
        read_ledger(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", ["", "a,b,c\n1,2,3\n", ",".join(COLUMNS[:-1]) + "\n"])
def test_another_file_is_no_ledger(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match="not a ledger of schema 2"):
        read_ledger(path)


def test_binary_content_is_no_ledger(path: Path) -> None:
    path.write_bytes(b"\x80\x81\xfe\xff")
    with pytest.raises(DataError, match="not a ledger"):
        read_ledger(path)


def test_an_absent_ledger_says_so(path: Path) -> None:
    with pytest.raises(DataError, match="cannot read the ledger: No such file"):
        read_ledger(path)
