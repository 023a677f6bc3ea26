"""A rank of `mixed-accelerators` that aggregates its slice of the columns, for all rows.

Legend: N rows, n rows of a chunk, f a slice of columns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnnbench import work
from gnnbench.approaches.whole_graph.mixed_structure import MixedStructure
from gnnbench.approaches.whole_graph.pipeline_steps import BUFFERS
from gnnbench.approaches.whole_graph.row_pipeline import column_buffers
from gnnbench.models.scales import vertex_scales
from gnnbench.steps import Lane, Phase
from gnnbench_runtime.approaches.whole_graph.mixed_rank import Counters, MixedRank
from gnnbench_runtime.approaches.whole_graph.share import Loader, rows_at_once
from gnnbench_runtime.models.data import reopened
from gnnbench_runtime.models.parameters import Parameters
from gnnbench_runtime.pending import Pending


@dataclass(frozen=True, slots=True)
class Rows:
    """A chunk's rows of the adjacency: CSR with the model's self loops, and each row's scale."""

    indptr: Tensor
    indices: Tensor
    row_scale: Tensor | None


class SparseRank(MixedRank):
    """Multiplies chunk after chunk into one of two buffers, and sends each while it continues."""

    lane = Lane.SPARSE

    def __init__(self, loader: Loader, structure: MixedStructure, parameters: Parameters) -> None:
        super().__init__(loader, structure, parameters)
        dims, rows, order = self.shape.dims, structure.num_rows, structure.row_order
        assert order is not None
        self._cuts = {width: cuts[self.context.rank] for width, cuts in self.columns.items()}
        self._first = sum(self.columns[dims[0]][: self.context.rank])
        self.x = self._features(order)
        drops = self.shape.input_dropout > 0
        self._dropped = torch.empty_like(self.x) if drops else None
        self._ids = loader.tensor(order) if drops else None
        self._adjacency(order)
        inner = max((self._cuts[width] for width in dims[1:-1]), default=0)
        count = column_buffers(self.shape.num_layers)
        self._columns = [self.empty(rows * inner) for _ in range(count)]
        widest = max(self._cuts[width] for width in dims[:-1])
        self._pieces = [self.empty(structure.tallest * widest) for _ in self.chunks[:BUFFERS]]
        self._input, self._next = self.x, 0
        self._no_rows(dims[-1])

    def _features(self, order: NDArray[np.int64]) -> Tensor:
        """This rank's columns of the features, in processing order."""
        assert self.loader.graph.features is not None
        features = reopened(self.loader.graph.features)
        columns = slice(self._first, self._first + self._cuts[self.shape.dims[0]])
        x = self.empty(len(order), columns.stop - columns.start)
        step = rows_at_once(x.shape[1])
        for start in range(0, len(order), step):
            part = order[start : start + step]
            held = self.loader.tensor(features[part, columns], x.dtype)
            x[start : start + len(part)] = held
        return x

    def _no_rows(self, classes: int) -> None:
        """The empty counterparts of what a dense rank has of its rows."""
        none = slice(0, 0)
        self.row_ids = self.no_ids
        self.labels, self.masks = self.loader.labels(none), self.loader.masks(none)
        self._logits = self.empty(0, classes)

    def _adjacency(self, order: NDArray[np.int64]) -> None:
        """Rows of the adjacency and of its transpose in processing order, chunk by chunk."""
        graph, tensor, dtype = self.loader.graph, self.loader.tensor, self.loader.dtype
        as_destination, as_source = vertex_scales(graph, self.shape.model)
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        rows = np.repeat(place, graph.in_degrees())
        columns = place[np.asarray(graph.indices)]
        to, back = tensor(as_destination[order], dtype), None
        if as_source is not None:
            back = tensor(as_source[order], dtype)
            loops = np.arange(len(order))
            rows, columns = np.concatenate([rows, loops]), np.concatenate([columns, loops])
        # The scale of the sources, forward and backward.
        self._scales = {Phase.FORWARD: back, Phase.BACKWARD: to}
        self._rows = {
            Phase.FORWARD: self._chunked(rows, columns, to),
            Phase.BACKWARD: self._chunked(columns, rows, back),
        }

    def _chunked(
        self, rows: NDArray[np.int64], columns: NDArray[np.int64], scale: Tensor | None
    ) -> list[Rows]:
        by_row = np.lexsort((columns, rows))
        indices = columns[by_row].astype(np.int32)
        counts = np.bincount(rows, minlength=self.structure.num_rows)
        indptr = np.concatenate([[0], np.cumsum(counts)])
        tensor, found = self.loader.tensor, []
        for chunk in self.chunks:
            a, b = self.structure.starts[chunk : chunk + 2]
            pointers, entries = indptr[a : b + 1], indices[indptr[a] : indptr[b]]
            own = None if scale is None else scale[a:b]
            found.append(Rows(tensor(pointers - pointers[0]), tensor(entries), own))
        return found

    # -- passes ----------------------------------------------------------------------------------

    def forward(self, counters: Counters, phase: Phase, *, turns: bool) -> Tensor:
        """Aggregate every layer; what returns is the next layer's input."""
        dims, last = self.shape.dims, self.shape.num_layers
        self._input, self._next = self.x, 0
        if counters is not None and self._dropped is not None:
            assert self._ids is not None
            self._input = self.drop_input(self._dropped, counters, phase, self._ids, self._first)
        order = self.structure.forward
        for layer in range(1, last):
            returns = self._returns(phase, layer, dims[layer], order)
            self._aggregate(phase, layer, dims[layer - 1], order, returns)
        # The dense ranks go on to the loss, and return the gradients of this layer's products.
        turned = None
        if turns and last > 1:
            turned = self._returns(Phase.BACKWARD, last, dims[last - 1], order)
        self._aggregate(phase, last, dims[last - 1], order, turned)
        return self._logits

    def backward(self) -> None:
        """Aggregate the gradients that returned, last layer first."""
        dims, order, phase = self.shape.dims, self.structure.backward, Phase.BACKWARD
        for layer in range(self.shape.num_layers - 1, 0, -1):
            above = layer > 1
            returns = self._returns(phase, layer, dims[layer - 1], order) if above else None
            self._aggregate(phase, layer, dims[layer], order, returns)

    def _aggregate(
        self, phase: Phase, layer: int, width: int, order: Sequence[int], returns: Returns | None
    ) -> None:
        """Multiply and hand over every chunk; `returns` are the next product's input."""
        cut = self._cuts[width]
        handed: list[Pending] = []
        if returns is not None and self.waits_in_thread:
            returns.join(len(order))
        for place, chunk in enumerate(order):
            if place >= BUFFERS:
                handed[place - BUFFERS].wait()
            rows = self.structure.rows(chunk)
            out_nf = self._pieces[place % BUFFERS][: rows * cut].view(rows, cut)
            if cut:
                self._product(phase, layer, chunk, out_nf)
            splits = [rows * cut for rows in self.dealt[chunk]]
            sent = out_nf.view(-1), self.no_ranks[: self.structure.sparse_ranks] + splits
            name = f"{phase}/{layer}/hand/{chunk}"
            handed.append(self.transfer(name, phase, layer, lane=Lane.COMM, sent=sent))
            if returns is not None:
                returns.join(place + 1 - BUFFERS)
        if returns is not None:
            returns.join(len(order))
        for pending in handed:
            pending.wait()
        if returns is not None:
            self._input = returns.rows()

    def _product(self, phase: Phase, layer: int, chunk: int, out_nf: Tensor) -> None:
        way = Phase.BACKWARD if phase is Phase.BACKWARD else Phase.FORWARD
        part, x_Nf = self._rows[way][chunk], self._input
        done = work.spmm(
            rows=part.indptr.numel() - 1,
            nonzeros=part.indices.numel(),
            width=x_Nf.shape[1],
            source_rows=len(x_Nf),
            element_bytes=x_Nf.element_size(),
        )
        with self.step(f"{phase}/{layer}/spmm/{chunk}", done, phase, layer):
            self.kernels.spmm(
                part.indptr,
                part.indices,
                x_Nf,
                out_nf,
                row_scale=part.row_scale,
                col_scale=self._scales[way],
            )

    def _returns(self, phase: Phase, layer: int, width: int, order: Sequence[int]) -> Returns:
        """The returns of a layer, into the buffer that no product reads."""
        flat = self._columns[self._next]
        self._next = (self._next + 1) % len(self._columns)
        cut = self._cuts[width]
        x_Nf = flat[: self.structure.num_rows * cut].view(self.structure.num_rows, cut)
        return Returns(self, phase, layer, order, x_Nf)


class Returns:
    """Returns of one layer, joined in the order of the chunks; they fill `rows` from all ranks."""

    def __init__(
        self, rank: SparseRank, phase: Phase, layer: int, order: Sequence[int], x_Nf: Tensor
    ) -> None:
        self._rank, self._phase, self._layer, self._x = rank, phase, layer, x_Nf
        self._left = deque(order)
        self._joined: list[Pending] = []

    def join(self, count: int) -> None:
        """Post returns until this many are posted."""
        rank, starts = self._rank, self._rank.structure.starts
        while self._left and len(self._joined) < count:
            chunk = self._left.popleft()
            rows_nf = self._x[starts[chunk] : starts[chunk + 1]]
            splits = [rows * rows_nf.shape[1] for rows in rank.dealt[chunk]]
            received = rows_nf.view(-1), rank.no_ranks[: rank.structure.sparse_ranks] + splits
            name, place = f"{self._phase}/{self._layer}/return/{chunk}", Lane.BACKGROUND
            self._joined.append(
                rank.transfer(name, self._phase, self._layer, lane=place, received=received)
            )

    def rows(self) -> Tensor:
        """Wait for all rows."""
        for pending in self._joined:
            pending.wait()
        return self._x
