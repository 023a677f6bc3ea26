"""Systems that train on batches: who draws, where features lie, what a cache and its devices do."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from published_cases import Planned, mini_batch, planned, row

from gnnbench.data.profile import load_profile
from gnnbench.ledger import Row
from gnnbench.published.batches import COMPILED_LAUNCHES, LOADER_LAUNCHES
from gnnbench.published.hits import degree_hits, presampled_hits
from gnnbench.published.metrics import phase_time, phases_of
from gnnbench.published.reason import Reason
from gnnbench.published.released import PAGEABLE
from gnnbench.published.software import Loader
from gnnbench.published.systems import Case, case_of
from gnnbench.steps import Lane, Phase, Step

GNNLAB = {
    "model": "GCN",
    "layers": "3",
    "fanout": "5-10-15 (run_config order)",
    "batch": "8000",
    "hardware": "8x V100-16GB; 2x Xeon 8163 (48 cores); 512GB",
    "dataset": "ogbn-papers100M",
}


def loader(**given: Any) -> Loader:
    case = case_of(row(**given))
    assert isinstance(case, Case), case
    assert case.software.loader is not None
    return case.software.loader


def by_name(plans: Planned) -> dict[str, Step]:
    return {step.name: step for step in plans.released.iterations[0][0]}


def test_dgl_reads_topology_and_every_input_row_over_the_host_link() -> None:
    plans = mini_batch()
    ours = {step.name: step for step in plans.ours.iterations[0][0]}
    steps = by_name(plans)
    assert steps["fetch/gather_host"].bytes == ours["fetch/gather"].work.rows * 100 * 4
    drawn = ours["sample/draw"].work.nonzeros
    assert steps["sample/draw_host"].bytes == pytest.approx(32 / 0.13 * drawn, rel=0.2)
    assert "fetch/copy" not in steps  # the device drew the blocks itself
    plans.released.validate()


def test_a_loader_issues_operations_for_every_hop() -> None:
    assert by_name(mini_batch())["sample/draw/eager"].work.calls == 2 * LOADER_LAUNCHES
    quiver = by_name(mini_batch(system="Quiver"))
    assert quiver["sample/draw/eager"].work.calls == 2 * COMPILED_LAUNCHES


def test_what_a_row_says_of_sampler_and_features_is_taken() -> None:
    given = {"dataset": "ogbn-products", "fanout": "15-10-5", "batch": "1024", "gpus": "1"}
    given |= {"hardware": "1x RTX 3090"}
    here = loader(system="DGL features=GPU, sampler=GPU", **given)
    assert (here.sampler, here.features, here.hits) == ("device", "device", 0.0)
    host = loader(system="DGL features=CPU, sampler=GPU", **given)
    assert host.features == "staged_pageable"
    cached = loader(system="DGL features=cache 21%, sampler=GPU", **given)
    assert cached.features == "uva"
    assert cached.hits == pytest.approx(0.191 + 0.809 * 0.11 / 0.9, abs=0.01)
    cpu = case_of(row(system="DGL features=CPU, sampler=CPU", **given))
    assert isinstance(cpu, Reason)
    assert "unstated number of threads" in str(cpu)


def test_quiver_caches_as_many_rows_as_its_examples_give_it_memory_for() -> None:
    given = {"fanout": "10-10", "batch": "1024/GPU", "layers": "2", "gpus": "1"}
    assert loader(system="Quiver", dataset="ogbn-arxiv", **given).hits == 1.0
    assert 0.1 < loader(system="Quiver", dataset="ogbn-products", **given).hits < 0.5


def test_devices_that_sample_and_devices_that_train_are_told_apart() -> None:
    given = {**GNNLAB, "system": "GNNLab", "gpus": "5", "notes": "2 sampler + 3 trainer GPUs"}
    case = case_of(row(**given))
    assert isinstance(case, Case)
    assert (case.run.ranks, case.run.batch.size) == (3, 24_000)
    assert case.run.batch.fanouts_from_seeds == (15, 10, 5)
    found = case.software.loader
    assert found is not None
    assert (found.samplers, found.trainers) == (2, 3)
    unsaid = case_of(row(**{**given, "notes": ""}))
    assert isinstance(unsaid, Reason)
    assert "devices that sample" in str(unsaid)


def test_a_sampler_of_two_trainers_is_busy_twice_as_long_beside_their_training() -> None:
    given = {**GNNLAB, "system": "GNNLab", "gpus": "3", "notes": "1 sampler + 2 trainer GPUs"}
    plans = planned(**given)
    ours = {step.name: step for step in plans.ours.iterations[-1][0]}
    steps = {step.name: step for step in plans.released.iterations[-1][0]}
    assert steps["sample/draw"].work.nonzeros == 2 * ours["sample/draw"].work.nonzeros
    assert steps["sample/draw"].lane is Lane.COMPUTE.at(1)
    assert steps["fetch/gather"].lane is Lane.COPY
    assert "fetch/copy" in steps  # blocks of another device come through the host
    plans.released.validate()


def test_rows_that_the_cache_misses_are_sliced_by_the_host_and_copied() -> None:
    given = {**GNNLAB, "gpus": "1", "metric": "extract_time_per_epoch"}
    hit = planned(**given, system="SGNN", notes="cache ratio 1%, hit 75%")
    steps = by_name(hit)
    ours = {step.name: step for step in hit.ours.iterations[0][0]}
    size = ours["fetch/gather"].work.rows * 128 * 4
    assert steps["fetch/gather_host"].bytes == pytest.approx(size / 4, rel=1e-3)
    assert steps["fetch/gather_slice"].lane is Lane.HOST
    assert {a.step for a in steps["fetch/gather_host"].after} == {"fetch/gather_slice"}
    pageable = by_name(planned(**given, system="DGL", notes="no feature cache"))
    assert pageable["fetch/gather_host"].bytes == pytest.approx(PAGEABLE * size, rel=1e-3)


def test_hit_rates_are_those_that_were_counted_or_follow_the_degrees() -> None:
    papers, reddit = load_profile("ogbn-papers100m"), load_profile("reddit")
    assert degree_hits(papers, 0.10) == pytest.approx(0.496)
    assert presampled_hits(papers, 0.21) == pytest.approx(0.985)
    assert presampled_hits(reddit, 0.1) is None
    assert 0.2 < degree_hits(reddit, 0.2) < 0.9
    assert degree_hits(reddit, 1.0) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("metric", "phases"),
    [
        ("sample_time_per_epoch", ("sample",)),
        ("sampling time", ("sample",)),
        ("extract_time_per_epoch", ("fetch",)),
        ("feature_copy_time_per_batch", ("fetch",)),
        ("sampling_slicing_time_per_epoch", ("sample", "fetch")),
        ("train_time_per_epoch", ("forward", "backward", "sync", "update")),
        ("train_20_epochs_time", ()),
        ("presampling_time", ()),
        ("compute_time_max_rank", ()),
    ],
)
def test_words_of_a_metric_name_phases(metric: str, phases: tuple[str, ...]) -> None:
    assert phases_of(row(metric=metric)) == phases


def test_an_epoch_that_leaves_sampling_out_is_said_to() -> None:
    assert "sample" not in phases_of(row(notes="epoch_time excludes sampling"))
    assert phases_of(row(notes="epoch_time excludes sampling"))
    assert phases_of(row()) == ()


def ledger(period: int, phase: Phase, seconds: float) -> Row:
    return Row(
        period=period,
        iteration=0,
        name=str(phase),
        kind="gather",
        op="gather",
        lane="compute",
        phase=phase,
        layer=0,
        group_size=1,
        bytes=0,
        flops=0,
        start_s=0.0,
        duration_s=seconds,
    )


def test_a_phase_is_the_sum_of_its_steps_on_the_slowest_rank_per_epoch_or_batch() -> None:
    ledgers = {
        0: [ledger(0, Phase.FETCH, 9.0), ledger(1, Phase.FETCH, 1.0), ledger(1, Phase.FETCH, 2.0)],
        1: [ledger(1, Phase.FETCH, 2.5), ledger(1, Phase.FORWARD, 9.0)],
    }
    assert phase_time(row(metric="extract_time_per_epoch"), ledgers, steps=4) == 3.0
    assert phase_time(row(metric="feature_copy_time_per_batch"), ledgers, steps=4) == 0.75
    assert phase_time(row(), ledgers, steps=4) is None
