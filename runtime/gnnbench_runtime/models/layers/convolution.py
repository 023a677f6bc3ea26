"""A convolution layer: a fixed weighted sum over neighbours, and a dense product.

The steps are those of `gnnbench.approaches.writing.layers.convolution`.

Legend: n rows, u source rows (own and halo, or a block's inputs), F input width, H output width.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gnnbench.plan import Phase
from gnnbench_runtime.models.layers.pattern import Pattern

if TYPE_CHECKING:
    from gnnbench_runtime.models.stack import Stack


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The entries of an aggregation apart by where their sources lie: own rows, or the halo's.

    Shapes: own indptr [n+1], columns in 0..n-1; halo indptr [n+1], columns in 0..u-n-1; both
    transposed, with rows of the same ranges.
    """

    own: tuple[Tensor, Tensor]
    halo: tuple[Tensor, Tensor]
    own_t: tuple[Tensor, Tensor]
    halo_t: tuple[Tensor, Tensor]

    @classmethod
    def of(
        cls, indptr: Tensor, indices: Tensor, indptr_t: Tensor, indices_t: Tensor, rows: int
    ) -> Split:
        """Split a pattern and its transpose; neighbours keep their order in both halves."""
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

    Forward: out[r] = row_scale[r] * sum_c col_scale[c] * x[c] + self_scale[r] * x[r].
    Shapes: indptr int64 [n+1], indices int32 [nnz] in 0..u-1; transposed arrays [u+1], [nnz];
    row_scale, self_scale [n]; col_scale [u]. Absent scales are ones (self_scale: no self term).
    With a `split`, the four arrays may be absent, and exchanges overlap.
    """

    indptr: Tensor | None
    indices: Tensor | None
    indptr_t: Tensor | None
    indices_t: Tensor | None
    row_scale: Tensor | None
    col_scale: Tensor | None
    self_scale: Tensor | None
    split: Split | None = None

    @property
    def nonzeros(self) -> int:
        assert self.indices is not None
        return self.indices.numel()

    def divided(self) -> Aggregation:
        """Return the same sums with own and halo sources apart, the whole pattern given up."""
        assert self.indptr is not None and self.indices is not None
        assert self.indptr_t is not None and self.indices_t is not None
        whole = (self.indptr, self.indices, self.indptr_t, self.indices_t)
        split = Split.of(*whole, rows=self.rows)
        return dataclasses.replace(
            self, split=split, indptr=None, indices=None, indptr_t=None, indices_t=None
        )


def forward(stack: Stack, layer: int, h_uF: Tensor, phase: Phase) -> Tensor:
    """Return the buffer of the layer's output, its rows filled up to the activation."""
    shape, value, agg = stack.shape, stack.parameters.value, stack.aggregation(layer)
    fan_in, fan_out, n = shape.dims[layer - 1], shape.dims[layer], agg.rows
    weight, bias, where = value[f"weight_{layer}"], value[f"bias_{layer}"], f"{phase}/{layer}"
    out = stack.workspace.get(f"h{layer}", stack._out_rows(layer), fan_out)
    y_nH = out[:n]
    if shape.orders[layer - 1] == "aggregate_first":
        if shape.is_precomputed(layer):
            z_nF = stack.precomputed
            assert z_nF is not None
        else:
            z_nF = stack.workspace.get(f"z{layer}", n, fan_in)
            aggregate(stack, layer, h_uF, z_nF, phase)
        stack._mm(f"{where}/gemm", "gemm_nn_bias", phase, layer, z_nF, weight, y_nH, add=bias)
    else:
        rows = n if stack.exchange is not None else agg.source_rows
        t_uH = stack.workspace.get(f"t{layer}", agg.source_rows, fan_out)
        stack._mm(f"{where}/gemm", "gemm_nn", phase, layer, h_uF[:rows], weight, t_uH[:rows])
        aggregate(stack, layer, t_uH, y_nH, phase)
        with stack._elementwise(f"{where}/bias", "bias", phase, layer, y_nH, 2):
            y_nH.add_(bias)
    if shape.model.self_weight:
        own = value[f"self_weight_{layer}"]
        stack._mm(
            f"{where}/self", "gemm_nn_add", phase, layer, h_uF[:n], own, y_nH, accumulate=True
        )
    return out


