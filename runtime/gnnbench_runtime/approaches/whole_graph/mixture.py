"""Full-graph training by the mixture of parallelism: columns to aggregate, rows to update.

Legend: N vertices, n own rows, F input width, f own columns of it.
"""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.whole_graph.mixture import MixtureKnobs, MixtureStructure
from gnnbench.approaches.whole_graph.relayout import Relayouts, even_split
from gnnbench.approaches.writing.shape import stack_shape
from gnnbench.data.graph import Graph
from gnnbench.data.transpose import is_symmetric, transposed
from gnnbench.models.scales import vertex_scales
from gnnbench.steps import Phase
from gnnbench_runtime.approaches.whole_graph.partition import WholeGraph, WholeGraphTrainer
from gnnbench_runtime.approaches.whole_graph.share import Loader
from gnnbench_runtime.models.attention_scores import ScoreExchange
from gnnbench_runtime.models.column_stack import ColumnStack, Sliced
from gnnbench_runtime.models.data import reopened_graph
from gnnbench_runtime.models.layers import attention_columns
from gnnbench_runtime.models.patterns import Aggregation, Attention
from gnnbench_runtime.models.relayout import Relayout
from gnnbench_runtime.models.stack import Stack
from gnnbench_runtime.models.workspace import Workspace
from gnnbench_runtime.protocol import RankContext
from gnnbench_runtime.training import make_parameters

_COLUMNS_AT_ONCE = 64
"""Columns of X that a rank sums up at a time before training."""


class MixtureStack(ColumnStack):
    """Layers of either kind: attention has column slices of its own."""

    def layer_forward(self, layer: int, h_uF: Tensor, phase: Phase) -> Tensor:
        if self.shape.model.attention:
            return attention_columns.forward(self, layer, h_uF, phase)
        return super().layer_forward(layer, h_uF, phase)

    def layer_backward(self, layer: int, h_uF: Tensor, g_nH: Tensor) -> Tensor | None:
        if self.shape.model.attention:
            return attention_columns.backward(self, layer, h_uF, g_nH)
        return super().layer_backward(layer, h_uF, g_nH)


