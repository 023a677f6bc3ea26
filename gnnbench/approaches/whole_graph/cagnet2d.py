"""CAGNET 2D: adjacency and features in blocks on a square grid, products by SUMMA.

Q x Q ranks, rank r in row i = r div Q and column j = r mod Q, holding A_ij (N/Q x N/Q) and H_ij
(N/Q x d/Q); weights are replicated. A sparse product has Q stages: A_it is broadcast along row i,
H_tj along column j, and their product is added. A dense product broadcasts the blocks of a row of
Z (forward) or of the output gradient (backward: one broadcast serves weight and input gradient).
The logits are gathered along rows for the loss (fullgraph section 8).

A sparse block travels as row pointers and column numbers in int64, never as floats (FG-27), and
without values: normalisation factors into scales of rows and columns. Words that a rank receives
per product: sparse, Q - 1 foreign blocks of A (nonzeros + rows + 1) and (Q-1) N d / P of H; dense,
(Q-1) N d / P (FG-26).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np

from gnnbench import work
from gnnbench.approaches.base import Approach, GraphLike, Layout, Probe, example
from gnnbench.approaches.card import EXACT, Accepts, Look
from gnnbench.approaches.whole_graph.blocks import (
    PAPER,
    Blocks,
    CagnetKnobs,
    axis_groups,
    even_bounds,
    grid_notes,
    held_buffers,
    one_of,
    plain,
)
from gnnbench.approaches.writing.chain import Chain
from gnnbench.approaches.writing.evaluating import answered
from gnnbench.approaches.writing.shape import StackShape, stack_shape
from gnnbench.approaches.writing.stack import StackWriter
from gnnbench.iterations import Iteration, RankClass
from gnnbench.plan import Plan, repeated
from gnnbench.spec import RunSpec
from gnnbench.steps import Buffer, Groups, Ints, Lane, Phase, Size, Work
from gnnbench.work import ID_BYTES

Group = tuple[int, ...] | Groups
Room = tuple[Buffer, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SquareGrid(Blocks):
    """Q x Q ranks; rows and columns of the adjacency are cut into the same blocks of vertices."""

    @property
    def side(self) -> int:
        return self.num_blocks

    @property
    def world_size(self) -> int:
        return self.side**2

    def place(self, rank: int) -> tuple[int, int]:
        """Row and column of a rank."""
        return divmod(rank, self.side)

    def groups(self) -> tuple[list[list[int]], list[list[int]]]:
        """Ranks of every row, and of every column."""
        return axis_groups(self.world_size, self.side)

    def table(self, *, transpose: bool) -> Ints:
        """Entries of the blocks of the adjacency, or of its transpose, int64 [Q, Q]."""
        return self.nonzeros.T if transpose else self.nonzeros

    def received_ids(self) -> Ints:
        """Elements of each rank's buffer for a sparse block, int64 [Q, Q].

        It holds the largest block of another rank of the grid row, of A or of its transpose.
        """
        if self.side == 1:
            return np.zeros((1, 1), np.int64)
        most = np.maximum(self.nonzeros, self.nonzeros.T)
        foreign = [np.delete(most, own, axis=1).max(axis=1) for own in range(self.side)]
        return np.stack(foreign, axis=1) + self.rows[:, None] + 1


def width_edges(shape: StackShape, parts: int) -> list[tuple[int, ...]]:
    """Where the column blocks of H_0 ... H_L start and end."""
    return [even_bounds(width, parts) for width in shape.dims]


def received_rows(shape: StackShape, grid: SquareGrid) -> int:
    """Elements of the receive buffer of a dense block: the largest one, 0 on one rank."""
    if grid.side == 1:
        return 0
    return int(grid.rows[0]) * max(edges[1] for edges in width_edges(shape, grid.side))


class SquareWriter(StackWriter):
    """Writes the steps of a class of ranks; `row` and `column` of each in the grid, [ranks]."""

    def __init__(self, shape: StackShape, grid: SquareGrid, ranks: Ints, chain: Chain) -> None:
        super().__init__(shape, [], None, chain)
        self.grid = grid
        self.row, self.column = ranks // grid.side, ranks % grid.side
        self.rows = plain(grid.rows[self.row])
        rows, columns = grid.groups()
        self.row_group, self.column_group = one_of(rows, self.row), one_of(columns, self.column)
        self.widths = [np.diff(edges) for edges in width_edges(shape, grid.side)]
        self.own_widths = [plain(widths[self.column]) for widths in self.widths]
        ids = plain(grid.received_ids()[self.row, self.column])
        # A buffer is allocated by the first step that needs it.
        self.unused = {
            "row": self.buffer("stage_rows", received_rows(shape, grid), 1),
            "ids": (Buffer("stage_adjacency", ID_BYTES * ids),),
        }

    def room(self, name: str, width: Size) -> Room:
        """A buffer of the own rows."""
        return self.buffer(name, self.rows, width)

    # -- stages ----------------------------------------------------------------------------------

    def along_row(
        self, name: str, phase: Phase, layer: int, elements: Size, t: int, *, ids: bool = False
    ) -> None:
        """Add the broadcast of grid column t's block to the others of its row."""
        mine, root = self.column == t, self.row * self.grid.side + t
        size = ID_BYTES if ids else self.element_bytes
        done = self.broadcast(elements, size, root, mine)
        self.communicate(name, done, phase, layer, self.row_group, "ids" if ids else "row")

    def along_column(self, name: str, phase: Phase, layer: int, elements: Size, t: int) -> None:
        """Add the broadcast of grid row t's block to the others of its column."""
        mine, root = self.row == t, t * self.grid.side + self.column
        done = self.broadcast(elements, self.element_bytes, root, mine)
        self.communicate(name, done, phase, layer, self.column_group, "row")

    def broadcast(self, elements: Size, size: int, root: Ints, mine: Any) -> Work:
        """A broadcast along an axis of the grid."""
        return work.broadcast(elements, size, self.grid.side, root=plain(root), is_root=mine)

    def communicate(
        self, name: str, done: Work, phase: Phase, layer: int, group: Group, room: str
    ) -> None:
        """Add a broadcast, unless there is nothing to send or nobody to send it to."""
        if self.grid.side > 1 and np.any(done.rows):
            self.chain.step(
                name,
                done,
                phase=phase,
                layer=layer,
                lane=Lane.COMM,
                group=group,
                allocates=self.unused.pop(room, ()),
            )

    def row_stage(self, where: str, phase: Phase, layer: int, t: int, width: int) -> None:
        """Broadcast a dense block along the row."""
        self.along_row(f"{where}/row_broadcast/{t}", phase, layer, self.rows * width, t)

    # -- products --------------------------------------------------------------------------------

    def sparse(self, phase: Phase, layer: int, width: Size, out: Room = ()) -> None:
        """Add a product with the own row of (transposed) adjacency blocks."""
        where, n, grid = f"{phase}/{layer}", self.rows, self.grid
        table = grid.table(transpose=phase is Phase.BACKWARD)
        for t, held in enumerate(grid.rows.tolist()):
            nonzeros = plain(table[self.row, t])
            ids = n + 1 + nonzeros
            self.along_row(f"{where}/adjacency/{t}", phase, layer, ids, t, ids=True)
            self.along_column(f"{where}/broadcast/{t}", phase, layer, held * width, t)
            done = work.spmm(
                rows=n,
                nonzeros=nonzeros,
                width=width,
                source_rows=held,
                element_bytes=self.element_bytes,
                adds=t > 0,
                index_bytes=ID_BYTES,
                reuse=grid.reuse,
            )
            self.step(f"{where}/spmm/{t}", done, phase, layer, allocates=() if t else out)

    def dense(self, where: str, layer: int, op: str, out: Room = ()) -> None:
        """Add Y_ij (+)= sum over t of X_it W_tj; `op` is that of the first stage."""
        phase = Phase.FORWARD
        for t, inner in enumerate(self.widths[layer - 1].tolist()):
            self.row_stage(where, phase, layer, t, inner)
            sizes = self.rows, inner, self.own_widths[layer]
            kind, room = ("gemm_nn_add", ()) if t else (op, out)
            self.gemm(f"{where}/{t}", kind, phase, layer, sizes, allocates=room)

    def dense_backward(
        self, weight: str, inputs: str, layer: int, op: str = "gemm_nt", out: Room = ()
    ) -> None:
        """Add dW[j, t] = X_ij^T G_it and, with `inputs`, dX_ij (+)= sum_t G_it W[j, t]^T."""
        phase, n, own = Phase.BACKWARD, self.rows, self.own_widths[layer - 1]
        for t, width in enumerate(self.widths[layer].tolist()):
            self.row_stage(weight, phase, layer, t, width)
            self.gemm(f"{weight}/{t}", "gemm_tn", phase, layer, (own, n, width))
            if inputs:
                kind, room = ("gemm_nt_add", ()) if t else (op, out)
                sizes = n, width, own
                self.gemm(f"{inputs}/{t}", kind, phase, layer, sizes, allocates=room)

    # -- passes ----------------------------------------------------------------------------------

    def forward(self) -> None:
        shape, s, width = self.shape, self.element_bytes, self.own_widths[0]
        if shape.input_dropout > 0:
            done = work.dropout(self.rows, width, s)
            self.step("forward/0/dropout", done, Phase.FORWARD, 0, allocates=self.room("h0", width))
        for layer in range(1, shape.num_layers + 1):
            self.layer_forward(layer)

    def layer_forward(self, layer: int) -> None:
        shape, phase, where = self.shape, Phase.FORWARD, f"forward/{layer}"
        n, s = self.rows, self.element_bytes
        fan_in, fan_out = self.own_widths[layer - 1], self.own_widths[layer]
        out = self.room(f"h{layer}", fan_out)
        if shape.orders[layer - 1] == "aggregate_first":
            self.sparse(phase, layer, fan_in, self.room(f"z{layer}", fan_in))
            self.dense(f"{where}/gemm", layer, "gemm_nn_bias", out)
        else:
            self.dense(f"{where}/gemm", layer, "gemm_nn", self.room(f"t{layer}", fan_out))
            self.sparse(phase, layer, fan_out, out)
            self.step(f"{where}/bias", work.bias(n, fan_out, s), phase, layer)
        if shape.model.self_weight:
            self.dense(f"{where}/self", layer, "gemm_nn_add")
        if layer < shape.num_layers:
            dropped = shape.dropout > 0
            done = work.activation(shape.model.activation, n, fan_out, s, dropped=dropped)
            self.step(f"{where}/activation", done, phase, layer)

    def loss(self, train_rows: Size) -> None:
        """Gather the logits along the row; every rank of it computes the loss of its rows."""
        shape, n, s, phase = self.shape, self.rows, self.element_bytes, Phase.FORWARD
        last, classes, own = shape.num_layers, shape.dims[-1], self.own_widths[-1]
        for t, width in enumerate(self.widths[-1].tolist()):
            self.row_stage("forward/logits", phase, last, t, width)
            room = () if t else self.room("logits", classes)
            self.copied(f"forward/logits/{t}", last, width, allocates=room)
        done = work.cross_entropy(n, classes, train_rows, s)
        scratch = self.buffer("loss_scratch", 2 * train_rows, classes + 1)
        room = (*self.room("logits_gradient", classes), *scratch)
        frees = ("loss_scratch",)
        self.step("forward/loss", done, phase, last, allocates=room, frees=frees)
        self.copied("forward/loss/slice", last, own, allocates=self.room(f"g{last}", own))

    def copied(self, name: str, layer: int, width: Size, **place: Any) -> None:
        """Add a copy of columns of the own rows."""
        self.elementwise(name, "copy", Phase.FORWARD, layer, self.rows, width, passes=2, **place)

    def backward(self) -> None:
        # A rank writes some rows of each weight gradient; the sum over ranks needs the rest zero.
        theta = self.shape.num_parameters
        self.elementwise("backward/zero", "zero", Phase.BACKWARD, -1, theta, 1, passes=1)
        for layer in range(self.shape.num_layers, 0, -1):
            self.layer_backward(layer)

    def layer_backward(self, layer: int) -> None:
        shape, phase, where = self.shape, Phase.BACKWARD, f"backward/{layer}"
        n, s = self.rows, self.element_bytes
        fan_in, fan_out = self.own_widths[layer - 1], self.own_widths[layer]
        self.step(f"{where}/bias", work.column_sum(n, fan_out, s), phase, layer)
        below = self.room(f"g{layer - 1}", fan_in)
        inputs = f"{where}/input" if layer > 1 else ""
        if shape.orders[layer - 1] == "aggregate_first":
            room = self.room(f"d{layer}", fan_in)
            self.dense_backward(f"{where}/weight", inputs, layer, out=room)
            if layer > 1:
                self.sparse(phase, layer, fan_in, below)
        else:
            self.sparse(phase, layer, fan_out)
            self.dense_backward(f"{where}/weight", inputs, layer, out=below)
        if shape.model.self_weight:
            inputs = f"{where}/self_input" if layer > 1 else ""
            self.dense_backward(f"{where}/self_weight", inputs, layer, "gemm_nt_add")
        if layer > 1:
            done = work.activation_backward(shape.model.activation, n, fan_in, s)
            self.step(f"{where}/activation", done, phase, layer - 1)


