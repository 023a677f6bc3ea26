"""Chunks of rows in `mixed-accelerators`, their order, and each rank's share of them.

Rows are numbered in processing order. The source of chunk length and node order is gnnbench, not
the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from gnnbench.approaches.base import GraphLike
from gnnbench.approaches.whole_graph.relayout import even_split
from gnnbench.data.graph import Graph
from gnnbench.data.reuse import counted_reuse
from gnnbench.models.names import MODELS
from gnnbench.reuse import Reuse
from gnnbench.spec import RunSpec
from gnnbench.steps import Ints

_MOST_BY_DEFAULT = 8
_LEAST_MESSAGE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MixedStructure:
    """Chunks, the order in which they are processed, and the share of each rank.

    Args:
        starts: first row of each chunk, and the end of the last.
        shares: int64 [chunks, dense ranks + 1]: first row of each dense rank's share of a chunk,
            and the end. Totals of two dense ranks differ by at most one row.
        nonzeros: nonzeros of each chunk's rows, self loops included where the model adds them;
            nonzeros_t of the transpose.
        train_rows: int64 [dense ranks, chunks], training rows.
        forward, backward: order of the chunks in each pass.
        row_order: int64 [N], vertex of each row; absent when sizes come from a profile.
        reuse: of the rows that are read, in the order of the vertices.
    """

    sparse_ranks: int
    dense_ranks: int
    starts: tuple[int, ...]
    shares: Ints
    nonzeros: tuple[int, ...]
    nonzeros_t: tuple[int, ...]
    train_rows: Ints
    forward: tuple[int, ...]
    backward: tuple[int, ...]
    row_order: NDArray[np.int64] | None = None
    reuse: Reuse | None = None
    counted: bool = True
    basis: str = "counted on the real graph"

    @property
    def num_rows(self) -> int:
        return self.starts[-1]

    @property
    def num_chunks(self) -> int:
        return len(self.starts) - 1

    @property
    def world_size(self) -> int:
        return self.sparse_ranks + self.dense_ranks

    @property
    def tallest(self) -> int:
        """Rows of the longest chunk."""
        return max(after - first for first, after in pairwise(self.starts))

    @property
    def dealt(self) -> Ints:
        """Rows of each chunk that each dense rank owns, int64 [chunks, dense ranks]."""
        return np.diff(self.shares, axis=1)

    def rows(self, chunk: int) -> int:
        return self.starts[chunk + 1] - self.starts[chunk]

    def columns(self, width: int) -> tuple[int, ...]:
        """Columns of a tensor that each sparse rank holds; earlier ranks hold earlier ones."""
        return even_split(width, self.sparse_ranks)


def mixed_structure(
    data: GraphLike, run: RunSpec, sparse_ranks: int, chunks: int, node_order: str
) -> MixedStructure:
    """Cut rows into chunks, choose their order, and deal them out.

    Args:
        data: a graph, or a profile, which is taken as equally dense everywhere.
        run: the ranks that are not sparse are dense.
        sparse_ranks: how many ranks aggregate.
        chunks: how many chunks are asked for; 0 is `default_chunks`.
        node_order: see `MixedKnobs`.
    """
    dense, n = run.ranks - sparse_ranks, data.num_nodes
    count = min(chunks or default_chunks(data, run, sparse_ranks), n)
    starts = tuple(i * n // count for i in range(count + 1))
    loops = MODELS.get(run.model.kind).normalisation == "symmetric"
    natural = tuple(range(count))
    shares = _shares(starts, dense)
    if not isinstance(data, Graph):
        edges = [i * data.num_edges // count for i in range(count + 1)]
        entries = tuple(int(e) for e in np.diff(edges) + loops * np.diff(starts))
        train = [even_split(share, dense) for share in even_split(data.num_train, count)]
        return MixedStructure(
            sparse_ranks=sparse_ranks,
            dense_ranks=dense,
            starts=starts,
            shares=shares,
            nonzeros=entries,
            nonzeros_t=entries,
            train_rows=np.array(train, np.int64).T,
            forward=natural,
            backward=natural,
            reuse=data.reuse_of_rows(),
            counted=False,
            basis="counts of the profile, all chunks equally dense",
        )
    incoming, outgoing = data.in_degrees(), data.out_degrees()
    order = np.arange(n, dtype=np.int64)
    if node_order == "degree":
        order = np.argsort(incoming, kind="stable").astype(np.int64)
    edge = np.array(starts)
    entries = tuple(_within(incoming[order] + loops, edge).tolist())
    entries_t = tuple(_within(outgoing[order] + loops, edge).tolist())
    forward = backward = natural
    if node_order != "natural":
        forward = tuple(np.argsort(entries, kind="stable").tolist())
        backward = tuple(np.argsort(entries_t, kind="stable").tolist())
    trained = np.zeros(n, np.int64)
    trained[data.train_nodes()] = 1
    return MixedStructure(
        sparse_ranks=sparse_ranks,
        dense_ranks=dense,
        starts=starts,
        shares=shares,
        nonzeros=entries,
        nonzeros_t=entries_t,
        train_rows=_within(trained[order], shares).T,
        forward=forward,
        backward=backward,
        row_order=order,
        reuse=counted_reuse(data.indptr, data.indices, order=order),
    )


def default_chunks(data: GraphLike, run: RunSpec, sparse_ranks: int) -> int:
    """Number of chunks where the run does not set it: at most 8, and fewer for short messages.

    With total times A and U of both sides and an overhead o per chunk, the optimum is K* =
    sqrt(min(A, U) / o) (fullgraph section 10). At K = 8, filling and draining the pipeline cost an
    eighth of the shorter side. The overhead of a chunk is that of its messages, one between every
    sparse and every dense rank. Below about 256 KiB the time of a message hardly falls with its
    size: that is what a link carries during the set-up of a message (0.2 ms at 1.5 GB/s over gloo,
    10 us at 25 GB/s between GPUs). The number of chunks is therefore the largest one that keeps the
    messages of the narrowest handover at 256 KiB. With hundreds of ranks it is one.
    """
    model = MODELS.get(run.model.kind)
    dims = model.dims(run.model, data.num_features, data.num_classes)
    whole = data.num_nodes * min(dims[:-1]) * run.training.element_bytes
    messages = sparse_ranks * (run.ranks - sparse_ranks)
    return max(1, min(_MOST_BY_DEFAULT, whole // (messages * _LEAST_MESSAGE_BYTES)))


def _shares(starts: tuple[int, ...], dense: int) -> Ints:
    """Deal each chunk's rows out evenly; rows that are left over go to one rank after another."""
    rows = np.diff(starts)
    left = rows % dense
    turn = np.cumsum(left) - left
    extra = (np.arange(dense)[None, :] - turn[:, None]) % dense < left[:, None]
    shares = np.zeros((len(rows), dense + 1), np.int64)
    np.cumsum(rows[:, None] // dense + extra, axis=1, out=shares[:, 1:])
    shares += np.array(starts[:-1])[:, None]
    return shares


def _within(values: NDArray[np.int64], edges: Ints) -> Ints:
    """Sums of the values between neighbouring edges, along the last axis of `edges`."""
    upto = np.concatenate([[0], np.cumsum(values)])
    return np.asarray(np.diff(upto[edges], axis=-1), dtype=np.int64)
