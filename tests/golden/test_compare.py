"""A kept results folder of schema 2 compares as it did when it was committed.

After a wanted change: python tests/golden/test_compare.py writes the expectation again; look at the
difference before committing it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gnnbench.cli import main

HERE = Path(__file__).parent
EXPECTED = HERE / "compare.json"


def near(value: Any) -> Any:
    """Compare numbers to nine digits, whatever they are nested in."""
    if isinstance(value, float):
        return pytest.approx(value, rel=1e-9)
    if isinstance(value, dict):
        return {key: near(item) for key, item in value.items()}
    return [near(item) for item in value] if isinstance(value, list) else value


def test_compare_of_a_kept_folder_is_unchanged(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["compare", str(HERE / "results"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == near(json.loads(EXPECTED.read_text()))


if __name__ == "__main__":
    import contextlib

    with EXPECTED.open("w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        main(["compare", str(HERE / "results"), "--json"])
