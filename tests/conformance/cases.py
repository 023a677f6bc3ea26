"""What ranks do in exactness tests; runs inside `pool` processes."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.whole_graph.partition import PartitionStructure
from gnnbench.data.graph import Graph
from gnnbench.models.names import MODELS
from gnnbench.spec import BatchSpec, DatasetRef, ModelSpec, RunSpec, TrainingSpec
from gnnbench_runtime.comm import Comm
from gnnbench_runtime.kernels import backend
from gnnbench_runtime.models.parameters import Parameters
from gnnbench_runtime.protocol import RankContext
from gnnbench_runtime.recorder import Recorder


def make_run(
    approach: str,
    ranks: int,
    model: dict[str, Any],
    knobs: dict[str, Any],
    *,
    batch: dict[str, Any] | None = None,
    **training: Any,
) -> RunSpec:
    """A float64 run with knobs checked like a suite's."""
    problems: list[str] = []
    parsed = APPROACHES.get(approach).parse_knobs(knobs, "knobs", problems)
    assert not problems and parsed is not None, problems
    settings: dict[str, Any] = {
        "precision": "float64",
        "lr": 0.05,
        "weight_decay": 1e-3,
        "epochs": 3,
        "seed": 7,
    }
    return RunSpec(
        suite="test",
        dataset=DatasetRef(name="g", generator="none"),
        model=ModelSpec(name="m", **model),
        batch=BatchSpec(**(batch or {})),
        training=TrainingSpec(**{**settings, **training}),
        approach=approach,
        ranks=ranks,
        knobs=parsed,
    )


class KeepRows:
    """A ledger writer that keeps rows in memory."""

    def __init__(self) -> None:
        self.rows: list[Any] = []

    def append(self, rows: Any) -> None:
        self.rows += list(rows)

    def close(self) -> None:
        pass


def make_trainer(
    rank: int, world_size: int, run: RunSpec, graph: Graph, structure: Any = None
) -> tuple[Any, Recorder, KeepRows]:
    device, kept = torch.device("cpu"), KeepRows()
    recorder = Recorder(device, writer=kept)  # type: ignore[arg-type]
    comm = Comm(recorder, rank=rank, world_size=world_size, device=device)
    context = RankContext(
        run=run,
        rank=rank,
        world_size=world_size,
        device=device,
        comm=comm,
        recorder=recorder,
        kernels=backend(device, 1),
        cache=Path("."),
    )
    approach = APPROACHES.get(run.approach)
    module, _, name = approach.runtime.partition(":")
    if structure is None:
        structure = approach.structure(graph, run)
    return getattr(import_module(module), name)(context, graph, structure), recorder, kept


def train_full(
    rank: int, world_size: int, graph: Graph, run: RunSpec, assignment: Any = None, epochs: int = 5
) -> dict[str, Any]:
    """First-step loss, logits and gradients, then parameters after `epochs` optimiser steps."""
    structure = None
    if assignment is not None:
        structure = PartitionStructure.of_assignment(graph, assignment, world_size)
    trainer, recorder, kept = make_trainer(rank, world_size, run, graph, structure)
    recorder.period_begin(0)
    batch = next(iter(trainer.batches.of_period(0)))
    logits = trainer.net.gradients(batch).clone().numpy()
    trainer.all_reduce()
    loss, gradient = float(trainer.parameters.loss), trainer.parameters.gradient.clone().numpy()
    trainer.update()
    sent = recorder.period_end()
    for epoch in range(1, epochs):
        recorder.period_begin(epoch)
        trainer.train_period(epoch)
        recorder.period_end()
    with recorder.evaluating():
        metrics = trainer.evaluate()
    return {
        "rows": batch.row_ids[-1].numpy(),
        "logits": logits,
        "loss": loss,
        "gradient": gradient,
        "parameters": trainer.parameters.flat.numpy().copy(),
        "metrics": metrics,
        "sent": sent,
        "ledger": kept.rows,
    }


def train_sampled(
    rank: int, world_size: int, graph: Graph, run: RunSpec, epochs: int = 2
) -> dict[str, Any]:
    """Train sampled epochs; return losses, parameters, ledger and bytes per epoch."""
    trainer, recorder, kept = make_trainer(rank, world_size, run, graph)
    losses, sent = [], []
    for epoch in range(epochs):
        recorder.period_begin(epoch)
        losses.append(trainer.train_period(epoch))
        sent.append(recorder.period_end())
    with recorder.evaluating():
        metrics = trainer.evaluate()
    return {
        "losses": losses,
        "parameters": trainer.parameters.flat.numpy().copy(),
        "metrics": metrics,
        "sent": sent,
        "ledger": kept.rows,
    }


def train_cached(rank: int, world_size: int, graph: Graph, run: RunSpec) -> dict[str, Any]:
    """Train all epochs; return what each counted of the feature caches, and the ledger."""
    trainer, recorder, kept = make_trainer(rank, world_size, run, graph)
    counts = []
    for epoch in range(run.training.epochs):
        recorder.period_begin(epoch)
        trainer.train_period(epoch)
        recorder.period_end()
        counts.append(trainer.period_metrics())
    trainer.close()
    return {"counts": counts, "ledger": kept.rows}


def dense_reference(graph: Graph, run: RunSpec) -> tuple[float, np.ndarray, np.ndarray]:
    """Loss, logits and flat gradient by autograd on dense matrices: independent of our kernels."""
    n, model = graph.num_nodes, MODELS.get(run.model.kind)
    a = torch.zeros((n, n), dtype=torch.float64)
    for v in range(n):
        a[v, graph.indices[graph.indptr[v] : graph.indptr[v + 1]]] = 1.0
    incoming, outgoing = a.sum(1), a.sum(0)
    if model.normalisation == "symmetric":
        a = (
            (a + torch.eye(n))
            / torch.sqrt(incoming + 1)[:, None]
            / torch.sqrt(outgoing + 1)[None, :]
        )
    else:
        a = a / incoming.clamp(min=1)[:, None]
    dims = model.dims(run.model, graph.num_features, graph.num_classes)
    shapes = model.parameters(dims)
    held = Parameters(shapes, run.training.seed, torch.device("cpu"), torch.float64)
    values = {k: v.clone().requires_grad_() for k, v in held.value.items()}
    h = torch.from_numpy(np.asarray(graph.features)).double()
    for layer in range(1, len(dims)):
        y = a @ h @ values[f"weight_{layer}"] + values[f"bias_{layer}"]
        if model.self_weight:
            y = y + h @ values[f"self_weight_{layer}"]
        h = y.relu() if layer < len(dims) - 1 else y
    train = torch.from_numpy(graph.train_nodes())
    labels = torch.from_numpy(np.asarray(graph.labels)).long()
    loss = torch.nn.functional.cross_entropy(h[train], labels[train])
    loss.backward()
    flat = torch.cat([values[name].grad.reshape(-1) for name in held.value])
    return float(loss.detach()), h.detach().numpy(), flat.numpy()
