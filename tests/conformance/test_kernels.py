"""Kernels of every backend against dense references in float64, and against each other."""

from __future__ import annotations

import dataclasses
import inspect
from itertools import pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="kernels need torch")

from gnnbench.data import keys  # noqa: E402
from gnnbench_runtime.kernels import (  # noqa: E402
    CpuKernels,
    TorchKernels,
    backend,
    torch_ops,
)

BACKENDS = {
    "cpu": CpuKernels(1),
    "cpu_threads": CpuKernels(3),
    "torch": TorchKernels("cpu"),
}
WIDTHS = (1, 5, 8, 16, 40, 64, 100, 128, 131, 300)


@pytest.fixture(params=BACKENDS)
def kernels(request: pytest.FixtureRequest) -> CpuKernels | TorchKernels:
    return BACKENDS[request.param]


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make tiny matrices worth several threads."""
    monkeypatch.setattr("gnnbench_runtime.kernels.cpu.LEAST_VALUES", 8)


def matrix(rows: int, cols: int, seed: int = 0, index_type: torch.dtype = torch.int32):
    """A directed sparse pattern with empty rows and never-used columns; dense 0/1 beside it."""
    rng = np.random.default_rng(seed)
    dense = rng.random((rows, cols)) < 0.25
    dense[::4], dense[:, ::5] = False, False
    indptr = torch.from_numpy(np.r_[0, dense.sum(1).cumsum()].astype(np.int64))
    indices = torch.from_numpy(np.nonzero(dense)[1].copy()).to(index_type)
    return indptr, indices, torch.from_numpy(dense.astype(np.float64))


def rand(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


# -- sparse products ---------------------------------------------------------------------------


@pytest.mark.parametrize("width", WIDTHS)
def test_spmm_with_every_scale_is_the_dense_product(kernels, width: int) -> None:
    indptr, indices, dense = matrix(30, 22)
    x, out = rand(22, width), torch.full((30, width), torch.nan, dtype=torch.float64)
    row, col, own, edge = rand(30), rand(22), rand(13), rand(len(indices))
    kernels.spmm(
        indptr, indices, x, out, row_scale=row, col_scale=col, self_scale=own, edge_scale=edge
    )
    weighted = dense.clone()
    weighted[dense > 0] = edge
    expected = row[:, None] * (weighted @ (col[:, None] * x))
    expected[:13] += own[:, None] * x[:13]
    close(out, expected)


@pytest.mark.parametrize("index_type", [torch.int32, torch.int64])
def test_spmm_without_scales_sums_neighbours(kernels, index_type: torch.dtype) -> None:
    indptr, indices, dense = matrix(17, 40, index_type=index_type)
    x, out = rand(40, 9), torch.empty(17, 9, dtype=torch.float64)
    kernels.spmm(indptr, indices, x, out)
    close(out, dense @ x)
    assert (out[::4] == 0).all(), "rows without entries are zero"


def test_spmm_accumulates_on_request(kernels) -> None:
    indptr, indices, dense = matrix(17, 20)
    x, out, row = rand(20, 33), rand(17, 33, seed=2), rand(17)
    expected = out + row[:, None] * (dense @ x)
    kernels.spmm(indptr, indices, x, out, row_scale=row, accumulate=True)
    close(out, expected)


def test_the_transpose_with_exchanged_scales_is_the_backward_pass(kernels) -> None:
    _, _, dense = matrix(14, 25)
    indptr_t = torch.from_numpy(np.r_[0, dense.sum(0).numpy().cumsum()].astype(np.int64))
    indices_t = dense.t().nonzero()[:, 1].to(torch.int32)
    row, col, own = rand(14), rand(25, seed=2), rand(14, seed=3)
    x = rand(25, 20, seed=4).requires_grad_()
    y = row[:, None] * (dense @ (col[:, None] * x)) + own[:, None] * x[:14]
    grad = rand(14, 20, seed=5)
    y.backward(grad)
    out = torch.empty(25, 20, dtype=torch.float64)
    kernels.spmm(indptr_t, indices_t, grad, out, row_scale=col, col_scale=row, self_scale=own)
    close(out, x.grad)


def test_spmm_of_a_matrix_without_entries_is_zero_plus_self(kernels) -> None:
    indptr, indices = torch.zeros(5, dtype=torch.int64), torch.zeros(0, dtype=torch.int32)
    x, out = rand(6, 7), torch.full((4, 7), torch.nan, dtype=torch.float64)
    kernels.spmm(indptr, indices, x, out, self_scale=torch.ones(2, dtype=torch.float64))
    close(out[:2], x[:2])
    assert (out[2:] == 0).all()


def test_spmm_takes_no_rows_and_no_columns(kernels) -> None:
    none = torch.zeros(0, dtype=torch.int32)
    kernels.spmm(torch.zeros(1, dtype=torch.int64), none, rand(3, 4), rand(0, 4))
    indptr, indices, _ = matrix(6, 6)
    kernels.spmm(indptr, indices, rand(6, 0), rand(6, 0))


def test_spmm_in_float32_is_near_float64(kernels) -> None:
    indptr, indices, dense = matrix(30, 22)
    x = rand(22, 40)
    out = torch.empty(30, 40)
    kernels.spmm(indptr, indices, x.float(), out)
    close(out.double(), dense @ x, 1e-5)


def test_spmm_does_not_depend_on_threads() -> None:
    indptr, indices, _ = matrix(300, 80)
    x = rand(80, 40).float()
    one, many = torch.empty(300, 40), torch.empty(300, 40)
    BACKENDS["cpu"].spmm(indptr, indices, x, one)
    BACKENDS["cpu_threads"].spmm(indptr, indices, x, many)
    assert torch.equal(one, many)


def test_a_sparse_matrix_is_made_once_and_goes_with_its_pattern() -> None:
    """A pattern that is new in every epoch must not leave its matrix behind."""
    torch_kernels, out = TorchKernels("cpu"), rand(6, 4)
    for _ in range(3):
        indptr, indices, _ = matrix(6, 6)
        for _ in range(2):
            torch_kernels.spmm(indptr, indices, rand(6, 4), out)
        assert [len(made) for made in torch_kernels._matrices.values()] == [1]
        del indptr, indices
    assert not len(torch_kernels._matrices)


def test_kernels_refuse_matrices_with_gaps() -> None:
    indptr, indices, _ = matrix(6, 6)
    with pytest.raises(ValueError, match="contiguous"):
        BACKENDS["cpu"].spmm(indptr, indices, rand(6, 8)[:, :4], rand(6, 4))
    with pytest.raises(ValueError, match="contiguous"):
        BACKENDS["cpu"].spmm(indptr, indices, rand(6, 4), rand(6, 4), row_scale=rand(12)[::2])


# -- rows --------------------------------------------------------------------------------------


def test_gather_takes_rows_in_order(kernels) -> None:
    x, ids = rand(20, 7), torch.tensor([3, 3, 19, 0])
    out = torch.empty(4, 7, dtype=torch.float64)
    kernels.gather_rows(x, ids, out)
    assert torch.equal(out, x[ids])


def test_scatter_adds_repeated_rows(kernels) -> None:
    x, ids, out = rand(6, 40), torch.tensor([2, 2, 2, 0, 4, 2]), rand(5, 40, seed=2)
    expected = out.clone()
    for i, row in enumerate(ids.tolist()):
        expected[row] += x[i]
    kernels.scatter_add_rows(out, ids, x)
    close(out, expected)


@dataclasses.dataclass(frozen=True)
class Block:
    width: int
    rows: np.ndarray
    columns: np.ndarray


@pytest.mark.parametrize("columns", [[0, 3, 4, 9], [2, 3, 4, 5], list(range(10)), [9]])
def test_a_block_is_copied_out_of_a_shard_and_back(kernels, columns: list[int]) -> None:
    """The vector holds elements 13 ... 76 of a matrix of 8 rows and 10 columns."""
    block = Block(10, np.array([0, 1, 4, 5, 7]), np.array(columns))
    flat = torch.arange(80, dtype=torch.float64)
    ids = (block.rows[:, None] * 10 + block.columns).ravel()
    first, last = np.searchsorted(ids, (13, 77)).tolist()
    shard = flat[13:77].clone()
    out = torch.empty(last - first, dtype=torch.float64)
    kernels.gather_block(shard, block, -13, first, out)
    assert out.tolist() == ids[first:last].tolist()
    kernels.scatter_block(shard, block, -13, first, -out)
    expected = flat[13:77].clone()
    expected[ids[first:last] - 13] *= -1
    assert torch.equal(shard, expected)


def test_positions_of_a_block_are_made_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_ops, "IDS_AT_ONCE", 7)
    block = Block(6, np.array([1, 2, 5]), np.array([0, 2, 3, 5]))
    flat, out = rand(36), torch.empty(12, dtype=torch.float64)
    BACKENDS["torch"].gather_block(flat, block, 0, 0, out)
    assert torch.equal(out, flat.view(6, 6)[[1, 2, 5]][:, [0, 2, 3, 5]].flatten())


@pytest.mark.parametrize("heads", [1, 4])
def test_segments_reduce_rows(kernels, heads: int) -> None:
    indptr = torch.tensor([0, 3, 3, 4, 9])
    values = rand(9, heads)
    total, most = rand(4, heads), rand(4, heads)
    kernels.segment_sum(indptr, values, total)
    kernels.segment_max(indptr, values, most)
    for r, (a, b) in enumerate(pairwise(indptr.tolist())):
        close(total[r], values[a:b].sum(0))
        close(most[r], values[a:b].amax(0) if b > a else torch.zeros(heads, dtype=torch.float64))


def test_segment_softmax_and_its_gradient_match_autograd(kernels) -> None:
    indptr, values, grad = torch.tensor([0, 3, 3, 4, 9]), 50 * rand(9, 2), rand(9, 2, seed=3)
    leaf = values.clone().requires_grad_()
    parts = [leaf[a:b].softmax(0) for a, b in pairwise(indptr.tolist())]
    expected = torch.cat(parts)
    expected.backward(grad)
    out, back = torch.empty_like(values), torch.empty_like(values)
    kernels.segment_softmax(indptr, values, out)
    close(out, expected.detach())
    kernels.segment_softmax_backward(indptr, out, grad, back)
    close(back, leaf.grad)


# -- dropout -----------------------------------------------------------------------------------


def kept(key: int, row: int, column: int, p: float) -> bool:
    """The definition, in Python integers: four columns share a hash of (key, row, column // 4)."""
    bits = keys.extend(key, row, column // 4)
    return ((bits >> 16 * (column % 4)) & 0xFFFF) >= round(p * 65536)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.97])
