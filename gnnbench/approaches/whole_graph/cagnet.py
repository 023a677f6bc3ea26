"""CAGNET 1D and 1.5D: block rows of the adjacency, dense blocks broadcast stage by stage.

R = P/c block rows, each held by the c ranks of a row of the process grid: rank r is in row r div c
and column r mod c. For one sparse product, grid column g broadcasts the R/c blocks of its stages
among its own ranks {g, g+c, ...}, every rank adds its sparse block times the block received, and
the ranks of a row all-reduce what they have (fullgraph section 8). 1D is c = 1.

Received elements per product of width d (FG-26): over all ranks N d (P/c - 1) by broadcast, and
2(c-1)/c of every rank's block by the ring all-reduce.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gnnbench.approaches.base import Approach, GraphLike, Layout
from gnnbench.approaches.writing.shape import stack_shape
from gnnbench.approaches.writing.stack import Chain, LayerSizes, StackShape, StackSteps
from gnnbench.data.profile import GraphProfile
from gnnbench.iterations import RankSteps
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import After, Kind, Lane, Phase, Step
from gnnbench.strict import bounds, choices
from gnnbench.work import all_reduce_bytes

Ints = NDArray[np.int64]
COUNTED = "counted on the real graph"
EVEN = "entries of the profile dealt evenly to blocks"
Segment = tuple[RankSteps, int]
# Stages times ranks from which a plan tells like stages as repeats of one.
CONDENSE_FROM = 2**15
PAPER = (
    "Tripathy, Yelick and Buluc, Reducing Communication in Graph Neural Network Training, SC 2020"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CagnetKnobs:
    """Knobs of `cagnet-1d` and `cagnet-2d`.

    order: which product comes first in a layer; the paper aggregates first, min_width aggregates
    the narrower side.
    """

    order: str = field(
        default="min_width", metadata=choices("min_width", "aggregate_first", "transform_first")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicatedKnobs(CagnetKnobs):
    """Knobs of `cagnet-1.5d`. replication: ranks that hold the same block row (c)."""

    replication: int = field(default=2, metadata=bounds(1))


def even_bounds(total: int, parts: int) -> tuple[int, ...]:
    """Where `parts` runs of `total` items start and end; the first ones are longer by one."""
    base, left = divmod(total, parts)
    return tuple(part * base + min(part, left) for part in range(parts + 1))


def block_nonzeros(graph: GraphLike, edges: Sequence[int]) -> Ints:
    """Entries of the adjacency by (block of the destination, block of the source), int64 [R, R].

    A profile's entries are dealt out evenly, as a random order of the vertices would.
    """
    count = len(edges) - 1
    if isinstance(graph, GraphProfile):
        base, left = divmod(graph.num_edges, count * count)
        table = np.full(count * count, base, np.int64)
        table[:left] += 1
        return table.reshape(count, count)
    inner = np.asarray(edges[1:-1])
    table = np.zeros((count, count), np.int64)
    for block, (low, high) in enumerate(pairwise(edges)):
        sources = np.asarray(graph.indices[graph.indptr[low] : graph.indptr[high]])
        table[block] = np.bincount(np.searchsorted(inner, sources, side="right"), minlength=count)
    return table


def block_train_rows(graph: GraphLike, edges: Sequence[int]) -> tuple[int, ...]:
    """Training vertices of each block row."""
    if isinstance(graph, GraphProfile):
        return tuple(b - a for a, b in pairwise(even_bounds(graph.num_train, len(edges) - 1)))
    train = graph.train_nodes()
    found = np.searchsorted(train, np.asarray(edges))
    return tuple(int(n) for n in np.diff(found))


@dataclass(frozen=True, slots=True, kw_only=True)
class RowGrid:
    """P ranks as (P/c) x c, and the sizes of the blocks they hold.

    `edges` [R + 1]: where block rows start and end. `nonzeros` int64 [R, R]: entries by block of
    the destination and block of the source. Neighbours of a vertex keep their direction: a forward
    product uses nonzeros[row, stage], a backward one, with the transpose, nonzeros[stage, row].
    """

    replication: int
    edges: tuple[int, ...]
    nonzeros: Ints
    train_rows: tuple[int, ...]
    exact: bool = True
    basis: str = COUNTED

    @classmethod
    def of(cls, graph: GraphLike, ranks: int, replication: int) -> RowGrid:
        """Cut a graph into P/c block rows."""
        edges = even_bounds(graph.num_nodes, ranks // replication)
        profile = isinstance(graph, GraphProfile)
        return cls(
            replication=replication,
            edges=edges,
            nonzeros=block_nonzeros(graph, edges),
            train_rows=block_train_rows(graph, edges),
            exact=not profile or ranks == 1,
            basis=EVEN if profile else COUNTED,
        )

    @property
    def condensed(self) -> bool:
        """Whether stages are told as repeats of one: P^2 of them in each product are too many.

        A rank's own broadcast is then told as its first, and entries are even over stages; bytes
        and flops add up to the same integers.
        """
        stages = self.num_blocks // self.replication
        full = self.edges[-1] >= self.num_blocks
        return full and stages > 1 and stages * self.world_size > CONDENSE_FROM

    @property
    def num_blocks(self) -> int:
        return len(self.edges) - 1

    @property
    def world_size(self) -> int:
        return self.num_blocks * self.replication

    def rows(self, block: int) -> int:
        return self.edges[block + 1] - self.edges[block]

    def place(self, rank: int) -> tuple[int, int]:
        """Row and column of a rank."""
        return divmod(rank, self.replication)

    def stages(self, column: int) -> range:
        """Blocks that a grid column broadcasts. c^2 divides P, so that all have as many."""
        share = self.num_blocks // self.replication
        return range(column * share, (column + 1) * share)

    def columns(self) -> list[list[int]]:
        """Ranks of every grid column."""
        c = self.replication
        return [list(range(column, self.world_size, c)) for column in range(c)]

    def row_groups(self) -> list[list[int]]:
        """Ranks of every grid row: replicas of one block."""
        c = self.replication
        return [list(range(row * c, (row + 1) * c)) for row in range(self.num_blocks)]


@dataclass(slots=True)
class StepPool:
    """Equal steps of different ranks are one object: P^2 stages would else be P^2 objects."""

    steps: dict[tuple[object, ...], Step] = field(default_factory=dict)

    def add(
        self, chain: Chain, kind: Kind, name: str, facts: tuple[object, ...], *,
        waits: tuple[After, ...] = (), **rest: Any,
    ) -> None:  # fmt: skip
        """Add a step to a chain; `facts` tell it from others of its name.

        It waits for its predecessor on another lane, or for `waits` where an iteration begins.
        """
        last = chain.last
        lane = Lane.COMPUTE if kind is Kind.SPMM else Lane.COMM
        if not waits and last is not None and last.lane is not lane:
            waits = (After(last.name),)
        key = (name, waits[0].step if waits else "", facts)
        step = self.steps.get(key)
        if step is None:
            step = self.steps[key] = Step(
                name=name, kind=kind, op=kind.value, lane=lane, after=waits, **rest
            )
        chain.steps.append(step)
        chain.last = step


class RowGridSteps(StackSteps):
    """The stack's steps with every sparse product in stages (see the module)."""

    def __init__(
        self, shape: StackShape, grid: RowGrid, rank: int, groups: GridGroups, pool: StepPool
    ) -> None:
        row, column = grid.place(rank)
        n = grid.rows(row)
        size = LayerSizes(rows=n, source_rows=n, nonzeros=int(grid.nonzeros[row].sum()))
        super().__init__(shape, [size] * shape.num_layers, None, Chain())
        self.grid, self.row, self.column, self.pool = grid, row, column, pool
        self.column_group, self.row_group = groups.columns[column], groups.rows[row]
        self.forward_entries = groups.nonzeros[row]
        self.backward_entries = groups.transposed[row]
        self.stage_bytes = stage_bytes(shape, grid, rank)
        self.segments: list[Segment] = []

    def _spmm(
        self, name: str, phase: Phase, layer: int, rows: int, source: int, nnz: int, width: int,
        **facts: object,
    ) -> None:  # fmt: skip
        s, where, grid = self.shape.element_bytes, name.removesuffix("/spmm"), self.grid
        entries = self.backward_entries if phase is Phase.BACKWARD else self.forward_entries
        room = (("stage_rows", self.stage_bytes),) if self.stage_bytes else ()
        given = facts.get("allocates", ())
        assert isinstance(given, tuple)
        opening, blocks = (*given, *room), grid.stages(self.column)
        begins: tuple[After, ...] = ()
        if grid.condensed:
            each, left = divmod(sum(entries[block] for block in blocks), len(blocks))
            self._stage(
                where,
                0,
                phase,
                layer,
                rows,
                grid.rows(0),
                each + left,
                width,
                self.row in blocks,
                opening,
            )
            self._cut(1)
            begins = (After(f"{where}/spmm/0", 1), After(f"{where}/spmm/1", 1))
            self._stage(where, 1, phase, layer, rows, grid.rows(0), each, width, False, (), begins)
            self._cut(len(blocks) - 1)
            begins = (After(f"{where}/spmm/1", 1),)
        else:
            for number, block in enumerate(blocks):
                self._stage(
                    where, number, phase, layer, rows, grid.rows(block), entries[block], width,
                    block == self.row, () if number else opening,
                )  # fmt: skip
        if len(self.row_group) > 1 and rows:
            size = rows * width * s
            self.pool.add(
                self.chain, Kind.ALL_REDUCE, f"{where}/reduce", (size, width, self.row_group[0]),
                waits=begins, phase=phase, layer=layer, rows=rows * width, width=width,
                group=self.row_group, bytes=all_reduce_bytes(size, len(self.row_group)),
                buffer_bytes=size,
            )  # fmt: skip

    def _stage(
        self, where: str, number: int, phase: Phase, layer: int, rows: int, held: int,
        nonzeros: int, width: int, mine: bool, opening: tuple[tuple[str, int], ...],
        waits: tuple[After, ...] = (),
    ) -> None:  # fmt: skip
        """Broadcast a block of `held` rows and add its product."""
        s, group, peers = self.shape.element_bytes, self.column_group, len(self.column_group) - 1
        if peers and held:
            # In a condensed plan the stage that is told as this rank's may be a row longer.
            size, own = held * width * s, rows * width * s
            sent = own * peers if mine else 0
            self.pool.add(
                self.chain, Kind.BROADCAST, f"{where}/broadcast/{number}",
                (sent, size, width, group[0], opening), waits=waits,
                phase=phase, layer=layer, rows=held * width, width=width, group=group,
                bytes=sent, buffer_bytes=size, allocates=opening,
            )  # fmt: skip
            opening = ()
        moved = (min(held, nonzeros) + (2 if number else 1) * rows) * width * s
        self.pool.add(
            self.chain, Kind.SPMM, f"{where}/spmm/{number}",
            (nonzeros, held, rows, width, opening),
            phase=phase, layer=layer, rows=rows, source_rows=held, nonzeros=nonzeros,
            width=width, flops=2 * nonzeros * width,
            bytes=8 * (rows + 1) + 4 * nonzeros + moved, allocates=opening,
        )  # fmt: skip

    def _cut(self, times: int) -> None:
        """End an iteration here, which happens `times` times."""
        self.segments.append((tuple(self.chain.steps), times))
        self.chain.steps = []

    def done(self) -> list[Segment]:
        """The epoch as iterations and how often each happens."""
        self._cut(1)
        return self.segments


