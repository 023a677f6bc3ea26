"""MixGCN's mixture of accelerators with real ranks: some aggregate, the others update, in chunks.

Sparse ranks hold the whole adjacency and a slice of the feature columns; dense ranks own chunks of
rows and all weights' work. Forward, a sparse rank multiplies the rows of a chunk and sends its
columns of them to the chunk's owner, which updates the rows and returns their columns; backward
alike with the transpose. A product needs every row of its input, so layers are a barrier; within a
layer sparse and dense ranks overlap (fullgraph section 10, row-wise order). Exact.

Volume per epoch, gradients apart: s N (sum of d_{l-1} over layers + twice the sum of d_l over inner
layers + sum of d_{l-1} over layers but the first). Chunk length and node order are settings of
gnnbench, not of the paper.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench import registry
from gnnbench.approaches.base import Approach, GraphLike, Layout
from gnnbench.approaches.fullgraph import stack_shape
from gnnbench.approaches.layers import Chain, StackShape
from gnnbench.graph.graph import Graph
from gnnbench.plan import After, Kind, Lane, Phase, Plan, RankSteps, Step, all_reduce_bytes
from gnnbench.spec import RunSpec
from gnnbench.strict import bounds, choices

_PER_DENSE_RANK, _MOST_BY_DEFAULT = 4, 16


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedKnobs:
    """Knobs of `mixed-accelerators`.

    sparse_ranks: ranks that aggregate (0: half of them); the rest update. chunks: blocks of rows
    that are handed over, at most one per row (0: four per dense rank, at most 16 in all, as every
    chunk is a message from and to every sparse rank). node_order: natural; degree sorts rows by
    rising in-degree; johnson keeps rows and takes the chunks by rising number of entries, which is
    Johnson's rule where every chunk has the same dense work.
    """

    sparse_ranks: int = field(default=0, metadata=bounds(0))
    chunks: int = field(default=0, metadata=bounds(0))
    node_order: str = field(default="natural", metadata=choices("natural", "degree", "johnson"))


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedStructure:
    """Who does what.

    starts         first row of each chunk, and the end, in processing numbering
    nonzeros       entries of each chunk's rows, loops included; nonzeros_t of the transpose
    forward, backward   order of the chunks
    row_order      int64 [N]: vertex of each row; absent when sizes come from a profile
    """

    sparse_ranks: int
    dense_ranks: int
    starts: tuple[int, ...]
    nonzeros: tuple[int, ...]
    nonzeros_t: tuple[int, ...]
    train_rows: tuple[int, ...]
    forward: tuple[int, ...]
    backward: tuple[int, ...]
    row_order: NDArray[np.int64] | None = None
    exact: bool = True
    basis: str = "counted on the real graph"

    @property
    def num_rows(self) -> int:
        return self.starts[-1]

    def rows(self, chunk: int) -> int:
        return self.starts[chunk + 1] - self.starts[chunk]

    def owners(self) -> dict[int, int]:
        """The dense rank of each chunk: dealt out in the order of processing."""
        return {
            chunk: self.sparse_ranks + place % self.dense_ranks
            for place, chunk in enumerate(self.forward)
        }

    def columns(self, width: int) -> list[tuple[int, int]]:
        """First column and end of each sparse rank's slice of a tensor."""
        count = self.sparse_ranks
        edges = [i * width // count for i in range(count + 1)]
        return list(pairwise(edges))

    def widest_slice(self, widths: tuple[int, ...], rank: int) -> int:
        return max(end - first for first, end in (self.columns(w)[rank] for w in widths))


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
    runtime = "gnnbench_runtime.approaches.mixed_accelerators:MixedTrainer"
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
        """At least two ranks; a model whose update needs nothing but the aggregated rows."""
        if run.ranks < 2:
            return "mixed-accelerators needs 2 ranks at least, a sparse and a dense one; 1 asked"
        if self.knobs(run).sparse_ranks >= run.ranks:
            return f"no dense rank is left of {run.ranks}"
        model = registry.model(run.model.kind)
        if model.normalisation != "symmetric" or model.self_weight:
            return (
                f"mixed-accelerators trains gcn only: {run.model.kind} also needs the rows "
                "themselves, which the dense ranks do not have"
            )
        if run.model.input_dropout > 0:
            return "mixed-accelerators has no input dropout: sparse ranks hold slices of columns"
        if graph is not None and graph.num_nodes < 1:
            return "the graph has no nodes"
        return None

    def structure(self, graph: GraphLike, run: RunSpec, cache: Path | None = None) -> Any:
        """Cut rows into chunks, choose their order, deal them out."""
        knobs: MixedKnobs = self.knobs(run)
        sparse = knobs.sparse_ranks or run.ranks // 2
        wanted = knobs.chunks or min(_PER_DENSE_RANK * (run.ranks - sparse), _MOST_BY_DEFAULT)
        count = min(wanted, graph.num_nodes)
        starts = tuple(i * graph.num_nodes // count for i in range(count + 1))
        if not isinstance(graph, Graph):
            edges = [i * graph.num_edges // count for i in range(count + 1)]
            train = [i * graph.num_train // count for i in range(count + 1)]
            entries = tuple(int(n) for n in np.diff(edges) + np.diff(starts))
            natural = tuple(range(count))
            return MixedStructure(
                sparse_ranks=sparse, dense_ranks=run.ranks - sparse, starts=starts,
                nonzeros=entries, nonzeros_t=entries, forward=natural, backward=natural,
                train_rows=tuple(int(n) for n in np.diff(train)), exact=False,
                basis="counts of the profile, chunks taken as equally dense",
            )  # fmt: skip
        incoming, outgoing = graph.in_degrees(), graph.out_degrees()
        order = np.arange(graph.num_nodes, dtype=np.int64)
        if knobs.node_order == "degree":
            order = np.argsort(incoming, kind="stable").astype(np.int64)
        entries = _by_chunk(incoming[order] + 1, starts)
        entries_t = _by_chunk(outgoing[order] + 1, starts)
        forward = backward = tuple(range(count))
        if knobs.node_order != "natural":
            forward = tuple(int(c) for c in np.argsort(entries, kind="stable"))
            backward = tuple(int(c) for c in np.argsort(entries_t, kind="stable"))
        return MixedStructure(
            sparse_ranks=sparse, dense_ranks=run.ranks - sparse, starts=starts,
            nonzeros=entries, nonzeros_t=entries_t, forward=forward, backward=backward,
            train_rows=_by_chunk(_mask(graph)[order].astype(np.int64), starts), row_order=order,
        )  # fmt: skip

    def plan(self, graph: GraphLike, run: RunSpec, structure: Any, layout: Layout) -> Plan:
        shape = stack_shape(graph, run, "aggregate_first")
        world = structure.sparse_ranks + structure.dense_ranks
        group = tuple(range(world))
        iteration = tuple(_RankPlan(shape, structure, rank, group).steps() for rank in range(world))
        return Plan(
            approach=run.approach,
            world_size=world,
            iterations=(iteration,),
            schedule=(0,) * run.training.epochs,
            iterations_per_epoch=1,
            resident=tuple(resident(shape, structure, rank) for rank in range(world)),
            exact=structure.exact,
            basis=structure.basis,
            notes={
                "sparse_ranks": structure.sparse_ranks,
                "chunks": len(structure.forward),
                "idle_dense_ranks": max(structure.dense_ranks - len(structure.forward), 0),
                "num_parameters": shape.num_parameters,
            },
        )


def exchanged_bytes(shape: StackShape, num_rows: int) -> int:
    """Bytes that sparse and dense ranks send each other in an epoch: the closed form above."""
    dims = shape.dims
    forward = sum(dims[:-1]) + sum(dims[1:-1])
    backward = sum(dims[1:-1]) * 2
    return shape.element_bytes * num_rows * (forward + backward)


def resident(shape: StackShape, structure: MixedStructure, rank: int) -> dict[str, int]:
    """Bytes that live from before the first epoch; every buffer of this approach is persistent."""
    s, dims, n = shape.element_bytes, shape.dims, structure.num_rows
    found = {"parameters": 4 * shape.num_parameters * s}
    tallest = max(structure.rows(chunk) for chunk in structure.forward)
    if rank < structure.sparse_ranks:
        first, end = structure.columns(dims[0])[rank]
        inner = structure.widest_slice(dims[1:-1], rank) if len(dims) > 2 else 0
        widest = structure.widest_slice(dims[:-1], rank)
        return found | {
            "x": n * (end - first) * s,
            "topology": 8 * (n + len(structure.forward)) + 4 * sum(structure.nonzeros),
            "topology_t": 8 * (n + len(structure.forward)) + 4 * sum(structure.nonzeros_t),
            "scales": 2 * n * s,
            "columns": 2 * n * inner * s,
            "piece": tallest * widest * s,
        }
    own = sum(structure.rows(c) for c, owner in structure.owners().items() if owner == rank)
    found |= {"labels": 8 * own + 3 * own, "row_ids": 8 * own, "piece": 0}
    if structure.sparse_ranks > 1:
        found["piece"] = tallest * -(-max(dims) // structure.sparse_ranks) * s
    for layer in range(1, shape.num_layers + 1):
        found[f"z{layer}"] = own * dims[layer - 1] * s
        found[f"h{layer}"] = own * dims[layer] * s
        found[f"g{layer}"] = own * dims[layer] * s
    return found


def _by_chunk(values: NDArray[np.int64], starts: tuple[int, ...]) -> tuple[int, ...]:
    upto = np.concatenate([[0], np.cumsum(values)])
    return tuple(int(n) for n in np.diff(upto[list(starts)]))


def _mask(graph: Graph) -> NDArray[np.bool_]:
    mask = graph.train_mask
    return np.zeros(graph.num_nodes, np.bool_) if mask is None else np.asarray(mask)


class _RankPlan:
    """Write one epoch of one rank; the runtime performs exactly these steps."""

    def __init__(
        self, shape: StackShape, structure: MixedStructure, rank: int, group: tuple[int, ...]
    ) -> None:
        self.shape, self.structure, self.rank, self.group = shape, structure, rank, group
        self.chain = Chain()
        self.owners = structure.owners()
        self.own = [c for c in structure.forward if self.owners[c] == rank]
        self.own_rows = sum(structure.rows(c) for c in self.own)

    def steps(self) -> RankSteps:
        (self._sparse if self.rank < self.structure.sparse_ranks else self._dense)()
        shape, s = self.shape, self.shape.element_bytes
        size = (shape.num_parameters + 1) * s
        theta = shape.num_parameters
        self._add(
            "sync/gradients", Kind.ALL_REDUCE, "all_reduce", Lane.COMM, Phase.SYNC, -1,
            rows=theta + 1, buffer_bytes=size, group=self.group,
            bytes=all_reduce_bytes(size, len(self.group)),
        )  # fmt: skip
        self._add(
            "update/adam", Kind.OPTIMIZER, "adam", Lane.COMPUTE, Phase.UPDATE, -1, rows=theta,
            flops=12 * theta, bytes=7 * theta * s,
        )  # fmt: skip
        return self.chain.done()

    def _add(
        self, name: str, kind: Kind, op: str, lane: Lane, phase: Phase, layer: int,
        *, after: tuple[After, ...] = (), **facts: Any,
    ) -> None:  # fmt: skip
        self.chain.add(
            Step(name=name, kind=kind, op=op, lane=lane, phase=phase, layer=layer, **facts),
            after=after,
        )

    def _message(
        self, name: str, lane: Lane, phase: Phase, layer: int, rows: int, width: int, peer: int,
        *, send: bool,
    ) -> Step:  # fmt: skip
        size = rows * width * self.shape.element_bytes
        kind = Kind.SEND if send else Kind.RECV
        return Step(
            name=name, kind=kind, op=kind.value, lane=lane, phase=phase, layer=layer,
            rows=rows * width, width=width, bytes=size if send else 0, buffer_bytes=size,
            group=(self.rank, peer),
        )  # fmt: skip

    # -- sparse ranks ----------------------------------------------------------------------------

    def _sparse(self) -> None:
        layers = self.shape.num_layers
        for layer in range(1, layers + 1):
            self._aggregate(Phase.FORWARD, layer, self.shape.dims[layer - 1])
            if layer < layers:
                self._returned(Phase.FORWARD, layer, self.shape.dims[layer])
        for layer in range(layers, 1, -1):
            self._returned(Phase.BACKWARD, layer, self.shape.dims[layer - 1])
            # The gradient of the layer below, which its dense ranks wait for.
            self._aggregate(Phase.BACKWARD, layer - 1, self.shape.dims[layer - 1])

    def _slice(self, width: int) -> int:
        first, end = self.structure.columns(width)[self.rank]
        return end - first

    def _aggregate(self, phase: Phase, layer: int, width: int) -> None:
        s, held, cut = self.shape.element_bytes, self.structure, self._slice(width)
        order, entries = (
            (held.forward, held.nonzeros)
            if phase is Phase.FORWARD
            else (held.backward, held.nonzeros_t)
        )
        if not cut:
            return
        # Every row of the input must be there: the last one that came back.
        last = self._last_returned
        for chunk in order:
            rows, nnz = held.rows(chunk), entries[chunk]
            self._add(
                f"{phase}/{layer}/spmm/{chunk}", Kind.SPMM, "spmm", Lane.SPARSE, phase, layer,
                rows=rows, source_rows=held.num_rows, nonzeros=nnz, width=cut,
                flops=2 * nnz * cut,
                bytes=8 * (rows + 1) + 4 * nnz + (min(held.num_rows, nnz) + rows) * cut * s,
                after=(After(last),) if last else (),
            )  # fmt: skip
            last = ""
            self.chain.add(
                self._message(
                    f"{phase}/{layer}/send/{chunk}",
                    Lane.COMM,
                    phase,
                    layer,
                    rows,
                    cut,
                    self.owners[chunk],
                    send=True,
                )
            )

    _last_returned = ""

    def _returned(self, phase: Phase, layer: int, width: int) -> None:
        held, cut = self.structure, self._slice(width)
        self._last_returned = ""
        if not cut:
            return
        for chunk in held.forward if phase is Phase.FORWARD else held.backward:
            step = self._message(
                f"{phase}/{layer}/return/{chunk}", Lane.BACKGROUND, phase, layer,
                held.rows(chunk), cut, self.owners[chunk], send=False,
            )  # fmt: skip
            # A thread of its own receives, so it waits for nothing but its order.
            self.chain.steps.append(step)
            self._last_returned = step.name

    # -- dense ranks -----------------------------------------------------------------------------

    def _dense(self) -> None:
        shape = self.shape
        for layer in range(1, shape.num_layers + 1):
            for chunk in self.own:
                self._update(layer, chunk)
        classes, rows, s = shape.dims[-1], self.own_rows, shape.element_bytes
        train = sum(self.structure.train_rows[c] for c in self.own)
        self._add(
            "forward/loss", Kind.ELEMENTWISE, "softmax_cross_entropy", Lane.DENSE, Phase.FORWARD,
            shape.num_layers, rows=rows * classes, nonzeros=train * classes, width=classes,
            flops=5 * train * classes, bytes=(rows + 2 * train) * classes * s,
        )  # fmt: skip
        mine = [c for c in self.structure.backward if self.owners[c] == self.rank]
        for layer in range(shape.num_layers, 0, -1):
            for chunk in mine:
                self._gradient(layer, chunk)
            fan_in, fan_out = shape.dims[layer - 1], shape.dims[layer]
            where, phase = f"backward/{layer}", Phase.BACKWARD
            self._elementwise(f"{where}/bias", "column_sum", phase, layer, rows, fan_out, 1)
            self._gemm(f"{where}/weight", "gemm_tn", phase, layer, fan_in, rows, fan_out)

    def _update(self, layer: int, chunk: int) -> None:
        shape, rows = self.shape, self.structure.rows(chunk)
        fan_in, fan_out, phase = shape.dims[layer - 1], shape.dims[layer], Phase.FORWARD
        self._receive(phase, layer, chunk, fan_in)
        self._gemm(
            f"forward/{layer}/gemm/{chunk}", "gemm_nn_bias", phase, layer, rows, fan_in, fan_out
        )
        if layer < shape.num_layers:
            op = "relu_dropout" if shape.dropout > 0 else "relu"
            self._elementwise(
                f"forward/{layer}/activation/{chunk}", op, phase, layer, rows, fan_out, 2
            )
            self._return(phase, layer, chunk, fan_out)

    def _gradient(self, layer: int, chunk: int) -> None:
        shape, rows = self.shape, self.structure.rows(chunk)
        fan_in, fan_out, phase = shape.dims[layer - 1], shape.dims[layer], Phase.BACKWARD
        if layer < shape.num_layers:
            self._receive(phase, layer, chunk, fan_out)
            self._elementwise(
                f"backward/{layer}/activation/{chunk}", "relu_backward", phase, layer, rows,
                fan_out, 3,
            )  # fmt: skip
        if layer > 1:
            self._gemm(
                f"backward/{layer}/input/{chunk}", "gemm_nt", phase, layer, rows, fan_out, fan_in
            )
            self._return(phase, layer, chunk, fan_in)

    def _receive(self, phase: Phase, layer: int, chunk: int, width: int) -> None:
        for peer, cut in self._slices(width):
            place = f"{chunk}/{peer}"
            rows = self.structure.rows(chunk)
            self.chain.add(
                self._message(
                    f"{phase}/{layer}/recv/{place}",
                    Lane.COMM,
                    phase,
                    layer,
                    rows,
                    cut,
                    peer,
                    send=False,
                )
            )
            self._copy(f"{phase}/{layer}/unpack/{place}", phase, layer, rows, cut)

    def _return(self, phase: Phase, layer: int, chunk: int, width: int) -> None:
        for peer, cut in self._slices(width):
            place, rows = f"{chunk}/{peer}", self.structure.rows(chunk)
            self._copy(f"{phase}/{layer}/pack/{place}", phase, layer, rows, cut)
            self.chain.add(
                self._message(
                    f"{phase}/{layer}/return/{place}",
                    Lane.BACKGROUND,
                    phase,
                    layer,
                    rows,
                    cut,
                    peer,
                    send=True,
                )
            )

    def _slices(self, width: int) -> list[tuple[int, int]]:
        cuts = enumerate(self.structure.columns(width))
        return [(peer, end - first) for peer, (first, end) in cuts if end > first]

    def _copy(self, name: str, phase: Phase, layer: int, rows: int, width: int) -> None:
        """A slice of columns into or out of whole rows; with one sparse rank there is none."""
        if self.structure.sparse_ranks > 1:
            s = self.shape.element_bytes
            self._add(
                name, Kind.GATHER, "gather", Lane.DENSE, phase, layer, rows=rows, width=width,
                source_rows=rows, bytes=2 * rows * width * s,
            )  # fmt: skip

    def _gemm(self, name: str, op: str, phase: Phase, layer: int, m: int, k: int, n: int) -> None:
        s = self.shape.element_bytes
        self._add(
            name, Kind.GEMM, op, Lane.DENSE, phase, layer, rows=m, inner=k, width=n,
            flops=2 * m * k * n, bytes=(m * k + k * n + m * n) * s,
        )  # fmt: skip

    def _elementwise(
        self, name: str, op: str, phase: Phase, layer: int, rows: int, width: int, passes: int
    ) -> None:
        s = self.shape.element_bytes
        self._add(
            name, Kind.ELEMENTWISE, op, Lane.DENSE, phase, layer, rows=rows * width, width=width,
            flops=rows * width, bytes=passes * rows * width * s,
        )  # fmt: skip


APPROACH = MixedAccelerators()
