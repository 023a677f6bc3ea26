"""The blocks of a batch as one message: a header of sizes, and the arrays behind one another.

Header, int64: seeds of the global batch, vertices n_0 ... n_L, edges e_1 ... e_L. Body: ids of the
input vertices, pointers of every block, weights of drawn edges where they have any, column numbers
and degrees of every block. 64-bit arrays come first, so that each array is aligned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench import work
from gnnbench.data.sampling import Batch, Block, Ids

Bytes = NDArray[np.uint8]


def header_of(batch: Batch, num_seeds: int) -> Ids:
    """The sizes of a batch that was drawn for a global batch of `num_seeds` seeds."""
    vertices, edges = batch.sizes
    return np.array([num_seeds, *vertices, *edges], np.int64)


def sizes_in(header: Sequence[int]) -> tuple[int, list[int], list[int]]:
    """Seeds of the global batch, vertices n_0 ... n_L and edges e_1 ... e_L."""
    num_seeds, *sizes = header
    hops = len(sizes) // 2
    return num_seeds, sizes[: hops + 1], sizes[hops + 1 :]


def packed(batch: Batch, *, weighted: bool) -> Bytes:
    """The body of a message.

    Args:
        batch: blocks, input layer first.
        weighted: whether drawn edges have weights; their rows then weigh 1 each.
    """
    vertices, edges = batch.sizes
    body = np.empty(work.message_bytes(vertices, edges, weighted=weighted), np.uint8)
    views = _views(body, vertices, edges, weighted)
    next(views)[:] = batch.input_nodes
    for block in batch.blocks:
        next(views)[:] = block.indptr
    for block in batch.blocks if weighted else ():
        next(views)[:] = block.edge_weights
    for block in batch.blocks:
        next(views)[:] = block.indices
    for block in batch.blocks:
        next(views)[:] = block.degrees
    return body


def unpacked(
    body: Bytes, vertices: Sequence[int], edges: Sequence[int], *, weighted: bool
) -> Batch:
    """The batch of a message; its arrays are views of the body."""
    views = _views(body, vertices, edges, weighted)
    layers = range(len(edges))
    ids = next(views)
    pointers = [next(views) for _ in layers]
    weights = [next(views) if weighted else None for _ in layers]
    columns = [next(views) for _ in layers]
    degrees = [next(views) for _ in layers]
    blocks = tuple(
        Block(
            indptr=pointers[at],
            indices=columns[at],
            num_dst=vertices[at + 1],
            num_src=vertices[at],
            degrees=degrees[at],
            row_weights=np.ones(vertices[at + 1]) if weighted else None,
            edge_weights=weights[at],
        )
        for at in layers
    )
    return Batch(blocks=blocks, input_nodes=ids, seeds=ids[: vertices[-1]])


def _views(
    body: Bytes, vertices: Sequence[int], edges: Sequence[int], weighted: bool
) -> Iterator[NDArray[Any]]:
    """Views of the arrays of a body, in their order."""
    rows = vertices[1:]
    lengths: list[tuple[type[np.generic], int]] = [(np.int64, vertices[0])]
    lengths += [(np.int64, count + 1) for count in rows]
    lengths += [(np.float64, count) for count in edges if weighted]
    lengths += [(np.int32, count) for count in edges]
    lengths += [(np.int32, count) for count in rows]
    start = 0
    for kind, count in lengths:
        end = start + count * np.dtype(kind).itemsize
        yield body[start:end].view(kind)
        start = end
    assert start == len(body), "the closed form of a message is that of its arrays"
