"""Calibration for real, on a handful of probes: what it measures, and in which company."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.operations import needed, operations
from gnnbench.cluster import TRANSFER, load_cluster
from gnnbench.ledger import Row
from gnnbench.spec import RunSpec
from gnnbench_runtime.calibration import calibrate as calibration
from gnnbench_runtime.calibration import fits, rank
from gnnbench_runtime.calibration.mix import LEAST_SAMPLES, Mix, scaled
from gnnbench_runtime.calibration.workloads import (
    KINDS,
    LARGE,
    USUAL,
    WIDE,
    Workload,
    of_turn,
    scale_of,
    workload,
)

pytestmark = pytest.mark.distributed


def _measure(world: int, probes: list[Workload]) -> list[dict[str, Any]]:
    request = {"sweeps": 1, "threads": 1, "device": "cpu"}
    return calibration.measure_ranks(request, probes, world, lambda word, share: None)


def _runs(count: int = 80) -> list[RunSpec]:
    return [workload(index, threads=1, epochs=6) for index in range(count)]


@pytest.fixture(scope="module")
def four() -> list[dict[str, Any]]:
    return _measure(4, [])


def test_small_groups_are_swept_among_their_peers(four: list[dict[str, Any]]) -> None:
    models = fits.fit_sweeps(four, 4)
    found = {(m.op, m.ranks) for m in models if not m.op.endswith(TRANSFER)}
    whole = {"all_reduce", "all_to_all", "all_gather", "reduce_scatter", "broadcast"}
    assert found == {(op, n) for op in whole for n in (2, 4)} | {("send", 2)}
    assert {(m.op, m.ranks) for m in models} == found | {(op + TRANSFER, n) for op, n in found}
    assert {m.co_located for m in models} == {4}
    assert all(m.latency_s > 0 and m.bytes_per_s > 0 for m in models)


def test_both_small_groups_give_points_and_the_whole_group_one_of_each(
    four: list[dict[str, Any]],
) -> None:
    points = {(m.op, m.ranks): m.points for m in fits.fit_sweeps(four, 4)}
    assert points["all_reduce", 2] == 2 * points["all_reduce", 4]


def _entry(work_s: list[float], seconds: list[float], one_way: bool = False) -> dict[str, Any]:
    return {"work_s": work_s, "seconds": seconds, "one_way": one_way}


def test_a_collective_takes_what_it_adds_to_the_computing_before_it() -> None:
    """Two ranks: one computes 1 s and waits 3 s, the other 3 s and is held up 1 s; then alike."""
    members = [_entry([1.0, 2.0], [3.0, 1.0]), _entry([3.0, 2.0], [1.0, 1.0])]
    assert fits._added_s(members, turns=1.0) == pytest.approx(3.5 - 2.0)


def test_where_ranks_take_turns_their_computing_lasts_as_many_turns() -> None:
    """Four ranks on two cores: 1 s of work alone is 2 s of each round."""
    members = [_entry([1.0] * 3, [4.0] * 3)] * 4
    assert fits._added_s(members, turns=2.0) == pytest.approx(3.0)


def test_of_a_call_one_way_the_end_counts() -> None:
    members = [_entry([1.0], [0.5], True), _entry([1.0], [2.5], True)]
    assert fits._added_s(members, turns=1.0) == pytest.approx(2.5)


@pytest.mark.parametrize(("late", "counts"), [(4, 1.0), (40, 2.0)], ids=["few", "many"])
def test_delays_count_as_far_as_the_median_epoch_has_them(late: int, counts: float) -> None:
    """400 calls of 1 s of which some take 11 s: none in the median epoch of ten calls, or one."""
    calls = np.ones(400)
    calls[:late] = 11.0
    assert fits._of_median_epoch(calls) == pytest.approx(counts)


def test_ranks_asked_for_no_probes_measure_collectives_alone(four: list[dict[str, Any]]) -> None:
    assert all(not content["steps"] and not content["probes"] for content in four)


def test_samples_know_their_workload_and_probes_are_fewer_than_epochs() -> None:
    (content,) = _measure(1, Mix(["single", "sampled"]).probes(2, 0))
    assert {entry["workload"] for entry in content["steps"]} == {1, 2}
    assert len(content["probes"]) == 2 * 2  # of six epochs, the first and the fourth follow one
    assert content["probe_workloads"] == [1, 1, 2, 2]
    ops = Counter(entry["op"] for entry in content["steps"])
    assert ops["spmm"] and ops["adam"] and ops["sample"]


def _sizes(run: RunSpec) -> tuple[int, float]:
    """Vertices and edges that a probe's graph is drawn with."""
    options = run.dataset.options
    if "scale" in options:
        return 2 ** options["scale"], 2 ** options["scale"] * 2 * options["edge_factor"]
    return options["num_nodes"], options["num_nodes"] * options["mean_degree"]


