"""Full-graph training over a vertex partition; one rank is the single device."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnnbench import registry
from gnnbench.approaches.whole_graph.partition import PartitionStructure
from gnnbench.approaches.whole_graph.rows import stack_shape
from gnnbench.data.graph import Graph
from gnnbench.data.halo import RankHalo, halo_structure
from gnnbench.plan import Kind, Lane, Phase
from gnnbench_runtime.comm import Pending
from gnnbench_runtime.models.data import reopened_graph
from gnnbench_runtime.models.parameters import Parameters
from gnnbench_runtime.models.scales import vertex_scales
from gnnbench_runtime.models.stack import Aggregation, Attention, Exchange, Stack
from gnnbench_runtime.models.workspace import Workspace
from gnnbench_runtime.protocol import RankContext


class HaloExchange:
    """Fetch boundary rows from their owners; return their gradients and add them there.

    With `staging`, rows are copied to host memory, exchanged there, and copied back.
    """

    def __init__(
        self,
        context: RankContext,
        local: RankHalo,
        workspace: Workspace,
        widest: int,
        staging: Staging | None = None,
    ) -> None:
        self._context, self._workspace, self._widest = context, workspace, widest
        self._staging = staging
        self._rows = local.num_owned
        self._ids = torch.from_numpy(np.ascontiguousarray(local.send_rows)).to(context.device)
        self._send = np.diff(local.send_offsets).tolist()
        self._recv = np.diff(local.halo_offsets).tolist()

    def _buffer(self, width: int) -> Tensor:
        rows = len(self._ids)
        flat = self._workspace.get("halo_rows", rows, self._widest)
        return flat.view(-1)[: rows * width].view(rows, width)

    def forward(self, x_uF: Tensor, layer: int, phase: Phase) -> None:
        packed = self._pack(x_uF, layer, phase)
        self._transfer(x_uF[self._rows :], packed, self._recv, self._send, layer, phase)

    def backward(self, grad_uF: Tensor, layer: int) -> None:
        returned = self._buffer(grad_uF.shape[1])
        leaving = grad_uF[self._rows :]
        self._transfer(returned, leaving, self._send, self._recv, layer, Phase.BACKWARD)
        self.end_backward(grad_uF, layer)

    def begin_forward(self, x_uF: Tensor, layer: int, phase: Phase) -> Pending:
        packed, name = self._pack(x_uF, layer, phase), f"{phase}/{layer}/exchange"
        arriving, comm = x_uF[self._rows :], self._context.comm
        return comm.all_to_all_async(
            arriving, packed, self._recv, self._send, name, phase, layer=layer
        )

    def begin_backward(self, grad_uF: Tensor, layer: int) -> Pending:
        phase, returned = Phase.BACKWARD, self._buffer(grad_uF.shape[1])
        leaving, name = grad_uF[self._rows :], f"{phase}/{layer}/exchange"
        return self._context.comm.all_to_all_async(
            returned, leaving, self._send, self._recv, name, phase, layer=layer
        )

    def end_backward(self, grad_uF: Tensor, layer: int) -> None:
        phase, returned = Phase.BACKWARD, self._buffer(grad_uF.shape[1])
        name = f"{phase}/{layer}/unpack"
        with self._step(name, Kind.SCATTER, "scatter_add", phase, layer, returned):
            own = grad_uF[: self._rows]
            self._context.kernels.scatter_add_rows(own, self._ids, returned)

    def _pack(self, x_uF: Tensor, layer: int, phase: Phase) -> Tensor:
        packed = self._buffer(x_uF.shape[1])
        with self._step(f"{phase}/{layer}/pack", Kind.GATHER, "gather", phase, layer, packed):
            self._context.kernels.gather_rows(x_uF[: self._rows], self._ids, packed)
        return packed

    def _transfer(
        self, arriving: Tensor, leaving: Tensor, recv: list[int], send: list[int], layer: int,
        phase: Phase,
    ) -> None:  # fmt: skip
        name = f"{phase}/{layer}/exchange"
        if self._staging is None:
            comm = self._context.comm
            comm.all_to_all(arriving, leaving, recv, send, name, phase, layer=layer)
            return
        staging, where = self._staging, f"{phase}/{layer}"
        given = staging.to_host(leaving, "given", where, phase, layer)
        taken = staging.buffer("taken", arriving)
        staging.comm.all_to_all(taken, given, recv, send, name, phase, layer=layer)
        staging.to_device(taken, arriving, where, phase, layer)

    def _step(self, name: str, kind: Kind, op: str, phase: Phase, layer: int, rows: Tensor):
        size = len(rows) * (8 + 2 * rows.shape[1] * rows.element_size())
        return self._context.recorder.step(
            name, kind, op, lane=Lane.COMPUTE, phase=phase, layer=layer, bytes=size
        )


class Staging:
    """Pinned host memory that what is exchanged passes through, and the ranks' Comm there."""

    def __init__(self, context: RankContext) -> None:
        self.comm = context.comm.on_host()
        self._recorder, self._device = context.recorder, context.device
        self._flat: dict[str, Tensor] = {}

    def buffer(self, name: str, like: Tensor) -> Tensor:
        """Return host memory of a tensor's shape; its content is whatever was there."""
        flat = self._flat.get(name)
        if flat is None or flat.numel() < like.numel():
            pinned = self._device.type == "cuda"
            flat = torch.empty(like.numel(), dtype=like.dtype, pin_memory=pinned)
            self._flat[name] = flat
        return flat[: like.numel()].view(like.shape)

    def to_host(
        self, tensor: Tensor, name: str, where: str, phase: Phase, layer: int = -1
    ) -> Tensor:
        """Copy to host memory and wait, so that the host may read it."""
        host = self.buffer(name, tensor)
        with self._step(f"{where}/to_host", "copy_d2h", tensor, phase, layer):
            host.copy_(tensor, non_blocking=True)
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()
        return host

    def to_device(
        self, host: Tensor, tensor: Tensor, where: str, phase: Phase, layer: int = -1
    ) -> None:
        """Copy back; the device waits for it, the host need not."""
        with self._step(f"{where}/to_device", "copy_h2d", tensor, phase, layer):
            tensor.copy_(host, non_blocking=True)

    def _step(self, name: str, op: str, tensor: Tensor, phase: Phase, layer: int):
        size = tensor.numel() * tensor.element_size()
        return self._recorder.step(
            name, Kind.COPY, op, lane=Lane.COPY, phase=phase, layer=layer, bytes=size
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
        run, knobs = context.run, context.run.knobs
        self.context = context
        # An approach without these knobs does without what they ask for.
        precompute, overlap = bool(knobs.get("precompute")), bool(knobs.get("overlap"))
        order = order or str(knobs["order"])
        self.shape = stack_shape(graph, run, order, precompute=precompute)
        dtype = torch.float64 if run.training.precision == "float64" else torch.float32
        self.model = registry.model(run.model.kind)
        self.parameters = parameters or Parameters(
            self.model, self.shape.dims, run.training.seed, context.device, dtype, self.shape.heads
        )
        self.workspace = Workspace(context.device, dtype)
        graph = reopened_graph(graph)
        assert structure.assignment is not None
        parts = halo_structure(graph, structure.assignment, context.world_size)
        local = parts.ranks[context.rank]
        self._overlap = overlap and context.world_size > 1
        if self._overlap:
            context.comm.open_background()
        staged = knobs.get("transport") == "host_staged" and context.device.type != "cpu"
        self._staging = Staging(context) if staged and context.world_size > 1 else None
        self.aggregation: Any = self._pattern(graph, local, dtype)
        self._load_rows(graph, local, dtype)
        exchange = self._exchange(local) if context.world_size > 1 else None
        self.stack = Stack(
            self.shape,
            self.parameters,
            self.workspace,
            context.kernels,
            context.recorder,
            exchange,
            self._precomputed(graph, local, dtype) if precompute else None,
        )
        self.optimizer_steps = 0

    def _exchange(self, local: RankHalo) -> Exchange | None:
        """How boundary rows travel in training; called where there are several ranks."""
        return self._fresh_exchange(local)

    def _fresh_exchange(self, local: RankHalo) -> HaloExchange:
        widest = self.shape.widest_exchange
        return HaloExchange(self.context, local, self.workspace, widest, self._staging)

    # -- data ------------------------------------------------------------------------------------

    def _tensor(self, array: np.ndarray, dtype: torch.dtype | None = None) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.context.device, dtype)

    def _pattern(
        self, graph: Graph, local: RankHalo, dtype: torch.dtype
    ) -> Aggregation | Attention:
        """What the layers sum over: the local entries, with scales or to attend to."""
        if not self.model.attention:
            aggregation = self._aggregation(graph, local, dtype)
            return aggregation.divided() if self._overlap else aggregation
        pattern = Attention.of(
            local.csr.indptr,
            local.csr.indices,
            np.concatenate([local.owned, local.halo]),
            graph.num_nodes,
            with_ids=self.shape.dropout > 0,
        )
        return pattern.to(self.context.device)

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

    def _precomputed(self, graph: Graph, local: RankHalo, dtype: torch.dtype) -> Tensor:
        """Aggregate the features of own and halo rows, which is done once and moves nothing.

        Halo rows come from the graph's store, as own rows do; a slice of columns at a time, so that
        the halo's features never stand beside the own rows' as a whole.
        """
        aggregation = self.aggregation
        if aggregation.split is not None:
            aggregation = self._aggregation(graph, local, dtype)
        every = np.concatenate([local.owned, local.halo])
        width, slice_width = graph.num_features, 64
        held = torch.empty((local.num_owned, width), device=self.context.device, dtype=dtype)
        assert graph.features is not None
        for start in range(0, width, slice_width):
            columns = np.ascontiguousarray(graph.features[:, start : start + slice_width][every])
            x = self._tensor(columns, dtype)
            out = torch.empty((local.num_owned, x.shape[1]), device=x.device, dtype=dtype)
            self.context.kernels.spmm(
                aggregation.indptr, aggregation.indices, x, out,
                row_scale=aggregation.row_scale, col_scale=aggregation.col_scale,
                self_scale=aggregation.self_scale,
            )  # fmt: skip
            held[:, start : start + slice_width] = out
        return held

    def _source_rows(self, local: RankHalo) -> int:
        """Most rows that layer 1 reads in training: own ones and those that arrive."""
        return local.num_columns

    def _load_rows(self, graph: Graph, local: RankHalo, dtype: torch.dtype) -> None:
        assert graph.features is not None and graph.labels is not None
        own, width = local.owned, graph.num_features
        # Precomputed, layer 1 reads no halo row, and own rows only for a self weight.
        kept = len(own) if self.shape.precompute else self._source_rows(local)
        if self.shape.precompute and not self.model.self_weight:
            own = own[:0]
            kept = 0
        self.x = torch.zeros((kept, width), device=self.context.device, dtype=dtype)
        # In slices, so that a copy of all features never stands beside the features.
        for start in range(0, len(own), 65_536):
            rows = own[start : start + 65_536]
            self.x[start : start + len(rows)] = self._tensor(graph.features[rows], dtype)
        own = local.owned
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
        flat, staging = self.parameters.flat_grad, self._staging
        if staging is None:
            self.context.comm.all_reduce(flat, "sync/gradients", Phase.SYNC)
            return
        host = staging.to_host(flat, "gradients", "sync", Phase.SYNC)
        staging.comm.all_reduce(host, "sync/gradients", Phase.SYNC)
        staging.to_device(host, flat, "sync", Phase.SYNC)

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


def adam_step(
    context: RankContext, parameters: Parameters, number: int, lane: Lane = Lane.COMPUTE
) -> None:
    """Apply Adam to the flat parameters. `number` counts steps from 1."""
    training = context.run.training
    count, s = parameters.count, parameters.flat.element_size()
    with context.recorder.step(
        "update/adam", Kind.OPTIMIZER, "adam", lane=lane, phase=Phase.UPDATE,
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
