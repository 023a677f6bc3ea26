"""Work on edge streams: ingestion, temporal sampling, feature caches, memory, loss."""

from __future__ import annotations

from collections.abc import Sequence

from gnnbench.steps import Ints, Kind, Size, Work
from gnnbench.work.dense import ID_BYTES
from gnnbench.work.modules import host
from gnnbench.work.moving import all_to_all
from gnnbench.work.sampling import sample

STORED_EDGE_BYTES = 20
"""Neighbour int32, time int64, event int64."""
QUERY_BYTES = 16
"""Vertex int64, time int64."""
PAIR_BYTES = 16
"""A pair of vertices as one int64, and the time when it was last seen."""


def ingest(events: Size) -> Work:
    """Insert events in both directions into a store; `events` of all ranks, whoever stores them."""
    return host("ingest", rows=2 * events, bytes=2 * STORED_EDGE_BYTES * events)


def build_temporal_csr(events: Size, num_nodes: Size) -> Work:
    """Build a temporal CSR of all events, both directions: writes its edges and row pointers.

    Source: temporal reference section 4.
    """
    size = 2 * STORED_EDGE_BYTES * events + ID_BYTES * (num_nodes + 1)
    return host("build_temporal_csr", rows=2 * events, bytes=size)


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
        read=QUERY_BYTES * asked + STORED_EDGE_BYTES * edges,
        op="sample_temporal",
    )


def serve_temporal(queries: Size, fanout: int) -> Work:
    """Draw the neighbours of queries that other ranks sent, into replies of `fanout` places."""
    return sample(
        seeds=queries,
        edges=queries * fanout,
        vertices=queries,
        read=(QUERY_BYTES + STORED_EDGE_BYTES * fanout) * queries,
        op="serve_temporal",
    )


def place_temporal(queries: Size, edges: Size) -> Work:
    """Put replies into the order of their queries, without the empty places."""
    return sample(
        seeds=queries,
        edges=edges,
        vertices=queries,
        read=ID_BYTES * queries + STORED_EDGE_BYTES * edges,
        op="place_temporal",
    )


def temporal_queries(send: Ints, received: Size) -> Work:
    """Send each query to the owner of its vertex.

    Args:
        send: queries to each rank, 0 for the rank itself; int64 [P], or [ranks, P] for a class.
        received: queries that come from other ranks.
    """
    return all_to_all(send, received, QUERY_BYTES)


def temporal_replies(send: Ints, received: Size, fanout: int) -> Work:
    """Send the neighbours of each query back, `fanout` places each, empty ones included."""
    return all_to_all(send, received, STORED_EDGE_BYTES * fanout)


def cache_lookup(requests: Size, moved: Size) -> Work:
    """Find ids in a feature cache: id and slot of each, id and slot of each row that is moved."""
    return host("cache_lookup", rows=requests, bytes=2 * ID_BYTES * (requests + moved))


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


def edgebank_insert(events: Size) -> Work:
    """Remember pairs with their newest times: read and write a table entry per event."""
    return host("edgebank_insert", rows=events, bytes=2 * PAIR_BYTES * events)


def edgebank_score(pairs: Size, element_bytes: int) -> Work:
    """Look pairs up and score each with 0 or 1."""
    return host("edgebank_score", rows=pairs, bytes=(PAIR_BYTES + element_bytes) * pairs)


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
