"""The links of a cluster as published software uses them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from published_cases import mini_batch, on_pubmed

from gnnbench.cluster import load_cluster
from gnnbench.published.software import NATIVE, cluster_used, concurrent, direct


def test_background_transfers_are_faster_together_but_not_than_the_host_link() -> None:
    """Fullgraph 16.2: gloo_async is not gloo_sync."""
    released = on_pubmed(system="PipeGCN").released
    cluster = load_cluster("m40x4-gloo")
    found = concurrent(cluster, released, 4)
    link, host = cluster.links.intra.bytes_per_s.value, cluster.links.host
    assert host is not None
    chain = 1 / (1 / link + 2 / host.bytes_per_s.value)
    assert found.links.intra.bytes_per_s.value == pytest.approx(3 * chain)
    assert found.transport == "gloo"
    crowded = concurrent(cluster, released, 12)
    assert crowded.links.intra.bytes_per_s.value == pytest.approx(chain)


def test_a_fitted_cluster_is_not_made_faster() -> None:
    released = on_pubmed(system="PipeGCN").released
    cluster = load_cluster("m40x4-gloo-logged")
    assert concurrent(cluster, released, 4) is cluster


def test_direct_transfers_take_the_host_links_instead_of_gloo() -> None:
    cluster = load_cluster("m40x4-gloo")
    assert direct(cluster).links.intra == cluster.links.host
    nccl = load_cluster("t4-15gbps")
    assert direct(nccl) is nccl


def test_only_pipelined_and_batched_software_uses_links_in_its_own_way() -> None:
    cluster = load_cluster("m40x4-gloo")
    vanilla, pipe, batch = on_pubmed(), on_pubmed(system="PipeGCN"), mini_batch()
    assert cluster_used(cluster, vanilla.ours, NATIVE, 4) is cluster
    assert cluster_used(cluster, vanilla.released, vanilla.case.software, 4) is cluster
    faster = cluster_used(cluster, pipe.released, pipe.case.software, 4)
    assert faster == concurrent(cluster, pipe.released, 4) != cluster
    assert cluster_used(cluster, batch.released, batch.case.software, 2) == direct(cluster)
