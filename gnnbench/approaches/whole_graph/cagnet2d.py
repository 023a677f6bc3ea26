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

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from itertools import pairwise
from math import isqrt
from pathlib import Path
from typing import Any

from gnnbench.approaches.base import Approach, GraphLike, Layout
from gnnbench.approaches.whole_graph.cagnet import (
    COUNTED,
    EVEN,
    PAPER,
    CagnetKnobs,
    Ints,
    block_nonzeros,
    block_train_rows,
    even_bounds,
)
from gnnbench.approaches.whole_graph.stages import Shared, StageSteps
from gnnbench.approaches.writing.shape import stack_shape
from gnnbench.approaches.writing.stack import StackShape
from gnnbench.data.profile import GraphProfile
from gnnbench.iterations import RankSteps
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import Kind, Lane, Phase

ID_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SquareGrid:
    """Q x Q ranks and the blocks they hold.

    `edges` [Q + 1]: where blocks of vertices start and end, of rows and columns alike. `nonzeros`
    int64 [Q, Q]: entries by block of the destination and block of the source.
    """

    edges: tuple[int, ...]
    nonzeros: Ints
    train_rows: tuple[int, ...]
    exact: bool = True
    basis: str = COUNTED

    @classmethod
    def of(cls, graph: GraphLike, ranks: int) -> SquareGrid:
        """Cut a graph into a square of blocks."""
        edges = even_bounds(graph.num_nodes, side(ranks))
        profile = isinstance(graph, GraphProfile)
        return cls(
            edges=edges,
            nonzeros=block_nonzeros(graph, edges),
            train_rows=block_train_rows(graph, edges),
            exact=not profile or ranks == 1,
            basis=EVEN if profile else COUNTED,
        )

    @property
    def side(self) -> int:
        return len(self.edges) - 1

    @property
    def world_size(self) -> int:
        return self.side**2

    def rows(self, block: int) -> int:
        return self.edges[block + 1] - self.edges[block]

    def place(self, rank: int) -> tuple[int, int]:
        """Row and column of a rank."""
        return divmod(rank, self.side)

    def row_groups(self) -> list[list[int]]:
        """Ranks of every grid row."""
        return [list(range(i * self.side, (i + 1) * self.side)) for i in range(self.side)]

    def columns(self) -> list[list[int]]:
        """Ranks of every grid column."""
        return [list(range(j, self.world_size, self.side)) for j in range(self.side)]

    def entries(self, row: int, stage: int, *, transpose: bool) -> int:
        """Entries of block (row, stage) of the adjacency or of its transpose."""
        return int(self.nonzeros[stage, row] if transpose else self.nonzeros[row, stage])


def side(ranks: int) -> int:
    """The whole part of the square root."""
    return isqrt(ranks)


def width_edges(shape: StackShape, parts: int) -> list[tuple[int, ...]]:
    """Where the column blocks of H_0 ... H_L start and end."""
    return [even_bounds(width, parts) for width in shape.dims]


def block_widths(shape: StackShape, parts: int) -> list[list[int]]:
    """Widths of the column blocks of H_0 ... H_L."""
    return [[b - a for a, b in pairwise(edges)] for edges in width_edges(shape, parts)]


def received_rows(shape: StackShape, grid: SquareGrid) -> int:
    """Elements of the buffer for a received dense block: the largest there is, 0 on one rank."""
    if grid.side == 1:
        return 0
    return grid.rows(0) * max(blocks[0] for blocks in block_widths(shape, grid.side))


def received_ids(grid: SquareGrid, row: int, column: int) -> int:
    """Elements of the buffer for a received sparse block: the largest foreign one of the row."""
    foreign = [t for t in range(grid.side) if t != column]
    entries = [grid.entries(row, t, transpose=back) for t in foreign for back in (False, True)]
    return max(entries) + grid.rows(row) + 1 if entries else 0