def test_a_few_full_graph_probes_outgrow_caches_and_none_its_scale() -> None:
    runs, scales = _runs(), [scale_of(n) for n in range(80)]
    assert scales.count(LARGE) == scales.count(WIDE) == 5
    assert not any(scale is not USUAL for scale in scales[1::2])
    for run, scale in zip(runs, scales, strict=True):
        (nodes, edges), features = _sizes(run), run.dataset.options["num_features"]
        rounded = 2**0.5 if run.dataset.generator == "rmat" else 1.0  # to a power of two
        assert nodes <= rounded * scale.nodes[1] and edges <= rounded * scale.edges
        assert nodes * features <= scale.feature_elements
        if run.model.kind == "gat" and run.model.hidden > 8:
            assert edges * run.model.hidden <= rounded * scale.edge_values


def test_probes_span_the_widths_and_rows_that_plans_ask_for() -> None:
    runs = _runs()
    widths = [run.dataset.options["num_features"] for run in runs]
    assert min(widths) <= 16 and max(widths) >= 5_000
    rows = [_sizes(run)[0] for run in runs]
    assert min(rows) < 1_000 and max(rows) > 300_000


def test_kinds_of_graphs_take_turns_on_full_graphs_and_on_batches() -> None:
    for count in (14, 80):
        for half in (_runs(count)[::2], _runs(count)[1::2]):
            kinds = Counter(run.dataset.generator for run in half)
            assert set(kinds) == set(KINDS) and max(kinds.values()) - min(kinds.values()) <= 2
    models = {(run.dataset.generator, run.model.kind) for run in _runs()}
    assert all(sum(of == kind for of, _ in models) >= 2 for kind in KINDS)


def test_samples_carry_the_kind_of_graph_and_the_reuse_of_its_rows() -> None:
    probe = Workload(run=dataclasses.replace(workload(6, threads=1, epochs=6), approach="single"))
    (content,) = _measure(1, [probe])
    assert {entry["graph"] for entry in content["steps"]} == {probe.run.dataset.generator}
    sparse = [entry for entry in content["steps"] if entry["op"].startswith(("spmm", "sddmm"))]
    assert sparse and all(sum(entry["reuse"]) == pytest.approx(1, abs=1e-3) for entry in sparse)
    assert not any("reuse" in entry for entry in content["steps"] if entry["kind"] == "gemm")


# -- which approach probes what --------------------------------------------------------------------


def test_operations_are_read_off_the_plans_of_examples() -> None:
    owners = needed(["single", "sampled"])
    assert owners["spmm"] == ["single", "sampled"]
    assert owners["sample"] == ["sampled"] and "scatter_add" not in owners
    assert not any(op.startswith("all_") for op in owners)
    staged = APPROACHES.get("sampled").examples()[0]
    assert "copy_h2d" in operations(staged, "cuda").counts
    assert "copy_h2d" not in operations(staged, "cpu").counts


def test_every_needed_operation_is_probed_where_enough_ranks_are() -> None:
    alone, pair = (Mix(APPROACHES.names(), ranks=n) for n in (1, 2))
    counts = [len(mix.probes(8)) for mix in (alone, pair)]
    assert min(counts) > 8  # beyond those asked for: what their offers do not cover
    assert not alone.samples["scatter_add"]  # rows return from other ranks only
    lacking = {op: pair.samples[op] for op in pair.needed if pair.samples[op] < LEAST_SAMPLES}
    assert not lacking


def test_what_runs_beside_transfers_is_kept_only_where_nothing_else_performs_it() -> None:
    probes = Mix(APPROACHES.names(), ranks=2).probes(16)
    kept = {op for probe in probes for op in probe.only}
    assert "smooth" in kept and not kept & {"spmm", "gemm_nn", "adam"}
    for probe in probes:
        assert bool(probe.only) != operations(probe.run).alone


def test_asked_for_one_approach_no_probe_lacks_its_operations() -> None:
    mix = Mix(["single"])
    for probe in mix.probes(8):
        assert set(operations(probe.run).counts) & set(mix.needed)
    assert "sample" not in mix.samples


def test_an_example_is_scaled_to_a_probe_and_keeps_what_makes_it_one() -> None:
    example = APPROACHES.get("partition").examples()[1]
    base = workload(4, threads=2, epochs=6)
    run = scaled(example, base, 3)
    assert (run.dataset, run.model.hidden) == (base.dataset, base.model.hidden)
    assert (run.model.kind, run.model.layers, run.knobs) == ("sage", 3, example.knobs)
    assert len(run.batch.fanouts_from_seeds) == 3
    training = run.training
    assert (training.precision, training.threads_per_rank, run.ranks) == ("float32", 2, 3)
    other = dataclasses.replace(example.dataset, generator="synthetic_triples")
    assert scaled(dataclasses.replace(example, dataset=other), base, 3).dataset == other