def alike(shape: StackShape, grid: SquareGrid) -> Iterator[Ints]:
    """Yield classes of ranks that have columns in the same layers, and rows or none."""
    ranks = np.arange(grid.world_size)
    # Widths beyond the first ones are empty, so their number tells which ranks have columns.
    empty = sum((ranks % grid.side >= width).astype(np.int64) for width in shape.dims)
    key = 2 * empty + (grid.rows[ranks // grid.side] > 0)
    for found in np.unique(key):
        yield ranks[key == found]


def grid_iteration(shape: StackShape, grid: SquareGrid) -> Iteration:
    """One epoch of all ranks."""
    classes = []
    for ranks in alike(shape, grid):
        steps = SquareWriter(shape, grid, ranks, Chain())
        steps.forward()
        steps.loss(plain(grid.train_rows[steps.row]))
        steps.backward()
        steps.update(tuple(range(grid.world_size)))
        classes.append(RankClass(ranks, steps.chain.done()))
    return Iteration(classes)


def resident(shape: StackShape, grid: SquareGrid) -> Room:
    """Buffers that live from before the first epoch."""
    row, column = np.divmod(np.arange(grid.world_size), grid.side)
    n, width = grid.rows[row], np.diff(width_edges(shape, grid.side)[0])[column]
    return held_buffers(
        shape,
        grid,
        row,
        x=n * width * shape.element_bytes,
        topology=ID_BYTES * (n + 1 + grid.nonzeros[row, column]),
        topology_t=ID_BYTES * (n + 1 + grid.nonzeros[column, row]),
    )


class Cagnet2d(Approach):
    """Card and plan of `cagnet-2d`."""

    name = "cagnet-2d"
    title = "CAGNET 2D (SUMMA on a square grid)"
    paper = PAPER
    summary = "adjacency and features in square-grid blocks; SUMMA broadcasts both"
    promise = EXACT
    accepts = Accepts(
        no_attention="the entries that a vertex's softmax runs over lie on all ranks of a grid "
        "row, and broadcast blocks of the adjacency have fixed weights",
        norm=False,
        no_norm="LayerNorm needs all values of a vertex, and each rank of a grid row has a slice",
    )
    look = Look(colour="#6A3D9A", marker="h")
    knobs_type = CagnetKnobs
    runtime = "gnnbench_runtime.approaches.whole_graph.cagnet2d:SquareGridTrainer"

    def examples(self) -> list[RunSpec]:
        sage = {"kind": "sage", "layers": 3, "dropout": 0.5, "input_dropout": 0.3}
        return [
            example(self.name, 4),
            example(self.name, 4, model=sage, knobs={"order": "aggregate_first"}),
            example(
                self.name, 1, knobs={"order": "transform_first"}, training={"optimizer": "sgd"}
            ),
        ]

    def probes(self, probe: Probe) -> list[RunSpec]:
        """On one rank: only this approach zeroes and copies matrices."""
        return [replace(probe.run, approach=self.name, ranks=1, knobs={})]

    def skip_reason(self, run: RunSpec, data: GraphLike | None = None) -> str | None:
        """The grid is square."""
        q = isqrt(run.ranks)
        if q * q == run.ranks:
            return None
        return (
            f"cagnet-2d runs on a square number of ranks, {run.ranks} asked: "
            f"use {q * q} or {(q + 1) ** 2}"
        )

    def structure(self, data: GraphLike, run: RunSpec, cache: Path | None = None) -> SquareGrid:
        return SquareGrid.of(data, isqrt(run.ranks), run.ranks)

    def plan(self, data: GraphLike, run: RunSpec, structure: Any, layout: Layout) -> Plan:
        grid: SquareGrid = structure
        shape = stack_shape(data, run, self.knobs(run).order)
        plan = Plan(
            approach=run.approach,
            world_size=grid.world_size,
            **repeated([grid_iteration(shape, grid)], run.training.epochs),
            resident=resident(shape, grid),
            counted=grid.counted,
            basis=grid.basis,
            notes=grid_notes(shape, (grid.side, grid.side)),
        )
        return answered(plan)


APPROACH = Cagnet2d()