@dataclass(frozen=True, slots=True)
class GridGroups:
    """Groups and entry counts in the form that many ranks' steps are quickly made from."""

    columns: tuple[tuple[int, ...], ...]
    rows: tuple[tuple[int, ...], ...]
    nonzeros: list[list[int]]
    transposed: list[list[int]]

    @classmethod
    def of(cls, grid: RowGrid) -> GridGroups:
        return cls(
            tuple(tuple(ranks) for ranks in grid.columns()),
            tuple(tuple(ranks) for ranks in grid.row_groups()),
            grid.nonzeros.tolist(),
            grid.nonzeros.T.tolist(),
        )


def stage_bytes(shape: StackShape, grid: RowGrid, rank: int) -> int:
    """Bytes of the buffer for a received block: the longest foreign one at the widest product."""
    row, column = grid.place(rank)
    foreign = [grid.rows(block) for block in grid.stages(column) if block != row]
    widest = max(shape.exchange_width(layer) for layer in range(1, shape.num_layers + 1))
    return max(foreign, default=0) * widest * shape.element_bytes


def rank_steps(
    shape: StackShape, grid: RowGrid, rank: int, groups: GridGroups, pool: StepPool
) -> list[Segment]:
    """One epoch of one rank, as iterations and how often each happens."""
    steps = RowGridSteps(shape, grid, rank, groups, pool)
    steps.forward()
    steps.loss(grid.train_rows[steps.row])
    steps.backward()
    # Each column of the grid holds every vertex once, so its sum is the whole gradient.
    steps.update(steps.column_group)
    return steps.done()


