"""Schedules, metrics and plans of continuous learning: invariants R1-R4, E1, S9 and closed forms.

Source: temporal reference sections 11, 12 and 16.
"""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnnbench.approaches.base import Layout, example
from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.temporal.caching import CacheTrace
from gnnbench.approaches.temporal.metrics import average_precision, link_metrics, roc_auc
from gnnbench.approaches.temporal.schedule import Piece, Protocol, Schedule
from gnnbench.data.source import Library
from gnnbench.data.stream_profile import profile_stream
from gnnbench.models.temporal import TemporalShape
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import Kind, Phase, Space

CONTINUOUS: Any = APPROACHES.get("continuous")


def schedule(**fields: Any) -> Schedule:
    usual: dict[str, Any] = {
        "events": 1003,
        "train_end": 700,
        "epochs": 2,
        "increments": 7,
        "offline": 0.3,
        "batch": 60,
        "evaluation_batch": 11,
        "ranks": 3,
        "seed": 5,
    }
    protocol = Protocol(**{**usual, **fields})
    return Schedule(protocol, np.arange(protocol.events, dtype=np.int64) * 10)


def events(pieces: list[Piece], kind: str) -> list[int]:
    """Ids in the order of the ranks, piece by piece."""
    return [int(i) for p in pieces if p.kind == kind for share in p.shares for i in share]


def every_piece(of: Schedule) -> list[list[Piece]]:
    return [of.pieces(period) for period in range(of.protocol.num_periods)]


@pytest.mark.parametrize("offline", [0.0, 0.3])
def test_every_event_is_predicted_once_and_learnt_from_once(offline: float) -> None:
    """R1: phases cover the stream, increments partition what follows the offline phase."""
    found = schedule(offline=offline)
    first, end = found.protocol.offline_end, found.protocol.events
    periods = every_piece(found)
    assert len(periods) == 7 + (offline > 0)
    predicted = [i for pieces in periods for i in events(pieces, "evaluate")]
    assert sorted(predicted) == list(range(first, end))
    increments = periods[offline > 0 :]
    learnt = [i for pieces in increments for i in events(pieces, "train")]
    assert learnt == list(range(first, end)), "the last batch included"
    if offline:
        assert events(periods[0], "train") == 2 * list(range(first))
    ingested = [p.ingest for pieces in periods for p in pieces if p.ingest[1]]
    assert [a for a, _ in ingested] == [0, *(b for _, b in ingested)][:-1]


def test_an_increment_is_predicted_before_it_is_there() -> None:
    """R3: the graph of the predictions ends where the increment begins."""
    for pieces in every_piece(schedule())[1:]:
        kinds = [piece.kind for piece in pieces]
        assert kinds == sorted(kinds), "evaluate comes before train"
        evaluated = [piece for piece in pieces if piece.kind == "evaluate"]
        assert {piece.known for piece in evaluated} == {min(events(pieces, "evaluate"))}
        assert not any(piece.ingest[1] for piece in evaluated)
        assert [piece.closes for piece in evaluated] == [False] * (len(evaluated) - 1) + [True]


def test_replayed_events_are_old_and_distinct() -> None:
    """R2: round(ratio * old) of them, none twice, in order, before the new ones."""
    found = schedule(replay=0.25, retrain_every=3)
    first = found.cuts()[3]
    learnt = events(found.pieces(6), "train")
    old = [i for i in learnt if i < first]
    assert len(old) == round(0.25 * first) == len(set(old))
    assert learnt == sorted(learnt) and learnt[len(old) :] == list(range(first, found.cuts()[6]))


def test_weights_rest_between_retrainings() -> None:
    """R4: only every third increment trains, on all that is new since the last time."""
    found = schedule(retrain_every=3)
    trained = [bool(events(pieces, "train")) for pieces in every_piece(found)]
    assert trained == [True, False, False, True, False, False, True, False]


def test_who_rebuilds_ingests_and_learns_everything_again() -> None:
    """Closed forms of `rebuild`: all events so far, in every increment and pass."""
    found = schedule(rebuilds=True, relearns=True)
    stops = found.cuts()[1:].tolist()
    periods = every_piece(found)[1:]
    assert [p.ingest for pieces in periods for p in pieces if p.ingest[1]] == [
        (0, stop) for stop in stops
    ]
    assert [events(pieces, "train") for pieces in periods] == [
        2 * list(range(stop)) for stop in stops
    ]


def test_increments_arrive_by_the_clock_of_the_stream() -> None:
    """Released when its last event has happened, in seconds after the offline phase."""
    found = schedule(speedup=2.0)
    last = found.cuts()[1:] - 1
    released = [found.release_s(period) for period in range(8)]
    assert released == [0.0, *((10 * last - 10 * 300) / 2.0)]


