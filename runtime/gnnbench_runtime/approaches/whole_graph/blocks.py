"""A rank's block of vertices (patterns, features, labels, splits) and a trainer on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnnbench.approaches.whole_graph.blocks import Blocks
from gnnbench.data.graph import Graph
from gnnbench.models.scales import vertex_scales
from gnnbench.steps import Phase
from gnnbench_runtime.approaches.whole_graph.share import Loader
from gnnbench_runtime.comm import Comm
from gnnbench_runtime.evaluation import NodeAccuracy
from gnnbench_runtime.protocol import RankContext
from gnnbench_runtime.training import Batch, Net, StepTrainer, optimizer_of

Pattern = tuple[Tensor, Tensor]
"""indptr and indices of a sparse block."""


def patterns(
    graph: Graph, blocks: Blocks, row: int, others: Sequence[int]
) -> Iterator[tuple[Any, Any]]:
    """Yield (A[row, b], A[b, row] transposed) for each block b, as (indptr int64, indices int32).

    Rows of both are the vertices of block `row`, columns count from the start of b.
    """
    own = blocks.own(row)
    num_rows = own.stop - own.start
    targets, sources = _entries(graph, own)
    for block in others:
        other = blocks.own(block)
        inside = (sources >= other.start) & (sources < other.stop)
        forward = _csr(targets[inside] - own.start, sources[inside] - other.start, num_rows)
        columns, rows = _entries(graph, other)
        inside = (rows >= own.start) & (rows < own.stop)
        rows, columns = rows[inside] - own.start, columns[inside] - other.start
        by_row = np.argsort(rows, kind="stable")
        yield forward, _csr(rows[by_row], columns[by_row], num_rows)


def _entries(graph: Graph, vertices: slice) -> tuple[NDArray[Any], NDArray[Any]]:
    """Destination and source of every stored edge into some vertices."""
    indptr = np.asarray(graph.indptr[vertices.start : vertices.stop + 1])
    sources = np.asarray(graph.indices[indptr[0] : indptr[-1]])
    return np.repeat(np.arange(vertices.start, vertices.stop), np.diff(indptr)), sources


def _csr(
    rows: NDArray[Any], columns: NDArray[Any], num_rows: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    indptr = np.zeros(num_rows + 1, np.int64)
    np.cumsum(np.bincount(rows, minlength=num_rows), out=indptr[1:])
    return indptr, columns.astype(np.int32)


class Scales:
    """Scales of every vertex, [N], as destination and as source, and of own self terms, [n].

    None means ones, or no self term. A slice of a vector is made once and then reused:
    kernels cache the matrix that they build from a pattern and its scales.
    """

    def __init__(self, loader: Loader, own: slice) -> None:
        to, from_ = vertex_scales(loader.graph, loader.shape.model)
        both = None if from_ is None else to[own] * from_[own]
        self.own, dtype = own, loader.dtype
        self.to = loader.tensor(to, dtype)
        self.from_ = None if from_ is None else loader.tensor(from_, dtype)
        self.self_term = None if both is None else loader.tensor(both, dtype)
        self._parts: dict[tuple[bool, int], Tensor | None] = {}

    def of(self, columns: slice, *, mine: bool, transpose: bool) -> dict[str, Tensor | None]:
        """Arguments of a product of the own rows with a block of columns, or its transpose."""
        return {
            "row_scale": self._part(self.own, as_source=transpose),
            "col_scale": self._part(columns, as_source=not transpose),
            "self_scale": self.self_term if mine else None,
        }

    def _part(self, vertices: slice, *, as_source: bool) -> Tensor | None:
        key = as_source, vertices.start
        if key not in self._parts:
            scales = self.from_ if as_source else self.to
            self._parts[key] = None if scales is None else scales[vertices]
        return self._parts[key]


class BlockOfVertices:
    """The block as the only batch of every epoch: its feature columns, labels and patterns."""

    def __init__(self, loader: Loader, own: slice, columns: slice, aggregation: Any) -> None:
        self.aggregation, self.layers = aggregation, loader.shape.num_layers
        self.seed = loader.context.run.training.seed
        self.x = loader.block(own, columns)
        self.labels, self.masks = loader.labels(own), loader.masks(own)
        self.row_ids = torch.arange(own.start, own.stop, device=self.x.device)
        assert loader.graph.train_mask is not None
        self.train_rows = loader.tensor(np.flatnonzero(loader.graph.train_mask[own]))
        self.scale = 1.0 / max(loader.graph.num_train, 1)

    def of_period(self, period: int) -> Iterator[Batch]:
        """Yield the block."""
        yield self.batch((self.seed, period))

    def batch(self, counters: tuple[int, ...]) -> Batch:
        """The block, dropout keyed by `counters`."""
        return Batch(
            x=self.x,
            aggregations=[self.aggregation] * self.layers,
            row_ids=[self.row_ids] * self.layers,
            labels=self.labels,
            rows=self.train_rows,
            scale=self.scale,
            counters=counters,
        )

    def close(self) -> None:
        """Nothing runs in the background."""


class BlockTrainer(StepTrainer, ABC):
    """One rank that owns a block of vertices: one optimiser step per epoch.

    Args:
        context: of the rank.
        batches: its block.
        net: the model over it.
        owners: ranks that own every vertex once among them.
        sharers: ranks whose gradients add up to the whole.
    """

    batches: BlockOfVertices

    def __init__(
        self, context: RankContext, batches: BlockOfVertices, net: Net, owners: Comm, sharers: Comm
    ) -> None:
        self.context, self.batches, self.net, self.sharers = context, batches, net, sharers
        self.optimizer = optimizer_of(context, net.parameters)
        self.evaluator = NodeAccuracy(self.whole_logits, batches.labels, batches.masks, owners)

    @abstractmethod
    def whole_logits(self) -> Tensor:
        """Logits of the block's vertices, nothing dropped."""

    def all_reduce(self) -> None:
        """Sum gradients and loss over the ranks that share them out."""
        self.sharers.all_reduce(self.parameters.flat_grad, "sync/gradients", Phase.SYNC)
