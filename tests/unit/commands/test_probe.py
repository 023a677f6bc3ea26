"""`gnnbench probe`: a script of one file, which measures and writes a cluster file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gnnbench.cli import main
from gnnbench.cluster import load_cluster
from gnnbench.suites import find_suite
from gnnbench_simulator.probing import Target, chosen, targets

SUITE = """
schema = 2
name = "tiny"
[datasets.g]
generator = "planted_partition"
options = { num_nodes = 600, mean_degree = 8, num_classes = 4, num_features = 16 }
[models.m]
kind = "sage"
hidden = 16
layers = 2
[training]
epochs = 2
[[runs]]
dataset = "g"
model = "m"
approach = ["single", "partition"]
ranks = [1, 2]
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(SUITE, encoding="utf-8")
    return path


def test_a_probe_measures_this_machine_and_its_cluster_file_predicts(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script, out = tmp_path / "probe.py", tmp_path / "probed.toml"
    asked = ["probe", str(suite), "--cluster", "cpu-2core", "--out", str(script), "--json"]
    assert main(asked) == 0
    listed = json.loads(capsys.readouterr().out)["operations"]
    wanted = {entry["operation"] for entry in listed if entry["probed"] == "yes"}
    assert "spmm" in wanted
    done = subprocess.run(
        [sys.executable, str(script), "--seconds", "1", "--out", str(out)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        cwd=tmp_path,
    )
    assert "operations in" in done.stdout
    cluster = load_cluster(out)
    assert cluster.name == "cpu-2core-probed"
    assert cluster.date
    measured = {model.op: model for model in cluster.ops}
    assert wanted - set(measured) <= {"all_to_all", "all_reduce"}  # one rank measures none
    assert all(m.status == "measured" and m.radius >= 0.1 for m in measured.values())
    assert all("probe of" in m.source for m in measured.values())
    assert main(["predict", str(suite), "--cluster", str(out), "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert all(r["period_s"] > 0 for r in records if r["status"] == "ok")


def test_a_script_stands_alone() -> None:
    text = Path("gnnbench/catalogue/probe.py.txt")
    source = (Path(__file__).parents[3] / text).read_text(encoding="utf-8")
    compile(source, "probe.py", "exec")
    lines = [
        line.split()[1] for line in source.splitlines() if line.startswith(("import ", "from "))
    ]
    assert not [name for name in lines if name.startswith("gnnbench")]


def test_a_question_about_a_gpu_is_not_answered_by_a_cpu_unless_told_to(
    suite: Path, tmp_path: Path
) -> None:
    script = tmp_path / "probe.py"
    assert main(["probe", str(suite), "--cluster", "dgx-a100", "--out", str(script)]) == 0
    done = subprocess.run(
        [sys.executable, str(script), "--out", str(tmp_path / "x.toml")],
        capture_output=True,
        text=True,
        check=False,
        env={"CUDA_VISIBLE_DEVICES": "", "PATH": ""},
        timeout=120,
    )
    assert done.returncode == 1
    assert "torch sees none" in done.stderr
    assert not (tmp_path / "x.toml").exists()


def test_operations_are_taken_by_how_far_their_range_moves_a_period(suite: Path) -> None:
    found = targets(find_suite(suite).runs, load_cluster("cpu-2core"), ())
    swings = [target.swing_s for target in found]
    assert swings == sorted(swings, reverse=True)
    picked = chosen(found)
    able = [target for target in found if target.can_be_probed]
    assert picked == able[: len(picked)]
    assert sum(t.swing_s for t in picked) >= 0.8 * sum(t.swing_s for t in able)


def test_what_needs_the_trainers_is_listed_and_left_out() -> None:
    drawn = Target(op="sample", kind="sample", grade="datasheet", radius=0.8, swing_s=9.0)
    dense = Target(op="gemm_nn", kind="gemm", grade="datasheet", radius=0.3, swing_s=1.0)
    assert not drawn.can_be_probed
    assert chosen([drawn, dense]) == [dense]