def test_a_third_partys_operation_is_calibrated_by_its_examples(toy: None) -> None:
    mix = Mix(["toy"])
    probes = mix.probes(0)
    assert {(probe.run.approach, probe.only) for probe in probes} == {
        ("toy", frozenset({"toy_items"}))
    }
    assert len({probe.run.dataset.name for probe in probes}) == len(probes) == LEAST_SAMPLES
    (content,) = _measure(1, probes)
    (model,) = (m for m in fits.fit_operations([content], 1, 1e-3) if m.op == "toy_items")
    assert model.points == LEAST_SAMPLES


@pytest.mark.parametrize(
    ("capability", "arch"), [((6, 1), "maxwell"), ((7, 5), "turing"), ((9, 0), "hopper")]
)
def test_a_gpu_is_described_by_its_properties(capability: tuple[int, int], arch: str) -> None:
    major, minor = capability
    properties = SimpleNamespace(
        name="made up", major=major, minor=minor, L2_cache_size=5, total_memory=7
    )
    found = fits._gpu(properties)
    assert (found["kind"], found["arch"]) == ("gpu", arch)
    assert (found["cache_bytes"].value, found["memory_bytes"].value) == (5.0, 7.0)


@pytest.mark.slow
def test_a_quick_calibration_makes_a_cluster_that_predicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """End to end on the fewest probes: operations, collectives, disk, file, prediction."""
    from gnnbench.cli import main
    from gnnbench_simulator.session import predict_run

    few = {"count": 4, "samples": 1, "epochs": 6, "sweeps": 1, "turns": 1}
    monkeypatch.setattr(calibration, "QUICK", few)
    out = tmp_path / "here.toml"
    asked = ["--quick", "--co-located", "2", "--device", "cpu", "--approach", "partition"]
    assert main(["calibrate", "--out", str(out), *asked]) == 0
    cluster = load_cluster(out)
    assert cluster.storage is not None and cluster.storage.sweep
    run = APPROACHES.get("partition").examples()[0]
    from gnnbench.data.source import Library

    record, _ = predict_run(run, Library([]).open(run.dataset), cluster)
    assert record.status == "ok" and record.period_s > 0
    said = capsys.readouterr().out
    lacking = set(needed(["partition"])) - {model.op for model in cluster.ops}
    assert {op for op in lacking if f"not calibrated: {op} (" in said} == lacking
    assert set(record.notes.get("uncalibrated", ())) <= lacking


def _row(period: int, start_s: float, duration_s: float) -> Row:
    return Row(
        period=period,
        iteration=0,
        name="a",
        kind="gemm",
        op="gemm_nn",
        lane="compute",
        phase="forward",
        layer=1,
        group_size=1,
        bytes=0,
        flops=0,
        start_s=start_s,
        duration_s=duration_s,
    )


def test_gaps_are_between_steps_and_what_lies_before_and_after_is_shared() -> None:
    """A period of 10 s from 100 s on: 1 s before, steps of 2 and 3 s, 1 s between, 3 s after."""
    rows = [_row(0, 101.0, 2.0), _row(0, 104.0, 3.0), _row(1, 111.0, 5.0)]
    assert rank._gaps(rows, [10.0, 5.0]) == pytest.approx([1.0 + 2.0, 2.0, 0.0])


def test_turns_share_the_probes_out_and_each_has_large_ones() -> None:
    runs = _runs()
    turns = [of_turn(runs, turn, 2) for turn in (0, 1)]
    assert sorted(id(run) for turn in turns for run in turn) == sorted(map(id, runs))
    for turn in turns:
        assert sum(_sizes(run)[0] > USUAL.nodes[1] for run in turn) >= 2


@pytest.mark.parametrize(("periods", "kept"), [(6, [4, 5]), (3, [2]), (12, [4, 5, 7, 8, 10, 11])])
def test_first_periods_and_those_after_a_probe_are_not_kept(periods: int, kept: list[int]) -> None:
    warm_up = rank._warm_up(periods)
    assert kept == [p for p in range(periods) if p >= warm_up and not rank._is_settling(p, warm_up)]


def test_what_turns_measured_is_joined_rank_by_rank() -> None:
    def content(probe_s: float, workloads: int) -> dict[str, Any]:
        entries = [{"workload": n + 1, "probes": probe_s} for n in range(workloads)]
        return {
            "steps": entries,
            "probes": [probe_s],
            "probe_workloads": [workloads],
            "collectives": [probe_s],
            "workloads": workloads,
        }

    first, second = calibration._joined(
        [[content(1.0, 2), content(2.0, 2)], [content(3.0, 1), content(4.0, 1)]]
    )
    assert [entry["workload"] for entry in first["steps"]] == [1, 2, 3]
    assert (first["probes"], second["collectives"]) == ([1.0, 3.0], [2.0, 4.0])
    assert first["probe_workloads"] == [2, 3]
