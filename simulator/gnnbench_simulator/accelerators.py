"""A GNN on a sparse and a dense engine: pipelined pairs, best chunk count, energy.

A pass over the model is a list of operations that alternate between the engines. Two neighbours
overlap chunk by chunk where the first hands over rows as it goes and the second can use them so:
row-wise, a sparse product emits finished rows but needs all rows of its input (sparse to dense);
as an outer product it takes rows as they come but is finished only at the end (dense to sparse).
Everything else is a barrier. Source: fullgraph section 10, simulation section 9. Elementwise steps
cost off-chip traffic unless they are fused into the operation before them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gnnbench.accelerators import Accelerator, dense_engine, sparse_engine
from gnnbench.approaches.base import GraphLike
from gnnbench.approaches.writing.shape import StackShape
from gnnbench.costs.facts import Floats
from gnnbench.errors import SpecError
from gnnbench.ladder import grade, weakest
from gnnbench.models.names import MODELS
from gnnbench.spec import ModelSpec
from gnnbench_simulator.acceleration import Acceleration, Group, Setup
from gnnbench_simulator.engine_costs import (
    Chunks,
    ChunkWork,
    RowOrder,
    RowTable,
    dense_work,
    sparse_work,
)
from gnnbench_simulator.operations import Operation, operations
from gnnbench_simulator.pipeline import Ends, best_chunks, johnson, pipeline, shared_pipeline

FUSABLE = ("scale", "bias", "activation")
MOST_CHUNKS = 16_384


def accelerate(
    graph: GraphLike,
    model: ModelSpec,
    devices: tuple[Accelerator, Accelerator],
    setup: Setup,
    *,
    order: str = "min_width",
    features: int | None = None,
    classes: int | None = None,
) -> Acceleration:
    """Simulate one pass of a model on a sparse and a dense engine.

    Args:
        graph: a graph, or a profile, whose degrees are then used.
        model: kind, hidden width and layers.
        devices: the one with the sparse engine, and the one with the dense engine.
        setup: how the engines work together.
        order: which product comes first in a layer (see `models.base.layer_order`).
        features, classes: widths of input and output, by default the graph's.

    Raises:
        SpecError: a device lacks its engine, a width is missing, or the model has attention.
    """
    card = MODELS.get(model.kind)
    if card.attention:
        raise SpecError(
            f"model {model.kind}: computes new edge weights in every layer, which the sparse "
            "engines here do not; choose a model with fixed ones"
        )
    dims = card.dims(model, features or graph.num_features, classes or graph.num_classes)
    shape = StackShape.of(card, model, dims, setup.element_bytes, order)
    return Accelerate(graph, shape, *devices, setup).best()


class Accelerate:
    """A graph and a model on a pair of engines; `best` looks for the chunk count."""

    def __init__(
        self,
        graph: GraphLike,
        shape: StackShape,
        sparse: Accelerator,
        dense: Accelerator,
        setup: Setup,
    ) -> None:
        sparse_engine(sparse), dense_engine(dense)
        unknown = sorted(set(setup.fuse) - set(FUSABLE))
        if unknown:
            raise SpecError(f"--fuse: found {', '.join(unknown)}; allowed: {', '.join(FUSABLE)}")
        if graph.num_nodes < 1:
            raise SpecError("the graph has no nodes: there is nothing to accelerate")
        if any(width < 1 for width in shape.dims):
            raise SpecError(
                f"widths {shape.dims}: allowed >= 1; give --features and --classes for a graph "
                "without them"
            )
        self.graph = graph.name
        self.shape, self.sparse, self.dense, self.setup = shape, sparse, dense, setup
        self.table = RowTable(graph, loops=shape.model.normalisation == "symmetric")
        self.one_device = sparse.name == dense.name and sparse.one_device
        self.shared = setup.memory == "shared" or (setup.memory == "auto" and self.one_device)
        self.unified = self.one_device and sparse.unified
        slots = setup.slots or int(min(sparse.buffer_slots.value, dense.buffer_slots.value))
        # One fabric for both products does one chunk at a time: the same as a single buffer.
        self.slots = 1 if self.unified else slots
        self.hits: dict[int, float] = {}

    def best(self) -> Acceleration:
        """Run with the chunk count asked for, or with the best of powers of two and K*."""
        most = min(self.table.num_nodes, MOST_CHUNKS)
        alone = [self._group((op,), 1) for op in operations(self.shape, self.setup.passes)]
        closed = self._closed_form(alone, most)
        if self.setup.chunks is not None:
            counts = [min(self.setup.chunks, most)]
        else:
            powers = [2**power for power in range(15) if 2**power <= most]
            counts = sorted({*powers, closed})
        tried: dict[int, float] = {}
        for count in counts:
            tried[count] = sum(group.makespan_s for group in self.groups(count))
        chosen = min(counts, key=lambda count: (tried[count], count))
        groups = self.groups(chosen)
        makespan = sum(group.makespan_s for group in groups)
        serial = sum(group.makespan_s for group in alone)
        if not self.one_device:
            serial += sum(float(group.link_s.sum()) for group in self.groups(1))
        return Acceleration(
            graph=self.graph,
            dims=self.shape.dims,
            groups=groups,
            setup=self.setup,
            sparse=self.sparse,
            dense=self.dense,
            chunks=chosen,
            serial_s=serial,
            closed_form_chunks=closed,
            tried=tried,
            energy_j=self._energy(groups, makespan),
            bytes_saved=self._saved(),
            shared_memory=self.shared,
            exact=self.table.exact,
            grade=self._grade(),
            hit_rates=self.hits,
        )

    def groups(self, count: int) -> tuple[Group, ...]:
        """Pair the operations that can overlap; run pair after pair, each in `count` chunks."""
        left = operations(self.shape, self.setup.passes)
        found: list[Group] = []
        start = 0.0
        while left:
            pair = len(left) > 1 and self._overlap(left[0], left[1])
            taken, left = tuple(left[: 1 + pair]), left[1 + pair :]
            group = replace(self._group(taken, count if pair else 1), start_s=start)
            start += group.makespan_s
            found.append(group)
        return tuple(found)

    def _overlap(self, first: Operation, second: Operation) -> bool:
        giver = "sparse" if self.setup.product_order == "row_wise" else "dense"
        return first.engine == giver and second.engine != giver and first.phase == second.phase

    def _group(self, pair: Sequence[Operation], count: int) -> Group:
        chunks = self._chunks(pair, count)
        works = self._works(pair, chunks)
        width = pair[0].out_width if len(pair) == 2 else 0
        rates = [d.link_bytes_per_s.value for d in (self.sparse, self.dense)]
        rate = 0.0 if self.one_device else min((r for r in rates if r > 0), default=0.0)
        moved = chunks.rows * width * self.setup.element_bytes
        link = moved / rate if rate else np.zeros(len(chunks))
        seconds = tuple(work.seconds() for work in works)
        if len(pair) == 1:
            total = np.cumsum(seconds[0])
            ends = Ends(total, total, total)
        else:
            ends, taken = self._run(works, link)
            if self.setup.node_order == "johnson":
                order = johnson(seconds[0] + link, seconds[1] + link)
                turned, durations = self._run(tuple(w.permuted(order) for w in works), link[order])
                # The rule is optimal for two stages and buffers enough; else keep what is better.
                if turned.makespan_s <= ends.makespan_s:
                    ends, taken, link = turned, durations, link[order]
            seconds = taken
        return Group(
            operations=tuple(pair),
            seconds=seconds,
            link_s=link,
            ends=ends,
            works=works,
            link_bytes=int(moved.sum()) if rate else 0,
        )

    def _chunks(self, pair: Sequence[Operation], count: int) -> Chunks:
        sparse = next((op for op in pair if op.engine == "sparse"), None)
        outer = self.setup.product_order == "outer_product"
        transpose = sparse is not None and sparse.transpose is not outer
        order: RowOrder = "natural"
        if self.setup.node_order == "degree" and len(pair) == 2:
            order = "rising" if pair[0].engine == "sparse" else "falling"
        return self.table.cut(count, order, transpose=transpose)

    def _works(self, pair: Sequence[Operation], chunks: Chunks) -> tuple[ChunkWork, ...]:
        works = []
        for place, operation in enumerate(pair):
            handed_in, handed_out = place == 1, len(pair) == 2 and place == 0
            works.append(self._work(operation, chunks, handed_in, handed_out, self.setup.fuse))
        return tuple(works)

    def _work(
        self,
        op: Operation,
        chunks: Chunks,
        handed_in: bool,
        handed_out: bool,
        fuse: tuple[str, ...],
    ) -> ChunkWork:
        s = self.setup.element_bytes
        stream = float(op.kept_width)
        stream += sum(2 * width for name, width in op.passes if name not in fuse)
        if op.engine == "dense":
            stream += (0 if handed_in else op.in_width) + (0 if handed_out else op.out_width)
            return dense_work(
                self.dense, chunks.rows, op.gemms, element_bytes=s, stream_widths=stream
            )
        outer = self.setup.product_order == "outer_product"
        # Touches are rows read (row-wise) or rows updated (outer); the other side streams.
        stream += (
            (0 if handed_in else op.in_width) if outer else (0 if handed_out else op.out_width)
        )
        width = op.in_width
        if width not in self.hits:
            capacity = sparse_engine(self.sparse).onchip_bytes.value / (width * s)
            given = self.setup.hit_rate
            self.hits[width] = self.table.hit_rate(capacity) if given is None else given
        return sparse_work(
            self.sparse,
            self.table,
            chunks,
            width,
            element_bytes=s,
            outer=outer,
            stream_widths=stream,
            hit_rate=self.hits[width],
        )

    def _run(self, works: tuple[ChunkWork, ...], link: Floats) -> tuple[Ends, tuple[Floats, ...]]:
        """Ends and durations of a pair's chunks."""
        first, second = works
        if not self.shared or self.unified:
            seconds = (first.seconds(), second.seconds())
            return pipeline(seconds[0], link, seconds[1], self.slots), seconds
        ends, *taken = shared_pipeline(
            first.seconds(), link, second.seconds(), first.need(), second.need(), self.slots
        )
        return ends, tuple(taken)

    def _closed_form(self, alone: Sequence[Group], most: int) -> int:
        overheads = (
            sparse_engine(self.sparse).chunk_overhead_s.value,
            dense_engine(self.dense).chunk_overhead_s.value,
        )
        sums = [sum(group.busy_s(engine) for group in alone) for engine in ("sparse", "dense")]
        pairs = sum(len(group.operations) == 2 for group in self.groups(1))
        return best_chunks(sums[0] / max(pairs, 1), sums[1] / max(pairs, 1), max(overheads), most)

    def _energy(self, groups: Sequence[Group], makespan: float) -> dict[str, float]:
        devices = {"sparse": self.sparse, "dense": self.dense}
        found = {
            engine: device.energy.idle_w.value * makespan for engine, device in devices.items()
        }
        if self.one_device:
            found["dense"] = 0.0
        for group in groups:
            for operation, work in zip(group.operations, group.works, strict=True):
                cost = devices[operation.engine].energy
                found[operation.engine] += work.macs * cost.joules_per_mac.value
                found[operation.engine] += work.offchip_bytes * cost.joules_per_offchip_byte.value
        return found

    def _saved(self) -> float:
        rows, s = self.table.num_nodes, self.setup.element_bytes
        return float(
            sum(
                2 * width * rows * s
                for op in operations(self.shape, self.setup.passes)
                for name, width in op.passes
                if name in self.setup.fuse
            )
        )

    def _grade(self) -> str:
        used = {**self.sparse.constants(), **self.dense.constants()}
        return weakest({grade(constant.status) for constant in used.values()})
