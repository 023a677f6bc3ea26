"""Bytes, flops and facts of every operation, each formula once.

The writer of a plan calls these functions with the sizes of the structure, the runtime with the
sizes of the tensors that it holds, so that comparing the two says something. Sizes may be integers,
or int64 arrays with one entry per rank (see `gnnbench.steps`).

Conventions: `element_bytes` is 4 (float32) or 8 (float64). Row pointers and vertex ids take 8
bytes, column numbers of a sparse pattern 4. Bytes are those that an operation must at least move:
each input read once, each output written once. Flops count multiplications and additions
separately.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gnnbench.steps import NO_ROOT, Ints, Kind, Size, Work, larger, smaller

ID_BYTES = 8
INDEX_BYTES = 4


def all_reduce_bytes(buffer_bytes: int, world_size: int) -> int:
    """Bytes a rank sends in a ring all-reduce: floor(2 (P-1) S / P).

    Source: fullgraph section 2.
    """
    return 2 * (world_size - 1) * buffer_bytes // world_size


# -- sparse and dense products -------------------------------------------------------------------


def spmm(
    *,
    rows: Size,
    nonzeros: Size,
    width: Size,
    source_rows: Size,
    element_bytes: int,
    adds: bool = False,
    edge_weights: bool = False,
    index_bytes: int = INDEX_BYTES,
) -> Work:
    """Y = A X with a pattern A scaled by rows and columns; with `adds`, Y += A X, which reads Y.

    Flops 2 E w. Bytes: pointers 8 (n + 1), column numbers E, min(u, E) rows of X, n rows of Y
    (twice if it adds), and E weights where edges have weights of their own. Source: fullgraph
    section 2.
    """
    passes = 2 if adds else 1
    moved = (smaller(source_rows, nonzeros) + passes * rows) * width * element_bytes
    per_entry = index_bytes + (element_bytes if edge_weights else 0)
    return Work(
        kind=Kind.SPMM,
        op="spmm_edges" if edge_weights else "spmm",
        bytes=8 * (rows + 1) + per_entry * nonzeros + moved,
        flops=2 * nonzeros * width,
        rows=rows,
        nonzeros=nonzeros,
        width=width,
        source_rows=source_rows,
    )


def spmm_weighted(
    *,
    rows: Size,
    nonzeros: Size,
    width: Size,
    source_rows: Size,
    heads: Size,
    element_bytes: int,
    transpose: bool = False,
) -> Work:
    """Y = A X where every nonzero has one weight per head; `transpose` reads weights by place.

    Flops 2 E w. Bytes: as `spmm`, and E weights for each head.
    """
    s = element_bytes
    moved = (smaller(source_rows, nonzeros) + rows) * width * s
    return Work(
        kind=Kind.SPMM,
        op="spmm_weighted_t" if transpose else "spmm_weighted",
        bytes=8 * (rows + 1) + INDEX_BYTES * nonzeros + nonzeros * heads * s + moved,
        flops=2 * nonzeros * width,
        rows=rows,
        nonzeros=nonzeros,
        width=width,
        inner=heads,
        source_rows=source_rows,
    )


def sddmm_add(
    *, rows: Size, nonzeros: Size, heads: Size, source_rows: Size, element_bytes: int
) -> Work:
    """Scores of nonzeros: LeakyReLU of the sum of both ends' scores, per head. 3 flops each."""
    entries = rows + smaller(source_rows, nonzeros) + nonzeros
    return Work(
        kind=Kind.SDDMM,
        op="sddmm_add",
        bytes=8 * (rows + 1) + INDEX_BYTES * nonzeros + entries * heads * element_bytes,
        flops=3 * nonzeros * heads,
        rows=rows,
        nonzeros=nonzeros,
        width=heads,
        source_rows=source_rows,
    )


def sddmm_dot(
    *, rows: Size, nonzeros: Size, width: Size, heads: Size, source_rows: Size, element_bytes: int
) -> Work:
    """Gradients of the weights of nonzeros: dot products of two rows per head. Flops 2 E w."""
    s = element_bytes
    moved = nonzeros * heads * s + (rows + smaller(source_rows, nonzeros)) * width * s
    return Work(
        kind=Kind.SDDMM,
        op="sddmm_dot",
        bytes=8 * (rows + 1) + INDEX_BYTES * nonzeros + moved,
        flops=2 * nonzeros * width,
        rows=rows,
        nonzeros=nonzeros,
        width=width,
        inner=heads,
        source_rows=source_rows,
    )


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


