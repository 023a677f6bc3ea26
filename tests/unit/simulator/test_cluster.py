"""Cluster files: strict, complete, and the same after a round trip."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import pytest

import gnnbench
from gnnbench.cluster import (
    CollectiveModel,
    Constant,
    DiskPoint,
    OpModel,
    Storage,
    list_clusters,
    load_cluster,
    parse_cluster,
    save_cluster,
    save_storage,
)
from gnnbench.errors import SpecError, UnknownName
from gnnbench.ladder import grade, weakest
from gnnbench.tomlwriter import format_toml, replace_section


@pytest.mark.parametrize("name", list_clusters())
def test_every_built_in_cluster_loads_and_names_its_sources(name: str) -> None:
    def constants(value: Any) -> list[Constant]:
        if isinstance(value, Constant):
            return [value]
        if dataclasses.is_dataclass(value):
            return [c for f in dataclasses.fields(value) for c in constants(getattr(value, f.name))]
        return []

    cluster = load_cluster(name)
    assert cluster.name == name
    found = constants(cluster)
    assert len(found) > 10
    assert all(c.source for c in found)


def test_a_calibrated_cluster_reads_back_equal(tmp_path: Path) -> None:
    op = OpModel(
        op="gemm_tn", kind="gemm", form="gemm", params={"t0_s": 1e-6}, residuals=((1.0, -0.1),)
    )
    sweep = CollectiveModel(
        op="all_reduce",
        ranks=2,
        layout="intra",
        latency_s=1e-5,
        bytes_per_s=1e9,
        residuals=((3.0, 0.1), (9.0, -0.1)),
    )
    cluster = dataclasses.replace(
        load_cluster("cpu-2core"), ops=(op,), collectives=(sweep,), software={"torch": '2 "x"\n'}
    )
    save_cluster(cluster, tmp_path / "c.toml")
    assert load_cluster(tmp_path / "c.toml") == cluster


def test_the_code_of_approaches_is_part_of_a_file(tmp_path: Path) -> None:
    cluster = load_cluster("dgx-a100")
    more = {"temporal": Constant(value=4e7, status="measured", source="calibrate")}
    device = dataclasses.replace(cluster.device, code_bytes=more)
    save_cluster(dataclasses.replace(cluster, device=device), tmp_path / "c.toml")
    found = load_cluster(tmp_path / "c.toml").device
    context = found.context_bytes.value
    assert found.code_bytes == more
    assert found.baseline_bytes("tgl", "temporal") == context + 4e7
    assert found.baseline_bytes("partition", "whole_graph") == context


def test_a_wrong_constant_of_an_approachs_code_is_named() -> None:
    table = load_cluster("cpu-2core").to_table()
    table["device"]["code_bytes"] = {"temporal": {"value": -1, "status": "measured"}}
    with pytest.raises(SpecError) as caught:
        parse_cluster(table, "c.toml")
    text = str(caught.value)
    assert "c.toml.device.code_bytes.temporal.value: found -1" in text
    assert "c.toml.device.code_bytes.temporal.source: missing" in text


def test_an_unknown_name_is_met_with_a_suggestion() -> None:
    with pytest.raises(UnknownName, match="did you mean 'dgx-a100'"):
        load_cluster("dgx-a10")


def test_all_problems_of_a_file_are_told_at_once() -> None:
    table = load_cluster("cpu-2core").to_table()
    table["device"]["kind"] = "cpuu"
    table["device"]["lunch_s"] = 1
    table["host"]["cores"] = 0
    table["links"]["intra"]["latency_s"]["status"] = "guessed"
    table["storage"]["method"] = "mmap"
    del table["host"]["memory_bytes"]
    with pytest.raises(SpecError) as error:
        parse_cluster(tomllib.loads(format_toml(table)), "my.toml")
    text = str(error.value)
    for part in (
        "'cpuu'",
        "lunch_s",
        "launch_s",
        "host.cores",
        "'guessed'",
        "host.memory_bytes",
        "'mmap'",
    ):
        assert part in text
    assert len(error.value.problems) == 6


def test_nccl_needs_a_gpu_and_its_table_or_a_calibration() -> None:
    with pytest.raises(SpecError, match="nccl"):
        dataclasses.replace(load_cluster("cpu-2core"), transport="nccl")
    gpus = load_cluster("v100x8")
    with pytest.raises(SpecError, match="nccl"):
        dataclasses.replace(gpus, nccl=None)
    calibrated = CollectiveModel(
        op="all_reduce", ranks=8, layout="intra", latency_s=1e-5, bytes_per_s=1e9
    )
    assert dataclasses.replace(gpus, nccl=None, collectives=(calibrated,)).transport == "nccl"


def test_a_grade_is_that_of_the_weakest() -> None:
    assert weakest(["measured", "datasheet", "transferred"]) == "datasheet"
    assert weakest(["measured", "measured elsewhere"]) == "measured elsewhere"
    assert [grade(s) for s in ("probed", "fitted")] == ["transferred", "datasheet"]
    assert weakest([]) == "measured"


def _disk(rate: float) -> Storage:
    known = Constant(value=rate, status="measured", source="test")
    point = DiskPoint(direction="mixed", block_bytes=4096, depth=2, bytes_per_s=9.0)
    return Storage(
        read_bytes_per_s=known,
        write_bytes_per_s=known,
        iops=known,
        latency_s=known,
        method="fadvise",
        sweep=(point,),
    )


def test_a_new_disk_leaves_the_rest_of_a_file_and_its_comments_alone(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    before = load_cluster("m40x4-gloo-logged")
    builtin = Path(gnnbench.__file__).parent / "catalogue/clusters/m40x4-gloo-logged.toml"
    text = builtin.read_text()
    path.write_text(text)
    for rate in (3.0, 5.0):  # where there is no section, and in place of one
        save_storage(_disk(rate), path)
        assert load_cluster(path) == dataclasses.replace(before, storage=_disk(rate))
    assert "# Declared split" in text and path.read_text().startswith(text)


def test_a_section_is_replaced_where_it_is() -> None:
    text = "a = 1 # one\n\n[b]\nc = 2\n\n[d]\n# why\ne = 3\n"
    assert replace_section(text, "b", {"f": {"value": 4}}) == (
        "a = 1 # one\n\n[b]\nf = {value = 4}\n\n[d]\n# why\ne = 3\n"
    )


def test_toml_is_written_as_tomllib_reads_it() -> None:
    table = {"a": 1, "b c": 'x\ty"\\', "d": {"e": {"f": [1.5, 1e-30]}}, "g": [{"h": True}], "i": []}
    assert tomllib.loads(format_toml(table)) == table
    assert "d = {e = 1}" in format_toml({"d": {"e": 1}})  # a constant stays on one line
    for wrong, message in (
        (float("nan"), "finite"),
        ([1.0, float("inf")], "finite"),
        (object(), "type"),
    ):
        with pytest.raises(ValueError, match=message):
            format_toml({"a": wrong})
