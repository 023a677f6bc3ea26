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

import numpy as np
from torch import Tensor

from gnnbench.approaches.whole_graph.partition import PartitionStructure
from gnnbench.approaches.whole_graph.rows import RowSizes
from gnnbench.approaches.writing.shape import StackShape, stack_shape
from gnnbench.data.graph import Graph
from gnnbench.steps import Phase
from gnnbench_runtime.approaches.mini_batch.global_model import GlobalModel
from gnnbench_runtime.approaches.whole_graph.exchange import HaloExchange
from gnnbench_runtime.approaches.whole_graph.partition import PartitionTrainer
from gnnbench_runtime.models.stack import Stack
from gnnbench_runtime.models.workspace import Workspace
from gnnbench_runtime.protocol import RankContext

PIECE_ELEMENTS = 1 << 22
"""Elements of a weight matrix, or of the columns that it multiplies, that are held at once."""


def piece_columns(shape: StackShape, layer: int) -> int:
    """Input columns of a layer, and rows of its matrices, that are held at once."""
    fan_in, fan_out = shape.dims[layer - 1 : layer + 1]
    return min(fan_in, max(PIECE_ELEMENTS // fan_out, 1))


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
                x = self._aggregated(layer, h_uF[:, at:stop], phase)
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

    def _aggregated(self, layer: int, own_uF: Tensor, phase: Phase) -> Tensor:
        """Sums over neighbours of some columns, whose halo rows are fetched."""
        agg = self.aggregation(layer)
        x = own_uF.new_empty((agg.source_rows, own_uF.shape[1]))
        rows = self.input_rows(layer)
        x[:rows] = own_uF[:rows]
        if self.exchange is not None:
            self.exchange.forward(x, layer, phase)
        out = own_uF.new_empty((agg.rows, own_uF.shape[1]))
        self.spmm(f"{phase}/{layer}/spmm", phase, layer, agg, x, out, transpose=False)
        return out

    def out_rows(self, layer: int) -> int:
        """Own rows: halo rows are fetched apart."""
        return self.rows_of(layer)


class _StreamedTrainer(PartitionTrainer):
    """A trainer that evaluates the shards of a model."""

    stack_type = StreamedStack

    def fresh_exchange(self, workspace: Workspace | None = None) -> HaloExchange:
        """An exchange of a few columns at a time."""
        shape = self.shape
        widths = [
            piece_columns(shape, layer) if order == "aggregate_first" else shape.dims[layer]
            for layer, order in enumerate(shape.orders, start=1)
        ]
        return HaloExchange(self.context, self.local, workspace or self.workspace, max(widths))


class StreamedEvaluator:
    """Metrics of a sharded model on the full graph: vertices in even chunks, no sampling."""

    def __init__(self, context: RankContext, graph: Graph, model: GlobalModel) -> None:
        self.context, self.graph, self.model = context, graph, model

    def evaluate(self) -> dict[str, float]:
        """Stream the model through its layers, and measure."""
        world, n = self.context.world_size, self.graph.num_nodes
        owner = (np.arange(n, dtype=np.int64) * world // max(n, 1)).astype(np.int32)
        # Sizes are not read: the trainer finds them in the graph.
        structure = PartitionStructure(sizes=RowSizes.whole(self.graph), assignment=owner)
        shape = stack_shape(self.graph, self.context.run, "min_width")
        parameters: Any = StreamedParameters(self.model)
        full = _StreamedTrainer(
            self.context, self.graph, structure, parameters=parameters, shape=shape
        )
        return full.evaluate()
