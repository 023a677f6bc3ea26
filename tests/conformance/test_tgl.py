"""TGL against a serial simulation of its schedule: invariants M1, M3, M4 of the temporal reference.

The simulation keeps every version of the memory: batch x is read from the one that batches 0 ...
x - 2 left, and its write goes into the newest one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the runtime extra")

import torch

from gnnbench.approaches.base import example
from gnnbench.data.source import Library
from gnnbench.data.stream import EdgeStream
from gnnbench.spec import RunSpec
from gnnbench_runtime.conformance.perform import make_trainer

TGN: dict[str, Any] = {"kind": "tgn", "layers": 1, "heads": 2}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As a rank has: the threads of a reader and of a trainer would wait for each other's cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def flow(ranks: int = 1, *, staleness: int = 1, **fields: Any) -> RunSpec:
    usual: dict[str, Any] = {
        "model": TGN,
        "batch": {"size": 60, "fanouts_from_seeds": (4,)},
        "training": {"lr": 0.001, "epochs": 2, **fields.pop("training", {})},
        "options": {"mean_gap": 2.0, "num_features": 3},
        "task": {"negatives": 4},
        "knobs": {"staleness": staleness},
    }
    return example("tgl", ranks, kind="stream", **{**usual, **fields})


def stream_of(run: RunSpec) -> EdgeStream:
    found: EdgeStream = Library([]).open(run.dataset)
    return found


def trainer_of(run: RunSpec, data: EdgeStream, folder: Path) -> Any:
    trainer, _, _ = make_trainer(0, 1, run, data, folder)
    return trainer


def simulated(run: RunSpec, data: EdgeStream, folder: Path) -> tuple[list[float], np.ndarray]:
    """Losses and parameters of the schedule, by a loop over batches with versions of the memory."""
    trainer = trainer_of(dataclasses.replace(run, ranks=1), data, folder)
    source, memory, losses = trainer.source, trainer.source.memory, []
    late = trainer.knobs.staleness

    def now() -> dict[str, torch.Tensor]:
        return {name: tensor.clone() for name, tensor in memory.state().items()}

    def turn_to(version: dict[str, torch.Tensor]) -> None:
        for name, tensor in memory.state().items():
            tensor.copy_(version[name])

    for period in range(run.training.epochs):
        total = 0.0
        for number, piece in enumerate(trainer.structure.pieces[period]):
            source.ingest(piece)
            if number == 0:
                memory.turn(piece, period)
                versions = [now()]  # versions[x]: after the writes of batches 0 ... x - 1
            turn_to(versions[max(number - late, 0)])
            read = memory.stored(piece)
            trainer._step(source.batch(piece, (period, number)), piece)
            total += float(trainer.net.parameters.loss) * piece.share
            turn_to(versions[-1])
            memory.write(piece, trainer.net.ends, read)
            versions.append(now())
        losses.append(total)
    learnt = trainer.learnt().numpy().copy()
    trainer.close()
    return losses, learnt


@pytest.mark.parametrize(("ranks", "staleness"), [(2, 1), (3, 1), (2, 0)])
def test_ranks_learn_what_the_serial_schedule_learns(
    ranks: int, staleness: int, pools: Any, tmp_path: Path
) -> None:
    """M4, with dropout and batches that do not divide by the ranks."""
    model = {**TGN, "dropout": 0.1}
    run = flow(ranks, staleness=staleness, model=model, knobs={"staleness": staleness, "chunks": 3})
    data = stream_of(run)
    losses, learnt = simulated(run, data, tmp_path)
    performed = pools.of(ranks).run("gnnbench_runtime.conformance.perform:perform", run, data)
    for found in performed:
        assert np.abs(np.subtract(found.losses, losses)).max() <= 1e-9
        assert np.abs(found.learnt - learnt).max() <= 1e-8


def test_the_thread_changes_no_bit(tmp_path: Path) -> None:
    """M3: the reading thread and the serial schedule learn the same bits in one process."""
    run = flow()
    data = stream_of(run)
    _, learnt = simulated(run, data, tmp_path)
    trainer = trainer_of(run, data, tmp_path)
    for period in range(run.training.epochs):
        trainer.train_period(period)
    assert np.array_equal(trainer.learnt().numpy(), learnt)
    trainer.close()


def test_memory_is_that_of_plain_torch(tmp_path: Path) -> None:
    """M3, M4: after a pass it equals a loop over batches and nodes, one step late."""
    run = flow(training={"epochs": 1, "optimizer": "sgd", "lr": 0.0})
    data = stream_of(run)
    trainer = trainer_of(run, data, tmp_path)
    trainer.train_period(0)
    gru, d = trainer.net.modules["updater"], run.model.hidden
    edges = torch.from_numpy(np.array(data.edge_features)).double()
    times = data.times.tolist()
    # Memory, other end's memory, event, time applied. A message is both memories and the event.
    Node = tuple[torch.Tensor, torch.Tensor | None, int, float]
    empty: Node = torch.zeros(d, dtype=torch.float64), None, -1, 0.0
    state: dict[int, Node] = {}
    before: dict[int, Node] = {}  # the version that the next batch reads

    def updated(node: Node) -> torch.Tensor:
        memory, message, event, applied = node
        if message is None:
            return memory
        age = torch.tensor([times[event] - applied], dtype=torch.float64)
        one, row = torch.ones(1, dtype=torch.float64), torch.empty(1, 0, dtype=torch.float64)
        place = torch.zeros(1, dtype=torch.int64)
        held = torch.cat([memory, message]).unsqueeze(0)
        with torch.no_grad():
            return gru(held, edges[event : event + 1], age, one, place, row)[0]

    for at in range(0, data.train_end, 60):
        read, before = before, dict(state)
        batch = range(at, min(at + 60, data.train_end))
        pairs = [(int(data.sources[e]), int(data.destinations[e])) for e in batch]
        fresh = {v: updated(read.get(v, empty)) for pair in pairs for v in pair}
        for e, (u, v) in zip(batch, pairs, strict=True):
            for own, its in ((v, u), (u, v)):
                _, message, event, _ = read.get(own, empty)
                applied = times[e] if message is None else times[event]
                state[own] = fresh[own], fresh[its], e, float(applied)
    table = trainer.source.memory.table
    for v, (memory, message, event, _) in state.items():
        torch.testing.assert_close(table[v, :d], memory, rtol=0, atol=1e-12)
        torch.testing.assert_close(table[v, d:], message, rtol=0, atol=1e-12)
        assert trainer.source.memory.clock.event[v] == event
    ages = trainer.source.memory.clock.read(np.array(list(state))).ages
    assert ages.tolist() == [times[e] - applied for _, _, e, applied in state.values()]
    trainer.close()


@pytest.mark.parametrize("staleness", [0, 1])
def test_a_cache_changes_no_result(staleness: int, tmp_path: Path) -> None:
    """C5: the same bits with and without caches, also where a thread asks them ahead."""
    caches = {"node_cache": 0.2, "edge_cache": 0.1, "cache_policy": "lru"}
    learnt, rates = [], []
    for knobs in ({}, caches):
        run = flow(knobs={"staleness": staleness, **knobs})
        trainer = trainer_of(run, stream_of(run), tmp_path)
        losses = [trainer.train_period(period) for period in range(2)]
        rates.append(trainer.period_metrics())
        learnt.append((losses, trainer.learnt().tolist(), trainer.evaluate()))
        trainer.close()
    assert learnt[0] == learnt[1]
    assert not rates[0] and 0 < rates[1]["edges_hit_rate"] < 1


def test_staleness_matters_to_memory_alone(tmp_path: Path) -> None:
    """A model without memory learns the same bits late or not; one with memory does not."""
    for model, same in ((TGN, False), ({"kind": "graphmixer", "layers": 1}, True)):
        losses = []
        for staleness in (0, 1):
            run = flow(staleness=staleness, model=model)
            trainer = trainer_of(run, stream_of(run), tmp_path)
            losses.append([trainer.train_period(period) for period in range(2)])
            trainer.close()
        assert (losses[0] == losses[1]) is same


def test_the_future_does_not_move_a_score(tmp_path: Path) -> None:
    """M1: other endpoints and features from event 300 on."""
    run = flow()
    data = stream_of(run)
    start = int(np.searchsorted(data.times, data.times[300]))
    rng = np.random.default_rng(0)
    ends, rows = data.destinations.copy(), np.array(data.edge_features)
    ends[start:] = rng.integers(0, data.num_nodes, len(ends) - start)
    rows[start:] += 1.0
    other = dataclasses.replace(data, destinations=ends, edge_features=rows)
    scores = []
    for stream in (data, other):
        trainer = trainer_of(run, stream, tmp_path)
        ids, values = trainer.outputs(0)
        scores.append(values.numpy()[(ids < start // 60 * 60).numpy()])
        trainer.close()
    assert np.array_equal(*scores) and scores[0].std() > 0


def test_what_the_reading_thread_raises_reaches_the_trainer(tmp_path: Path) -> None:
    run = flow()
    trainer = trainer_of(run, stream_of(run), tmp_path)
    drawn = trainer.structure.draw
    calls: list[int] = []

    def broken(*asked: Any) -> Any:
        calls.append(0)
        if len(calls) == 3:
            raise OSError("the disk is gone")
        return drawn(*asked)

    trainer.structure.draw = broken
    with pytest.raises(OSError, match="the disk is gone"):
        trainer.train_period(0)
    trainer.close()