# -- element by element --------------------------------------------------------------------------


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


# -- rows by id ----------------------------------------------------------------------------------


def gather(
    rows: Size, width: Size, source_rows: Size, element_bytes: int, *, ids: bool = True
) -> Work:
    """Copy rows out of a table: by id, or (`ids` False) runs of them at known places."""
    return _rows("gather", Kind.GATHER, rows, width, source_rows, element_bytes, ids)


def scatter_add(rows: Size, width: Size, source_rows: Size, element_bytes: int) -> Work:
    """Add rows to those of a table, by id."""
    return _rows("scatter_add", Kind.SCATTER, rows, width, source_rows, element_bytes, True)


def _rows(
    op: str, kind: Kind, rows: Size, width: Size, source_rows: Size, element_bytes: int, ids: bool
) -> Work:
    return Work(
        kind=kind,
        op=op,
        bytes=rows * ((ID_BYTES if ids else 0) + 2 * width * element_bytes),
        rows=rows,
        width=width,
        source_rows=source_rows,
    )


# -- sampling ------------------------------------------------------------------------------------


def sample(*, seeds: Size, edges: Size, vertices: Size, read: Size, op: str = "sample") -> Work:
    """Draw neighbours.

    Args:
        seeds: destinations of all hops together.
        edges: drawn edges of all hops together.
        vertices: distinct vertices that were found.
        read: bytes touched.
        op: cost class of the sampler.
    """
    return Work(
        kind=Kind.SAMPLE, op=op, bytes=read, rows=seeds, nonzeros=edges, source_rows=vertices
    )


def draw_neighbours(vertices: Sequence[Size], edges: Sequence[Size]) -> Work:
    """Draw the blocks of a batch: an id per edge, an id and a table entry per vertex.

    Args:
        vertices: n_0 ... n_L, input layer first.
        edges: e_1 ... e_L.
    """
    every, drawn = _total(vertices), _total(edges)
    read = ID_BYTES * drawn + 16 * every
    return sample(seeds=every - vertices[0], edges=drawn, vertices=vertices[0], read=read)


def prepare_blocks(vertices: Sequence[Size], turned: Size) -> Work:
    """Make blocks ready to train on; `turned` edges belong to blocks that are transposed."""
    every = _total(vertices)
    read = ID_BYTES * turned + 16 * every
    return sample(seeds=every, edges=turned, vertices=vertices[0], read=read, op="prepare_blocks")


def route(rows: Size) -> Work:
    """Sort ids by owner: owner, position and place of each."""
    return Work(
        kind=Kind.SAMPLE, op="route", bytes=3 * ID_BYTES * rows, rows=rows, source_rows=rows
    )


def rebuild_graph(entries: Size) -> Work:
    """Make a graph of pairs of 64-bit ids: two radix sorts, by destination and by source.

    Each sort has a pass per byte of the key, which reads and writes 16 bytes per pair:
    2 sorts x 8 passes x 2 x 16 E bytes.
    """
    read = 2 * ID_BYTES * 2 * 2 * ID_BYTES * entries
    return Work(kind=Kind.ELEMENTWISE, op="rebuild", bytes=read, rows=entries)


def _total(sizes: Sequence[Size]) -> Size:
    return sum(sizes[1:], sizes[0])


# -- whole modules -------------------------------------------------------------------------------


def module(
    op: str,
    *,
    flops: Size,
    bytes: Size,
    rows: Size,
    nonzeros: Size = 0,
    width: Size = 0,
    inner: Size = 0,
) -> Work:
    """One direction of a torch module trained by autograd: forward or backward.

    Bytes and flops come from the module's own formula; `op` names module and direction, such as
    "mlp_forward".
    """
    return Work(
        kind=Kind.MODULE,
        op=op,
        bytes=bytes,
        flops=flops,
        rows=rows,
        nonzeros=nonzeros,
        width=width,
        inner=inner,
    )


def launches(calls: Size) -> Work:
    """Operations so small that issuing them is all they cost."""
    return Work(kind=Kind.ELEMENTWISE, op="eager", calls=calls)


def host(op: str, *, rows: Size, bytes: Size = 0) -> Work:
    """Work of the host beside tensors: bookkeeping over `rows` items."""
    return Work(kind=Kind.HOST, op=op, rows=rows, bytes=bytes)


# -- moving --------------------------------------------------------------------------------------


