"""The pipeline of `out-of-core`: invariants 19, 20 and 29 of the out-of-core reference."""

from __future__ import annotations

import dataclasses
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the runtime extra")

import torch
from out_of_core_cases import learnt

from gnnbench.approaches.base import Layout, example
from gnnbench.approaches.out_of_core.out_of_core import APPROACH
from gnnbench.cluster import load_cluster
from gnnbench.data.source import Library
from gnnbench.spec import RunSpec
from gnnbench.steps import Lane
from gnnbench_runtime.approaches.out_of_core.link_stages import train_visit
from gnnbench_runtime.approaches.out_of_core.links import LinkTrainer
from gnnbench_runtime.conformance.perform import make_trainer
from gnnbench_runtime.stages import Stages

LINKS: dict[str, Any] = {
    "kind": "triples",
    "model": {"kind": "embedding", "decoder": "complex"},
    "batch": {"size": 16, "negatives": 10},
    "training": {"optimizer": "adagrad", "epochs": 2},
}
TRIPLES = Library([]).open(example("out-of-core", 1, **LINKS).dataset)


def run_of(staleness: int, **knobs: Any) -> RunSpec:
    sizes = {"partitions": 4, "buffer": 2, **knobs, "staleness": staleness}
    return example("out-of-core", 1, knobs=sizes, **LINKS)


@contextmanager
def trainer_of(run: RunSpec) -> Iterator[LinkTrainer]:
    with tempfile.TemporaryDirectory() as folder:
        trainer, _, _ = make_trainer(0, 1, run, TRIPLES, Path(folder))
        try:
            yield trainer
        finally:
            trainer.close()


def one_after_another(run: RunSpec, staleness: int) -> Any:
    """What is learnt in one thread when each batch is updated `staleness` batches late."""
    synchronous = dataclasses.replace(run, knobs={**run.knobs, "staleness": 0})
    with trainer_of(synchronous) as trainer:
        for period in range(run.training.epochs):
            for turn in trainer.turns(period):
                late: list[Any] = []
                for at in range(turn.count):
                    batch = trainer.gather(trainer.draw(turn, at))
                    if len(late) == staleness and late:
                        trainer.apply(*late.pop(0), "update")
                    _, gradient = trainer.compute(batch)
                    late.append((batch, gradient))
                    if not staleness:
                        trainer.apply(*late.pop(0), "update")
                for item in late:
                    trainer.apply(*item, "update")
        return trainer.learnt().numpy().copy()


@pytest.mark.parametrize("staleness", [1, 2, 5, 40])
def test_rows_lack_exactly_the_updates_of_k_batches(staleness: int) -> None:
    """To the bit: nothing is lost or doubled, though stages run at the same time (invariant 20)."""
    run = run_of(staleness)
    assert np.array_equal(learnt(run, TRIPLES), one_after_another(run, staleness))


def test_stale_rows_learn_something_else() -> None:
    assert not np.array_equal(learnt(run_of(2), TRIPLES), learnt(run_of(0), TRIPLES))
    assert np.array_equal(learnt(run_of(0), TRIPLES), one_after_another(run_of(0), 0))


def test_a_pipeline_of_one_batch_is_the_synchronous_loop() -> None:
    """Invariant 19."""
    wanted = learnt(run_of(0), TRIPLES)
    with trainer_of(run_of(0)) as trainer:
        for period in range(2):
            for turn in trainer.turns(period):
                train_visit(trainer, turn, torch.zeros(1, dtype=torch.float64))
        assert trainer.most_stale == 0
        assert np.array_equal(trainer.learnt().numpy(), wanted)


@pytest.mark.parametrize("slow", ["draw", "gather", "compute", "apply"])
def test_a_slow_stage_changes_nothing(slow: str, monkeypatch: Any) -> None:
    wanted = learnt(run_of(2), TRIPLES)
    method = getattr(LinkTrainer, slow)

    def slowed(*given: Any) -> Any:
        time.sleep(0.003)
        return method(*given)

    monkeypatch.setattr(LinkTrainer, slow, slowed)
    with trainer_of(run_of(2)) as trainer:
        for period in range(2):
            trainer.train_period(period)
        assert trainer.most_stale == 2
        assert np.array_equal(trainer.learnt().numpy(), wanted)


@pytest.mark.parametrize("broken", ["draw", "gather", "compute", "apply"])
def test_a_stage_that_fails_stops_all_others_and_is_raised(broken: str, monkeypatch: Any) -> None:
    """Invariant 29: no thread stays behind."""
    before, method, calls = threading.active_count(), getattr(LinkTrainer, broken), []

    def breaks(*given: Any) -> Any:
        calls.append(broken)
        if len(calls) == 5:
            raise OSError("the disk is gone")
        return method(*given)

    monkeypatch.setattr(LinkTrainer, broken, breaks)
    with pytest.raises(OSError, match="the disk is gone"):
        learnt(run_of(3), TRIPLES)
    assert threading.active_count() == before


def test_stages_hand_over_in_order_and_never_hold_more_than_their_bound() -> None:
    most, taken = 0, []
    with Stages() as stages:
        numbers, squares = stages.channel(2), stages.channel(3)
        put = 0

        def count() -> None:
            nonlocal put
            for number in range(50):
                numbers.put(number)
                put += 1

        stages.start("count", count)
        stages.start("square", lambda: [squares.put(numbers.get() ** 2) for _ in range(50)])
        for _ in range(50):
            time.sleep(0.0005)
            taken.append(squares.get())
            most = max(most, put - len(taken))
    assert taken == [number**2 for number in range(50)]
    assert most <= 2 + 3 + 2  # both queues are full, one is in a stage and one was just taken


def test_the_pipeline_is_planned_as_lanes_that_overlap() -> None:
    """The same work; the decoder no longer waits for the rows."""
    from gnnbench_simulator.predict import predict_plan

    layout = Layout(world_size=1, ranks_per_host=1)
    seconds, lanes = [], []
    for staleness in (0, 3):
        run = dataclasses.replace(
            run_of(staleness, partitions=2, buffer=2),
            model=dataclasses.replace(run_of(0).model, hidden=256),
        )
        structure = APPROACH.structure(TRIPLES, run)
        plan = APPROACH.plan(TRIPLES, run, structure, layout)
        plan.validate()
        seconds.append(predict_plan(plan, load_cluster("cpu-2core")).period_s)
        lanes.append({step.lane for iteration in plan.of_period(0) for step in iteration[0]})
    assert seconds[1] < seconds[0]
    assert lanes[0] == {Lane.COMPUTE, Lane.DISK}
    assert lanes[1] == {Lane.COMPUTE, Lane.DISK, Lane.HOST, Lane.HOST.at(1)}
