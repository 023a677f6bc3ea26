"""Patterns that batches are trained on: which are transposed, and the bytes that they take."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gnnbench import work
from gnnbench.approaches.mini_batch.batch import PLAIN, BatchSizes, Form
from gnnbench.approaches.writing.shape import LayerSizes, StackShape
from gnnbench.steps import Ints, Size, larger
from gnnbench.work import ID_BYTES


def scratch_bytes(shape: StackShape, sizes: BatchSizes, form: Form = PLAIN) -> Size:
    """Bytes of temporary arrays while a batch is drawn and its blocks are made.

    Found vertices, degrees, and the draft of the largest hop's picks (`Form.drafted`); then, for
    the largest block, float64 weights and scales of its rows and columns or, with attention, the
    drawn pattern beside the one with self loops, and three ids of each entry if it has dropout.
    """
    found: Size = ID_BYTES * sizes.vertices[0]
    if form.drafted:
        draft = work.INDEX_BYTES * form.drafted * np.max(sizes.edges, axis=0)
        found = found + np.ceil(draft).astype(np.int64)
    largest: Size = 0
    for block in sizes.blocks(form):
        rows, columns, edges = block.rows, block.source_rows, block.nonzeros
        found = found + 4 * rows
        if shape.model.attention:
            found = found + 8 * (rows + 1) + 4 * edges
            ids = 3 * ID_BYTES if shape.dropout > 0 else 0
            made = (1 + ids) * (edges + rows) + 8 * (2 * rows + columns)
        else:
            made = 8 * (4 * rows + columns)
            if form.edge_weights:
                made = made + 2 * 8 * edges
        largest = larger(largest, made)
    return found + largest


def drawn_bytes(vertices: Sequence[Ints], edges: Sequence[Ints]) -> Ints:
    """Bytes of a drawn batch of blocks without weights, see `sampling.Batch.num_bytes`."""
    total: Ints = ID_BYTES * (vertices[0] + vertices[-1])
    for rows, drawn in zip(vertices[1:], edges, strict=True):
        total = total + 8 * (rows + 1) + 4 * drawn + 4 * rows
    return total


def needs_transpose(shape: StackShape, layer: int) -> bool:
    """Return whether the backward pass aggregates along the transpose of this layer's block."""
    return layer > 1 or shape.orders[0] == "transform_first"


def block_is_turned(shape: StackShape, block: int, blocks: int) -> bool:
    """Whether a block (counted from 1) is transposed: the one block serves all layers."""
    layers = range(1, shape.num_layers + 1) if blocks == 1 else (block,)
    return any(needs_transpose(shape, layer) for layer in layers)


def turned_edges(shape: StackShape, blocks: Sequence[LayerSizes]) -> Size:
    """Entries of the blocks that are transposed; with attention, every block, with self loops."""
    if shape.model.attention:
        return sum((b.nonzeros + b.rows for b in blocks), 0)
    count = len(blocks)
    turned = [b.nonzeros for at, b in enumerate(blocks, 1) if block_is_turned(shape, at, count)]
    return sum(turned, 0)


def block_bytes(
    shape: StackShape,
    blocks: Sequence[LayerSizes],
    form: Form = PLAIN,
    loss_rows: Size = 0,
    *,
    first: int = 0,
) -> Size:
    """Bytes of a batch as it is trained on: patterns both ways, scales, rows of the loss.

    The first block is that of layer `first`; 0: blocks are those of all layers, or one is.
    """
    total: Size = 0
    s = shape.element_bytes
    if form.some_rows:
        total = total + (ID_BYTES + (s if form.loss_weights else 0)) * loss_rows
    for at, size in enumerate(blocks, first or 1):
        n, u, e = size.rows, size.source_rows, size.nonzeros
        if shape.model.attention:
            # Self loops are entries, kept both ways, with the place of each transposed entry and,
            # for its dropout, an id.
            entries = e + n
            total = total + 8 * (n + 1) + 8 * (u + 1) + 16 * entries
            total = total + (8 * entries if shape.dropout > 0 else 0)
            continue
        turned = needs_transpose(shape, at)
        if not first:
            turned = block_is_turned(shape, at, len(blocks))
        total = total + 8 * (n + 1) + 4 * e
        if turned:
            total = total + 8 * (u + 1) + 4 * e
        scales = {"symmetric": 2 * n + u, "mean": n + (u if form.column_weights else 0)}
        total = total + scales[shape.model.normalisation] * s
        if form.edge_weights:
            total = total + (2 if turned else 1) * e * s
    return total
