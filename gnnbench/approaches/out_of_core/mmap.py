"""Features in a memory-mapped file: what everyone tries first when they do not fit in memory.

Batches are those of `sampled`. The rows of a batch are indexed in the mapped file, and every page
that is not in memory is a page fault: one request of a page, issued when the one before has ended.
The page cache is bounded as a memory cap would bound it: after a batch the pages that were touched
longest ago are dropped. The kernel does not read ahead (MADV_RANDOM).

Closed forms (V rows of F bytes, pages of D = 4,096 bytes, q the chance of a row to be in a batch, E
the mean over rows):

    pages            P = ceil(V F / D) of the file; cache P of them stay between batches
    rows of a page   r = (D + F - gcd(D, F)) / F, parts of rows counted as rows
    untouched        m(t) = E[(1 - q)^t]^r, the chance of a page in t batches
    touched          P (1 - m(1)) pages in a batch
    age              T with P (1 - m(T)) = cache P: batches that a page stays without being touched
    faults           P (m(T) - m(T + 1)) in a batch, each one request of D bytes

On a graph the pages are counted instead: distinct ones of the batch that are not in the cache.

Deviation: the kernel's page cache approximates LRU by two lists; dropping is a step of its own
("fetch/drop"), whose time an unbounded cache would not spend.

Source: out-of-core reference sections 1 and 10 (`mmap`, the "PyG+" baseline).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from gnnbench import work
from gnnbench.approaches.base import NO_SEEDS, Approach, Layout, example
from gnnbench.approaches.card import Accepts, Look, Promise, Published
from gnnbench.approaches.mini_batch.batch import (
    DRAWN_EDGES,
    BatchSizes,
    sizes_of,
)
from gnnbench.approaches.mini_batch.sampled import APPROACH as SAMPLED
from gnnbench.approaches.out_of_core.batch_steps import BatchSteps
from gnnbench.approaches.out_of_core.evaluating import layerwise_evaluation
from gnnbench.approaches.out_of_core.pages import (
    AccessProfile,
    PageCache,
    PagedRows,
    capacity_pages,
)
from gnnbench.approaches.out_of_core.visits import shared
from gnnbench.approaches.writing.chain import Chain
from gnnbench.approaches.writing.shape import StackShape, stack_shape
from gnnbench.approaches.writing.stack import parameter_buffers
from gnnbench.data.dealing import SeedSource
from gnnbench.data.graph import Graph
from gnnbench.data.profile import GraphProfile
from gnnbench.data.sampling import NeighbourSampler, steps
from gnnbench.disk_limit import DiskKnobs
from gnnbench.iterations import Iteration, LazyIterations
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import Buffer, Lane, Phase, Space, Work
from gnnbench.strict import bounds

ID_BYTES = work.ID_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class MmapKnobs(DiskKnobs):
    """Knobs of `mmap`.

    cache: share of the file's pages that stay in memory between batches; 1 is an unbounded page
    cache.
    """

    cache: float = field(default=0.25, metadata=bounds(0, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class MmapStructure:
    """Sizes that do not depend on the draws: the file, and the pages that stay in memory."""

    rows: PagedRows
    capacity: int
    num_steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedBatch:
    """Sizes of one batch, the pages that it faults and those that are dropped after it."""

    sizes: BatchSizes
    missed: int
    dropped: int


class Mmap(Approach):
    """Card and plan of `mmap`."""

    name = "mmap"
    title = "Memory-mapped features"
    paper = "the baseline PyG+ of Park et al., Ginex, VLDB 2022"
    summary = "features in a memory-mapped file, read by page faults as batches index them"
    promise = Promise(
        kind="exact",
        text="Batches, losses and parameters are those of `sampled`: only where rows come from "
        "differs.",
        reference="sampled",
    )
    accepts = Accepts(attention=True, batch=True)
    look = Look(colour="#999933", marker="X", dashed=True)
    published: ClassVar[tuple[Published, ...]] = (
        Published(
            names=r"^(pyg\+|dgl mmap(?! on disk)|pyg mmap)",
            recipe="gnnbench.published.disk_systems:mapped",
        ),
    )
    knobs_type = MmapKnobs
    runtime = "gnnbench_runtime.approaches.out_of_core.mmap:MmapTrainer"

    def examples(self) -> list[RunSpec]:
        few = {"size": 8, "fanouts_from_seeds": (3, 2)}
        # 600 features of 8 bytes: a row is more than a page, and rows straddle pages.
        wide = {"num_features": 600}
        return [
            example(self.name, 1, batch=few, options={"num_features": 100}),
            example(
                self.name,
                1,
                batch=few,
                knobs={"cache": 0.0},
                model={"kind": "sage", "norm": "layer"},
                options=wide,
            ),
            example(
                self.name,
                1,
                batch=few,
                knobs={"cache": 1.0},
                model={"kind": "gat", "heads": 2, "dropout": 0.3},
                options={"num_features": 128},
            ),
        ]

    def skip_reason(self, run: RunSpec, data: Any = None) -> str | None:
        if run.ranks > 1:
            return f"{self.name} trains on one rank: several ranks over one disk are not built"
        if data is not None and data.num_train == 0:
            return NO_SEEDS
        return None

    def structure(self, data: Any, run: RunSpec, cache: Path | None = None) -> MmapStructure:
        width = data.num_features * run.training.element_bytes
        rows = PagedRows(num_rows=data.num_nodes, row_bytes=max(width, 1))
        return MmapStructure(
            rows=rows,
            capacity=capacity_pages(self.knobs(run).cache, rows),
            num_steps=max(1, steps(data.num_train, run.batch.size)),
        )

    def plan(self, data: Any, run: RunSpec, structure: MmapStructure, layout: Layout) -> Plan:
        shape, num_steps = stack_shape(data, run, "aggregate_first"), structure.num_steps
        total = num_steps * run.training.epochs
        if isinstance(data, GraphProfile):
            batches = _expected(data, run, structure)
            counted, basis = False, f"pages expected from the degrees of profile {data.name}"
        else:
            batches = _drawn(data, run, structure)
            counted = len(batches) == total
            epochs = len(batches) // num_steps
            basis = "every batch drawn" if counted else f"batches of {epochs} epochs drawn"
        writer = _Writer(shape, structure, layout.device)
        firsts, numbers = shared([(id(b.sizes), b.missed, b.dropped) for b in batches])
        # After the known batches the cache is warm: the last one (of a profile) or epoch repeats.
        again = 1 if isinstance(data, GraphProfile) else num_steps
        order = [numbers[_repeated(at, len(batches), again)] for at in range(total)]
        return Plan(
            approach=run.approach,
            world_size=1,
            iterations=LazyIterations(
                len(firsts), lambda at: writer.iteration(batches[firsts[at]])
            ),
            schedule=tuple(order),
            periods=(num_steps,) * run.training.epochs,
            resident=_resident(shape, data, structure),
            counted=counted,
            basis=basis,
            evaluation=LazyIterations(1, lambda _: layerwise_evaluation(data, run)),
            disk=self.knobs(run).disk,
            notes={
                "cached_pages": structure.capacity,
                "pages": structure.rows.num_pages,
                "num_parameters": shape.num_parameters,
                "steps": num_steps,
            },
        )


def seed_source(graph: Graph, run: RunSpec, *, threads: int = 1) -> SeedSource:
    """Where the batches come from: those of `sampled`."""
    fanouts, seed = run.batch.fanouts(run.model.layers), run.training.seed
    sampler = NeighbourSampler(graph.indptr, graph.indices, fanouts, seed, threads)
    return SeedSource(sampler, graph.train_nodes(), run.batch.size, seed)


def _repeated(at: int, known: int, again: int) -> int:
    """The batch whose sizes serve place `at`: itself, or one of the last `again` that are known."""
    return at if at < known else known - again + (at - known) % again


def _drawn(graph: Graph, run: RunSpec, structure: MmapStructure) -> list[MappedBatch]:
    """Draw epochs until a budget of edges is spent, at least one."""
    source = seed_source(graph, run)
    cache = PageCache(structure.capacity, structure.rows.num_pages)
    found: list[MappedBatch] = []
    spent = 0
    for epoch in range(run.training.epochs):
        for step in range(structure.num_steps):
            dealt = source.draw(epoch, step, 1, 0)
            faults = cache.touch(structure.rows.pages(dealt.batch.input_nodes))
            missed, dropped = len(faults.missed), len(faults.dropped)
            sizes = sizes_of([dealt])
            found.append(MappedBatch(sizes=sizes, missed=missed, dropped=dropped))
            spent += sizes.cost
        if spent + spent / (epoch + 1) > DRAWN_EDGES:
            break
    return found


def _expected(profile: GraphProfile, run: RunSpec, structure: MmapStructure) -> list[MappedBatch]:
    """Expected sizes: batches until the page cache is as warm as it gets, or to the end."""
    sizes = SAMPLED.estimate(profile, replace(run, knobs={}), partitioned=False)
    access = access_profile(profile, run, inputs=int(sizes.vertices[0][0]))
    rows, capacity = structure.rows, structure.capacity
    age = access.age(rows, capacity)
    total = structure.num_steps * run.training.epochs
    found: list[MappedBatch] = []
    held = 0.0
    for before in range(min(total, math.ceil(age) + 2)):
        missed = access.missed(rows, age, before)
        held += missed
        dropped = max(held - capacity, 0.0)
        held -= dropped
        found.append(MappedBatch(sizes=sizes, missed=round(missed), dropped=round(dropped)))
    return found


def access_profile(profile: GraphProfile, run: RunSpec, *, inputs: int) -> AccessProfile:
    """How often the rows of a graph that is not there are used, from its degrees.

    Args:
        profile: of the graph.
        run: what is trained.
        inputs: input vertices of a batch, to which the chances add up.
    """
    found = profile.expected_inclusion(run.batch.fanouts(run.model.layers), run.batch.size)
    scale = inputs / max(float((found.rows * found.chance).sum()), 1e-300)
    return AccessProfile(rows=found.rows, chance=(found.chance * scale).clip(0.0, 1.0))


def drop(pages: int) -> Work:
    """Drop pages from the page cache: an entry of the page table and one of the cache for each."""
    return work.host("drop_pages", rows=pages, bytes=2 * ID_BYTES * pages)


class _Writer:
    """Writes iterations: draw, fault pages, gather rows, drop pages, train."""

    def __init__(self, shape: StackShape, structure: MmapStructure, device: str) -> None:
        self.rows = structure.rows
        lane = Lane.COMPUTE if device == "cpu" else Lane.HOST
        self.batch = BatchSteps(shape=shape, device=device, lane=lane)

    def iteration(self, batch: MappedBatch) -> Iteration:
        """One batch."""
        chain, sizes, write = Chain(), batch.sizes, self.batch
        write.prepare(chain, sizes, work.draw_neighbours(sizes.vertices, sizes.edges))
        size = batch.missed * self.rows.page_bytes
        chain.step(
            "fetch/pages",
            work.read(size, batch.missed),
            phase=Phase.FETCH,
            lane=Lane.DISK,
            allocates=(Buffer("faulted_pages", size, Space.HOST),),
        )
        write.gather(chain, sizes, self.rows.num_rows)
        write.copy(chain, sizes)
        dropped = drop(batch.dropped)
        chain.step(
            "fetch/drop", dropped, phase=Phase.FETCH, lane=write.lane, frees=("faulted_pages",)
        )
        return write.train(chain, sizes)


def _resident(shape: StackShape, data: Any, structure: MmapStructure) -> tuple[Buffer, ...]:
    n, rows = data.num_nodes, structure.rows
    scales = {"symmetric": 2, "mean": 0, "softmax": 0}[shape.model.normalisation]
    tables = {
        "page_cache": structure.capacity * rows.page_bytes,
        "page_uses": ID_BYTES * rows.num_pages,
        "topology": 8 * (n + 1) + 4 * data.num_edges,
        "labels": ID_BYTES * n,
        "sampler": 4 * n,
        "scales": scales * n * shape.element_bytes,
        "train_nodes": 2 * ID_BYTES * data.num_train,
    }
    return (
        Buffer("files", rows.file_bytes, Space.DISK),
        *(Buffer(name, size, Space.HOST) for name, size in tables.items()),
        *parameter_buffers(shape),
    )


APPROACH = Mmap()
