"""CAGNET 1D and 1.5D: sparse products in stages over broadcast blocks, replicas all-reduced.

Legend: n rows of the own block, m rows of a stage's block, F width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.whole_graph.cagnet import GridRanks, RowGrid
from gnnbench.approaches.writing.shape import stack_shape
from gnnbench.data.graph import Graph
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
from gnnbench_runtime.models.stack import Stack
from gnnbench_runtime.models.workspace import Workspace
from gnnbench_runtime.protocol import RankContext
from gnnbench_runtime.training import StackNet, make_parameters


@dataclass(slots=True, kw_only=True)
class Stage:
    """One stage of a sparse product: whose block, and the sparse blocks that multiply it.

    Args:
        columns: the vertices of the block.
        owner: place of the broadcasting rank in the group.
        mine: whether it is this rank.
        forward: the pattern of A[row, block].
        backward: of its transpose's block, A[block, row] transposed; columns of both count from
            the first vertex of the block.
    """

    columns: slice
    owner: int
    mine: bool
    forward: Pattern
    backward: Pattern


@dataclass(slots=True, kw_only=True)
class StagedAggregation:
    """The normalised adjacency of one rank, in stages; what `Stack` takes for an aggregation."""

    rows: int
    source_rows: int
    stages: Sequence[Stage]
    scales: Scales
    split: None = None


class StagedStack(Stack):
    """A stack whose sparse products broadcast block after block."""

    column: Comm
    replicas: Comm

    def spmm(
        self,
        name: str,
        phase: Phase,
        layer: int,
        agg: Any,
        x: Tensor,
        out: Tensor,
        *,
        transpose: bool,
    ) -> None:
        where, width = name.removesuffix("/spmm"), x.shape[1]
        for number, stage in enumerate(agg.stages):
            held = stage.columns.stop - stage.columns.start
            block = x if stage.mine else self.workspace.get("stage_rows", held, width)
            if held:
                sent = f"{where}/broadcast/{number}"
                self.column.broadcast(block, stage.owner, sent, phase, layer=layer)
            pattern = stage.backward if transpose else stage.forward
            with self.sparse(
                f"{where}/spmm/{number}", phase, layer, pattern, held, block, adds=number > 0
            ):
                scales = agg.scales.of(stage.columns, mine=stage.mine, transpose=transpose)
                self.kernels.spmm(*pattern, block, out, accumulate=number > 0, **scales)
        if agg.rows:
            self.replicas.all_reduce(out, f"{where}/reduce", phase, layer=layer)


class RowGridTrainer(BlockTrainer):
    """One rank of CAGNET 1D or 1.5D."""

    def __init__(self, context: RankContext, data: Graph, structure: RowGrid) -> None:
        knobs = APPROACHES.get(context.run.approach).knobs(context.run)
        graph = reopened_graph(data)
        shape = stack_shape(graph, context.run, knobs.order)
        loader, workspace = Loader(context, graph, shape), Workspace(context.device, context.dtype)
        held = GridRanks(structure, np.array([context.rank])).stage_rows()
        workspace.get("stage_rows", int(held[0]), shape.widest_exchange)
        self.stack = StagedStack(
            shape, make_parameters(context, shape), workspace, context.kernels, context.recorder
        )
        self.stack.column, self.stack.replicas = axes(context, structure)
        row, _ = structure.place(context.rank)
        block = BlockOfVertices(
            loader,
            structure.own(row),
            slice(0, graph.num_features),
            aggregation(loader, structure, context.rank),
        )
        column = self.stack.column
        # A grid column holds every block once, so its sum is the whole gradient.
        super().__init__(context, block, StackNet(self.stack), owners=column, sharers=column)

    def whole_logits(self) -> Tensor:
        whole = self.batches.batch(())
        return self.stack.forward(
            whole.x,
            whole.aggregations,
            row_ids=whole.row_ids,
            counters=None,
            phase=Phase.EVALUATE,
        )


def axes(context: RankContext, grid: RowGrid) -> tuple[Comm, Comm]:
    """The ranks of the own column, and those of the own row."""
    if grid.replication == 1:
        return context.comm, Comm(context.recorder, device=context.device)
    rows, columns = grid.groups()
    return context.comm.split(columns), context.comm.split(rows)


def aggregation(loader: Loader, grid: RowGrid, rank: int) -> StagedAggregation:
    """The stages of a rank's products."""
    row, column = grid.place(rank)
    own, blocks = grid.own(row), grid.stages(column)
    pairs = patterns(loader.graph, grid, row, blocks)
    stages = []
    for block, (forward, backward) in zip(blocks, pairs, strict=True):
        stages.append(
            Stage(
                columns=grid.own(block),
                owner=block,
                mine=block == row,
                forward=(loader.tensor(forward[0]), loader.tensor(forward[1])),
                backward=(loader.tensor(backward[0]), loader.tensor(backward[1])),
            )
        )
    rows = own.stop - own.start
    return StagedAggregation(rows=rows, source_rows=rows, stages=stages, scales=Scales(loader, own))