def test_the_mask_is_a_function_of_key_row_and_column(kernels, p: float) -> None:
    ids, key = torch.tensor([5, 0, 2**40, 7]), 2**63 + 11
    x, out = torch.ones(4, 11, dtype=torch.float64), torch.empty(4, 11, dtype=torch.float64)
    kernels.dropout(x, out, p, key, ids)
    expected = [[kept(key, row, f, p) for f in range(11)] for row in ids.tolist()]
    assert (out > 0).tolist() == expected
    close(out[out > 0], torch.full_like(out[out > 0], 65536 / (65536 - round(p * 65536))))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [1, 4, 70])
def test_backends_drop_and_scale_to_the_same_bits(dtype: torch.dtype, width: int) -> None:
    x = rand(60, width).to(dtype)
    outs = []
    for kernels in BACKENDS.values():
        a, b, c = (torch.empty_like(x) for _ in range(3))
        kernels.relu_dropout(x, a, 0.3, 99)
        kernels.dropout(x, b, 0.3, 99)
        kernels.relu_dropout_backward(x, a, 0.3, c)
        outs.append((a, b, c))
    for other in outs[1:]:
        assert all(torch.equal(p, q) for p, q in zip(outs[0], other, strict=True))


def test_dropout_keeps_the_expectation(kernels) -> None:
    x = torch.ones(2000, 50, dtype=torch.float64)
    out = torch.empty_like(x)
    kernels.dropout(x, out, 0.4, 5)
    error = (0.4 / 0.6 / x.numel()) ** 0.5
    assert abs(float(out.mean()) - 1) < 5 * error


