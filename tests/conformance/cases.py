"""What ranks do in exactness tests; runs inside `pool` processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from gnnbench import registry
from gnnbench.approaches.whole_graph.partition import PartitionStructure
from gnnbench.data.graph import Graph
from gnnbench.spec import GraphRef, ModelSpec, RunSpec, TrainingSpec
from gnnbench_runtime.comm import Comm
from gnnbench_runtime.kernels import backend
from gnnbench_runtime.protocol import RankContext
from gnnbench_runtime.recorder import Recorder


def make_run(approach: str, ranks: int, model: dict[str, Any], knobs: dict[str, Any]) -> RunSpec:
    """A float64 run with knobs checked like a suite's."""
    import dataclasses

    problems: list[str] = []
    typed = registry.approach(approach).parse_knobs(knobs, "knobs", problems)
    assert not problems, problems
    return RunSpec(
        suite="test",
        graph=GraphRef(name="g", generator="none"),
        model=ModelSpec(name="m", **model),
        training=TrainingSpec(precision="float64", lr=0.05, weight_decay=1e-3, epochs=3, seed=7),
        approach=approach,
        ranks=ranks,
        knobs=dataclasses.asdict(typed),
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
    from importlib import import_module

    device, kept = torch.device("cpu"), KeepRows()
    recorder = Recorder(device, writer=kept)  # type: ignore[arg-type]
    comm = Comm(recorder, rank=rank, world_size=world_size, device=device)
    context = RankContext(
        run=run, rank=rank, world_size=world_size, device=device, comm=comm, recorder=recorder,
        kernels=backend(device, 1), cache=Path("."),
    )  # fmt: skip
    approach = registry.approach(run.approach)
    module, _, name = approach.runtime.partition(":")
    if structure is None:
        structure = approach.structure(graph, run)
    return getattr(import_module(module), name)(context, graph, structure), recorder, kept


def train_full(
    rank: int, world_size: int, graph: Graph, run: RunSpec, assignment: Any = None, epochs: int = 5
) -> dict[str, Any]:
    """First-step loss, logits and gradients, then parameters after `epochs` Adam steps."""
    structure = None
    if assignment is not None:
        structure = PartitionStructure.of_assignment(graph, assignment, world_size)
    trainer, recorder, kept = make_trainer(rank, world_size, run, graph, structure)
    recorder.epoch_begin(0)
    logits = trainer.gradients((run.training.seed, 0)).clone().numpy()
    trainer.all_reduce()
    loss, gradient = float(trainer.parameters.loss), trainer.parameters.gradient.clone().numpy()
    trainer.update()
    sent = recorder.epoch_end()
    for epoch in range(1, epochs):
        recorder.epoch_begin(epoch)
        trainer.train_epoch(epoch)
        recorder.epoch_end()
    with recorder.evaluating():
        accuracy = trainer.evaluate()
    return {
        "rows": trainer.row_ids.numpy(),
        "logits": logits,
        "loss": loss,
        "gradient": gradient,
        "parameters": trainer.parameters.flat.numpy().copy(),
        "accuracy": accuracy,
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
        recorder.epoch_begin(epoch)
        losses.append(trainer.train_epoch(epoch))
        sent.append(recorder.epoch_end())
    with recorder.evaluating():
        accuracy = trainer.evaluate()
    return {
        "losses": losses,
        "parameters": trainer.parameters.flat.numpy().copy(),
        "accuracy": accuracy,
        "sent": sent,
        "ledger": kept.rows,
    }


def dense_reference(graph: Graph, run: RunSpec) -> tuple[float, np.ndarray, np.ndarray]:
    """Loss, logits and flat gradient by autograd on dense matrices: independent of our kernels."""
    n, model = graph.num_nodes, registry.model(run.model.kind)
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
    from gnnbench_runtime.models.parameters import Parameters

    dims = model.dims(run.model, graph.num_features, graph.num_classes)
    held = Parameters(model, dims, run.training.seed, torch.device("cpu"), torch.float64)
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
