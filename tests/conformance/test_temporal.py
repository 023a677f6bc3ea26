"""Continuous learning on a rank: invariants M1-M6, R3, R4 of the temporal reference, section 16.

M4 for several ranks, M6 for a resumption and D2 are statements of conformance.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the runtime extra")

import torch

from gnnbench.approaches.base import Layout, example
from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.temporal.memory import last_events
from gnnbench.data.source import Library
from gnnbench.data.stream import EdgeStream
from gnnbench.models.temporal import TemporalShape
from gnnbench.spec import RunSpec
from gnnbench_runtime.conformance.perform import make_trainer
from gnnbench_runtime.models.temporal import temporal_modules

TGAT: dict[str, Any] = {"kind": "tgat", "layers": 2, "heads": 2}
TGN: dict[str, Any] = {"kind": "tgn", "layers": 1, "heads": 2}
STATIC: dict[str, Any] = {"kind": "temporal-sage", "layers": 2}
ATTENDS: dict[str, Any] = {"kind": "temporal-gat", "layers": 2, "heads": 2}
MIXER: dict[str, Any] = {"kind": "graphmixer", "layers": 1}
EVERY = [TGAT, TGN, STATIC, ATTENDS, MIXER]
MODELS = pytest.mark.parametrize("model", [TGAT, TGN], ids=["tgat", "tgn"])
ALL_MODELS = pytest.mark.parametrize("model", EVERY, ids=[model["kind"] for model in EVERY])


def flow(model: dict[str, Any], **fields: Any) -> RunSpec:
    usual: dict[str, Any] = {
        "batch": {"size": 60, "fanouts_from_seeds": (4, 3)[: model["layers"]]},
        "training": {"lr": 0.001, **fields.pop("training", {})},
        "options": {"mean_gap": 2.0, "num_features": 3},
        "task": {"negatives": 4},
    }
    return example("continuous", 1, model=model, kind="stream", **{**usual, **fields})


def stream_of(run: RunSpec) -> EdgeStream:
    found: EdgeStream = Library([]).open(run.dataset)
    return found


def trainer_of(run: RunSpec, data: EdgeStream, folder: Path) -> Any:
    trainer, _, _ = make_trainer(0, 1, run, data, folder)
    return trainer


def training(trainer: Any, period: int = 0) -> Iterator[Any]:
    for piece in trainer.structure.pieces[period]:
        trainer.source.ingest(piece)
        if piece.kind == "train":
            yield piece


@ALL_MODELS
def test_the_future_does_not_move_a_score(model: dict[str, Any], tmp_path: Path) -> None:
    """M1: other endpoints and features from event 300 on, ties with event 299 included."""
    run = flow(model)
    data = stream_of(run)
    start = int(np.searchsorted(data.times, data.times[300]))
    assert start > 180
    rng = np.random.default_rng(0)
    ends, rows = data.destinations.copy(), np.array(data.edge_features)
    ends[start:] = rng.integers(0, data.num_nodes, len(ends) - start)
    rows[start:] += 1.0
    other = dataclasses.replace(data, destinations=ends, edge_features=rows)
    scores = []
    for stream in (data, other):
        trainer = trainer_of(run, stream, tmp_path)
        ids, values = trainer.outputs(0)
        before = (ids < start // 60 * 60).numpy()  # whole batches: negatives avoid true edges
        scores.append(values.numpy()[before])
    assert np.array_equal(*scores) and scores[0].std() > 0


def test_memory_is_that_of_earlier_batches(tmp_path: Path) -> None:
    """M2: features of a batch's own events move no score of it, only those of later ones."""
    run = flow(TGN, batch={"size": 100, "fanouts_from_seeds": (1,)}, knobs={"window": 1})
    # Ten seconds apart, no neighbour is within the window: all that is known is in the memory.
    data = stream_of(run)
    data = dataclasses.replace(data, times=data.times * 10)
    rows = np.array(data.edge_features)
    rows[100:200] += 1.0
    other = dataclasses.replace(data, edge_features=rows)
    values = [trainer_of(run, stream, tmp_path).outputs(0)[1] for stream in (data, other)]
    same = (values[0] == values[1]).all(1).view(-1)
    assert same[:200].all() and not same[200:300].all()


