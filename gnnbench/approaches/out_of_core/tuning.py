"""Auto-tuning: partitions, buffer and logical partitions for a memory cap and a disk.

Rules of MariusGNN (out-of-core reference section 8): p as large as possible while a partition and
an edge bucket fill a block of the disk; c as large as the cap allows; l = 2 p / c, so that two
logical partitions are resident. Deviations: the tables of p^2 buckets count as memory too, and
edges by what this code holds of them, not by two sorted copies.

DISPERSED has p - c + 1 states, and in each of them the graph of the buffer is made and at least one
batch is trained on. With p as large as blocks allow, a state has a handful of training vertices:
its batches are nearly empty, and an epoch makes thousands of graphs. So p is halved until an epoch
has at least as many batches as states.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from gnnbench.approaches.out_of_core.links import num_facts
from gnnbench.approaches.out_of_core.policies import Policy, partition_reads
from gnnbench.approaches.out_of_core.storage import DISK_BLOCK, Rows, padded
from gnnbench.data.sampling import steps
from gnnbench.disk_limit import DiskLimit
from gnnbench.spec import RunSpec

PARTITIONS_MAX = 8192
"""As published for Papers100M."""
PROCESS_BYTES = 400_000_000
"""Of a process that has torch and compiled loops, and room to evaluate in, before any data: 310 to
380 MB were measured on a two-core machine after the rehearsal of suite `out-of-core`."""
BUCKET_BYTES = 16
"""Per bucket: how many edges it has, and where it starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What is tuned for.

    Args:
        num_rows, row_bytes: of the table; a trained row counts its optimizer's state.
        num_edges, edge_bytes: of the edge file.
        held_bytes: of an edge in memory: 36 where the graph of the buffer is built, 48 where the
            facts of a visit are shuffled.
        fixed_bytes: of the process, the model and a batch.
        per_row_bytes: of tables over all rows: positions, labels.
        trained: whether rows are written back, and every pair of partitions must meet.
        training_rows: rows that come first and should be resident throughout; 0 for link
            prediction.
        batches: of training rows in an epoch; 0 for link prediction.
        ahead: whether the next partitions are read into slots of their own.
    """

    num_rows: int
    row_bytes: int
    num_edges: int
    edge_bytes: int
    held_bytes: int
    fixed_bytes: int
    per_row_bytes: int = 16
    trained: bool = False
    training_rows: int = 0
    batches: int = 0
    ahead: bool = False

    @classmethod
    def of(cls, run: RunSpec, data: Any, *, ahead: bool, staleness: int = 0) -> Sizes:
        """The sizes of a run: link prediction on triples, node classification on graphs."""
        width, s, batch = run.model.hidden, run.training.element_bytes, run.batch
        flight = 1 + staleness
        if data.kind == "triples":
            b, n = batch.size, batch.negatives
            return cls(
                num_rows=data.num_entities,
                row_bytes=2 * width * s,
                num_edges=num_facts(data),
                edge_bytes=12,
                held_bytes=48,
                fixed_bytes=PROCESS_BYTES
                + ((24 * b + 6 * n + 2 * (2 * b + n) * staleness) * width + 6 * b * n) * s,
                trained=True,
                ahead=ahead,
            )
        found = batch.size
        for fanout in batch.fanouts(run.model.layers):
            found *= 1 + fanout if fanout >= 0 else data.num_nodes
        wide = flight * data.num_features + 6 * width * run.model.layers
        return cls(
            num_rows=data.num_nodes,
            row_bytes=data.num_features * s,
            num_edges=data.num_edges,
            edge_bytes=8,
            held_bytes=36,
            fixed_bytes=PROCESS_BYTES + min(found, data.num_nodes) * wide * s,
            per_row_bytes=40,
            training_rows=data.num_train,
            batches=steps(data.num_train, batch.size),
            ahead=ahead,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What was chosen, and what it is predicted to need.

    Args:
        partitions, buffer, logical: p, c and l; l is 0 for node classification.
        memory_bytes: peak.
        read_bytes, written_bytes: of the table in an epoch.
    """

    partitions: int
    buffer: int
    logical: int
    memory_bytes: int
    read_bytes: int
    written_bytes: int