def resident(shape: StackShape, grid: RowGrid, rank: int) -> dict[str, int]:
    """Bytes that live from before the first epoch. Scales are those of all vertices."""
    row, column = grid.place(rank)
    s, n, stages = shape.element_bytes, grid.rows(row), grid.stages(column)
    whole, symmetric = grid.edges[-1], shape.model.normalisation == "symmetric"
    pointers = 8 * (n + 1) * len(stages)
    span = slice(stages.start, stages.stop)
    return {
        "x": n * shape.dims[0] * s,
        "topology": pointers + 4 * int(grid.nonzeros[row, span].sum()),
        "topology_t": pointers + 4 * int(grid.nonzeros[span, row].sum()),
        "scales": (2 * whole + n if symmetric else whole) * s,
        "labels": 8 * n + 3 * n,
        "row_ids": 8 * n,
        "train_rows": 8 * grid.train_rows[row],
        "parameters": 4 * shape.num_parameters * s,
    }


def row_grid_plan(graph: GraphLike, run: RunSpec, grid: RowGrid, order: str) -> Plan:
    """An epoch is one iteration (forward, loss, backward, all-reduce, Adam), unless condensed."""
    shape = stack_shape(graph, run, order)
    groups, pool, ranks = GridGroups.of(grid), StepPool(), range(grid.world_size)
    epochs = [rank_steps(shape, grid, rank, groups, pool) for rank in ranks]
    times = [repeats for _, repeats in epochs[0]]
    epoch = [index for index, repeats in enumerate(times) for _ in range(repeats)]
    return Plan(
        approach=run.approach,
        world_size=grid.world_size,
        iterations=tuple(
            tuple(segments[index][0] for segments in epochs) for index in range(len(times))
        ),
        schedule=tuple(epoch) * run.training.epochs,
        iterations_per_epoch=len(epoch),
        resident=tuple(resident(shape, grid, rank) for rank in ranks),
        exact=grid.exact and not grid.condensed,
        basis=f"{grid.basis}, even over stages" if grid.condensed else grid.basis,
        notes={
            "order": shape.orders,
            "backward": "save_z: the weight gradient uses the saved aggregate",
            "grid": (grid.num_blocks, grid.replication),
            "num_parameters": shape.num_parameters,
        },
    )


