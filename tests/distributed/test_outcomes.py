"""What a run ends as where nothing crashes: diverged, owned by another, unfinished."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gnnbench import owner
from gnnbench.cli import main
from gnnbench.results import Results

pytestmark = pytest.mark.distributed

# A step of lr * weight_decay = 100 multiplies every parameter by -99.
SUITE = """
name = "outcomes"
[datasets.p]
generator = "planted_partition"
options = { num_nodes = 60, mean_degree = 4, num_classes = 3, num_features = 8 }
[models.gcn]
hidden = 4
[training]
epochs = EPOCHS
lr = 100
weight_decay = 1
optimizer = "sgd"
[[runs]]
dataset = "p"
model = "gcn"
approach = "single"
[[runs]]
dataset = "p"
model = "gcn"
approach = "single"
training = { lr = 0.01, epochs = 1 }
"""


@pytest.fixture
def run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, list[dict[str, object]], str]]:
    """Return what runs the suite: exit code, rows, and what went to stderr."""

    def call(*more: str, epochs: int = 60) -> tuple[int, list[dict[str, object]], str]:
        suite = tmp_path / "s.toml"
        suite.write_text(SUITE.replace("EPOCHS", str(epochs)))
        words = [str(suite), "--results", str(tmp_path / "r"), "--device", "cpu", "--json", *more]
        code = main(["run", *words])
        said = capsys.readouterr()
        return code, json.loads(said.out)["runs"] if said.out else [], said.err

    return call


def test_a_run_that_diverges_has_no_accuracy_and_the_suite_goes_on(run, tmp_path, capsys) -> None:
    code, rows, _ = run()
    assert (code, [row["status"] for row in rows]) == (1, ["diverged", "ok"])
    assert rows[0]["metrics"] == {}
    assert str(rows[0]["reason"]).startswith("the loss is not finite from epoch ")
    (lost,) = [r for r in Results(tmp_path / "r").runs() if r.status == "diverged"]
    first = next(n for n, period in enumerate(lost.periods) if period["loss"] is None)
    assert not any(period["metrics"] for period in lost.periods[first:])
    assert [row["kept"] for row in run()[1]] == [True, True]
    main(["compare", str(tmp_path / "r")])
    shown = capsys.readouterr().out
    assert "1 configuration diverged; the reasons are listed." in shown


def test_a_second_command_is_refused_in_a_line_and_disturbs_nothing(run, tmp_path) -> None:
    with owner.owned(tmp_path / "r" / "runs" / f".training-{os.uname().nodename}", "trains into r"):
        code, rows, said = run()
    assert (code, rows) == (1, [])
    assert said.count("\n") == 1
    assert f"process {os.getpid()} on " in said
    assert run("--only=*-r0")[1]


def test_a_run_of_another_machine_is_left_to_it(run, tmp_path) -> None:
    run_id = str(run()[1][1]["run_id"])
    folder = Results(tmp_path / "r").run_folder(run_id)
    (folder / "run.json").unlink()
    with owner.owned(folder / ".owner", f"trains {run_id}"):
        rows = run()[1]
    assert rows[1]["status"] == "running"
    assert "trains" in str(rows[1]["reason"])
    assert not (folder / "run.json").exists()


def test_one_broken_record_is_named_and_trained_anew(run, tmp_path, capsys) -> None:
    run_id = str(run()[1][1]["run_id"])
    path = Results(tmp_path / "r").run_folder(run_id) / "run.json"
    path.write_text(path.read_text()[:80])
    for command in ("compare", "report"):
        assert main([command, str(tmp_path / "r")]) == 0
        assert f"passed over: {path}" in capsys.readouterr().err
    _, rows, said = run()
    assert [row["kept"] for row in rows] == [True, False]
    assert str(path) in said


@pytest.mark.skipif(not Path("/usr/bin/unshare").exists(), reason="unshare is not there")
def test_a_full_disk_ends_the_suite_and_nothing_is_recorded_as_failed(tmp_path) -> None:
    (tmp_path / "s.toml").write_text(SUITE.replace("EPOCHS", "2"))
    (tmp_path / "small").mkdir()
    script = (
        "mount --make-rprivate / && mount -t tmpfs -o size=12k tmpfs small || exit 77\n"
        f"{sys.executable} -m gnnbench run s.toml --results small/r --device cpu\n"
        "code=$?; grep -l failed small/r/runs/*/run.json; exit $code"
    )
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no mounts in a namespace of one's own here")
    assert done.returncode == 1
    assert "the disk is full" in done.stderr
    assert "failed" not in done.stdout
    assert "run.json" not in done.stdout
