"""Every command that writes, under every fault of a write: a line, an exit code, nothing left.

`docs/faults.md` has the whole table, with the tests of faults that need ranks.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gnnbench import atomic
from gnnbench.cli import Terminated, main
from gnnbench.cluster import load_cluster
from gnnbench.commands import calibrate

ROOT = Path(__file__).parents[3]
SUITE = """
name = "small"
[datasets.p]
generator = "planted_partition"
options = { num_nodes = 60, mean_degree = 4, num_classes = 3, num_features = 8 }
[models.gcn]
hidden = 4
[training]
epochs = 2
[[runs]]
dataset = "p"
model = "gcn"
approach = "single"
"""
PAGE = """
schema = 1
title = "A page"
text = ["One sentence."]
remarks = []
[[workloads]]
title = "arxiv"
profile = "ogbn-arxiv"
model = { name = "gcn", kind = "gcn", hidden = 16, layers = 2 }
batch = { size = 20000, fanouts_from_seeds = [5, 5] }
[[workloads.settings]]
label = "memory"
machine = "p3.2xlarge"
approach = "single"
"""
FIT = ("profile", "fit")
COMMANDS = {
    "predict": ("predict", "s.toml", "--cluster", "cpu-2core", "--results", "out"),
    "report": ("report", "results", "--out", "out"),
    "dataset --save": ("dataset", "g.txt", "--parts", "none", "--save", "out/p.toml"),
    "dataset --convert": ("dataset", "g.txt", "--parts", "none", "--convert", "out/native"),
    "claims": ("claims", "gist", "--no-run", "--results", "out"),
    "calibrate": ("calibrate", "--out", "out/c.toml"),
    "export": ("export", "results", "--out", "out", "--format", "csv"),
    "prices": ("prices", "page.toml", "--out", "out/prices.md"),
    "probe": ("probe", "s.toml", "--cluster", "dgx-a100", "--out", "out/probe.py"),
    "profile fit": (*FIT, "--name", "x", "--nodes", "100", "--edges", "400", "--out", "out/x.toml"),
    "sweep": ("sweep", "ogbn-arxiv", "--approaches", "single", "--csv", "out/all.csv"),
    "validate": ("validate", "--only", "pipegcn*", "--out", "out"),
    "accelerate": ("accelerate", "ogbn-arxiv", "--trace", "out/trace.json"),
    "run --emit": ("run", "s.toml", "--results", "jobs", "--emit", "torchrun", "--out", "out"),
}
FAULTS: dict[str, tuple[BaseException, int, str]] = {
    "disk full": (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out/x"), 1, "disk is full"),
    "quota": (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "out/x"), 1, "disk is full"),
    "read-only": (OSError(errno.EROFS, os.strerror(errno.EROFS), "out/x"), 1, "Read-only"),
    "out of memory": (MemoryError(), 1, "too little memory"),
    "Ctrl-C": (KeyboardInterrupt(), 130, "interrupted"),
    "cancelled job": (Terminated(), 143, "ended by SIGTERM"),
}


@pytest.fixture
def place(fabricator: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "s.toml").write_text(SUITE)
    (tmp_path / "page.toml").write_text(PAGE)
    (tmp_path / "g.txt").write_text("0 1\n1 2\n2 3\n3 0\n")
    # Measuring takes minutes; what is written is a cluster of the catalogue.
    found = load_cluster("cpu-2core")
    monkeypatch.setattr(calibrate, "calibration", lambda: lambda **_: found)
    fabricator.run(fabricator.spec(ranks=1))
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_write_that_fails_is_one_line_and_leaves_no_half_file(
    command: str,
    fault: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    error, code, words = FAULTS[fault]

    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(atomic.os, "replace", fails)
    assert main(COMMANDS[command]) == code
    said = capsys.readouterr().err
    assert words in said, said
    assert "Traceback" not in said and "a bug" not in said
    assert not [path for path in place.rglob("*") if path.name.endswith("~")]


@pytest.fixture
def table() -> list[list[str]]:
    """The cells of the fault matrix, without its head."""
    text = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in rows[1:]]


def test_every_test_that_the_matrix_names_exists(table: list[list[str]]) -> None:
    source = "\n".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")
    )
    names = {name for line in table for cell in line for name in re.findall(r"`(test_\w+)`", cell)}
    assert len(names) > 10
    assert not [name for name in names if f"def {name}(" not in source]


def test_the_matrix_has_every_command_and_fault_of_this_module(table: list[list[str]]) -> None:
    text = " ".join(cell for line in table for cell in line)
    page = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    [commands] = re.findall(r"^Every command that writes: .*$", page, re.M)
    text += commands
    wanted: list[Callable[[], str] | str] = [*COMMANDS, *FAULTS]
    assert not [word for word in wanted if str(word) not in text]