class MixtureTrainer(WholeGraphTrainer):
    """One rank of full-graph training over the whole graph: a slice of rows and one of columns."""

    def __init__(self, context: RankContext, data: Graph, structure: MixtureStructure) -> None:
        knobs: MixtureKnobs = APPROACHES.get(context.run.approach).knobs(context.run)
        graph = reopened_graph(data)
        self.context = context
        self.shape = stack_shape(graph, context.run, knobs.order, precompute=knobs.precompute)
        self.loader = Loader(context, graph, self.shape)
        self.workspace = Workspace(context.device, context.dtype)
        self.rows: list[int] = structure.rows.tolist()
        self.relayouts = Relayouts.of(self.shape, ranks=context.world_size)
        self.whole = self._whole_graph()
        # Before the rows of X are there, whose memory would come on top of what this takes.
        aggregated_x = self._aggregate_once() if self.shape.precompute else None
        owned = structure.owned(context.rank)
        x = self._rows_of_features(int(owned[0]) if len(owned) else 0, len(owned))
        pattern: Aggregation | Attention | Sliced = self.whole
        if context.world_size > 1:
            pattern = Sliced(rows=len(owned), source_rows=len(owned), whole=self.whole)
        batches = WholeGraph(self.loader, owned, pattern, x)
        self.compose(self._stack(aggregated_x), batches)

    def _stack(self, aggregated_x: Tensor | None) -> Stack:
        context, rows = self.context, self.rows
        given = (
            self.shape,
            make_parameters(context, self.shape),
            self.workspace,
            context.kernels,
            context.recorder,
        )
        if context.world_size == 1:
            return Stack(*given, precomputed=aggregated_x)
        return MixtureStack(
            *given,
            precomputed=aggregated_x,
            relayout=Relayout(context, rows, self.relayouts, self.workspace),
            scores=ScoreExchange(context, rows, self.workspace),
            relayouts=self.relayouts,
            x_columns=self._own_columns() if self.relayouts.x_columns else None,
        )

    def _whole_graph(self) -> Aggregation | Attention:
        """The pattern of all vertices."""
        graph, tensor, dtype = self.loader.graph, self.loader.tensor, self.context.dtype
        if self.shape.model.attention:
            pattern = Attention.of(
                np.array(graph.indptr),
                np.array(graph.indices),
                np.arange(graph.num_nodes),
                graph.num_nodes,
                with_ids=self.shape.dropout > 0,
            )
            return pattern.to(self.context.device)
        as_destination, as_source = vertex_scales(graph, self.shape.model)
        # Copies: what lies in a mapped file would be read page by page in the first epoch.
        indptr, indices = tensor(np.array(graph.indptr)), tensor(np.array(graph.indices))
        indptr_t, indices_t = indptr, indices
        if not is_symmetric(graph):
            indptr_t, indices_t = (tensor(array) for array in transposed(graph))
        self_scale = None if as_source is None else as_destination * as_source
        return Aggregation(
            indptr=indptr,
            indices=indices,
            indptr_t=indptr_t,
            indices_t=indices_t,
            rows=graph.num_nodes,
            source_rows=graph.num_nodes,
            row_scale=tensor(as_destination, dtype),
            col_scale=None if as_source is None else tensor(as_source, dtype),
            self_scale=None if self_scale is None else tensor(self_scale, dtype),
        )

    # -- features --------------------------------------------------------------------------------

    def _rows_of_features(self, first: int, count: int) -> Tensor:
        """Own rows of X (n, F), or (n, 0) where no layer reads them."""
        width = self.loader.graph.num_features if self.relayouts.x_rows else 0
        return self.loader.block(slice(first, first + count), slice(0, width))

    def _own_columns(self) -> Tensor:
        """Own columns of X (N, f)."""
        rank = self.context.rank
        shares = even_split(self.loader.graph.num_features, self.context.world_size)
        return self._columns(sum(shares[:rank]), shares[rank])

    def _columns(self, first: int, count: int) -> Tensor:
        return self.loader.block(slice(0, self.loader.graph.num_nodes), slice(first, first + count))

    def _aggregate_once(self) -> Tensor:
        """Own rows of A X: every rank aggregates some columns at a time and sends them to rows.

        Neither X nor A X is ever held in columns as a whole in addition to the result.
        """
        context, width = self.context, self.loader.graph.num_features
        rank, n = context.rank, self.rows[context.rank]
        shares = even_split(width, context.world_size)
        lone = Workspace(context.device, context.dtype)
        starts = [0, *accumulate(shares)]
        held = torch.empty((n, width), device=context.device, dtype=context.dtype)
        for done in range(0, shares[0], _COLUMNS_AT_ONCE):
            # An even split of their sum as well, because larger shares come first.
            taken = [min(_COLUMNS_AT_ONCE, share - done) for share in shares]
            summed = self._aggregated(starts[rank] + done, taken[rank])
            if context.world_size > 1:
                once = Relayouts(
                    forward=((sum(taken),),), backward=((),), x_rows=False, x_columns=True
                )
                part = torch.empty((n, sum(taken)), device=context.device, dtype=context.dtype)
                Relayout(context, self.rows, once, lone).to_rows(summed, part, 1, Phase.LOAD)
                summed = part
            for start, piece in zip(starts, summed.split(taken, 1), strict=False):
                held[:, start + done : start + done + piece.shape[1]] = piece
        return held

    def _aggregated(self, first: int, count: int) -> Tensor:
        """Some columns of A X, all vertices."""
        agg = self.whole
        assert isinstance(agg, Aggregation)
        x = self._columns(first, count)
        out = torch.empty_like(x)
        if count:
            self.context.kernels.spmm(
                agg.indptr,
                agg.indices,
                x,
                out,
                row_scale=agg.row_scale,
                col_scale=agg.col_scale,
                self_scale=agg.self_scale,
            )
        return out
