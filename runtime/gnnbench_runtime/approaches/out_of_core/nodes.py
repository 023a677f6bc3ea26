"""Node classification from the disk on a real rank: the buffer, and batches drawn from it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnnbench import work
from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.out_of_core.node_plan import batch_lane, buffer_slots
from gnnbench.approaches.out_of_core.nodes import (
    NodeStructure,
    drawn_work,
    edge_chunks,
    sampler_of,
)
from gnnbench.approaches.out_of_core.resident_graph import ResidentGraph, ResidentLabels
from gnnbench.approaches.out_of_core.visits import Visit
from gnnbench.approaches.writing.shape import StackShape, stack_shape
from gnnbench.data import sampling
from gnnbench.data.dealing import undivided
from gnnbench.data.graph import Graph
from gnnbench.steps import Ints, Lane, Phase, Work
from gnnbench_runtime.approaches.mini_batch.prefetch import Prefetcher
from gnnbench_runtime.approaches.mini_batch.sampled import (
    BlockMaker,
    SampledBatches,
)
from gnnbench_runtime.approaches.out_of_core.buffer import Files, PartitionBuffer, streamed
from gnnbench_runtime.approaches.out_of_core.layerwise import LayerwiseEvaluator
from gnnbench_runtime.durable import Durable, generations_of
from gnnbench_runtime.models.data import size_of, sizes_of
from gnnbench_runtime.models.stack import Stack
from gnnbench_runtime.models.workspace import Workspace
from gnnbench_runtime.protocol import RankContext
from gnnbench_runtime.training import (
    Batch,
    StackNet,
    StepTrainer,
    make_parameters,
    optimizer_of,
)


def node_files(context: RankContext, graph: Graph, structure: NodeStructure) -> Files:
    """Write features and edges of a graph to the disk, in one pass over each.

    An edge is a pair of positions in the table of features, not of ids: so its ends are found in
    the buffer by an offset per partition.
    """
    assert graph.features is not None
    assert structure.position is not None
    assert structure.buckets is not None
    rows, kind = structure.rows, torch.empty(0, dtype=context.dtype).numpy().dtype

    position, part = structure.position, structure.partition_of

    def chunks() -> Iterator[tuple[Ints, NDArray[np.int32]]]:
        for sources, targets in edge_chunks(graph):
            bucket = part[sources].astype(np.int64) * rows.partitions + part[targets]
            yield bucket, np.stack([position[sources], position[targets]], axis=1)

    fill = streamed(rows, structure.position, graph.features, kind)
    return Files.make(context.cache, rows, structure.buckets, fill, chunks())


class BufferedFeatures:
    """Input rows out of the buffer, by number within it."""

    def __init__(self, context: RankContext, table: Tensor, lane: Lane) -> None:
        self._context, self._table, self._lane = context, table, lane
        self._on_host = context.device.type == "cpu"
        self._staged = Workspace(torch.device("cpu"), context.dtype)
        self.rows: Ints = np.empty(0, np.int64)
        """Row of the table of every resident vertex."""

    def fetch(self, ids: NDArray[np.int64], out: Tensor) -> None:
        """Put the rows of `ids` into `out`, in order."""
        into = out if self._on_host else self._staged.get("x", *sizes_of(out))
        index = torch.from_numpy(self.place(ids))
        done = work.gather(*sizes_of(into), len(self._table), into.element_size())
        with self._step("fetch/gather", done, self._lane):
            if self._on_host:
                self._context.kernels.gather_rows(self._table, index, into)
            else:
                torch.index_select(self._table, 0, index, out=into)
        if not self._on_host:
            with self._step("fetch/rows", work.to_device(size_of(out)), Lane.COPY):
                out.copy_(into)

    def place(self, ids: Ints) -> Ints:
        """Rows of the table by number within the buffer."""
        found: Ints = self.rows[ids]
        return found

    def _step(self, name: str, done: Work, lane: Lane) -> Any:
        return self._context.recorder.step(name, done, phase=Phase.FETCH, lane=lane)


class BufferedBatches(SampledBatches):
    """Batches of an epoch, visit by visit; vertices are numbered within the buffer."""

    def __init__(
        self,
        context: RankContext,
        graph: Graph,
        structure: NodeStructure,
        shape: StackShape,
        knobs: Any,
    ) -> None:
        run, prefetch = context.run, bool(knobs.read_ahead)
        self.knobs, self.batches_ahead = knobs, knobs.staleness
        self.context, self.shape, self.graph, self.structure = context, shape, graph, structure
        self.size, self.seed = run.batch.size, run.training.seed
        self.train_nodes = graph.train_nodes()
        self.all_labels = np.array(graph.labels)
        self.labels: Any = self.all_labels
        self.workspace = Workspace(context.device, context.dtype)
        self.lane = batch_lane(self.batches_ahead, on_cpu=context.device.type == "cpu")
        assert structure.buckets is not None
        self.buffer = PartitionBuffer(
            context,
            node_files(context, graph, structure),
            structure.rows,
            structure.buckets,
            slots=buffer_slots(structure, prefetch),
            width=shape.dims[0],
            columns=2,
            prefetch=prefetch,
            limit=knobs.disk,
        )
        self.features: Any = BufferedFeatures(context, self.buffer.table, self.lane)
        # Made on first use, which would be in the first epoch.
        _ = structure.order

    def of_period(self, period: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, each training vertex once."""
        visits = self.structure.visits(period)
        counts = [self.structure.steps(visit) for visit in visits]
        first = [0, *accumulate(counts)]
        held = ResidentGraph(self.structure, self.graph)
        for number, (visit, read) in enumerate(self.buffer.visit(visits, first)):
            # The edges that were read are a copy: the disk goes on while the graph is made.
            self.buffer.ahead(visits, number, first[number])
            ids = self._enter(visit, held, read)
            seeds = np.searchsorted(ids, visit.items)
            yield from self._of_visit(seeds, period, first[number], counts[number])

    def _of_visit(self, seeds: Ints, period: int, first: int, count: int) -> Iterator[Batch]:
        """Yield the batches of a visit; some of them are prepared ahead by a thread."""
        at_step = self.context.recorder.at

        def prepare(step: int, slot: int) -> Batch:
            own = sampling.batch_seeds(seeds, self.size, step)
            with self._step("sample/draw") as span:
                batch = self.sampler.sample(own, period, first + step)
                span.did(drawn_work(self.knobs, *batch.sizes))
            return self.build(undivided(batch, len(self.train_nodes)), period, first + step, slot)

        if self.batches_ahead:

            def at(step: int) -> None:
                at_step(first + step)

            ahead = Prefetcher(prepare, count, self.batches_ahead, at, self.context.device)
            yield from ahead.batches(count)
            return
        for step in range(count):
            at_step(first + step)
            yield prepare(step, 0)

    def _enter(self, visit: Visit, held: ResidentGraph, read: NDArray[np.int32]) -> Ints:
        """Make the graph of the resident vertices, to sample from; return their ids."""
        structure, run, nothing = self.structure, self.context.run, work.enter_buffer(0, 0)
        step = self.context.recorder.step
        with step("load/graph", nothing, phase=Phase.LOAD, lane=self.lane) as span:
            edges = held.exchange(visit, read)
            ids, place = structure.residents(visit)
            graph = held.graph(place)
            self.sampler = sampler_of(graph, run, self.knobs, run.training.threads_per_rank)
            self.blocks = BlockMaker(self.context, graph, self.shape)
            self.labels = ResidentLabels(self.all_labels, ids)
            self.features.rows = self.buffer.resident_rows(visit.resident)[place]
            span.did(work.enter_buffer(len(ids), edges))
        return ids

    def close(self) -> None:
        self.buffer.close()


class NodeTrainer(StepTrainer):
    """Trains node classification from the disk."""

    def __init__(self, context: RankContext, data: Graph, structure: NodeStructure) -> None:
        knobs = APPROACHES.get(context.run.approach).knobs(context.run)
        self.context = context
        shape = stack_shape(data, context.run, "aggregate_first")
        parameters = make_parameters(context, shape)
        workspace = Workspace(context.device, context.dtype)
        stack = Stack(shape, parameters, workspace, context.kernels, context.recorder)
        self.net = StackNet(stack)
        self.batches = BufferedBatches(context, data, structure, shape, knobs)
        self.optimizer = optimizer_of(context, parameters)
        self.durable = None
        if knobs.durable:
            kept = generations_of(context, None)
            self.durable = Durable(kept, self.state, self.restore)
        self.evaluator = LayerwiseEvaluator(context, data, shape, parameters)