def test_relu_dropout_backward_is_the_gradient_of_what_passed(kernels) -> None:
    y, grad = rand(30, 21), rand(30, 21, seed=2)
    out, back = torch.empty_like(y), torch.empty_like(y)
    kernels.relu_dropout(y, out, 0.5, 3)
    kernels.relu_dropout_backward(grad, out, 0.5, back)
    ones, mask = torch.ones_like(y), torch.empty_like(y)
    kernels.dropout(ones, mask, 0.5, 3)
    close(out, torch.relu(y) * mask)
    close(back, grad * mask * (y > 0))


def test_no_dropout_is_plain_relu_in_place(kernels) -> None:
    y = rand(9, 10)
    expected = torch.relu(y)
    kernels.relu_dropout(y, y, 0.0, 0)
    assert torch.equal(y, expected)


def test_relu_lets_nan_through(kernels) -> None:
    y = torch.full((2, 5), torch.nan)
    kernels.relu_dropout(y, y, 0.0, 0)
    assert y.isnan().all()


@pytest.mark.parametrize("p", [-0.1, 1.0])
def test_dropout_of_everything_is_refused(kernels, p: float) -> None:
    with pytest.raises(ValueError, match="dropout"):
        kernels.dropout(rand(2, 2), rand(2, 2), p, 0)


