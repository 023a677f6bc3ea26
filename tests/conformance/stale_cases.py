"""What ranks do in tests of `bns` and `pipegcn`, and dense models of what they should do."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from cases import make_trainer
from torch import Tensor

from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.whole_graph.partition import PartitionStructure
from gnnbench.approaches.writing.shape import stack_shape
from gnnbench.data.graph import Graph
from gnnbench.models.names import MODELS
from gnnbench.spec import RunSpec
from gnnbench.steps import Phase
from gnnbench_runtime.models.parameters import Parameters


def trainer_of(
    rank: int, world_size: int, graph: Graph, run: RunSpec, assignment: Any
) -> tuple[Any, Any, Any]:
    structure = None
    if assignment is not None:
        structure = PartitionStructure.of_assignment(graph, assignment, world_size)
    return make_trainer(rank, world_size, run, graph, structure)


def train(
    rank: int, world_size: int, graph: Graph, run: RunSpec, assignment: Any, epochs: int
) -> dict[str, Any]:
    """Losses, parameters, bytes and ledger of some epochs."""
    trainer, recorder, kept = trainer_of(rank, world_size, graph, run, assignment)
    losses, sent = [], []
    for epoch in range(epochs):
        recorder.period_begin(epoch)
        losses.append(trainer.train_period(epoch))
        sent.append(recorder.period_end())
    trainer.close()
    recorder.close()
    return {
        "rows": trainer.batches.row_ids.numpy(),
        "losses": losses,
        "parameters": trainer.parameters.flat.numpy().copy(),
        "sent": sent,
        "ledger": kept.rows,
    }


def frozen(
    rank: int, world_size: int, graph: Graph, run: RunSpec, assignment: Any, epochs: int
) -> dict[str, Any]:
    """Logits and summed gradients of epochs that change no weight."""
    trainer, _, _ = trainer_of(rank, world_size, graph, run, assignment)
    logits, gradients = [], []
    for epoch in range(epochs):
        batch = next(iter(trainer.batches.of_period(epoch)))
        logits.append(trainer.net.gradients(batch).clone().numpy())
        trainer.all_reduce()
        gradients.append(trainer.parameters.gradient.clone().numpy())
    trainer.close()
    return {"rows": trainer.batches.row_ids.numpy(), "logits": logits, "gradients": gradients}


def watched(rank: int, world_size: int, graph: Graph, run: RunSpec, epochs: int) -> dict[str, Any]:
    """What the aggregations of the last layer were given, and the age of everything taken."""
    trainer, _, _ = trainer_of(rank, world_size, graph, run, None)
    stale, comm = trainer.stale, trainer.context.comm
    ages, under_way, halos = set(), [], []
    begin, wait_all = comm.all_to_all_async, {k: c.wait for k, c in stale.channels.items()}

    def taking(key: Any) -> Any:
        def wait() -> None:
            if stale.epoch > 0:
                ages.add(stale.epoch - stale.channels[key].sent_in)
            wait_all[key]()

        return wait

    def counted(output: Tensor, *rest: Any, **named: Any) -> Any:
        mine = [c for c in stale.channels.values() if c.arrived_tF is output]
        under_way.append(1 + sum(c.pending is not None for c in mine))
        return begin(output, *rest, **named)

    for key, channel in stale.channels.items():
        channel.wait = taking(key)
    comm.all_to_all_async = counted
    n = trainer.batches.aggregation.rows
    for epoch in range(epochs):
        trainer.train_period(epoch)
        halos.append(float(trainer.batches.x[n:].abs().max()))
    for channel, wait in zip(stale.channels.values(), wait_all.values(), strict=True):
        channel.wait = wait
    trainer.close()
    return {
        "first_halo": halos[0],
        "later_halo": min(halos[1:]),
        "ages": ages,
        "most_under_way": max(under_way),
    }


def evaluated(
    rank: int, world_size: int, graph: Graph, run: RunSpec, epochs: int
) -> dict[str, Any]:
    """Logits of the forward pass that `evaluate` makes, amid training."""
    trainer, _, _ = trainer_of(rank, world_size, graph, run, None)
    for epoch in range(epochs):
        trainer.train_period(epoch)
    seen: list[Tensor] = []
    forward = trainer.stack.forward

    def kept(*given: Any, **named: Any) -> Tensor:
        seen.append(forward(*given, **named))
        return seen[-1]

    trainer.stack.forward = kept
    trainer.evaluate()
    logits = seen[-1].clone().numpy()
    parameters = trainer.parameters.flat.clone().numpy()
    trainer.stack.forward = forward
    trainer.train_period(epochs)
    trainer.close()
    return {"rows": trainer.batches.row_ids.numpy(), "logits": logits, "parameters": parameters}


# -- dense models ----------------------------------------------------------------------------------


def dense_adjacency(graph: Graph, run: RunSpec) -> Tensor:
    """The normalised adjacency, rows are destinations."""
    n, model = graph.num_nodes, MODELS.get(run.model.kind)
    a = torch.zeros((n, n), dtype=torch.float64)
    for v in range(n):
        a[v, graph.indices[graph.indptr[v] : graph.indptr[v + 1]]] = 1.0
    incoming, outgoing = a.sum(1), a.sum(0)
    if model.normalisation == "symmetric":
        scaled = (a + torch.eye(n)) / torch.sqrt(incoming + 1)[:, None]
        return scaled / torch.sqrt(outgoing + 1)[None, :]
    return a / incoming.clamp(min=1)[:, None]


def fresh_parameters(graph: Graph, run: RunSpec) -> Parameters:
    model = MODELS.get(run.model.kind)
    dims = model.dims(run.model, graph.num_features, graph.num_classes)
    return Parameters(model.parameters(dims), run.training.seed, torch.device("cpu"), torch.float64)


def exact_logits(graph: Graph, run: RunSpec, flat: np.ndarray) -> np.ndarray:
    """Logits of the exact model with given parameters."""
    held = fresh_parameters(graph, run)
    held.flat.copy_(torch.from_numpy(flat))
    a, h = dense_adjacency(graph, run), torch.from_numpy(np.asarray(graph.features)).double()
    layers = run.model.layers
    for layer in range(1, layers + 1):
        y = a @ h @ held.value[f"weight_{layer}"] + held.value[f"bias_{layer}"]
        if MODELS.get(run.model.kind).self_weight:
            y = y + h @ held.value[f"self_weight_{layer}"]
        h = y.relu() if layer < layers else y
    return h.numpy()


class Late:
    """Values as another rank has them: those of `lag` epochs ago, zeros before, smoothed or not.

    A running average begins at zero and takes what arrives, zeros included.
    """

    def __init__(self, lag: int, gamma: float | None) -> None:
        self.lag, self.gamma = lag, gamma
        self.sent: dict[int, list[Tensor]] = {}
        self.average: dict[int, Tensor] = {}

    def pass_on(self, layer: int, value: Tensor) -> Tensor:
        sent = self.sent.setdefault(layer, [])
        sent.append(value.clone())
        at = len(sent) - 1 - self.lag
        arrived = sent[at] if at >= 0 else torch.zeros_like(value)
        if self.gamma is None:
            return arrived
        before = self.average.get(layer, torch.zeros_like(value))
        self.average[layer] = self.gamma * before + (1 - self.gamma) * arrived
        return self.average[layer]


def dense_stale(
    graph: Graph, run: RunSpec, assignment: np.ndarray, epochs: int, lag: int = 1
) -> tuple[list[float], np.ndarray]:
    """Losses and parameters of training in which edges across parts carry old values.

    Forward and backward are written on dense matrices, per layer the way its product order says.
    Averaging is linear, so it may be done after the sum over parts.
    """
    knobs = APPROACHES.get(run.approach).knobs(run)
    shape = stack_shape(graph, run, knobs.order)
    held, layers = fresh_parameters(graph, run), run.model.layers
    value, gradients = held.value, held.grad
    a = dense_adjacency(graph, run)
    parts = torch.from_numpy(np.asarray(assignment))
    within = a * (parts[:, None] == parts[None, :])
    across = a - within
    smoothing, gamma = getattr(knobs, "smoothing", "none"), getattr(knobs, "gamma", 0.0)
    features = Late(lag, gamma if smoothing in ("features", "both") else None)
    returned = Late(lag, gamma if smoothing in ("gradients", "both") else None)
    own = MODELS.get(run.model.kind).self_weight
    train = torch.from_numpy(graph.train_nodes())
    labels = torch.from_numpy(np.asarray(graph.labels)).long()
    x, losses = torch.from_numpy(np.asarray(graph.features)).double(), []
    optimizer = torch.optim.Adam(
        [held.flat[: held.count]], lr=run.training.lr, weight_decay=run.training.weight_decay
    )

    def aggregate(layer: int, h: Tensor) -> Tensor:
        return within @ h + across @ features.pass_on(layer, h)

    def transpose(layer: int, g: Tensor) -> Tensor:
        return within.t() @ g + returned.pass_on(layer, across.t() @ g)

    for _ in range(epochs):
        hidden, aggregated = [x], {}
        for layer in range(1, layers + 1):
            h, weight = hidden[-1], value[f"weight_{layer}"]
            if shape.orders[layer - 1] == "aggregate_first":
                aggregated[layer] = aggregate(layer, h)
                y = aggregated[layer] @ weight
            else:
                y = aggregate(layer, h @ weight)
            y = y + value[f"bias_{layer}"]
            if own:
                y = y + h @ value[f"self_weight_{layer}"]
            hidden.append(y.relu() if layer < layers else y)
        logits = hidden[-1].clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(logits[train], labels[train])
        loss.backward()
        losses.append(float(loss.detach()))
        g = logits.grad
        for layer in range(layers, 0, -1):
            h, weight = hidden[layer - 1], value[f"weight_{layer}"]
            gradients[f"bias_{layer}"].copy_(g.sum(0))
            down = None
            if shape.orders[layer - 1] == "aggregate_first":
                gradients[f"weight_{layer}"].copy_(aggregated[layer].t() @ g)
                if layer > 1:
                    down = transpose(layer, g @ weight.t())
            else:
                turned = transpose(layer, g)
                gradients[f"weight_{layer}"].copy_(h.t() @ turned)
                down = turned @ weight.t()
            if own:
                gradients[f"self_weight_{layer}"].copy_(h.t() @ g)
                if layer > 1:
                    down = down + g @ value[f"self_weight_{layer}"].t()
            if layer > 1:
                g = down * (hidden[layer - 1] > 0)
        optimizer.param_groups[0]["params"][0].grad = held.gradient.clone()
        optimizer.step()
    return losses, held.flat.numpy().copy()


# -- boundary sampling -----------------------------------------------------------------------------


def sampled_means(
    rank: int, world_size: int, graph: Graph, run: RunSpec, assignment: Any, draws: int
) -> dict[str, Any]:
    """Mean and spread, over draws, of one aggregation and of its transpose, and the exact ones."""
    trainer, _, _ = trainer_of(rank, world_size, graph, run, assignment)
    kernels, whole, n = (
        trainer.context.kernels,
        trainer.batches.aggregation,
        trainer.batches.aggregation.rows,
    )
    ids = trainer.batches.row_ids
    x = torch.sin(torch.arange(graph.num_nodes * 3).double() * 1.7).view(-1, 3) + 0.5
    g = torch.cos(torch.arange(graph.num_nodes * 3).double() * 2.3).view(-1, 3) + 0.5

    def both(agg: Any) -> tuple[Tensor, Tensor]:
        h = torch.zeros((agg.source_rows, 3), dtype=torch.float64)
        h[:n] = x[ids]
        out, back = torch.zeros((n, 3)).double(), torch.zeros_like(h)
        trainer.stack.exchange.forward(h, 1, Phase.FORWARD)
        kernels.spmm(
            agg.indptr,
            agg.indices,
            h,
            out,
            row_scale=agg.row_scale,
            col_scale=agg.col_scale,
            self_scale=agg.self_scale,
        )
        kernels.spmm(
            agg.indptr_t,
            agg.indices_t,
            g[ids],
            back,
            row_scale=agg.col_scale,
            col_scale=agg.row_scale,
            self_scale=agg.self_scale,
        )
        trainer.stack.exchange.backward(back, 1)
        return out, back[:n].clone()

    exact = both(whole)
    totals = [torch.zeros((n, 3)).double() for _ in range(4)]
    for epoch in range(draws):
        for i, value in enumerate(both(trainer.draw(epoch))):
            totals[i] += value
            totals[2 + i] += value**2
    means = [total / draws for total in totals]
    return {
        name: {
            "exact": exact[i].numpy(),
            "mean": means[i].numpy(),
            "deviation": (means[2 + i] - means[i] ** 2).clamp(min=0).sqrt().numpy(),
        }
        for i, name in enumerate(("forward", "backward"))
    }


def drawn_graphs(
    rank: int, world_size: int, graph: Graph, run: RunSpec, assignment: Any, epochs: int
) -> list[dict[str, Any]]:
    """Per epoch, the halo rows that this rank was sent, as seen in what each layer received."""
    trainer, recorder, _ = trainer_of(rank, world_size, graph, run, assignment)
    n, out = trainer.batches.aggregation.rows, []
    for epoch in range(epochs):
        recorder.period_begin(epoch)
        agg = trainer.draw(epoch)
        # Every vertex sends its own id, so what arrives says who was drawn.
        h = torch.full((agg.source_rows, 1), -1.0, dtype=torch.float64)
        h[:n, 0] = trainer.batches.row_ids.double()
        arrived = []
        for layer in (1, 2):
            h[n:] = -1.0
            trainer.stack.exchange.forward(h, layer, Phase.FORWARD)
            arrived.append(h[n:, 0].long().tolist())
        # Backward, every halo row returns a one: each owner counts its vertices' returns.
        back = torch.zeros_like(h)
        back[n:] = 1.0
        trainer.stack.exchange.backward(back, 2)
        sent = recorder.period_end()
        out.append(
            {
                "arrived": arrived,
                "returned": {
                    int(v): int(c)
                    for v, c in zip(trainer.batches.row_ids, back[:n, 0], strict=True)
                    if c
                },
                "sent": sent,
                "edges": agg.nonzeros,
            }
        )
    return out