def test_the_last_event_of_a_node_writes_once() -> None:
    """M3, with a self loop and a node that is source and destination."""
    sources, destinations = np.array([0, 1, 2, 3]), np.array([1, 0, 2, 1])
    found = last_events(sources, destinations)
    assert found.nodes.tolist() == [0, 1, 2, 3]
    assert found.places.tolist() == [1, 3, 2, 3]
    assert found.reversed[[0, 1, 3]].tolist() == [True, True, False]


def test_memory_is_the_serial_schedules(tmp_path: Path) -> None:
    """M4: after a pass it equals a loop over batches and nodes, written with plain torch."""
    run = flow(TGN, training={"epochs": 1, "optimizer": "sgd", "lr": 0.0})
    data = stream_of(run)
    trainer = trainer_of(run, data, tmp_path)
    trainer.train_period(0)
    gru = trainer.net.modules["updater"]
    d = run.model.hidden
    memory = torch.zeros(data.num_nodes, d, dtype=torch.float64)
    mail: dict[int, tuple[torch.Tensor, int]] = {}
    applied = np.zeros(data.num_nodes)
    edges = torch.from_numpy(np.array(data.edge_features)).double()
    times = data.times.tolist()

    def updated(v: int) -> torch.Tensor:
        if v not in mail:
            return memory[v]
        message, event = mail[v]
        age = torch.tensor([times[event] - applied[v]], dtype=torch.float64)
        assert torch.equal(message[:d], memory[v]), "one row is memory and message"
        held = message.unsqueeze(0)
        one, row = torch.ones(1, dtype=torch.float64), torch.empty(1, 0, dtype=torch.float64)
        place = torch.zeros(1, dtype=torch.int64)
        with torch.no_grad():
            return gru(held, edges[event : event + 1], age, one, place, row)[0]

    for at in range(0, data.train_end, 60):
        batch = range(at, min(at + 60, data.train_end))
        pairs = [(int(data.sources[e]), int(data.destinations[e])) for e in batch]
        fresh = {v: updated(v) for pair in pairs for v in pair}
        first = {v for v in fresh if v not in mail}
        for v in fresh.keys() - first:
            applied[v] = times[mail[v][1]]
        for v, row in fresh.items():
            memory[v] = row
        for e, (u, v) in zip(batch, pairs, strict=True):
            for own, its in ((v, u), (u, v)):
                mail[own] = torch.cat([fresh[own], fresh[its]]), e
        for v in first:
            applied[v] = times[mail[v][1]]
    table = trainer.source.memory.table
    torch.testing.assert_close(table[:, :d], memory, rtol=0, atol=1e-12)
    for v, (message, event) in mail.items():
        torch.testing.assert_close(table[v], message, rtol=0, atol=1e-12)
        assert trainer.source.memory.clock.event[v] == event


def test_the_updater_learns_from_the_second_batch_on(tmp_path: Path) -> None:
    """M5: nothing is stored before the first batch; what is stored has no history of its own."""
    run = flow(TGN)
    trainer = trainer_of(run, stream_of(run), tmp_path)
    moved = []
    for piece in list(training(trainer))[:2]:
        trainer._begin(piece, 0)
        trainer._learn(piece, (0, len(moved)))
        moved.append(float(trainer.net.parameters.grad["updater.input"].abs().max()))
        assert not trainer.source.memory.table.requires_grad
    assert moved[0] == 0 < moved[1]


@MODELS
def test_an_evaluation_leaves_no_trace(model: dict[str, Any], tmp_path: Path) -> None:
    """M6: evaluating between epochs changes nothing of what follows."""
    run, learnt = flow(model, training={"epochs": 2}), []
    for between in (False, True):
        trainer = trainer_of(run, stream_of(run), tmp_path)
        trainer.train_period(0)
        if between:
            metrics = trainer.evaluate()
            assert {"val_mrr", "test_ap", "test_auc"} <= metrics.keys()
        trainer.train_period(1)
        learnt.append(trainer.learnt().clone())
    assert torch.equal(*learnt)


