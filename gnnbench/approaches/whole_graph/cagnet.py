"""CAGNET 1D and 1.5D: block rows of the adjacency, dense blocks broadcast stage by stage.

R = P/c block rows, each held by the c ranks of a row of the process grid: rank r is in row r div c
and column r mod c. For one sparse product, grid column g broadcasts the R/c blocks of its stages
among its own ranks {g, g+c, ...}, every rank adds its sparse block times the block received, and
the ranks of a row all-reduce what they have (fullgraph section 8). 1D is c = 1.

Received elements per product of width d (FG-26): over all ranks N d (P/c - 1) by broadcast, and
2(c-1)/c of every rank's block by the ring all-reduce.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from gnnbench import work
from gnnbench.approaches.base import Approach, GraphLike, Layout, example
from gnnbench.approaches.card import EXACT, Accepts, Look, Published
from gnnbench.approaches.whole_graph.blocks import (
    PAPER,
    Blocks,
    CagnetKnobs,
    axis_groups,
    grid_notes,
    held_buffers,
    one_of,
    plain,
)
from gnnbench.approaches.writing.chain import Chain
from gnnbench.approaches.writing.evaluating import answered
from gnnbench.approaches.writing.shape import LayerSizes, StackShape, stack_shape
from gnnbench.approaches.writing.stack import StackWriter
from gnnbench.iterations import Iteration, RankClass
from gnnbench.plan import Plan, repeated
from gnnbench.spec import RunSpec
from gnnbench.steps import NO_ROOT, Buffer, Groups, Ints, Lane, Phase, Size, Work
from gnnbench.strict import bounds

CONDENSE_FROM = 2**15
"""Stages times ranks from which a plan writes the stages of a product as calls of one step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicatedKnobs(CagnetKnobs):
    """Knobs of `cagnet-1.5d`.

    Args:
        replication: number c of ranks that hold the same block row.
    """

    replication: int = field(default=2, metadata=bounds(1))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowGrid(Blocks):
    """P ranks as (P/c) x c: one block row for each row of the grid."""

    replication: int = 1

    @property
    def world_size(self) -> int:
        return self.num_blocks * self.replication

    @property
    def num_stages(self) -> int:
        """Blocks that each grid column broadcasts; equal for all columns because c^2 divides P."""
        return self.num_blocks // self.replication

    @property
    def too_many(self) -> bool:
        """Whether a product has so many stages that the plan combines them into one step."""
        full = self.num_nodes >= self.num_blocks
        many = self.num_stages * self.world_size > CONDENSE_FROM
        return full and self.num_stages > 1 and many

    def place(self, rank: int) -> tuple[int, int]:
        """Row and column of a rank."""
        return divmod(rank, self.replication)

    def stages(self, column: int) -> range:
        """Blocks that a grid column broadcasts."""
        return range(column * self.num_stages, (column + 1) * self.num_stages)

    def groups(self) -> tuple[list[list[int]], list[list[int]]]:
        """Ranks of every row (replicas of one block), and of every column."""
        return axis_groups(self.world_size, self.replication)


@dataclass(frozen=True, slots=True, eq=False)
class GridRanks:
    """Ranks of a grid that take the same steps: grid positions and sizes, int64 [ranks]."""

    grid: RowGrid
    ranks: Ints

    @property
    def row(self) -> Ints:
        return self.ranks // self.grid.replication

    @property
    def column(self) -> Ints:
        return self.ranks % self.grid.replication

    @property
    def rows(self) -> Ints:
        """Vertices of the own block."""
        return self.grid.rows[self.row]

    def span_nonzeros(self, *, transpose: bool) -> Ints:
        """Entries of the own block row, or of its transpose, in all stages of the own column."""
        grid = self.grid
        table = grid.nonzeros.T if transpose else grid.nonzeros
        # A grid column multiplies consecutive blocks, which lie together after the reshape.
        spans: Ints = table.reshape(grid.num_blocks, grid.replication, -1).sum(2)
        return spans[self.row, self.column]

    def stage_rows(self) -> Ints:
        """Rows of the receive buffer: those of the largest block of another rank."""
        grid, first = self.grid, self.column * self.grid.num_stages
        rows = np.append(grid.rows, 0)
        own = self.row == first
        # Blocks get shorter: the first one that is another's is the longest.
        after = first + 1 if grid.num_stages > 1 else np.full_like(first, grid.num_blocks)
        return rows[np.where(own, after, first)]

    @classmethod
    def alike(cls, grid: RowGrid) -> Iterator[GridRanks]:
        """Yield classes of ranks with equal steps: with or without rows, and equally many sends."""
        every = cls(grid, np.arange(grid.world_size))
        filled = min(grid.num_nodes, grid.num_blocks)
        sending = np.clip(filled - every.column * grid.num_stages, 0, grid.num_stages)
        # Empty blocks are neither sent nor multiplied, which is all that makes programs differ.
        _, number = np.unique(2 * sending + (every.rows > 0), return_inverse=True)
        for of in range(int(number.max()) + 1):
            yield cls(grid, every.ranks[number == of])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """A stage of a product: rows of the block, entries that it multiplies, and who sends it."""

    held: Size
    sent: Size
    nonzeros: Size
    mine: Any
    root: Size = NO_ROOT
    adds: bool = False
    times: int = 1

    def done(self, once: Work) -> Work:
        return work.repeated(once, self.times) if self.times > 1 else once


