"""A dense GAT that trains as `bns` and `pipegcn` should, and what ranks do to be held against it.

Legend: N vertices, K heads, d a head's width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from stale_cases import Late, trainer_of
from torch import Tensor

from gnnbench.approaches.names import APPROACHES
from gnnbench.data.boundary import Boundary
from gnnbench.data.graph import Graph
from gnnbench.data.halo import halo_structure
from gnnbench.iterations import RankSteps
from gnnbench.models.names import MODELS
from gnnbench.spec import RunSpec
from gnnbench_runtime.models.parameters import Parameters

SLOPE = 0.2


class DenseGat:
    """Training on (N, N, K) scores, in which rows of other parts may be late, or absent.

    `own` and `remote` count entries (i, j) within parts and across. Both carry rows of T; a remote
    row is one that was passed on, whose gradient its owner gets when it is returned.
    """

    def __init__(self, graph: Graph, run: RunSpec, assignment: Any, lag: int) -> None:
        model = MODELS.get("gat")
        self.dims = model.dims(run.model, graph.num_features, graph.num_classes)
        self.heads = model.heads(run.model)
        device = torch.device("cpu")
        self.held = Parameters(
            model.parameters(self.dims, self.heads), run.training.seed, device, torch.float64
        )
        n = graph.num_nodes
        entries = torch.zeros((n, n), dtype=torch.float64)
        for v in range(n):
            for u in graph.indices[graph.indptr[v] : graph.indptr[v + 1]]:
                entries[v, u] += 1.0
        parts = torch.from_numpy(np.asarray(assignment))
        self.own = entries * (parts[:, None] == parts[None, :])
        self.across = entries - self.own
        self.own += torch.eye(n)
        self.x = torch.from_numpy(np.asarray(graph.features)).double()
        self.train = torch.from_numpy(graph.train_nodes())
        self.labels = torch.from_numpy(np.asarray(graph.labels)).long()
        knobs = APPROACHES.get(run.approach).knobs(run)
        smoothing, gamma = getattr(knobs, "smoothing", "none"), getattr(knobs, "gamma", 0.0)
        self.features = Late(lag, gamma if smoothing in ("features", "both") else None)
        self.returned = Late(lag, gamma if smoothing in ("gradients", "both") else None)
        self.optimizer = torch.optim.Adam(
            [self.held.flat], lr=run.training.lr, weight_decay=run.training.weight_decay
        )

    def attend(self, layer: int, t: Tensor, late: Tensor, remote: Tensor) -> Tensor:
        """One softmax over own rows of `t` and other parts' rows of `late`, then both sums."""
        k, value = self.heads[layer - 1], self.held.value
        t, late = t.view(len(t), k, -1), late.view(len(t), k, -1)
        to = (t * self.leaf[f"attention_destination_{layer}"]).sum(2)
        scores = []
        for rows, count in ((t, self.own), (late, remote)):
            source = (rows * self.leaf[f"attention_source_{layer}"]).sum(2)
            score = torch.nn.functional.leaky_relu(to[:, None] + source[None, :], SLOPE)
            scores.append(score + count.log()[:, :, None])
        weights = torch.softmax(torch.cat(scores, 1), 1)
        y = torch.einsum("ijk,jkd->ikd", weights, torch.cat([t, late]))
        return y.reshape(len(t), -1) + value[f"bias_{layer}"]

    def epoch(self, remote: Tensor) -> float:
        """One step; `remote` counts the entries across parts that are there."""
        value, grad, layers = self.held.value, self.held.grad, len(self.dims) - 1
        hidden, passes = [self.x], {}
        for layer in range(1, layers + 1):
            # Gradients stop at each layer: what is passed on to other parts returns later.
            self.leaf = {
                name: value[name].clone().requires_grad_()
                for name in (f"attention_destination_{layer}", f"attention_source_{layer}")
            }
            t = (hidden[-1] @ value[f"weight_{layer}"]).requires_grad_()
            late = self.features.pass_on(layer, t.detach()).clone().requires_grad_()
            y = self.attend(layer, t, late, remote)
            passes[layer] = t, late, self.leaf, y
            y = y.detach()
            hidden.append(torch.nn.functional.elu(y) if layer < layers else y)
        logits = hidden[-1].clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(logits[self.train], self.labels[self.train])
        loss.backward()
        g = logits.grad
        for layer in range(layers, 0, -1):
            t, late, leaf, y = passes[layer]
            y.backward(g)
            grad[f"bias_{layer}"].copy_(g.sum(0))
            for name, parameter in leaf.items():
                grad[name].copy_(parameter.grad)
            turned = t.grad + self.returned.pass_on(layer, late.grad)
            grad[f"weight_{layer}"].copy_(hidden[layer - 1].t() @ turned)
            if layer > 1:
                h = hidden[layer - 1]
                slope = torch.where(h > 0, torch.ones_like(h), h + 1)
                g = (turned @ value[f"weight_{layer}"].t()) * slope
        self.optimizer.param_groups[0]["params"][0].grad = self.held.gradient.clone()
        self.optimizer.step()
        return float(loss.detach())

    def logits(self) -> np.ndarray:
        """Logits of the whole graph with today's parameters."""
        value, h = self.held.value, self.x
        for layer in range(1, len(self.dims)):
            self.leaf, t = value, h @ value[f"weight_{layer}"]
            y = self.attend(layer, t, t, self.across)
            h = torch.nn.functional.elu(y) if layer < len(self.dims) - 1 else y
        return h.numpy()


