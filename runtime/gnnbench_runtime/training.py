"""Trainers by composition: batches x net x optimizer x evaluator.

An approach writes one of the four, or an exchange, and takes the others from here:

- batches: source of prepared input (the whole graph, a sampler with a feature store, ...); - net:
forward, loss and backward of one batch (a stack of layers, or a torch module); - optimizer: updates
the parameters (see `optimizers`); - evaluator: the task's metrics.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol

import torch
from torch import Tensor

from gnnbench.approaches.writing.shape import StackShape
from gnnbench.steps import Lane, Phase
from gnnbench_runtime.models.parameters import Parameters
from gnnbench_runtime.models.stack import Stack
from gnnbench_runtime.optimizers import Optimizer, make_optimizer
from gnnbench_runtime.protocol import RankContext
from gnnbench_runtime.reading import on_host


@dataclass(slots=True, kw_only=True)
class Batch:
    """Input of one optimiser step on this rank, ready to train on.

    Args:
        x: input rows, (u, d_0).
        aggregations: one per layer, input layer first.
        row_ids: global vertex ids of the rows of H_0 ... H_{L-1}, which key dropout.
        labels: of the output rows.
        rows: output rows that the loss counts, int64.
        scale: of each row's loss: 1 / rows of all ranks.
        counters: (seed, epoch, ...) that key dropout.
        weights: of the losses of `rows`; ones where absent.
        share: what part of the period's loss the batch's mean loss is.
    """

    x: Tensor
    aggregations: Sequence[Any]
    row_ids: Sequence[Tensor]
    labels: Tensor
    rows: Tensor
    scale: float
    counters: tuple[int, ...]
    weights: Tensor | None = None
    share: float = 1.0


class Batches(Protocol):
    """A source of prepared input."""

    def of_period(self, period: int) -> Iterator[Batch]:
        """Yield the batches of a period in order. A batch is used up when the next is asked for."""

    def close(self) -> None:
        """Stop threads."""


class Evaluator(Protocol):
    """Measures a task's metrics."""

    def evaluate(self) -> dict[str, float]:
        """Return metrics by name, equal on every rank."""


class Net(Protocol):
    """A model with its parameters: forward, loss and backward of a batch."""

    parameters: Parameters

    def outputs(self, batch: Batch) -> Tensor:
        """The model's outputs for a batch, as in training."""

    def gradients(self, batch: Batch) -> Tensor:
        """Fill gradient and loss with this rank's share; return the outputs."""


class StackNet:
    """A stack of layers with a softmax cross-entropy over labelled rows."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.parameters = stack, stack.parameters

    def outputs(self, batch: Batch) -> Tensor:
        """The logits."""
        return self.stack.forward(
            batch.x, batch.aggregations, row_ids=batch.row_ids, counters=batch.counters
        )

    def gradients(self, batch: Batch) -> Tensor:
        """Fill this rank's share of loss and gradient; return the logits."""
        logits = self.outputs(batch)
        self.stack.loss(logits, batch.labels, batch.rows, batch.scale, batch.weights)
        self.stack.backward()
        self.stack.forget()
        return logits


class StepTrainer:
    """One rank of synchronous training: every batch is one optimiser step of all ranks.

    Subclasses set the parts in their constructor: `context`, `batches`, `net`, `optimizer` and
    `evaluator`.
    """

    context: RankContext
    batches: Batches
    net: Net
    optimizer: Optimizer
    evaluator: Evaluator

    @property
    def parameters(self) -> Parameters:
        return self.net.parameters

    def warm_up(self) -> None:
        """Nothing: the rehearsal has compiled everything."""

    def train_period(self, period: int) -> float:
        """Train on every batch of a period; return the mean loss."""
        total: Tensor | None = None
        batches = self.batches.of_period(period)
        for number in count():
            batch = next(batches, None)
            if batch is None:
                break
            self.context.recorder.at(number)
            self.net.gradients(batch)
            self.all_reduce()
            self.update()
            share = self.parameters.loss * batch.share
            total = share if total is None else total + share
            del batch  # so that its memory is free before the next one is made
        return 0.0 if total is None else float(on_host(total)[0])

    def all_reduce(self) -> None:
        """Sum gradients and loss over ranks, in one collective."""
        self.context.comm.all_reduce(self.parameters.flat_grad, "sync/gradients", Phase.SYNC)

    def update(self, *, lane: Lane = Lane.COMPUTE) -> None:
        """One step of the optimizer."""
        self.optimizer.step(lane=lane)

    def is_finite(self) -> bool:
        """Whether all parameters are finite."""
        return bool(torch.isfinite(self.parameters.flat).all())

    def learnt(self) -> Tensor:
        """All parameters as one vector."""
        return self.parameters.flat

    def outputs(self, period: int) -> tuple[Tensor, Tensor]:
        """Vertex ids and logits of all batches of a period.

        All batches are used, because ranks that prepare batches must stop at the same place.
        """
        ids, logits = [], []
        for batch in self.batches.of_period(period):
            logits.append(self.net.outputs(batch).clone())
            ids.append(batch.row_ids[-1][: len(logits[-1])])
        return torch.cat(ids), torch.cat(logits)

    def evaluate(self) -> dict[str, float]:
        """Metrics of the whole dataset."""
        return self.evaluator.evaluate()

    def period_metrics(self) -> dict[str, float]:
        """None: metrics are measured by `evaluate`."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """Parameters and the optimizer's state."""
        return {"parameters": self.parameters.flat, **self.optimizer.state()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Copy a state into this trainer's own tensors."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])
        self.optimizer.restore(state)

    def close(self) -> None:
        """Stop the source of batches."""
        self.batches.close()


def make_parameters(context: RankContext, shape: StackShape) -> Parameters:
    """The parameters of a stack, drawn by the run's seed."""
    shapes = shape.model.parameters(shape.dims, shape.heads, norm=shape.norm)
    seed = context.run.training.seed
    return Parameters(shapes, seed, context.device, context.dtype)


def optimizer_of(context: RankContext, parameters: Parameters) -> Optimizer:
    """The run's optimizer."""
    training = context.run.training
    return make_optimizer(parameters, training, context.recorder, context.kernels)
