"""Compiled loops of temporal models: time encodings, attention over sampled neighbours, a GRU.

As in `loops`: serial, without the interpreter lock, over a range. The rows of an edge are those of
its neighbour, its features and its time encoding, W = n + e + d columns together, but each stays in
an array of its own. Sums may be reassociated, so that they vectorise; their order depends on the
shapes only, so equal input gives equal bits.

Loops over columns begin at column 0 of a slice: where the index could be negative, as far as the
compiler knows, it allows for negative indices and does not vectorise.

Legend: S edges, R queries, H heads, n, e, d columns, W all of them; U nodes with memory, M columns
of a memory row, G columns of gates.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

_SUMS = {"reassoc", "contract", "nsz"}
_HALF_TURNS = 1.0 / math.pi
_PI, _PI_REST = math.pi, 1.2246467991473532e-16
_NEAREST = 1.5 * 2.0**52
"""Added and taken away, it rounds to the nearest integer; sums must not be reassociated there."""


def _summing(function: Callable[..., Any]) -> Callable[..., Any]:
    return njit(cache=True, nogil=True, error_model="numpy", fastmath=_SUMS)(function)


def _within_loops(function: Callable[..., Any]) -> Callable[..., Any]:
    return njit(inline="always", error_model="numpy", fastmath=_SUMS)(function)


def _elementwise(function: Callable[..., Any]) -> Callable[..., Any]:
    return njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})(function)


@njit(inline="always")
def _within(argument: Any) -> Any:
    """An argument less the nearest multiple of pi, and the sign that its cosine then has."""
    turns = (argument * _HALF_TURNS + _NEAREST) - _NEAREST
    odd = 0.5 * turns - ((0.5 * turns + _NEAREST) - _NEAREST)
    return (argument - turns * _PI) - turns * _PI_REST, 1.0 - 4.0 * abs(odd)


_COSINE = tuple(np.float32((-1) ** k / math.factorial(2 * k)) for k in range(6, -1, -1))
_SINE = tuple(np.float32((-1) ** k / math.factorial(2 * k + 1)) for k in range(6, -1, -1))
"""Taylor's polynomials of degrees 12 and 13 on [-pi/2, pi/2]; beyond float32's own precision."""


@njit(inline="always")
def _series(y: Any, factors: Any) -> Any:
    """A polynomial of degree 6 in y; factors from the highest power down.

    It is unrolled, so that the loop around it vectorises.
    """
    total = factors[0] * y + factors[1]
    total = total * y + factors[2]
    total = total * y + factors[3]
    total = total * y + factors[4]
    total = total * y + factors[5]
    return total * y + factors[6]


@_elementwise
def encode(
    ages_S: Any, time_d: Any, bias_d: Any, cos_Sd: Any, sin_Sd: Any, start: int, stop: int
) -> None:
    """Cosine of time * age + bias, and its sine unless `sin_Sd` is empty; all float32.

    Ages of a stream reach 1e9 seconds, where float32 has lost the phase: arguments are reduced to
    [-pi/2, pi/2] in float64. What is left of them is written to the cosine's row first, so that the
    polynomials run over twice as many values at a time.
    """
    width = len(time_d)
    signs = np.empty(width, np.float32)
    for s in range(start, stop):
        age = np.float64(ages_S[s])
        for j in range(width):
            x, sign = _within(age * np.float64(time_d[j]) + np.float64(bias_d[j]))
            cos_Sd[s, j] = x
            signs[j] = sign
        if len(sin_Sd):
            for j in range(width):
                x = cos_Sd[s, j]
                y = x * x
                cos_Sd[s, j] = signs[j] * _series(y, _COSINE)
                sin_Sd[s, j] = signs[j] * (x * _series(y, _SINE))
        else:
            for j in range(width):
                x = cos_Sd[s, j]
                cos_Sd[s, j] = signs[j] * _series(x * x, _COSINE)


@_within_loops
def _dot(x: Any, y: Any) -> Any:
    """Sum of products; 0 of nothing."""
    total = x.dtype.type(0)
    for j in range(len(x)):
        total += x[j] * y[j]
    return total


@_within_loops
def _add(out: Any, weight: Any, x: Any) -> None:
    """Add weight * x to out."""
    for j in range(len(x)):
        out[j] += weight * x[j]


@_within_loops
def _add_both(out: Any, first: Any, x: Any, second: Any, y: Any) -> None:
    """Add first * x + second * y to out."""
    for j in range(len(x)):
        out[j] += first * x[j] + second * y[j]


@_summing
def attend(
    indptr: Any,
    near_Sn: Any,
    edges_Se: Any,
    then_Sd: Any,
    key_HRW: Any,
    bias_RH: Any,
    slope: float,
    masks_SH: Any,
    raw_SH: Any,
    weight_SH: Any,
    out_HRW: Any,
    total_RH: Any,
    start: int,
    stop: int,
) -> None:
    """Score the edges of each query, take the softmax of leaky scores, sum the edges' rows.

    raw = row . key + bias; weight = softmax(leaky ReLU(raw)); out and total sum the rows and ones
    with the weights, which are multiplied by `masks_SH` unless that is empty.
    """
    n, e = near_Sn.shape[1], edges_Se.shape[1]
    kind = raw_SH.dtype.type
    steep, zero = kind(slope), kind(0)
    for r in range(start, stop):
        first, last = indptr[r], indptr[r + 1]
        for h in range(len(key_HRW)):
            key, out = key_HRW[h, r], out_HRW[h, r]
            top = kind(-1e30)
            for s in range(first, last):
                score = bias_RH[r, h] + _dot(near_Sn[s], key[:n])
                score += _dot(edges_Se[s], key[n : n + e]) + _dot(then_Sd[s], key[n + e :])
                raw_SH[s, h] = score
                score = score * steep if score < zero else score
                weight_SH[s, h] = score
                top = max(top, score)
            total = zero
            for s in range(first, last):
                weight_SH[s, h] = math.exp(weight_SH[s, h] - top)
                total += weight_SH[s, h]
            out[:] = zero
            masked = zero
            for s in range(first, last):
                weight_SH[s, h] /= total
                weight = weight_SH[s, h]
                if len(masks_SH):
                    weight *= masks_SH[s, h]
                masked += weight
                _add(out[:n], weight, near_Sn[s])
                _add(out[n : n + e], weight, edges_Se[s])
                _add(out[n + e :], weight, then_Sd[s])
            total_RH[r, h] = masked


@_summing
def attend_backward(
    indptr: Any,
    near_Sn: Any,
    edges_Se: Any,
    then_Sd: Any,
    key_HRW: Any,
    slope: float,
    masks_SH: Any,
    raw_SH: Any,
    weight_SH: Any,
    grad_HRW: Any,
    grad_total_RH: Any,
    sin_Sd: Any,
    score_SH: Any,
    out_near_Sn: Any,
    out_key_HRW: Any,
    out_bias_RH: Any,
    start: int,
    stop: int,
) -> None:
    """Gradients of `attend`: of raw scores, neighbours' rows, keys, biases, encodings' arguments.

    Those of the arguments replace the sines; `score_SH` takes those of the raw scores.
    """
    n, e, d = near_Sn.shape[1], edges_Se.shape[1], then_Sd.shape[1]
    heads = len(key_HRW)
    kind = raw_SH.dtype.type
    steep, zero = kind(slope), kind(0)
    row = np.empty(d, raw_SH.dtype)
    for r in range(start, stop):
        first, last = indptr[r], indptr[r + 1]
        for h in range(heads):
            grad, out = grad_HRW[h, r], out_key_HRW[h, r]
            mean = zero
            for s in range(first, last):
                found = grad_total_RH[r, h] + _dot(near_Sn[s], grad[:n])
                found += _dot(edges_Se[s], grad[n : n + e]) + _dot(then_Sd[s], grad[n + e :])
                if len(masks_SH):
                    found *= masks_SH[s, h]
                mean += weight_SH[s, h] * found
                score_SH[s, h] = found
            out[:] = zero
            bias = zero
            for s in range(first, last):
                found = weight_SH[s, h] * (score_SH[s, h] - mean)
                if raw_SH[s, h] < zero:
                    found *= steep
                score_SH[s, h] = found
                bias += found
                _add(out[:n], found, near_Sn[s])
                _add(out[n : n + e], found, edges_Se[s])
                _add(out[n + e :], found, then_Sd[s])
            out_bias_RH[r, h] = bias
        for s in range(first, last):
            near, sines = out_near_Sn[s], sin_Sd[s]
            near[:], row[:] = zero, zero
            for h in range(heads):
                found, weight = score_SH[s, h], weight_SH[s, h]
                if len(masks_SH):
                    weight *= masks_SH[s, h]
                key, grad = key_HRW[h, r], grad_HRW[h, r]
                _add_both(near, found, key[:n], weight, grad[:n])
                _add_both(row, found, key[n + e :], weight, grad[n + e :])
            for j in range(d):
                sines[j] *= -row[j]


@_elementwise
def blend(held_UM: Any, made_UG: Any, has_U: Any, out_Ud: Any, start: int, stop: int) -> None:
    """The last part of a GRU: memory + has (1 - update) (candidate - memory).

    Args:
        held_UM: rows that begin with memory, [U, at least d].
        made_UG: reset, update, candidate and what the state gives to it, [U, 4 d].
        has_U: 1 or 0; 0 keeps the memory.
    """
    d = out_Ud.shape[1]
    one = out_Ud.dtype.type(1)
    for u in range(start, stop):
        has, held, made, out = has_U[u], held_UM[u], made_UG[u], out_Ud[u]
        update, fresh = made[d : 2 * d], made[2 * d : 3 * d]
        for j in range(d):
            out[j] = held[j] + has * (one - update[j]) * (fresh[j] - held[j])


@_elementwise
def blend_backward(
    grad_Ud: Any, held_UM: Any, made_UG: Any, has_U: Any, out_UG: Any, start: int, stop: int
) -> None:
    """Gradients of what the gates of a GRU are made from, in the order of `made_UG`.

    One array is written per loop: with several, the compiler would not vectorise.
    """
    d = grad_Ud.shape[1]
    one = grad_Ud.dtype.type(1)
    for u in range(start, stop):
        has, grad, held, made, out = has_U[u], grad_Ud[u], held_UM[u], made_UG[u], out_UG[u]
        reset, update, fresh, kept = made[:d], made[d : 2 * d], made[2 * d : 3 * d], made[3 * d :]
        of_reset, of_update = out[:d], out[d : 2 * d]
        of_fresh, of_kept = out[2 * d : 3 * d], out[3 * d :]
        for j in range(d):
            of_fresh[j] = has * grad[j] * (one - update[j]) * (one - fresh[j] * fresh[j])
        for j in range(d):
            away = held[j] - fresh[j]
            of_update[j] = has * grad[j] * away * update[j] * (one - update[j])
        for j in range(d):
            of_kept[j] = of_fresh[j] * reset[j]
        for j in range(d):
            of_reset[j] = of_kept[j] * kept[j] * (one - reset[j])
