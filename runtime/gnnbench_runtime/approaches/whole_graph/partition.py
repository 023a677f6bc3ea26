"""Full-graph training over a vertex partition; with one rank, on a single device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.whole_graph.partition import PartitionStructure
from gnnbench.approaches.writing.evaluating import reads_own_rows
from gnnbench.approaches.writing.shape import StackShape, stack_shape
from gnnbench.data.graph import Graph
from gnnbench.data.halo import halo_structure
from gnnbench.data.mapped import forget_mapped_pages
from gnnbench.resident import return_free_heap
from gnnbench.steps import Phase
from gnnbench_runtime.approaches.whole_graph.exchange import HaloExchange, Staging
from gnnbench_runtime.approaches.whole_graph.share import Loader
from gnnbench_runtime.evaluation import NodeAccuracy
from gnnbench_runtime.models.data import reopened_graph
from gnnbench_runtime.models.parameters import Parameters
from gnnbench_runtime.models.performer import Exchange
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


class WholeGraph:
    """A rank's share of the graph as the only batch of every epoch.

    Args:
        loader: of the graph.
        own: vertices that the rank owns.
        aggregation: pattern over which every layer aggregates.
        x: input rows.
    """

    def __init__(self, loader: Loader, own: NDArray[np.int64], aggregation: Any, x: Tensor) -> None:
        self.aggregation, self.x = aggregation, x
        self.layers = loader.shape.num_layers
        self.seed = loader.context.run.training.seed
        self.labels, self.masks = loader.labels(own), loader.masks(own)
        self.row_ids = loader.tensor(own).long()
        assert loader.graph.train_mask is not None
        trains = np.flatnonzero(np.asarray(loader.graph.train_mask)[own])
        self.train_rows = loader.tensor(trains)
        self.scale = 1.0 / max(loader.graph.num_train, 1)

    def of_period(self, period: int) -> Iterator[Batch]:
        """Yield the whole graph."""
        yield self.batch((self.seed, period))

    def batch(self, counters: tuple[int, ...], aggregation: Any = None) -> Batch:
        """The whole graph, or another pattern over the same rows."""
        over = self.aggregation if aggregation is None else aggregation
        return Batch(
            x=self.x[: over.source_rows],
            aggregations=[over] * self.layers,
            row_ids=[self.row_ids] * self.layers,
            labels=self.labels,
            rows=self.train_rows,
            scale=self.scale,
            counters=counters,
        )

    def close(self) -> None:
        """Nothing runs in the background."""


class WholeGraphTrainer(StepTrainer):
    """One rank that trains a stack on the whole graph: one optimiser step per epoch."""

    batches: WholeGraph
    stack: Stack
    apart = False
    """Whether an evaluation has buffers of its own, which nothing needs once it is over."""

    def compose(self, stack: Stack, batches: WholeGraph, *, trains: bool = True) -> None:
        """Set the parts of the trainer.

        Args:
            stack: of layers.
            batches: the one batch.
            trains: False for a trainer that only evaluates another one's parameters.
        """
        self.stack, self.batches, self.net = stack, batches, StackNet(stack)
        self.apart = not trains
        if trains:
            self.optimizer = optimizer_of(self.context, stack.parameters)
        self.evaluator = NodeAccuracy(
            self.whole_logits, batches.labels, batches.masks, self.context.comm
        )

    def whole_logits(self) -> Tensor:
        """Logits of the own rows by the full-graph model, nothing dropped."""
        whole = self.batches.batch(())
        return self.stack.forward(
            whole.x,
            whole.aggregations,
            row_ids=whole.row_ids,
            counters=None,
            phase=Phase.EVALUATE,
            keeps=not self.apart,
        )


class PartitionTrainer(WholeGraphTrainer):
    """One rank of full-graph training: one optimiser step per epoch.

    Approaches built on it replace the exchange (`make_exchange`), the pattern (`make_pattern`) or
    the source of batches.
    """

    stack_type = Stack

    def __init__(
        self,
        context: RankContext,
        data: Graph,
        structure: PartitionStructure,
        *,
        parameters: Parameters | None = None,
        shape: StackShape | None = None,
        features: Tensor | None = None,
    ) -> None:
        self.context = context
        self.knobs = APPROACHES.get(context.run.approach).knobs(context.run)
        graph = reopened_graph(data)
        self.shape = shape or self.make_shape(graph)
        # Given parameters are another trainer's, and only evaluated here.
        self.trains, self.given = parameters is None, features
        assert structure.assignment is not None
        parts = halo_structure(graph, structure.assignment, context.world_size)
        self.local = parts.ranks[context.rank].alone()
        del parts
        self.loader = Loader(context, graph, self.shape)
        self.workspace = Workspace(context.device, context.dtype)
        self.staging: Staging | None = None
        pattern = self.make_pattern()
        self.local.forget_edges()
        batches = self.make_batches(pattern, self.load_features())
        stack = self.stack_type(
            self.shape,
            parameters or make_parameters(context, self.shape),
            self.workspace,
            context.kernels,
            context.recorder,
            self.make_exchange() if context.world_size > 1 else None,
            self.precomputed(pattern) if self.shape.precompute else None,
        )
        forget_mapped_pages(graph.arrays().values())
        if not self.trains:
            # What was only needed to build the pattern goes back before the forward pass begins.
            return_free_heap()
        self.compose(stack, batches, trains=self.trains)

    # -- parts that approaches replace -----------------------------------------------------------

    def make_shape(self, graph: Graph) -> StackShape:
        """The model."""
        precompute = bool(getattr(self.knobs, "precompute", False))
        return stack_shape(graph, self.context.run, self.knobs.order, precompute=precompute)

    def make_pattern(self) -> Any:
        """What every layer sums over."""
        return self.loader.pattern(self.local, overlap=self.overlaps, turned=self.trains)

    def make_batches(self, pattern: Any, x: Tensor) -> WholeGraph:
        """Where the batch of every epoch comes from."""
        return WholeGraph(self.loader, self.local.owned, pattern, x)

    def make_exchange(self) -> Exchange | None:
        """How boundary rows travel in training; called where there are several ranks."""
        if self.overlaps:
            self.context.comm.open_background()
        staged = getattr(self.knobs, "transport", "native") == "host_staged"
        if staged and self.context.device.type != "cpu":
            self.staging = Staging(self.context)
        return self.fresh_exchange()

    def fresh_exchange(self, workspace: Workspace | None = None) -> HaloExchange:
        """The exchange that brings current rows."""
        space = workspace or self.workspace
        widest = self.shape.widest_exchange
        return HaloExchange(self.context, self.local, space, widest, self.staging)

    def source_rows(self) -> int:
        """Most rows that layer 1 reads in training: own ones and those that arrive."""
        return self.local.num_columns

    @property
    def reads_own_rows(self) -> bool:
        """Whether layer 1 reads no row of another rank: then transformed rows are exchanged."""
        return reads_own_rows(self.shape, self.context.world_size)

    @property
    def overlaps(self) -> bool:
        """Whether halo rows are sent while edges with own sources are aggregated."""
        return bool(getattr(self.knobs, "overlap", False)) and self.context.world_size > 1

    def load_features(self) -> Tensor:
        """Input rows: own ones, and room for those that arrive.

        Precomputed, layer 1 reads no halo row, and own rows only for a self weight.
        """
        own = self.local.owned
        if not self.trains and self.reads_own_rows:
            given = self.given
            return self.loader.features(own, len(own)) if given is None else given
        if not self.shape.precompute:
            return self.loader.features(own, self.source_rows())
        kept = own if self.shape.model.self_weight else own[:0]
        return self.loader.features(kept, len(kept))

    def precomputed(self, pattern: Any) -> Tensor:
        """The first aggregation, done once."""
        whole = pattern if pattern.split is None else self.loader.aggregation(self.local)
        return self.loader.precomputed(self.local, whole)

    # -- training --------------------------------------------------------------------------------

    def all_reduce(self) -> None:
        """Sum gradients and loss over ranks, in one collective."""
        staging = self.staging
        if staging is None:
            super().all_reduce()
            return
        flat = self.parameters.flat_grad
        host = staging.to_host(flat, "gradients", "sync", Phase.SYNC)
        staging.comm.all_reduce(host, "sync/gradients", Phase.SYNC)
        staging.to_device(host, flat, "sync", Phase.SYNC)
