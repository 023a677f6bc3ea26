"""Compiled loops of attention: scores per head, products along edges, ELU.

As in `loops`: serial, without the interpreter lock, over a range. Columns of a row are those of its
heads, one head after another.

Loops over columns begin at column 0 of a slice: where the index could be negative, as far as the
compiler knows, it does not vectorise. Products of rows may be summed in another order, which
depends on their width only, so that equal input gives equal bits.

Legend: n rows, F columns, E entries, H heads, D width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from numba import njit

from gnnbench_runtime.kernels.loops import _compiled

_SUMS = {"contract", "reassoc", "nsz"}


def _summing(function: Callable[..., Any]) -> Callable[..., Any]:
    return njit(cache=True, nogil=True, error_model="numpy", fastmath=_SUMS)(function)


@njit(inline="always", error_model="numpy", fastmath=_SUMS)
def _dot(x: Any, y: Any) -> Any:
    """Sum of products; 0 of nothing."""
    total = x.dtype.type(0)
    for j in range(len(x)):
        total += x[j] * y[j]
    return total


@_compiled
def elu(y_nF: Any, out_nF: Any, start: int, stop: int) -> None:
    """Compute y above zero and exp(y) - 1 below; NaN passes through."""
    zero = y_nF.dtype.type(0)
    for r in range(start, stop):
        for f in range(y_nF.shape[1]):
            value = y_nF[r, f]
            out_nF[r, f] = math.expm1(value) if value < zero else value


@_compiled
def elu_backward(out_nF: Any, scale: float, grad_nF: Any, start: int, stop: int) -> None:
    """Multiply by ELU's slope: 1, or output + 1 below zero, the output `scale` times too large."""
    zero, one = out_nF.dtype.type(0), out_nF.dtype.type(1)
    back = out_nF.dtype.type(1 / scale)
    for r in range(start, stop):
        for f in range(out_nF.shape[1]):
            value = out_nF[r, f]
            if value < zero:
                grad_nF[r, f] *= value * back + one


@_summing
def head_scores(x_nF: Any, vectors_HD: Any, out_nH: Any, start: int, stop: int) -> None:
    """Dot each head of a row with the head's vector."""
    heads, width = vectors_HD.shape
    for r in range(start, stop):
        for h in range(heads):
            out_nH[r, h] = _dot(x_nF[r, h * width : (h + 1) * width], vectors_HD[h])


@_compiled
def head_scores_input(vectors_HD: Any, grad_nH: Any, x_grad_nF: Any, start: int, stop: int) -> None:
    """Add the gradient of the rows to x_grad."""
    heads, width = vectors_HD.shape
    for r in range(start, stop):
        for h in range(heads):
            share = grad_nH[r, h]
            for d in range(width):
                x_grad_nF[r, h * width + d] += share * vectors_HD[h, d]


@_compiled
def head_scores_vector(x_nF: Any, grad_nH: Any, out_HD: Any, start: int, stop: int) -> None:
    """Gradient of the vectors of the heads start .. stop-1."""
    width = out_HD.shape[1]
    for h in range(start, stop):
        for d in range(width):
            out_HD[h, d] = 0
    for r in range(len(x_nF)):
        for h in range(start, stop):
            share, out = grad_nH[r, h], out_HD[h]
            x = x_nF[r, h * width : (h + 1) * width]
            for d in range(len(x)):
                out[d] += share * x[d]


@_compiled
def sddmm_add(
    indptr: Any,
    indices: Any,
    to_RH: Any,
    from_SH: Any,
    slope: float,
    out_EH: Any,
    start: int,
    stop: int,
) -> None:
    """Leaky ReLU of the sum of both ends' values, per entry and head."""
    steep, zero = out_EH.dtype.type(slope), out_EH.dtype.type(0)
    for r in range(start, stop):
        for e in range(indptr[r], indptr[r + 1]):
            c = indices[e]
            for h in range(to_RH.shape[1]):
                value = to_RH[r, h] + from_SH[c, h]
                out_EH[e, h] = value * steep if value < zero else value


@_summing
def sddmm_dot(
    indptr: Any,
    indices: Any,
    g_RF: Any,
    x_SF: Any,
    width: int,
    offset: int,
    out_EH: Any,
    start: int,
    stop: int,
) -> None:
    """Dot both ends' rows, per entry and head; column f belongs to head (offset + f) // width."""
    heads, columns = out_EH.shape[1], g_RF.shape[1]
    for r in range(start, stop):
        for e in range(indptr[r], indptr[r + 1]):
            c = indices[e]
            for h in range(heads):
                first, last = max(h * width - offset, 0), min((h + 1) * width - offset, columns)
                out_EH[e, h] = _dot(g_RF[r, first:last], x_SF[c, first:last])


@_compiled
def spmm_heads(
    indptr: Any,
    indices: Any,
    weights_EH: Any,
    x_SF: Any,
    out_RF: Any,
    entries: Any,
    width: int,
    offset: int,
    start: int,
    stop: int,
) -> None:
    """Sum source rows with one weight per entry and head; `entries` may name the weights' rows.

    Column f belongs to head (offset + f) // width.
    """
    heads, columns = weights_EH.shape[1], x_SF.shape[1]
    for r in range(start, stop):
        out_RF[r, :] = 0
        for e in range(indptr[r], indptr[r + 1]):
            c = indices[e]
            at = entries[e] if len(entries) else e
            for h in range(heads):
                weight = weights_EH[at, h]
                first, last = max(h * width - offset, 0), min((h + 1) * width - offset, columns)
                out, x = out_RF[r, first:last], x_SF[c, first:last]
                for f in range(len(out)):
                    out[f] += weight * x[f]


@_compiled
def leaky_backward(score_EH: Any, slope: float, grad_EH: Any, start: int, stop: int) -> None:
    """Multiply by the slope where the score is negative."""
    steep, zero = grad_EH.dtype.type(slope), grad_EH.dtype.type(0)
    for e in range(start, stop):
        for h in range(grad_EH.shape[1]):
            if score_EH[e, h] < zero:
                grad_EH[e, h] *= steep


@_compiled
def segment_sum_of(
    indptr: Any, entries: Any, values_EH: Any, out_RH: Any, start: int, stop: int
) -> None:
    """Sum each row's entries, which lie at `entries` among the values; 0 for an empty row."""
    for r in range(start, stop):
        out_RH[r, :] = 0
        for e in range(indptr[r], indptr[r + 1]):
            at = entries[e]
            for h in range(values_EH.shape[1]):
                out_RH[r, h] += values_EH[at, h]
