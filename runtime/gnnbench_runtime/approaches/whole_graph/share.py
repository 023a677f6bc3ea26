"""A rank's share of a partitioned graph: pattern, features, labels, splits."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnnbench.approaches.writing.shape import StackShape
from gnnbench.data.graph import Graph
from gnnbench.data.halo import RankHalo
from gnnbench.data.mapped import forget_mapped_pages
from gnnbench.models.scales import vertex_scales
from gnnbench_runtime.models.data import reopened
from gnnbench_runtime.models.patterns import Aggregation, Attention
from gnnbench_runtime.protocol import RankContext

_BYTES_AT_ONCE = 1 << 22
"""Features are read in parts of this size, so that no second copy of all of them ever exists."""


def rows_at_once(width: int) -> int:
    """Number of feature rows, `width` elements each, that are read in one part."""
    return max(_BYTES_AT_ONCE // (8 * max(width, 1)), 1)


class Loader:
    """Moves arrays of a graph to the device of a rank, in the run's floating-point type."""

    def __init__(self, context: RankContext, graph: Graph, shape: StackShape) -> None:
        self.context, self.graph, self.shape = context, graph, shape
        self.dtype = context.dtype

    def tensor(self, array: NDArray[Any], dtype: torch.dtype | None = None) -> Tensor:
        """An array on the device."""
        return self.host_tensor(array, dtype).to(self.context.device)

    @staticmethod
    def host_tensor(array: NDArray[Any], dtype: torch.dtype | None = None) -> Tensor:
        """An array in host memory, of another type where `dtype` asks for one."""
        found = torch.from_numpy(np.ascontiguousarray(array))
        return found if dtype is None else found.to(dtype)

    def labels(self, own: NDArray[np.int64] | slice) -> Tensor:
        """Labels of some vertices: class numbers, or one float per class of a multi-label task."""
        assert self.graph.labels is not None
        labels = np.asarray(self.graph.labels)[own]
        return self.tensor(labels, self.dtype if labels.dtype.kind == "f" else torch.int64)

    def masks(self, own: NDArray[np.int64] | slice) -> dict[str, Tensor]:
        """Which of some vertices belong to each split."""
        graph = self.graph
        masks = {"train": graph.train_mask, "val": graph.val_mask, "test": graph.test_mask}
        return {
            name: self.tensor(np.asarray(mask)[own])
            for name, mask in masks.items()
            if mask is not None
        }

    def features(self, own: NDArray[np.int64], rows: int) -> Tensor:
        """Features of some vertices, in a tensor of `rows` rows, the last ones zero."""
        assert self.graph.features is not None
        device, width = self.context.device, self.graph.num_features
        x = torch.zeros((rows, width), device=device, dtype=self.dtype)
        # A loader lives as long as its trainer, and pages of its own mapping would with it.
        features = reopened(self.graph.features)
        step = rows_at_once(width)
        for start in range(0, len(own), step):
            part = own[start : start + step]
            x[start : start + len(part)] = self.tensor(features[part], self.dtype)
            # Else the pages of the file would stay resident beside the rows.
            forget_mapped_pages([features])
        return x

    def block(self, rows: slice, columns: slice) -> Tensor:
        """A block of the features, read in slices of rows."""
        assert self.graph.features is not None
        features = reopened(self.graph.features)
        count, width = rows.stop - rows.start, columns.stop - columns.start
        held = torch.empty((count, width), dtype=self.dtype, device=self.context.device)
        step = rows_at_once(width)
        for start in range(0, count, step):
            end = min(start + step, count)
            part = features[rows.start + start : rows.start + end, columns]
            held[start:end] = self.tensor(part, self.dtype)
            forget_mapped_pages([features])
        return held

    # -- patterns --------------------------------------------------------------------------------

    def pattern(
        self, local: RankHalo, *, overlap: bool = False, turned: bool = True
    ) -> Aggregation | Attention:
        """What the layers sum over: the local entries, with scales or to attend to.

        An aggregation that is not `turned` has no way back.
        """
        if self.shape.model.attention:
            return self.attention(local).to(self.context.device)
        found = self._aggregation(local, turned=turned)
        return (found.divided() if overlap else found).to(self.context.device)

    def attention(self, local: RankHalo) -> Attention:
        """Who attends to whom among the local entries, in host memory."""
        return Attention.of(
            local.csr.indptr,
            local.csr.indices,
            np.concatenate([local.owned, local.halo]),
            self.graph.num_nodes,
            with_ids=self.shape.dropout > 0,
        )

    def aggregation(self, local: RankHalo) -> Aggregation:
        """The local entries of the normalised adjacency."""
        return self._aggregation(local).to(self.context.device)

    def _aggregation(self, local: RankHalo, *, turned: bool = True) -> Aggregation:
        """The same in host memory."""
        as_destination, as_source = vertex_scales(self.graph, self.shape.model)
        own, every = local.owned, np.concatenate([local.owned, local.halo])
        self_scale = None if as_source is None else as_destination[own] * as_source[own]
        return Aggregation(
            indptr=self.host_tensor(local.csr.indptr),
            indices=self.host_tensor(local.csr.indices),
            indptr_t=self.host_tensor(local.transposed.indptr) if turned else None,
            indices_t=self.host_tensor(local.transposed.indices) if turned else None,
            rows=local.num_owned,
            source_rows=len(every),
            row_scale=self.host_tensor(as_destination[own], self.dtype),
            col_scale=None if as_source is None else self.host_tensor(as_source[every], self.dtype),
            self_scale=None if self_scale is None else self.host_tensor(self_scale, self.dtype),
        )

    def precomputed(self, local: RankHalo, aggregation: Aggregation) -> Tensor:
        """Aggregate the features of own and halo rows, once and without communication.

        Halo rows are read from the graph's file like own rows, a slice of columns at a time, so
        that the features of the halo are never held as a whole.
        """
        graph, slice_width = self.graph, 64
        assert graph.features is not None
        every = np.concatenate([local.owned, local.halo])
        device, width, rows = self.context.device, graph.num_features, local.num_owned
        held = torch.empty((rows, width), device=device, dtype=self.dtype)
        for start in range(0, width, slice_width):
            columns = np.ascontiguousarray(graph.features[:, start : start + slice_width][every])
            x = self.tensor(columns, self.dtype)
            out = torch.empty((rows, x.shape[1]), device=device, dtype=self.dtype)
            self.context.kernels.spmm(
                aggregation.indptr,
                aggregation.indices,
                x,
                out,
                row_scale=aggregation.row_scale,
                col_scale=aggregation.col_scale,
                self_scale=aggregation.self_scale,
            )
            held[:, start : start + slice_width] = out
        return held
