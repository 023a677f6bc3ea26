"""Work of the modules of temporal models: layers, memory updater, decoder.

Each module's bytes are its input rows, its parameters and all that it keeps for the way back, once.
Backward does twice the flops and bytes of forward, unless said otherwise.

Legend: R queries, S sampled neighbours of all of them, f fan-out, n and e widths of a node's row
and an edge's, d hidden width.
"""

from __future__ import annotations

from gnnbench.steps import Size, Work
from gnnbench.work.modules import module


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
    """A layer of attention over temporal neighbours.

    Scores are linear in the rows of edges and so are sums of values, so the matrices of keys and
    values are multiplied with a row per query and head.

    Flops: products of queries, keys, values and output; time encodings (3 per element), scores and
    weighted sums of the edges' rows per head, softmax (5 per score), ReLU and LayerNorm (9).

    Args:
        queries, edges: R and S.
        width, edge_width: n and e.
        kept: elements kept for the way back.
        parameters: of the layer.
    """
    both = width + edge_width + hidden
    flops = (
        2 * queries * width * hidden
        + 4 * queries * both * hidden
        + 3 * edges * hidden
        + 4 * edges * both * heads
        + 5 * edges * heads
        + 2 * queries * (hidden + width) * hidden
        + 9 * queries * hidden
    )
    read = (queries + edges) * width + edges * (edge_width + 2)
    size = (read + kept + parameters) * element_bytes
    return _one_way(
        "temporal_attention", flops, size, queries, edges, hidden, both, backward=backward
    )


def temporal_mean(
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
    """A layer of GraphSAGE over temporal neighbours; arguments as for `temporal_attention`.

    Flops: sums over tables of `fanout` places, two products, bias and ReLU.
    """
    both = width + edge_width
    flops = queries * fanout * both + 2 * queries * (width + both) * hidden + 3 * queries * hidden
    size = (queries * width + edges * (both + 1) + kept + parameters) * element_bytes
    return _one_way("temporal_mean", flops, size, queries, edges, hidden, both, backward=backward)


def temporal_gat(
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
    """A layer of static graph attention; arguments as for `temporal_attention`.

    Flops: products of both ends, two scores per row (2 d each), softmax (5 per score), weighted
    sums over tables of `fanout` places, sum with the own row, bias and ELU (4).
    """
    both = width + edge_width
    flops = (
        2 * queries * width * hidden
        + 2 * edges * both * hidden
        + 2 * queries * (1 + fanout) * hidden
        + 5 * queries * fanout * heads
        + 2 * queries * fanout * hidden
        + 4 * queries * hidden
    )
    size = (queries * width + edges * (both + 1) + kept + parameters) * element_bytes
    return _one_way("temporal_gat", flops, size, queries, edges, hidden, both, backward=backward)


def temporal_mixer(
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
    """GraphMixer's encoders: two MLP-Mixer blocks over `fanout` tokens, a mean of node features.

    Arguments as for `temporal_attention`. Flops: tokens and their time encodings (3 per element);
    per block, token products with max(f // 2, 1) hidden units, channel products with 4 d, two
    LayerNorms and GELUs (8 per element each); means, and the product of the output.
    """
    f, d = fanout, hidden
    inner = max(f // 2, 1)
    block = 4 * f * inner * d + 16 * f * d * d + 16 * f * d + 8 * inner * d + 32 * f * d
    flops = (
        3 * edges * d
        + 2 * edges * (edge_width + d) * d
        + 2 * queries * block
        + queries * f * (d + width)
        + 2 * queries * (d + width) * d
    )
    read = (queries + edges) * width + edges * (edge_width + 2)
    size = (read + kept + parameters) * element_bytes
    return _one_way("temporal_mixer", flops, size, queries, edges, d, f, backward=backward)


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

    Memory is part of the message and the state of the GRU, so one product with it serves
    the sums of two gates. Flops: products of three gates with the message and of one with memory,
    15 per element of the gates' making and of the time encoding. Backward: the gradients of the
    weights, and that of the time encodings.

    All nodes are counted. On the host, those without a message are left out, so that flops are an
    upper bound there.

    Args:
        distinct: nodes whose memory is read.
        rows: that are made of them.
        message: width of what the GRU is given.
        kept, parameters: elements.
    """
    flops = distinct * (6 * message * hidden + 2 * hidden**2 + 15 * hidden)
    size = (distinct * message + rows + kept + parameters) * element_bytes
    back = flops + 6 * distinct * hidden**2
    inner = message + hidden
    return module(
        f"memory_updater_{'backward' if backward else 'forward'}",
        flops=back if backward else flops,
        bytes=2 * size if backward else size,
        rows=distinct,
        nonzeros=rows,
        width=hidden,
        inner=inner,
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
    return _one_way("link_decoder", flops, size, roots, 0, hidden, hidden, backward=backward)


def _one_way(
    name: str,
    flops: Size,
    size: Size,
    rows: Size,
    nonzeros: Size,
    width: int,
    inner: int,
    *,
    backward: bool,
) -> Work:
    """One direction of a module, from what forward does."""
    times, way = (2, "backward") if backward else (1, "forward")
    return module(
        f"{name}_{way}",
        flops=times * flops,
        bytes=times * size,
        rows=rows,
        nonzeros=nonzeros,
        width=width,
        inner=inner,
    )
