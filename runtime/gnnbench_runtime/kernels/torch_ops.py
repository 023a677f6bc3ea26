"""The same kernels in plain torch operations: on CUDA, and on the host to be tested there.

Names, arguments and mask bits are those of `kernels.cpu`; its docstrings apply here.
64-bit hashes run on int64, which wraps as uint64 does; right shifts are made logical by a mask.

Legend: N, n, R, S rows (all, some, destinations, sources), F columns, E entries, H heads,
C classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.weak import WeakTensorKeyDictionary

from gnnbench.data import keys
from gnnbench_runtime.kernels.blocks import IDS_AT_ONCE, Block, positions
from gnnbench_runtime.kernels.cpu import drop_threshold, survivor_scale
from gnnbench_runtime.kernels.losses import softmax_cross_entropy


def _signed(bits: int) -> int:
    return bits - (1 << 64) if bits >> 63 else bits


_GOLDEN, _FIRST, _SECOND = (_signed(c) for c in (keys.GOLDEN, keys.FIRST, keys.SECOND))


def mix64(x: Tensor) -> Tensor:
    """Return `keys.mix64` of every element of an int64 tensor of bits."""
    x = (x ^ _shift(x, 30)) * _FIRST
    x = (x ^ _shift(x, 27)) * _SECOND
    return x ^ _shift(x, 31)


def extend(key: int | Tensor, counters: Tensor) -> Tensor:
    """Return `keys.extend(key, c)` of every counter, as int64 bits."""
    bits = key if isinstance(key, Tensor) else _signed(key)
    return mix64((counters ^ bits) + _GOLDEN)


def _shift(x: Tensor, places: int) -> Tensor:
    return (x >> places) & ((1 << (64 - places)) - 1)


class TorchKernels:
    """The kernels as torch operations; `threads` is torch's business here."""

    def __init__(self, device_type: str = "cuda", threads: int = 1) -> None:
        self.device_type, self.threads = device_type, threads
        # torch says so once per process, and nobody can do anything about it.
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        self._matrices: Any = WeakTensorKeyDictionary()

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
        if indices.numel() == 0 or x_SF.shape[1] == 0:
            if not accumulate:
                out_RF.zero_()
        else:
            shape = (out_RF.shape[0], x_SF.shape[0])
            if edge_scale is None:
                matrix = self._matrix(indptr, indices, row_scale, col_scale, x_SF, shape)
            else:
                values = _entry_values(indptr, indices, row_scale, col_scale, edge_scale)
                matrix = _csr(indptr, indices, values, shape)
            self._multiply(matrix, x_SF, out_RF, accumulate)
        if self_scale is not None:
            own = len(self_scale)
            out_RF[:own].addcmul_(self_scale.unsqueeze(1), x_SF[:own])

    def _multiply(self, matrix: Tensor, x_SF: Tensor, out_RF: Tensor, accumulate: bool) -> None:
        """Y = A X, or Y += A X: the one call into cuSPARSE."""
        torch.addmm(out_RF, matrix, x_SF, beta=float(accumulate), out=out_RF)

    def _matrix(
        self,
        indptr: Tensor,
        indices: Tensor,
        row_scale: Tensor | None,
        col_scale: Tensor | None,
        like: Tensor,
        shape: tuple[int, int],
    ) -> Tensor:
        """The sparse matrix of a pattern and its scales, made once while the pattern lives.

        A graph's pattern is multiplied in every layer of every epoch; row pointers of cuSPARSE's
        width and the values of the entries are the same each time.
        """
        made = self._matrices.setdefault(indices, {})
        key = (id(indptr), id(row_scale), id(col_scale), like.dtype, shape)
        if key not in made:
            values = _entry_values(
                indptr, indices, row_scale, col_scale, like.new_ones(indices.numel())
            )
            # The scales are kept beside the matrix, so that their ids stay theirs.
            made[key] = (_csr(indptr, indices, values, shape), indptr, row_scale, col_scale)
        return made[key][0]

    def gather_rows(self, x_NF: Tensor, ids_n: Tensor, out_nF: Tensor) -> None:
        torch.index_select(x_NF, 0, ids_n, out=out_nF)

    def scatter_add_rows(self, out_NF: Tensor, ids_n: Tensor, x_nF: Tensor) -> None:
        out_NF.index_add_(0, ids_n, x_nF)

    def gather_block(self, flat: Tensor, block: Block, start: int, first: int, out: Tensor) -> None:
        for at, stop in _ranges(len(out)):
            ids = positions(block, start, first + at, first + stop, flat.device)
            torch.index_select(flat, 0, ids, out=out[at:stop])

    def scatter_block(
        self, flat: Tensor, block: Block, start: int, first: int, values: Tensor
    ) -> None:
        for at, stop in _ranges(len(values)):
            ids = positions(block, start, first + at, first + stop, flat.device)
            flat.index_copy_(0, ids, values[at:stop])

    def dropout(
        self,
        x_nF: Tensor,
        out_nF: Tensor,
        p: float,
        key: int,
        row_ids: Tensor | None = None,
        first_column: int = 0,
    ) -> None:
        threshold = drop_threshold(p)
        if threshold == 0:
            out_nF.copy_(x_nF)
            return
        dropped = _draws(x_nF, key, row_ids, first_column) < threshold
        torch.mul(x_nF, survivor_scale(threshold), out=out_nF)
        out_nF.masked_fill_(dropped, 0.0)

    def relu_dropout(
        self,
        y_nF: Tensor,
        out_nF: Tensor,
        p: float,
        key: int,
        row_ids: Tensor | None = None,
        first_column: int = 0,
    ) -> None:
        torch.clamp_min(y_nF, 0.0, out=out_nF)
        if drop_threshold(p):
            self.dropout(out_nF, out_nF, p, key, row_ids, first_column)

    def relu_dropout_backward(
        self, grad_nF: Tensor, out_nF: Tensor, p: float, grad_in_nF: Tensor
    ) -> None:
        blocked = ~(out_nF > 0)
        torch.mul(grad_nF, survivor_scale(drop_threshold(p)), out=grad_in_nF)
        grad_in_nF.masked_fill_(blocked, 0.0)

    def elu_dropout(
        self, y_nF: Tensor, out_nF: Tensor, p: float, key: int, row_ids: Tensor | None = None
    ) -> None:
        out_nF.copy_(functional.elu(y_nF))
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
        self.dropout(grad_nF, grad_in_nF, p, key, row_ids)
        back = 1 / survivor_scale(drop_threshold(p))
        grad_in_nF.mul_(out_nF.clamp_max(0.0).mul_(back).add_(1.0))

    def head_scores(self, x_NF: Tensor, vectors_HD: Tensor, out_NH: Tensor) -> None:
        torch.sum(_by_head(x_NF, len(vectors_HD)) * vectors_HD, 2, out=out_NH)

    def head_scores_backward(
        self, x_NF: Tensor, vectors_HD: Tensor, grad_NH: Tensor, x_grad_NF: Tensor, out_HD: Tensor
    ) -> None:
        heads = len(vectors_HD)
        _by_head(x_grad_NF, heads).addcmul_(grad_NH.unsqueeze(2), vectors_HD)
        torch.sum(grad_NH.unsqueeze(2) * _by_head(x_NF, heads), 0, out=out_HD)

    def sddmm_add(
        self,
        indptr: Tensor,
        indices: Tensor,
        to_RH: Tensor,
        from_SH: Tensor,
        slope: float,
        out_EH: Tensor,
    ) -> None:
        rows = _row_of_entry(indptr, out_EH)
        torch.add(to_RH[rows], from_SH[indices], out=out_EH)
        functional.leaky_relu_(out_EH, slope)

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
        rows, heads, columns = _row_of_entry(indptr, out_EH), out_EH.shape[1], g_RF.shape[1]
        spans = list(_spans(heads, head_width or columns // max(heads, 1), offset, columns))
        whole = len({stop - start for start, stop in spans}) == 1
        for part in _parts(out_EH.shape[0], columns):
            product = g_RF[rows[part]] * x_SF[indices[part]]
            if whole:
                torch.sum(_by_head(product, heads), 2, out=out_EH[part])
                continue
            for head, (start, stop) in enumerate(spans):
                out_EH[part, head] = product[:, start:stop].sum(1)

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
        heads, columns = weights_EH.shape[1], x_SF.shape[1]
        spans = _spans(heads, head_width or columns // max(heads, 1), offset, columns)
        for head, (start, stop) in enumerate(spans):
            weights = weights_EH[:, head] if entries is None else weights_EH[entries, head]
            summed = x_SF.new_empty((out_RF.shape[0], stop - start))
            rows = x_SF[:, start:stop].contiguous()
            self.spmm(indptr, indices, rows, summed, edge_scale=weights.contiguous())
            out_RF[:, start:stop] = summed

    def leaky_backward(self, score_EH: Tensor, slope: float, grad_EH: Tensor) -> None:
        torch.where(score_EH < 0, grad_EH * slope, grad_EH, out=grad_EH)

    def segment_sum(
        self, indptr: Tensor, values_EH: Tensor, out_RH: Tensor, entries: Tensor | None = None
    ) -> None:
        values = values_EH if entries is None else values_EH[entries]
        out_RH.zero_()
        out_RH.index_add_(0, _row_of_entry(indptr, values), values)

    def segment_max(self, indptr: Tensor, values_EH: Tensor, out_RH: Tensor) -> None:
        rows = _row_of_entry(indptr, values_EH).unsqueeze(1).expand_as(values_EH)
        out_RH.zero_()
        out_RH.scatter_reduce_(0, rows, values_EH, "amax", include_self=False)

    def segment_softmax(self, indptr: Tensor, values_EH: Tensor, out_EH: Tensor) -> None:
        rows = _row_of_entry(indptr, values_EH)
        reduced = values_EH.new_empty((len(indptr) - 1, values_EH.shape[1]))
        self.segment_max(indptr, values_EH, reduced)
        torch.exp(values_EH - reduced[rows], out=out_EH)
        self.segment_sum(indptr, out_EH, reduced)
        out_EH.div_(reduced[rows])

    def segment_softmax_backward(
        self, indptr: Tensor, probability_EH: Tensor, grad_EH: Tensor, out_EH: Tensor
    ) -> None:
        inner = grad_EH.new_empty((len(indptr) - 1, grad_EH.shape[1]))
        self.segment_sum(indptr, probability_EH * grad_EH, inner)
        rows = _row_of_entry(indptr, grad_EH)
        torch.mul(probability_EH, grad_EH - inner[rows], out=out_EH)

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
        first, second = betas
        if weight_decay:
            grad.add_(param, alpha=weight_decay)
        m.lerp_(grad, 1 - first)
        v.mul_(second).addcmul_(grad, grad, value=1 - second)
        # The gradient has been used: its memory holds the roots, so that none is allocated.
        floor = torch.sqrt(v, out=grad).div_((1 - second**step) ** 0.5).add_(eps)
        param.addcdiv_(m, floor, value=-lr / (1 - first**step))


def _entry_values(
    indptr: Tensor,
    indices: Tensor,
    row_scale: Tensor | None,
    col_scale: Tensor | None,
    values_E: Tensor,
) -> Tensor:
    """Values of the entries: the given ones times the scales of their rows and columns."""
    if col_scale is not None:
        values_E = values_E * col_scale[indices]
    if row_scale is not None:
        entries = indices.numel()
        values_E = values_E * torch.repeat_interleave(row_scale, indptr.diff(), output_size=entries)
    return values_E


def _csr(indptr: Tensor, indices: Tensor, values_E: Tensor, shape: tuple[int, int]) -> Tensor:
    # An alias of the indices: a matrix that held them would keep the key of its own cache alive.
    columns = indices.detach()
    return torch.sparse_csr_tensor(
        indptr.to(columns.dtype), columns, values_E, shape, check_invariants=False
    )


def _draws(x_nF: Tensor, key: int, row_ids: Tensor | None, first_column: int) -> Tensor:
    """Return one 16-bit draw per entry: four columns share a hash, lowest bits first."""
    count, width = x_nF.shape
    ids = torch.arange(count, device=x_nF.device) if row_ids is None else row_ids
    group, skipped = divmod(first_column, 4)
    groups = group + torch.arange((skipped + width + 3) // 4, device=x_nF.device)
    bits = extend(extend(key, ids).unsqueeze(1), groups)
    lanes = torch.arange(0, 64, 16, device=x_nF.device)
    draws = ((bits.unsqueeze(2) >> lanes) & 0xFFFF).reshape(count, 4 * len(groups))
    return draws[:, skipped : skipped + width]


def _by_head(x_nF: Tensor, heads: int) -> Tensor:
    return x_nF.view(len(x_nF), heads, x_nF.shape[1] // heads)


def _spans(heads: int, width: int, offset: int, columns: int) -> Iterator[tuple[int, int]]:
    """First and last column of each head in a slice whose first head began `offset` earlier."""
    for head in range(heads):
        yield max(head * width - offset, 0), min((head + 1) * width - offset, columns)


def _parts(count: int, width: int) -> Iterator[slice]:
    """Slices of entries whose gathered rows stay within 256 MiB of float32."""
    step = max((1 << 26) // max(width, 1), 1)
    return (slice(start, start + step) for start in range(0, count, step))


def _ranges(count: int) -> Iterator[tuple[int, int]]:
    """Ranges of elements whose positions are made at once."""
    for at in range(0, count, IDS_AT_ONCE):
        yield at, min(at + IDS_AT_ONCE, count)


def _row_of_entry(indptr: Tensor, values_EH: Tensor) -> Tensor:
    rows = torch.arange(len(indptr) - 1, device=indptr.device)
    return torch.repeat_interleave(rows, indptr.diff(), output_size=values_EH.shape[0])
