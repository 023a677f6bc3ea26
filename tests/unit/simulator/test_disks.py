"""Disks of the catalogue: constants with sources, links to volumes, requests in flight."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gnnbench.cluster import load_cluster
from gnnbench.costs.storage import disk_seconds
from gnnbench.disks import list_disks, load_disk, with_disk
from gnnbench.errors import UnknownName
from gnnbench.ladder import STATUSES


@pytest.mark.parametrize("name", list_disks())
def test_every_constant_has_a_status_and_a_source(name: str) -> None:
    disk = load_disk(name)
    assert disk.name == name
    assert disk.description
    for constant in disk.storage.constants(write=False) + disk.storage.constants(write=True):
        assert constant.value > 0
        assert constant.status in STATUSES
        assert constant.source


def test_a_misspelt_disk_is_an_error_that_names_the_near_one() -> None:
    with pytest.raises(UnknownName, match="ebs-gp3"):
        load_disk("ebs-gp4")


def test_a_volume_is_no_faster_than_the_host_s_link_to_it() -> None:
    small, large = (load_cluster(name) for name in ("p3.2xlarge", "p3.16xlarge"))
    assert small.storage is not None
    slow, fast = (with_disk(cluster, "ebs-gp3-max").storage for cluster in (small, large))
    assert slow is not None and fast is not None
    assert slow.read_bytes_per_s.value == small.storage.read_bytes_per_s.value
    assert fast.read_bytes_per_s.value == load_disk("ebs-gp3-max").storage.read_bytes_per_s.value
    # A drive in the host is none of its link's business.
    local = with_disk(small, "nvme-pcie3").storage
    assert local is not None
    assert local.read_bytes_per_s.value == load_disk("nvme-pcie3").storage.read_bytes_per_s.value


def test_requests_in_flight_overlap_their_latencies() -> None:
    cluster = load_cluster("g5.48xlarge")
    assert cluster.storage is not None
    deep = with_disk(cluster, "", depth=9).storage
    assert deep is not None
    assert deep.latency_s.value == pytest.approx(cluster.storage.latency_s.value / 9)
    assert with_disk(cluster, "") == cluster


def test_a_volume_meters_requests_and_bytes_apart() -> None:
    """1,000 requests of 64 KiB: 1 / 3 s of requests, 0.5 s of bytes, 0.7 s of latency alone."""
    storage = load_disk("ebs-gp3").storage
    busy, alone = disk_seconds(storage, 1000 * 65_536.0, 1000.0, write=False)
    assert busy == pytest.approx(0.5)
    assert alone == pytest.approx(0.7)
    together, _ = disk_seconds(replace(storage, volume=False), 65_536_000.0, 1000.0, write=False)
    assert together == pytest.approx(0.5 + 1 / 3)
