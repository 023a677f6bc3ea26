"""Arguments, folders and streams of users end in a line and an exit code, never in a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gnnbench.cli import main
from gnnbench.cluster import load_cluster, save_cluster
from gnnbench.tomlwriter import format_toml

HUGE = "9" * 30
SUPERSCRIPT = "\u00b2"  # a digit to `isdigit`, no number to `int`


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("predict", "demo", "--ranks", "1000000000"), "at most 1,000,000"),
        (("predict", "demo", "--ranks", SUPERSCRIPT), "is not a list of rank counts"),
        (("predict", "demo", "--ranks-per-host", HUGE), "at most 1,000,000"),
        (("run", "demo", "--results", "r", "--repeats", "100000000"), "1 to 1000"),
        (("dataset", "rmat", "--option", "scale=3", "--seed", "-1"), "is not a whole number"),
        (("dataset", "g.txt", "--memory", f"{HUGE}GB", "--convert", "c"), "below 8 EiB"),
        (("dataset", "rmat", "--option", "scale=99"), "scale: found 99, allowed 0..30"),
        (("dataset", "g.gml"), "read it with networkx"),
        (("dataset", "g.pt"), "save its arrays with numpy.savez"),
        (("crossover", "rmat", "--option", "scale=3", "--seed", "x"), "is not a whole number"),
        (("advise", "reddit", "--hidden", HUGE), "is not a whole number"),
        (("advise", "reddit", "--hidden", "2000000"), "hidden: found 2000000, allowed"),
        (("advise", "reddit", "--fanouts", f"{SUPERSCRIPT},2,3"), "expected numbers such as"),
        (("advise", "reddit", "--fanouts", "--5,2,3"), "expected"),
        (("advise", "reddit", "--deadline", f"{HUGE}h"), "expected a duration"),
        (("advise", "reddit", "--set", "num_features=-4"), "num_features: found -4"),
        (("sweep", "reddit", "--hidden", "0"), "expected numbers of at least 1"),
        (("sweep", "reddit", "--batch", HUGE), "expected numbers"),
        (("sweep", "reddit", "--vary", "links.inter.bytes_per_s="), "--vary"),
        (("sweep", "reddit", "--knob", "partitioner="), "--knob"),
        (("prices", "--out", "."), "is a folder"),
        (
            (
                "profile",
                "fit",
                "--name",
                "x",
                "--nodes",
                "9",
                "--edges",
                "20",
                "--degree-max",
                "40",
            ),
            "--degree-max 40: above the 8 other vertices",
        ),
        (
            ("profile", "fit", "--name", "x", "--nodes", "9", "--edges", "20", "--train", "40"),
            "more than num_nodes",
        ),
        (("calibrate", "--out", "c.toml", "--disk", "nowhere"), "--disk nowhere: not a folder"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)
def test_what_cannot_be_meant_is_refused_before_any_work(
    words: tuple[str, ...],
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("g.txt", "g.gml", "g.pt"):
        (tmp_path / name).write_text("0 1\n")
    try:
        code = main(words)
    except SystemExit as error:
        code = error.code
    said = capsys.readouterr().err
    assert code == 2, said
    assert problem in said and "a bug" not in said, said


@pytest.mark.parametrize(
    "path", ["links.inter.bytes_per_s", "host.memory_bytes_per_s", "device.memory_bytes_per_s"]
)
def test_a_machine_whose_rates_are_zero_is_refused(
    path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = load_cluster("cpu-2core").to_table()
    place = table
    for part in path.split("."):
        place = place[part]
    place["value"] = 0.0
    (tmp_path / "c.toml").write_text(format_toml(table))
    assert main(["predict", "demo", "--cluster", str(tmp_path / "c.toml")]) == 2
    assert f"{path}: found 0.0, a rate is above 0" in capsys.readouterr().err


def test_predictions_for_an_earlier_content_of_a_cluster_file_are_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import dataclasses

    results, file = str(tmp_path / "r"), tmp_path / "mine.toml"
    cluster = dataclasses.replace(load_cluster("cpu-2core"), name="mine")
    for ranks, date in (("1", "2026-01-01"), ("2", "2026-02-02")):
        save_cluster(dataclasses.replace(cluster, date=date), file)
        asked = ["predict", "demo", "--cluster", str(file), "--ranks", ranks]
        assert main([*asked, "--results", results]) == 0
    capsys.readouterr()
    assert main(["compare", results]) == 0
    found = capsys.readouterr()
    assert "of an earlier mine, whose file has changed: predict again" in found.err


def gnnbench(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a line of the shell in which $G is the command."""
    command = f"{sys.executable} -m gnnbench"
    return subprocess.run(
        ["sh", "-c", line],
        cwd=folder,
        env={**os.environ, "G": command},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("line", "code", "problem"),
    [
        ("$G list models >&-", 0, ""),
        ("$G list nonsense 2>&-", 2, ""),
        ("printf '0 1\\n' > \"$(printf 'g\\377.txt')\"; $G dataset g*.txt --save p.toml", 0, ""),
    ],
    ids=["stdout", "stderr", "name"],
)
def test_streams_folders_and_names_may_be_odd(
    line: str, code: int, problem: str, tmp_path: Path
) -> None:
    done = gnnbench(line, tmp_path)
    assert done.returncode == code, done.stderr
    assert problem in done.stderr
    assert "Traceback" not in done.stderr and "a bug" not in done.stderr
