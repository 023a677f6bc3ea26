"""What ranks do in tests of `gist`; runs inside pools of ranks."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import torch

from gnnbench.spec import RunSpec
from gnnbench_runtime.conformance.perform import make_trainer


def round_trip(rank: int, world_size: int, run: RunSpec, data: Any) -> list[Any]:
    """The global model before a round and after it, with no training in between; and touched."""
    with tempfile.TemporaryDirectory() as folder:
        trainer, _, _ = make_trainer(rank, world_size, run, data, Path(folder))
        model, before = trainer.model, trainer.model.shard.clone()
        model.dispatch(5, trainer.flat)
        model.aggregate(5, trainer.flat, model.shard)
        same = model.shard.clone()
        model.dispatch(5, trainer.flat)
        trainer.flat.add_(1.0)
        model.aggregate(5, trainer.flat, model.shard)
        touched = model.shard - before
        trainer.close()
    own = slice(0, model.stop - model.start)
    return [t[own].numpy().copy() for t in (before, same, touched)]


def one_after_the_other(rank: int, world_size: int, run: RunSpec, data: Any) -> Any:
    """What a run learns."""
    with tempfile.TemporaryDirectory() as folder:
        trainer, _, _ = make_trainer(rank, world_size, run, data, Path(folder))
        for period in range(run.training.epochs):
            trainer.train_period(period)
        learnt = trainer.learnt().numpy().copy()
        trainer.close()
    return learnt


def sub_logits(rank: int, world_size: int, run: RunSpec, data: Any) -> Any:
    """Logits of the global model, and of its sub-models, before training."""
    with tempfile.TemporaryDirectory() as folder:
        trainer, _, _ = make_trainer(rank, world_size, run, data, Path(folder))
        with torch.no_grad():
            trainer.model.shard[-trainer.cut.shape.dims[-1] :] = 0.25  # a bias that is not zero
        trainer.model.dispatch(0, trainer.flat)
        batch = next(iter(trainer.batches.of_period(0)))
        found = [net.outputs(batch).clone().numpy() for net in trainer.nets]
        whole = dataclasses.replace(run, knobs={**run.knobs, "parts": 1})
        single, _, _ = make_trainer(rank, world_size, whole, data, Path(folder))
        single.model.shard.copy_(trainer.model.shard)
        single.model.dispatch(0, single.flat)
        return single.nets[0].outputs(batch).clone().numpy(), found