class SquareSteps(StageSteps):
    """Write the steps of one rank."""

    def __init__(self, shape: StackShape, grid: SquareGrid, rank: int, shared: Shared) -> None:
        super().__init__(shape, shared)
        self.grid = grid
        self.row, self.column = grid.place(rank)
        q = grid.side
        self.row_group = tuple(range(self.row * q, (self.row + 1) * q))
        self.column_group = tuple(range(self.column, q * q, q))
        self.blocks = block_widths(shape, q)
        self.rows = grid.rows(self.row)
        s = shape.element_bytes
        self.row_room = (("stage_rows", received_rows(shape, grid) * s),)
        ids = ID_BYTES * received_ids(grid, self.row, self.column)
        self.id_room = (("stage_adjacency", ids),)

    def _width(self, layer: int) -> int:
        return self.blocks[layer][self.column]

    def _along_row(self, key: tuple[Hashable, ...], write: Callable[[], None]) -> None:
        """Add stages that the ranks of a row share but for the one whose block is their own."""
        others, own, places = self._stages((self.row, *key), write)
        steps = others.copy()
        for place in places.get(self.column, ()):
            steps[place] = own[place]
        self._extend(steps)

    # -- products --------------------------------------------------------------------------------

    def _broadcast(
        self, name: str, phase: Phase, layer: int, elements: int, element_bytes: int, mine: bool,
        group: tuple[int, ...], room: tuple[tuple[str, int], ...],
    ) -> None:  # fmt: skip
        if len(group) == 1 or not elements:
            return
        size = elements * element_bytes
        self._add(
            name, Kind.BROADCAST, "broadcast", phase, layer, Lane.COMM, rows=elements,
            bytes=size * (len(group) - 1) if self._owns(mine) else 0, buffer_bytes=size,
            group=group,
            allocates=room,
        )  # fmt: skip

    def _sparse(
        self, where: str, phase: Phase, layer: int, width: int, out: tuple[tuple[str, int], ...]
    ) -> None:
        """One SUMMA product of this row of (transposed) adjacency blocks."""
        q = self.grid.side

        def received() -> None:
            for t in range(q):
                self._dense_block(where, phase, layer, width, t)

        def write() -> None:
            self._sparse_stages(where, phase, layer, width, out)

        rows = [self.grid.rows(t) for t in range(q)]
        if q == 1 or not width or not all(rows):
            write()
            return
        # Stage t: a sparse block along the row, a dense one along the column, their product.
        others, own, _ = self._stages((where, self.row, width, self.id_room), write)
        steps = others.copy()
        steps[3 * self.column] = own[3 * self.column]
        self.chain.last = steps[0]  # the sparse block: a dense one follows it on the same lane
        others, own, _ = self._stages((where, "column", self.column, width), received)
        steps[1::3] = others
        steps[3 * self.row + 1] = own[self.row]
        self._extend(steps)

    def _dense_block(self, where: str, phase: Phase, layer: int, width: int, t: int) -> None:
        self._broadcast(
            f"{where}/broadcast/{t}", phase, layer, self.grid.rows(t) * width,
            self.shape.element_bytes, t == self.row, self.column_group, self.row_room,
        )  # fmt: skip

    def _sparse_stages(
        self, where: str, phase: Phase, layer: int, width: int, out: tuple[tuple[str, int], ...]
    ) -> None:
        grid, n, s = self.grid, self.rows, self.shape.element_bytes
        for t in range(grid.side):
            nonzeros = grid.entries(self.row, t, transpose=phase is Phase.BACKWARD)
            held = grid.rows(t)
            self._broadcast(
                f"{where}/adjacency/{t}", phase, layer, n + 1 + nonzeros, ID_BYTES,
                t == self.column, self.row_group, self.id_room,
            )  # fmt: skip
            self._dense_block(where, phase, layer, width, t)
            moved = (min(held, nonzeros) + (2 if t else 1) * n) * width * s
            self._compute(
                f"{where}/spmm/{t}", Kind.SPMM, "spmm", phase, layer, rows=n, source_rows=held,
                nonzeros=nonzeros, width=width, flops=2 * nonzeros * width,
                bytes=ID_BYTES * (n + 1 + nonzeros) + moved, allocates=() if t else out,
            )  # fmt: skip

    def _row_stage(self, where: str, phase: Phase, layer: int, t: int, width: int) -> None:
        self._broadcast(
            f"{where}/row_broadcast/{t}", phase, layer, self.rows * width,
            self.shape.element_bytes, t == self.column, self.row_group, self.row_room,
        )  # fmt: skip

    def _dense(
        self, where: str, layer: int, op: str, out: tuple[tuple[str, int], ...] = ()
    ) -> None:
        """Y_ij (+)= sum over t of X_it W_tj; `op` is that of the first stage."""
        phase = Phase.FORWARD

        def write() -> None:
            for t, inner in enumerate(self.blocks[layer - 1]):
                self._row_stage(where, phase, layer, t, inner)
                self._gemm(
                    f"{where}/{t}", "gemm_nn_add" if t else op, phase, layer, self.rows, inner,
                    self._width(layer), allocates=() if t else out,
                )  # fmt: skip

        self._along_row((where, self._width(layer), out), write)

    def _dense_backward(
        self, weight: str, inputs: str, layer: int, op: str = "gemm_nt",
        out: tuple[tuple[str, int], ...] = (),
    ) -> None:  # fmt: skip
        """dW[j, t] = X_ij^T G_it and, with `inputs`, dX_ij (+)= sum over t of G_it W[j, t]^T."""
        phase, n, own = Phase.BACKWARD, self.rows, self._width(layer - 1)

        def write() -> None:
            for t, width in enumerate(self.blocks[layer]):
                self._row_stage(weight, phase, layer, t, width)
                self._gemm(f"{weight}/{t}", "gemm_tn", phase, layer, own, n, width)
                if inputs:
                    self._gemm(
                        f"{inputs}/{t}", "gemm_nt_add" if t else op, phase, layer, n, width, own,
                        allocates=() if t else out,
                    )  # fmt: skip

        self._along_row((weight, own, out), write)

    # -- passes ----------------------------------------------------------------------------------

    def forward(self) -> None:
        """Write the forward pass."""
        shape, n, s = self.shape, self.rows, self.shape.element_bytes
        if shape.input_dropout > 0:
            width = self._width(0)
            self._elementwise(
                "forward/0/dropout", "dropout", Phase.FORWARD, 0, n, width, 2,
                allocates=(("h0", n * width * s),),
            )  # fmt: skip
        for layer in range(1, shape.num_layers + 1):
            self._forward_layer(layer)

    def _room(self, name: str, width: int) -> tuple[tuple[str, int], ...]:
        return ((name, self.rows * width * self.shape.element_bytes),)

    def _forward_layer(self, layer: int) -> None:
        shape, phase, where = self.shape, Phase.FORWARD, f"forward/{layer}"
        fan_in, fan_out = self._width(layer - 1), self._width(layer)
        out = self._room(f"h{layer}", fan_out)
        if shape.orders[layer - 1] == "aggregate_first":
            self._sparse(where, phase, layer, fan_in, self._room(f"z{layer}", fan_in))
            self._dense(f"{where}/gemm", layer, "gemm_nn_bias", out)
        else:
            self._dense(f"{where}/gemm", layer, "gemm_nn", self._room(f"t{layer}", fan_out))
            self._sparse(where, phase, layer, fan_out, out)
            self._elementwise(f"{where}/bias", "bias", phase, layer, self.rows, fan_out, 2)
        if shape.model.self_weight:
            self._dense(f"{where}/self", layer, "gemm_nn_add")
        if layer < shape.num_layers:
            op = "relu_dropout" if shape.dropout > 0 else "relu"
            self._elementwise(f"{where}/activation", op, phase, layer, self.rows, fan_out, 2)

    def loss(self, train_rows: int) -> None:
        """Gather the logits along the row; every rank of it computes the loss of its rows."""
        shape, n, s, phase = self.shape, self.rows, self.shape.element_bytes, Phase.FORWARD
        last, classes = shape.num_layers, shape.dims[-1]

        def write() -> None:
            for t, width in enumerate(self.blocks[-1]):
                self._row_stage("forward/logits", phase, last, t, width)
                self._elementwise(
                    f"forward/logits/{t}", "copy", phase, last, n, width, 2,
                    allocates=() if t else self._room("logits", classes),
                )  # fmt: skip

        self._along_row(("forward/logits",), write)
        self._compute(
            "forward/loss", Kind.ELEMENTWISE, "softmax_cross_entropy", phase, last,
            rows=n * classes, nonzeros=train_rows * classes, width=classes,
            flops=5 * train_rows * classes, bytes=(n + 2 * train_rows) * classes * s,
            allocates=self._room("logits_gradient", classes),
        )  # fmt: skip
        own = self._width(last)
        self._elementwise(
            "forward/loss/slice", "copy", phase, last, n, own, 2,
            allocates=self._room(f"g{last}", own),
        )  # fmt: skip

    def backward(self) -> None:
        """Write the backward pass, last layer first."""
        # A rank writes some rows of each weight gradient; the sum over ranks needs the rest zero.
        theta = self.shape.num_parameters
        self._elementwise("backward/zero", "zero", Phase.BACKWARD, -1, theta, 1, 1)
        for layer in range(self.shape.num_layers, 0, -1):
            self._backward_layer(layer)

    def _backward_layer(self, layer: int) -> None:
        shape, phase, where = self.shape, Phase.BACKWARD, f"backward/{layer}"
        fan_in, fan_out = self._width(layer - 1), self._width(layer)
        self._elementwise(f"{where}/bias", "column_sum", phase, layer, self.rows, fan_out, 1)
        below = self._room(f"g{layer - 1}", fan_in)
        inputs = f"{where}/input" if layer > 1 else ""
        if shape.orders[layer - 1] == "aggregate_first":
            self._dense_backward(
                f"{where}/weight", inputs, layer, out=self._room(f"d{layer}", fan_in)
            )
            if layer > 1:
                self._sparse(where, phase, layer, fan_in, below)
        else:
            self._sparse(where, phase, layer, fan_out, ())
            self._dense_backward(f"{where}/weight", inputs, layer, out=below)
        if shape.model.self_weight:
            inputs = f"{where}/self_input" if layer > 1 else ""
            self._dense_backward(f"{where}/self_weight", inputs, layer, "gemm_nt_add")
        if layer > 1:
            name = f"{where}/activation"
            self._elementwise(name, "relu_backward", phase, layer - 1, self.rows, fan_in, 3)


