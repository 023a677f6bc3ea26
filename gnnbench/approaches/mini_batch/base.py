"""What approaches that train on batches share: who owns features, the plan of a source's batches.

A subclass says which source deals its batches, and how large they are where the data is absent.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gnnbench import work
from gnnbench.approaches.base import NO_SEEDS, Approach, GraphLike, Layout
from gnnbench.approaches.mini_batch.batch import BatchSizes, Drawn, Form, draw_run, estimated
from gnnbench.approaches.mini_batch.caches import RowCache
from gnnbench.approaches.mini_batch.evaluating import FullGraph
from gnnbench.approaches.mini_batch.fetching import Store
from gnnbench.approaches.mini_batch.writer import BatchKnobs, BatchWriter, ledger_buffer, resident
from gnnbench.approaches.whole_graph.partition import assign
from gnnbench.approaches.writing.shape import StackShape, stack_shape
from gnnbench.data.dealing import Source
from gnnbench.data.graph import Graph
from gnnbench.data.profile import GraphProfile
from gnnbench.iterations import Iteration, LazyIterations
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import Buffer, Ints


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BatchStructure:
    """What decides the batches.

    Args:
        num_steps: optimiser steps of an epoch.
        prepared: what the source was prepared with, such as clusters or counts.
        owner: int32 [N], the owner of every vertex when features are partitioned.
        owned_rows: int64 [P], vertices of each owner; None when features are replicated.
    """

    num_steps: int
    prepared: NDArray[Any] | None = None
    owner: NDArray[np.int32] | None = None
    owned_rows: Ints | None = None


class MiniBatch(Approach):
    """Structure and plan of an approach that trains on batches.

    Attributes:
        form: what its batches look like.
        estimate_basis: what their sizes rest on where the data is absent.
    """

    form: ClassVar[Form] = Form()
    estimate_basis: ClassVar[str] = "frontier estimated from degrees of profile {name}"
    runtime = "gnnbench_runtime.approaches.mini_batch.sampled:SampledTrainer"

    @abstractmethod
    def num_steps(self, data: GraphLike, run: RunSpec) -> int:
        """Optimiser steps of an epoch."""

    @abstractmethod
    def source(
        self, graph: Graph, run: RunSpec, prepared: NDArray[Any] | None, *, threads: int = 1
    ) -> Source:
        """Where the batches of a run come from; both worlds draw from it."""

    @abstractmethod
    def estimate(self, profile: GraphProfile, run: RunSpec, *, partitioned: bool) -> BatchSizes:
        """Expected sizes of a batch of a graph that is not there."""

    def form_of(self, run: RunSpec) -> Form:
        """What the batches of a run look like, where knobs decide it."""
        return self.form

    def variants(self, run: RunSpec) -> list[dict[str, Any]]:
        """Features on every rank, or on their owners."""
        return [{}] if run.ranks == 1 else [{}, {"placement": "partitioned"}]

    def prepared(
        self, graph: Graph, run: RunSpec, cache: Path | None = None
    ) -> NDArray[Any] | None:
        """What the source needs once per run; None where it needs nothing."""
        return None

    def sampler_buffers(self, data: GraphLike, run: RunSpec) -> tuple[Buffer, ...]:
        """Tables that the source holds throughout, besides those of every sampler."""
        return ()

    def skip_reason(self, run: RunSpec, data: GraphLike | None = None) -> str | None:
        if data is not None and data.num_train == 0:
            return NO_SEEDS
        return None

    def prepare(self, data: Graph, run: RunSpec, cache: Path | None = None) -> None:
        knobs: BatchKnobs = self.knobs(run)
        if knobs.placement == "partitioned" and run.ranks > 1:
            assign(data, run, knobs.partitioner, knobs.objective, cache)
        self.prepared(data, run, cache)

    def structure(self, data: GraphLike, run: RunSpec, cache: Path | None = None) -> BatchStructure:
        knobs: BatchKnobs = self.knobs(run)
        steps = self.num_steps(data, run)
        partitioned = knobs.placement == "partitioned" and run.ranks > 1
        if isinstance(data, GraphProfile):
            even = np.full(run.ranks, -(-data.num_nodes // run.ranks), np.int64)
            return BatchStructure(num_steps=steps, owned_rows=even if partitioned else None)
        prepared = self.prepared(data, run, cache)
        if not partitioned:
            return BatchStructure(num_steps=steps, prepared=prepared)
        owner = assign(data, run, knobs.partitioner, knobs.objective, cache)
        rows = np.bincount(owner, minlength=run.ranks).astype(np.int64)
        return BatchStructure(num_steps=steps, prepared=prepared, owner=owner, owned_rows=rows)

    def drawn(self, data: GraphLike, run: RunSpec, structure: BatchStructure) -> Drawn:
        """Sizes of the batches of a run: counted, or estimated from a profile."""
        tables = work.graph_tables(data.num_nodes, data.num_edges)
        if isinstance(data, GraphProfile):
            batch = self.estimate(data, run, partitioned=structure.owned_rows is not None)
            basis = self.estimate_basis.format(name=data.name)
            return estimated(batch, run, structure.num_steps, basis).over(tables)
        source = self.source(data, run, structure.prepared)

        def caches(settled: bool) -> list[RowCache]:
            return self.caches(data, run, structure, range(run.ranks), settled=settled)

        op = self.form_of(run).op
        drawn = draw_run(source, run, structure.owner, caches, self.lookahead(run), op)
        return drawn.over(tables)

    # -- where features lie ----------------------------------------------------------------------

    def lookahead(self, run: RunSpec) -> int:
        """Batches that are drawn before their turn."""
        return 0

    def caches(
        self,
        graph: Graph,
        run: RunSpec,
        structure: BatchStructure,
        ranks: Sequence[int],
        *,
        settled: bool = False,
    ) -> list[RowCache]:
        """The feature caches of some ranks; none where there are none."""
        return []

    def store(
        self, data: GraphLike, run: RunSpec, structure: BatchStructure, layout: Layout
    ) -> Store:
        """Where the features lie."""
        return Store(num_rows=data.num_nodes, owned_rows=structure.owned_rows)

    def shape(self, data: GraphLike, run: RunSpec) -> StackShape:
        """The model, the product orders of its layers fixed."""
        return stack_shape(data, run, self.knobs(run).order)

    def writer(
        self, data: GraphLike, run: RunSpec, structure: BatchStructure, layout: Layout
    ) -> BatchWriter:
        """What writes the steps of a batch."""
        shape, form = self.shape(data, run), self.form_of(run)
        store = self.store(data, run, structure, layout)
        return BatchWriter(shape, form, self.knobs(run), run.ranks, store, layout.device)

    def resident(
        self, data: GraphLike, run: RunSpec, structure: BatchStructure, layout: Layout
    ) -> tuple[Buffer, ...]:
        """Buffers that live from before the first batch."""
        store = self.store(data, run, structure, layout)
        return resident(self.shape(data, run), data, store, self.form_of(run))

    def evaluation(
        self, data: GraphLike, run: RunSpec, structure: BatchStructure, layout: Layout
    ) -> FullGraph:
        """The evaluation of a run; rows that are on every device are read in place."""
        store = self.store(data, run, structure, layout)
        in_place = store.owned_rows is None and not store.on_host
        return FullGraph(data=data, run=run, in_place=in_place)

    def plan(self, data: GraphLike, run: RunSpec, structure: Any, layout: Layout) -> Plan:
        knobs: BatchKnobs = self.knobs(run)
        shape, steps = self.shape(data, run), structure.num_steps
        drawn = self.drawn(data, run, structure)
        distinct, schedule = _distinct(drawn.schedule, steps if knobs.prefetch > 0 else 0)
        batches = self.writer(data, run, structure, layout)

        def iteration(number: int) -> Iteration:
            index, first = distinct[number]
            return batches.iteration(drawn.batches[index], first=first)

        return Plan(
            approach=run.approach,
            world_size=run.ranks,
            iterations=LazyIterations(len(distinct), iteration),
            schedule=schedule,
            periods=(steps,) * run.training.epochs,
            resident=(
                *self.resident(data, run, structure, layout),
                *self.sampler_buffers(data, run),
                ledger_buffer(steps * len(iteration(0)[0])),
            ),
            evaluation=self.evaluation(data, run, structure, layout).iterations(),
            counted=drawn.counted,
            basis=drawn.basis,
            counted_periods=drawn.whole_epochs,
            notes={
                "order": shape.orders,
                "num_parameters": shape.num_parameters,
                "steps": steps,
                **drawn.cache_notes(steps),
            },
        )


def _distinct(
    batches: Sequence[int], period: int
) -> tuple[list[tuple[int, bool]], tuple[int, ...]]:
    """Pairs of a batch and whether it begins a period, in order of first use, and their schedule.

    The first batch of an epoch is drawn after the last update of the previous epoch. That wait
    differs from those of other batches, so the first batch is an iteration of its own, even where
    its sizes are also used for later batches.

    Args:
        batches: which batch runs when.
        period: batches of a period; 0 makes no difference between the first one and others.
    """
    codes = 2 * np.fromiter(batches, np.int64, len(batches))
    if period:
        codes[::period] += 1
    places = np.arange(len(codes))
    first = np.full(int(codes.max(initial=0)) + 1, len(codes))
    # The last assignment counts, so that the order is turned round.
    first[codes[::-1]] = places[::-1]
    used = np.flatnonzero(first < len(codes))
    used = used[np.argsort(first[used])]
    first[used] = np.arange(len(used))
    pairs = [(code // 2, bool(code % 2)) for code in used.tolist()]
    return pairs, tuple(first[codes].tolist())