def to_host(size: Size) -> Work:
    """Copy bytes from the device to the host."""
    return Work(kind=Kind.COPY, op="copy_d2h", bytes=size)


def to_device(size: Size) -> Work:
    """Copy bytes from the host to the device."""
    return Work(kind=Kind.COPY, op="copy_h2d", bytes=size)


def read(size: Size, requests: Size = 1, op: str = "read") -> Work:
    """Read bytes from the disk in so many requests."""
    return Work(kind=Kind.READ, op=op, bytes=size, rows=requests)


def write(size: Size, requests: Size = 1, op: str = "write") -> Work:
    """Write bytes to the disk in so many requests."""
    return Work(kind=Kind.WRITE, op=op, bytes=size, rows=requests)


# -- communication -------------------------------------------------------------------------------


def all_reduce(elements: Size, element_bytes: int, world_size: int, *, width: Size = 0) -> Work:
    """Sum a buffer over `world_size` ranks: every rank has the sum."""
    size: Any = elements * element_bytes
    return Work(
        kind=Kind.ALL_REDUCE,
        op="all_reduce",
        bytes=all_reduce_bytes(size, world_size),
        rows=elements,
        width=width,
        buffer_bytes=size,
    )


def all_to_all(
    send: Ints,
    received: Size,
    unit_bytes: int,
    *,
    width: Size = 0,
    buffer_bytes: Size | None = None,
) -> Work:
    """Send units to each rank of the group and receive some from each.

    Args:
        send: units to each rank, int64 [P], or [ranks, P] for a class; 0 for the rank itself.
        received: units that come from other ranks.
        unit_bytes: bytes of a unit, such as a row.
        width: elements of a unit, where that is known.
        buffer_bytes: the larger of both buffers, if they hold more than what travels.
    """
    sent = send.sum(axis=-1)
    total: Size = int(sent) if send.ndim == 1 else sent
    if buffer_bytes is None:
        buffer_bytes = larger(total, received) * unit_bytes
    return Work(
        kind=Kind.ALL_TO_ALL,
        op="all_to_all",
        bytes=total * unit_bytes,
        rows=total * width if isinstance(width, int) and width else total,
        width=width,
        buffer_bytes=buffer_bytes,
        send=send,
        unit_bytes=unit_bytes,
    )


def broadcast(
    elements: Size, element_bytes: int, world_size: int, *, root: Size, is_root: bool | Any
) -> Work:
    """Copy the root's buffer to all others.

    Args:
        elements: of the buffer.
        root: the rank that sends.
        is_root: whether this rank is the root; a bool array [ranks] for a class.
    """
    size = elements * element_bytes
    sent: Size
    if isinstance(is_root, bool | np.bool_):
        sent = size * (world_size - 1) if is_root else 0
    else:
        sent = np.where(is_root, size * (world_size - 1), 0)
    return Work(
        kind=Kind.BROADCAST,
        op="broadcast",
        bytes=sent,
        rows=elements,
        buffer_bytes=size,
        root=root,
    )


def all_gather(elements: Size, element_bytes: int, world_size: int) -> Work:
    """Every rank has the blocks of all ranks; `elements` are those of its own block."""
    size = elements * element_bytes
    return Work(
        kind=Kind.ALL_GATHER,
        op="all_gather",
        bytes=(world_size - 1) * size,
        rows=elements,
        buffer_bytes=world_size * size,
    )


def reduce_scatter(elements: Size, element_bytes: int, world_size: int) -> Work:
    """Sum the ranks' buffers; every rank keeps one block of `elements` of the sum."""
    size = elements * element_bytes
    return Work(
        kind=Kind.REDUCE_SCATTER,
        op="reduce_scatter",
        bytes=(world_size - 1) * size,
        rows=elements,
        buffer_bytes=world_size * size,
    )


def send(elements: Size, element_bytes: int) -> Work:
    """Send a buffer to the other rank of the group."""
    size = elements * element_bytes
    return Work(kind=Kind.SEND, op="send", bytes=size, rows=elements, buffer_bytes=size)


def recv(elements: Size, element_bytes: int) -> Work:
    """Receive a buffer from the other rank of the group."""
    size = elements * element_bytes
    return Work(kind=Kind.RECV, op="recv", rows=elements, buffer_bytes=size)


def barrier() -> Work:
    """Wait for all ranks of the group."""
    return Work(kind=Kind.BARRIER, op="barrier", root=NO_ROOT)
