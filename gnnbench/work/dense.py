"""Work on dense tensors: products, element by element, optimizers, rows by id."""

from __future__ import annotations

from gnnbench.reuse import Reuse
from gnnbench.steps import Kind, Size, Work

ID_BYTES = 8


def gemm(op: str, rows: Size, inner: Size, width: Size, element_bytes: int) -> Work:
    """Dense product of (M, K) and (K, N): reads both, writes (M, N); 2 M K N flops.

    `op` names its form: gemm_nn, gemm_tn, gemm_nt, gemm_nn_bias (adds a row vector), gemm_nn_add
    and gemm_nt_add (add to the output).
    """
    return Work(
        kind=Kind.GEMM,
        op=op,
        bytes=(rows * inner + inner * width + rows * width) * element_bytes,
        flops=2 * rows * inner * width,
        rows=rows,
        inner=inner,
        width=width,
    )


# -- element by element ---


def elementwise(op: str, rows: Size, width: Size, *, passes: int, element_bytes: int) -> Work:
    """Read or write (rows, width) elements `passes` times; one flop per element."""
    elements = rows * width
    return Work(
        kind=Kind.ELEMENTWISE,
        op=op,
        bytes=passes * elements * element_bytes,
        flops=elements,
        rows=elements,
        width=width,
    )


def dropout(rows: Size, width: Size, element_bytes: int) -> Work:
    """Read the input, write the output."""
    return elementwise("dropout", rows, width, passes=2, element_bytes=element_bytes)


def activation(
    name: str, rows: Size, width: Size, element_bytes: int, *, dropped: bool = False
) -> Work:
    """An activation in place, with dropout in the same pass where the rows are `dropped`."""
    op = f"{name}_dropout" if dropped else name
    return elementwise(op, rows, width, passes=2, element_bytes=element_bytes)


def activation_backward(name: str, rows: Size, width: Size, element_bytes: int) -> Work:
    """Read the gradient and the output, write the gradient."""
    return elementwise(f"{name}_backward", rows, width, passes=3, element_bytes=element_bytes)


def bias(rows: Size, width: Size, element_bytes: int) -> Work:
    """Add a row vector in place."""
    return elementwise("bias", rows, width, passes=2, element_bytes=element_bytes)


def column_sum(rows: Size, width: Size, element_bytes: int) -> Work:
    """Sum the rows: the gradient of a bias."""
    return elementwise("column_sum", rows, width, passes=1, element_bytes=element_bytes)


def layer_norm(rows: Size, width: Size, element_bytes: int) -> Work:
    """Normalise each row to mean 0 and variance 1, then scale and shift.

    Three passes: statistics, input, output. Flops: 8 per element.
    """
    made = elementwise("layer_norm", rows, width, passes=3, element_bytes=element_bytes)
    return made._replace(flops=8 * rows * width)


def layer_norm_backward(rows: Size, width: Size, element_bytes: int) -> Work:
    """Gradients of input, scale and shift of `layer_norm`: five passes, 14 flops per element."""
    made = elementwise("layer_norm_backward", rows, width, passes=5, element_bytes=element_bytes)
    return made._replace(flops=14 * rows * width)


def cross_entropy(rows: Size, classes: Size, train_rows: Size, element_bytes: int) -> Work:
    """Softmax cross-entropy of the training rows, and the gradient of all rows.

    Writes (rows, classes), reads the training rows twice. Flops: 5 per training row and class.
    """
    return Work(
        kind=Kind.ELEMENTWISE,
        op="softmax_cross_entropy",
        bytes=(rows + 2 * train_rows) * classes * element_bytes,
        flops=5 * train_rows * classes,
        rows=rows * classes,
        nonzeros=train_rows * classes,
        width=classes,
    )


def attention_scores(rows: Size, width: Size, heads: Size, element_bytes: int) -> Work:
    """Dot products of rows with an attention vector per head.

    `rows` counts a row twice that is scored both as destination and as source.
    """
    return Work(
        kind=Kind.ELEMENTWISE,
        op="attention_scores",
        bytes=rows * (width + heads) * element_bytes,
        flops=2 * rows * width,
        rows=rows * width,
        width=width,
    )


