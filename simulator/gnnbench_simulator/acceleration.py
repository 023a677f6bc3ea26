"""One pass of a model on a pair of engines: its settings and its result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from gnnbench.accelerators import Accelerator
from gnnbench.costs.facts import Floats
from gnnbench.ledger import Row
from gnnbench_simulator.engine_costs import ChunkWork
from gnnbench_simulator.operations import Operation
from gnnbench_simulator.pipeline import Ends, lower_bound

_KINDS = {"sparse": ("spmm", "spmm"), "dense": ("gemm", "gemm_nn")}
"""Kind and operation of each engine's steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Settings of a pass on two engines.

    Args:
        product_order: row_wise or outer_product.
        node_order: natural; degree processes rows by increasing degree towards the dense engine and
            by decreasing degree from it; johnson keeps natural chunks and orders them by Johnson's
            rule.
        chunks: None takes the best count found.
        slots: buffers between the engines; None takes the number of the devices.
        memory: shared (max-min fairly) or apart; auto shares it if both engines are on one device.
        fuse: elementwise steps that need no pass of their own over off-chip memory.
        passes: forward, or training (forward and backward).
        hit_rate: share of repeated accesses to rows that hit on-chip memory; None estimates it from
            buffer size and degrees.
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
class Group:
    """Operations that run together: a pair in a pipeline, or one alone.

    Args:
        operations: one or two.
        seconds: of each operation's chunks.
        link_s: of the handover of each chunk.
        ends: when chunks end, from the start of the group.
        works: of each operation.
        start_s: from the start of the pass.
        link_bytes: handed over in all.
    """

    operations: tuple[Operation, ...]
    seconds: tuple[Floats, ...]
    link_s: Floats
    ends: Ends
    works: tuple[ChunkWork, ...]
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
        """Lower bound over all orders of the chunks, if each engine had memory of its own."""
        alone = [work.seconds() for work in self.works]
        return float(alone[0].sum()) if len(alone) == 1 else lower_bound(*alone)

    def busy_s(self, engine: str) -> float:
        pairs = zip(self.operations, self.seconds, strict=True)
        return float(sum(s.sum() for operation, s in pairs if operation.engine == engine))

    def as_record(self) -> dict[str, Any]:
        """The group as JSON knows it."""
        return {
            "name": self.name,
            "chunks": len(self.seconds[0]),
            "makespan_s": self.makespan_s,
            "bound_s": self.bound_s,
            "sparse_s": self.busy_s("sparse"),
            "dense_s": self.busy_s("dense"),
            "link_bytes": self.link_bytes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceleration:
    """One pass of a model on a pair of engines.

    Args:
        graph: its name.
        dims: widths of the model's layers, the input's first.
        groups: in the order in which they run.
        chunks: of each pair of operations.
        serial_s: the sparse engine alone, then the dense engine alone, each with the whole memory
            to itself, and whole tensors between them.
        closed_form_chunks: K* (see `pipeline.best_chunks`).
        tried: makespan in seconds by number of chunks.
        energy_j: by engine.
        bytes_saved: off-chip bytes that fusing saved.
        exact: whether row lengths were counted on a graph; else they come from a profile.
        hit_rates: by width of the rows.
    """

    graph: str
    dims: tuple[int, ...]
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

    def num_unverified(self) -> int:
        """Constants of the two devices that are assumed or unverified."""
        used = {
            (device.name, name): constant.status
            for device in (self.sparse, self.dense)
            for name, constant in device.constants().items()
        }
        return sum(status in ("assumed", "unverified") for status in used.values())

    def rows(self) -> list[Row]:
        """The timeline as a ledger: lanes sparse, comm (the link) and dense."""
        found: list[Row] = []
        for group in self.groups:
            ends = group.ends.producer_s, group.ends.consumer_s
            for operation, end_s, seconds in zip(
                group.operations, ends, group.seconds, strict=False
            ):
                kind, op = _KINDS[operation.engine]
                place = {"kind": kind, "op": op, "lane": operation.engine, "bytes": 0}
                found += _rows(operation, group.start_s + end_s, seconds, **place)
            if len(group.operations) == 2 and group.link_s.any():
                size = group.link_bytes // max(len(group.link_s), 1)
                place = {"kind": "send", "op": "send", "lane": "comm", "bytes": size}
                end_s = group.start_s + group.ends.link_s
                found += _rows(group.operations[0], end_s, group.link_s, **place)
        return sorted(found, key=lambda row: (row.start_s, row.lane))

    def as_record(self) -> dict[str, Any]:
        """The acceleration as JSON knows it; times in seconds, energy in joules."""
        engines = ("sparse", "dense")
        return {
            "graph": self.graph,
            "dims": self.dims,
            "sparse": self.sparse.name,
            "dense": self.dense.name,
            "product_order": self.setup.product_order,
            "node_order": self.setup.node_order,
            "passes": self.setup.passes,
            "chunks": self.chunks,
            "closed_form_chunks": self.closed_form_chunks,
            "makespan_s": self.makespan_s,
            "serial_s": self.serial_s,
            "speed_up_over_serial": self.speed_up,
            "busy_s": {engine: self.busy_s(engine) for engine in engines},
            "utilisation": {engine: self.utilisation(engine) for engine in engines},
            "energy_j": self.energy_j,
            "fused_steps": self.setup.fuse,
            "offchip_bytes_saved_by_fusing": self.bytes_saved,
            "shared_memory": self.shared_memory,
            "hit_rates_by_width": self.hit_rates,
            "exact_sizes": self.exact,
            "grade": self.grade,
            "makespan_by_chunks_s": self.tried,
            "groups": [group.as_record() for group in self.groups],
        }


def _rows(operation: Operation, ends_s: Floats, seconds: Floats, **place: Any) -> list[Row]:
    """A row per chunk of an operation, or of its handover."""
    return [
        Row(
            period=0,
            iteration=0,
            name=f"{operation.name}/{chunk}",
            phase=operation.phase,
            layer=operation.layer,
            group_size=0,
            flops=0,
            start_s=end_s - spent_s,
            duration_s=spent_s,
            **place,
        )
        for chunk, (end_s, spent_s) in enumerate(
            zip(ends_s.tolist(), seconds.tolist(), strict=True)
        )
    ]
