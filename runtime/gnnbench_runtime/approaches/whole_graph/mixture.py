"""Full-graph training by the mixture of parallelism: columns to aggregate, rows to update.

Legend: N vertices, n own rows, F input width, H output width, f own columns of a width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.whole_graph.mixture import MixtureKnobs, MixtureStructure, mixture_shape
from gnnbench.approaches.whole_graph.relayout import Relayouts, even_split
from gnnbench.data.graph import Graph
from gnnbench.data.keys import fold
from gnnbench.data.transpose import is_symmetric, transposed
from gnnbench.models.names import MODELS
from gnnbench.steps import Kind, Phase
from gnnbench_runtime.approaches.whole_graph.partition import PartitionTrainer
from gnnbench_runtime.models.attention_scores import ScoreExchange
from gnnbench_runtime.models.data import reopened, reopened_graph
from gnnbench_runtime.models.layers import attention, attention_columns
from gnnbench_runtime.models.parameters import Parameters
from gnnbench_runtime.models.relayout import Relayout
from gnnbench_runtime.models.scales import vertex_scales
from gnnbench_runtime.models.stack import Aggregation, Attention, Stack
from gnnbench_runtime.models.workspace import Workspace
from gnnbench_runtime.protocol import RankContext

_CHUNK = 65_536  # rows read at a time, so that a copy of all features never stands beside them


class MixtureStack(Stack):
    """A stack whose aggregations run over all vertices, on this rank's columns.

    `relayout` is None on one rank. `x_columns` (N, f) are the input features where they are held in
    columns; `aggregated_x` (n, d_0) is the first layer's aggregation where it is held. Attention
    goes by `relayouts` and `scores`.
    """

    _aggregations: Sequence[Aggregation] | Sequence[Attention]
    relayouts: Relayouts
    scores: ScoreExchange
    relayout: Relayout | None = None
    x_columns: Tensor | None = None
    aggregated_x: Tensor | None = None

    def forward(
        self,
        x: Tensor,
        aggregations: Sequence[Any],
        *,
        row_ids: Sequence[Tensor],
        counters: tuple[int, ...] | None,
        phase: Phase = Phase.FORWARD,
    ) -> Tensor:
        """Return the logits of the own rows; see `Stack.forward`.

        `x` are the own rows of the features (n, d_0), or (n, 0) where nothing reads them.
        """
        shape = self.shape
        self._aggregations, self._row_ids, self.counters = aggregations, row_ids, counters
        hidden = x
        if counters is not None and shape.input_dropout > 0:
            hidden = self._drop_inputs(x, row_ids[0], counters, phase)
        self._hidden = [hidden]
        for layer in range(1, shape.num_layers + 1):
            hidden = self._forward_layer(layer, hidden, phase)
            self._hidden.append(hidden)
        return hidden

    def _drop_inputs(
        self, x_nF: Tensor, ids: Tensor, counters: tuple[int, ...], phase: Phase
    ) -> Tensor:
        out = self.workspace.get("h0", *x_nF.shape)
        with self._elementwise(f"{phase}/0/dropout", "dropout", phase, 0, x_nF, 2):
            self.kernels.dropout(x_nF, out, self.shape.input_dropout, fold(*counters, 0), ids)
        return out

    def _product(
        self, name: str, phase: Phase, layer: int, agg: Aggregation, x: Tensor, out: Tensor,
        *, transpose: bool,
    ) -> None:  # fmt: skip
        """Fill out with A x over all vertices, or with the transpose of A times x."""
        rows, width, nonzeros = agg.rows, x.shape[1], agg.nonzeros
        size = 8 * (rows + 1) + 4 * nonzeros
        size += (min(rows, nonzeros) + rows) * width * x.element_size()
        sides = [
            (agg.indptr, agg.indices, agg.row_scale),
            (agg.indptr_t, agg.indices_t, agg.col_scale),
        ]
        (indptr, indices, row_scale), (_, _, col_scale) = reversed(sides) if transpose else sides
        with self._step(name, Kind.SPMM, "spmm", phase, layer, size, 2 * nonzeros * width):
            self.kernels.spmm(
                indptr, indices, x, out, row_scale=row_scale, col_scale=col_scale,
                self_scale=agg.self_scale,
            )  # fmt: skip

    def _by_columns(
        self,
        x_nF: Tensor,
        out_nF: Tensor,
        agg: Aggregation,
        layer: int,
        phase: Phase,
        *,
        columns: Tensor | None = None,
    ) -> None:
        """Fill own rows of A X (backward: of its transpose times X) from own rows of X.

        `columns` (N, f) are those of X, where they are at hand already; then `x_nF` is not read.
        """
        transpose, name = phase == Phase.BACKWARD, f"{phase}/{layer}/spmm"
        if self.relayout is None:
            self._product(name, phase, layer, agg, x_nF, out_nF, transpose=transpose)
            return
        if columns is None:
            columns = self.relayout.to_columns(x_nF, layer, phase)
        aggregated = self.relayout.aggregated(out_nF.shape[1])
        if columns.shape[1]:
            self._product(name, phase, layer, agg, columns, aggregated, transpose=transpose)
        self.relayout.to_rows(aggregated, out_nF, layer, phase)

    def _forward_layer(self, layer: int, h_nF: Tensor, phase: Phase) -> Tensor:
        if not self.shape.model.attention:
            y_nH = self._convolve(layer, h_nF, phase)
        elif self.relayout is None:
            y_nH = attention.forward(self, layer, h_nF, phase)
        else:
            y_nH = attention_columns.forward(self, layer, h_nF, phase)
        if layer < self.shape.num_layers:
            self._activate(layer, y_nH, phase)
        return y_nH

    def _convolve(self, layer: int, h_nF: Tensor, phase: Phase) -> Tensor:
        shape, value, n = self.shape, self.parameters.value, len(self._row_ids[0])
        agg = self.aggregation(layer)
        fan_in, fan_out = shape.dims[layer - 1], shape.dims[layer]
        weight, bias, where = value[f"weight_{layer}"], value[f"bias_{layer}"], f"{phase}/{layer}"
        y_nH = self.workspace.get(f"h{layer}", n, fan_out)
        if shape.orders[layer - 1] == "aggregate_first":
            if layer == 1 and self.aggregated_x is not None:
                z_nF = self.aggregated_x
            else:
                z_nF = self.workspace.get(f"z{layer}", n, fan_in)
                held = self.x_columns if layer == 1 else None
                self._by_columns(h_nF, z_nF, agg, layer, phase, columns=held)
            self._mm(f"{where}/gemm", "gemm_nn_bias", phase, layer, z_nF, weight, y_nH, add=bias)
        else:
            t_nH = self.workspace.get(f"t{layer}", n, fan_out)
            self._mm(f"{where}/gemm", "gemm_nn", phase, layer, h_nF, weight, t_nH)
            self._by_columns(t_nH, y_nH, agg, layer, phase)
            with self._elementwise(f"{where}/bias", "bias", phase, layer, y_nH, 2):
                y_nH.add_(bias)
        if shape.model.self_weight:
            own = value[f"self_weight_{layer}"]
            self._mm(f"{where}/self", "gemm_nn_add", phase, layer, h_nF, own, y_nH, accumulate=True)
        return y_nH

    def _backward_layer(self, layer: int) -> None:
        h_nF, n = self._hidden[layer - 1], len(self._hidden[-1])
        g_nH = self.workspace.get(f"g{layer}", n, self.shape.dims[layer])
        if not self.shape.model.attention:
            g_nF = self._convolve_backward(layer, h_nF, g_nH)
        elif self.relayout is None:
            g_nF = attention.backward(self, layer, h_nF, g_nH)
        else:
            g_nF = attention_columns.backward(self, layer, h_nF, g_nH)
        if g_nF is not None:
            self._activate_backward(layer, g_nF, h_nF)

    def _convolve_backward(self, layer: int, h_nF: Tensor, g_nH: Tensor) -> Tensor | None:
        shape, grads, agg = self.shape, self.parameters.grad, self.aggregation(layer)
        value, phase, where = self.parameters.value, Phase.BACKWARD, f"backward/{layer}"
        (n, fan_out), fan_in = g_nH.shape, shape.dims[layer - 1]
        with self._elementwise(f"{where}/bias", "column_sum", phase, layer, g_nH, 1):
            torch.sum(g_nH, 0, out=grads[f"bias_{layer}"])
        weight, weight_grad = value[f"weight_{layer}"], grads[f"weight_{layer}"]
        g_nF = self.workspace.get(f"g{layer - 1}", n, fan_in) if layer > 1 else None
        if shape.orders[layer - 1] == "aggregate_first":
            kept = self.aggregated_x if layer == 1 else None
            z_nF = self.workspace.get(f"z{layer}", n, fan_in) if kept is None else kept
            self._mm(f"{where}/weight", "gemm_tn", phase, layer, z_nF.t(), g_nH, weight_grad)
            if g_nF is not None:
                # Z is not needed again: its buffer takes dZ.
                self._mm(f"{where}/input", "gemm_nt", phase, layer, g_nH, weight.t(), z_nF)
                self._by_columns(z_nF, g_nF, agg, layer, phase)
        else:
            t_nH = self.workspace.get(f"t{layer}", n, fan_out)
            self._by_columns(g_nH, t_nH, agg, layer, phase)
            self._mm(f"{where}/weight", "gemm_tn", phase, layer, h_nF.t(), t_nH, weight_grad)
            if g_nF is not None:
                self._mm(f"{where}/input", "gemm_nt", phase, layer, t_nH, weight.t(), g_nF)
        if shape.model.self_weight:
            own, own_grad = value[f"self_weight_{layer}"], grads[f"self_weight_{layer}"]
            self._mm(f"{where}/self_weight", "gemm_tn", phase, layer, h_nF.t(), g_nH, own_grad)
            if g_nF is not None:
                self._mm(
                    f"{where}/self_input", "gemm_nt_add", phase, layer, g_nH, own.t(), g_nF,
                    accumulate=True,
                )  # fmt: skip
        return g_nF


class MixtureTrainer(PartitionTrainer):
    """One rank of full-graph training; steps, loss and accuracy are as in partition parallelism."""

    stack: MixtureStack
    aggregation: Aggregation | Attention

    def __init__(self, context: RankContext, graph: Graph, structure: MixtureStructure) -> None:
        run = context.run
        knobs: MixtureKnobs = APPROACHES.get(run.approach).knobs(run)
        self.context, self.shape = context, mixture_shape(graph, run, knobs)
        self.model = MODELS.get(run.model.kind)
        dtype = torch.float64 if run.training.precision == "float64" else torch.float32
        self.parameters = Parameters(
            self.model, self.shape.dims, run.training.seed, context.device, dtype, self.shape.heads
        )
        self.workspace = Workspace(context.device, dtype)
        self.optimizer_steps = 0
        self.loss_scale = 1.0 / max(graph.num_train, 1)
        first = structure.first_row(context.rank)
        own = np.arange(first, first + structure.rows[context.rank])
        graph = reopened_graph(graph)
        self.relayouts = Relayouts.of(
            self.shape, ranks=context.world_size, precompute=knobs.precompute
        )
        self.aggregation = self._whole_graph(graph, dtype)
        self._load_split(graph, own)
        self.stack = MixtureStack(
            self.shape, self.parameters, self.workspace, context.kernels, context.recorder
        )
        if context.world_size > 1:
            self.stack.relayout = Relayout(context, structure.rows, self.relayouts, self.workspace)
            self.stack.scores = ScoreExchange(context, structure.rows, self.workspace)
            self.stack.relayouts = self.relayouts
        self._load_features(graph, own, structure, dtype)

    def _whole_graph(self, graph: Graph, dtype: torch.dtype) -> Aggregation | Attention:
        if self.model.attention:
            pattern = Attention.of(
                np.array(graph.indptr),
                np.array(graph.indices),
                np.arange(graph.num_nodes),
                graph.num_nodes,
                with_ids=self.shape.dropout > 0,
            )
            return pattern.to(self.context.device)
        as_destination, as_source = vertex_scales(graph, self.model)
        # Copies: what lies in a mapped file would be read page by page in the first epoch.
        indptr = self._tensor(np.array(graph.indptr))
        indices = self._tensor(np.array(graph.indices))
        indptr_t, indices_t = indptr, indices
        if not is_symmetric(graph):
            by_source = transposed(graph)
            indptr_t, indices_t = (self._tensor(array) for array in by_source)
        self_scale = None if as_source is None else as_destination * as_source
        return Aggregation(
            indptr=indptr,
            indices=indices,
            indptr_t=indptr_t,
            indices_t=indices_t,
            rows=graph.num_nodes,
            source_rows=graph.num_nodes,
            row_scale=self._tensor(as_destination, dtype),
            col_scale=None if as_source is None else self._tensor(as_source, dtype),
            self_scale=None if self_scale is None else self._tensor(self_scale, dtype),
        )

    def _load_split(self, graph: Graph, own: np.ndarray) -> None:
        assert graph.labels is not None
        labels = np.asarray(graph.labels)[own]
        dtype = self.workspace.dtype if labels.dtype.kind == "f" else torch.int64
        self.labels = self._tensor(labels, dtype)
        self.row_ids = self._tensor(own.astype(np.int64))
        masks = {"train": graph.train_mask, "val": graph.val_mask, "test": graph.test_mask}
        self.masks = {
            name: self._tensor(np.asarray(mask)[own])
            for name, mask in masks.items()
            if mask is not None
        }
        self.train_rows = self.masks["train"].nonzero().squeeze(1)

    def all_reduce(self) -> None:
        """Sum gradients and loss over ranks, in one collective."""
        self.context.comm.all_reduce(self.parameters.flat_grad, "sync/gradients", Phase.SYNC)

    # -- features --------------------------------------------------------------------------------

    def _load_features(
        self, graph: Graph, own: np.ndarray, structure: MixtureStructure, dtype: torch.dtype
    ) -> None:
        """Hold X in the layouts that the model needs, and the first aggregation if asked for."""
        width, relayouts, stack = graph.num_features, self.relayouts, self.stack
        mine = (int(own[0]), int(own[-1]) + 1) if len(own) else (0, 0)
        if relayouts.precomputed:
            # Before the rows of X are there: what this takes for a while shall not come on top.
            stack.aggregated_x = self._aggregate_once(graph, structure, dtype)
        self.x = self._features(graph, mine, (0, width if relayouts.x_rows else 0), dtype)
        if relayouts.x_columns:
            stack.x_columns = self._own_columns(graph, dtype)

    def _own_columns(self, graph: Graph, dtype: torch.dtype) -> Tensor:
        shares = even_split(graph.num_features, self.context.world_size)
        start = sum(shares[: self.context.rank])
        columns = (start, start + shares[self.context.rank])
        return self._features(graph, (0, graph.num_nodes), columns, dtype)

    def _aggregate_once(
        self, graph: Graph, structure: MixtureStructure, dtype: torch.dtype
    ) -> Tensor:
        """Own rows of A X from own columns of X, with buffers that do not outlive this."""
        context, agg, width = self.context, self.aggregation, graph.num_features
        assert isinstance(agg, Aggregation)
        size = (structure.rows[context.rank], width)
        x_Nf = self._own_columns(graph, dtype)
        aggregated = torch.empty_like(x_Nf)
        if x_Nf.shape[1]:
            name, phase = "load/1/spmm", Phase.LOAD
            self.stack._product(name, phase, 1, agg, x_Nf, aggregated, transpose=False)
        if context.world_size == 1:
            return aggregated
        del x_Nf
        once = Relayouts(forward=((width,),), backward=((),), x_rows=False, x_columns=True)
        lone = Workspace(context.device, dtype)
        held = torch.empty(size, device=context.device, dtype=dtype)
        Relayout(context, structure.rows, once, lone).to_rows(aggregated, held, 1, Phase.LOAD)
        return held

    def _features(
        self, graph: Graph, rows: tuple[int, int], columns: tuple[int, int], dtype: torch.dtype
    ) -> Tensor:
        """A block of the features, on the device."""
        assert graph.features is not None
        source, size = reopened(graph.features), (rows[1] - rows[0], columns[1] - columns[0])
        held = torch.empty(size, device=self.context.device, dtype=dtype)
        for start in range(rows[0], rows[1], _CHUNK):
            stop = min(start + _CHUNK, rows[1])
            part = np.ascontiguousarray(source[start:stop, columns[0] : columns[1]])
            held[start - rows[0] : stop - rows[0]] = self._tensor(part, dtype)
        return held