def attention_scores_backward(rows: Size, width: Size, heads: Size, element_bytes: int) -> Work:
    """Gradients of `attention_scores`: reads rows, reads and writes their gradients."""
    return Work(
        kind=Kind.ELEMENTWISE,
        op="attention_scores_backward",
        bytes=rows * (3 * width + heads) * element_bytes,
        flops=4 * rows * width,
        rows=rows * width,
        width=width,
    )


def adam(parameters: Size, element_bytes: int) -> Work:
    """One Adam step: reads parameter, gradient and two moments, writes three of them."""
    return Work(
        kind=Kind.OPTIMIZER,
        op="adam",
        bytes=7 * parameters * element_bytes,
        flops=12 * parameters,
        rows=parameters,
    )


def sgd(parameters: Size, element_bytes: int) -> Work:
    """One step of plain gradient descent: reads parameter and gradient, writes the parameter."""
    return Work(
        kind=Kind.OPTIMIZER,
        op="sgd",
        bytes=3 * parameters * element_bytes,
        flops=2 * parameters,
        rows=parameters,
    )


def adagrad(parameters: Size, element_bytes: int) -> Work:
    """One Adagrad step: reads parameter, gradient and accumulator, writes two of them."""
    return Work(
        kind=Kind.OPTIMIZER,
        op="adagrad",
        bytes=5 * parameters * element_bytes,
        flops=6 * parameters,
        rows=parameters,
    )


def adagrad_rows(rows: Size, width: Size, source_rows: Size, element_bytes: int) -> Work:
    """Sparse Adagrad: some rows of an embedding table and of its accumulators, by id."""
    return Work(
        kind=Kind.OPTIMIZER,
        op="adagrad_rows",
        bytes=rows * (ID_BYTES + 5 * width * element_bytes),
        flops=6 * rows * width,
        rows=rows * width,
        width=width,
        source_rows=source_rows,
    )


# -- rows by id ---


def gather(
    rows: Size,
    width: Size,
    source_rows: Size,
    element_bytes: int,
    *,
    ids: bool = True,
    reuse: Reuse | None = None,
) -> Work:
    """Copy rows out of a table: by id, or (`ids` False) as ranges at known positions.

    `reuse` of rows whose ids rise; None where their order is random.
    """
    return _rows("gather", Kind.GATHER, rows, width, source_rows, element_bytes, ids, reuse)


def copy_blocks(elements: Size, width: Size, element_bytes: int) -> Work:
    """Copy blocks of matrices: some rows and, of each, some columns.

    Every element is read and written. A copy starts anew at every row of a block. The lists of rows
    and columns are short, and not counted.

    Args:
        elements: of all blocks.
        width: mean length of a row of a block; of a plain range, its length.
        element_bytes: of one element.
    """
    return Work(
        kind=Kind.ELEMENTWISE,
        op="copy_blocks",
        bytes=2 * elements * element_bytes,
        rows=elements,
        width=width,
    )


def gather_host(rows: Size, width: Size, source_rows: Size, element_bytes: int) -> Work:
    """Copy rows out of a table in the host's memory, on the host's cores, by id."""
    return _rows("gather_host", Kind.GATHER, rows, width, source_rows, element_bytes, True)


def scatter_add(
    rows: Size, width: Size, source_rows: Size, element_bytes: int, *, reuse: Reuse | None = None
) -> Work:
    """Add rows to those of a table, by id; `reuse` as of `gather`."""
    return _rows("scatter_add", Kind.SCATTER, rows, width, source_rows, element_bytes, True, reuse)


def _rows(
    op: str,
    kind: Kind,
    rows: Size,
    width: Size,
    source_rows: Size,
    element_bytes: int,
    ids: bool,
    reuse: Reuse | None = None,
) -> Work:
    return Work(
        kind=kind,
        op=op,
        bytes=rows * ((ID_BYTES if ids else 0) + 2 * width * element_bytes),
        rows=rows,
        width=width,
        source_rows=source_rows,
        reuse=reuse,
    )
