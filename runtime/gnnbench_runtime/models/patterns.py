"""Sparse patterns of one layer on one rank, as tensors that move to a device together.

Legend: n rows, u source rows (own and halo, or a block's inputs), E entries.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnnbench.data.halo import transpose, with_self_loops


@dataclass(slots=True, kw_only=True)
class Pattern:
    """Sparse pattern of one layer on one rank: n rows over u source rows."""

    rows: int
    source_rows: int

    def to(self, device: torch.device) -> Self:
        """Return the pattern on a device."""
        tensors: dict[str, Any] = {k: v.to(device) for k, v in self._tensors().items()}
        split = getattr(self, "split", None)
        if split is not None:
            tensors["split"] = split.to(device)
        return dataclasses.replace(self, **tensors)

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(t.numel() * t.element_size() for t in self._tensors().values())

    def _tensors(self) -> dict[str, Tensor]:
        held = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: value for name, value in held.items() if isinstance(value, Tensor)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The entries of an aggregation, separated by source: own rows, or halo rows.

    Shapes: own indptr [n+1], columns in 0..n-1; halo indptr [n+1], columns in 0..u-n-1; both
    transposed, with rows of the same ranges.
    """

    own: tuple[Tensor, Tensor]
    halo: tuple[Tensor, Tensor]
    own_t: tuple[Tensor, Tensor]
    halo_t: tuple[Tensor, Tensor]

    def to(self, device: torch.device) -> Split:
        """Return the halves on a device."""
        halves = {
            spec.name: tuple(tensor.to(device) for tensor in getattr(self, spec.name))
            for spec in dataclasses.fields(self)
        }
        return Split(**halves)

    @classmethod
    def of(
        cls, indptr: Tensor, indices: Tensor, indptr_t: Tensor, indices_t: Tensor, rows: int
    ) -> Split:
        """Split a pattern in host memory; neighbours keep their order in both halves."""
        local = indices < rows
        counts = torch.zeros(indices.numel() + 1, dtype=torch.int64, device=indices.device)
        torch.cumsum(local, 0, out=counts[1:])
        own_indptr = counts[indptr]
        border = int(indptr_t[rows])
        return cls(
            own=(own_indptr, indices[local]),
            halo=(indptr - own_indptr, indices[~local] - rows),
            own_t=(indptr_t[: rows + 1], indices_t[:border]),
            halo_t=(indptr_t[rows:] - border, indices_t[border:]),
        )


@dataclass(slots=True, kw_only=True)
class Aggregation(Pattern):
    """The normalised adjacency of one layer on one rank, and its transpose.

    Forward: out[r] = row_scale[r] sum_e edge_scale[e] col_scale[c_e] x[c_e] + self_scale[r] x[r].
    Shapes: indptr int64 [n+1], indices int32 [nnz] in 0..u-1; transposed arrays [u+1], [nnz];
    row_scale, self_scale [n]; col_scale [u]; edge_scale [nnz], and in the order of the transposed
    entries. Absent scales are ones (self_scale: no self term). With a `split`, the four arrays may
    be absent, and exchanges overlap.
    """

    indptr: Tensor | None
    indices: Tensor | None
    indptr_t: Tensor | None
    indices_t: Tensor | None
    row_scale: Tensor | None
    col_scale: Tensor | None
    self_scale: Tensor | None
    edge_scale: Tensor | None = None
    edge_scale_t: Tensor | None = None
    split: Split | None = None

    @property
    def nonzeros(self) -> int:
        assert self.indices is not None
        return self.indices.numel()

    def divided(self) -> Aggregation:
        """Return the same sums with own and halo sources apart, the whole pattern given up.

        The pattern lies in host memory: the split depends on its values.
        """
        assert self.indptr is not None and self.indices is not None
        assert self.indptr_t is not None and self.indices_t is not None
        whole = (self.indptr, self.indices, self.indptr_t, self.indices_t)
        split = Split.of(*whole, rows=self.rows)
        return dataclasses.replace(
            self, split=split, indptr=None, indices=None, indptr_t=None, indices_t=None
        )


@dataclass(slots=True, kw_only=True)
class Attention(Pattern):
    """Attention pattern of one layer on one rank, with self loops, in both directions.

    Shapes: indptr int64 [n+1], indices int32 [E] in 0..u-1; transposed [u+1], [E]; `edges_t` int64
    [E] is the position of each transposed entry among the others; `edge_ids` int64 [E] identify
    entries on the whole graph, equal on every rank (absent without dropout).
    """

    indptr: Tensor
    indices: Tensor
    indptr_t: Tensor
    indices_t: Tensor
    edges_t: Tensor
    edge_ids: Tensor | None

    @classmethod
    def of(
        cls,
        indptr: NDArray[np.int64],
        indices: NDArray[np.int32],
        sources: NDArray[np.int64],
        num_nodes: int,
        *,
        with_ids: bool,
    ) -> Attention:
        """Add self loops to a pattern whose columns stand for the vertices `sources` [u].

        Its rows are the first of them. An entry's id is destination * num_nodes + source.
        """
        rows = len(indptr) - 1
        looped_indptr, looped = with_self_loops(indptr, indices)
        turned = transpose(looped_indptr, looped, len(sources))
        ids = None
        if with_ids:
            targets = np.repeat(sources[:rows], np.diff(looped_indptr))
            ids = torch.from_numpy(targets * num_nodes + sources[looped])
        return cls(
            indptr=torch.from_numpy(looped_indptr),
            indices=torch.from_numpy(looped),
            indptr_t=torch.from_numpy(turned.indptr),
            indices_t=torch.from_numpy(turned.indices),
            edges_t=torch.from_numpy(turned.edges),
            edge_ids=ids,
            rows=rows,
            source_rows=len(sources),
        )

    @property
    def nonzeros(self) -> int:
        return self.indices.numel()
