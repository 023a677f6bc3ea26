"""What DGL and PyG do around the products of a layer of a sampled batch.

Our plan gets patterns that are ready in both directions, and fuses degrees, sums and biases with
its products. The frameworks get each block as a list of edges, order it by one end when a product
first needs it, and make a pass over all rows for each scale and each sum. Read in the code of DGL
(`nn/pytorch/conv/graphconv.py` and `sageconv.py`, `src/array/cuda/coo2csr.cu`, `coo_sort.cu` and
`spmm.cuh`) and of PyG (`SAGEConv`; torch_sparse's `matmul.py` and `storage.py`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gnnbench import work
from gnnbench.approaches.writing.shape import StackShape
from gnnbench.published.software import Loader
from gnnbench.steps import Kind, Phase, Size, Step, Work

ORDER_LAUNCHES = 20
"""Operations that order a pattern: two copies, positions, four passes of three kernels, the other
end by position, pointers and conversions (counted in DGL's `COOToCSR` and `COOSort`)."""
ALLOCATED, ALLOCATION_LAUNCHES = 5, 20
"""Arrays that ordering a pattern allocates and frees in DGL before 0.9 (both ends, positions,
pointers and the order), and launches that take as long as one of them: cudaMalloc and cudaFree,
about 100 us each for megabytes (assumed; 50 us are published for a cudaMalloc of up to 512 KB, and
more above). Later versions take memory from the pool of PyTorch. The device waits meanwhile."""
_POSITION_BYTES, _SECTOR_BYTES = 8, 32
_DIGIT_BITS = 6
"""Bits of a key that one pass of a radix sort orders (assumed)."""
_EDGE_WEIGHT_BYTES = 100
"""Of an entry in torch_sparse's backward product of a mean: row and degree of each entry are
selected by position (two sectors, four words), and its weight is made in three passes."""


def before(step: Step, shape: StackShape, loader: Loader) -> Iterator[Step]:
    """Yield what a framework does before a step of a layer."""
    done, forward = step.work, step.phase is Phase.FORWARD
    if step.kind is not Kind.SPMM:
        return
    if loader.stored_bytes and forward and step.layer == 1:
        # Half-precision rows are read once, and written in single precision.
        widened = work.elementwise(
            "widen", done.source_rows, shape.dims[0], passes=3, element_bytes=loader.stored_bytes
        )
        yield _beside(step, "widen", widened)
    yield from _ordered(step, shape, loader)
    if loader.framework == "dgl":
        yield _pass(step, "zeros", done.rows, done.width, shape, passes=1)
    if forward and _scales(shape):
        yield _pass(step, "scale", done.source_rows, shape.dims[step.layer - 1], shape)
    if not forward and _divides(shape, loader):
        yield _pass(step, "divide", done.source_rows, done.width, shape)


def after(step: Step, shape: StackShape, loader: Loader) -> Iterator[Step]:
    """Yield what a framework does behind a step of a layer."""
    done, layer, forward = step.work, step.layer, step.phase is Phase.FORWARD
    if step.kind is Kind.SPMM:
        if loader.by_columns:
            yield _pass(step, "transpose", done.rows, done.width, shape)
        if forward and _divides(shape, loader):
            yield _pass(step, "divide", done.rows, done.width, shape)
        if forward and _scales(shape):
            yield _pass(step, "scale_targets", done.rows, shape.dims[layer], shape)
        if not forward and layer > 1:
            yield from _input_gradient(step, shape)
    elif done.op == "column_sum" and _scales(shape):
        yield _pass(step, "scale", done.rows, 1, shape)
    elif done.op == "gemm_nn_bias":
        yield _pass(step, "bias", done.rows, done.width, shape)
    elif done.op == "gemm_nn_add":
        yield _pass(step, "sum", done.rows, done.width, shape, passes=3)


def order_entries(entries: Size, key_bytes: int, bits: int) -> Work:
    """Order the entries of a pattern by one of their ends.

    Each pass of a radix sort reads the keys to count them, and moves keys and positions. The other
    end is then read by position: a sector of 32 bytes each.
    """
    passes = -(-bits // _DIGIT_BITS)
    moved = passes * (3 * key_bytes + 2 * _POSITION_BYTES)
    selected = 2 * _POSITION_BYTES + _SECTOR_BYTES + 2 * key_bytes
    total = (moved + selected) * entries
    return Work(kind=Kind.ELEMENTWISE, op="order_entries", bytes=total, rows=entries)


def _ordered(step: Step, shape: StackShape, loader: Loader) -> Iterator[Step]:
    """Order a block by the ends that a product needs and nothing has ordered yet.

    DGL orders by target for the product, and by source for the degrees of the sources or, in the
    backward pass, for the transposed product. PyG's blocks come ordered by target; it orders them
    by source, with keys of 64 bits, in the forward pass of layers whose input needs a gradient.
    """
    done, forward = step.work, step.phase is Phase.FORWARD
    sources = done.source_rows if forward else done.rows
    if loader.framework == "edges":
        return
    if loader.framework == "pyg":
        if forward and step.layer > 1:
            yield from _order(step, "by_source", order_entries(done.nonzeros, 8, 64), loader)
        elif not forward:
            weights = work.elementwise(
                "edge_weights", done.nonzeros, 1, passes=1, element_bytes=_EDGE_WEIGHT_BYTES
            )
            yield _beside(step, "edge_weights", weights)
        return
    if forward:
        yield from _order(
            step, "by_target", order_entries(done.nonzeros, 4, _bits(done.rows)), loader
        )
    if forward == _scales(shape):
        yield from _order(
            step, "by_source", order_entries(done.nonzeros, 4, _bits(sources)), loader
        )


def _order(step: Step, name: str, done: Work, loader: Loader) -> Iterator[Step]:
    yield _beside(step, f"{name}/eager", work.launches(ORDER_LAUNCHES))
    if loader.by_columns:
        allocated = work.launches(ALLOCATED * ALLOCATION_LAUNCHES)._replace(op="allocate")
        yield _beside(step, f"{name}_allocate", allocated)
    yield _beside(step, name, done)


def _input_gradient(step: Step, shape: StackShape) -> Iterator[Step]:
    """Yield passes behind a transposed product, over the gradient of a layer's input.

    Scaled rows are scaled again. Targets are the first rows of the sources: where they have a
    weight of their own, their gradient is written into zeros and added.
    """
    done, width = step.work, shape.dims[step.layer - 1]
    if _scales(shape):
        yield _pass(step, "scale", done.rows, width, shape)
    if shape.model.self_weight:
        yield _pass(step, "slice", done.source_rows, width, shape)
        yield _pass(step, "accumulate", done.rows, width, shape, passes=4)


def _scales(shape: StackShape) -> bool:
    """Whether rows are scaled on both ends of an edge."""
    return shape.model.normalisation == "symmetric"


def _divides(shape: StackShape, loader: Loader) -> bool:
    """Whether sums are divided by degrees in a pass of its own: torch_sparse fuses it."""
    return shape.model.normalisation == "mean" and loader.framework in ("dgl", "edges")


def _bits(rows: Size) -> int:
    return int(np.max(rows)).bit_length()


def _pass(
    step: Step, name: str, rows: Size, width: Size, shape: StackShape, *, passes: int = 2
) -> Step:
    size = shape.element_bytes
    return _beside(
        step, name, work.elementwise(name, rows, width, passes=passes, element_bytes=size)
    )


def _beside(step: Step, name: str, done: Work) -> Step:
    return Step(name=f"{step.name}_{name}", work=done, phase=step.phase, layer=step.layer)
