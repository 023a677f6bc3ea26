"""Work on edge streams: ingestion, temporal sampling, the modules of temporal models."""

from __future__ import annotations

from collections.abc import Sequence

from gnnbench.steps import Kind, Size, Work
from gnnbench.work.dense import ID_BYTES
from gnnbench.work.modules import host, module
from gnnbench.work.sampling import sample

STORED_EDGE_BYTES = 20
"""Neighbour int32, time int64, event int64."""


def ingest(events: Size) -> Work:
    """Insert events in both directions into a store."""
    return host("ingest", rows=2 * events, bytes=2 * STORED_EDGE_BYTES * events)


def sample_temporal(queries: Sequence[Size]) -> Work:
    """Draw temporal neighbours: vertex and time of each query, and the edges that were found.

    Args:
        queries: R_0, R_1 ... R_L; hop l found R_l - R_l-1 edges.
    """
    asked = sum(queries[1:-1], queries[0])
    edges = queries[-1] - queries[0]
    return sample(
        seeds=asked,
        edges=edges,
        vertices=queries[-1],
        read=16 * asked + STORED_EDGE_BYTES * edges,
        op="sample_temporal",
    )


def temporal_attention(
    *,
    queries: Size,
    edges: Size,
    fanout: int,
    width: int,
    edge_width: int,
    hidden: int,
    heads: int,
    kept: Size,
    parameters: int,
    element_bytes: int,
    backward: bool = False,
) -> Work:
    """A layer of attention over temporal neighbours, forward or backward.

    Flops: products of queries, keys, values and output; time encodings (3 per element), scores and
    weighted sums over tables of `fanout` places, softmax (5 per score), ReLU and LayerNorm (9).
    Bytes: input rows, parameters, and all that is kept for the way back, once. Backward does twice
    of both.

    Args:
        queries: R; edges: S sampled neighbours of all of them.
        width, edge_width: of a node's row and an edge's.
        kept: elements kept for the way back.
        parameters: of the layer.
    """
    both = width + edge_width + hidden
    flops = (
        2 * queries * (width + hidden) * hidden
        + 4 * edges * both * hidden
        + 3 * edges * hidden
        + 4 * queries * fanout * hidden
        + 5 * queries * fanout * heads
        + 2 * queries * (hidden + width) * hidden
        + 9 * queries * hidden
    )
    read = (queries + edges) * width + edges * (edge_width + 2)
    size = (read + kept + parameters) * element_bytes
    times, way = (2, "backward") if backward else (1, "forward")
    return module(
        f"temporal_attention_{way}",
        flops=times * flops,
        bytes=times * size,
        rows=queries,
        nonzeros=edges,
        width=hidden,
        inner=both,
    )


def memory_updater(
    *,
    distinct: Size,
    rows: Size,
    message: int,
    hidden: int,
    kept: Size,
    parameters: int,
    element_bytes: int,
    backward: bool = False,
) -> Work:
    """A GRU that applies stored messages to memory, and the rows of those that ask for it.

    Flops: three gates' products with message and memory, 15 per element of the gates' making and of
    the time encoding. Bytes as for `temporal_attention`.

    Args:
        distinct: nodes whose memory is read.
        rows: that are made of them.
        message: width of what the GRU is given.
        kept, parameters: elements.
    """
    flops = 6 * distinct * (message + hidden) * hidden + 15 * distinct * hidden
    size = (distinct * (message + hidden) + rows + kept + parameters) * element_bytes
    times, way = (2, "backward") if backward else (1, "forward")
    return module(
        f"memory_updater_{way}",
        flops=times * flops,
        bytes=times * size,
        rows=distinct,
        nonzeros=rows,
        width=hidden,
        inner=message + hidden,
    )


def memory_write(rows: Size, width: Size, source_rows: Size, element_bytes: int) -> Work:
    """Write rows of memory and message by node, each node once."""
    return Work(
        kind=Kind.SCATTER,
        op="memory_write",
        bytes=rows * (2 * ID_BYTES + 2 * width * element_bytes),
        rows=rows,
        width=width,
        source_rows=source_rows,
    )


def link_decoder(
    *,
    roots: Size,
    pairs: Size,
    hidden: int,
    kept: Size,
    parameters: int,
    element_bytes: int,
    backward: bool = False,
) -> Work:
    """Scores of pairs from the rows of their ends: two products per root, a sum, ReLU, a product.

    Args:
        roots: rows of sources and destinations together.
        pairs: that are scored.
        kept, parameters: elements.
    """
    flops = 2 * roots * hidden * hidden + 4 * pairs * hidden
    size = (roots * hidden + pairs + kept + parameters) * element_bytes
    times, way = (2, "backward") if backward else (1, "forward")
    return module(
        f"link_decoder_{way}",
        flops=times * flops,
        bytes=times * size,
        rows=roots,
        width=hidden,
        inner=hidden,
    )


def binary_cross_entropy(pairs: Size, element_bytes: int) -> Work:
    """Loss with logits and its gradient: reads scores, writes gradients; 8 flops per pair."""
    return Work(
        kind=Kind.ELEMENTWISE,
        op="binary_cross_entropy",
        bytes=2 * pairs * element_bytes,
        flops=8 * pairs,
        rows=pairs,
        width=1,
    )
