"""The README's examples are run, not believed."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from gnnbench import cli
from gnnbench.suites import parse_suite

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_readmes_suite_is_a_suite() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", README, flags=re.DOTALL)
    suite = parse_suite(tomllib.loads(block), "README.md")
    approaches = [run.approach for run in suite.configurations()]
    assert [approaches.count(name) for name in ("single", "partition", "sampled")] == [6, 6, 6]
    assert len(suite.runs) == 3 * 12 + 2 * 3  # three seeds are three configurations


def test_the_readme_names_every_command() -> None:
    for name in cli.discover():
        assert f"`gnnbench {name}" in README
