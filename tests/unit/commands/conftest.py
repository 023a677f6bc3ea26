"""`gnnbench` with some words, as a test reads what it says."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gnnbench.cli import main


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Return (exit code, stdout, stderr) of `gnnbench` with these words."""

    def run(*words: str) -> tuple[int, str, str]:
        try:
            code = main(words)
        except SystemExit as end:  # argparse
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
