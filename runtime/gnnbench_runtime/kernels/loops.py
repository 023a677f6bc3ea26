"""Compiled loops over rows: gather, scatter, dropout, segments, Adam.

Every loop is serial, releases the interpreter lock and takes a range, so that a team of threads can
share it. Absent optional arrays are empty. All arrays are C-contiguous.

Legend: n rows, F columns, E entries, H heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from gnnbench.data import keys

_mix64: Callable[[Any], Any] = njit(inline="always")(keys.mix64)
_GOLDEN = np.uint64(keys.GOLDEN)


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return njit(cache=True, nogil=True, error_model="numpy")(function)


@_compiled
def gather_rows(x_NF: Any, ids_n: Any, out_nF: Any, start: int, stop: int) -> None:
    """Copy rows: out[i] = x[ids[i]]."""
    width = x_NF.shape[1]
    for i in range(start, stop):
        row = ids_n[i]
        for f in range(width):
            out_nF[i, f] = x_NF[row, f]


@_compiled
def scatter_add_rows(out_NF: Any, ids_n: Any, x_nF: Any, start: int, stop: int) -> None:
    """Add the columns start .. stop-1 of every row; ids may repeat, so ranges are of columns."""
    # Slices, because of an index that begins at `start` the compiler does not know that it is not
    # negative, and does not vectorise.
    for i in range(len(ids_n)):
        out, x = out_NF[ids_n[i], start:stop], x_nF[i, start:stop]
        for f in range(len(x)):
            out[f] += x[f]


@njit(inline="always")
def _hash_row(key: Any, row_ids: Any, r: int, first_group: int, hashes: Any) -> None:
    """Fill one 64-bit hash per four columns; each holds four 16-bit draws, lowest bits first."""
    row = np.uint64(row_ids[r] if len(row_ids) else r)
    row_key = _mix64((key ^ row) + _GOLDEN)
    for group in range(len(hashes)):
        hashes[group] = _mix64((row_key ^ np.uint64(first_group + group)) + _GOLDEN)


@_compiled
def dropout(
    x_nF: Any,
    out_nF: Any,
    threshold: int,
    scale: float,
    relu: bool,
    key: Any,
    row_ids: Any,
    first_column: int,
    start: int,
    stop: int,
) -> None:
    """Zero entries whose draw is below the threshold (of 65536), scale the rest; ReLU if asked.

    NaN passes through, so that a broken run shows.
    """
    width = x_nF.shape[1]
    first_group, skipped = first_column // 4, first_column % 4
    hashes = np.empty((skipped + width + 3) // 4, np.uint64)
    draws = hashes.view(np.uint16)[skipped:]
    zero = x_nF.dtype.type(0)
    factor = x_nF.dtype.type(scale)
    for r in range(start, stop):
        if threshold:
            _hash_row(key, row_ids, r, first_group, hashes)
            if relu:
                for f in range(width):
                    value = x_nF[r, f]
                    value = zero if value <= zero else value * factor
                    out_nF[r, f] = value if draws[f] >= threshold else zero
            else:
                for f in range(width):
                    value = x_nF[r, f] * factor
                    out_nF[r, f] = value if draws[f] >= threshold else zero
        else:
            for f in range(width):
                value = x_nF[r, f]
                out_nF[r, f] = zero if relu and value <= zero else value


@_compiled
def positive_backward(
    grad_nF: Any, out_nF: Any, scale: float, grad_in_nF: Any, start: int, stop: int
) -> None:
    """grad_in = grad * scale where the forward output is positive, else 0."""
    width = grad_nF.shape[1]
    zero = grad_nF.dtype.type(0)
    factor = grad_nF.dtype.type(scale)
    for r in range(start, stop):
        for f in range(width):
            value = grad_nF[r, f] * factor
            grad_in_nF[r, f] = value if out_nF[r, f] > zero else zero


@_compiled
def segment_sum(indptr: Any, values_EH: Any, out_RH: Any, start: int, stop: int) -> None:
    """Sum each row's entries; 0 for an empty row."""
    for r in range(start, stop):
        for h in range(values_EH.shape[1]):
            total = values_EH.dtype.type(0)
            for e in range(indptr[r], indptr[r + 1]):
                total += values_EH[e, h]
            out_RH[r, h] = total


@_compiled
def segment_max(indptr: Any, values_EH: Any, out_RH: Any, start: int, stop: int) -> None:
    """Take each row's largest entry; 0 for an empty row."""
    for r in range(start, stop):
        for h in range(values_EH.shape[1]):
            first = indptr[r]
            most = values_EH.dtype.type(0)
            if first < indptr[r + 1]:
                most = values_EH[first, h]
            for e in range(first + 1, indptr[r + 1]):
                most = max(most, values_EH[e, h])
            out_RH[r, h] = most


@_compiled
def segment_softmax(indptr: Any, values_EH: Any, out_EH: Any, start: int, stop: int) -> None:
    """Turn each row's entries into weights that sum to 1, shifted by their maximum."""
    for r in range(start, stop):
        first, last = indptr[r], indptr[r + 1]
        if first == last:
            continue
        for h in range(values_EH.shape[1]):
            most = values_EH[first, h]
            for e in range(first + 1, last):
                most = max(most, values_EH[e, h])
            total = values_EH.dtype.type(0)
            for e in range(first, last):
                weight = math.exp(values_EH[e, h] - most)
                out_EH[e, h] = weight
                total += weight
            for e in range(first, last):
                out_EH[e, h] /= total


@_compiled
def segment_softmax_backward(
    indptr: Any, probability_EH: Any, grad_EH: Any, out_EH: Any, start: int, stop: int
) -> None:
    """Compute p * (grad - sum over the row of p * grad)."""
    for r in range(start, stop):
        for h in range(grad_EH.shape[1]):
            inner = grad_EH.dtype.type(0)
            for e in range(indptr[r], indptr[r + 1]):
                inner += probability_EH[e, h] * grad_EH[e, h]
            for e in range(indptr[r], indptr[r + 1]):
                out_EH[e, h] = probability_EH[e, h] * (grad_EH[e, h] - inner)


@_compiled
def adam(
    param: Any,
    grad: Any,
    m: Any,
    v: Any,
    step_size: float,
    beta1: float,
    beta2: float,
    root_correction: float,
    eps: float,
    weight_decay: float,
    start: int,
    stop: int,
) -> None:
    """One Adam update of param, m and v (Kingma and Ba 2015), decay added to the gradient."""
    kind = param.dtype.type
    fresh1, fresh2 = kind(1 - beta1), kind(1 - beta2)
    keep2, size, root = kind(beta2), kind(step_size), kind(root_correction)
    floor, decay = kind(eps), kind(weight_decay)
    # Slices, as in `scatter_add_rows`.
    own, slope, first, second = param[start:stop], grad[start:stop], m[start:stop], v[start:stop]
    for i in range(len(own)):
        g = slope[i] + decay * own[i]
        first[i] += (g - first[i]) * fresh1
        second[i] = second[i] * keep2 + fresh2 * g * g
        own[i] -= size * first[i] / (math.sqrt(second[i]) / root + floor)
