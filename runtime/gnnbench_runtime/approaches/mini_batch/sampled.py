"""Training on batches on real ranks: draw, fetch features, train on the blocks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnnbench import work
from gnnbench.approaches.mini_batch.base import BatchStructure
from gnnbench.approaches.mini_batch.batch import PLAIN, Form
from gnnbench.approaches.mini_batch.caches import Ahead, RowCache
from gnnbench.approaches.mini_batch.drawing import drawing_of, preparing
from gnnbench.approaches.mini_batch.evaluating import evaluated_shape
from gnnbench.approaches.mini_batch.fetching import HOST
from gnnbench.approaches.mini_batch.patterns import block_is_turned, needs_transpose
from gnnbench.approaches.mini_batch.writer import BatchKnobs
from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.whole_graph.partition import PartitionStructure
from gnnbench.approaches.whole_graph.rows import RowSizes
from gnnbench.approaches.writing.shape import StackShape, stack_shape
from gnnbench.data import sampling
from gnnbench.data.dealing import Dealt, Source
from gnnbench.data.graph import Graph
from gnnbench.models.scales import degree_scales, vertex_scales
from gnnbench.steps import Lane, Phase
from gnnbench_runtime.approaches.mini_batch.features import (
    CachedRows,
    feature_store,
    rows_on_device,
)
from gnnbench_runtime.approaches.mini_batch.prefetch import Prefetcher
from gnnbench_runtime.approaches.whole_graph.partition import PartitionTrainer
from gnnbench_runtime.models.data import size_of
from gnnbench_runtime.models.parameters import Parameters
from gnnbench_runtime.models.patterns import Aggregation, Attention
from gnnbench_runtime.models.stack import Stack
from gnnbench_runtime.models.workspace import Workspace
from gnnbench_runtime.protocol import RankContext
from gnnbench_runtime.reading import on_host
from gnnbench_runtime.training import (
    Batch,
    StackNet,
    StepTrainer,
    make_parameters,
    optimizer_of,
)


class BlockMaker:
    """Turns sampled blocks into patterns to train on.

    Softmax normalises over the drawn neighbours: unlike a weighted sum, it is not an unbiased
    estimate over all of them.
    """

    def __init__(
        self, context: RankContext, graph: Graph, shape: StackShape, form: Form = PLAIN
    ) -> None:
        self.context, self.shape, self.num_nodes = context, shape, graph.num_nodes
        self.renormalised = form.renormalised
        self.as_destination = self.as_source = None
        if not shape.model.attention and not form.renormalised:
            self.as_destination, self.as_source = vertex_scales(graph, shape.model)

    def patterns(self, batch: sampling.Batch, first: int = 0) -> tuple[list[Any], int]:
        """Patterns of the blocks, and how many entries were transposed for the backward pass.

        The first block is that of layer `first`; 0: blocks are those of all layers, or one is.
        """
        made: list[Any] = []
        turned = 0
        for at, block in enumerate(batch.blocks, first or 1):
            turn = needs_transpose(self.shape, at)
            if not first:
                turn = block_is_turned(self.shape, at, len(batch.blocks))
            if self.shape.model.attention:
                turned += block.num_edges + block.num_dst
                made.append(self._attention(batch, block))
            else:
                turned += block.num_edges if turn else 0
                made.append(self._aggregation(batch, block, turn))
        return made, turned

    def _attention(self, batch: sampling.Batch, block: sampling.Block) -> Attention:
        sources = batch.input_nodes[: block.num_src]
        with_ids = self.shape.dropout > 0
        return Attention.of(block.indptr, block.indices, sources, self.num_nodes, with_ids=with_ids)

    def _aggregation(self, batch: sampling.Batch, block: sampling.Block, turn: bool) -> Aggregation:
        to, from_ = self._scales(batch, block)
        column, edge = block.column_weights, block.edge_weights
        self_scale = None
        if from_ is not None:
            self_scale = to * from_[: block.num_dst]
            column = from_ if column is None else from_ * column
        indptr_t = indices_t = edge_t = None
        if turn:
            indptr_t, indices_t = (torch.from_numpy(a) for a in block.transpose())
            if edge is not None:
                edge_t = self._scale(edge[block.transposed_order()])
        return Aggregation(
            indptr=torch.from_numpy(block.indptr),
            indices=torch.from_numpy(block.indices),
            indptr_t=indptr_t,
            indices_t=indices_t,
            rows=block.num_dst,
            source_rows=block.num_src,
            row_scale=self._scale(block.weights_of_rows() * to),
            col_scale=None if column is None else self._scale(column),
            self_scale=None if self_scale is None else self._scale(self_scale),
            edge_scale=None if edge is None else self._scale(edge),
            edge_scale_t=edge_t,
        )

    def _scales(
        self, batch: sampling.Batch, block: sampling.Block
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Scales of the block's destinations, and of its sources where they have any."""
        if self.renormalised:
            outgoing = np.bincount(block.indices, minlength=block.num_src)
            return degree_scales(block.degrees, outgoing, self.shape.model)
        assert self.as_destination is not None
        sources = batch.input_nodes[: block.num_src]
        from_ = None if self.as_source is None else self.as_source[sources]
        return self.as_destination[sources[: block.num_dst]], from_

    def _scale(self, values: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(values).to(self.context.dtype)


class SampledBatches:
    """A source of prepared batches: this rank's part of every global batch.

    Args:
        context: the rank; its run names an approach that trains on batches.
        graph: is sampled; has features and labels.
        structure: what the source was prepared with, and owners of the features.
        shape: the model.
    """

    form: Form = PLAIN

    def __init__(
        self, context: RankContext, graph: Graph, structure: BatchStructure, shape: StackShape
    ) -> None:
        run = context.run
        approach: Any = APPROACHES.get(run.approach)
        self.context, self.shape, self.form = context, shape, approach.form_of(run)
        self.seed, self.prefetch = run.training.seed, approach.knobs(run).prefetch
        self.blocks = BlockMaker(context, graph, shape, self.form)
        self.lane = Lane.HOST if self.prefetch else Lane.COMPUTE
        self.remote = Lane.BACKGROUND if self.prefetch else Lane.COMM
        caches = approach.caches(graph, run, structure, [context.rank])
        cache = caches[0] if caches else None
        self.features = self.store(graph, structure, cache)
        self.open_source(graph, structure, cache)
        self.labels = np.array(graph.labels)
        self.tables = work.graph_tables(graph.num_nodes, graph.num_edges)
        self.workspace = Workspace(context.device, context.dtype)
        if self.prefetch:
            context.comm.open_background()

    def open_source(self, graph: Graph, structure: BatchStructure, cache: RowCache | None) -> None:
        """Open the source that this rank draws from."""
        context, run = self.context, self.context.run
        approach: Any = APPROACHES.get(run.approach)
        self.source: Source = approach.source(
            graph, run, structure.prepared, threads=run.training.threads_per_rank
        )
        self.steps = self.source.steps
        self.ahead = Ahead(
            partial(self.source.draw, world_size=context.world_size, rank=context.rank),
            self.steps,
            self.steps * run.training.epochs,
            approach.lookahead(run),
            cache,
        )

    def store(self, graph: Graph, structure: BatchStructure, cache: RowCache | None) -> Any:
        """Where input rows come from."""
        run, lanes = self.context.run, (self.lane, self.remote)
        on_host = APPROACHES.get(run.approach).knobs(run).placement == HOST
        return feature_store(self.context, graph, structure.owner, on_host, cache, lanes)

    def of_period(self, period: int) -> Iterator[Batch]:
        """Yield every batch of an epoch."""
        steps = self.steps

        def prepare(step: int, slot: int) -> Batch:
            return self.prepare(period, step, slot)

        if self.prefetch:
            at, device = self.context.recorder.at, self.context.device
            ahead = Prefetcher(prepare, steps, self.prefetch, at, device)
            yield from ahead.batches(steps)
            return
        for step in range(steps):
            self.context.recorder.at(step)
            yield prepare(step, 0)

    def prepare(self, epoch: int, step: int, slot: int) -> Batch:
        """Draw this rank's part of a global batch, build its blocks, fetch its input rows."""
        with self._step("sample/draw") as span:
            dealt, drawn = self.ahead.take(epoch, step)
            span.did(drawing_of([one.batch for one in drawn], self.form.op, self.tables))
        return self.build(dealt, epoch, step, slot)

    def build(self, dealt: Dealt, epoch: int, step: int, slot: int) -> Batch:
        """Build the blocks of what was drawn, fetch its input rows."""
        context, batch = self.context, dealt.batch
        vertices, _ = batch.sizes
        with self._step("sample/prepare") as span:
            patterns, turned = self.blocks.patterns(batch)
            rows, weights = self._loss_rows(dealt)
            weighted = self.form.edge_weights
            span.did(preparing(self.shape, vertices, turned, weighted=weighted))
        ids = torch.from_numpy(batch.input_nodes)
        if context.device.type != "cpu":
            patterns, ids, rows, weights = self._to_device(patterns, ids, rows, weights)
        x = self.workspace.get(f"x{slot}", len(batch.input_nodes), self.shape.dims[0])
        self.features.fetch(batch.input_nodes, x)
        labels = torch.from_numpy(self.labels[dealt.outputs]).to(context.device)
        if labels.dtype.is_floating_point:
            labels = labels.to(context.dtype)
        if rows is None:
            rows = torch.arange(len(dealt.outputs), device=context.device)
        every = patterns * (self.shape.num_layers // len(patterns))
        return Batch(
            x=x,
            aggregations=every,
            row_ids=[ids[: pattern.source_rows] for pattern in every],
            labels=labels,
            rows=rows,
            scale=dealt.scale,
            counters=(self.seed, epoch, step),
            weights=weights,
            share=dealt.share,
        )

    def _loss_rows(self, dealt: Dealt) -> tuple[Tensor | None, Tensor | None]:
        """The rows that the loss counts, if not all, and their weights, if not ones."""
        rows = None if dealt.rows is None else torch.from_numpy(dealt.rows)
        if dealt.weights is None:
            return rows, None
        return rows, torch.from_numpy(dealt.weights).to(self.context.dtype)

    def _to_device(
        self, patterns: list[Any], ids: Tensor, *others: Tensor | None
    ) -> tuple[Any, ...]:
        """Copy blocks, ids and what the loss counts to the device."""
        device = self.context.device
        size = sum(pattern.num_bytes for pattern in patterns) + size_of(ids)
        size += sum(size_of(tensor) for tensor in others if tensor is not None)
        copied = work.to_device(size)
        with self.context.recorder.step("fetch/copy", copied, phase=Phase.FETCH, lane=Lane.COPY):
            moved = [None if tensor is None else tensor.to(device) for tensor in others]
            return [pattern.to(device) for pattern in patterns], ids.to(device), *moved

    def _step(self, name: str) -> Any:
        """The span of a step that can only say afterwards what it did."""
        nothing = work.sample(seeds=0, edges=0, vertices=0, read=0)
        return self.context.recorder.step(name, nothing, phase=Phase.SAMPLE, lane=self.lane)

    def close(self) -> None:
        """Nothing outlives an epoch."""


class FullGraphEvaluator:
    """Metrics on the full graph: vertices in even chunks, halo rows exchanged, no sampling.

    Args:
        context: the rank.
        graph: has features and labels.
        parameters: as they are when `evaluate` is called.
        features: all rows, where they are on this rank's device; read in place if layer 1 needs no
            row of another rank.
    """

    trainer_type: type[PartitionTrainer] = PartitionTrainer

    def __init__(
        self,
        context: RankContext,
        graph: Graph,
        parameters: Parameters,
        features: Tensor | None = None,
    ) -> None:
        self.context, self.graph, self.parameters = context, graph, parameters
        self.features = features

    def evaluate(self) -> dict[str, float]:
        """Build the full-graph model, measure, and let go of it."""
        world, rank, n = self.context.world_size, self.context.rank, self.graph.num_nodes
        owner = (np.arange(n, dtype=np.int64) * world // max(n, 1)).astype(np.int32)
        own = None
        if self.features is not None:
            first, stop = np.searchsorted(owner, [rank, rank + 1]).tolist()
            own = self.features[first:stop]
        # Sizes are not read: the trainer finds them in the graph.
        structure = PartitionStructure(sizes=RowSizes.whole(self.graph), assignment=owner)
        full = self.trainer_type(
            self.context,
            self.graph,
            structure,
            parameters=self.parameters,
            shape=evaluated_shape(self.graph, self.context.run),
            features=own,
        )
        return full.evaluate()


class SampledTrainer(StepTrainer):
    """One rank of training on batches: one optimiser step per global batch."""

    batches: SampledBatches
    batches_type = SampledBatches

    def __init__(self, context: RankContext, data: Graph, structure: BatchStructure) -> None:
        knobs: BatchKnobs = APPROACHES.get(context.run.approach).knobs(context.run)
        self.context = context
        shape = stack_shape(data, context.run, knobs.order)
        parameters = make_parameters(context, shape)
        workspace = Workspace(context.device, context.dtype)
        stack = Stack(shape, parameters, workspace, context.kernels, context.recorder)
        self.net = StackNet(stack)
        self.batches = self.batches_type(context, data, structure, shape)
        self.optimizer = optimizer_of(context, parameters)
        self.evaluator = FullGraphEvaluator(
            context, data, parameters, rows_on_device(self.batches.features)
        )

    def period_metrics(self) -> dict[str, float]:
        """Hits and misses of all ranks' feature caches since the last call, and their share."""
        features = self.batches.features
        if not isinstance(features, CachedRows):
            return {}
        return cache_metrics(self.context, features)


def cache_metrics(context: RankContext, features: CachedRows | None) -> dict[str, float]:
    """Hits and misses of the caches of a context's ranks since the last call, and their share.

    All of its ranks call it together; those without a cache pass None.
    """
    counts = torch.zeros(2, dtype=torch.float64, device=context.device)
    if features is not None:
        counts[0], counts[1] = features.hits, features.misses
        features.hits = features.misses = 0
    context.comm.all_reduce(counts, "evaluate/cache", Phase.EVALUATE)
    hits, misses = on_host(counts)
    return {
        "cache_hits": hits,
        "cache_misses": misses,
        "cache_hit_rate": hits / max(hits + misses, 1),
    }
