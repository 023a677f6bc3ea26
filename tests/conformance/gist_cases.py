"""What ranks do in tests of `gist`; runs inside pools of ranks."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import torch

from gnnbench.spec import RunSpec
from gnnbench_runtime.approaches.mini_batch.sampled import FullGraphEvaluator
from gnnbench_runtime.conformance.perform import TensorMeter, make_trainer
from gnnbench_runtime.models.parameters import Parameters


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


class CappedMeter(TensorMeter):
    """Raises as soon as more bytes of tensors live than a cap allows."""

    def __init__(self, cap_bytes: int) -> None:
        super().__init__()
        self.cap_bytes = cap_bytes

    def _see(self, storage: Any) -> None:
        super()._see(storage)
        if self.live_bytes > self.cap_bytes:
            raise MemoryError(f"{self.live_bytes} bytes of tensors, {self.cap_bytes} allowed")


def capped(rank: int, world_size: int, run: RunSpec, data: Any, cap_bytes: int) -> Any:
    """Losses and metrics of a run within a cap, or why it ended."""
    with tempfile.TemporaryDirectory() as folder, CappedMeter(cap_bytes):
        try:
            trainer, _, _ = make_trainer(rank, world_size, run, data, Path(folder))
            losses = [trainer.train_period(period) for period in range(run.training.epochs)]
            return losses, trainer.evaluate()
        except MemoryError as error:
            return str(error)


def evaluations(rank: int, world_size: int, run: RunSpec, data: Any, piece: int) -> Any:
    """Logits of the trained model, streamed in pieces and by the whole model at once."""
    from gnnbench.approaches.mini_batch import submodels
    from gnnbench_runtime.approaches.mini_batch import streamed

    found: list[Any] = []

    class Kept(streamed._StreamedTrainer):
        def whole_logits(self) -> Any:
            found.append(super().whole_logits().clone().numpy())
            return torch.from_numpy(found[-1])

    evaluator = streamed.StreamedEvaluator
    kept = submodels.PIECE_ELEMENTS, evaluator.trainer_type
    submodels.PIECE_ELEMENTS, evaluator.trainer_type = piece, Kept
    try:
        with tempfile.TemporaryDirectory() as folder:
            trainer, _, _ = make_trainer(rank, world_size, run, data, Path(folder))
            trainer.train_period(0)
            metrics = trainer.evaluate()
            context = trainer.context
            held = Parameters(
                trainer.cut.shapes, 0, context.device, context.dtype, flat=trainer.learnt()
            )
            whole = FullGraphEvaluator(context, data, held).evaluate()
            logits = whole_logits(context, data, held)
            trainer.close()
    finally:
        submodels.PIECE_ELEMENTS, evaluator.trainer_type = kept
    return found[0], logits, metrics, whole


def whole_logits(context: Any, data: Any, held: Parameters) -> Any:
    """Logits of the own vertices by the model in one piece."""
    import numpy as np

    from gnnbench.approaches.whole_graph.partition import PartitionStructure
    from gnnbench.approaches.whole_graph.rows import RowSizes
    from gnnbench.approaches.writing.shape import stack_shape
    from gnnbench_runtime.approaches.whole_graph.partition import PartitionTrainer

    n, world = data.num_nodes, context.world_size
    owner = (np.arange(n, dtype=np.int64) * world // n).astype(np.int32)
    structure = PartitionStructure(sizes=RowSizes.whole(data), assignment=owner)
    shape = stack_shape(data, context.run, "min_width")
    return (
        PartitionTrainer(context, data, structure, parameters=held, shape=shape)
        .whole_logits()
        .clone()
        .numpy()
    )
