"""CAGNET 2D: SUMMA products over blocks on a square grid.

Legend: n rows of this grid row's block, F, H widths of this grid column's blocks, C all classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gnnbench import work
from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.whole_graph.cagnet2d import SquareGrid, received_rows, width_edges
from gnnbench.approaches.writing.shape import StackShape, stack_shape
from gnnbench.data.graph import Graph
from gnnbench.data.keys import fold
from gnnbench.steps import Phase
from gnnbench_runtime.approaches.whole_graph.blocks import (
    BlockOfVertices,
    BlockTrainer,
    Pattern,
    Scales,
    patterns,
)
from gnnbench_runtime.approaches.whole_graph.share import Loader
from gnnbench_runtime.comm import Comm
from gnnbench_runtime.models.data import reopened_graph
from gnnbench_runtime.models.parameters import Parameters
from gnnbench_runtime.models.performer import Performer
from gnnbench_runtime.models.workspace import Workspace
from gnnbench_runtime.protocol import RankContext
from gnnbench_runtime.training import Batch, make_parameters


def pack(indptr: Tensor, indices: Tensor) -> Tensor:
    """Pack a sparse pattern into one int64 vector for sending, row pointers first."""
    return torch.cat([indptr.to(torch.int64), indices.to(torch.int64)])


def broadcast_adjacency(
    row: Comm, packed: Tensor, num_rows: int, owner: int, name: str, phase: Phase, layer: int
) -> Pattern:
    """Broadcast a packed pattern along a grid row; return its (indptr, indices), int64."""
    row.broadcast(packed, owner, name, phase, layer=layer)
    return packed[: num_rows + 1], packed[num_rows + 1 :]


def sizes(x_nF: Tensor) -> tuple[int, int, int]:
    """Rows, width, and bytes of an element."""
    return x_nF.shape[0], x_nF.shape[1], x_nF.element_size()


@dataclass(slots=True, kw_only=True)
class GridBlock:
    """This rank's block of the normalised adjacency and of its transpose, packed (see `pack`).

    `received` is the buffer for patterns of other ranks.
    """

    forward: Tensor
    backward: Tensor
    scales: Scales
    received: Tensor

    @classmethod
    def of(cls, loader: Loader, grid: SquareGrid, rank: int) -> GridBlock:
        i, j = grid.place(rank)
        [(forward, backward)] = patterns(loader.graph, grid, i, [j])
        return cls(
            forward=pack(loader.tensor(forward[0]), loader.tensor(forward[1])),
            backward=pack(loader.tensor(backward[0]), loader.tensor(backward[1])),
            scales=Scales(loader, grid.own(i)),
            received=torch.empty(
                int(grid.received_ids()[i, j]), dtype=torch.int64, device=loader.context.device
            ),
        )


class SquareNet(Performer):
    """A stack whose rows are split over grid rows and whose columns over grid columns."""

    def __init__(
        self,
        context: RankContext,
        shape: StackShape,
        parameters: Parameters,
        workspace: Workspace,
        grid: SquareGrid,
        block: GridBlock,
    ) -> None:
        super().__init__(shape, parameters, workspace, context.kernels, context.recorder)
        self.grid, self.block = grid, block
        self.i, self.j = grid.place(context.rank)
        self.rows = int(grid.rows[self.i])
        self.edges = width_edges(shape, grid.side)
        if grid.side == 1:
            self.row = self.column = context.comm
        else:
            rows, columns = grid.groups()
            self.row, self.column = context.comm.split(rows), context.comm.split(columns)
        self._hidden: list[Tensor] = []

    # -- parts -----------------------------------------------------------------------------------

    def part(self, layer: int, t: int) -> slice:
        """Columns of H_layer in grid column t."""
        return slice(self.edges[layer][t], self.edges[layer][t + 1])

    def width(self, layer: int, t: int | None = None) -> int:
        """Width of a block of H_layer, by default the own one."""
        part = self.part(layer, self.j if t is None else t)
        return part.stop - part.start

    def room(self, name: str, width: int) -> Tensor:
        """A buffer of the own rows."""
        return self.workspace.get(name, self.rows, width)

    # -- products --------------------------------------------------------------------------------

    def row_stage(
        self, where: str, phase: Phase, layer: int, t: int, own: Tensor, width: int
    ) -> Tensor:
        """Return the block of grid column t in this row."""
        block = own if t == self.j else self.room("stage_rows", width)
        if block.numel():
            self.row.broadcast(block, t, f"{where}/row_broadcast/{t}", phase, layer=layer)
        return block

    def adjacency(
        self, where: str, phase: Phase, layer: int, t: int, *, transpose: bool
    ) -> Pattern:
        """Return block (i, t) of the adjacency, or of its transpose."""
        held, n = self.block, self.rows
        if t == self.j:
            packed = held.backward if transpose else held.forward
        else:
            nonzeros = int(self.grid.table(transpose=transpose)[self.i, t])
            packed = held.received[: n + 1 + nonzeros]
        return broadcast_adjacency(self.row, packed, n, t, f"{where}/adjacency/{t}", phase, layer)

    def summa(
        self, phase: Phase, layer: int, x_nF: Tensor, out_nF: Tensor, *, transpose: bool = False
    ) -> None:
        """Run out = A x with the whole normalised adjacency, or its transpose."""
        where, width = f"{phase}/{layer}", x_nF.shape[1]
        for t in range(self.grid.side):
            pattern = self.adjacency(where, phase, layer, t, transpose=transpose)
            columns, mine = self.grid.own(t), t == self.i
            count = columns.stop - columns.start
            block = x_nF if mine else self.workspace.get("stage_rows", count, width)
            if block.numel():
                self.column.broadcast(block, t, f"{where}/broadcast/{t}", phase, layer=layer)
            done = work.spmm(
                rows=self.rows,
                nonzeros=pattern[1].numel(),
                width=width,
                source_rows=count,
                element_bytes=x_nF.element_size(),
                adds=t > 0,
                index_bytes=pattern[1].element_size(),
            )
            with self.step(f"{where}/spmm/{t}", done, phase, layer):
                scales = self.block.scales.of(columns, mine=mine, transpose=transpose)
                self.kernels.spmm(*pattern, block, out_nF, accumulate=t > 0, **scales)

    def dense(
        self,
        where: str,
        op: str,
        phase: Phase,
        layer: int,
        product: tuple[Tensor, Tensor, Tensor],
        *,
        add: Tensor | None = None,
        accumulate: bool = False,
    ) -> None:
        """Run out_ij (+)= sum over t of X_it W_tj for a `product` (X_ij, W, out_ij)."""
        x_nF, weight, out_nH = product
        mine = self.part(layer, self.j)
        for t in range(self.grid.side):
            block = self.row_stage(where, phase, layer, t, x_nF, self.width(layer - 1, t))
            self.mm(
                f"{where}/{t}",
                "gemm_nn_add" if t else op,
                phase,
                layer,
                (block, weight[self.part(layer - 1, t), mine], out_nH),
                add=None if t else add,
                accumulate=accumulate or t > 0,
            )

    def dense_backward(
        self,
        kind: str,
        layer: int,
        x_nF: Tensor,
        g_nH: Tensor,
        out_nF: Tensor | None,
        *,
        accumulate: bool = False,
    ) -> None:
        """Run dW[j, t] = X_ij^T G_it; with `out`, out (+)= sum over t of G_it W[j, t]^T.

        `kind` is "" for the weight of the layer, "self_" for that of the own rows.
        """
        phase, where = Phase.BACKWARD, f"backward/{layer}/{kind}"
        weight = self.parameters.value[f"{kind}weight_{layer}"]
        gradient = self.parameters.grad[f"{kind}weight_{layer}"]
        mine = self.part(layer - 1, self.j)
        for t in range(self.grid.side):
            part = self.part(layer, t)
            block = self.row_stage(f"{where}weight", phase, layer, t, g_nH, self.width(layer, t))
            product = x_nF.t(), block, gradient[mine, part]
            self.mm(f"{where}weight/{t}", "gemm_tn", phase, layer, product)
            if out_nF is not None:
                more = accumulate or t > 0
                op = "gemm_nt_add" if more else "gemm_nt"
                product = block, weight[mine, part].t(), out_nF
                self.mm(f"{where}input/{t}", op, phase, layer, product, accumulate=more)

    # -- forward ---------------------------------------------------------------------------------

    def forward(
        self, x_nF: Tensor, ids: Tensor, counters: tuple[int, ...] | None, phase: Phase
    ) -> Tensor:
        """Return this row's logits, (n, C); `counters` key dropout, None turns it off."""
        shape, hidden, self.counters = self.shape, x_nF, counters
        if counters is not None and shape.input_dropout > 0:
            hidden = self.workspace.get("h0", *x_nF.shape)
            done = work.dropout(*sizes(x_nF))
            with self.step(f"{phase}/0/dropout", done, phase, 0):
                key, first = fold(*counters, 0), self.part(0, self.j).start
                self.kernels.dropout(x_nF, hidden, shape.input_dropout, key, ids, first)
        self._hidden = [hidden]
        for layer in range(1, shape.num_layers + 1):
            hidden = self.layer_forward(layer, hidden, phase)
            if layer < shape.num_layers:
                self.activate(layer, hidden, ids, phase)
            self._hidden.append(hidden)
        return self.gather_logits(hidden, phase)

    def layer_forward(self, layer: int, h_nF: Tensor, phase: Phase) -> Tensor:
        """Return the buffer of a layer's output, up to its activation."""
        shape, value, where = self.shape, self.parameters.value, f"{phase}/{layer}"
        weight, bias = value[f"weight_{layer}"], value[f"bias_{layer}"][self.part(layer, self.j)]
        y_nH = self.room(f"h{layer}", self.width(layer))
        if shape.orders[layer - 1] == "aggregate_first":
            z_nF = self.workspace.get(f"z{layer}", *h_nF.shape)
            self.summa(phase, layer, h_nF, z_nF)
            product = z_nF, weight, y_nH
            self.dense(f"{where}/gemm", "gemm_nn_bias", phase, layer, product, add=bias)
        else:
            t_nH = self.workspace.get(f"t{layer}", *y_nH.shape)
            self.dense(f"{where}/gemm", "gemm_nn", phase, layer, (h_nF, weight, t_nH))
            self.summa(phase, layer, t_nH, y_nH)
            done = work.bias(*sizes(y_nH))
            with self.step(f"{where}/bias", done, phase, layer):
                y_nH.add_(bias)
        if shape.model.self_weight:
            product = h_nF, value[f"self_weight_{layer}"], y_nH
            self.dense(f"{where}/self", "gemm_nn_add", phase, layer, product, accumulate=True)
        return y_nH

    def activate(self, layer: int, y_nH: Tensor, ids: Tensor, phase: Phase) -> None:
        """Activate and drop out a hidden layer in place."""
        counters, first = self.counters, self.part(layer, self.j).start
        rate = self.shape.dropout if counters is not None else 0.0
        done = work.activation("relu", *sizes(y_nH), dropped=rate > 0)
        with self.step(f"{phase}/{layer}/activation", done, phase, layer):
            key = fold(*counters, layer) if counters is not None else 0
            self.kernels.relu_dropout(y_nH, y_nH, rate, key, ids, first)

    def gather_logits(self, own_nH: Tensor, phase: Phase) -> Tensor:
        """All classes of this row's vertices, on every rank of the row."""
        last = self.shape.num_layers
        logits_nC = self.room("logits", self.shape.dims[-1])
        for t in range(self.grid.side):
            block = self.row_stage("forward/logits", phase, last, t, own_nH, self.width(last, t))
            with self.elementwise(f"forward/logits/{t}", "copy", phase, last, block, passes=2):
                logits_nC[:, self.part(last, t)] = block
        return logits_nC

    # -- loss and backward -----------------------------------------------------------------------

    def outputs(self, batch: Batch) -> Tensor:
        """The logits of this row's vertices."""
        return self.forward(batch.x, batch.row_ids[0], batch.counters, Phase.FORWARD)

    def gradients(self, batch: Batch) -> Tensor:
        """Fill this rank's part of loss and gradient; return the logits of its row."""
        logits_nC = self.outputs(batch)
        self.loss(logits_nC, batch)
        self.backward()
        self._hidden = []
        return logits_nC

    def loss(self, logits_nC: Tensor, batch: Batch) -> None:
        """The loss of this row's vertices counts on grid column 0; its gradient is sliced."""
        last, (rows, classes) = self.shape.num_layers, logits_nC.shape
        gradient = self.room("logits_gradient", classes)
        done = work.cross_entropy(rows, classes, batch.rows.numel(), logits_nC.element_size())
        with self.step("forward/loss", done, Phase.FORWARD, last):
            value = self.kernels.softmax_cross_entropy(
                logits_nC, batch.labels, batch.rows, batch.scale, gradient
            )
            if self.j == 0:
                self.parameters.loss.copy_(value.reshape(1))
            else:
                self.parameters.loss.zero_()
        own = self.room(f"g{last}", self.width(last))
        name, phase = "forward/loss/slice", Phase.FORWARD
        with self.elementwise(name, "copy", phase, last, own, passes=2):
            own.copy_(gradient[:, self.part(last, self.j)])

    def backward(self) -> None:
        """Fill this rank's part of the gradient vector, zeros elsewhere."""
        gradient = self.parameters.gradient[:, None]
        with self.elementwise("backward/zero", "zero", Phase.BACKWARD, -1, gradient, passes=1):
            gradient.zero_()
        for layer in range(self.shape.num_layers, 0, -1):
            below = self.layer_backward(layer, self._hidden[layer - 1])
            if below is not None:
                self.activate_backward(layer, below, self._hidden[layer - 1])

    def layer_backward(self, layer: int, h_nF: Tensor) -> Tensor | None:
        """Fill a layer's parameter gradients; return that of its input above layer 1."""
        shape, phase = self.shape, Phase.BACKWARD
        fan_in, fan_out = self.width(layer - 1), self.width(layer)
        g_nH = self.room(f"g{layer}", fan_out)
        done = work.column_sum(*sizes(g_nH))
        with self.step(f"backward/{layer}/bias", done, phase, layer):
            bias = self.parameters.grad[f"bias_{layer}"]
            torch.sum(g_nH, 0, out=bias[self.part(layer, self.j)])
        below = self.room(f"g{layer - 1}", fan_in) if layer > 1 else None
        if shape.orders[layer - 1] == "aggregate_first":
            # Z is needed until the last stage: its gradient has a buffer of its own.
            d_nF = self.room(f"d{layer}", fan_in) if layer > 1 else None
            self.dense_backward("", layer, self.room(f"z{layer}", fan_in), g_nH, d_nF)
            if d_nF is not None and below is not None:
                self.summa(phase, layer, d_nF, below, transpose=True)
        else:
            t_nH = self.room(f"t{layer}", fan_out)
            self.summa(phase, layer, g_nH, t_nH, transpose=True)
            self.dense_backward("", layer, h_nF, t_nH, below)
        if shape.model.self_weight:
            self.dense_backward("self_", layer, h_nF, g_nH, below, accumulate=True)
        return below

    def activate_backward(self, layer: int, g_nF: Tensor, h_nF: Tensor) -> None:
        """Gradient of the activation of layer - 1, from its output, in place."""
        done = work.activation_backward("relu", *sizes(g_nF))
        with self.step(f"backward/{layer}/activation", done, Phase.BACKWARD, layer - 1):
            self.kernels.relu_dropout_backward(g_nF, h_nF, self.shape.dropout, g_nF)


class SquareGridTrainer(BlockTrainer):
    """One rank of CAGNET 2D."""

    net: SquareNet

    def __init__(self, context: RankContext, data: Graph, structure: SquareGrid) -> None:
        knobs = APPROACHES.get(context.run.approach).knobs(context.run)
        graph = reopened_graph(data)
        shape = stack_shape(graph, context.run, knobs.order)
        loader, workspace = Loader(context, graph, shape), Workspace(context.device, context.dtype)
        workspace.get("stage_rows", received_rows(shape, structure), 1)
        block = GridBlock.of(loader, structure, context.rank)
        parameters = make_parameters(context, shape)
        net = SquareNet(context, shape, parameters, workspace, structure, block)
        batches = BlockOfVertices(loader, structure.own(net.i), net.part(0, net.j), None)
        # A grid column holds every vertex once; the parts of all ranks add up to the gradient.
        super().__init__(context, batches, net, owners=net.column, sharers=context.comm)

    def whole_logits(self) -> Tensor:
        batches = self.batches
        return self.net.forward(batches.x, batches.row_ids, None, Phase.EVALUATE)