def rank_steps(shape: StackShape, grid: SquareGrid, rank: int, shared: Shared) -> RankSteps:
    """One epoch of one rank; `shared` holds those of ranks before it."""
    steps = SquareSteps(shape, grid, rank, shared)
    steps.forward()
    steps.loss(grid.train_rows[steps.row])
    steps.backward()
    steps.update(tuple(range(grid.world_size)))
    return steps.chain.done()


def resident(shape: StackShape, grid: SquareGrid, rank: int) -> dict[str, int]:
    """Bytes that live from before the first epoch. Scales are those of all vertices."""
    row, column = grid.place(rank)
    s, n, whole = shape.element_bytes, grid.rows(row), grid.edges[-1]
    symmetric = shape.model.normalisation == "symmetric"
    return {
        "x": n * block_widths(shape, grid.side)[0][column] * s,
        "topology": ID_BYTES * (n + 1 + grid.entries(row, column, transpose=False)),
        "topology_t": ID_BYTES * (n + 1 + grid.entries(row, column, transpose=True)),
        "scales": (2 * whole + n if symmetric else whole) * s,
        "labels": 8 * n + 3 * n,
        "row_ids": 8 * n,
        "train_rows": 8 * grid.train_rows[row],
        "parameters": 4 * shape.num_parameters * s,
    }