def dense_training(
    graph: Graph,
    run: RunSpec,
    assignment: Any,
    epochs: int,
    *,
    lag: int = 0,
    present: Callable[[int], Tensor] | None = None,
) -> tuple[list[float], np.ndarray]:
    """Losses and parameters; `present` masks, per epoch, the entries across parts."""
    dense = DenseGat(graph, run, assignment, lag)
    losses = []
    for epoch in range(epochs):
        losses.append(dense.epoch(dense.across * present(epoch) if present else dense.across))
    return losses, dense.held.flat.numpy().copy()


def exact_logits(graph: Graph, run: RunSpec, flat: np.ndarray) -> np.ndarray:
    """Logits of the exact model with given parameters."""
    dense = DenseGat(graph, run, np.zeros(graph.num_nodes, np.int32), 0)
    dense.held.flat.copy_(torch.from_numpy(flat))
    return dense.logits()


def drawn_mask(graph: Graph, run: RunSpec, assignment: Any, rate: float) -> Callable[[int], Tensor]:
    """Which (i, j) is there in an epoch: j was drawn for the part of i."""
    parts = halo_structure(graph, np.asarray(assignment), run.ranks)

    def present(epoch: int) -> Tensor:
        mask = torch.zeros((graph.num_nodes, graph.num_nodes), dtype=torch.float64)
        for local in parts.ranks:
            picks = Boundary.of(local).draw_received(rate, run.training.seed, epoch)
            mask[np.ix_(local.owned, local.halo[picks])] = 1.0
        return mask

    return present


# -- what is held ----------------------------------------------------------------------------------


def held_bytes(
    rank: int, world_size: int, graph: Graph, run: RunSpec, assignment: Any, epochs: int
) -> dict[str, Any]:
    """Bytes of buffers, sampled graph and features: in training, and again after evaluation."""
    trainer, recorder, _ = trainer_of(rank, world_size, graph, run, assignment)
    found = []
    for epoch in range(epochs):
        recorder.period_begin(epoch)
        trainer.train_period(epoch)
        recorder.period_end()
        if epoch == 0:
            with recorder.evaluating():
                trainer.evaluate()
        space = trainer.workspace._flat
        scale = trainer._scale if hasattr(trainer, "_scale") else None
        found.append(
            {
                "buffers": {k: v.numel() * v.element_size() for k, v in space.items()},
                "x": trainer.batches.x.numel() * trainer.batches.x.element_size(),
                "sampled": trainer._graph.num_bytes,
                "scales": 0 if scale is None else 8 * (len(scale) + len(trainer._halo_scale)),
                "apart": trainer._apart.num_bytes,
            }
        )
    trainer.close()
    return {"epochs": found}


def allocated(steps: RankSteps) -> dict[str, int]:
    """Bytes of every buffer that the steps of one epoch name."""
    sizes: dict[str, int] = {}
    for step in steps:
        for buffer in step.allocates:
            sizes[buffer.name] = max(buffer.bytes, sizes.get(buffer.name, 0))
    return sizes
