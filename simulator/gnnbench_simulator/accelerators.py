"""A GNN on a sparse and a dense engine: operations, pipelined pairs, best chunk count, energy.

A pass over the model is a list of operations that alternate between the engines. Two neighbours
overlap chunk by chunk where the first hands over rows as it goes and the second can use them so:
row-wise, a sparse product emits finished rows but needs all rows of its input (sparse to dense);
as an outer product it takes rows as they come but is finished only at the end (dense to sparse).
Everything else is a barrier. Source: fullgraph section 10, simulation section 9. Elementwise steps
cost off-chip traffic unless they are fused into the operation before them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from gnnbench.accelerators import Accelerator, dense_engine, sparse_engine
from gnnbench.approaches.base import GraphLike
from gnnbench.approaches.writing.stack import StackShape
from gnnbench.cluster import grade, weakest
from gnnbench.costs.facts import Floats
from gnnbench.errors import SpecError
from gnnbench.ledger import Row
from gnnbench_simulator.engine_costs import (
    Chunks,
    Gemm,
    RowOrder,
    RowTable,
    Work,
    dense_work,
    sparse_work,
)
from gnnbench_simulator.pipeline import (
    Ends,
    best_chunks,
    johnson,
    lower_bound,
    pipeline,
    shared_pipeline,
)

FUSABLE = ("scale", "bias", "activation")
MOST_CHUNKS = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How the engines work together.

    product_order   row_wise or outer_product
    node_order      natural; degree: by rising degree towards the dense engine, by falling degree
                    from it; johnson: natural chunks in the order of Johnson's rule
    chunks          None: the best found
    slots           buffers between the engines; None: what the devices say
    memory          shared (max-min fairly) or apart; auto: shared when both sit on one device
    fuse            elementwise steps done on the way, without a pass over off-chip memory
    passes          forward, or training (forward and backward)
    hit_rate        of repeated touches of rows; None: from buffer size and degrees
    """

    product_order: Literal["row_wise", "outer_product"] = "row_wise"
    node_order: Literal["natural", "degree", "johnson"] = "natural"
    chunks: int | None = None
    slots: int | None = None
    memory: Literal["auto", "shared", "apart"] = "auto"
    fuse: tuple[str, ...] = ()
    passes: Literal["forward", "training"] = "forward"
    hit_rate: float | None = None
    element_bytes: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One product of a layer, with what streams to and from off-chip memory, in columns.

    in_width, out_width   rows taken and given, which a partner engine may hand over
    kept_width            rows read or written whoever the partner is (saved for backward)
    passes                elementwise steps as (name, columns)
    """

    engine: Literal["sparse", "dense"]
    phase: str
    layer: int
    in_width: int
    out_width: int
    gemms: tuple[Gemm, ...] = ()
    kept_width: int = 0
    passes: tuple[tuple[str, int], ...] = ()
    transpose: bool = False

    @property
    def name(self) -> str:
        return f"{self.phase}/{self.layer}/{self.engine}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Operations that run together: a pair in a pipeline, or one alone. Times from its start."""

    operations: tuple[Operation, ...]
    seconds: tuple[Floats, ...]
    link_s: Floats
    ends: Ends
    works: tuple[Work, ...]
    start_s: float = 0.0
    link_bytes: int = 0

    @property
    def name(self) -> str:
        return " > ".join(operation.name for operation in self.operations)

    @property
    def makespan_s(self) -> float:
        return self.ends.makespan_s

    @property
    def bound_s(self) -> float:
        """What no order of these chunks can beat, were the memory each engine's own."""
        alone = [work.seconds() for work in self.works]
        return float(alone[0].sum()) if len(alone) == 1 else lower_bound(*alone)

    def busy_s(self, engine: str) -> float:
        pairs = zip(self.operations, self.seconds, strict=True)
        return float(sum(s.sum() for operation, s in pairs if operation.engine == engine))


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceleration:
    """One pass of a model on a pair of engines.

    serial_s    the sparse engine alone, then the dense engine alone, each with all of its memory,
                whole tensors between them
    energy_j    by device name
    bytes_saved off-chip bytes that fusing saved
    """

    groups: tuple[Group, ...]
    setup: Setup
    sparse: Accelerator
    dense: Accelerator
    chunks: int
    serial_s: float
    closed_form_chunks: int
    tried: dict[int, float]
    energy_j: dict[str, float]
    bytes_saved: float
    shared_memory: bool
    exact: bool
    grade: str
    hit_rates: dict[int, float] = field(default_factory=dict)

    @property
    def makespan_s(self) -> float:
        return float(sum(group.makespan_s for group in self.groups))

    @property
    def speed_up(self) -> float:
        return self.serial_s / self.makespan_s if self.makespan_s > 0 else 1.0

    def busy_s(self, engine: str) -> float:
        return float(sum(group.busy_s(engine) for group in self.groups))

    def utilisation(self, engine: str) -> float:
        return self.busy_s(engine) / self.makespan_s if self.makespan_s > 0 else 0.0

    def rows(self) -> list[Row]:
        """The timeline as a ledger: lanes sparse, comm (the link) and dense."""
        found: list[Row] = []
        for group in self.groups:
            first, last = group.ends.producer_s, group.ends.consumer_s
            for operation, ends, seconds in zip(
                group.operations, (first, last), group.seconds, strict=False
            ):
                kind, op = ("spmm", "spmm") if operation.engine == "sparse" else ("gemm", "gemm_nn")
                found += _rows(group, operation, ends, seconds, kind, op, operation.engine)
            if len(group.operations) == 2 and group.link_s.any():
                found += _rows(
                    group, group.operations[0], group.ends.link_s, group.link_s, "send", "send",
                    "comm", group.link_bytes // max(len(group.link_s), 1),
                )  # fmt: skip
        return sorted(found, key=lambda row: (row.start_s, row.lane))


