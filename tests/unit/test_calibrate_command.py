"""`gnnbench calibrate`, without the measuring: what it asks for, writes and says."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gnnbench.cli import main
from gnnbench.cluster import Cluster, IterationModel, OpModel, load_cluster
from gnnbench.commands import calibrate as command

Asked = dict[str, object]


@pytest.fixture
def calibrate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[Asked, str]]:
    """Return what the measuring was asked and what was printed, of a cluster that knows `spmm`."""
    model = OpModel(op="spmm", kind="spmm", form="spmm", params={"t0_s": 1e-6}, points=9)
    sums = IterationModel(median=0.06, radius=0.14, inside=0.9, iterations=40)
    cluster = dataclasses.replace(
        load_cluster("cpu-2core"), ops=(model,), iterations=(sums,), storage=None
    )

    def call(*words: str) -> tuple[Asked, str]:
        asked: Asked = {}

        def measure(**settings: object) -> Cluster:
            asked.update(settings)
            return cluster

        monkeypatch.setattr(command, "calibration", lambda: measure)
        assert main(["calibrate", *words]) == 0
        return asked, capsys.readouterr().out

    return call


def test_operations_that_were_not_measured_are_named_with_who_needs_them(
    calibrate: Callable[..., tuple[Asked, str]], tmp_path: Path
) -> None:
    out = tmp_path / "new" / "c.toml"
    asked, said = calibrate("--out", str(out), "--approach", "single", "--approach", "partition")
    assert asked["approaches"] == ["single", "partition"]
    assert asked["disk"] == out.parent.resolve()
    assert "not calibrated: scatter_add (needed by partition)" in said
    assert "not calibrated: adam (needed by single, partition)" in said
    assert "not calibrated: spmm (" not in said and "no disk measured" in said
    line = "1 rank, 40 held-out iterations of probes: median error 6 %, nine of ten within ×1.15"
    assert line in " ".join(said.split())
    assert load_cluster(out).ops[0].op == "spmm"


def test_json_lists_them_too_and_the_disk_can_be_left_out(
    calibrate: Callable[..., tuple[Asked, str]], tmp_path: Path
) -> None:
    out = str(tmp_path / "c.toml")
    asked, said = calibrate("--out", out, "--approach", "single", "--disk", "none", "--json")
    found = json.loads(said)
    assert asked["disk"] is None
    assert found["uncalibrated"]["gemm_nn"] == ["single"] and "spmm" not in found["uncalibrated"]
    assert [row["operation"] for row in found["operations"]] == ["spmm"]
    assert found["iterations"][0]["iterations"] == 40


def test_the_disk_alone_needs_a_file_and_a_disk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", "--only", "disk", "--out", str(tmp_path / "none.toml")]) == 2
    assert "cannot read" in capsys.readouterr().err
    words = ["--only", "disk", "--disk", "none", "--out", "x.toml"]
    assert main(["calibrate", *words]) == 2
    assert "nothing to measure; give --disk a folder" in capsys.readouterr().err


@pytest.mark.parametrize(("busy", "warned"), [(0.02, False), (1.3, True), (None, False)])
def test_a_machine_that_did_something_else_is_named(
    busy: float | None,
    warned: bool,
    calibrate: Callable[..., tuple[Asked, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command.OtherWork, "processors", busy)
    _, said = calibrate("--out", str(tmp_path / "c.toml"), "--approach", "single")
    assert ("other programs kept 1.3 processors busy" in said) == warned
