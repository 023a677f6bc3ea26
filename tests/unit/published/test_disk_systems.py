"""Recipes of systems that train from disk: what a row says of buffers, caches and fan-outs."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from published_cases import row

from gnnbench.data.profile import load_profile
from gnnbench.published.metrics import without_load
from gnnbench.published.reason import Reason
from gnnbench.published.rows import PublishedRow
from gnnbench.published.systems import Case, case_of

A10G = "1x A10G 24GB on AWS g5-class EC2"


def stated(**given: Any) -> PublishedRow:
    """MariusGNN on papers100M, a tenth of its features in memory."""
    cells = {
        "source": "a study of disks",
        "system": "MariusGNN",
        "dataset": "ogbn-papers100M",
        "layers": "3.0",
        "fanout": "10;15;20",
        "batch": "1024.0",
        "hardware": A10G,
        "storage": "local NVMe",
        "gpus": "1.0",
        "value": 205.0,
        "notes": "cache ratio 10%, cache size 5 GB",
    }
    return row(**(cells | given))


def case(**given: Any) -> Case:
    found = case_of(stated(**given))
    assert isinstance(found, Case), found
    return found


def reason(**given: Any) -> str:
    found = case_of(stated(**given))
    assert isinstance(found, Reason), found
    return str(found)


@pytest.mark.parametrize(
    ("notes", "storage", "partitions", "buffer"),
    [
        ("cache ratio 30%", "local NVMe", 8192, 2458),
        ("3GB CPU+2GB GPU cache (10 percent); Ginex 5GB", "local NVMe", 8192, 819),
        ("p=8192, buffer about 1000 partitions", "local NVMe", 8192, 1000),
        ("", "EBS, p=8192 c=3584 SEQUENTIAL", 8192, 3584),
        ("p=16, c=4", "local NVMe", 16, 4),
        ("p=32, buffer c=p/4", "local NVMe", 32, 8),
    ],
)
def test_a_buffer_is_read_from_partitions_or_a_share(
    notes: str, storage: str, partitions: int, buffer: int
) -> None:
    knobs = case(notes=notes, storage=storage).run.knobs
    assert (knobs.get("partitions", 8), knobs.get("buffer", 0)) == (partitions, buffer)


def test_batches_are_in_flight_unless_a_row_is_synchronous() -> None:
    assert case().run.knobs["staleness"] == 7
    assert "staleness" not in case(notes="cache ratio 10%; synchronous mode").run.knobs


def test_a_table_of_systems_lists_the_input_layer_first_and_marius_both_directions() -> None:
    assert case(system="PyG+ (mmap)").run.batch.fanouts_from_seeds == (20, 15, 10)
    # MariusGNN draws so many along and so many against edges.
    assert case().run.batch.fanouts_from_seeds == (40, 30, 20)
    both = case(fanout="15;10;5 in + 15;10;5 out")
    assert both.run.batch.fanouts_from_seeds == (30, 20, 10)
    assert both.profile.name == "papers100m-both-ways"


def test_what_is_not_stated_is_not_guessed() -> None:
    assert "partitions in MariusGNN's buffer" in reason(notes="")
    assert "feature cache of Ginex" in reason(system="Ginex", notes="")
    assert "memory for mapped pages" in reason(system="PyG+ (mmap)", notes="")
    assert "disk not stated" in reason(storage="disk not stated for this server")
    assert "fan-outs" in reason(fanout="10;15")


def test_a_budget_of_ginex_holds_rows_and_four_bytes_per_vertex() -> None:
    found = case(system="Ginex", notes="cache size 5 GB; superbatch 1500")
    nodes, row_bytes = 111_059_956, 512
    assert found.run.knobs["cache"] == pytest.approx((5e9 - 4 * nodes) / row_bytes / nodes)
    assert found.run.knobs["superbatch"] == 1500
    assert (found.run.approach, found.software.depth) == ("belady", 128)
    assert found.software.batches == "traces"


def test_mapped_features_have_the_memory_of_their_control_group() -> None:
    found = case(
        system="PyG+ (mmap)",
        fanout="10;10;10",
        hardware="Xeon Gold 6244 8c/16t, 1x V100 16GB PCIe, cgroup 8GB",
        storage="Samsung PM1725b NVMe PCIe3 x8",
        notes="page cache of cgroup 8GB",
    )
    assert found.run.approach == "mmap"
    assert found.run.knobs["cache"] == pytest.approx(8e9 / (111_059_956 * 512))
    assert (found.disk, found.software.depth) == ("pm1725b", 128)


def test_dgl_on_disk_reads_batches_from_files_and_caches_nothing() -> None:
    found = case(system="DGL mmap on disk", notes="")
    assert (found.run.approach, found.run.knobs["cache"]) == ("belady", 0.0)
    assert (found.software.batches, found.software.depth) == ("files", 64)


def test_a_study_says_the_share_in_memory_where_its_tables_do_not() -> None:
    study = {"source": "DiskGNN repo result files", "notes": "unpipelined"}
    assert case(**study).run.knobs["buffer"] == 819
    nodes, row_bytes = 111_059_956, 512
    budget = 0.1 * nodes * row_bytes
    cached = case(system="Ginex", **study).run.knobs["cache"]
    assert cached == pytest.approx((budget - 4 * nodes) / row_bytes / nodes)
    assert case(**(study | {"notes": "cache ratio 30%"})).run.knobs["buffer"] == 2458


def test_a_log_without_fan_outs_and_width_has_those_of_its_study() -> None:
    log = {"fanout": "", "hidden": "", "notes": "p=8192, buffer about 1000 partitions"}
    found = case(source="DiskGNN repo result files", **log)
    assert found.run.batch.fanouts_from_seeds == (40, 30, 20)
    assert found.run.model.hidden == 256
    assert "fan-outs" in reason(**log)


CRAWLS = ("uk-2006-05", "webbase-2001")
CAPSULE = {
    "source": "Capsule SIGMOD25 supplement",
    "hardware": "RTX 4080 16GB, 128GB RAM",
    "storage": "disk not stated for this server",
    "fanout": "10;10;10",
    "notes": "20 epochs; MariusGNN with 32 partitions",
}


def test_files_that_fit_in_memory_are_read_from_the_page_cache_of_a_host_without_a_named_disk() -> (
    None
):
    found = case(dataset="ogbn-products", **CAPSULE)
    assert found.disk == "page-cache"
    knobs = found.run.knobs
    assert (knobs["partitions"], knobs["buffer"], knobs["policy"]) == (32, 5, "dispersed")
    assert knobs["read_ahead"] == 1
    assert "staleness" not in knobs
    # 57 GB of features and 26 GB of edges are more than half of 128 GB.
    assert "disk not stated" in reason(**CAPSULE)
    named = case(dataset="ogbn-products", **(CAPSULE | {"storage": "SATA SSD"}))
    assert named.disk == "sata-ssd"


def test_friendster_of_capsule_has_each_edge_once() -> None:
    found = case(system="PyG", dataset="friendster", **CAPSULE)
    assert found.profile.num_edges == 1_806_067_135
    assert (found.profile.num_features, found.profile.num_train) == (100, 656_083)


def test_crawls_of_the_web_have_the_features_and_seeds_of_their_study() -> None:
    found = {name: case(system="PyG", dataset=name, **CAPSULE).profile for name in CRAWLS}
    facts = {name: (p.num_features, p.num_train) for name, p in found.items()}
    assert facts == {"uk-2006-05": (100, 777_410), "webbase-2001": (100, 1_181_421)}
    assert load_profile("uk-2006-05").num_train == 1_000_000
    for profile in found.values():
        expected = profile.expected_frontier((10, 10, 10), 1024)[0]
        alone = replace(profile, frontier=()).expected_frontier((10, 10, 10), 1024)[0]
        assert 0.3 < expected[0] / alone[0] < 0.4


def test_facts_are_scored_by_a_table_of_embeddings() -> None:
    found = case(
        system="Marius",
        dataset="Freebase86M",
        model="ComplEx",
        layers="0.0",
        hidden="100",
        fanout="",
        batch="50000",
        hardware="AWS P3.2xLarge",
        storage="EBS",
        notes="p=16, c=8, BETA ordering with prefetch",
    )
    run = found.run
    assert (run.model.kind, run.model.decoder, run.training.optimizer) == (
        "embedding",
        "complex",
        "adagrad",
    )
    assert {k: run.knobs[k] for k in ("partitions", "buffer", "policy", "read_ahead")} == {
        "partitions": 16,
        "buffer": 8,
        "policy": "beta",
        "read_ahead": 1,
    }
    assert (found.cluster, found.profile.name) == ("p3.2xlarge", "freebase86m")


def test_layers_over_triples_are_not_modelled() -> None:
    assert "layers over triples" in reason(dataset="Freebase86M", notes="p=16, c=8")


def test_friendster_has_the_facts_that_the_study_gave_it() -> None:
    assert "cannot run it" in reason(dataset="friendster")
    found = case(dataset="friendster", source="DiskGNN repo result files")
    assert (found.profile.num_features, found.profile.num_train) == (128, 656_083)


@pytest.mark.parametrize("given", [{"storage": "CPU memory"}, {"system": "MariusGNN in-memory"}])
def test_all_partitions_in_memory_are_no_load_of_an_epoch(given: dict[str, str]) -> None:
    found = case(notes="", **given)
    assert (found.run.knobs["partitions"], found.run.knobs["buffer"]) == (1, 1)
    assert found.run.knobs["staleness"] == 63
    assert without_load(stated(notes="", **given))
    assert not without_load(stated())
