"""Ginex: sampling over the whole graph, features on the disk behind the optimal cache.

The batches of a superbatch are drawn first. So the next use of every row is known, and the cache
keeps the rows that are used soonest, which no other cache of the size can better.

Closed forms (V rows of F bytes, blocks of D = 4,096 bytes, u_t the rows of batch t, C_t those in
the cache before it):

    cache       floor(cache V) rows
    stride      the power of two from F on if F < D, else F rounded up to whole blocks
    rows read   |C_0| + sum over t of |u_t without C_t| in a superbatch; insertions read nothing
    drawn       8 bytes twice per row of all batches of a superbatch, and their blocks
    expected    of n rows among V with k = max(D / stride, 1) in a block: h = 1 - (1 - n / V)^k of
                the V / k blocks are read, in h (1 - h) V / k requests

Blocks of the disk that hold several wanted rows are read once.

Deviations: one cache of features and none of neighbours, as the topology is in memory; what the
inspector has drawn stays in memory instead of going to the disk and back.

Source: Park, Min, Lee, "Ginex: SSD-enabled Billion-scale Graph Neural Network Training on a Single
Machine via Provably Optimal In-memory Caching", VLDB 2022; out-of-core reference section 9.2.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from gnnbench import work
from gnnbench.approaches.base import NO_SEEDS, Approach, Layout, example
from gnnbench.approaches.card import Accepts, Look, Promise, Published
from gnnbench.approaches.mini_batch.batch import (
    DRAWN_EDGES,
    BatchSizes,
    sizes_of,
)
from gnnbench.approaches.mini_batch.drawing import drawing_of
from gnnbench.approaches.mini_batch.patterns import block_bytes
from gnnbench.approaches.mini_batch.sampled import APPROACH as SAMPLED
from gnnbench.approaches.out_of_core.batch_steps import BatchSteps
from gnnbench.approaches.out_of_core.caching import AlignedRows
from gnnbench.approaches.out_of_core.evaluating import layerwise_evaluation
from gnnbench.approaches.out_of_core.storage import DISK_BLOCK
from gnnbench.approaches.out_of_core.visits import shared
from gnnbench.approaches.writing.chain import Chain
from gnnbench.approaches.writing.shape import StackShape, stack_shape
from gnnbench.approaches.writing.stack import parameter_buffers
from gnnbench.data.caching import Inspection, capacity_of, inspect, superbatches
from gnnbench.data.dealing import undivided
from gnnbench.data.expected_hits import chances_of, expected_superbatch
from gnnbench.data.graph import Graph
from gnnbench.data.profile import GraphProfile
from gnnbench.data.sampling import NeighbourSampler, batch_seeds, epoch_seeds, steps
from gnnbench.disk_limit import DiskKnobs
from gnnbench.iterations import Iteration, LazyIterations
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import After, Buffer, Ints, Lane, Phase, Size, Space, Work
from gnnbench.strict import bounds

ID_BYTES = work.ID_BYTES
REQUEST_BYTES = 296
"""Of a request in the host's memory: a view of its buffer (112), a pair (56), and three numbers
with their places in lists (120 and 8)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BeladyKnobs(DiskKnobs):
    """Knobs of `belady`.

    cache: share of all feature rows that fit in memory. superbatch: batches that are drawn ahead,
    so that the cache knows their uses.
    """

    cache: float = field(default=0.25, metadata=bounds(0, 1))
    superbatch: int = field(default=16, metadata=bounds(1, 1_000_000))


