"""`gnnbench validate` on tables of operations, and `gnnbench support`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gnnbench.cli import main

UNSEEN = """device,op_name,num_gpus,bytes,seconds
NVIDIA H200,all_reduce,8,512,1.6e-05
NVIDIA H200,all_reduce,8,1048576,2.6e-05
NVIDIA A100-SXM4-80GB,all_reduce,8,3000000,6.5e-05
TPU v9,all_reduce,8,1024,1e-05
"""


@pytest.fixture
def table(tmp_path: Path) -> str:
    path = tmp_path / "nccl.csv"
    path.write_text(UNSEEN)
    return str(path)


def test_unseen_timings_are_predicted_by_the_catalogue_as_it_is(
    table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", table, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["operations"]
    assert (found["rows"], found["scored"]) == (4, 3)
    assert found["median_error"] < 0.2
    assert {g["device"]: g["timings"] for g in found["groups"]} == {"H200": 2, "A100-80GB": 1}
    assert found["reasons"] == {"device TPU v9: no facts": 1}


def test_the_summary_is_that_of_tables_of_systems(
    table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", table]) == 0
    out = capsys.readouterr().out
    assert "median |error|" in out.splitlines()[0]
    assert "inside the 90 % interval" in out.splitlines()[0]
    assert "Rows without a prediction, by reason" in out


def test_tables_of_two_kinds_are_refused_together(
    table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "systems.csv"
    other.write_text("source,location\n")
    assert main(["validate", table, str(other)]) == 2
    assert "apart" in capsys.readouterr().err


def test_a_table_of_which_nothing_can_be_predicted_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "gemm.csv"
    path.write_text("system,dtype,m,n,k,seconds\nTPU v9,bfloat16,8,8,8,1e-6\n")
    assert main(["validate", str(path)]) == 2
    assert "TPU v9" in capsys.readouterr().err


def test_support_names_the_rung_and_the_missing_measurement(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["support", "dgx-a100", "--json"]) == 0
    found = {entry["operation"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert found["all_to_all in a host"]["rung"] == "measured elsewhere"
    assert found["spmm (cuSPARSE, fp32)"]["rung"] == "transferred"
    assert "cusparse" in found["spmm (cuSPARSE, fp32)"]["missing"]
    assert found["gemm (fp32)"]["rung"] == "transferred"  # from the A100 of another memory
    assert found["gemm (tf32)"]["rung"] == "datasheet"
    assert found["all_to_all between hosts"]["rung"] == "transferred"
    assert found["copy to the device"]["missing"]
    assert main(["support"]) == 0
    assert "A100-80GB" in capsys.readouterr().out


def test_support_of_a_calibrated_cluster_says_measured(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from gnnbench.cluster import OpModel, load_cluster, save_cluster

    op = OpModel(op="spmm", kind="spmm", form="linear", params={"t0_s": 1e-5}, radius=0.1)
    import dataclasses

    path = tmp_path / "mine.toml"
    save_cluster(dataclasses.replace(load_cluster("h200"), ops=(op,)), path)
    assert main(["support", str(path), "--json"]) == 0
    entry = json.loads(capsys.readouterr().out)[0]
    assert (entry["rung"], entry["radius"], entry["missing"]) == ("measured", 0.1, None)
