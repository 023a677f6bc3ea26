"""MixGCN's mixture of accelerators with real ranks: some aggregate, the others update, in chunks.

Sparse ranks hold the whole adjacency and a slice of the feature columns. Rows are cut into chunks,
and every dense rank owns a share of the rows of every chunk and does all work with weights. For one
chunk after another the sparse ranks multiply its rows and hand them over, each its columns, and the
dense ranks update them and return their columns; backward alike with the transpose. A product needs
every row of its input, so layers are a barrier; within a layer sparse and dense ranks overlap: two
engines of a flow shop (fullgraph section 10, row-wise order). Exact.

A handover is one all-to-all in which only sparse ranks send, a return one in which only dense ranks
do. Dealing each chunk to all dense ranks leaves none of them idle, whatever the number of chunks,
at the messages that dealing whole chunks out would take: sparse x dense ranks x chunks.

Volume per epoch, gradients apart: s N (sum of d_{l-1} over layers + three times the sum of d_l over
inner layers). What dense ranks know anyway stays there: with a self weight they multiply the rows
of H_{l-1} that they made, and for the first layer a copy of their rows of X. Chunk length and node
order are settings of gnnbench, not of the paper.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.approaches.base import Approach, GraphLike, Layout
from gnnbench.approaches.whole_graph.relayout import even_split
from gnnbench.approaches.whole_graph.row_pipeline import RowPipeline
from gnnbench.approaches.writing.shape import stack_shape
from gnnbench.data.graph import Graph
from gnnbench.models.names import MODELS
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.strict import bounds, choices

_MOST_BY_DEFAULT = 8
_LEAST_MESSAGE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedKnobs:
    """Knobs of `mixed-accelerators`.

    sparse_ranks: ranks that aggregate (0: half of them); the rest update. chunks: blocks of rows
    that are handed over one after another, at most one per row; 1 is the serial order (0: see
    `default_chunks`). node_order: natural; degree sorts rows by rising in-degree; johnson keeps
    rows and takes the chunks by rising number of entries, which is Johnson's rule where every chunk
    has the same dense work.
    """

    sparse_ranks: int = field(default=0, metadata=bounds(0))
    chunks: int = field(default=0, metadata=bounds(0))
    node_order: str = field(default="natural", metadata=choices("natural", "degree", "johnson"))


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedStructure:
    """Who does what.

    starts         first row of each chunk, and the end, in processing numbering
    shares         int64 [chunks, dense ranks + 1]: first row of each dense rank's share, and the
                   end; a rank's rows of all chunks together differ by at most one from another's
    nonzeros       entries of each chunk's rows, loops included where the model adds them;
                   nonzeros_t of the transpose
    train_rows     of each dense rank, in each chunk
    forward, backward   order of the chunks
    row_order      int64 [N]: vertex of each row; absent when sizes come from a profile
    """

    sparse_ranks: int
    dense_ranks: int
    starts: tuple[int, ...]
    shares: NDArray[np.int64]
    nonzeros: tuple[int, ...]
    nonzeros_t: tuple[int, ...]
    train_rows: tuple[tuple[int, ...], ...]
    forward: tuple[int, ...]
    backward: tuple[int, ...]
    row_order: NDArray[np.int64] | None = None
    exact: bool = True
    basis: str = "counted on the real graph"

    @property
    def num_rows(self) -> int:
        return self.starts[-1]

    @property
    def world_size(self) -> int:
        return self.sparse_ranks + self.dense_ranks

    @property
    def tallest(self) -> int:
        """Rows of the longest chunk."""
        return max(after - first for first, after in pairwise(self.starts))

    def rows(self, chunk: int) -> int:
        return self.starts[chunk + 1] - self.starts[chunk]

    def dealt(self, chunk: int) -> tuple[int, ...]:
        """Rows of a chunk that each dense rank owns."""
        return tuple(int(n) for n in np.diff(self.shares[chunk]))

    def columns(self, width: int) -> tuple[int, ...]:
        """Columns of a tensor that each sparse rank holds; earlier ranks hold earlier ones."""
        return even_split(width, self.sparse_ranks)


class MixedAccelerators(Approach):
    """Card and plan of `mixed-accelerators`."""

    name = "mixed-accelerators"
    title = "Mixture of accelerators (sparse ranks feed dense ranks)"
    paper = "MixGCN (mixture of accelerators); chunking and node order are gnnbench's own"
    summary = "some ranks aggregate, the others update; row chunks travel in a pipeline"
    exact = True
    no_attention = (
        "its sparse ranks aggregate before a dense one transforms; attention weighs edges by "
        "transformed rows, and dense ranks hold no edges"
    )
    runtime = "gnnbench_runtime.approaches.whole_graph.mixed_accelerators:MixedTrainer"
    knobs_type = MixedKnobs

    def problems(self, run: RunSpec) -> list[str]:
        """More sparse ranks than would leave a dense one."""
        wanted = self.knobs(run).sparse_ranks
        if run.ranks > 1 and wanted >= run.ranks:
            return [
                f"knobs.sparse_ranks: found {wanted} of {run.ranks} ranks, "
                f"allowed 0 to {run.ranks - 1}: one rank at least must be dense"
            ]
        return []

    def skip_reason(self, run: RunSpec, graph: GraphLike | None = None) -> str | None:
        """At least two ranks, one of each sort."""
        if run.ranks < 2:
            return "mixed-accelerators needs 2 ranks at least, a sparse and a dense one; 1 asked"
        if self.knobs(run).sparse_ranks >= run.ranks:
            return f"no dense rank is left of {run.ranks}"
        if graph is not None and graph.num_nodes < 1:
            return "the graph has no nodes"
        return None

    def structure(self, graph: GraphLike, run: RunSpec, cache: Path | None = None) -> Any:
        """Cut rows into chunks, choose their order, deal them out."""
        knobs: MixedKnobs = self.knobs(run)
        sparse = knobs.sparse_ranks or run.ranks // 2
        dense, n = run.ranks - sparse, graph.num_nodes
        count = min(knobs.chunks or default_chunks(graph, run, sparse), n)
        starts = tuple(i * n // count for i in range(count + 1))
        shares = _shares(starts, dense)
        loops = MODELS.get(run.model.kind).normalisation == "symmetric"
        if not isinstance(graph, Graph):
            edges = [i * graph.num_edges // count for i in range(count + 1)]
            train = [even_split(share, dense) for share in even_split(graph.num_train, count)]
            entries = tuple(int(e) for e in np.diff(edges) + loops * np.diff(starts))
            natural = tuple(range(count))
            return MixedStructure(
                sparse_ranks=sparse, dense_ranks=dense, starts=starts, shares=shares,
                nonzeros=entries, nonzeros_t=entries, forward=natural, backward=natural,
                train_rows=tuple(zip(*train, strict=True)), exact=False,
                basis="counts of the profile, chunks taken as equally dense",
            )  # fmt: skip
        incoming, outgoing = graph.in_degrees(), graph.out_degrees()
        order = np.arange(n, dtype=np.int64)
        if knobs.node_order == "degree":
            order = np.argsort(incoming, kind="stable").astype(np.int64)
        edge = np.array(starts)
        entries = tuple(_within(incoming[order] + loops, edge).tolist())
        entries_t = tuple(_within(outgoing[order] + loops, edge).tolist())
        forward = backward = tuple(range(count))
        if knobs.node_order != "natural":
            forward = tuple(int(c) for c in np.argsort(entries, kind="stable"))
            backward = tuple(int(c) for c in np.argsort(entries_t, kind="stable"))
        trained = _within(_mask(graph)[order].astype(np.int64), shares)
        return MixedStructure(
            sparse_ranks=sparse, dense_ranks=dense, starts=starts, shares=shares,
            nonzeros=entries, nonzeros_t=entries_t, forward=forward, backward=backward,
            train_rows=tuple(map(tuple, trained.T.tolist())), row_order=order,
        )  # fmt: skip

    def plan(self, graph: GraphLike, run: RunSpec, structure: Any, layout: Layout) -> Plan:
        shape = stack_shape(graph, run, "aggregate_first")
        pipeline = RowPipeline(shape, structure)
        return Plan(
            approach=run.approach,
            world_size=structure.world_size,
            iterations=(pipeline.iteration(),),
            schedule=(0,) * run.training.epochs,
            iterations_per_epoch=1,
            resident=pipeline.resident(),
            exact=structure.exact,
            basis=structure.basis,
            notes={
                "sparse_ranks": structure.sparse_ranks,
                "chunks": len(structure.forward),
                "idle_sparse_ranks": max(structure.sparse_ranks - max(shape.dims[:-1]), 0),
                "idle_dense_ranks": max(structure.dense_ranks - structure.num_rows, 0),
                "num_parameters": shape.num_parameters,
            },
        )


def default_chunks(graph: GraphLike, run: RunSpec, sparse_ranks: int) -> int:
    """Return how many chunks a run has that does not say: at most 8, and fewer for short messages.

    With totals A and U of both sides and a cost o per chunk, K* = sqrt(min(A, U) / o) (fullgraph
    section 10), and at K = 8 filling and draining cost an eighth of the shorter side. What a chunk
    costs is its messages, one between every sparse and every dense rank. Below some 256 KiB, what a
    link carries while a message is set up (0.2 ms at 1.5 GB/s over gloo, 10 us at 25 GB/s between
    GPUs), shorter messages take hardly less time, and overlap buys nothing. So chunks are as many
    as keep the messages of the narrowest handover that long. At hundreds of ranks that is one.
    """
    model = MODELS.get(run.model.kind)
    dims = model.dims(run.model, graph.num_features, graph.num_classes)
    whole = graph.num_nodes * min(dims[:-1]) * run.training.element_bytes
    messages = sparse_ranks * (run.ranks - sparse_ranks)
    return max(1, min(_MOST_BY_DEFAULT, whole // (messages * _LEAST_MESSAGE_BYTES)))


def _shares(starts: tuple[int, ...], dense: int) -> NDArray[np.int64]:
    """Deal each chunk's rows out evenly; what is left over goes to one rank after another."""
    rows = np.diff(starts)
    left = rows % dense
    turn = np.cumsum(left) - left
    extra = (np.arange(dense)[None, :] - turn[:, None]) % dense < left[:, None]
    dealt = rows[:, None] // dense + extra
    shares = np.zeros((len(rows), dense + 1), np.int64)
    np.cumsum(dealt, axis=1, out=shares[:, 1:])
    shares += np.array(starts[:-1])[:, None]
    return shares


def _within(values: NDArray[np.int64], edges: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sums of the values between neighbouring edges, along the last axis of `edges`."""
    upto = np.concatenate([[0], np.cumsum(values)])
    return np.asarray(np.diff(upto[edges], axis=-1), dtype=np.int64)


def _mask(graph: Graph) -> NDArray[np.bool_]:
    mask = graph.train_mask
    return np.zeros(graph.num_nodes, np.bool_) if mask is None else np.asarray(mask)


APPROACH = MixedAccelerators()
