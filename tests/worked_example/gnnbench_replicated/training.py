"""Training of `replicated` in torch: the whole graph on every rank, the loss on a share of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from gnnbench.approaches.writing.shape import stack_shape
from gnnbench.data.graph import Graph
from gnnbench.data.halo import halo_structure
from gnnbench_replicated.card import APPROACH, share
from gnnbench_runtime.approaches.whole_graph.partition import WholeGraph
from gnnbench_runtime.approaches.whole_graph.share import Loader
from gnnbench_runtime.evaluation import NodeAccuracy
from gnnbench_runtime.models.data import reopened_graph
from gnnbench_runtime.models.stack import Stack
from gnnbench_runtime.models.workspace import Workspace
from gnnbench_runtime.protocol import RankContext
from gnnbench_runtime.training import StackNet, StepTrainer, make_parameters, optimizer_of


class ReplicatedTrainer(StepTrainer):
    """Composed of the house's parts: only the rows that the loss counts are this approach's own."""

    def __init__(self, context: RankContext, data: Graph, structure: Any) -> None:
        self.context = context
        graph, knobs = reopened_graph(data), APPROACH.knobs(context.run)
        shape = stack_shape(graph, context.run, "min_width")
        loader = Loader(context, graph, shape)
        everything = halo_structure(graph, np.zeros(graph.num_nodes, np.int32), 1).ranks[0]
        features = loader.features(everything.owned, graph.num_nodes)
        self.batches = WholeGraph(loader, everything.owned, loader.pattern(everything), features)
        rows = self.batches.train_rows
        self.batches.train_rows = rows[
            share(knobs.deal, len(rows), context.world_size, context.rank)
        ].clone()
        parameters = make_parameters(context, shape)
        self.stack = Stack(
            shape,
            parameters,
            Workspace(context.device, context.dtype),
            context.kernels,
            context.recorder,
            None,
            None,
        )
        self.net = StackNet(self.stack)
        self.optimizer = optimizer_of(context, parameters)
        # Every rank measures every vertex: sums over ranks count each P times, ratios are the same.
        self.evaluator = NodeAccuracy(
            self.logits, self.batches.labels, self.batches.masks, context.comm
        )

    def logits(self) -> Any:
        """Logits of all vertices, nothing dropped."""
        whole = self.batches.batch(())
        return self.stack.forward(whole.x, whole.aggregations, row_ids=whole.row_ids, counters=None)