def backward(stack: Stack, layer: int, h_uF: Tensor, g_nH: Tensor) -> Tensor | None:
    """Fill the layer's parameter gradients; return that of its input above layer 1."""
    shape, grads, agg = stack.shape, stack.parameters.grad, stack.aggregation(layer)
    value, phase, where = stack.parameters.value, Phase.BACKWARD, f"backward/{layer}"
    fan_in, fan_out, n, u = shape.dims[layer - 1], shape.dims[layer], agg.rows, agg.source_rows
    with stack._elementwise(f"{where}/bias", "column_sum", phase, layer, g_nH, 1):
        torch.sum(g_nH, 0, out=grads[f"bias_{layer}"])
    weight, weight_grad = value[f"weight_{layer}"], grads[f"weight_{layer}"]
    g_uF = None
    if shape.orders[layer - 1] == "aggregate_first":
        z_nF = stack.workspace.get(f"z{layer}", n, fan_in)
        if shape.is_precomputed(layer):
            assert stack.precomputed is not None
            z_nF = stack.precomputed
        stack._mm(f"{where}/weight", "gemm_tn", phase, layer, z_nF.t(), g_nH, weight_grad)
        if layer > 1:
            # Z is not needed again: its buffer takes dZ.
            stack._mm(f"{where}/input", "gemm_nt", phase, layer, g_nH, weight.t(), z_nF)
            g_uF = stack.workspace.get(f"g{layer - 1}", u, fan_in)
            aggregate_backward(stack, layer, z_nF, g_uF)
    else:
        t_uH = stack.workspace.get(f"t{layer}", u, fan_out)
        aggregate_backward(stack, layer, g_nH, t_uH)
        rows = n if stack.exchange is not None else u
        transformed = t_uH[:rows]
        h_t = h_uF[:rows].t()
        stack._mm(f"{where}/weight", "gemm_tn", phase, layer, h_t, transformed, weight_grad)
        if layer > 1:
            g_uF = stack.workspace.get(f"g{layer - 1}", u, fan_in)
            stack._mm(
                f"{where}/input", "gemm_nt", phase, layer, transformed, weight.t(), g_uF[:rows]
            )
    if shape.model.self_weight:
        own, own_grad = value[f"self_weight_{layer}"], grads[f"self_weight_{layer}"]
        stack._mm(f"{where}/self_weight", "gemm_tn", phase, layer, h_uF[:n].t(), g_nH, own_grad)
        if g_uF is not None:
            name = f"{where}/self_input"
            stack._mm(name, "gemm_nt_add", phase, layer, g_nH, own.t(), g_uF[:n], accumulate=True)
    return g_uF


def aggregate(stack: Stack, layer: int, x_uF: Tensor, out_nF: Tensor, phase: Phase) -> None:
    """Fetch the halo's rows, if there are any, and sum up: out = A x."""
    agg, exchange, where = stack.aggregation(layer), stack.exchange, f"{phase}/{layer}"
    n = agg.rows
    if exchange is None or agg.split is None:
        if exchange is not None:
            exchange.forward(x_uF, layer, phase)
        stack._spmm(f"{where}/spmm", phase, layer, agg, x_uF, out_nF, transpose=False)
        return
    arriving = exchange.begin_forward(x_uF, layer, phase)
    own_scale, halo_scale = _halves(agg.col_scale, n)
    (indptr, indices), width = agg.split.own, x_uF.shape[1]
    with stack._sparse(f"{where}/spmm", phase, layer, n, n, indices, width):
        stack.kernels.spmm(
            indptr, indices, x_uF[:n], out_nF,
            row_scale=agg.row_scale, col_scale=own_scale, self_scale=agg.self_scale,
        )  # fmt: skip
    arriving.wait()
    indptr, indices = agg.split.halo
    halo_rows = agg.source_rows - n
    name = f"{where}/spmm_halo"
    with stack._sparse(name, phase, layer, n, halo_rows, indices, width, adds=True):
        stack.kernels.spmm(
            indptr, indices, x_uF[n:], out_nF,
            row_scale=agg.row_scale, col_scale=halo_scale, accumulate=True,
        )  # fmt: skip


def aggregate_backward(stack: Stack, layer: int, g_nF: Tensor, out_uF: Tensor) -> None:
    """Gradient of `aggregate`: out = A^T g, the halo's rows sent home and added there."""
    agg, exchange = stack.aggregation(layer), stack.exchange
    phase, where, n = Phase.BACKWARD, f"backward/{layer}", agg.rows
    if exchange is None or agg.split is None:
        stack._spmm(f"{where}/spmm", phase, layer, agg, g_nF, out_uF, transpose=True)
        if exchange is not None:
            exchange.backward(out_uF, layer)
        return
    own_scale, halo_scale = _halves(agg.col_scale, n)
    (indptr, indices), width = agg.split.halo_t, g_nF.shape[1]
    halo_rows = agg.source_rows - n
    with stack._sparse(f"{where}/spmm_halo", phase, layer, halo_rows, n, indices, width):
        stack.kernels.spmm(
            indptr, indices, g_nF, out_uF[n:], row_scale=halo_scale, col_scale=agg.row_scale
        )
    leaving = exchange.begin_backward(out_uF, layer)
    indptr, indices = agg.split.own_t
    with stack._sparse(f"{where}/spmm", phase, layer, n, n, indices, width):
        stack.kernels.spmm(
            indptr, indices, g_nF, out_uF[:n],
            row_scale=own_scale, col_scale=agg.row_scale, self_scale=agg.self_scale,
        )  # fmt: skip
    leaving.wait()
    exchange.end_backward(out_uF, layer)


def _halves(scale: Tensor | None, rows: int) -> tuple[Tensor | None, Tensor | None]:
    return (None, None) if scale is None else (scale[:rows], scale[rows:])