def _rows(
    group: Group, operation: Operation, ends: Floats, seconds: Floats, kind: str, op: str,
    lane: str, size: int = 0,
) -> list[Row]:  # fmt: skip
    ends, times = (group.start_s + ends).tolist(), seconds.tolist()
    return [
        Row(
            epoch=0, iteration=0, name=f"{operation.name}/{k}", kind=kind, op=op, lane=lane,
            phase=operation.phase, layer=operation.layer, group_size=0, bytes=size, flops=0,
            start_s=end - spent, duration_s=spent,
        )
        for k, (end, spent) in enumerate(zip(ends, times, strict=True))
    ]  # fmt: skip


def operations(shape: StackShape, passes: str) -> list[Operation]:
    """The operations of a pass in order; dense ones that follow each other are one."""
    found: list[Operation] = []
    layers = range(1, shape.num_layers + 1)
    for layer in layers:
        found += _forward(shape, layer, saved=passes == "training")
    if passes == "training":
        for layer in reversed(layers):
            found += _backward(shape, layer)
    merged: list[Operation] = []
    for operation in found:
        last = merged[-1] if merged else None
        joins = last is not None and last.engine == operation.engine == "dense"
        if last is not None and joins and last.phase == operation.phase:
            merged[-1] = replace(
                last, gemms=last.gemms + operation.gemms, out_width=operation.out_width,
                kept_width=last.kept_width + operation.kept_width,
                passes=last.passes + operation.passes,
            )  # fmt: skip
        else:
            merged.append(operation)
    return merged


