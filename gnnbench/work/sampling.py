"""Sampling of neighbours, and what is done with ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gnnbench.steps import Kind, Size, Work
from gnnbench.work.dense import ID_BYTES
from gnnbench.work.sparse import INDEX_BYTES

SORTED_RUN = 7
"""Pairs that libstdc++'s stable sort inserts into a run before it merges."""


def sample(
    *,
    seeds: Size,
    edges: Size,
    vertices: Size,
    read: Size,
    looks: Size = 0,
    tables: Size = 0,
    op: str = "sample",
) -> Work:
    """Draw neighbours.

    Args:
        seeds: destinations of all hops together.
        edges: drawn edges of all hops together.
        vertices: distinct vertices that were found.
        read: bytes touched.
        looks: edges that take a random number or a look of their own; the others of the drawn ones
            are copied, because all neighbours of their vertex are taken.
        tables: bytes of the graph and of the tables that are looked up in any order.
        op: cost class of the sampler.
    """
    return Work(
        kind=Kind.SAMPLE,
        op=op,
        bytes=read,
        rows=seeds,
        nonzeros=edges,
        width=tables,
        inner=looks,
        source_rows=vertices,
    )


def draw_neighbours(
    vertices: Sequence[Size],
    edges: Sequence[Size],
    scanned: Size = 0,
    op: str = "sample",
    *,
    by_lot: Size | None = None,
    tables: Size = 0,
) -> Work:
    """Draw the blocks of a batch: an id per edge, an id and a table entry per vertex.

    Args:
        vertices: n_0 ... n_L, input layer first.
        edges: e_1 ... e_L.
        scanned: edges of the graph that are looked at besides: a column number and a table entry.
        op: cost class of the sampler.
        by_lot: drawn edges that took a random number; None: all of them.
        tables: bytes of the graph and of the sampler's table, see `graph_tables`.
    """
    every, drawn = _total(vertices), _total(edges)
    read = ID_BYTES * drawn + 16 * every + ID_BYTES * scanned
    return sample(
        seeds=every - vertices[0],
        edges=drawn,
        vertices=vertices[0],
        read=read,
        looks=scanned + (drawn if by_lot is None else by_lot),
        tables=tables,
        op=op,
    )


def graph_tables(num_nodes: int, num_edges: int) -> int:
    """Bytes that a sampler looks up in any order: 8 (N + 1) of pointers, 4 E of columns, 4 N."""
    return ID_BYTES * (num_nodes + 1) + INDEX_BYTES * num_edges + 4 * num_nodes


def scan_neighbours(rows: Size, edges: Size, found: Size) -> Work:
    """Look at all in-edges of some rows: a column number and a table entry per edge.

    Each distinct source that is found takes an id and a norm.
    """
    read = ID_BYTES * rows + ID_BYTES * edges + 16 * found
    return sample(seeds=rows, edges=edges, vertices=found, read=read, op="scan_neighbours")


def pick_layer(listed: Size) -> Work:
    """Add up listed norms by vertex, and draw vertices by them: ids, norms, running sums."""
    read = 24 * listed
    return sample(seeds=listed, edges=0, vertices=listed, read=read, op="pick_layer")


def draw_once(vertices: Size, expanded: Size, edges: Size) -> Work:
    """Draw a batch whose vertices are sampled once each, as `draw_neighbours` counts it.

    Args:
        vertices: distinct ones of the batch.
        expanded: those whose neighbours are drawn.
        edges: drawn, all layers together.
    """
    read = ID_BYTES * edges + 16 * (vertices + expanded)
    return sample(seeds=expanded, edges=edges, vertices=vertices, read=read)


def prepare_blocks(vertices: Sequence[Size], turned: Size, op: str = "prepare_blocks") -> Work:
    """Make blocks ready to train on.

    Args:
        vertices: n_0 ... n_L, input layer first.
        turned: entries of blocks that are transposed, self loops of attention included.
        op: cost class: blocks with weights of edges, or with attention, take other steps.
    """
    every = _total(vertices)
    read = ID_BYTES * turned + 16 * every
    return sample(seeds=every, edges=turned, vertices=vertices[0], read=read, op=op)


def merge_blocks(rows: Size, sources: Size, edges: Size) -> Work:
    """Put the blocks of several ranks behind one another.

    Reads a count and writes a pointer per row, reads and writes an id per source and a column
    number per edge.
    """
    moved = (4 + ID_BYTES) * rows + 2 * ID_BYTES * sources + 2 * INDEX_BYTES * edges
    return sample(seeds=rows, edges=edges, vertices=sources, read=moved, op="merge_blocks")


def pack_blocks(vertices: Sequence[Size], edges: Sequence[Size]) -> Work:
    """Put the blocks of a batch behind one another in a message: the copies of `merge_blocks`.

    Args:
        vertices: n_0 ... n_L, input layer first.
        edges: e_1 ... e_L.
    """
    return merge_blocks(_total(vertices) - vertices[0], vertices[0], _total(edges))


