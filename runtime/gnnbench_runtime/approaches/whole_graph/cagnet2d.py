"""CAGNET 2D: SUMMA products over blocks on a square grid.

Legend: n rows of this grid row's block, F, H widths of this grid column's blocks, C all classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gnnbench.approaches.whole_graph.cagnet2d import (
    SquareGrid,
    received_ids,
    received_rows,
    width_edges,
)
from gnnbench.approaches.writing.shape import stack_shape
from gnnbench.data.graph import Graph
from gnnbench.data.keys import fold
from gnnbench.models.names import MODELS
from gnnbench.steps import Kind, Phase
from gnnbench_runtime.approaches.whole_graph.cagnet import BlockTrainer, patterns, split_accuracy
from gnnbench_runtime.comm import Comm
from gnnbench_runtime.models.data import reopened_graph
from gnnbench_runtime.models.parameters import Parameters
from gnnbench_runtime.models.scales import vertex_scales
from gnnbench_runtime.models.stack import Stack
from gnnbench_runtime.models.workspace import Workspace
from gnnbench_runtime.protocol import RankContext


def pack(indptr: Tensor, indices: Tensor) -> Tensor:
    """A sparse pattern as one int64 vector, row pointers first: what travels."""
    return torch.cat([indptr.to(torch.int64), indices.to(torch.int64)])


def broadcast_adjacency(
    row: Comm, packed: Tensor, num_rows: int, owner: int, name: str, phase: Phase, layer: int
) -> tuple[Tensor, Tensor]:
    """Broadcast a packed pattern along a grid row; return its (indptr, indices), int64."""
    row.broadcast(packed, owner, name, phase, layer=layer)
    return packed[: num_rows + 1], packed[num_rows + 1 :]


@dataclass(slots=True, kw_only=True)
class GridBlock:
    """This rank's block of the normalised adjacency and of its transpose, packed (see `pack`).

    to, from_ [N]: scales of every vertex as destination and as source, None for ones;
    self_scale [n]. `received` is the buffer for foreign patterns.
    """

    forward: Tensor
    backward: Tensor
    to: Tensor | None
    from_: Tensor | None
    self_scale: Tensor | None
    received: Tensor


class SquareStack(Stack):
    """A stack whose rows are split over grid rows and whose columns over grid columns."""

    def __init__(
        self,
        context: RankContext,
        shape: Any,
        parameters: Parameters,
        workspace: Workspace,
        grid: SquareGrid,
        block: GridBlock,
    ) -> None:
        super().__init__(shape, parameters, workspace, context.kernels, context.recorder)
        self.grid, self.block = grid, block
        self.i, self.j = grid.place(context.rank)
        self.rows = grid.rows(self.i)
        self.edges = width_edges(shape, grid.side)
        if grid.side == 1:
            self.row = self.column = context.comm
        else:
            self.row = context.comm.split(grid.row_groups())
            self.column = context.comm.split(grid.columns())

    # -- products --------------------------------------------------------------------------------

    def _part(self, layer: int, t: int) -> slice:
        """Columns of H_layer in grid column t."""
        return slice(self.edges[layer][t], self.edges[layer][t + 1])

    def _width(self, layer: int, t: int | None = None) -> int:
        part = self._part(layer, self.j if t is None else t)
        return part.stop - part.start

    def _stage_rows(self, rows: int, width: int) -> Tensor:
        return self.workspace.get("stage_rows", rows, width)

    def _row_stage(
        self, where: str, phase: Phase, layer: int, t: int, own: Tensor, width: int
    ) -> Tensor:
        """The block of grid column t in this row."""
        block = own if t == self.j else self._stage_rows(self.rows, width)
        if block.numel():
            self.row.broadcast(block, t, f"{where}/row_broadcast/{t}", phase, layer=layer)
        return block

    def _sparse_stage(
        self, where: str, phase: Phase, layer: int, x_nF: Tensor, out_nF: Tensor, transpose: bool
    ) -> None:
        grid, held, n = self.grid, self.block, self.rows
        width, s = x_nF.shape[1], x_nF.element_size()
        to, from_ = (held.from_, held.to) if transpose else (held.to, held.from_)
        low = grid.edges[self.i]
        row_scale = None if to is None else to[low : low + n]
        for t in range(grid.side):
            nonzeros = grid.entries(self.i, t, transpose=transpose)
            if t == self.j:
                packed = held.backward if transpose else held.forward
            else:
                packed = held.received[: n + 1 + nonzeros]
            indptr, indices = broadcast_adjacency(
                self.row, packed, n, t, f"{where}/adjacency/{t}", phase, layer
            )
            count = grid.rows(t)
            block = x_nF if t == self.i else self._stage_rows(count, width)
            if block.numel():
                self.column.broadcast(block, t, f"{where}/broadcast/{t}", phase, layer=layer)
            moved = (min(count, nonzeros) + (2 if t else 1) * n) * width * s
            columns = slice(grid.edges[t], grid.edges[t + 1])
            with self._step(
                f"{where}/spmm/{t}", Kind.SPMM, "spmm", phase, layer,
                8 * (n + 1 + nonzeros) + moved, 2 * nonzeros * width,
            ):  # fmt: skip
                self.kernels.spmm(
                    indptr,
                    indices,
                    block,
                    out_nF,
                    row_scale=row_scale,
                    col_scale=None if from_ is None else from_[columns],
                    self_scale=held.self_scale if t == self.i else None,
                    accumulate=t > 0,
                )

    def _dense(
        self, where: str, phase: Phase, layer: int, op: str, x_nF: Tensor, weight: Tensor,
        out_nH: Tensor, *, add: Tensor | None = None, accumulate: bool = False,
    ) -> None:  # fmt: skip
        """Out (+)= sum over t of X_it W_tj."""
        mine = self._part(layer, self.j)
        for t in range(self.grid.side):
            block = self._row_stage(where, phase, layer, t, x_nF, self._width(layer - 1, t))
            self._mm(
                f"{where}/{t}", "gemm_nn_add" if t else op, phase, layer, block,
                weight[self._part(layer - 1, t), mine], out_nH,
                add=None if t else add, accumulate=accumulate or t > 0,
            )  # fmt: skip

    def _dense_backward(
        self, where: str, layer: int, x_nF: Tensor, g_nH: Tensor, name: str,
        out_nF: Tensor | None, *, accumulate: bool = False,
    ) -> None:  # fmt: skip
        """dW[j, t] = X_ij^T G_it; with `out`, out (+)= sum over t of G_it W[j, t]^T."""
        phase, weight = Phase.BACKWARD, self.parameters.value[name]
        gradient, mine = self.parameters.grad[name], self._part(layer - 1, self.j)
        inputs = where.replace("weight", "input")
        for t in range(self.grid.side):
            block = self._row_stage(where, phase, layer, t, g_nH, self._width(layer, t))
            part = self._part(layer, t)
            self._mm(f"{where}/{t}", "gemm_tn", phase, layer, x_nF.t(), block, gradient[mine, part])
            if out_nF is not None:
                more = accumulate or t > 0
                self._mm(
                    f"{inputs}/{t}", "gemm_nt_add" if more else "gemm_nt", phase, layer, block,
                    weight[mine, part].t(), out_nF, accumulate=more,
                )  # fmt: skip

    # -- forward ---------------------------------------------------------------------------------

    def forward(
        self,
        x: Tensor,
        aggregations: Sequence[Any],
        *,
        row_ids: Sequence[Tensor],
        counters: tuple[int, ...] | None,
        phase: Phase = Phase.FORWARD,
    ) -> Tensor:
        """Return this rank's block of the logits, (n, C/Q); aggregations are the grid's."""
        shape, hidden, ids = self.shape, x, row_ids[0]
        if counters is not None and shape.input_dropout > 0:
            hidden = self.workspace.get("h0", *x.shape)
            with self._elementwise(f"{phase}/0/dropout", "dropout", phase, 0, x, 2):
                key, first = fold(*counters, 0), self._part(0, self.j).start
                self.kernels.dropout(x, hidden, shape.input_dropout, key, ids, first)
        self._hidden = [hidden]
        for layer in range(1, shape.num_layers + 1):
            hidden = self._forward(layer, hidden, ids, counters, phase)
            self._hidden.append(hidden)
        return hidden

    def _forward(
        self, layer: int, h_nF: Tensor, ids: Tensor, counters: tuple[int, ...] | None, phase: Phase
    ) -> Tensor:
        shape, value, where = self.shape, self.parameters.value, f"{phase}/{layer}"
        weight, mine = value[f"weight_{layer}"], self._part(layer, self.j)
        bias = value[f"bias_{layer}"][mine]
        y_nH = self.workspace.get(f"h{layer}", self.rows, self._width(layer))
        if shape.orders[layer - 1] == "aggregate_first":
            z_nF = self.workspace.get(f"z{layer}", *h_nF.shape)
            self._sparse_stage(where, phase, layer, h_nF, z_nF, transpose=False)
            self._dense(f"{where}/gemm", phase, layer, "gemm_nn_bias", z_nF, weight, y_nH, add=bias)
        else:
            t_nH = self.workspace.get(f"t{layer}", *y_nH.shape)
            self._dense(f"{where}/gemm", phase, layer, "gemm_nn", h_nF, weight, t_nH)
            self._sparse_stage(where, phase, layer, t_nH, y_nH, transpose=False)
            with self._elementwise(f"{where}/bias", "bias", phase, layer, y_nH, 2):
                y_nH.add_(bias)
        if shape.model.self_weight:
            own = value[f"self_weight_{layer}"]
            self._dense(
                f"{where}/self", phase, layer, "gemm_nn_add", h_nF, own, y_nH, accumulate=True
            )
        if layer < shape.num_layers:
            rate = shape.dropout if counters is not None else 0.0
            op = "relu_dropout" if rate > 0 else "relu"
            with self._elementwise(f"{where}/activation", op, phase, layer, y_nH, 2):
                key = fold(*counters, layer) if counters is not None else 0
                self.kernels.relu_dropout(y_nH, y_nH, rate, key, ids, mine.start)
        return y_nH

    # -- loss ------------------------------------------------------------------------------------

    def gather_logits(self, own_nH: Tensor, phase: Phase) -> Tensor:
        """All classes of this row's vertices, on every rank of the row."""
        last = self.shape.num_layers
        logits_nC = self.workspace.get("logits", self.rows, self.shape.dims[-1])
        for t in range(self.grid.side):
            block = self._row_stage("forward/logits", phase, last, t, own_nH, self._width(last, t))
            with self._elementwise(f"forward/logits/{t}", "copy", phase, last, block, 2):
                logits_nC[:, self._part(last, t)] = block
        return logits_nC

    def loss(self, logits_nC: Tensor, labels: Tensor, train_rows: Tensor, scale: float) -> None:
        """The loss of this row's vertices counts on grid column 0; its gradient is sliced."""
        last, classes = self.shape.num_layers, logits_nC.shape[1]
        gradient = self.workspace.get("logits_gradient", self.rows, classes)
        size = (self.rows + 2 * train_rows.numel()) * classes * logits_nC.element_size()
        with self._step(
            "forward/loss", Kind.ELEMENTWISE, "softmax_cross_entropy", Phase.FORWARD, last, size,
            5 * train_rows.numel() * classes,
        ):  # fmt: skip
            value = self.kernels.softmax_cross_entropy(
                logits_nC, labels, train_rows, scale, gradient
            )
            if self.j == 0:
                self.parameters.loss.copy_(torch.as_tensor(value).reshape(1))
            else:
                self.parameters.loss.zero_()
        own = self.workspace.get(f"g{last}", self.rows, self._width(last))
        with self._elementwise("forward/loss/slice", "copy", Phase.FORWARD, last, own, 2):
            own.copy_(gradient[:, self._part(last, self.j)])

    # -- backward --------------------------------------------------------------------------------

    def backward(self) -> None:
        """Fill this rank's part of the gradient vector, zeros elsewhere."""
        gradient = self.parameters.gradient
        with self._elementwise("backward/zero", "zero", Phase.BACKWARD, -1, gradient, 1):
            gradient.zero_()
        for layer in range(self.shape.num_layers, 0, -1):
            self._backward(layer)

    def _backward(self, layer: int) -> None:
        shape, grads, get = self.shape, self.parameters.grad, self.workspace.get
        phase, where, n = Phase.BACKWARD, f"backward/{layer}", self.rows
        h_nF, name = self._hidden[layer - 1], f"weight_{layer}"
        fan_in, fan_out = self._width(layer - 1), self._width(layer)
        g_nH = get(f"g{layer}", n, fan_out)
        with self._elementwise(f"{where}/bias", "column_sum", phase, layer, g_nH, 1):
            torch.sum(g_nH, 0, out=grads[f"bias_{layer}"][self._part(layer, self.j)])
        below = get(f"g{layer - 1}", n, fan_in) if layer > 1 else None
        if shape.orders[layer - 1] == "aggregate_first":
            z_nF = get(f"z{layer}", n, fan_in)
            # Z is needed until the last stage: its gradient has a buffer of its own.
            d_nF = get(f"d{layer}", n, fan_in) if layer > 1 else None
            self._dense_backward(f"{where}/weight", layer, z_nF, g_nH, name, d_nF)
            if d_nF is not None and below is not None:
                self._sparse_stage(where, phase, layer, d_nF, below, transpose=True)
        else:
            t_nH = get(f"t{layer}", n, fan_out)
            self._sparse_stage(where, phase, layer, g_nH, t_nH, transpose=True)
            self._dense_backward(f"{where}/weight", layer, h_nF, t_nH, name, below)
        if shape.model.self_weight:
            self._dense_backward(
                f"{where}/self_weight", layer, h_nF, g_nH, f"self_{name}", below, accumulate=True
            )
        if below is not None:
            with self._elementwise(
                f"{where}/activation", "relu_backward", phase, layer - 1, below, 3
            ):
                self.kernels.relu_dropout_backward(below, h_nF, shape.dropout, below)


