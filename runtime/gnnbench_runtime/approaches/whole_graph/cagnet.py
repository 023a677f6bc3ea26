"""CAGNET 1D and 1.5D: sparse products in stages over broadcast blocks, replicas all-reduced.

Legend: n rows of the own block, m rows of a stage's block, F width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnnbench.approaches.whole_graph.cagnet import RowGrid, stage_bytes
from gnnbench.approaches.writing.shape import stack_shape
from gnnbench.data.graph import Graph
from gnnbench.models.names import MODELS
from gnnbench.steps import Kind, Phase
from gnnbench_runtime.approaches.whole_graph.partition import adam_step, correct
from gnnbench_runtime.comm import Comm
from gnnbench_runtime.models.data import reopened_graph
from gnnbench_runtime.models.parameters import Parameters
from gnnbench_runtime.models.scales import vertex_scales
from gnnbench_runtime.models.stack import Stack
from gnnbench_runtime.models.workspace import Workspace
from gnnbench_runtime.protocol import RankContext


@dataclass(slots=True, kw_only=True)
class Stage:
    """One stage of a sparse product: whose block, and the sparse blocks that multiply it.

    `owner` is the place of the broadcasting rank in the group, `mine` whether it is this rank.
    Patterns are (indptr, indices): `forward` of A[row, block], `backward` of its transpose's
    block, A[block, row] transposed; columns count from the first row of the block.
    """

    low: int
    high: int
    owner: int
    mine: bool
    forward: tuple[Tensor, Tensor]
    backward: tuple[Tensor, Tensor]


@dataclass(slots=True, kw_only=True)
class StagedAggregation:
    """The normalised adjacency of one rank, in stages; what `Stack` knows as an aggregation.

    `to`, `from_` [N]: scales of every vertex as destination and as source, None for ones;
    self_scale [n].
    """

    rows: int
    source_rows: int
    low: int
    stages: Sequence[Stage]
    to: Tensor | None
    from_: Tensor | None
    self_scale: Tensor | None


class StagedStack(Stack):
    """A stack whose sparse products broadcast block after block."""

    column: Comm
    replicas: Comm

    def _spmm(
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
        where, width, n, s = name.removesuffix("/spmm"), x.shape[1], agg.rows, x.element_size()
        # The backward pass is the product with the transpose: the scales change places.
        to, from_ = (agg.from_, agg.to) if transpose else (agg.to, agg.from_)
        row_scale = None if to is None else to[agg.low : agg.low + n]
        for number, stage in enumerate(agg.stages):
            held = stage.high - stage.low
            block = x if stage.mine else self._stage_rows(held, width)
            if held:
                self.column.broadcast(
                    block, stage.owner, f"{where}/broadcast/{number}", phase, layer=layer
                )
            indptr, indices = stage.backward if transpose else stage.forward
            nonzeros = indices.numel()
            moved = (min(held, nonzeros) + (2 if number else 1) * n) * width * s
            with self._step(
                f"{where}/spmm/{number}", Kind.SPMM, "spmm", phase, layer,
                8 * (n + 1) + 4 * nonzeros + moved, 2 * nonzeros * width,
            ):  # fmt: skip
                self.kernels.spmm(
                    indptr,
                    indices,
                    block,
                    out,
                    row_scale=row_scale,
                    col_scale=None if from_ is None else from_[stage.low : stage.high],
                    self_scale=agg.self_scale if stage.mine else None,
                    accumulate=number > 0,
                )
        if n:
            self.replicas.all_reduce(out, f"{where}/reduce", phase, layer=layer)

    def _stage_rows(self, rows: int, width: int) -> Tensor:
        """The part that a block of this size takes of the buffer for received blocks."""
        return self.workspace.get("stage_rows", rows, width)


def patterns(
    graph: Graph, edges: Sequence[int], row: int, blocks: Sequence[int]
) -> list[tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]]:
    """Return (A[row, b], A[b, row] transposed) for each block, as (indptr int64, indices int32).

    Rows of both are the vertices of block `row`, columns count from the start of b.
    """
    low, high = edges[row], edges[row + 1]
    into = _entries(graph, low, high)
    found = []
    for block in blocks:
        first, end = edges[block], edges[block + 1]
        inside = (into[1] >= first) & (into[1] < end)
        forward = _csr(into[0][inside] - low, into[1][inside] - first, high - low)
        destinations, sources = _entries(graph, first, end)
        inside = (sources >= low) & (sources < high)
        rows, columns = sources[inside] - low, destinations[inside] - first
        by_row = np.argsort(rows, kind="stable")
        found.append((forward, _csr(rows[by_row], columns[by_row], high - low)))
    return found


def _entries(graph: Graph, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    """Destination and source of every stored edge into the vertices low..high."""
    indptr = np.asarray(graph.indptr[low : high + 1])
    sources = np.asarray(graph.indices[indptr[0] : indptr[-1]])
    return np.repeat(np.arange(low, high), np.diff(indptr)), sources


def _csr(rows: np.ndarray, columns: np.ndarray, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    indptr = np.zeros(num_rows + 1, np.int64)
    np.cumsum(np.bincount(rows, minlength=num_rows), out=indptr[1:])
    return indptr, columns.astype(np.int32)


def block_rows(
    features: np.ndarray, rows: slice, columns: slice, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """A block of the features as a tensor, read in slices."""
    count, width = rows.stop - rows.start, columns.stop - columns.start
    held = torch.empty((count, width), dtype=dtype, device=device)
    for start in range(0, count, 65_536):
        end = min(start + 65_536, count)
        part = features[rows.start + start : rows.start + end, columns]
        held[start:end] = torch.from_numpy(np.ascontiguousarray(part)).to(device, dtype)
    return held


class BlockTrainer(ABC):
    """What a rank that owns a block of rows does, whatever grid the block is of.

    Subclasses set context, parameters, dtype and optimizer_steps, and fill and sum gradients.
    """

    context: RankContext
    parameters: Parameters
    dtype: torch.dtype
    optimizer_steps: int

    @abstractmethod
    def gradients(self, counters: tuple[int, ...]) -> Tensor:
        """Fill this rank's part of loss and gradient; return the logits of its rows."""

    @abstractmethod
    def all_reduce(self) -> None:
        """Sum gradients and loss over the ranks that share them out."""

    def train_epoch(self, epoch: int) -> float:
        """One forward, backward, all-reduce and Adam step over the whole graph."""
        self.gradients((self.context.run.training.seed, epoch))
        self.all_reduce()
        self.update()
        return float(self.parameters.loss.item())

    def update(self) -> None:
        """One Adam step."""
        adam_step(self.context, self.parameters, self.optimizer_steps + 1)
        self.optimizer_steps += 1

    def close(self) -> None:  # noqa: B027 - nothing to stop
        """Nothing runs beside this trainer."""

    def _tensor(self, array: np.ndarray, dtype: torch.dtype | None = None) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.context.device, dtype)

    def _load_block(self, graph: Graph, own: slice, columns: slice) -> None:
        """Hold columns of the features of the rows `own`, and all else that is theirs."""
        assert graph.features is not None and graph.labels is not None
        device = self.context.device
        self.x = block_rows(graph.features, own, columns, self.dtype, device)
        labels = np.asarray(graph.labels[own])
        self.labels = self._tensor(labels, self.dtype if labels.dtype.kind == "f" else torch.int64)
        self.row_ids = torch.arange(own.start, own.stop, device=device)
        masks = {"train": graph.train_mask, "val": graph.val_mask, "test": graph.test_mask}
        self.masks = {
            name: self._tensor(np.asarray(mask[own]))
            for name, mask in masks.items()
            if mask is not None
        }
        self.train_rows = self.masks["train"].nonzero().squeeze(1)
        self.loss_scale = 1.0 / max(graph.num_train, 1)