def _forward(shape: StackShape, layer: int, *, saved: bool) -> list[Operation]:
    fan_in, fan_out = shape.dims[layer - 1], shape.dims[layer]
    twice = 2 if shape.model.self_weight else 1
    gemms = (Gemm(fan_in, fan_out),) * twice
    after: tuple[tuple[str, int], ...] = (("bias", fan_out),)
    if layer < shape.num_layers:
        after += (("activation", fan_out),)
    if shape.orders[layer - 1] == "aggregate_first":
        # A self weight reads the rows themselves beside the aggregated ones.
        kept = fan_in * (twice - 1)
        z = fan_in if saved else 0
        return [
            Operation(
                engine="sparse", phase="forward", layer=layer, in_width=fan_in, out_width=fan_in,
                kept_width=z, passes=(("scale", fan_in),),
            ),
            Operation(
                engine="dense", phase="forward", layer=layer, in_width=fan_in, out_width=fan_out,
                gemms=gemms, kept_width=kept, passes=after,
            ),
        ]  # fmt: skip
    own = fan_out * (twice - 1)
    return [
        Operation(
            engine="dense", phase="forward", layer=layer, in_width=fan_in, out_width=fan_out,
            gemms=gemms, kept_width=own,
        ),
        Operation(
            engine="sparse", phase="forward", layer=layer, in_width=fan_out, out_width=fan_out,
            kept_width=own, passes=(("scale", fan_out), *after),
        ),
    ]  # fmt: skip


def _backward(shape: StackShape, layer: int) -> list[Operation]:
    fan_in, fan_out = shape.dims[layer - 1], shape.dims[layer]
    twice = 2 if shape.model.self_weight else 1
    first = shape.orders[layer - 1] == "aggregate_first"
    gemms: tuple[Gemm, ...] = (Gemm(fan_in, fan_out, reduces=True),)
    if layer > 1:
        gemms += (Gemm(fan_out, fan_in),)
    mask = (("activation", fan_out),) if layer < shape.num_layers else ()
    dense = Operation(
        engine="dense", phase="backward", layer=layer, in_width=fan_out,
        out_width=fan_in if layer > 1 else 0, gemms=gemms * twice, kept_width=fan_in * twice,
        passes=mask if first else (),
    )  # fmt: skip
    if first and layer == 1:
        return [dense]
    width = fan_in if first else fan_out
    sparse = Operation(
        engine="sparse", phase="backward", layer=layer, in_width=width, out_width=width,
        passes=(("scale", width), *(() if first else mask)), transpose=True,
    )  # fmt: skip
    return [dense, sparse] if first else [sparse, dense]


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
            groups=groups, setup=self.setup, sparse=self.sparse, dense=self.dense, chunks=chosen,
            serial_s=serial, closed_form_chunks=closed, tried=tried,
            energy_j=self._energy(groups, makespan), bytes_saved=self._saved(),
            shared_memory=self.shared, exact=self.table.exact, grade=self._grade(),
            hit_rates=self.hits,
        )  # fmt: skip

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
            operations=tuple(pair), seconds=seconds, link_s=link, ends=ends, works=works,
            link_bytes=int(moved.sum()) if rate else 0,
        )  # fmt: skip

    def _chunks(self, pair: Sequence[Operation], count: int) -> Chunks:
        sparse = next((op for op in pair if op.engine == "sparse"), None)
        outer = self.setup.product_order == "outer_product"
        transpose = sparse is not None and sparse.transpose is not outer
        order: RowOrder = "natural"
        if self.setup.node_order == "degree" and len(pair) == 2:
            order = "rising" if pair[0].engine == "sparse" else "falling"
        return self.table.cut(count, order, transpose=transpose)

    def _works(self, pair: Sequence[Operation], chunks: Chunks) -> tuple[Work, ...]:
        works = []
        for place, operation in enumerate(pair):
            handed_in, handed_out = place == 1, len(pair) == 2 and place == 0
            works.append(self._work(operation, chunks, handed_in, handed_out, self.setup.fuse))
        return tuple(works)

    def _work(
        self, op: Operation, chunks: Chunks, handed_in: bool, handed_out: bool,
        fuse: tuple[str, ...],
    ) -> Work:  # fmt: skip
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
            self.sparse, self.table, chunks, width, element_bytes=s, outer=outer,
            stream_widths=stream, hit_rate=self.hits[width],
        )  # fmt: skip

    def _run(self, works: tuple[Work, ...], link: Floats) -> tuple[Ends, tuple[Floats, ...]]:
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
