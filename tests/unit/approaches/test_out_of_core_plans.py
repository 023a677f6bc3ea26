"""Plans of out-of-core training: volumes by closed forms, memory caps, and what is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from gnnbench.approaches.base import Layout, example
from gnnbench.approaches.out_of_core import policies
from gnnbench.approaches.out_of_core.nodes import (
    buffer_graph,
    place_rows,
    resident_edges,
    training_partitions,
)
from gnnbench.approaches.out_of_core.out_of_core import APPROACH, settled
from gnnbench.approaches.out_of_core.storage import Rows
from gnnbench.cluster import load_cluster
from gnnbench.data.profile import profile
from gnnbench.data.source import Library
from gnnbench.data.triples import Triples
from gnnbench.data.triples_profile import profile_triples
from gnnbench.errors import Unsupported
from gnnbench.plan import Plan
from gnnbench.spec import MemorySpec, RunSpec
from gnnbench.steps import Kind, Phase, Space
from gnnbench_simulator.predict import predict_plan

FEW = {"size": 16, "fanouts_from_seeds": (4, 3)}
LINKS: dict[str, Any] = {
    "kind": "triples",
    "model": {"kind": "embedding", "decoder": "distmult"},
    "batch": {"size": 64, "negatives": 20},
    "training": {"optimizer": "adagrad"},
}


def planned(run: RunSpec, data: Any = None, *, device: str = "cpu") -> tuple[Plan, Any]:
    data = Library([]).open(run.dataset) if data is None else data
    structure = APPROACH.structure(data, run)
    layout = Layout(world_size=1, ranks_per_host=1, device=device)
    plan = APPROACH.plan(data, run, structure, layout)
    plan.validate()
    return plan, structure


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize(
    "knobs",
    [
        {"partitions": 5, "buffer": 2, "policy": "beta"},
        {"partitions": 10, "buffer": 5, "policy": "beta"},
        {"partitions": 10, "buffer": 4, "logical": 5},
        {"partitions": 5},
    ],
)
def test_embeddings_are_read_and_written_by_the_closed_form(knobs: dict, ahead: int) -> None:
    """Invariants 8 and 9: c + S g partitions both ways, the short last one counted right."""
    plan, structure = planned(
        example("out-of-core", 1, knobs={**knobs, "read_ahead": ahead}, **LINKS)
    )
    rows, policy = structure.rows, structure.policy
    for epoch in range(3):
        steps = [s for it in plan.of_period(epoch) for s in it[0]]
        reads = [s for s in steps if s.kind is Kind.READ and s.name.endswith("partitions")]
        writes = [s for s in steps if s.kind is Kind.WRITE]
        assert sum(s.work.rows for s in reads) == policies.partition_reads(policy)
        assert sum(s.work.rows for s in writes) == policies.partition_reads(policy)
        assert sum(s.bytes for s in reads) == sum(s.bytes for s in writes)
        visits = structure.visits(epoch)
        assert sum(s.bytes for s in reads) == sum(rows.bytes_in(v.admitted) for v in visits)
        facts = sum(visit.items for visit in visits)
        assert facts == structure.num_facts
        edges = sum(s.bytes for s in steps if s.kind is Kind.READ) - sum(s.bytes for s in reads)
        assert 12 * facts <= edges <= structure.buckets.file_bytes * len(visits)


def test_features_are_read_and_never_written() -> None:
    knobs = {"partitions": 6, "buffer": 5, "policy": "sequential"}
    plan, structure = planned(example("out-of-core", 1, batch=FEW, knobs=knobs))
    for epoch in range(3):
        moved = plan.moved_bytes(epoch)
        assert (Kind.WRITE, Phase.LOAD) not in moved
        [visit] = structure.visits(epoch)
        edges = structure.buckets.spans(structure.buckets.runs(visit.wanted))
        wanted = structure.rows.bytes_in(visit.resident) + int(np.diff(edges, axis=1).sum())
        assert moved[Kind.READ, Phase.LOAD] == wanted
        assert sorted(visit.items.tolist()) == structure.train_nodes.tolist()


def test_published_volumes_of_beta() -> None:
    """Invariant 31: Marius' figure 7, reads and writes of Freebase86M in GB, c = p / 4."""
    published = {8: 462.4, 16: 359.6, 32: 333.9, 64: 321.1, 128: 314.7}
    for p, wanted in published.items():
        swaps = policies.beta_swaps(p, p // 4)
        assert 2 * swaps * 68.8433208 / p == pytest.approx(wanted, rel=0.01)


def test_the_graph_of_the_buffer_is_the_induced_one() -> None:
    graph = Library([]).open(example("out-of-core", 1).dataset)
    ids = np.arange(3, 90, 4)
    held = buffer_graph(*resident_edges(graph, ids), ids, graph)
    held.check()
    for place, vertex in enumerate(ids.tolist()):
        own = graph.indices[graph.indptr[vertex] : graph.indptr[vertex + 1]]
        wanted = [int(s) for s in own if s in ids]
        found = held.indices[held.indptr[place] : held.indptr[place + 1]]
        assert ids[found].tolist() == wanted


@pytest.mark.parametrize("policy", ["sequential", "dispersed"])
def test_rows_of_a_partition_lie_by_id_and_training_ones_come_first(policy: str) -> None:
    graph = Library([]).open(example("out-of-core", 1).dataset)
    rows = Rows(num_rows=graph.num_nodes, partitions=7, row_bytes=8)
    position = place_rows(graph, policy, 3, rows)
    assert sorted(position.tolist()) == list(range(graph.num_nodes))
    part = position // rows.per_partition
    for number in range(7):
        assert np.all(np.diff(position[part == number]) == 1)
    assert not np.array_equal(position, place_rows(graph, policy, 4, rows))
    if policy == "sequential":
        assert part[graph.train_nodes()].max() == training_partitions(graph.num_train, rows) - 1


def test_reading_ahead_hides_the_disk_and_takes_slots() -> None:
    """The same bytes; the next visit's reads run beside training, into slots of their own."""
    runs = [
        example("out-of-core", 1, knobs={"partitions": 10, "buffer": 4, "read_ahead": a}, **LINKS)
        for a in (0, 1)
    ]
    (plain, _), (ahead, _) = planned(runs[0]), planned(runs[1])
    cluster = load_cluster("cpu-2core")
    assert plain.moved_bytes(0) == ahead.moved_bytes(0)
    seconds = [predict_plan(plan, cluster).period_s for plan in (plain, ahead)]
    assert seconds[1] < seconds[0]
    held = [int(plan.peak_bytes(Space.HOST)[0]) for plan in (plain, ahead)]
    assert held[1] > held[0]


def test_a_cluster_without_a_disk_is_refused() -> None:
    plan, _ = planned(example("out-of-core", 1, knobs={"partitions": 4}, batch=FEW))
    bare = dataclasses.replace(load_cluster("cpu-2core"), storage=None)
    with pytest.raises(Unsupported, match=r"no \[storage\]"):
        predict_plan(plan, bare)


def test_a_smaller_buffer_fits_a_smaller_cap() -> None:
    """The prediction obeys the cap on the host's memory; the disk is no part of it."""
    options = {"num_nodes": 20_000, "num_features": 256}
    peaks = []
    for buffer in (2, 8):
        knobs = {"partitions": 8, "buffer": buffer, "policy": "dispersed"}
        run = example("out-of-core", 1, batch={"size": 512}, knobs=knobs, options=options)
        plan, structure = planned(run)
        assert plan.peak_bytes(Space.DISK)[0] >= structure.rows.file_bytes
        found = predict_plan(plan, load_cluster("cpu-2core"), caps={"host": 300e6})
        peaks.append(found.memory[0]["peak_bytes"])
        assert found.memory[0]["fits"] == (peaks[-1] <= 300e6)
    # Six partitions fewer of 2,500 rows of 256 numbers of 8 bytes, and the edges between them.
    assert peaks[1] - peaks[0] > 6 * 2500 * 256 * 8


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_profile_is_planned_with_sizes_near_the_counted_ones(device: str) -> None:
    options = {"num_nodes": 4000, "mean_degree": 12.0}
    knobs = {"partitions": 16, "buffer": 8}
    for policy in ("sequential", "dispersed"):
        run = example(
            "out-of-core",
            1,
            batch={"size": 200, "fanouts_from_seeds": (5, 5)},
            knobs={**knobs, "policy": policy},
            options={**options, "train_fraction": 0.2},
        )
        graph = Library([]).open(run.dataset)
        counted, _ = planned(run, graph, device=device)
        guessed, _ = planned(run, profile(graph), device=device)
        assert not guessed.counted
        for plan in (counted, guessed):
            assert plan.moved_bytes(0)[Kind.READ, Phase.LOAD] == pytest.approx(
                counted.moved_bytes(0)[Kind.READ, Phase.LOAD], rel=0.35
            )
        sizes = [plan.peak_bytes(Space.HOST)[0] for plan in (counted, guessed)]
        assert sizes[1] == pytest.approx(sizes[0], rel=0.1)


def test_triples_are_planned_by_their_profile() -> None:
    run = example("out-of-core", 1, knobs={"partitions": 5, "buffer": 2, "policy": "beta"}, **LINKS)
    triples: Triples = Library([]).open(run.dataset)
    counted, _ = planned(run, triples)
    guessed, structure = planned(run, profile_triples(triples))
    assert not guessed.counted
    write = Kind.WRITE, Phase.LOAD
    assert guessed.moved_bytes(0)[write] == counted.moved_bytes(0)[write]
    assert structure.num_facts == triples.train_end


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (example("out-of-core", 2), "several ranks over one disk"),
        (example("out-of-core", 1, knobs={"policy": "beta"}), "orders graphs by"),
        (example("out-of-core", 1, knobs={"partitions": 80}), "leave 35 empty"),
        (
            example("out-of-core", 1, knobs={"buffer": 1, "policy": "sequential"}),
            "allowed 5 or more",
        ),
        (example("out-of-core", 1, knobs={"partitions": 0}), "set memory.host"),
        (example("out-of-core", 1, kind="triples"), "set the model's kind to embedding"),
        (example("out-of-core", 1, model={"kind": "embedding"}), "is a graph"),
        (
            example("out-of-core", 1, **{**LINKS, "training": {"optimizer": "adam"}}),
            'training.optimizer = "adagrad"',
        ),
        (
            example("out-of-core", 1, **LINKS, knobs={"buffer": 3}),
            "does not divide the 8 partitions",
        ),
    ],
)
def test_it_refuses_with_a_reason(run: RunSpec, said: str) -> None:
    data = Library([]).open(run.dataset)
    assert said in (APPROACH.cannot_run(run, data) or "")


