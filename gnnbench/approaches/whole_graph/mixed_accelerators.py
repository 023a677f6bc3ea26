"""MixGCN's mixture of accelerators on real ranks: sparse ranks aggregate, dense ranks update.

Sparse ranks hold the whole adjacency and a slice of the feature columns. Rows are cut into chunks.
Every dense rank owns a share of the rows of every chunk and does all work with weights. For each
chunk, the sparse ranks compute the sparse product and send their columns to the dense ranks; the
dense ranks update the rows and send columns back. The backward pass does the same with the
transpose. A sparse product needs every row of its input, so each layer ends with a barrier; within
a layer, sparse and dense ranks overlap like the two machines of a flow shop (fullgraph section 10,
row-wise order). Exact.

A handover is an all-to-all in which only sparse ranks send, a return one in which only dense ranks
send. Each chunk is distributed over all dense ranks, so that none is idle whatever the number of
chunks. The number of messages, sparse x dense ranks x chunks, is the same as with whole chunks per
dense rank.

Volume per epoch without gradients: s N (sum of d_{l-1} over layers + three times the sum of d_l
over inner layers). Dense ranks do not receive rows that they already have: a self weight multiplies
the rows of H_{l-1} that they computed, and in the first layer a copy of their rows of X.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gnnbench.approaches.base import Approach, GraphLike, Layout, example
from gnnbench.approaches.card import EXACT, Accepts, Look
from gnnbench.approaches.whole_graph.mixed_structure import MixedStructure, mixed_structure
from gnnbench.approaches.whole_graph.row_pipeline import RowPipeline
from gnnbench.approaches.writing.evaluating import answered
from gnnbench.approaches.writing.shape import stack_shape
from gnnbench.plan import Plan, repeated
from gnnbench.spec import RunSpec
from gnnbench.strict import bounds, choices


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedKnobs:
    """Knobs of `mixed-accelerators`.

    Args:
        sparse_ranks: number of ranks that aggregate; 0 is half of them. The others update.
        chunks: number of row blocks that are handed over one after another, at most one per row;
            1 is the serial order, 0 lets `default_chunks` choose.
        node_order: natural keeps the order. degree sorts rows by increasing in-degree. johnson
            keeps the rows of each chunk and sorts the chunks by increasing number of nonzeros,
            which is Johnson's rule if every chunk has the same dense work.
    """

    sparse_ranks: int = field(default=0, metadata=bounds(0))
    chunks: int = field(default=0, metadata=bounds(0))
    node_order: str = field(default="natural", metadata=choices("natural", "degree", "johnson"))


class MixedAccelerators(Approach):
    """Card and plan of `mixed-accelerators`."""

    name = "mixed-accelerators"
    title = "Mixture of accelerators (sparse ranks feed dense ranks)"
    paper = "MixGCN (mixture of accelerators); chunking and node order are gnnbench's own"
    summary = "sparse ranks aggregate, dense ranks update; row chunks form a pipeline"
    promise = EXACT
    accepts = Accepts(
        no_attention="its sparse ranks aggregate before a dense one transforms; attention weighs "
        "edges by transformed rows, and dense ranks hold no edges"
    )
    look = Look(colour="#882255", marker="X")
    knobs_type = MixedKnobs
    runtime = "gnnbench_runtime.approaches.whole_graph.mixed_accelerators:MixedTrainer"

    def examples(self) -> list[RunSpec]:
        sage = {"kind": "sage", "layers": 3, "dropout": 0.5, "input_dropout": 0.3, "hidden": 5}
        return [
            example(self.name, knobs={"chunks": 4}),
            example(self.name, 3, model=sage, knobs={"sparse_ranks": 2, "node_order": "johnson"}),
            example(
                self.name,
                3,
                model={"norm": "layer", "layers": 3, "dropout": 0.5},
                knobs={"sparse_ranks": 1, "chunks": 3, "node_order": "degree"},
                training={"optimizer": "sgd"},
            ),
        ]

    def problems(self, run: RunSpec) -> list[str]:
        """More sparse ranks than would leave a dense one."""
        wanted = self.knobs(run).sparse_ranks
        if run.ranks > 1 and wanted >= run.ranks:
            return [
                f"knobs.sparse_ranks: found {wanted} of {run.ranks} ranks, "
                f"allowed 0 to {run.ranks - 1}: one rank at least must be dense"
            ]
        return []

    def skip_reason(self, run: RunSpec, data: GraphLike | None = None) -> str | None:
        """At least two ranks, one of each sort."""
        if run.ranks < 2:
            return "mixed-accelerators needs 2 ranks at least, a sparse and a dense one; 1 asked"
        if self.knobs(run).sparse_ranks >= run.ranks:
            return f"no dense rank is left of {run.ranks}"
        if data is not None and data.num_nodes < 1:
            return "the graph has no nodes"
        return None

    def structure(self, data: GraphLike, run: RunSpec, cache: Path | None = None) -> MixedStructure:
        """Cut rows into chunks, order them, and distribute them."""
        knobs: MixedKnobs = self.knobs(run)
        sparse = knobs.sparse_ranks or run.ranks // 2
        return mixed_structure(data, run, sparse, knobs.chunks, knobs.node_order)

    def plan(self, data: GraphLike, run: RunSpec, structure: Any, layout: Layout) -> Plan:
        shape = stack_shape(data, run, "aggregate_first")
        pipeline = RowPipeline(shape, structure)
        plan = Plan(
            approach=run.approach,
            world_size=structure.world_size,
            **repeated([pipeline.iteration()], run.training.epochs),
            resident=pipeline.resident(),
            counted=structure.counted,
            basis=structure.basis,
            notes={
                "sparse_ranks": structure.sparse_ranks,
                "chunks": structure.num_chunks,
                "idle_sparse_ranks": max(structure.sparse_ranks - max(shape.dims[:-1]), 0),
                "idle_dense_ranks": max(structure.dense_ranks - structure.num_rows, 0),
                "num_parameters": shape.num_parameters,
            },
        )
        return answered(plan)


APPROACH = MixedAccelerators()