# -- loss and optimizer ------------------------------------------------------------------------


def test_cross_entropy_and_gradient_match_autograd(kernels) -> None:
    logits, labels = (5 * rand(12, 6)).requires_grad_(), torch.arange(12) % 6
    rows, grad = torch.tensor([1, 4, 11]), rand(12, 6)
    expected = torch.nn.functional.cross_entropy(logits[rows], labels[rows], reduction="sum") / 7
    expected.backward()
    loss = kernels.softmax_cross_entropy(logits.detach(), labels, rows, 1 / 7, grad)
    close(loss, expected.detach())
    close(grad, logits.grad)


def test_binary_cross_entropy_and_gradient_match_autograd(kernels) -> None:
    logits, labels = (5 * rand(12, 6)).requires_grad_(), (rand(12, 6, seed=2) > 0).float()
    rows, grad = torch.tensor([1, 4, 11]), rand(12, 6)
    expected = (
        torch.nn.functional.binary_cross_entropy_with_logits(
            logits[rows], labels[rows].double(), reduction="none"
        )
        .mean(1)
        .sum()
        / 7
    )
    expected.backward()
    loss = kernels.softmax_cross_entropy(logits.detach(), labels, rows, 1 / 7, grad)
    close(loss, expected.detach())
    close(grad, logits.grad)


def test_a_rank_without_training_rows_has_zero_loss_and_gradient(kernels) -> None:
    grad = rand(4, 3)
    none = torch.zeros(0, dtype=torch.int64)
    loss = kernels.softmax_cross_entropy(rand(4, 3), torch.zeros(4).long(), none, 0.5, grad)
    assert float(loss) == 0
    assert (grad == 0).all()


@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_adam_is_torch_adam(kernels, weight_decay: float) -> None:
    start = rand(57)
    reference = torch.nn.Parameter(start.clone())
    optimizer = torch.optim.Adam([reference], lr=0.02, weight_decay=weight_decay)
    param, m, v = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    for step in range(1, 8):
        grad = rand(57, seed=step)
        reference.grad = grad.clone()
        optimizer.step()
        kernels.adam(param, grad, m, v, step, 0.02, weight_decay=weight_decay)
        close(param, reference.detach())


# -- the interface -----------------------------------------------------------------------------


def test_backends_have_the_same_names_and_arguments() -> None:
    def public(kind: type) -> dict[str, list[str]]:
        methods = inspect.getmembers(kind, inspect.isfunction)
        return {n: list(inspect.signature(f).parameters) for n, f in methods if n[0] != "_"}

    assert public(CpuKernels) == public(TorchKernels)


def test_the_device_chooses_the_backend() -> None:
    assert isinstance(backend("cpu", 2), CpuKernels)
    assert isinstance(backend(torch.device("cuda", 1)), TorchKernels)


def test_torch_mixes_to_the_bits_of_python() -> None:
    values = [0, 1, 2**63, 2**64 - 1, keys.GOLDEN]
    bits = torch.tensor(np.array(values, np.uint64).view(np.int64))
    got = torch_ops.mix64(bits).numpy().view(np.uint64).tolist()
    assert got == [keys.mix64(v) for v in values]
    got = torch_ops.extend(2**63 + 5, bits).numpy().view(np.uint64).tolist()
    assert got == [keys.extend(2**63 + 5, v) for v in values]
