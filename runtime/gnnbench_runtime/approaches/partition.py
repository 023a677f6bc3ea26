"""Full-graph training over a vertex partition; one rank is the single device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gnnbench import registry
from gnnbench.approaches.fullgraph import stack_shape
from gnnbench.approaches.partition import PartitionStructure
from gnnbench.graph.graph import Graph
from gnnbench.graph.halo import RankHalo, halo_structure
from gnnbench.plan import Kind, Lane, Phase
from gnnbench_runtime.models.data import reopened_graph
from gnnbench_runtime.models.parameters import Parameters
from gnnbench_runtime.models.scales import vertex_scales
from gnnbench_runtime.models.stack import Aggregation, Exchange, Stack
from gnnbench_runtime.models.workspace import Workspace
from gnnbench_runtime.protocol import RankContext


class HaloExchange:
    """Fetch boundary rows from their owners; return their gradients and add them there."""

    def __init__(
        self, context: RankContext, local: RankHalo, workspace: Workspace, widest: int
    ) -> None:
        self._context, self._workspace, self._widest = context, workspace, widest
        self._rows = local.num_owned
        self._ids = torch.from_numpy(np.ascontiguousarray(local.send_rows)).to(context.device)
        self._send = np.diff(local.send_offsets).tolist()
        self._recv = np.diff(local.halo_offsets).tolist()

    def _buffer(self, width: int) -> Tensor:
        rows = len(self._ids)
        flat = self._workspace.get("halo_rows", rows, self._widest)
        return flat.view(-1)[: rows * width].view(rows, width)

    def forward(self, x_uF: Tensor, layer: int, phase: Phase) -> None:
        width, n, context = x_uF.shape[1], self._rows, self._context
        packed = self._buffer(width)
        with self._step(f"{phase}/{layer}/pack", Kind.GATHER, "gather", phase, layer, packed):
            context.kernels.gather_rows(x_uF[:n], self._ids, packed)
        context.comm.all_to_all(
            x_uF[n:],
            packed,
            self._recv,
            self._send,
            f"{phase}/{layer}/exchange",
            phase,
            layer=layer,
        )

    def backward(self, grad_uF: Tensor, layer: int) -> None:
        width, n, context = grad_uF.shape[1], self._rows, self._context
        phase, returned = Phase.BACKWARD, self._buffer(width)
        context.comm.all_to_all(
            returned,
            grad_uF[n:],
            self._send,
            self._recv,
            f"{phase}/{layer}/exchange",
            phase,
            layer=layer,
        )
        with self._step(
            f"{phase}/{layer}/unpack", Kind.SCATTER, "scatter_add", phase, layer, returned
        ):
            context.kernels.scatter_add_rows(grad_uF[:n], self._ids, returned)

    def _step(self, name: str, kind: Kind, op: str, phase: Phase, layer: int, rows: Tensor):
        size = len(rows) * (8 + 2 * rows.shape[1] * rows.element_size())
        return self._context.recorder.step(
            name, kind, op, lane=Lane.COMPUTE, phase=phase, layer=layer, bytes=size
        )


class PartitionTrainer:
    """One rank of full-graph training: one optimizer step per epoch."""

    def __init__(
        self,
        context: RankContext,
        graph: Graph,
        structure: PartitionStructure,
        *,
        parameters: Parameters | None = None,
        order: str | None = None,
    ) -> None:
        run = context.run
        self.context = context
        self.shape = stack_shape(graph, run, order or str(run.knobs["order"]))
        dtype = torch.float64 if run.training.precision == "float64" else torch.float32
        self.model = registry.model(run.model.kind)
        self.parameters = parameters or Parameters(
            self.model, self.shape.dims, run.training.seed, context.device, dtype
        )
        self.workspace = Workspace(context.device, dtype)
        graph = reopened_graph(graph)
        assert structure.assignment is not None
        parts = halo_structure(graph, structure.assignment, context.world_size)
        local = parts.ranks[context.rank]
        self.aggregation = self._aggregation(graph, local, dtype)
        self._load_rows(graph, local, dtype)
        exchange = self._exchange(local) if context.world_size > 1 else None
        self.stack = Stack(
            self.shape, self.parameters, self.workspace, context.kernels, context.recorder, exchange
        )
        self.optimizer_steps = 0

    def _exchange(self, local: RankHalo) -> Exchange | None:
        """How boundary rows travel in training; called where there are several ranks."""
        return self._fresh_exchange(local)

    def _fresh_exchange(self, local: RankHalo) -> HaloExchange:
        widest = max(self.shape.exchange_width(i) for i in range(1, self.shape.num_layers + 1))
        return HaloExchange(self.context, local, self.workspace, widest)

    # -- data ------------------------------------------------------------------------------------

    def _tensor(self, array: np.ndarray, dtype: torch.dtype | None = None) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.context.device, dtype)

    def _aggregation(self, graph: Graph, local: RankHalo, dtype: torch.dtype) -> Aggregation:
        as_destination, as_source = vertex_scales(graph, self.model)
        own, every = local.owned, np.concatenate([local.owned, local.halo])
        self_scale = None if as_source is None else as_destination[own] * as_source[own]
        return Aggregation(
            indptr=self._tensor(local.csr.indptr),
            indices=self._tensor(local.csr.indices),
            indptr_t=self._tensor(local.transposed.indptr),
            indices_t=self._tensor(local.transposed.indices),
            rows=local.num_owned,
            source_rows=len(every),
            row_scale=self._tensor(as_destination[own], dtype),
            col_scale=None if as_source is None else self._tensor(as_source[every], dtype),
            self_scale=None if self_scale is None else self._tensor(self_scale, dtype),
        )

    def _load_rows(self, graph: Graph, local: RankHalo, dtype: torch.dtype) -> None:
        assert graph.features is not None and graph.labels is not None
        own, width = local.owned, graph.num_features
        self.x = torch.zeros((local.num_columns, width), device=self.context.device, dtype=dtype)
        # In slices, so that a copy of all features never stands beside the features.
        for start in range(0, len(own), 65_536):
            rows = own[start : start + 65_536]
            self.x[start : start + len(rows)] = self._tensor(graph.features[rows], dtype)
        labels = np.asarray(graph.labels)[own]
        self.labels = self._tensor(labels, dtype if labels.dtype.kind == "f" else torch.int64)
        self.row_ids = self._tensor(own.astype(np.int64))
        masks = {"train": graph.train_mask, "val": graph.val_mask, "test": graph.test_mask}
        self.masks = {
            name: self._tensor(np.asarray(mask)[own])
            for name, mask in masks.items()
            if mask is not None
        }
        self.train_rows = self.masks["train"].nonzero().squeeze(1)
        self.loss_scale = 1.0 / max(graph.num_train, 1)

    # -- training --------------------------------------------------------------------------------

    def train_epoch(self, epoch: int) -> float:
        """One forward, backward, all-reduce and Adam step over the whole graph."""
        seed = self.context.run.training.seed
        self.gradients((seed, epoch))
        self.all_reduce()
        self.update()
        return float(self.parameters.loss.item())

    def gradients(self, counters: tuple[int, ...]) -> Tensor:
        """Fill this rank's share of loss and gradient; return the logits of the owned rows."""
        layers = self.shape.num_layers
        logits = self.stack.forward(
            self.x, [self.aggregation] * layers, row_ids=[self.row_ids] * layers, counters=counters
        )
        self.stack.loss(logits, self.labels, self.train_rows, self.loss_scale)
        self.stack.backward()
        return logits

    def all_reduce(self) -> None:
        """Sum gradients and loss over ranks, in one collective."""
        self.context.comm.all_reduce(self.parameters.flat_grad, "sync/gradients", Phase.SYNC)

    def update(self) -> None:
        """One Adam step."""
        adam_step(self.context, self.parameters, self.optimizer_steps + 1)
        self.optimizer_steps += 1

    # -- evaluation ------------------------------------------------------------------------------

    def evaluate(self) -> dict[str, float]:
        """Accuracy of the full-graph model on every split, over all ranks' own rows."""
        layers = self.shape.num_layers
        logits = self.stack.forward(
            self.x,
            [self.aggregation] * layers,
            row_ids=[self.row_ids] * layers,
            counters=None,
            phase=Phase.EVALUATE,
        )
        names = sorted(self.masks)
        counts = torch.zeros((len(names), 2), dtype=torch.float64, device=self.context.device)
        for i, name in enumerate(names):
            right, asked = correct(logits[self.masks[name]], self.labels[self.masks[name]])
            counts[i, 0], counts[i, 1] = right, asked
        self.context.comm.all_reduce(counts, "evaluate/counts", Phase.EVALUATE)
        return {
            name: float(counts[i, 0] / counts[i, 1])
            for i, name in enumerate(names)
            if counts[i, 1] > 0
        }

    def close(self) -> None:
        """Nothing runs beside this trainer."""


def correct(logits: Tensor, labels: Tensor) -> tuple[int, int]:
    """Right answers and questions: classes, or single decisions of a multi-label task."""
    if labels.dtype.is_floating_point:
        return int(((logits > 0) == (labels > 0.5)).sum()), labels.numel()
    known = labels >= 0
    return int((logits.argmax(1) == labels)[known].sum()), int(known.sum())


def adam_step(context: RankContext, parameters: Parameters, number: int) -> None:
    """Apply Adam to the flat parameters. `number` counts steps from 1."""
    training = context.run.training
    count, s = parameters.count, parameters.flat.element_size()
    with context.recorder.step(
        "update/adam", Kind.OPTIMIZER, "adam", lane=Lane.COMPUTE, phase=Phase.UPDATE,
        bytes=7 * count * s, flops=12 * count,
    ):  # fmt: skip
        context.kernels.adam(
            parameters.flat,
            parameters.gradient,
            parameters.first_moment,
            parameters.second_moment,
            number,
            training.lr,
            betas=(0.9, 0.999),
            eps=1e-8,
            weight_decay=training.weight_decay,
        )
