"""Sampled training on real ranks: draw, fetch features, train on the blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnnbench import work
from gnnbench.approaches.mini_batch.batch import needs_transpose
from gnnbench.approaches.mini_batch.sampled import SampledKnobs, SampledStructure
from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.whole_graph.partition import PartitionStructure
from gnnbench.approaches.whole_graph.rows import RowSizes
from gnnbench.approaches.writing.shape import StackShape, stack_shape
from gnnbench.data import sampling
from gnnbench.data.graph import Graph
from gnnbench.steps import Lane, Phase
from gnnbench_runtime.approaches.mini_batch.features import FeatureStore
from gnnbench_runtime.approaches.mini_batch.prefetch import Prefetcher
from gnnbench_runtime.approaches.whole_graph.partition import PartitionTrainer
from gnnbench_runtime.models.data import size_of
from gnnbench_runtime.models.parameters import Parameters
from gnnbench_runtime.models.patterns import Aggregation, Attention
from gnnbench_runtime.models.scales import vertex_scales
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


class BlockMaker:
    """Turns sampled blocks into patterns to train on.

    A vertex's true row sum is estimated by degree / picks times the sampled one. Softmax normalises
    over the drawn neighbours: unlike a mean, it is not an unbiased estimate over all of them.
    """

    def __init__(self, context: RankContext, graph: Graph, shape: StackShape) -> None:
        self.context, self.shape, self.num_nodes = context, shape, graph.num_nodes
        self.as_destination = self.as_source = None
        if not shape.model.attention:
            self.as_destination, self.as_source = vertex_scales(graph, shape.model)

    def patterns(self, batch: sampling.Batch, first: int = 1) -> tuple[list[Any], int]:
        """Patterns of the blocks, and how many edges were transposed for the backward pass.

        The first block is that of layer `first`.
        """
        numbered = list(enumerate(batch.blocks, first))
        if self.shape.model.attention:
            found = [self._attention(batch, block) for block in batch.blocks]
            turned = [block for at, block in numbered if needs_transpose(self.shape, at)]
            return found, sum(block.num_edges for block in turned)
        made = [self._aggregation(batch, block, at) for at, block in numbered]
        return made, sum(a.nonzeros for a in made if a.indices_t is not None)

    def _attention(self, batch: sampling.Batch, block: sampling.Block) -> Attention:
        sources = batch.input_nodes[: block.num_src]
        with_ids = self.shape.dropout > 0
        return Attention.of(block.indptr, block.indices, sources, self.num_nodes, with_ids=with_ids)

    def _aggregation(self, batch: sampling.Batch, block: sampling.Block, layer: int) -> Aggregation:
        sources = batch.input_nodes[: block.num_src]
        targets = sources[: block.num_dst]
        picks = np.diff(block.indptr)
        share = np.divide(1.0, picks, out=np.zeros(len(picks)), where=picks > 0)
        col_scale = self_scale = None
        if self.as_source is not None:
            assert self.as_destination is not None
            share *= block.degrees * self.as_destination[targets]
            col_scale = self.as_source[sources]
            self_scale = self.as_destination[targets] * col_scale[: block.num_dst]
        indptr_t = indices_t = None
        if needs_transpose(self.shape, layer):
            indptr_t, indices_t = (torch.from_numpy(a) for a in block.transpose())
        return Aggregation(
            indptr=torch.from_numpy(block.indptr),
            indices=torch.from_numpy(block.indices),
            indptr_t=indptr_t,
            indices_t=indices_t,
            rows=block.num_dst,
            source_rows=block.num_src,
            row_scale=self._scale(share),
            col_scale=None if col_scale is None else self._scale(col_scale),
            self_scale=None if self_scale is None else self._scale(self_scale),
        )

    def _scale(self, values: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(values).to(self.context.dtype)


class SampledBatches:
    """A source of sampled batches: this rank's share of every global batch.

    Args:
        context: the rank.
        graph: is sampled; has features and labels.
        structure: number of steps, and owners of the features.
        shape: the model.
        prefetch: batches prepared ahead by a thread.
    """

    def __init__(
        self,
        context: RankContext,
        graph: Graph,
        structure: SampledStructure,
        shape: StackShape,
        prefetch: int,
    ) -> None:
        run = context.run
        self.context, self.shape, self.steps = context, shape, structure.num_steps
        self.size, self.seed, self.prefetch = run.batch.size, run.training.seed, prefetch
        self.sampler = sampling.NeighbourSampler(
            graph.indptr,
            graph.indices,
            run.batch.fanouts(run.model.layers),
            self.seed,
            threads=run.training.threads_per_rank,
        )
        self.train_nodes = graph.train_nodes()
        self.blocks = BlockMaker(context, graph, shape)
        self.lane = Lane.HOST if prefetch else Lane.COMPUTE
        lanes = self.lane, Lane.BACKGROUND if prefetch else Lane.COMM
        self.features = FeatureStore(context, graph, structure.owner, lanes)
        self.labels = np.array(graph.labels)
        self.rows = torch.arange(self.size, device=context.device)
        self.workspace = Workspace(context.device, context.dtype)
        if prefetch:
            context.comm.open_background()

    def of_period(self, period: int) -> Iterator[Batch]:
        """Yield every batch of an epoch, each training vertex once."""
        order = sampling.epoch_seeds(self.train_nodes, self.seed, period)

        def prepare(step: int, slot: int) -> Batch:
            return self.prepare(sampling.batch_seeds(order, self.size, step), period, step, slot)

        if self.prefetch:
            at, device = self.context.recorder.at, self.context.device
            ahead = Prefetcher(prepare, self.steps, self.prefetch, at, device)
            yield from ahead.batches(self.steps)
            return
        for step in range(self.steps):
            self.context.recorder.at(step)
            yield prepare(step, 0)

    def prepare(self, seeds: NDArray[np.int64], epoch: int, step: int, slot: int) -> Batch:
        """Draw this rank's share of a global batch, build its blocks, fetch its input rows."""
        context = self.context
        mine = sampling.split_seeds(seeds, context.world_size, context.rank)
        with self._step("sample/draw") as span:
            batch = self.sampler.sample(mine, epoch, step)
            span.did(work.draw_neighbours(*batch.sizes))
        return self.build(batch, len(seeds), epoch, step, slot)

    def build(
        self, batch: sampling.Batch, num_seeds: int, epoch: int, step: int, slot: int
    ) -> Batch:
        """Build the blocks of what was drawn for a batch of so many seeds, fetch its input rows."""
        context, mine = self.context, batch.seeds
        vertices, _ = batch.sizes
        with self._step("sample/prepare") as span:
            patterns, turned = self.blocks.patterns(batch)
            span.did(work.prepare_blocks(vertices, turned))
        if context.device.type == "cpu":
            ids = torch.from_numpy(batch.input_nodes)
        else:
            patterns, ids = self._to_device(patterns, batch.input_nodes)
        x = self.workspace.get(f"x{slot}", len(batch.input_nodes), self.shape.dims[0])
        self.features.fetch(batch.input_nodes, x)
        labels = torch.from_numpy(self.labels[mine]).to(context.device)
        if labels.dtype.is_floating_point:
            labels = labels.to(context.dtype)
        return Batch(
            x=x,
            aggregations=patterns,
            row_ids=[ids[: pattern.source_rows] for pattern in patterns],
            labels=labels,
            rows=self.rows[: len(mine)],
            scale=1.0 / max(num_seeds, 1),
            counters=(self.seed, epoch, step),
            share=num_seeds / max(len(self.train_nodes), 1),
        )

    def _to_device(
        self, patterns: list[Any], input_nodes: NDArray[np.int64]
    ) -> tuple[list[Any], Tensor]:
        """Copy blocks and ids to the device."""
        device, ids = self.context.device, torch.from_numpy(input_nodes)
        size = sum(pattern.num_bytes for pattern in patterns) + size_of(ids)
        copied = work.to_device(size)
        with self.context.recorder.step("fetch/copy", copied, phase=Phase.FETCH, lane=Lane.COPY):
            return [pattern.to(device) for pattern in patterns], ids.to(device)

    def _step(self, name: str) -> Any:
        """The span of a step that can only say afterwards what it did."""
        nothing = work.sample(seeds=0, edges=0, vertices=0, read=0)
        return self.context.recorder.step(name, nothing, phase=Phase.SAMPLE, lane=self.lane)

    def close(self) -> None:
        """Nothing outlives an epoch."""


