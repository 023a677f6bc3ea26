"""Link prediction: corrupted edges that a batch shares, and decoders that score edges.

Legend: b positive edges, n corrupted ends per side, d elements of a row, s bytes per element. Every
positive edge is scored against n corrupted tails and n corrupted heads.
"""

from __future__ import annotations

from gnnbench.steps import Kind, Size, Work
from gnnbench.work.dense import ID_BYTES
from gnnbench.work.modules import module


def draw_negatives(positives: Size, negatives: Size, rows: Size) -> Work:
    """Draw corrupted ends, and number the distinct rows of a batch: three passes over 2 b + n ids.

    `rows` are those distinct rows.
    """
    ids = 2 * positives + negatives
    return Work(
        kind=Kind.SAMPLE,
        op="draw_negatives",
        bytes=3 * ID_BYTES * ids,
        rows=ids,
        nonzeros=negatives,
        source_rows=rows,
    )


def shuffle(edges: Size, columns: int) -> Work:
    """Put edges in the order of a hash of their columns: a key of 64 bits, a sort, a copy.

    The sort has eight passes that read and write key and place, 2 x 16 bytes each.
    """
    moved = ID_BYTES * columns + 8 * 2 * 2 * ID_BYTES + 2 * 4 * columns
    return Work(kind=Kind.ELEMENTWISE, op="shuffle", bytes=moved * edges, rows=edges)


def decode(decoder: str, positives: Size, negatives: Size, width: Size, s: int) -> Work:
    """Score the positive and the corrupted edges, both sides, with their softmax cross-entropy.

    Flops: 4 b n d for the corrupted ones, 8 b d for queries and positive ones, 10 b n for the
    softmax. Reads 3 b + n rows, writes 2 b queries and 2 b n scores.
    """
    b, n, d = positives, negatives, width
    return module(
        f"{decoder}_forward",
        flops=4 * b * n * d + 8 * b * d + 10 * b * n,
        bytes=((5 * b + n) * d + 2 * b * n) * s,
        rows=b,
        nonzeros=b * n,
        width=d,
        inner=n,
    )


def decode_backward(
    decoder: str, positives: Size, negatives: Size, width: Size, rows: Size, s: int
) -> Work:
    """Gradients of the rows of both ends, of relations and of corrupted ends.

    Flops: 8 b n d for the products, 16 b d for the queries. Reads what `decode` wrote and its
    inputs, writes 3 b + n gradients and adds them up in `rows` distinct ones.
    """
    b, n, d = positives, negatives, width
    return module(
        f"{decoder}_backward",
        flops=8 * b * n * d + 16 * b * d,
        bytes=((8 * b + 2 * n + rows) * d + 2 * b * n) * s,
        rows=b,
        nonzeros=b * n,
        width=d,
        inner=n,
    )
