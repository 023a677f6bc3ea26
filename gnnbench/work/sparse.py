"""Products with sparse patterns, and sums over their entries.

`reuse` is that of the source rows, in the order in which the pattern reads them.
"""

from __future__ import annotations

from gnnbench.reuse import Reuse
from gnnbench.steps import Kind, Size, Work, smaller

INDEX_BYTES = 4


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
    reuse: Reuse | None = None,
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
        reuse=reuse,
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
    reuse: Reuse | None = None,
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
        reuse=reuse,
    )


def sddmm_add(
    *,
    rows: Size,
    nonzeros: Size,
    heads: Size,
    source_rows: Size,
    element_bytes: int,
    reuse: Reuse | None = None,
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
        reuse=reuse,
    )


def sddmm_dot(
    *,
    rows: Size,
    nonzeros: Size,
    width: Size,
    heads: Size,
    source_rows: Size,
    element_bytes: int,
    reuse: Reuse | None = None,
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
        reuse=reuse,
    )


def edge_sums(
    nonzeros: Size, heads: Size, element_bytes: int, *, reuse: Reuse | None = None
) -> Work:
    """Sum the values of entries by row and by column: two passes, and a flop counted per value.

    By column, values are read where the rows put them, as far apart as `reuse` says.
    """
    values = nonzeros * heads
    return Work(
        kind=Kind.ELEMENTWISE,
        op="edge_sums",
        bytes=2 * values * element_bytes,
        flops=values,
        rows=values,
        width=heads,
        inner=heads,
        reuse=reuse,
    )