@dataclass(frozen=True, slots=True, kw_only=True)
class BeladyStructure:
    """Sizes that do not depend on the draws."""

    rows: AlignedRows
    capacity: int
    superbatch: int
    num_steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """Rows that are read at once: how many, in what requests, and their bytes."""

    rows: int
    requests: int
    bytes: int

    @classmethod
    def of(cls, rows: AlignedRows, ids: Ints) -> Read:
        """The read of some rows."""
        spans, _ = rows.spans(ids)
        size = int((spans[:, 1] - spans[:, 0]).sum())
        return cls(rows=len(ids), requests=len(spans), bytes=size)

    @classmethod
    def apart(cls, rows: AlignedRows, count: int, among: int) -> Read:
        """The expected read of so many rows, random ones of a table of `among` rows.

        A block of the disk is read once, and is hit by chance; neighbouring blocks are one request.
        """
        each = max(rows.stride, DISK_BLOCK)
        together = each / rows.stride
        blocks = max(among / together, 1.0)
        hit = 1.0 - (1.0 - min(count / max(among, 1), 1.0)) ** together
        return cls(
            rows=count,
            requests=max(round(blocks * hit * (1.0 - hit)), min(count, 1)),
            bytes=round(blocks * hit) * each,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What happens before the first batch of a superbatch.

    Args:
        drawn: drawing all of its batches.
        uses: rows that they use, repeats counted.
        largest: rows that one of them uses, at most.
        held_bytes: of what was drawn.
        fill: of the cache.
    """

    drawn: Work
    uses: int
    largest: int
    held_bytes: int
    fill: Read


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedBatch:
    """Sizes of one batch; `opening` where a superbatch begins with it."""

    sizes: BatchSizes
    missed: Read
    inserted: int
    opening: Opening | None


class Belady(Approach):
    """Card and plan of `belady`."""

    name = "belady"
    title = "Ginex, optimal feature cache"
    paper = "Park et al., Ginex, VLDB 2022"
    summary = "features on disk, read row by row behind a cache that knows the next batches"
    promise = Promise(
        kind="exact",
        text="Batches, losses and parameters are those of `sampled`: only where rows come from "
        "differs.",
        reference="sampled",
    )
    accepts = Accepts(attention=True, batch=True)
    look = Look(colour="#999933", marker="v")
    published: ClassVar[tuple[Published, ...]] = (
        Published(names=r"^ginex\b", recipe="gnnbench.published.disk_systems:ginex"),
        Published(names=r"^dgl mmap on disk", recipe="gnnbench.published.disk_systems:by_rows"),
        Published(
            names=r"^diskgnn\b(?! preprocessing)", recipe="gnnbench.published.cached_disks:diskgnn"
        ),
        Published(
            names=r"^graphbolt diskbased", recipe="gnnbench.published.cached_disks:graphbolt"
        ),
    )
    knobs_type = BeladyKnobs
    runtime = "gnnbench_runtime.approaches.out_of_core.belady:BeladyTrainer"

    def examples(self) -> list[RunSpec]:
        few = {"size": 8, "fanouts_from_seeds": (3, 2)}
        return [
            example(self.name, 1, batch=few, knobs={"superbatch": 3}),
            example(
                self.name,
                1,
                batch=few,
                knobs={"cache": 0.0},
                model={"kind": "sage"},
                options={"num_features": 600},
            ),
            example(
                self.name,
                1,
                batch=few,
                knobs={"cache": 0.6, "superbatch": 2},
                model={"kind": "gat", "heads": 2},
            ),
        ]

    def skip_reason(self, run: RunSpec, data: Any = None) -> str | None:
        if run.ranks > 1:
            return f"{self.name} trains on one rank: several ranks over one disk are not built"
        if data is not None and data.num_train == 0:
            return NO_SEEDS
        return None

    def structure(self, data: Any, run: RunSpec, cache: Path | None = None) -> BeladyStructure:
        knobs: BeladyKnobs = self.knobs(run)
        width = data.num_features * run.training.element_bytes
        return BeladyStructure(
            rows=AlignedRows(num_rows=data.num_nodes, row_bytes=max(width, 1)),
            capacity=capacity_of(knobs.cache, data.num_nodes),
            superbatch=knobs.superbatch,
            num_steps=max(1, steps(data.num_train, run.batch.size)),
        )

    def plan(self, data: Any, run: RunSpec, structure: BeladyStructure, layout: Layout) -> Plan:
        shape = stack_shape(data, run, "aggregate_first")
        if isinstance(data, GraphProfile):
            batches = expected_batches(data, run, structure, shape)
            counted, basis = False, f"misses expected from the degrees of profile {data.name}"
        else:
            batches = _drawn(data, run, structure, shape)
            counted = len(batches) == structure.num_steps * run.training.epochs
            epochs = len(batches) // structure.num_steps
            basis = "every batch drawn" if counted else f"batches of {epochs} epochs drawn"
        firsts, numbers = shared([_key(batch) for batch in batches])
        epochs = len(batches) // structure.num_steps
        writer = _Writer(shape, structure, layout.device)
        order = [
            numbers[(epoch % epochs) * structure.num_steps + step]
            for epoch in range(run.training.epochs)
            for step in range(structure.num_steps)
        ]
        return Plan(
            approach=run.approach,
            world_size=1,
            iterations=LazyIterations(
                len(firsts), lambda at: writer.iteration(batches[firsts[at]])
            ),
            schedule=tuple(order),
            periods=(structure.num_steps,) * run.training.epochs,
            resident=_resident(shape, data, structure),
            counted=counted,
            basis=basis,
            evaluation=LazyIterations(1, lambda _: layerwise_evaluation(data, run)),
            disk=self.knobs(run).disk,
            notes={
                "cached_rows": structure.capacity,
                "row_stride": structure.rows.stride,
                "num_parameters": shape.num_parameters,
                "steps": structure.num_steps,
            },
        )


def _drawn(
    graph: Graph, run: RunSpec, structure: BeladyStructure, shape: StackShape
) -> list[CachedBatch]:
    """Draw epochs until a budget of edges is spent, at least one."""
    fanouts = run.batch.fanouts(run.model.layers)
    sampler = NeighbourSampler(graph.indptr, graph.indices, fanouts, run.training.seed)
    found: list[CachedBatch] = []
    spent = 0
    for epoch in range(run.training.epochs):
        order = epoch_seeds(graph.train_nodes(), run.training.seed, epoch)
        for numbers in superbatches(structure.num_steps, structure.superbatch):
            seeds = [batch_seeds(order, run.batch.size, step) for step in numbers]
            pairs = zip(seeds, numbers, strict=True)
            drawn = [sampler.sample(own, epoch, step) for own, step in pairs]
            sizes = [sizes_of([undivided(batch, graph.num_train)]) for batch in drawn]
            used = [batch.input_nodes for batch in drawn]
            made = inspect(used, structure.capacity, graph.num_nodes)
            found += _sized(sizes, drawing_of(drawn), made, structure.rows, shape)
            spent += sum(batch.cost for batch in sizes)
        if spent + spent / (epoch + 1) > DRAWN_EDGES:
            break
    return found


def _sized(
    sizes: list[BatchSizes], drawn: Work, made: Inspection, rows: AlignedRows, shape: StackShape
) -> list[CachedBatch]:
    """The batches of a superbatch."""
    uses = sum(int(batch.vertices[0][0]) for batch in sizes)
    blocks = [int(np.ravel(block_bytes(shape, batch.blocks()))[0]) for batch in sizes]
    opening = Opening(
        drawn=drawn,
        uses=uses,
        largest=max(int(batch.vertices[0][0]) for batch in sizes),
        held_bytes=sum(blocks) + 2 * ID_BYTES * uses,
        fill=Read.of(rows, made.initial),
    )
    return [
        CachedBatch(
            sizes=batch,
            missed=Read.of(rows, turn.misses),
            inserted=len(turn.inserted),
            opening=opening if number == 0 else None,
        )
        for number, (batch, turn) in enumerate(zip(sizes, made.turns, strict=True))
    ]


def _key(batch: CachedBatch) -> Hashable:
    """Equal for batches of equal steps: counted ones have sizes of their own."""
    return id(batch.sizes), batch.missed, batch.inserted, id(batch.opening)


def expected_batches(
    profile: GraphProfile, run: RunSpec, structure: BeladyStructure, shape: StackShape
) -> list[CachedBatch]:
    """Expected batches of an epoch of a graph that is not there, alike within a superbatch.

    The first fill and the share of misses are those of the optimal cache on a miniature of the
    graph whose batches are independent draws, see `gnnbench.data.expected_hits`.
    """
    sizes = SAMPLED.estimate(profile, replace(run, knobs={}), partitioned=False)
    inputs = int(sizes.vertices[0][0])
    rates = expected_superbatch(
        chances_of(profile, run.batch.fanouts(run.model.layers), run.batch.size),
        structure.capacity / max(profile.num_nodes, 1),
        structure.num_steps,
        structure.superbatch,
    )
    missed = Read.apart(structure.rows, round(rates.missed * inputs), profile.num_nodes)
    fill = min(structure.capacity, round(rates.fill * profile.num_nodes))
    found: list[CachedBatch] = []
    # One object for equal openings: an epoch of thousands of superbatches has two of them.
    openings: dict[int, Opening] = {}
    for numbers in superbatches(structure.num_steps, structure.superbatch):
        size = len(numbers)
        if size not in openings:
            openings[size] = _opening(structure.rows, sizes, size, fill, shape)
        for number in range(len(numbers)):
            found.append(
                CachedBatch(
                    sizes=sizes,
                    missed=missed,
                    inserted=round(rates.inserted * inputs),
                    opening=openings[size] if number == 0 else None,
                )
            )
    return found


def _opening(
    rows: AlignedRows, sizes: BatchSizes, batches: int, fill: int, shape: StackShape
) -> Opening:
    """What happens before the first of so many equal batches."""
    inputs = int(sizes.vertices[0][0])
    one = work.draw_neighbours(sizes.vertices, sizes.edges)

    def together(size: Size) -> int:
        return batches * int(np.ravel(size)[0])

    drawn = one._replace(
        rows=together(one.rows),
        nonzeros=together(one.nonzeros),
        source_rows=together(one.source_rows),
        bytes=together(one.bytes),
    )
    blocks = int(np.ravel(block_bytes(shape, sizes.blocks()))[0])
    uses = batches * inputs
    return Opening(
        drawn=drawn,
        uses=uses,
        largest=inputs,
        held_bytes=batches * blocks + 2 * ID_BYTES * uses,
        fill=Read.apart(rows, fill, rows.num_rows),
    )


def inspection(uses: int) -> Work:
    """Decide what the cache holds: next uses, candidates and their order, some passes over ids."""
    return work.host("inspect", rows=uses, bytes=6 * ID_BYTES * uses)


class _Writer:
    """Writes iterations: open a superbatch, then read misses, gather, train, change the cache."""

    def __init__(self, shape: StackShape, structure: BeladyStructure, device: str) -> None:
        self.shape, self.structure = shape, structure
        lane = Lane.COMPUTE if device == "cpu" else Lane.HOST
        self.batch = BatchSteps(shape=shape, device=device, lane=lane)
        self.update = f"update/{shape.optimizer}"

    def iteration(self, batch: CachedBatch) -> Iteration:
        """One batch."""
        chain, sizes, write = Chain(), batch.sizes, self.batch
        if batch.opening is not None:
            self._open(chain, batch.opening)
        write.prepare(chain, sizes, None)
        self._read(chain, "fetch/misses", batch.missed, Phase.FETCH)
        read = self.staged_rows(batch.missed)
        write.gather(chain, sizes, self.structure.capacity + read, staged=2)
        changed = work.gather(batch.inserted, self.shape.dims[0], read, self.shape.element_bytes)
        chain.step("fetch/cache", changed, phase=Phase.FETCH, lane=write.lane)
        write.copy(chain, sizes)
        return write.train(chain, sizes)

    def _open(self, chain: Chain, opening: Opening) -> None:
        s, width, lane = self.shape.element_bytes, self.shape.dims[0], self.batch.lane
        held = (Buffer("drawn", opening.held_bytes, Space.HOST),)
        waits = (After(self.update, 1),)
        chain.step(
            "sample/superbatch",
            opening.drawn,
            phase=Phase.SAMPLE,
            lane=lane,
            allocates=held,
            after=waits if lane is not Lane.COMPUTE else (),
        )
        # What may be cached is sorted by its next use: the cache and a batch, in five arrays.
        candidates = self.structure.capacity + opening.largest
        scratch = (
            Buffer("uses", 4 * ID_BYTES * opening.uses, Space.HOST),
            Buffer("candidates", 5 * ID_BYTES * candidates, Space.HOST),
        )
        chain.step(
            "sample/inspect",
            inspection(opening.uses),
            phase=Phase.SAMPLE,
            lane=lane,
            allocates=scratch,
            frees=("candidates",),
        )
        self._read(chain, "load/fill", opening.fill, Phase.LOAD)
        filled = work.gather(opening.fill.rows, width, self.staged_rows(opening.fill), s)
        chain.step("load/cache", filled, phase=Phase.LOAD, lane=lane)

    def staged_rows(self, read: Read) -> int:
        """Rows in what a read brought, those included that nobody asked for."""
        return read.bytes // self.structure.rows.stride

    def _read(self, chain: Chain, name: str, read: Read, phase: Phase) -> None:
        staged = (
            Buffer("staging", read.bytes, Space.HOST),
            Buffer("requests", REQUEST_BYTES * read.requests, Space.HOST),
        )
        stride = self.structure.rows.stride
        done = work.read(read.bytes, read.requests)._replace(source_rows=read.rows, width=stride)
        chain.step(name, done, phase=phase, lane=Lane.DISK, allocates=staged)


def _resident(shape: StackShape, graph: Graph, structure: BeladyStructure) -> tuple[Buffer, ...]:
    n = graph.num_nodes
    tables = {
        "cache": structure.capacity * shape.dims[0] * shape.element_bytes,
        "topology": 8 * (n + 1) + 4 * graph.num_edges,
        "labels": ID_BYTES * n,
        "slots": ID_BYTES * (n + structure.capacity),
        "next_uses": (2 * ID_BYTES + 2) * n,
        "sampler": 4 * n,
        "scales": 2 * n * shape.element_bytes,
        "train_nodes": 2 * ID_BYTES * graph.num_train,
    }
    return (
        Buffer("files", structure.rows.file_bytes, Space.DISK),
        *(Buffer(name, size, Space.HOST) for name, size in tables.items()),
        *parameter_buffers(shape),
    )


APPROACH = Belady()
