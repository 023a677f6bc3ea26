"""Sparse ranks aggregate, dense ranks update; row chunks are sent between them in a pipeline.

Handovers use the main group and returns the background group. Each has a thread (on CUDA, a stream)
of its own and one order of chunks on all ranks, so no two ranks can wait for each other, however
small the buffers of the transport are. Receivers post their side early (see
`mixed_rank.MixedRank.waits_in_thread`): with a transport that sends nothing before both sides are
ready, a sender would otherwise wait for a receiver that is still computing. Transfers are
all-to-alls because a waiting all-to-all sleeps, whereas gloo's plain receive polls and occupies the
core of the rank that computes there.
"""

from __future__ import annotations

from gnnbench.approaches.whole_graph.mixed_structure import MixedStructure
from gnnbench.approaches.writing.shape import stack_shape
from gnnbench.data.graph import Graph
from gnnbench.steps import Lane
from gnnbench_runtime.approaches.whole_graph.mixed_dense import DenseRank
from gnnbench_runtime.approaches.whole_graph.mixed_sparse import SparseRank
from gnnbench_runtime.approaches.whole_graph.share import Loader
from gnnbench_runtime.evaluation import NodeAccuracy
from gnnbench_runtime.models.data import reopened_graph
from gnnbench_runtime.protocol import RankContext
from gnnbench_runtime.training import StepTrainer, make_parameters, optimizer_of


class MixedTrainer(StepTrainer):
    """One rank, sparse or dense, of full-graph training: one optimiser step per epoch."""

    net: SparseRank | DenseRank

    def __init__(self, context: RankContext, data: Graph, structure: MixedStructure) -> None:
        self.context = context
        graph = reopened_graph(data)
        shape = stack_shape(graph, context.run, "aggregate_first")
        context.comm.open_background()
        parameters = make_parameters(context, shape)
        role = SparseRank if context.rank < structure.sparse_ranks else DenseRank
        self.net = self.batches = role(Loader(context, graph, shape), structure, parameters)
        self.optimizer = optimizer_of(context, parameters)
        self.evaluator = NodeAccuracy(
            self.net.whole_logits, self.net.labels, self.net.masks, context.comm
        )

    def update(self, *, lane: Lane | None = None) -> None:
        """One step of the optimizer, on this rank's lane."""
        super().update(lane=lane or self.net.lane)