class SquareGridTrainer(BlockTrainer):
    """One rank of CAGNET 2D: one optimizer step per epoch."""

    def __init__(self, context: RankContext, graph: Graph, structure: SquareGrid) -> None:
        run, self.context = context.run, context
        self.shape = stack_shape(graph, run, str(run.knobs["order"]))
        self.dtype = torch.float64 if run.training.precision == "float64" else torch.float32
        self.model = MODELS.get(run.model.kind)
        self.parameters = Parameters(
            self.model, self.shape.dims, run.training.seed, context.device, self.dtype
        )
        self.workspace = Workspace(context.device, self.dtype)
        self.workspace.get("stage_rows", received_rows(self.shape, structure), 1)
        graph = reopened_graph(graph)
        block = self._block(graph, structure)
        self.stack = SquareStack(
            context, self.shape, self.parameters, self.workspace, structure, block
        )
        i, j = structure.place(context.rank)
        own = slice(structure.edges[i], structure.edges[i + 1])
        columns = slice(self.stack.edges[0][j], self.stack.edges[0][j + 1])
        self._load_block(graph, own, columns)
        self.optimizer_steps = 0

    # -- data ------------------------------------------------------------------------------------

    def _block(self, graph: Graph, grid: SquareGrid) -> GridBlock:
        i, j = grid.place(self.context.rank)
        [(forward, backward)] = patterns(graph, grid.edges, i, [j])
        to, from_ = vertex_scales(graph, self.model)
        own = slice(grid.edges[i], grid.edges[i + 1])
        return GridBlock(
            forward=pack(self._tensor(forward[0]), self._tensor(forward[1])),
            backward=pack(self._tensor(backward[0]), self._tensor(backward[1])),
            to=self._tensor(to, self.dtype),
            from_=None if from_ is None else self._tensor(from_, self.dtype),
            self_scale=None if from_ is None else self._tensor(to[own] * from_[own], self.dtype),
            received=torch.empty(
                received_ids(grid, i, j), dtype=torch.int64, device=self.context.device
            ),
        )

    # -- training --------------------------------------------------------------------------------

    def _logits(self, counters: tuple[int, ...] | None, phase: Phase) -> Tensor:
        own = self.stack.forward(self.x, [], row_ids=[self.row_ids], counters=counters, phase=phase)
        return self.stack.gather_logits(own, phase)

    def gradients(self, counters: tuple[int, ...]) -> Tensor:
        """Fill this rank's part of loss and gradient; return the logits of its grid row."""
        logits = self._logits(counters, Phase.FORWARD)
        self.stack.loss(logits, self.labels, self.train_rows, self.loss_scale)
        self.stack.backward()
        return logits

    def all_reduce(self) -> None:
        """Sum gradients and loss over the grid."""
        self.context.comm.all_reduce(self.parameters.flat_grad, "sync/gradients", Phase.SYNC)

    # -- evaluation ------------------------------------------------------------------------------

    def evaluate(self) -> dict[str, float]:
        """Accuracy on every split: a grid column holds every row once."""
        logits = self._logits(None, Phase.EVALUATE)
        return split_accuracy(logits, self.labels, self.masks, self.stack.column)