def header_numbers(layers: int) -> int:
    """Int64 numbers before a message: seeds of the global batch, n_0 ... n_L, e_1 ... e_L."""
    return 2 * layers + 2


def message_bytes(
    vertices: Sequence[Size], edges: Sequence[Size], *, weighted: bool = False
) -> Size:
    """Bytes of the blocks of a batch as a sampler sends them to a trainer.

    8 n_0 for the ids, and for each block of n rows and e edges 8 (n + 1) for pointers, 4 e for
    columns, 4 n for degrees, and 8 e for weights of edges if there are any. See
    `gnnbench.data.messages`.
    """
    rows: Any = _total(vertices) - vertices[0]
    each = INDEX_BYTES + (ID_BYTES if weighted else 0)
    drawn = each * _total(edges)
    found: Size = ID_BYTES * (vertices[0] + len(edges)) + (ID_BYTES + 4) * rows + drawn
    return found


def route(rows: Size) -> Work:
    """Sort ids by owner: owner, position and place of each."""
    return Work(
        kind=Kind.SAMPLE, op="route", bytes=3 * ID_BYTES * rows, rows=rows, source_rows=rows
    )


def look_up(rows: Size) -> Work:
    """Find rows in a cache: an id and a slot of each."""
    return Work(
        kind=Kind.SAMPLE, op="look_up", bytes=2 * ID_BYTES * rows, rows=rows, source_rows=rows
    )


def rank_rows(candidates: Size, used: Size = 0, policy: str = "static") -> Work:
    """Decide which rows a cache keeps: id and rank of each candidate, selected by rank.

    Policies that go by uses ("lru", "planned") note those of the batch first: id, hash and stamp of
    each. Each policy is an operation of its own.
    """
    noted = 0 if policy == "static" else used
    return Work(
        kind=Kind.SAMPLE,
        op="rank_rows" if policy == "static" else f"rank_rows_{policy}",
        bytes=3 * ID_BYTES * (candidates + noted),
        rows=candidates,
        source_rows=noted,
    )


def rebuild_graph(entries: Size) -> Work:
    """Make a graph of pairs of 64-bit ids: two radix sorts, by destination and by source.

    Each sort has a pass per byte of the key, which reads and writes 16 bytes per pair:
    2 sorts x 8 passes x 2 x 16 E bytes.
    """
    read = 2 * ID_BYTES * 2 * 2 * ID_BYTES * entries
    return Work(kind=Kind.ELEMENTWISE, op="rebuild_graph", bytes=read, rows=entries)


def enter_buffer(vertices: Size, edges: Size) -> Work:
    """Make the graph of the vertices in a buffer of partitions, from edges kept in buckets.

    Per edge: a pair is copied (16 bytes) and read twice (16); ranks of its target, twice, and of
    its source (12); a count and a place go up (32); the source is written, and looked at again (8).
    Per vertex: id, place and rank (28); three passes over the row pointers (24); degree and scale
    (16); row of the table (24); entry of the sampler (4).
    """
    moved = 84 * edges + 96 * vertices
    return Work(
        kind=Kind.ELEMENTWISE, op="enter_buffer", bytes=moved, rows=edges, source_rows=vertices
    )


def sort_edges(vertices: Size, edges: Size) -> Work:
    """Make the graph of a buffer as MariusGNN does: sort all edges by source, then by target.

    A sort merges runs of seven pairs of a key and an index, in one thread, in log2(E / 7) passes
    that read and write a pair of 16 bytes. Per edge besides: both ends are copied (32 bytes),
    looked up in a table (48) and put side by side (32). Per edge and sort: key and index are made
    (24), a row is gathered by index (40), and its column copied (16). Per vertex and sort: an
    offset is found by bisection (8 bytes a probe) and subtracted from the next one (56).

    Source: marius-team/marius, graph_storage.cpp and graph.cpp; torch 1, SortingKernel.cpp
    (`std::stable_sort`). Deviation known: at 10 GB/s the passes are those of 16 M pairs within 4 %
    where keys are grouped by partition, and 25 % too fast where they are in random order (one core
    of a server, seconds of CPU). Newer versions of torch sort integers by radix.

    Args:
        vertices: resident ones.
        edges: between them, each of which is kept once.
    """
    runs = np.maximum(np.asarray(edges, np.float64) / SORTED_RUN, 1.0)
    passes = np.ceil(np.log2(runs)).astype(np.int64)
    each = 112 + 2 * (80 + 32 * passes)
    moved = each * edges + 2 * (56 + 8 * passes) * vertices
    return Work(
        kind=Kind.ELEMENTWISE,
        op="sort_edges",
        bytes=int(moved) if isinstance(edges, int) else moved,
        rows=edges,
        source_rows=vertices,
    )


def _total(sizes: Sequence[Size]) -> Size:
    return sum(sizes[1:], sizes[0])