@MODELS
def test_an_increment_is_predicted_with_the_weights_before_it(
    model: dict[str, Any], tmp_path: Path
) -> None:
    """R3: its metrics stay when nothing is learnt from it; and its events count by split."""
    run = flow(model, training={"increments": 3, "epochs": 1})
    data, found = stream_of(run), []
    still = dataclasses.replace(run.training, lr=0.0)
    trainer = trainer_of(run, data, tmp_path)
    trainer.train_period(0)
    state = {name: tensor.clone() for name, tensor in trainer.state().items()}
    for spec in (run.training, still):
        other = trainer_of(dataclasses.replace(run, training=spec), data, tmp_path)
        other.restore(state)
        other.train_period(1)
        found.append(other.period_metrics())
    assert found[0] == found[1] and set(found[0]) == {"mrr", "ap", "auc"}
    for period in (2, 3):
        other.train_period(period)
    assert other.predictions.sums[:, 0].tolist() == [
        data.val_end - data.train_end,
        600 - data.val_end,
    ]


def test_weights_change_only_at_retrainings(tmp_path: Path) -> None:
    """R4: every second increment."""
    run = flow(TGN, training={"increments": 4, "epochs": 1}, knobs={"retrain_every": 2})
    trainer = trainer_of(run, stream_of(run), tmp_path)
    kept = []
    for period in range(5):
        trainer.train_period(period)
        kept.append(trainer.learnt().clone())
    changed = [not torch.equal(a, b) for a, b in pairwise(kept)]
    assert changed == [False, True, False, True]


@ALL_MODELS
def test_the_shape_knows_the_modules(model: dict[str, Any]) -> None:
    run = flow(model)
    shape = TemporalShape.of(stream_of(run), run)
    modules = temporal_modules(shape)
    counted = sum(p.numel() for module in modules.values() for p in module.parameters())
    assert shape.num_parameters == counted


def test_a_graph_built_anew_teaches_the_same(tmp_path: Path) -> None:
    """`rebuild` of the graph alone learns bit for bit what an insertion does."""
    learnt = []
    for name, knobs in (("continuous", {}), ("rebuild", {"learns": "new"})):
        run = flow(TGN, training={"increments": 3, "epochs": 1}, knobs=knobs)
        run = dataclasses.replace(run, approach=name)
        trainer = trainer_of(run, stream_of(run), tmp_path)
        losses = [trainer.train_period(period) for period in range(4)]
        learnt.append((losses, trainer.learnt().tolist()))
    assert learnt[0] == learnt[1]


CACHES = {"node_cache": 0.2, "edge_cache": 0.1}


@pytest.mark.parametrize("policy", ["lru", "lfu", "fifo", "static"])
def test_a_cache_changes_no_result(policy: str, tmp_path: Path) -> None:
    """C5: losses, parameters and metrics are the same bits with and without caches."""
    learnt = []
    for knobs in ({}, {**CACHES, "cache_policy": policy}):
        run = flow(TGN, training={"increments": 3, "epochs": 2}, knobs=knobs)
        trainer = trainer_of(run, stream_of(run), tmp_path)
        losses = [trainer.train_period(period) for period in range(4)]
        learnt.append((losses, trainer.learnt().tolist(), trainer.evaluate()))
        rates = trainer.period_metrics()
        assert ("nodes_hit_rate" in rates) is bool(knobs)
    assert learnt[0] == learnt[1]


@pytest.mark.parametrize("approach", ["continuous", "tgl"])
def test_every_rank_reports_the_hits_of_all_that_the_plan_says(approach: str, pools: Any) -> None:
    """C2: the caches of two ranks hit differently; what is reported is of both together."""
    increments = 3 if approach == "continuous" else 0
    run = flow(TGN, training={"increments": increments, "epochs": 2}, knobs=CACHES)
    run = dataclasses.replace(run, approach=approach, ranks=2)
    data = stream_of(run)
    card = APPROACHES.get(approach)
    layout = Layout(world_size=2, ranks_per_host=2)
    planned = card.plan(data, run, card.structure(data, run), layout).notes
    reported = pools.of(2).run("temporal_cases:hit_rates", run, data)
    expected = {name: planned[name] for name in ("nodes_hit_rate", "edges_hit_rate")}
    assert reported == [expected] * 2
    assert 0 < expected["edges_hit_rate"] < 1


