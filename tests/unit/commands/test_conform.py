"""`gnnbench conform`: broken statements are named and fail the command; kept ones are counted."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from gnnbench.commands import conform

Say = Callable[..., tuple[int, str, str]]


def holds() -> None:
    """Hold."""


def breaks() -> None:
    raise AssertionError("bytes differ: 8 performed, 4 planned")


def trial(approach: str, number: int, check: Callable[[], None]) -> Any:
    return SimpleNamespace(
        approach=SimpleNamespace(name=approach), number=number, statement=check, check=check
    )


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    trials = [trial("single", 0, holds), trial("single", 1, holds), trial("bns", 0, holds)]
    monkeypatch.setattr(conform, "_trials", lambda names: trials)
    return trials


def test_kept_statements_are_counted_by_approach(say: Say, tried: list[Any]) -> None:
    code, out, _ = say("conform")
    assert code == 0
    assert [line.split() for line in out.splitlines()] == [
        ["3", "statements,", "0", "broken"],
        ["approach", "examples", "statements", "status"],
        ["single", "2", "2", "ok"],
        ["bns", "1", "1", "ok"],
    ]


def test_a_broken_statement_is_named_with_its_reason_and_fails(say: Say, tried: list[Any]) -> None:
    tried.append(trial("bns", 1, breaks))
    code, out, _ = say("conform")
    assert code == 1
    assert out.splitlines()[0] == "4 statements, 1 broken"
    assert "bytes differ: 8 performed, 4 planned" in out
    code, out, _ = say("conform", "--json")
    assert code == 1
    rows = json.loads(out)
    assert [(row["approach"], row["statement"]) for row in rows if row["status"] != "ok"] == [
        ("bns", "breaks")
    ]


def test_without_torch_the_install_line_is_said(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    code, out, err = say("conform", "single")
    assert (code, out) == (2, "")
    assert "conformance needs torch" in err
    assert "pip install 'gnnbench[runtime]'" in err
