"""Evaluation of a model that no rank can hold: layer by layer, a few rows of a matrix at a time.

Each rank has an even chunk of the vertices, and of a layer its own rows of input and output. The
owners broadcast rows I of a weight matrix; columns I of the input are aggregated, halo rows
included, and added to the output: Y += (A H[:, I]) W[I, :]. Where the output is narrower, rows are
multiplied first and their sum is aggregated. So a rank holds its rows of two layers, and neither a
whole matrix nor whole halo rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from gnnbench.approaches.mini_batch.submodels import piece_columns, widest_piece
from gnnbench.data.graph import Graph
from gnnbench.steps import Phase
from gnnbench_runtime.approaches.mini_batch.global_model import GlobalModel
from gnnbench_runtime.approaches.mini_batch.sampled import FullGraphEvaluator
from gnnbench_runtime.approaches.whole_graph.exchange import HaloExchange
from gnnbench_runtime.approaches.whole_graph.partition import PartitionTrainer
from gnnbench_runtime.models.stack import Stack
from gnnbench_runtime.models.workspace import Workspace
from gnnbench_runtime.protocol import RankContext


class StreamedParameters:
    """Parameters of a sharded model: vectors by name, and rows of matrices as they are asked for.

    Args:
        model: the shards.
    """

    def __init__(self, model: GlobalModel) -> None:
        self.model = model
        self.place: dict[str, tuple[int, tuple[int, ...]]] = {}
        self.value: dict[str, Tensor] = {}
        start = 0
        for name, shape in model.cut.shapes:
            self.place[name] = start, shape
            if len(shape) == 1:
                self.value[name] = model.shard.new_empty(shape)
                model.streamed(start, start + shape[0], self.value[name])
            start += math.prod(shape)

    def rows(self, name: str, first: int, last: int) -> Tensor:
        """Rows first ... last - 1 of a matrix, in a buffer of their own."""
        start, (_, width) = self.place[name]
        held = self.model.shard.new_empty((last - first, width))
        self.model.streamed(start + first * width, start + last * width, held.view(-1))
        return held


class StreamedStack(Stack):
    """Layers whose matrices come in pieces; it only evaluates."""

    parameters: Any

    def forward(
        self,
        x: Tensor,
        aggregations: Sequence[Any],
        *,
        row_ids: Sequence[Tensor],
        counters: tuple[int, ...] | None,
        phase: Phase = Phase.FORWARD,
        keeps: bool = False,
    ) -> Tensor:
        """As of `Stack`, but a layer's rows end with the next layer."""
        self.aggregations, self.row_ids, self.counters = aggregations, row_ids, counters
        hidden = x
        for layer in range(1, self.shape.num_layers + 1):
            hidden = self.activate(layer, self.layer_forward(layer, hidden, phase), phase)
        return hidden

    def layer_forward(self, layer: int, h_uF: Tensor, phase: Phase) -> Tensor:
        shape, agg = self.shape, self.aggregation(layer)
        n, fan_out, where = agg.rows, shape.dims[layer], f"{phase}/{layer}"
        out = h_uF.new_zeros((n, fan_out))
        first = shape.orders[layer - 1] == "aggregate_first"
        summed = out if first else h_uF.new_zeros((agg.source_rows, fan_out))
        rows = n if first else self.input_rows(layer)
        for at, stop in self._pieces(layer):
            x = h_uF[:rows, at:stop]
            if first:
                x = self._aggregated(layer, self._with_room(layer, h_uF[:, at:stop]), phase)
            self._add(f"{where}/gemm", layer, (x, "weight", summed[:rows]), (at, stop), phase)
            if shape.model.self_weight:
                own = h_uF[:n, at:stop], "self_weight", out
                self._add(f"{where}/self", layer, own, (at, stop), phase)
        if not first:
            out.add_(self._aggregated(layer, summed, phase))
        return out.add_(self.parameters.value[f"bias_{layer}"])

    def _add(
        self,
        name: str,
        layer: int,
        product: tuple[Tensor, str, Tensor],
        rows: tuple[int, int],
        phase: Phase,
    ) -> None:
        """Add a product with some rows of a matrix."""
        x, matrix, out = product
        piece = self.parameters.rows(f"{matrix}_{layer}", *rows)
        self.mm(name, "gemm_nn_add", phase, layer, (x, piece, out), accumulate=True)

    def _pieces(self, layer: int) -> Iterator[tuple[int, int]]:
        """Ranges of the layer's input columns; on every rank the same."""
        fan_in, each = self.shape.dims[layer - 1], piece_columns(self.shape, layer)
        for at in range(0, fan_in, each):
            yield at, min(at + each, fan_in)

    def _with_room(self, layer: int, own_nF: Tensor) -> Tensor:
        """Some columns of the own rows, with room for halo rows behind them."""
        rows = self.aggregation(layer).source_rows
        if rows == len(own_nF):
            return own_nF.contiguous()
        x = own_nF.new_empty((rows, own_nF.shape[1]))
        x[: len(own_nF)] = own_nF
        return x

    def _aggregated(self, layer: int, x_uF: Tensor, phase: Phase) -> Tensor:
        """Sums over neighbours, whose halo rows are fetched into `x_uF`."""
        agg = self.aggregation(layer)
        if self.exchange is not None:
            self.exchange.forward(x_uF, layer, phase)
        out = x_uF.new_empty((agg.rows, x_uF.shape[1]))
        self.spmm(f"{phase}/{layer}/spmm", phase, layer, agg, x_uF, out, transpose=False)
        return out

    def out_rows(self, layer: int) -> int:
        """Own rows: halo rows are fetched apart."""
        return self.rows_of(layer)


class _StreamedTrainer(PartitionTrainer):
    """A trainer that evaluates the shards of a model."""

    stack_type = StreamedStack

    @property
    def reads_own_rows(self) -> bool:
        """True: halo rows are fetched apart, some columns at a time."""
        return True

    def fresh_exchange(self, workspace: Workspace | None = None) -> HaloExchange:
        """An exchange of a few columns at a time."""
        return HaloExchange(
            self.context, self.local, workspace or self.workspace, widest_piece(self.shape)
        )


class StreamedEvaluator(FullGraphEvaluator):
    """Metrics of a sharded model on the full graph: vertices in even chunks, no sampling."""

    trainer_type = _StreamedTrainer

    def __init__(
        self, context: RankContext, graph: Graph, model: GlobalModel, features: Tensor | None
    ) -> None:
        parameters: Any = StreamedParameters(model)
        super().__init__(context, graph, parameters, features)