def tune(sizes: Sizes, memory_bytes: float, *, block: int = DISK_BLOCK) -> Choice | str:
    """Choose p, c and l; or say in a line why the cap is too small."""
    p = _partitions(sizes, memory_bytes, block)
    rows = Rows(num_rows=sizes.num_rows, partitions=p, row_bytes=sizes.row_bytes)
    if need(sizes, rows, p) <= memory_bytes:
        return _choice(sizes, rows, p, 1 if sizes.trained else 0)
    most = _largest(sizes, rows, memory_bytes)
    if not sizes.trained:
        if most < 1:
            return _too_small(need(sizes, rows, 1), memory_bytes)
        return _choice(sizes, *_filled(sizes, rows, most, memory_bytes), 0)
    # Two logical partitions are resident: c = 2 p / l, for the smallest l whose buffer fits.
    for logical in range(3, p + 1):
        if p % logical == 0 and 2 * p // logical <= most:
            return _choice(sizes, rows, 2 * p // logical, logical)
    return _too_small(need(sizes, rows, 2), memory_bytes)


def _filled(sizes: Sizes, rows: Rows, most: int, memory_bytes: float) -> tuple[Rows, int]:
    """Partitions and buffer with at least a batch per state of DISPERSED, where that fits."""
    while most < -(-sizes.training_rows // rows.per_partition):
        half = Rows(
            num_rows=rows.num_rows, partitions=rows.partitions // 2, row_bytes=rows.row_bytes
        )
        fewer = _largest(sizes, half, memory_bytes) if half.partitions else 0
        if fewer < 1 or half.problem() or rows.partitions - most + 1 <= sizes.batches:
            break
        rows, most = half, fewer
    return rows, most


def need(sizes: Sizes, rows: Rows, capacity: int) -> int:
    """Bytes of memory: buffer, edges between resident rows, tables, and what is fixed."""
    share = capacity / rows.partitions
    edges = sizes.num_edges * share * share
    tables = BUCKET_BYTES * rows.partitions**2 + sizes.per_row_bytes * sizes.num_rows
    slots = capacity + (min(capacity, rows.partitions - capacity) if sizes.ahead else 0)
    held = slots * rows.slot_bytes + math.ceil(sizes.held_bytes * edges)
    return sizes.fixed_bytes + tables + held


def block_of(limit: DiskLimit) -> int:
    """The smallest worthwhile request of a disk, in bytes: half of its time moves data.

    Without both limits it is a block of the disk.
    """
    if not (limit.bytes_per_s and limit.iops):
        return DISK_BLOCK
    return max(DISK_BLOCK, padded(math.ceil(limit.bytes_per_s / limit.iops)))


def too_large(sizes: Sizes, rows: Rows, capacity: int, memory_bytes: float) -> str | None:
    """Why a buffer does not fit the memory cap, and which one would; None if it does."""
    wanted = need(sizes, rows, capacity)
    if wanted <= memory_bytes:
        return None
    most, p = _largest(sizes, rows, memory_bytes), rows.partitions
    if sizes.trained:
        two = (2 * p // logical for logical in range(3, p + 1) if p % logical == 0)
        most = max((buffer for buffer in two if buffer <= most), default=0)
    found = (
        f"memory.host: a buffer of {capacity} of {p} partitions needs {wanted / 1e6:.0f} MB, "
        f"found {memory_bytes / 1e6:.0f} MB"
    )
    if most:
        return f"{found}; fits: buffer = {most}"
    other = tune(sizes, memory_bytes)
    if isinstance(other, str):
        return other
    return f"{found}; fits: partitions = {other.partitions}, buffer = {other.buffer}"


def _partitions(sizes: Sizes, memory_bytes: float, block: int) -> int:
    """The largest p whose partitions and buckets fill a block, and whose tables are small."""
    rows_fill = sizes.num_rows * sizes.row_bytes / block
    edges_fill = math.sqrt(sizes.num_edges * sizes.edge_bytes / block)
    tables = math.sqrt(memory_bytes / 16 / BUCKET_BYTES)
    most = int(min(rows_fill, edges_fill, tables, PARTITIONS_MAX, sizes.num_rows))
    # A power of two has logical partitions of every size.
    p = 1 << max(most, 1).bit_length() - 1
    while p > 1 and Rows(num_rows=sizes.num_rows, partitions=p, row_bytes=1).problem():
        p //= 2
    return p


def _largest(sizes: Sizes, rows: Rows, memory_bytes: float) -> int:
    """The largest capacity that fits; 0 if none does. What is needed grows with it."""
    low, high = 0, rows.partitions
    while low < high:
        middle = (low + high + 1) // 2
        fits = need(sizes, rows, middle) <= memory_bytes
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def _choice(sizes: Sizes, rows: Rows, capacity: int, logical: int) -> Choice:
    p = rows.partitions
    training = -(-sizes.training_rows // rows.per_partition)
    name = "comet" if sizes.trained else "sequential" if training <= capacity else "dispersed"
    policy = Policy(name=name, partitions=p, capacity=capacity, logical=logical)
    read = partition_reads(policy) * rows.block_bytes
    return Choice(
        partitions=p,
        buffer=capacity,
        logical=logical,
        memory_bytes=need(sizes, rows, capacity),
        read_bytes=read,
        written_bytes=read if sizes.trained else 0,
    )


def _too_small(wanted: int, memory_bytes: float) -> str:
    return (
        f"memory.host: found {memory_bytes / 1e6:.0f} MB, and the smallest buffer needs "
        f"{wanted / 1e6:.0f} MB"
    )