def test_sizes_are_chosen_for_the_cap_of_a_run() -> None:
    options = {"num_nodes": 20_000, "num_features": 256, "train_fraction": 0.05}
    run = example("out-of-core", 1, batch={"size": 32}, knobs={"partitions": 0}, options=options)
    data = Library([]).open(run.dataset)
    sizes = []
    for cap in (440_000_000, 460_000_000, 10**10):
        capped = dataclasses.replace(run, memory=MemorySpec(host=cap))
        assert APPROACH.cannot_run(capped, data) is None, cap
        knobs = settled(APPROACH.knobs(capped), capped, data)
        assert not isinstance(knobs, str)
        sizes.append(knobs.buffer / knobs.partitions)
        assert APPROACH.structure(data, capped).policy.capacity == knobs.buffer
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[1] < sizes[2] == 1.0
    small = dataclasses.replace(run, memory=MemorySpec(host=1_000_000))
    assert "the smallest buffer needs" in (APPROACH.cannot_run(small, data) or "")


# -- checks before training ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "cap"),
    [
        (
            example(
                "out-of-core",
                1,
                batch={"size": 32},
                knobs={"partitions": 16, "buffer": 16},
                options={"num_nodes": 40_000, "num_features": 256},
            ),
            470e6,
        ),
        (
            example(
                "out-of-core",
                1,
                **{**LINKS, "model": {**LINKS["model"], "hidden": 256}},
                knobs={"partitions": 16, "buffer": 16},
                options={"num_entities": 40_000, "num_triples": 80_000},
            ),
            500e6,
        ),
    ],
)
def test_a_buffer_beyond_the_cap_is_refused_with_one_that_fits(run: RunSpec, cap: float) -> None:
    """The line names a buffer; a run with it is accepted, and one a step larger is not."""
    data = Library([]).open(run.dataset)
    capped = dataclasses.replace(run, memory=MemorySpec(host=cap))
    said = APPROACH.cannot_run(capped, data) or ""
    assert "memory.host: a buffer of 16 of 16 partitions needs" in said
    fits = int(said.rpartition("fits: buffer = ")[2])
    assert 1 <= fits < 16

    def refusal(buffer: int) -> str | None:
        knobs = {**run.knobs, "buffer": buffer}
        return APPROACH.cannot_run(dataclasses.replace(capped, knobs=knobs), data)

    assert refusal(fits) is None
    larger = fits + 1 if data.kind == "graph" else 2 * fits
    assert larger > 16 or "memory.host" in (refusal(larger) or "")
    roomy = dataclasses.replace(run, memory=MemorySpec(host=10**11))
    assert APPROACH.cannot_run(roomy, data) is None