class Cagnet2d(Approach):
    """Card and plan of `cagnet-2d`."""

    name = "cagnet-2d"
    title = "CAGNET 2D (SUMMA on a square grid)"
    paper = PAPER
    summary = "adjacency and features in blocks on a square grid; sparse and dense blocks broadcast"
    exact = True
    no_attention = (
        "the entries that a vertex's softmax runs over lie on all ranks of a grid row, which holds "
        "its transformed row in slices; broadcast blocks of the adjacency have fixed weights"
    )
    runtime = "gnnbench_runtime.approaches.whole_graph.cagnet2d:SquareGridTrainer"
    knobs_type = CagnetKnobs

    def skip_reason(self, run: RunSpec, graph: GraphLike | None = None) -> str | None:
        """The grid is square."""
        q = side(run.ranks)
        if q * q == run.ranks:
            return None
        return (
            f"cagnet-2d runs on a square number of ranks, {run.ranks} asked: "
            f"use {q * q} or {(q + 1) ** 2}"
        )

    def structure(self, graph: GraphLike, run: RunSpec, cache: Path | None = None) -> SquareGrid:
        return SquareGrid.of(graph, run.ranks)

    def plan(self, graph: GraphLike, run: RunSpec, structure: Any, layout: Layout) -> Plan:
        grid: SquareGrid = structure
        shape = stack_shape(graph, run, self.knobs(run).order)
        ranks, shared = range(grid.world_size), Shared()
        return Plan(
            approach=run.approach,
            world_size=grid.world_size,
            iterations=(tuple(rank_steps(shape, grid, rank, shared) for rank in ranks),),
            schedule=(0,) * run.training.epochs,
            iterations_per_epoch=1,
            resident=tuple(resident(shape, grid, rank) for rank in ranks),
            exact=grid.exact,
            basis=grid.basis,
            notes={
                "order": shape.orders,
                "backward": "save_z: the weight gradient uses the saved aggregate",
                "grid": (grid.side, grid.side),
                "num_parameters": shape.num_parameters,
            },
        )


APPROACH = Cagnet2d()
