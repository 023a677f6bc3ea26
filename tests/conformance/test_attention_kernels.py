"""Kernels of attention, every backend against dense autograd in float64."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="kernels need torch")

from test_kernels import close, kernels, matrix, rand, small_ranges  # noqa: E402, F401

SHAPES = [(1, 5), (3, 4), (8, 8), (5, 1)]  # heads, width of a head


def empty(*shape: int) -> torch.Tensor:
    return torch.full(shape, torch.nan, dtype=torch.float64)


def entries(indptr: torch.Tensor, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Row and column of every entry."""
    rows = torch.repeat_interleave(torch.arange(len(indptr) - 1), indptr.diff())
    return rows, indices.long()


def turned(indptr, indices, columns: int):
    """The transposed pattern and where its entries lie among the others."""
    rows, cols = entries(indptr, indices)
    order = torch.argsort(cols, stable=True)
    counts = torch.bincount(cols, minlength=columns)
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    return starts, rows[order].to(torch.int32), order


@pytest.mark.parametrize(("heads", "width"), SHAPES)
def test_head_scores_are_dots_of_heads_with_their_vectors(kernels, heads: int, width: int) -> None:  # noqa: F811
    x = rand(13, heads * width).requires_grad_()
    vectors = rand(heads, width, seed=2).requires_grad_()
    wanted = (x.view(13, heads, width) * vectors).sum(2)
    out, grad = empty(13, heads), rand(13, heads, seed=3)
    kernels.head_scores(x.detach(), vectors.detach(), out)
    close(out, wanted.detach())
    wanted.backward(grad)
    before = rand(13, heads * width, seed=4)
    x_grad, vector_grad = before.clone(), empty(heads, width)
    kernels.head_scores_backward(x.detach(), vectors.detach(), grad, x_grad, vector_grad)
    close(x_grad, before + x.grad)
    close(vector_grad, vectors.grad)


def test_sddmm_add_is_the_leaky_sum_of_both_ends(kernels) -> None:  # noqa: F811
    indptr, indices, _ = matrix(30, 22)
    rows, cols = entries(indptr, indices)
    to, source, out = rand(30, 3), rand(22, 3, seed=2), empty(len(cols), 3)
    kernels.sddmm_add(indptr, indices, to, source, 0.2, out)
    wanted = torch.nn.functional.leaky_relu(to[rows] + source[cols], 0.2)
    close(out, wanted)
    assert (out < 0).any() and (out > 0).any()
    grad = rand(len(cols), 3, seed=5)
    want = torch.where(out < 0, 0.2 * grad, grad)
    kernels.leaky_backward(out, 0.2, grad)
    close(grad, want)


@pytest.mark.parametrize(("heads", "width"), SHAPES)
def test_weighted_sums_and_their_gradients_are_those_of_autograd(
    kernels,  # noqa: F811
    heads: int,
    width: int,
) -> None:
    """spmm_heads forward, sddmm_dot for the weights, spmm_heads on the transpose for the rows."""
    indptr, indices, _ = matrix(30, 22)
    rows, cols = entries(indptr, indices)
    weights = rand(len(cols), heads).requires_grad_()
    x = rand(22, heads * width, seed=2).requires_grad_()
    messages = weights.unsqueeze(2) * x.view(22, heads, width)[cols]
    wanted = torch.zeros(30, heads, width, dtype=torch.float64).index_add(0, rows, messages)
    out, grad = empty(30, heads * width), rand(30, heads * width, seed=3)
    kernels.spmm_heads(indptr, indices, weights.detach(), x.detach(), out)
    close(out, wanted.detach().reshape(30, -1))
    wanted.reshape(30, -1).backward(grad)
    weight_grad, x_grad = empty(len(cols), heads), empty(22, heads * width)
    kernels.sddmm_dot(indptr, indices, grad, x.detach(), weight_grad)
    close(weight_grad, weights.grad)
    indptr_t, indices_t, places = turned(indptr, indices, 22)
    kernels.spmm_heads(indptr_t, indices_t, weights.detach(), grad, x_grad, places)
    close(x_grad, x.grad)