class StageWriter(StackWriter):
    """Writes the steps of a stack whose sparse products run in stages (see the module)."""

    def __init__(
        self, shape: StackShape, of: GridRanks, chain: Chain, *, condensed: bool = False
    ) -> None:
        n, grid = plain(of.rows), of.grid
        sizes = LayerSizes(rows=n, source_rows=n, nonzeros=plain(of.span_nonzeros(transpose=False)))
        super().__init__(shape, [sizes] * shape.num_layers, None, chain)
        self.of, self.grid, self.condensed = of, grid, condensed
        row_groups, columns = grid.groups()
        self.column_group: tuple[int, ...] | Groups = one_of(columns, of.column)
        self.row_group: tuple[int, ...] | Groups = one_of(row_groups, of.row)
        self.room = self.buffer("stage_rows", plain(of.stage_rows()), shape.widest_exchange)

    def spmm(
        self, name: str, phase: Phase, layer: int, size: LayerSizes, width: Size, **place: Any
    ) -> None:
        grid, where = self.grid, name.removesuffix("/spmm")
        room = self.room if grid.world_size > 1 else ()
        opening = (*place.get("allocates", ()), *room)
        stages = self._condensed(phase) if self.condensed else self._each(phase)
        for number, stage in enumerate(stages):
            self._stage(f"{where}/{{}}/{number}", phase, layer, width, stage, opening)
            opening = ()
        if grid.replication > 1 and np.any(self.of.rows):
            done = work.all_reduce(
                size.rows * width, self.element_bytes, grid.replication, width=width
            )
            self.chain.step(
                f"{where}/reduce",
                done,
                phase=phase,
                layer=layer,
                lane=Lane.COMM,
                group=self.row_group,
            )

    def _each(self, phase: Phase) -> Iterator[_Stage]:
        """Every stage by itself."""
        of, grid, rows = self.of, self.grid, self.grid.rows
        table = grid.nonzeros.T if phase is Phase.BACKWARD else grid.nonzeros
        for number in range(grid.num_stages):
            block = of.column * grid.num_stages + number
            held = plain(rows[block])
            yield _Stage(
                held=held,
                sent=held,
                nonzeros=plain(table[of.row, block]),
                root=plain(block * grid.replication + of.column),
                mine=block == of.row,
                adds=number > 0,
            )

    def _condensed(self, phase: Phase) -> Iterator[_Stage]:
        """Write the first stage as one step and all further stages as one step of several calls.

        Every rank that broadcasts a block does so in the first step; nonzeros are spread evenly
        over the stages. Bytes sent and flops of the product are unchanged.
        """
        of, grid, count = self.of, self.grid, self.grid.num_stages
        total = of.span_nonzeros(transpose=phase is Phase.BACKWARD)
        held = int(grid.rows[0])
        sends = of.row // count == of.column
        yield _Stage(
            held=held,
            sent=plain(of.rows),
            nonzeros=plain(total // count + total % count),
            mine=sends,
        )
        nobody = np.zeros_like(sends)
        each = plain(total // count)
        yield _Stage(held=held, sent=held, nonzeros=each, mine=nobody, adds=True, times=count - 1)

    def _stage(
        self,
        name: str,
        phase: Phase,
        layer: int,
        width: Size,
        stage: _Stage,
        opening: tuple[Buffer, ...],
    ) -> None:
        """Broadcast a block and add its product."""
        s, members = self.element_bytes, self.grid.num_blocks
        # An empty block has nothing to send: the trainer skips the call in the same case.
        if members > 1 and np.any(stage.held):
            sent = work.broadcast(
                stage.sent * width, s, members, root=stage.root, is_root=stage.mine
            )
            self.chain.step(
                name.format("broadcast"),
                stage.done(sent),
                phase=phase,
                layer=layer,
                lane=Lane.COMM,
                group=self.column_group,
                allocates=opening,
            )
            opening = ()
        added = work.spmm(
            rows=plain(self.of.rows),
            nonzeros=stage.nonzeros,
            width=width,
            source_rows=stage.held,
            element_bytes=s,
            adds=stage.adds,
            reuse=self.grid.reuse,
        )
        self.step(name.format("spmm"), stage.done(added), phase, layer, allocates=opening)


def row_grid_plan(
    data: GraphLike, run: RunSpec, grid: RowGrid, order: str, *, condensed: bool
) -> Plan:
    """Every epoch is one forward, backward, all-reduce, update."""
    shape = stack_shape(data, run, order)
    basis = f"{grid.basis}, even over stages" if condensed else grid.basis
    plan = Plan(
        approach=run.approach,
        world_size=grid.world_size,
        **repeated([grid_iteration(shape, grid, condensed=condensed)], run.training.epochs),
        resident=resident(shape, grid),
        counted=grid.counted and not condensed,
        basis=basis,
        notes=grid_notes(shape, (grid.num_blocks, grid.replication)),
    )
    return answered(plan)


def grid_iteration(shape: StackShape, grid: RowGrid, *, condensed: bool) -> Iteration:
    """One epoch of all ranks."""
    classes = []
    for of in GridRanks.alike(grid):
        steps = StageWriter(shape, of, Chain(), condensed=condensed)
        steps.forward()
        steps.loss(plain(grid.train_rows[of.row]))
        steps.backward()
        # Each column of the grid holds every vertex once, so its sum is the whole gradient.
        steps.update(steps.column_group)
        classes.append(RankClass(of.ranks, steps.chain.done()))
    return Iteration(classes)


def resident(shape: StackShape, grid: RowGrid) -> tuple[Buffer, ...]:
    """Buffers that live from before the first epoch."""
    of = GridRanks(grid, np.arange(grid.world_size))
    pointers = 8 * (of.rows + 1) * grid.num_stages
    entry = work.INDEX_BYTES
    return held_buffers(
        shape,
        grid,
        of.row,
        x=of.rows * shape.dims[0] * shape.element_bytes,
        topology=pointers + entry * of.span_nonzeros(transpose=False),
        topology_t=pointers + entry * of.span_nonzeros(transpose=True),
    )


class Cagnet1d(Approach):
    """Card and plan of `cagnet-1d`."""

    name: ClassVar[str] = "cagnet-1d"
    title: ClassVar[str] = "CAGNET 1D (block rows, broadcasts)"
    paper = PAPER
    summary: ClassVar[str] = (
        "block rows of the adjacency; each rank broadcasts its block of H in turn"
    )
    promise = EXACT
    accepts = Accepts(
        no_attention="its backward pass sums entries on the ranks of their sources, but only the "
        "ranks of their destinations know the softmax that weighs them"
    )
    look: ClassVar[Look] = Look(colour="#E69F00", marker="<")
    published: ClassVar[tuple[Published, ...]] = (
        Published(names=r"^cagnet[ -]?1d", recipe="gnnbench.published.recipes:native"),
    )
    knobs_type: ClassVar[type[Any]] = CagnetKnobs
    runtime = "gnnbench_runtime.approaches.whole_graph.cagnet:RowGridTrainer"

    def examples(self) -> list[RunSpec]:
        sage = {"kind": "sage", "layers": 3, "dropout": 0.5, "input_dropout": 0.3, "norm": "layer"}
        return [
            example(self.name, 1),
            example(self.name, 3, model=sage),
            example(self.name, 2, knobs={"order": "transform_first"}),
        ]

    def replication(self, run: RunSpec) -> int:
        return 1

    def structure(self, data: GraphLike, run: RunSpec, cache: Path | None = None) -> RowGrid:
        c = self.replication(run)
        return RowGrid.of(data, run.ranks // c, run.ranks, replication=c)

    def plan(self, data: GraphLike, run: RunSpec, structure: Any, layout: Layout) -> Plan:
        # A run is compared with its plan step by step; only predictions may combine stages.
        condensed = structure.too_many and not layout.performed
        return row_grid_plan(data, run, structure, self.knobs(run).order, condensed=condensed)


class Cagnet15d(Cagnet1d):
    """Card and plan of `cagnet-1.5d`."""

    name = "cagnet-1.5d"
    title = "CAGNET 1.5D (replicated block rows)"
    summary = "block rows on c ranks each: fewer broadcasts, plus an all-reduce over replicas"
    look = Look(colour="#8C6D31", marker=">")
    knobs_type = ReplicatedKnobs

    def examples(self) -> list[RunSpec]:
        sage = {"kind": "sage", "layers": 3, "dropout": 0.5, "input_dropout": 0.3, "norm": "layer"}
        return [
            example(self.name, 4),
            example(self.name, 4, model=sage, training={"optimizer": "sgd"}),
            example(self.name, 2, knobs={"replication": 1, "order": "aggregate_first"}),
        ]

    def replication(self, run: RunSpec) -> int:
        return int(self.knobs(run).replication)

    def skip_reason(self, run: RunSpec, data: GraphLike | None = None) -> str | None:
        """As published: c | P and c^2 | P."""
        c = self.replication(run)
        if run.ranks % (c * c) == 0:
            return None
        return (
            f"cagnet-1.5d with replication {c} runs on multiples of {c * c} ranks "
            f"(its square), {run.ranks} asked"
        )


ONE_D = Cagnet1d()
ONE_AND_A_HALF_D = Cagnet15d()