def test_ranks_are_by_the_middle_among_equals() -> None:
    """E1: a constant scorer has 2 / (k + 2), AP and AUC of a half; a perfect one has 1."""
    constant = link_metrics(np.zeros((7, 6)))
    assert constant == pytest.approx({"mrr": 2 / 7, "ap": 0.5, "auc": 0.5})
    perfect = np.zeros((7, 6))
    perfect[:, 0] = 1.0
    assert set(link_metrics(perfect).values()) == {1.0}
    assert link_metrics(np.zeros((0, 6))) == {}


def test_ragged_ranks_are_those_of_a_loop() -> None:
    """E1: any number of candidates per event, none included; ties in the middle."""
    rng = np.random.default_rng(1)
    counts = rng.integers(0, 6, 50)
    indptr = np.concatenate([[0], np.cumsum(1 + counts)])
    scores = rng.integers(0, 4, indptr[-1]).astype(float)
    ranks = []
    for a, b in pairwise(indptr.tolist()):
        true, false = scores[a], scores[a + 1 : b]
        ranks.append(0.5 * ((false > true).sum() + (false >= true).sum()) + 1)
    assert link_metrics(scores, indptr)["mrr"] == pytest.approx(np.mean(1 / np.array(ranks)))


def test_precision_and_area_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(3)
    true, false = rng.integers(0, 6, 40) / 5.0 + 0.3, rng.integers(0, 7, 50) / 5.0
    wins = (true[:, None] > false).mean() + 0.5 * (true[:, None] == false).mean()
    assert roc_auc(true, false) == pytest.approx(wins)
    precision = [
        (true >= t).sum() / ((true >= t).sum() + (false >= t).sum()) for t in true.tolist()
    ]
    assert average_precision(true, false) == pytest.approx(np.mean(precision))


# -- plans ---------------------------------------------------------------------------------------


def planned(run: RunSpec, device: str = "cpu") -> tuple[Plan, Any, Any]:
    data = Library([]).open(run.dataset)
    structure = CONTINUOUS.structure(data, run)
    layout = Layout(world_size=run.ranks, ranks_per_host=run.ranks, device=device)
    return CONTINUOUS.plan(data, run, structure, layout), data, structure


def flow(ranks: int, **fields: Any) -> RunSpec:
    usual: dict[str, Any] = {
        "model": {"kind": "tgat"},
        "batch": {"size": 60, "fanouts_from_seeds": (4, 3)},
        "training": {"increments": 3, "precision": "float32"},
        "task": {"negatives": 4},
        "kind": "stream",
    }
    return example("continuous", ranks, **{**usual, **fields})