class Cagnet1d(Approach):
    """Card and plan of `cagnet-1d`."""

    name = "cagnet-1d"
    title = "CAGNET 1D (block rows, broadcasts)"
    paper = PAPER
    summary = "block rows of the adjacency; each rank broadcasts its block of H in turn"
    exact = True
    no_attention = (
        "backward it sums up entries on the ranks of their sources, and the softmax that weighs "
        "them is known to those of their destinations; broadcast blocks of rows carry no weights"
    )
    runtime = "gnnbench_runtime.approaches.whole_graph.cagnet:RowGridTrainer"
    knobs_type: ClassVar[type[Any]] = CagnetKnobs

    def replication(self, run: RunSpec) -> int:
        return 1

    def structure(self, graph: GraphLike, run: RunSpec, cache: Path | None = None) -> RowGrid:
        return RowGrid.of(graph, run.ranks, self.replication(run))

    def plan(self, graph: GraphLike, run: RunSpec, structure: Any, layout: Layout) -> Plan:
        return row_grid_plan(graph, run, structure, self.knobs(run).order)


class Cagnet15d(Cagnet1d):
    """Card and plan of `cagnet-1.5d`."""

    name = "cagnet-1.5d"
    title = "CAGNET 1.5D (replicated block rows)"
    summary = "block rows replicated c times; fewer broadcasts, and an all-reduce over replicas"
    knobs_type = ReplicatedKnobs

    def replication(self, run: RunSpec) -> int:
        return int(self.knobs(run).replication)

    def skip_reason(self, run: RunSpec, graph: GraphLike | None = None) -> str | None:
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
