"""A rank of `mixed-accelerators` that aggregates its slice of the columns, for all rows.

Legend: N rows, n rows of a chunk, f a slice of columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gnnbench.approaches.whole_graph.row_pipeline import BUFFERS, column_buffers
from gnnbench.data.graph import Graph
from gnnbench.data.keys import fold
from gnnbench.steps import Kind, Lane, Phase
from gnnbench_runtime.comm import Pending
from gnnbench_runtime.models.scales import vertex_scales

if TYPE_CHECKING:
    from gnnbench_runtime.approaches.whole_graph.mixed_accelerators import MixedTrainer


class _Rows:
    """CSR of a chunk's rows, with loops where the model adds them, and the scale of each row."""

    __slots__ = ("indices", "indptr", "row_scale")

    def __init__(self, indptr: Tensor, indices: Tensor, row_scale: Tensor | None) -> None:
        self.indptr, self.indices, self.row_scale = indptr, indices, row_scale


class SparseRank:
    """Multiplies chunk after chunk into one of two buffers, and hands them over meanwhile."""

    def __init__(self, trainer: MixedTrainer, graph: Graph) -> None:
        self.trainer, self.structure = trainer, trainer.structure
        self.rank, dims, dtype = trainer.context.rank, trainer.shape.dims, trainer.dtype
        order = self.structure.row_order
        assert order is not None and graph.features is not None
        self._cuts = {width: self.structure.columns(width) for width in dims}
        self._first = sum(self._cuts[dims[0]][: self.rank])
        end = self._first + self._slice(dims[0])
        self.x = _tensor(np.asarray(graph.features)[:, self._first : end][order], dtype)
        drops = trainer.shape.input_dropout > 0
        self._dropped = torch.empty_like(self.x) if drops else None
        self._ids = _tensor(order) if drops else None
        self._adjacency(graph, order)
        rows, chunks = self.structure.num_rows, range(len(self.structure.forward))
        inner = max((self._slice(width) for width in dims[1:-1]), default=0)
        self._columns = [
            torch.empty(rows * inner, dtype=dtype) for _ in range(column_buffers(len(dims) - 1))
        ]
        widest = max(self._slice(width) for width in dims[:-1])
        self._pieces = [
            torch.empty(self.structure.tallest * widest, dtype=dtype) for _ in chunks[:BUFFERS]
        ]
        self._dealt = [self.structure.dealt(chunk) for chunk in chunks]
        self._nobody = [0] * self.structure.world_size
        self._nothing = torch.empty(0, dtype=dtype)
        self._held, self._next = self.x, 0
        self.row_ids = torch.empty(0, dtype=torch.int64)
        self._no_rows(graph, dims[-1])

    def _no_rows(self, graph: Graph, classes: int) -> None:
        """What a dense rank has of its rows: none here."""
        dtype = self.trainer.dtype
        self._logits = torch.empty((0, classes), dtype=dtype)
        multi = np.asarray(graph.labels).dtype.kind == "f"
        self.labels = self._logits if multi else torch.empty(0, dtype=torch.int64)
        self.masks = {name: torch.empty(0, dtype=torch.bool) for name in self.trainer.mask_names}

    def _adjacency(self, graph: Graph, order: np.ndarray) -> None:
        """Rows of the adjacency and of its transpose in processing numbering, chunk by chunk."""
        as_destination, as_source = vertex_scales(graph, self.trainer.model)
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        rows = np.repeat(place, graph.in_degrees())
        columns = place[np.asarray(graph.indices)]
        dtype = self.trainer.dtype
        to = _tensor(as_destination[order], dtype)
        back = None
        if as_source is not None:
            back = _tensor(as_source[order], dtype)
            loops = np.arange(len(order))
            rows, columns = np.concatenate([rows, loops]), np.concatenate([columns, loops])
        # The scale of the sources, forward and backward.
        self._scales = (back, to)
        self._forward_rows = self._chunked(rows, columns, to)
        self._backward_rows = self._chunked(columns, rows, back)

    def _chunked(self, rows: np.ndarray, columns: np.ndarray, scale: Tensor | None) -> list[_Rows]:
        by_row = np.lexsort((columns, rows))
        indices = columns[by_row].astype(np.int32)
        counts = np.bincount(rows, minlength=self.structure.num_rows)
        indptr = np.concatenate([[0], np.cumsum(counts)])
        found = []
        for chunk in range(len(self.structure.forward)):
            a, b = self.structure.starts[chunk : chunk + 2]
            found.append(
                _Rows(
                    _tensor(indptr[a : b + 1] - indptr[a]),
                    _tensor(indices[indptr[a] : indptr[b]]),
                    None if scale is None else scale[a:b],
                )
            )
        return found

    # -- passes ----------------------------------------------------------------------------------

    def forward(self, counters: tuple[int, ...] | None, phase: Phase) -> Tensor:
        """Aggregate every layer; what comes back is the next layer's input."""
        dims, layers = self.trainer.shape.dims, self.trainer.shape.num_layers
        order, self._next = self.structure.forward, 0
        self._held = self._input(counters, phase)
        for layer in range(1, layers + 1):
            back, width = phase, dims[layer]
            if layer == layers:
                # The dense ranks turn round without a word, and their first gradients come back.
                back, width = Phase.BACKWARD, dims[layer - 1]
            more = layer < layers or (phase is Phase.FORWARD and layers > 1)
            returns = self._receive(back, layer, width, order) if more else []
            self._aggregate(phase, layer, dims[layer - 1], order)
            self._finish(returns, width)
        return self._logits

    def backward(self) -> None:
        """Aggregate the gradients that came back, last layer first."""
        dims, order = self.trainer.shape.dims, self.structure.backward
        for layer in range(self.trainer.shape.num_layers - 1, 0, -1):
            width, phase = dims[layer - 1], Phase.BACKWARD
            returns = self._receive(phase, layer, width, order) if layer > 1 else []
            self._aggregate(phase, layer, dims[layer], order)
            self._finish(returns, width)

    def _input(self, counters: tuple[int, ...] | None, phase: Phase) -> Tensor:
        """This rank's columns of the features, in training behind their dropout."""
        rate = self.trainer.shape.input_dropout
        if counters is None or self._dropped is None:
            return self.x
        with self.trainer.elementwise(f"{phase}/0/dropout", "dropout", phase, 0, self.x, 2):
            self.trainer.context.kernels.dropout(
                self.x, self._dropped, rate, fold(*counters, 0), self._ids, self._first
            )
        return self._dropped

    def _slice(self, width: int) -> int:
        return self._cuts[width][self.rank]

    def _aggregate(self, phase: Phase, layer: int, width: int, order: Sequence[int]) -> None:
        """Multiply every chunk; return when all have been handed over."""
        cut, trainer = self._slice(width), self.trainer
        handed: list[Pending] = []
        for place, chunk in enumerate(order):
            if place >= BUFFERS:
                handed[place - BUFFERS].wait()
            n = self.structure.rows(chunk)
            out_nf = self._pieces[place % BUFFERS][: n * cut].view(n, cut)
            if cut:
                self._product(phase, layer, chunk, out_nf)
            splits = [rows * cut for rows in self._dealt[chunk]]
            handed.append(
                trainer.context.comm.all_to_all_async(
                    self._nothing, out_nf.view(-1), self._nobody,
                    self._nobody[: self.structure.sparse_ranks] + splits,
                    f"{phase}/{layer}/hand/{chunk}", phase, layer=layer, lane=Lane.COMM,
                )
            )  # fmt: skip
        for pending in handed:
            pending.wait()

    def _product(self, phase: Phase, layer: int, chunk: int, out_nf: Tensor) -> None:
        backward = phase is Phase.BACKWARD
        part = (self._backward_rows if backward else self._forward_rows)[chunk]
        (n, cut), s, nnz = out_nf.shape, out_nf.element_size(), part.indices.numel()
        size = 8 * (n + 1) + 4 * nnz + (min(self.structure.num_rows, nnz) + n) * cut * s
        name = f"{phase}/{layer}/spmm/{chunk}"
        with self.trainer.step(name, Kind.SPMM, "spmm", phase, layer, size, 2 * nnz * cut):
            self.trainer.context.kernels.spmm(
                part.indptr, part.indices, self._held, out_nf, row_scale=part.row_scale,
                col_scale=self._scales[backward],
            )  # fmt: skip

    def _receive(
        self, phase: Phase, layer: int, width: int, order: Sequence[int]
    ) -> list[tuple[Pending, Tensor]]:
        """Join all returns of a layer ahead, into the buffer that no product reads."""
        cut, held, found = self._slice(width), self.structure, []
        flat = self._columns[self._next]
        self._next = (self._next + 1) % len(self._columns)
        for chunk in order:
            splits = [rows * cut for rows in self._dealt[chunk]]
            pending = self.trainer.context.comm.all_to_all_async(
                flat[held.starts[chunk] * cut : held.starts[chunk + 1] * cut], self._nothing,
                self._nobody[: held.sparse_ranks] + splits, self._nobody,
                f"{phase}/{layer}/return/{chunk}", phase, layer=layer, lane=Lane.BACKGROUND,
            )  # fmt: skip
            found.append((pending, flat))
        return found

    def _finish(self, returns: list[tuple[Pending, Tensor]], width: int) -> None:
        """Wait for all rows of the next product's input."""
        rows, cut = self.structure.num_rows, self._slice(width)
        for pending, flat in returns:
            pending.wait()
            self._held = flat[: rows * cut].view(rows, cut)


def _tensor(array: np.ndarray, dtype: torch.dtype | None = None) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(dtype)
