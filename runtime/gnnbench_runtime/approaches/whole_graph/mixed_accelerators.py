"""Sparse ranks aggregate, dense ranks update, row chunks travel between them in a pipeline.

Handovers go over the main group and returns over the background group, each in a thread of its own
and in one order of chunks that all ranks share: so no two ranks can wait for each other, however
small the transport's buffers are. Receivers join ahead of time, as far as they have room: a
transport that moves nothing before both ends have met never makes a sender wait for a receiver
that still computes. All-to-alls also because a waiting one sleeps, where gloo's plain receive polls
and takes the core from whoever computes there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gnnbench.approaches.whole_graph.mixed_accelerators import MixedStructure
from gnnbench.approaches.writing.shape import stack_shape
from gnnbench.data.graph import Graph
from gnnbench.errors import Unsupported
from gnnbench.models.names import MODELS
from gnnbench.steps import Kind, Lane, Phase
from gnnbench_runtime.approaches.whole_graph.mixed_dense import DenseRank
from gnnbench_runtime.approaches.whole_graph.mixed_sparse import SparseRank
from gnnbench_runtime.approaches.whole_graph.partition import adam_step, correct
from gnnbench_runtime.models.data import reopened_graph
from gnnbench_runtime.models.parameters import Parameters
from gnnbench_runtime.protocol import RankContext


class MixedTrainer:
    """One rank, sparse or dense, of full-graph training: one optimizer step per epoch."""

    def __init__(self, context: RankContext, graph: Graph, structure: MixedStructure) -> None:
        if context.device.type == "cuda":
            raise Unsupported(
                "mixed-accelerators runs on CPU ranks (gloo) for now: on CUDA its handovers and "
                "returns would need a stream each"
            )
        run = context.run
        self.context, self.structure = context, structure
        self.shape = stack_shape(graph, run, "aggregate_first")
        self.dtype = torch.float64 if run.training.precision == "float64" else torch.float32
        self.model = MODELS.get(run.model.kind)
        self.parameters = Parameters(
            self.model, self.shape.dims, run.training.seed, context.device, self.dtype
        )
        context.comm.open_background()
        graph = reopened_graph(graph)
        self.loss_scale = 1.0 / max(graph.num_train, 1)
        self.mask_names = sorted(
            name for name in ("train", "val", "test") if getattr(graph, f"{name}_mask") is not None
        )
        self.is_sparse = context.rank < structure.sparse_ranks
        role = SparseRank if self.is_sparse else DenseRank
        self.role: SparseRank | DenseRank = role(self, graph)
        self.row_ids = self.role.row_ids
        self.optimizer_steps = 0

    # -- training --------------------------------------------------------------------------------

    def train_epoch(self, epoch: int) -> float:
        """One forward, backward, all-reduce and Adam step over the whole graph."""
        self.gradients((self.context.run.training.seed, epoch))
        self.all_reduce()
        self.update()
        return float(self.parameters.loss.item())

    def gradients(self, counters: tuple[int, ...]) -> Tensor:
        """Fill this rank's share of loss and gradient; return the logits of its rows."""
        self.parameters.flat_grad.zero_()
        logits = self.role.forward(counters, Phase.FORWARD)
        self.role.backward()
        return logits

    def all_reduce(self) -> None:
        """Sum gradients and loss over all ranks, so that weights stay equal everywhere."""
        self.context.comm.all_reduce(self.parameters.flat_grad, "sync/gradients", Phase.SYNC)

    def update(self) -> None:
        """One Adam step."""
        self.optimizer_steps += 1
        lane = Lane.SPARSE if self.is_sparse else Lane.DENSE
        adam_step(self.context, self.parameters, self.optimizer_steps, lane)

    def evaluate(self) -> dict[str, float]:
        """Accuracy on every split, over the rows of all dense ranks."""
        logits = self.role.forward(None, Phase.EVALUATE)
        counts = torch.zeros((len(self.mask_names), 2), dtype=torch.float64)
        for i, name in enumerate(self.mask_names):
            mask = self.role.masks[name]
            right, asked = correct(logits[mask], self.role.labels[mask])
            counts[i, 0], counts[i, 1] = right, asked
        self.context.comm.all_reduce(counts, "evaluate/counts", Phase.EVALUATE)
        return {
            name: float(counts[i, 0] / counts[i, 1])
            for i, name in enumerate(self.mask_names)
            if counts[i, 1] > 0
        }

    def close(self) -> None:
        """Nothing to stop: the threads are the communicator's."""

    # -- recording -------------------------------------------------------------------------------

    def step(
        self, name: str, kind: Kind, op: str, phase: Phase, layer: int, size: int, flops: int = 0
    ) -> Any:
        """The span of a step on this rank's lane."""
        lane = Lane.SPARSE if self.is_sparse else Lane.DENSE
        return self.context.recorder.step(
            name, kind, op, lane=lane, phase=phase, layer=layer, bytes=size, flops=flops
        )

    def elementwise(
        self, name: str, op: str, phase: Phase, layer: int, x: Tensor, passes: int
    ) -> Any:
        size = passes * x.numel() * x.element_size()
        return self.step(name, Kind.ELEMENTWISE, op, phase, layer, size, x.numel())
