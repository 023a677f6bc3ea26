"""What commands print: JSON that any reader takes, tables that align, words that a log can hold."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from gnnbench.commands import output


@dataclass(frozen=True, slots=True)
class Point:
    name: str
    at: Path


def test_json_holds_dataclasses_paths_and_numpy_values(capsys: pytest.CaptureFixture[str]) -> None:
    output.emit_json(
        {"p": Point("a", Path("x/y")), "n": np.int64(3), "v": np.array([1.5, 2.0]), 7: (True, None)}
    )
    assert json.loads(capsys.readouterr().out) == {
        "p": {"name": "a", "at": "x/y"},
        "n": 3,
        "v": [1.5, 2.0],
        "7": [True, None],
    }


def test_a_number_that_json_cannot_say_becomes_null(capsys: pytest.CaptureFixture[str]) -> None:
    output.emit_json([float("nan"), np.float32("inf"), 1.0])
    assert json.loads(capsys.readouterr().out) == [None, None, 1.0]


def test_a_value_without_a_json_form_is_our_error() -> None:
    with pytest.raises(TypeError, match="object has no JSON form"):
        output.plain(object())


def test_a_table_aligns_words_left_and_numbers_right(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"run": "single", "s": "1.25"}, {"run": "x", "s": "10.5"}, {"run": "y", "s": None}]
    output.table(rows, ["run", "s"])
    assert capsys.readouterr().out.splitlines() == [
        "run        s",
        "single  1.25",
        "x       10.5",
        "y          -",
    ]


def test_a_table_wider_than_the_terminal_wraps_between_words_and_keeps_numbers_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "26")
    output.table([{"run": "a row of some words", "time": "400 … 900 ms"}], ["run", "time"])
    assert capsys.readouterr().out.splitlines() == [
        "run           time",
        "a row of      400 … 900 ms",
        "some words",
    ]


def test_a_paragraph_is_wrapped_on_a_terminal_and_one_line_in_a_pipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = " ".join(["word"] * 20)
    output.text(words)
    monkeypatch.setenv("COLUMNS", "60")
    output.text(words, hanging="  ")
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == words
    assert max(map(len, lines)) <= 60 and lines[1].startswith("  word")


def test_a_table_without_rows_still_names_its_columns(capsys: pytest.CaptureFixture[str]) -> None:
    output.table([], ["run", "s"])
    assert capsys.readouterr().out == "run  s\n"


def test_a_status_line_begins_with_its_word(capsys: pytest.CaptureFixture[str]) -> None:
    output.status_line("failed", "single-r1", "rank 0 died")
    assert capsys.readouterr().out == "failed   single-r1  rank 0 died\n"


def test_progress_draws_nothing_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with output.progress("runs", 2) as advance:
        advance("first")
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_a_table_shows_the_same_cells(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    output.table([{"run": "[bold]", "s": 3}], ["run", "s"])
    shown = capsys.readouterr().out
    assert "[bold]" in shown
    assert "3" in shown


def test_on_a_terminal_a_status_line_does_not_land_on_the_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    with output.progress("runs", 2) as advance:
        output.status_line("ok", "single-r1")
        advance("single-r1")
    erase_line = "\x1b[2K"
    drawn = capsys.readouterr().out
    before = drawn[: drawn.index("single-r1")]
    assert "runs" in before
    assert before.rindex(erase_line) > before.rindex("runs")