@pytest.mark.parametrize("policy", ["lru", "static"])
def test_restored_caches_hit_as_before(policy: str, tmp_path: Path) -> None:
    """C6: epochs that ask for the same edges hit alike: recent neighbours, negatives that stay."""
    knobs = {"edge_cache": 0.2, "cache_policy": policy, "sampling": "recent"}
    run = flow(TGAT, training={"epochs": 3}, knobs=knobs)
    trainer = trainer_of(run, stream_of(run), tmp_path)
    drawn = trainer.structure.candidates
    trainer.structure.candidates = lambda piece, events: drawn(
        dataclasses.replace(piece, counters=(0, 0, 0)), events
    )
    rates = []
    for period in range(3):
        trainer.train_period(period)
        rates.append(trainer.period_metrics()["edges_hit_rate"])
        cached = trainer.source.cached["edges"]
        full = np.flatnonzero(cached.cache.id_of >= 0)
        rows = cached.table[torch.from_numpy(cached.cache.id_of[full])]
        assert torch.equal(cached.buffer[torch.from_numpy(full)], rows), "C2"
    assert rates[0] == rates[1] == rates[2] > 0


def test_replayed_events_have_a_memory_of_their_own(tmp_path: Path) -> None:
    """R2 with M1: replaying old events leaves the memory of the run as it was."""
    tables, learnt = [], []
    for replay in (0.0, 0.5):
        run = flow(
            TGN,
            training={"increments": 3, "epochs": 1, "optimizer": "sgd", "lr": 0.0},
            knobs={"replay": replay},
        )
        trainer = trainer_of(run, stream_of(run), tmp_path)
        for period in range(4):
            trainer.train_period(period)
        tables.append(trainer.source.memory.table.clone())
        run = dataclasses.replace(run, training=dataclasses.replace(run.training, lr=0.01))
        trainer = trainer_of(run, stream_of(run), tmp_path)
        for period in range(4):
            trainer.train_period(period)
        learnt.append(trainer.learnt().clone())
    assert torch.equal(*tables) and not torch.equal(*learnt)


def test_ragged_candidates_score_as_each_event_alone(tmp_path: Path) -> None:
    """E1, E2: batched scores of fixed negatives equal those of one event at a time."""
    run = flow(TGAT, task={"protocol": "tgb", "negatives": 200}, training={"epochs": 1})
    trainer = trainer_of(run, stream_of(run), tmp_path)
    trainer.train_period(0)
    schedule = trainer.structure.schedule
    with trainer.source.passing_by():
        # Some of these events share source and time: they have fewer candidates.
        first = schedule.evaluate(0, 530, 560, 530)[0]
        count, events = 30, np.arange(530, 560, dtype=np.int64)
        whole = dataclasses.replace(first, shares=(events,))
        batch = trainer.net.scores(trainer.source.batch(whole))
        alone = [
            trainer.net.scores(trainer.source.batch(dataclasses.replace(whole, shares=(one,))))
            for one in np.split(events, count)
        ]
    torch.testing.assert_close(batch, torch.cat(alone), rtol=0, atol=1e-12)
    assert len({len(row) for row in alone}) > 1


@pytest.mark.parametrize("model", EVERY, ids=[model["kind"] for model in EVERY])
def test_equal_parameters_give_equal_bits_on_any_number_of_ranks(
    model: dict[str, Any], pools: Any
) -> None:
    """A prediction's chunks are the same for any number of ranks: float32 scores, bit by bit."""
    run = flow(
        model,
        training={"increments": 3, "precision": "float32", "optimizer": "sgd", "lr": 0.0},
        options={"mean_gap": 60.0, "num_features": 3},
        task={"negatives": 9},
    )
    data = stream_of(run)
    scores = [
        pools.of(ranks).run("temporal_cases:predicted", dataclasses.replace(run, ranks=ranks), data)
        for ranks in (1, 3)
    ]
    assert all(np.array_equal(scores[0][0], own) for own in scores[1])
    assert scores[0][0].std() > 0