@pytest.mark.parametrize(("start", "stop"), [(0, 3), (2, 9), (4, 8), (5, 6), (3, 12)])
def test_a_slice_of_columns_may_cut_heads(kernels, start: int, stop: int) -> None:  # noqa: F811
    """Three heads of four columns: the slice's part of the sum, and of each weight's gradient."""
    indptr, indices, _ = matrix(30, 22)
    rows, cols = entries(indptr, indices)
    head = torch.arange(12) // 4
    first, last = int(head[start]), int(head[stop - 1]) + 1
    weights, x, g = rand(len(cols), 3), rand(22, 12, seed=2), rand(30, 12, seed=3)
    mine, x_slice = weights[:, first:last].contiguous(), x[:, start:stop].contiguous()
    offset = start - 4 * first
    out, wanted = empty(30, stop - start), torch.zeros(30, 12, dtype=torch.float64)
    wanted.index_add_(0, rows, weights[:, head] * x[cols])
    kernels.spmm_heads(indptr, indices, mine, x_slice, out, None, 4, offset)
    close(out, wanted[:, start:stop])
    product = g[rows] * x[cols]
    product[:, :start] = product[:, stop:] = 0
    wanted = product.view(-1, 3, 4).sum(2)
    got = empty(len(cols), last - first)
    g_slice = g[:, start:stop].contiguous()
    kernels.sddmm_dot(indptr, indices, g_slice, x_slice, got, 4, offset)
    close(got, wanted[:, first:last])


def test_a_segment_sum_may_take_its_entries_from_elsewhere(kernels) -> None:  # noqa: F811
    indptr, indices, dense = matrix(30, 22)
    values, out = rand(len(indices), 2), empty(22, 2)
    indptr_t, _, places = turned(indptr, indices, 22)
    kernels.segment_sum(indptr_t, values, out, places)
    spread = torch.zeros(30, 22, 2, dtype=torch.float64)
    spread[dense > 0] = values
    close(out, spread.sum(0))


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_elu_dropout_and_its_gradient(kernels, rate: float) -> None:  # noqa: F811
    """A zero that was kept has slope one, a zero that was dropped has none."""
    y, ids = rand(40, 9), torch.arange(40) * 3
    y[:, 0] = 0.0
    out, kept = empty(40, 9), torch.ones(40, 9, dtype=torch.float64)
    kernels.dropout(kept, kept, rate, 11, ids)  # 0, or the factor of survivors
    leaf = y.clone().requires_grad_()
    wanted = torch.nn.functional.elu(leaf) * kept
    kernels.elu_dropout(y, out, rate, 11, ids)
    close(out, wanted.detach())
    grad, got = rand(40, 9, seed=6), empty(40, 9)
    wanted.backward(grad)
    kernels.elu_dropout_backward(grad, out, rate, 11, ids, got)
    close(got, leaf.grad)


def test_kernels_of_attention_take_no_rows_and_no_entries(kernels) -> None:  # noqa: F811
    indptr, none = torch.zeros(5, dtype=torch.int64), torch.zeros(0, dtype=torch.int32)
    out = empty(4, 6)
    kernels.spmm_heads(indptr, none, rand(0, 2), rand(3, 6), out)
    assert (out == 0).all()
    kernels.sddmm_dot(indptr, none, rand(4, 6), rand(3, 6), rand(0, 2))
    kernels.sddmm_add(indptr, none, rand(4, 2), rand(3, 2), 0.2, rand(0, 2))
    kernels.head_scores(rand(0, 6), rand(2, 3), rand(0, 2))
    grad = empty(2, 3)
    kernels.head_scores_backward(rand(0, 6), rand(2, 3), rand(0, 2), rand(0, 6), grad)
    assert (grad == 0).all()
