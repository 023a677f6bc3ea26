"""Kernels on the host: compiled loops over numpy views of torch tensors, on a team of threads.

Tensors are contiguous, float32 or float64 alike within a call; ids are int64, `indices` int32 or
int64, `indptr` int64. Outputs are written in place and returned by no one.

Legend: N, n, R, S rows (all, some, destinations, sources), F columns, E entries, H heads,
C classes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnnbench.data.threads import Team
from gnnbench_runtime.kernels import attention_loops, blocks, loops
from gnnbench_runtime.kernels.blocks import Block
from gnnbench_runtime.kernels.losses import softmax_cross_entropy
from gnnbench_runtime.kernels.sparse_rows import spmm_rows

Array = np.ndarray[Any, Any]

LEAST_VALUES = 65_536  # values worth handing to another thread

_NONE = {torch.float32: np.empty(0, np.float32), torch.float64: np.empty(0, np.float64)}
_NO_IDS = np.empty(0, np.int64)


class CpuKernels:
    """The kernels on host memory. `threads` counts the caller's; results do not depend on it."""

    device_type = "cpu"

    def __init__(self, threads: int = 1) -> None:
        self.team = Team(threads)

    @property
    def threads(self) -> int:
        return self.team.threads

    def spmm(
        self,
        indptr: Tensor,
        indices: Tensor,
        x_SF: Tensor,
        out_RF: Tensor,
        *,
        row_scale: Tensor | None = None,
        col_scale: Tensor | None = None,
        self_scale: Tensor | None = None,
        edge_scale: Tensor | None = None,
        accumulate: bool = False,
    ) -> None:
        """out[r] = row_scale[r] * sum_e edge_scale[e] * col_scale[c_e] * x[c_e].

        Rows r below len(self_scale) add self_scale[r] * x[r]; `accumulate` adds everything to what
        out holds. The backward pass is the same call on the transpose with the scales exchanged.
        """
        starts, x, out = _flat(indptr), _rows(x_SF), _rows(out_RF)
        # An absent scale is passed as an empty array: with None, numba would compile a second
        # version of the loop.
        none = _NONE[x_SF.dtype]
        scales = [
            none if scale is None else _flat(scale)
            for scale in (row_scale, col_scale, self_scale, edge_scale)
        ]
        columns = _flat(indices)
        # Rows are dealt by entries and not by number: a few long rows would otherwise keep one
        # thread busy.
        ranges = self.team.split_rows(starts, LEAST_VALUES // max(x.shape[1], 1))
        self.team.run(
            lambda a, b: spmm_rows(starts, columns, x, out, *scales, accumulate, a, b), ranges
        )

    def gather_rows(self, x_NF: Tensor, ids_n: Tensor, out_nF: Tensor) -> None:
        """out[i] = x[ids[i]]."""
        x, ids, out = _rows(x_NF), _flat(ids_n), _rows(out_nF)
        self._by_rows(lambda a, b: loops.gather_rows(x, ids, out, a, b), out)

    def scatter_add_rows(self, out_NF: Tensor, ids_n: Tensor, x_nF: Tensor) -> None:
        """out[ids[i]] += x[i], in the order of i; ids may repeat."""
        out, ids, x = _rows(out_NF), _flat(ids_n), _rows(x_nF)
        # Divided by columns and not by rows: ids may repeat, and two threads that add to one row
        # would race.
        enough = x.size >= LEAST_VALUES * self.threads
        ranges = self.team.split(x.shape[1], 16) if enough else [(0, x.shape[1])]
        self.team.run(lambda a, b: loops.scatter_add_rows(out, ids, x, a, b), ranges)

    def gather_block(self, flat: Tensor, block: Block, start: int, first: int, out: Tensor) -> None:
        """Copy elements of a block, from `first` on, to `out`; see `kernels.blocks`."""
        self._by_elements(blocks.gather_block, flat, block, start, first, out)

    def scatter_block(
        self, flat: Tensor, block: Block, start: int, first: int, values: Tensor
    ) -> None:
        """Copy values to elements of a block, from `first` on; see `kernels.blocks`."""
        self._by_elements(blocks.scatter_block, flat, block, start, first, values)

    def dropout(
        self,
        x_nF: Tensor,
        out_nF: Tensor,
        p: float,
        key: int,
        row_ids: Tensor | None = None,
        first_column: int = 0,
    ) -> None:
        """Inverted dropout; the mask is a function of (key, row id, column).

        The backward pass is the same call on the gradient. p is rounded to 1/65536, and survivors
        are scaled by the rounded value. Row ids default to row numbers; of a block of columns,
        `first_column` is the number of the first.
        """
        self._dropout(x_nF, out_nF, p, key, row_ids, first_column, relu=False)

    def relu_dropout(
        self,
        y_nF: Tensor,
        out_nF: Tensor,
        p: float,
        key: int,
        row_ids: Tensor | None = None,
        first_column: int = 0,
    ) -> None:
        """ReLU, then `dropout`; may work in place. p = 0 is plain ReLU."""
        self._dropout(y_nF, out_nF, p, key, row_ids, first_column, relu=True)

    def relu_dropout_backward(
        self, grad_nF: Tensor, out_nF: Tensor, p: float, grad_in_nF: Tensor
    ) -> None:
        """Gradient of `relu_dropout` from its output, which is positive just where both passed."""
        grad, out, grad_in = _rows(grad_nF), _rows(out_nF), _rows(grad_in_nF)
        scale = survivor_scale(drop_threshold(p))
        self._by_rows(lambda a, b: loops.positive_backward(grad, out, scale, grad_in, a, b), grad)

    def elu_dropout(
        self, y_nF: Tensor, out_nF: Tensor, p: float, key: int, row_ids: Tensor | None = None
    ) -> None:
        """ELU, then `dropout`; may work in place. p = 0 is plain ELU."""
        y, out = _rows(y_nF), _rows(out_nF)
        self._by_rows(lambda a, b: attention_loops.elu(y, out, a, b), y)
        # A dropout of zero would only copy.
        if drop_threshold(p):
            self.dropout(out_nF, out_nF, p, key, row_ids)

    def elu_dropout_backward(
        self,
        grad_nF: Tensor,
        out_nF: Tensor,
        p: float,
        key: int,
        row_ids: Tensor | None,
        grad_in_nF: Tensor,
    ) -> None:
        """Gradient of `elu_dropout` from its output and the key of its mask."""
        # The mask is drawn again from its key, so that no mask is stored between the passes.
        self.dropout(grad_nF, grad_in_nF, p, key, row_ids)
        out, grad_in = _rows(out_nF), _rows(grad_in_nF)
        scale = survivor_scale(drop_threshold(p))
        self._by_rows(lambda a, b: attention_loops.elu_backward(out, scale, grad_in, a, b), out)

    def head_scores(self, x_NF: Tensor, vectors_HD: Tensor, out_NH: Tensor) -> None:
        """out[i, h] = x[i, head h] . vectors[h]; F = H D, heads one after another."""
        x, vectors, out = _rows(x_NF), _rows(vectors_HD), _rows(out_NH)
        self._by_rows(lambda a, b: attention_loops.head_scores(x, vectors, out, a, b), x)

    def head_scores_backward(
        self, x_NF: Tensor, vectors_HD: Tensor, grad_NH: Tensor, x_grad_NF: Tensor, out_HD: Tensor
    ) -> None:
        """Add grad[i, h] vectors[h] to x_grad; out[h] = sum_i grad[i, h] x[i, head h]."""
        x, vectors, grad = _rows(x_NF), _rows(vectors_HD), _rows(grad_NH)
        x_grad, out = _rows(x_grad_NF), _rows(out_HD)
        self._by_rows(
            lambda a, b: attention_loops.head_scores_input(vectors, grad, x_grad, a, b), x
        )
        # A vector sums over all rows; dividing by heads keeps the order of the sum for any number
        # of threads.
        heads = self.team.split(len(vectors), LEAST_VALUES // max(x.size, 1) + 1)
        self.team.run(lambda a, b: attention_loops.head_scores_vector(x, grad, out, a, b), heads)

    def sddmm_add(
        self,
        indptr: Tensor,
        indices: Tensor,
        to_RH: Tensor,
        from_SH: Tensor,
        slope: float,
        out_EH: Tensor,
    ) -> None:
        """out[e] = leaky_relu(to[r_e] + from[c_e]) with the slope of its negative side."""
        starts, columns = _flat(indptr), _flat(indices)
        to, source, out = _rows(to_RH), _rows(from_SH), _rows(out_EH)
        ranges = self.team.split_rows(starts, LEAST_VALUES // max(to.shape[1], 1))
        self.team.run(
            lambda a, b: attention_loops.sddmm_add(starts, columns, to, source, slope, out, a, b),
            ranges,
        )

    def sddmm_dot(
        self,
        indptr: Tensor,
        indices: Tensor,
        g_RF: Tensor,
        x_SF: Tensor,
        out_EH: Tensor,
        head_width: int = 0,
        offset: int = 0,
    ) -> None:
        """out[e, h] = g[r_e, head h] . x[c_e, head h].

        A slice of columns that cuts heads has a `head_width`, and `offset` columns of its first
        head lie before it: column f belongs to head (offset + f) // head_width. Without them heads
        are whole.
        """
        starts, columns = _flat(indptr), _flat(indices)
        g, x, out = _rows(g_RF), _rows(x_SF), _rows(out_EH)
        # A whole head's width cannot be found from a slice that cuts it, so the caller states it.
        width = head_width or g.shape[1] // max(out.shape[1], 1)
        ranges = self.team.split_rows(starts, LEAST_VALUES // max(g.shape[1], 1))
        self.team.run(
            lambda a, b: attention_loops.sddmm_dot(starts, columns, g, x, width, offset, out, a, b),
            ranges,
        )

    def spmm_heads(
        self,
        indptr: Tensor,
        indices: Tensor,
        weights_EH: Tensor,
        x_SF: Tensor,
        out_RF: Tensor,
        entries: Tensor | None = None,
        head_width: int = 0,
        offset: int = 0,
    ) -> None:
        """out[r, head h] = sum_e weights[e, h] * x[c_e, head h].

        Entry e of the pattern has the weights of `entries[e]`, where given (a transposed pattern).
        Slices of columns that cut heads are as in `sddmm_dot`.
        """
        starts, columns = _flat(indptr), _flat(indices)
        weights, x, out = _rows(weights_EH), _rows(x_SF), _rows(out_RF)
        width = head_width or x.shape[1] // max(weights.shape[1], 1)
        at = _NO_IDS if entries is None else _flat(entries)
        ranges = self.team.split_rows(starts, LEAST_VALUES // max(x.shape[1], 1))
        self.team.run(
            lambda a, b: attention_loops.spmm_heads(
                starts, columns, weights, x, out, at, width, offset, a, b
            ),
            ranges,
        )

    def leaky_backward(self, score_EH: Tensor, slope: float, grad_EH: Tensor) -> None:
        """Multiply grad by the slope where the score is negative, in place."""
        score, grad = _rows(score_EH), _rows(grad_EH)
        self._by_rows(lambda a, b: attention_loops.leaky_backward(score, slope, grad, a, b), grad)

    def segment_sum(
        self, indptr: Tensor, values_EH: Tensor, out_RH: Tensor, entries: Tensor | None = None
    ) -> None:
        """out[r] = sum of the entries of row r; 0 for an empty row.

        Entry e is `values[entries[e]]` where `entries` is given.
        """
        if entries is None:
            self._segments(loops.segment_sum, indptr, values_EH, out_RH)
            return
        starts, at = _flat(indptr), _flat(entries)
        values, out = _rows(values_EH), _rows(out_RH)
        ranges = self.team.split_rows(starts, LEAST_VALUES)
        self.team.run(
            lambda a, b: attention_loops.segment_sum_of(starts, at, values, out, a, b), ranges
        )

    def segment_max(self, indptr: Tensor, values_EH: Tensor, out_RH: Tensor) -> None:
        """out[r] = largest entry of row r; 0 for an empty row."""
        self._segments(loops.segment_max, indptr, values_EH, out_RH)

    def segment_softmax(self, indptr: Tensor, values_EH: Tensor, out_EH: Tensor) -> None:
        """Softmax of the entries of every row, per head."""
        self._segments(loops.segment_softmax, indptr, values_EH, out_EH)

    def segment_softmax_backward(
        self, indptr: Tensor, probability_EH: Tensor, grad_EH: Tensor, out_EH: Tensor
    ) -> None:
        """Gradient of `segment_softmax` from its output."""
        self._segments(loops.segment_softmax_backward, indptr, probability_EH, grad_EH, out_EH)

    def softmax_cross_entropy(
        self,
        logits_nC: Tensor,
        labels_n: Tensor,
        rows_t: Tensor,
        scale: float,
        grad_out_nC: Tensor,
        weights_t: Tensor | None = None,
    ) -> Tensor:
        """See `losses.softmax_cross_entropy`."""
        return softmax_cross_entropy(logits_nC, labels_n, rows_t, scale, grad_out_nC, weights_t)

    def adam(
        self,
        param: Tensor,
        grad: Tensor,
        m: Tensor,
        v: Tensor,
        step: int,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        """One Adam update of flat tensors, as torch.optim.Adam does it; steps count from 1."""
        first, second = betas
        flat = [_flat(t) for t in (param, grad, m, v)]
        # The bias corrections do not depend on the element: they are taken out of the loop.
        step_size, root = lr / (1 - first**step), math.sqrt(1 - second**step)
        self.team.run(
            lambda a, b: loops.adam(*flat, step_size, first, second, root, eps, weight_decay, a, b),
            self.team.split(len(flat[0]), LEAST_VALUES),
        )

    def _dropout(
        self,
        x_nF: Tensor,
        out_nF: Tensor,
        p: float,
        key: int,
        row_ids: Tensor | None,
        first_column: int,
        *,
        relu: bool,
    ) -> None:
        x, out = _rows(x_nF), _rows(out_nF)
        ids = _NO_IDS if row_ids is None else _flat(row_ids)
        threshold, bits = drop_threshold(p), np.uint64(key)
        scale = survivor_scale(threshold)
        self._by_rows(
            lambda a, b: loops.dropout(
                x, out, threshold, scale, relu, bits, ids, first_column, a, b
            ),
            x,
        )

    def _segments(self, loop: Any, indptr: Tensor, *tensors: Tensor) -> None:
        starts, arrays = _flat(indptr), [_rows(t) for t in tensors]
        ranges = self.team.split_rows(starts, LEAST_VALUES)
        self.team.run(lambda a, b: loop(starts, *arrays, a, b), ranges)

    def _by_elements(
        self, loop: Any, flat: Tensor, block: Block, start: int, first: int, values: Tensor
    ) -> None:
        place = _flat(flat), start, block.width, block.rows, block.columns, first, _flat(values)
        ranges = self.team.split(len(values), LEAST_VALUES)
        self.team.run(lambda a, b: loop(*place, a, b), ranges)

    def _by_rows(self, work: Any, rows: Array) -> None:
        count, width = rows.shape
        self.team.run(work, self.team.split(count, LEAST_VALUES // max(width, 1) + 1))


def drop_threshold(p: float) -> int:
    """Return how many of 65536 draws are dropped."""
    if not 0.0 <= p < 1.0:
        raise ValueError(f"dropout must lie in [0, 1): found {p}")
    # At most 65,535, so that the scale of survivors stays finite.
    return min(round(p * 65_536), 65_535)


def survivor_scale(threshold: int) -> float:
    """Return the factor that keeps the expectation."""
    return 65_536 / (65_536 - threshold)


def _rows(x: Tensor) -> Array:
    # A silent copy would cost time that no step of the plan accounts for.
    if not x.is_contiguous() or x.dim() != 2:
        raise ValueError(f"kernels take contiguous matrices: found strides {x.stride()}")
    return x.numpy()


def _flat(x: Tensor) -> Array:
    if not x.is_contiguous() or x.dim() != 1:
        raise ValueError(f"kernels take contiguous vectors: found strides {x.stride()}")
    return x.numpy()