@pytest.mark.parametrize("ranks", [2, 3])
def test_bytes_are_the_closed_form(ranks: int) -> None:
    """Gradients per step, scores once per increment; nothing else travels."""
    run = flow(ranks)
    plan, data, structure = planned(run)
    parameters = TemporalShape.of(data, run).num_parameters
    for period in range(1, plan.num_periods):
        pieces = structure.pieces[period]
        steps = sum(piece.kind == "train" for piece in pieces)
        count = len(events(pieces, "evaluate"))
        gradients = 2 * (ranks - 1) * (parameters + 1) * 4 // ranks
        # Chunks of 60 * 3 // 6 events are dealt whole.
        chunks = -(-count // 30)
        room = min(-(-chunks // ranks) * 30, count)
        scores = (ranks - 1) * room * (1 + 4) * 4
        assert plan.moved_bytes(period) == {
            (Kind.ALL_REDUCE, Phase.SYNC): ranks * steps * gradients,
            (Kind.ALL_GATHER, Phase.EVALUATE): ranks * scores,
        }


def test_the_ranks_draw_what_one_rank_draws() -> None:
    """D2: edges of all ranks together do not depend on their number."""
    edges = []
    for ranks in (1, 2, 4):
        _, _, structure = planned(flow(ranks))
        sizes = [
            structure.sizes(3, at).queries
            for at, p in enumerate(structure.pieces[3])
            if p.kind == "train"
        ]
        edges.append(sum(int((s[-1] - s[0]).sum()) for s in sizes))
    assert len(set(edges)) == 1


@pytest.mark.parametrize("partitioner", ["hash", "degree", "ldg"])
def test_queries_travel_by_the_owners_of_their_vertices(partitioner: str) -> None:
    """D3: 8 bytes per count, 16 per foreign query and 20 f per reply, hop by hop."""
    ranks, fanouts = 3, (4, 3)
    run = flow(ranks, knobs={"store": "partitioned", "partitioner": partitioner})
    plan, _, structure = planned(run)
    sampler = structure.sampler(structure.whole)
    for period in range(plan.num_periods):
        sent = 0
        for piece in structure.pieces[period]:
            for rank in range(ranks):
                if piece.kind != "train":
                    continue
                sample = structure.draw(sampler, piece, structure.roots(piece, rank))
                for hop, fanout in enumerate(fanouts):
                    asked = structure.owner[sample.nodes[: sample.sizes[hop]]]
                    sent += 8 * (ranks - 1) + int((asked != rank).sum()) * (16 + 20 * fanout)
        assert plan.moved_bytes(period)[Kind.ALL_TO_ALL, Phase.SAMPLE] == sent


def test_a_cache_moves_a_row_per_distinct_miss() -> None:
    """C1: hits + misses = requests; bytes copied = rows moved and refilled times their bytes."""
    run = flow(2, knobs={"edge_cache": 0.1, "cache_policy": "lru"})
    plan, data, structure = planned(run)
    trace = CacheTrace(structure, CONTINUOUS.caching(run))
    for period in range(plan.num_periods):
        moved = 0
        for number, piece in enumerate(structure.pieces[period]):
            found = trace.counts(period, number, "edges")
            queries = structure.sizes(period, number).queries
            requests = found["hits"] + found["misses"]
            assert (requests == queries[-1] - queries[0]).all()
            if piece.kind == "train":
                moved += int((found["moved"] + found["refilled"]).sum())
        row = data.num_edge_features * 4
        assert plan.moved_bytes(period)[Kind.COPY, Phase.FETCH] == moved * row


def test_counts_are_kept_between_runs(tmp_path: Path) -> None:
    """A second structure of the same dataset and settings reads them; other settings do not."""
    run = flow(2, knobs={"node_cache": 0.3, "edge_cache": 0.1})
    data = Library([]).open(run.dataset)
    assert data.digest, "generated datasets have a digest"
    sizes = []
    for _ in range(2):
        structure = CONTINUOUS.structure(data, run, tmp_path)
        layout = Layout(world_size=2, ranks_per_host=2)
        plan = CONTINUOUS.plan(data, run, structure, layout)
        sizes.append([plan.moved_bytes(period) for period in range(plan.num_periods)])
        kept = sorted(path.name for path in tmp_path.iterdir())
    assert sizes[0] == sizes[1] and len(kept) == plan.num_periods + 1
    other = dataclasses.replace(run, training=dataclasses.replace(run.training, seed=8))
    CONTINUOUS.structure(data, other, tmp_path).sizes(1, 0)
    assert len(list(tmp_path.iterdir())) == len(kept) + 1


def test_the_store_grows_and_expires_in_the_plan() -> None:
    """S9: the plan's buffer is the store's own count of bytes; expired blocks are reused."""
    sizes = {}
    for expire in (0, 30):
        run = flow(1, knobs={"expire_after": expire}, options={"num_edges": 6000, "mean_gap": 1.0})
        plan, _, structure = planned(run)
        store = structure.empty_store(0)
        for pieces in structure.pieces:
            for piece in (p for p in pieces if p.ingest[1]):
                structure.ingest(store, piece, 0)
        held = [
            buffer.bytes
            for iteration in plan.iterations
            for step in iteration[0]
            for buffer in step.allocates
            if buffer.name == "store" and buffer.space is Space.HOST
        ]
        assert held == structure.store_bytes and held[-1] == store.num_bytes
        sizes[expire] = held[-1]
    assert sizes[30] < sizes[0]


def test_a_device_is_handed_each_sample() -> None:
    plan, _, _ = planned(flow(1), device="cuda")
    copies = {s.name for s in plan.iterations[0][0] if s.kind is Kind.COPY}
    assert copies == {"fetch/copy"}


def test_a_profile_is_planned_near_the_stream() -> None:
    """Its plan says that it has not counted; the sizes of its samples are those of the stream."""
    run = flow(2, options={"num_edges": 3000}, batch={"size": 100, "fanouts_from_seeds": (4, 3)})
    plan, data, structure = planned(run)
    profile = profile_stream(data)
    assert CONTINUOUS.cannot_run(run, profile) is None
    there = CONTINUOUS.structure(profile, run)
    layout = Layout(world_size=2, ranks_per_host=2)
    drawn = CONTINUOUS.plan(profile, run, there, layout)
    drawn.validate()
    assert plan.counted and not drawn.counted and "drawn from the profile" in drawn.basis
    assert drawn.periods == plan.periods
    edges = [
        sum(int((s[-1] - s[0]).sum()) for s in (of.sizes(2, at).queries for at in range(5)))
        for of in (structure, there)
    ]
    assert abs(edges[1] / edges[0] - 1) < 0.1


def test_it_refuses_with_a_reason() -> None:
    run = flow(1)
    data = Library([]).open(run.dataset)
    many = dataclasses.replace(run.training, increments=500)
    assert "increments" in CONTINUOUS.cannot_run(dataclasses.replace(run, training=many), data)
    graph = APPROACHES.get("single").cannot_run(example("single", 1, model={"kind": "tgat"}))
    assert graph == "single trains stacks of layers; tgat is a module"
    static = dataclasses.replace(run.training, increments=0)
    again = dataclasses.replace(run, approach="rebuild", training=static)
    assert "increments" in APPROACHES.get("rebuild").cannot_run(again, data)
    broken = flow(1, model={"kind": "tgat", "input_dropout": 0.1}, knobs={"block": 3})
    assert len(CONTINUOUS.problems(broken)) == 3