def test_a_cap_below_any_buffer_says_what_the_smallest_needs() -> None:
    run = example("out-of-core", 1, batch=FEW, knobs={"partitions": 4})
    capped = dataclasses.replace(run, memory=MemorySpec(host=10_000_000))
    data = Library([]).open(run.dataset)
    assert "the smallest buffer needs" in (APPROACH.cannot_run(capped, data) or "")


def test_files_that_do_not_fit_the_disk_are_refused(tmp_path: Any, monkeypatch: Any) -> None:
    run = example("out-of-core", 1, batch=FEW, knobs={"partitions": 4})
    data = Library([]).open(run.dataset)
    APPROACH.prepare(data, run, tmp_path)
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(Unsupported, match="GB are free: choose a results folder"):
        APPROACH.prepare(data, run, tmp_path)


def test_a_disk_of_slow_requests_gets_fewer_and_larger_partitions() -> None:
    """p is as large as a worthwhile request allows: bandwidth over requests per second."""
    options = {"num_nodes": 40_000, "num_features": 256, "mean_degree": 10}
    run = example("out-of-core", 1, batch={"size": 32}, knobs={"partitions": 0}, options=options)
    run = dataclasses.replace(run, memory=MemorySpec(host=500_000_000))
    data = Library([]).open(run.dataset)
    found = []
    for limit in ({}, {"disk_bytes_per_s": 1e8, "disk_iops": 1e3}):
        knobs = APPROACH.knobs(dataclasses.replace(run, knobs={**run.knobs, **limit}))
        settled_knobs = settled(knobs, run, data)
        assert not isinstance(settled_knobs, str)
        found.append(settled_knobs.partitions)
    assert found[0] > found[1]
