"""P3: features split by columns, a model-parallel first layer, data parallelism above it.

Every rank samples its own part of a batch, as in `sampled`, and holds its columns of the features
of all vertices, so that no feature moves. Structure of the first block is gathered; partial sums of
layer 1 are reduced onto the owner of the batch (pull), their gradients are gathered (push); see
`push_pull` for volumes. The bias is added once, to the sum. With attention the transformed rows are
summed before the softmax, because logits of a slice are not those of the whole row. The rows of
W_1 that belong to a rank's columns are updated on that rank only.

Deviations from the paper: the topology is on every rank, as in all approaches that sample; there is
no pipeline with bounded staleness, so that updates equal those of `sampled`. With convolutions
layer 1 aggregates first, at the width of a slice.

Source: Gandhi and Iyer, OSDI 2021; sampling reference section 11, invariants SA-P2, SA-P5, SA-P7.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gnnbench.approaches.base import GraphLike, Layout, Probe, example
from gnnbench.approaches.card import Look, Promise, Published
from gnnbench.approaches.mini_batch.base import BatchStructure
from gnnbench.approaches.mini_batch.evaluating import FullGraph
from gnnbench.approaches.mini_batch.fetching import Store
from gnnbench.approaches.mini_batch.push_pull import PushPullWriter, Slices
from gnnbench.approaches.mini_batch.sampled import FanOuts, Sampled
from gnnbench.approaches.mini_batch.sampled_examples import FEW
from gnnbench.approaches.mini_batch.writer import sampled_data
from gnnbench.approaches.whole_graph.relayout import even_split
from gnnbench.approaches.writing.shape import StackShape, stack_shape
from gnnbench.approaches.writing.stack import parameter_buffers
from gnnbench.data.graph import Graph
from gnnbench.spec import RunSpec
from gnnbench.steps import Buffer
from gnnbench.strict import bounds, choices


@dataclass(frozen=True, slots=True, kw_only=True)
class P3Knobs:
    """Knobs of `p3`.

    Args:
        prefetch: batches that a thread prepares ahead, their structure gathered and their columns
            fetched; 0 is serial, and stage times add up.
        order: which product of a layer comes first, above layer 1.
    """

    prefetch: int = field(default=0, metadata=bounds(0, 64))
    order: str = field(
        default="aggregate_first",
        metadata=choices("min_width", "aggregate_first", "transform_first"),
    )


class P3(Sampled):
    """Card and plan of `p3`."""

    name = "p3"
    title = "P3 (push-pull parallelism)"
    paper = "Gandhi and Iyer, P3: Distributed Deep Graph Learning at Scale, OSDI 2021"
    summary = "feature columns on ranks; partial first layers travel instead of features"
    promise = Promise(
        kind="exact",
        text="Losses, gradients and parameters equal those of data-parallel training on the same "
        "sampled batches, for any number of ranks.",
        reference="sampled",
    )
    look = Look(colour="#D55E00", marker="D")
    published = (
        Published(names=r"^p3\b|\bnfp\b", recipe="gnnbench.published.mini_batches:push_pull"),
    )
    knobs_type = P3Knobs
    runtime = "gnnbench_runtime.approaches.mini_batch.p3:P3Trainer"

    def examples(self) -> list[RunSpec]:
        sage = {"kind": "sage", "norm": "layer", "dropout": 0.3, "input_dropout": 0.2}
        return [
            example("p3", 1, batch=FEW),
            # Seven columns on three ranks; 16 seeds on three ranks.
            example("p3", 3, batch=FEW, model=sage, training={"optimizer": "adagrad"}),
            example("p3", 2, batch=FEW, knobs={"prefetch": 1}, model={"dropout": 0.3}),
            example("p3", 3, batch=FEW, model={"kind": "gat", "heads": 2, "dropout": 0.3}),
            example("p3", batch={"size": 16, "fanouts_from_seeds": (3,)}, model={"layers": 1}),
        ]

    def probes(self, probe: Probe) -> list[RunSpec]:
        """As `sampled`, on all ranks of the probe: some of its operations need several."""
        return [dataclasses.replace(probe.run, approach=self.name, ranks=probe.ranks, knobs={})]

    def draws(self, run: RunSpec) -> tuple[str, bool]:
        """Uniform, without replacement."""
        return "none", False

    def capacity(self, data: GraphLike, run: RunSpec) -> int:
        """No cache: no feature moves."""
        return 0

    def lookahead(self, run: RunSpec) -> int:
        return 0

    def problems(self, run: RunSpec) -> list[str]:
        return FanOuts.problems(self, run)

    def variants(self, run: RunSpec) -> list[dict[str, Any]]:
        return [{}]

    def skip_reason(self, run: RunSpec, data: GraphLike | None = None) -> str | None:
        """Every rank needs a column."""
        if data is not None and data.num_features < run.ranks:
            return (
                f"p3 cannot split {data.num_features} feature columns over {run.ranks} ranks: use "
                f"at most {data.num_features} ranks"
            )
        return super().skip_reason(run, data)

    def prepare(self, data: Graph, run: RunSpec, cache: Path | None = None) -> None:
        """Nothing: columns are split evenly."""

    def structure(self, data: GraphLike, run: RunSpec, cache: Path | None = None) -> BatchStructure:
        return BatchStructure(num_steps=self.num_steps(data, run))

    def shape(self, data: GraphLike, run: RunSpec) -> StackShape:
        """The model; its first layer aggregates at the width of a slice, unless it attends."""
        shape = stack_shape(data, run, self.knobs(run).order)
        if shape.model.attention:
            return shape
        return dataclasses.replace(shape, orders=("aggregate_first", *shape.orders[1:]))

    def slices(self, data: GraphLike, run: RunSpec) -> Slices:
        """Even shares of the columns."""
        columns = np.array(even_split(data.num_features, run.ranks), np.int64)
        return Slices(self.shape(data, run), columns)

    def writer(
        self, data: GraphLike, run: RunSpec, structure: BatchStructure, layout: Layout
    ) -> PushPullWriter:
        return PushPullWriter(
            self.slices(data, run),
            self.form,
            self.knobs(run),
            run.ranks,
            data.num_nodes,
            layout.device,
        )

    def evaluation(
        self, data: GraphLike, run: RunSpec, structure: BatchStructure, layout: Layout
    ) -> FullGraph:
        """On rows of all columns, with all parameters: own ones of all ranks are put together."""
        slices, s = self.slices(data, run), stack_shape(data, run, "min_width").element_bytes
        longest = int(slices.columns.max()) * slices.row_elements
        gathered = (1 + run.ranks) * longest + 2 * slices.shape.num_parameters
        return FullGraph(data=data, run=run, in_place=False, parameters=gathered * s)

    def resident(
        self, data: GraphLike, run: RunSpec, structure: BatchStructure, layout: Layout
    ) -> tuple[Buffer, ...]:
        """As `sampled`, with own columns and parameters, and scales by vertex for merged blocks."""
        slices = self.slices(data, run)
        shape, n = slices.shape, data.num_nodes
        columns = Buffer("features", n * slices.columns * shape.element_bytes)
        data_buffers = [
            columns if buffer.name == "features" else buffer
            for buffer in sampled_data(shape, data, Store(num_rows=n))
        ]
        tables = {"symmetric": 3, "mean": 1, "softmax": 0}[shape.model.normalisation]
        scales = Buffer("merged_scales", tables * n * shape.element_bytes)
        return (*data_buffers, scales, *parameter_buffers(shape, slices.held))


APPROACH = P3()
