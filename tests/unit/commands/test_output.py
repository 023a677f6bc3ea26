"""What commands print: JSON that any reader takes, tables that align, words that a log can hold."""

from __future__ import annotations

import json
import re
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


def test_where_a_table_is_too_wide_names_give_way_and_headings_do_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    rows: list[dict[str, object]] = [
        {"configuration": "planted-gcn-mixed-accelerators-p1-aca11629", "partition": "+12%"}
    ]
    output.table(rows, ["configuration", "partition", "error"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["configuration", "partition", "error"]
    assert max(map(len, lines)) <= 40
    pieces = [line.split()[0] for line in lines[1:]]
    assert "".join(pieces) == "planted-gcn-mixed-accelerators-p1-aca11629"


def test_a_reason_is_printed_once_with_the_names_that_have_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.print_reasons("skipped", [("too few ranks", f"run{n}") for n in range(5)] + [("x", "y")])
    assert capsys.readouterr().out.splitlines() == [
        "skipped: too few ranks: run0, run1, run2 and 2 more",
        "skipped: x: y",
    ]


def test_progress_names_what_is_under_way_and_foretells_the_time_left() -> None:
    now, drawn = [0.0], []
    bar = output.Progress(5, lambda *state: drawn.append(state), clock=lambda: now[0])
    bar.under_way("a starts its ranks")
    bar("kept", kept=True)  # a kept run takes no time and foretells nothing
    now[0] = 10.0
    bar("a ok")
    now[0] = 14.0
    bar.under_way("b period 2 of 20, forward")
    now[0] = 99.0
    bar.under_way("b period 19 of 20, forward")
    assert drawn == [
        (0, "a starts its ranks", ""),
        (1, "kept", ""),
        (2, "a ok", "30 s left"),
        (2, "b period 2 of 20, forward", "26 s left"),
        (2, "b period 19 of 20, forward", "20 s left"),
    ]


def test_the_bar_fits_the_terminal_and_shows_a_hostile_name_as_text(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    with output.progress("suite", 2) as advance:
        advance.under_way("[bold]x[/bold] " + "long " * 30)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", capsys.readouterr().out)
    assert "[bold]x[/bold]" in plain
    assert all(len(line) <= 60 for line in plain.replace("\r", "\n").splitlines())