class FullGraphEvaluator:
    """Metrics on the full graph: vertices in even chunks, halo rows exchanged, no sampling."""

    def __init__(self, context: RankContext, graph: Graph, parameters: Parameters) -> None:
        self.context, self.graph, self.parameters = context, graph, parameters

    def evaluate(self) -> dict[str, float]:
        """Build the full-graph model, measure, and let go of it."""
        world, n = self.context.world_size, self.graph.num_nodes
        owner = (np.arange(n, dtype=np.int64) * world // max(n, 1)).astype(np.int32)
        # Sizes are not read: the trainer finds them in the graph.
        structure = PartitionStructure(sizes=RowSizes.whole(self.graph), assignment=owner)
        shape = stack_shape(self.graph, self.context.run, "min_width")
        full = PartitionTrainer(
            self.context, self.graph, structure, parameters=self.parameters, shape=shape
        )
        return full.evaluate()


class SampledTrainer(StepTrainer):
    """One rank of sampled training: one optimiser step per global batch."""

    def __init__(self, context: RankContext, data: Graph, structure: SampledStructure) -> None:
        knobs: SampledKnobs = APPROACHES.get(context.run.approach).knobs(context.run)
        self.context = context
        shape = stack_shape(data, context.run, knobs.order)
        parameters = make_parameters(context, shape)
        workspace = Workspace(context.device, context.dtype)
        stack = Stack(shape, parameters, workspace, context.kernels, context.recorder)
        self.net = StackNet(stack)
        self.batches = SampledBatches(context, data, structure, shape, knobs.prefetch)
        self.optimizer = optimizer_of(context, parameters)
        self.evaluator = FullGraphEvaluator(context, data, parameters)