class RowGridTrainer(BlockTrainer):
    """One rank of CAGNET 1D or 1.5D: one optimizer step per epoch."""

    def __init__(self, context: RankContext, graph: Graph, structure: RowGrid) -> None:
        run, self.context = context.run, context
        self.shape = stack_shape(graph, run, str(run.knobs["order"]))
        self.dtype = torch.float64 if run.training.precision == "float64" else torch.float32
        self.model = MODELS.get(run.model.kind)
        self.parameters = Parameters(
            self.model, self.shape.dims, run.training.seed, context.device, self.dtype
        )
        self.workspace = Workspace(context.device, self.dtype)
        self.grid = structure
        self.row, self.grid_column = structure.place(context.rank)
        graph = reopened_graph(graph)
        self.aggregation = self._aggregation(graph)
        own = slice(self.grid.edges[self.row], self.grid.edges[self.row + 1])
        self._load_block(graph, own, slice(0, graph.num_features))
        if structure.replication == 1:
            self.column, replicas = context.comm, Comm(context.recorder, device=context.device)
        else:
            self.column = context.comm.split(structure.columns())
            replicas = context.comm.split(structure.row_groups())
        self.stack = StagedStack(
            self.shape, self.parameters, self.workspace, context.kernels, context.recorder
        )
        self.stack.column, self.stack.replicas = self.column, replicas
        size = stage_bytes(self.shape, structure, context.rank) // self.shape.element_bytes
        self.workspace.get("stage_rows", size, 1)
        self.optimizer_steps = 0

    # -- data ------------------------------------------------------------------------------------

    def _aggregation(self, graph: Graph) -> StagedAggregation:
        grid, row = self.grid, self.row
        low, high = grid.edges[row], grid.edges[row + 1]
        to, from_ = vertex_scales(graph, self.model)
        blocks = grid.stages(self.grid_column)
        stages = []
        for block, (forward, backward) in zip(
            blocks, patterns(graph, grid.edges, row, blocks), strict=True
        ):
            stages.append(
                Stage(
                    low=grid.edges[block],
                    high=grid.edges[block + 1],
                    owner=block,
                    mine=block == row,
                    forward=(self._tensor(forward[0]), self._tensor(forward[1])),
                    backward=(self._tensor(backward[0]), self._tensor(backward[1])),
                )
            )
        own = slice(low, high)
        return StagedAggregation(
            rows=high - low,
            source_rows=high - low,
            low=low,
            stages=stages,
            to=self._tensor(to, self.dtype),
            from_=None if from_ is None else self._tensor(from_, self.dtype),
            self_scale=None if from_ is None else self._tensor(to[own] * from_[own], self.dtype),
        )

    # -- training --------------------------------------------------------------------------------

    def _forward(self, counters: tuple[int, ...] | None, phase: Phase) -> Tensor:
        layers = self.shape.num_layers
        aggregations: list[Any] = [self.aggregation] * layers
        return self.stack.forward(
            self.x, aggregations, row_ids=[self.row_ids] * layers, counters=counters, phase=phase
        )

    def gradients(self, counters: tuple[int, ...]) -> Tensor:
        """Fill the block's share of loss and gradient; return the logits of its rows."""
        logits = self._forward(counters, Phase.FORWARD)
        self.stack.loss(logits, self.labels, self.train_rows, self.loss_scale)
        self.stack.backward()
        return logits

    def all_reduce(self) -> None:
        """Sum gradients and loss over the blocks: a grid column holds each of them once."""
        self.column.all_reduce(self.parameters.flat_grad, "sync/gradients", Phase.SYNC)

    # -- evaluation ------------------------------------------------------------------------------

    def evaluate(self) -> dict[str, float]:
        """Accuracy on every split, over all blocks."""
        logits = self._forward(None, Phase.EVALUATE)
        return split_accuracy(logits, self.labels, self.masks, self.column)


def split_accuracy(
    logits: Tensor, labels: Tensor, masks: dict[str, Tensor], ranks: Comm
) -> dict[str, float]:
    """Accuracy by split, over the rows of all ranks of a group that holds every row once."""
    names = sorted(masks)
    counts = torch.zeros((len(names), 2), dtype=torch.float64, device=logits.device)
    for i, name in enumerate(names):
        counts[i, 0], counts[i, 1] = correct(logits[masks[name]], labels[masks[name]])
    ranks.all_reduce(counts, "evaluate/counts", Phase.EVALUATE)
    return {
        name: float(counts[i, 0] / counts[i, 1]) for i, name in enumerate(names) if counts[i, 1] > 0
    }
