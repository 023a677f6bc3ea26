"""Schedules and plans of `tgl`: the graph that is built once, the waits of stale reads, volumes.

Source: temporal reference sections 4 and 10.2.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from gnnbench.approaches.base import Layout, Probe, example
from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.temporal.caching import CacheTrace
from gnnbench.data.source import Library
from gnnbench.data.temporal_csr import TemporalCsr
from gnnbench.models.temporal import TemporalShape
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import Kind, Lane, Phase

TGL: Any = APPROACHES.get("tgl")
TGN = {"kind": "tgn", "layers": 1}


def flow(ranks: int = 1, **fields: Any) -> RunSpec:
    usual: dict[str, Any] = {
        "model": TGN,
        "batch": {"size": 60, "fanouts_from_seeds": (4,)},
        "training": {"epochs": 2, "precision": "float32"},
        "kind": "stream",
    }
    return example("tgl", ranks, **{**usual, **fields})


def planned(run: RunSpec, device: str = "cpu") -> tuple[Plan, Any, Any]:
    data = Library([]).open(run.dataset)
    structure = TGL.structure(data, run)
    layout = Layout(world_size=run.ranks, ranks_per_host=run.ranks, device=device)
    plan = TGL.plan(data, run, structure, layout)
    plan.validate()
    return plan, data, structure


def test_the_graph_is_built_once_of_all_events() -> None:
    """S9: one build in the first iteration; its bytes are those of the temporal CSR."""
    plan, data, structure = planned(flow())
    built = [(at, s) for at, it in enumerate(plan.iterations) for s in it[0] if s.name == "ingest"]
    assert [(at, step.work.op) for at, step in built] == [(0, "build_temporal_csr")]
    (held,) = built[0][1].allocates
    graph = TemporalCsr(data.num_nodes, data.sources, data.destinations, data.times)
    assert held.bytes == graph.num_bytes == 20 * 2 * 600 + 8 * 61
    store = structure.ingest(structure.empty_store(0), structure.pieces[0][0], 0)
    assert np.array_equal(store.rows.events, graph.rows.events)


def test_a_read_waits_for_the_write_of_the_batch_before_the_last() -> None:
    """R(x) for W(x - 2), W(x - 1) for R(x), on two lanes; the last batch is written at the end."""
    plan, _, structure = planned(flow(2))
    count = len(structure.pieces[0])
    first, second, third, last = (plan.iterations[at][0] for at in (0, 1, 2, count - 1))
    names = [[step.name for step in steps] for steps in (first, second, third, last)]
    assert "memory/write" not in names[0]
    assert names[1].index("memory/write") < names[1].index("forward/updater")
    assert "flush/write" in names[3] and "flush/write" not in names[2]
    draw = next(step for step in third if step.name == "sample/draw")
    assert (draw.lane, draw.after[-1]) == (Lane.HOST, ("memory/write", 1))
    fetch = [step for step in third if step.lane is Lane.HOST][-1]
    gather = next(step for step in third if step.name == "memory/gather")
    assert (fetch.name, 0) in gather.after
    again = plan.iterations[count][0][0]
    assert again.after == (("flush/write", 1),), "a pass begins when the one before has ended"


def test_without_staleness_the_plan_is_that_of_continuous_training() -> None:
    run = flow(2, knobs={"staleness": 0})
    plan, data, _ = planned(run)
    continuous = APPROACHES.get("continuous")
    other = dataclasses.replace(run, approach="continuous", knobs={})
    layout = Layout(world_size=2, ranks_per_host=2)
    expected = continuous.plan(data, other, continuous.structure(data, other), layout)
    for one, two in zip(plan.iterations, expected.iterations, strict=True):
        names = [[s.name for s in steps] for steps in (one[0], two[0])]
        assert names[0] == names[1]


def test_late_memory_asks_the_caches_for_other_messages() -> None:
    """A batch asks for the messages of the memory that it reads: one step late, older events."""
    counts = {}
    for staleness in (0, 1):
        run = flow(knobs={"staleness": staleness, "edge_cache": 0.1})
        _, _, structure = planned(run)
        trace = CacheTrace(structure, TGL.caching(run))
        counts[staleness] = [
            trace.counts(0, number, "edges") for number in range(len(structure.pieces[0]))
        ]
    for late, prompt in zip(counts[1], counts[0], strict=True):
        assert late["hits"] + late["misses"] == prompt["hits"] + prompt["misses"]
    assert counts[1][0] == counts[0][0], "the first batch reads an empty memory either way"
    assert [one["moved"].tolist() for one in counts[1]] != [
        one["moved"].tolist() for one in counts[0]
    ]


def test_caches_are_asked_on_the_lane_of_the_read() -> None:
    """The thread that reads ahead asks the caches: no step of theirs holds up training."""
    plan, _, _ = planned(flow(2, knobs={"edge_cache": 0.1}))
    steps = [step for step in plan.iterations[3][0] if step.name.startswith("fetch/edges_")]
    assert {step.lane for step in steps} == {Lane.HOST}
    assert {"fetch/edges_lookup", "fetch/edges_hits", "fetch/edges_enter"} <= {
        step.name for step in steps
    }


@pytest.mark.parametrize("ranks", [2, 3])
def test_bytes_are_the_closed_form(ranks: int) -> None:
    """Gradients and memory of each batch's ends; nothing else travels."""
    run = flow(ranks)
    plan, data, structure = planned(run)
    parameters = TemporalShape.of(data, run).num_parameters
    pieces = structure.pieces[0]
    gradients = ranks * len(pieces) * (2 * (ranks - 1) * (parameters + 1) * 4 // ranks)
    shares = sum(max(map(len, piece.shares)) for piece in pieces)
    ends = ranks * (ranks - 1) * shares * 2 * run.model.hidden * 4
    assert plan.moved_bytes(1) == {
        (Kind.ALL_REDUCE, Phase.SYNC): gradients,
        (Kind.ALL_GATHER, Phase.SYNC): ends,
    }


def test_chunks_move_the_borders_of_batches_from_pass_to_pass() -> None:
    """Random chunk scheduling: each event once per pass, a short first batch, whole ones after."""
    run = flow(knobs={"chunks": 4}, training={"epochs": 12})
    _, data, structure = planned(run)
    first = set()
    for pieces in structure.pieces:
        events = np.concatenate([piece.shares[0] for piece in pieces])
        assert np.array_equal(events, np.arange(data.train_end))
        first.add(pieces[0].count)
        assert {piece.count for piece in pieces[1:-1]} == {60}
        assert sum(piece.share for piece in pieces) == pytest.approx(1.0)
    assert first == {15, 30, 45, 60}


@pytest.mark.parametrize("ranks", [1, 2])
def test_probes_have_caches_and_no_knob_of_another_approach(ranks: int) -> None:
    base = flow(training={"epochs": 3})
    for number in range(4):
        for offer in TGL.probes(Probe(run=base, number=number, ranks=ranks)):
            assert TGL.knobs(offer).staleness == number % 2
            assert not TGL.problems(offer)
            if offer.ranks == 1:
                assert bool(TGL.knobs(offer).edge_cache) is bool(number % 2)


def test_a_stream_that_arrives_is_refused() -> None:
    run = flow(training={"increments": 3})
    assert "cannot grow" in TGL.cannot_run(run, Library([]).open(run.dataset))
    broken = flow(model={**TGN, "input_dropout": 0.1}, batch={"fanouts_from_seeds": (4, 0)})
    assert len(TGL.problems(broken)) == 3
