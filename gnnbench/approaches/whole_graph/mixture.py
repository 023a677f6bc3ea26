"""The mixture of parallelism: aggregation on column slices, update on row slices.

Every rank holds the whole graph, so the aggregation of its columns needs no other rank; the update
needs whole rows of its own vertices, so it needs none either. In between, an all-to-all changes the
layout of the features. There is no halo: total bytes stay below 4 N s sum(w_l) for any number of
ranks, and work is balanced by construction (fullgraph section 9, FG-17 to FG-22). Exact for any
split. Attention transforms first and aggregates with weights that each rank computes for the heads
of its columns (volume in `relayout`, steps in `writing.layers.attention_columns`).

Legend: P ranks, N vertices, n the rows of a rank, f its columns of a width F.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gnnbench.approaches.base import Approach, GraphLike, Layout, example
from gnnbench.approaches.card import EXACT, Accepts, Look, Published
from gnnbench.approaches.whole_graph.mixture_writer import mixture_iteration
from gnnbench.approaches.whole_graph.relayout import Relayouts, even_split
from gnnbench.approaches.whole_graph.rows import (
    Options,
    RowSizes,
    buffers,
    precompute_problem,
    row_iteration,
)
from gnnbench.approaches.writing.evaluating import answered
from gnnbench.approaches.writing.shape import StackShape, stack_shape
from gnnbench.approaches.writing.stack import parameter_buffers
from gnnbench.data.graph import Graph
from gnnbench.data.profile import GraphProfile
from gnnbench.plan import Plan, repeated
from gnnbench.reuse import Reuse
from gnnbench.spec import RunSpec
from gnnbench.steps import Buffer, Ints
from gnnbench.strict import choices


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureKnobs:
    """Knobs of `mixture`.

    Args:
        order: which product of a layer comes first; min_width aggregates at the smaller of the
            layer's two widths. Attention always transforms first.
        precompute: aggregate the input features once, before training; layer 1 then aggregates
            first and communicates nothing. Not allowed with input dropout, which changes the
            features in every epoch, nor with attention.
    """

    order: str = field(
        default="min_width", metadata=choices("min_width", "aggregate_first", "transform_first")
    )
    precompute: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MixtureStructure:
    """Distribution of vertices: rank i owns the `rows[i]` vertices after those of rank i - 1.

    `symmetric`: every edge is stored in both directions, so that one copy of the graph serves both
    passes. `reuse` is that of the whole graph's rows.
    """

    rows: Ints
    train_rows: Ints
    nonzeros: int
    symmetric: bool
    reuse: Reuse | None = None
    counted: bool = True
    basis: str = "counted on the real graph"

    @classmethod
    def of_rows(cls, graph: Graph, rows: Sequence[int]) -> MixtureStructure:
        """Deal the vertices of a graph out in these numbers."""
        bounds = np.concatenate([[0], np.cumsum(rows)])
        assert bounds[-1] == graph.num_nodes, "every vertex is owned once"
        return cls(
            rows=np.array(rows, np.int64),
            train_rows=np.diff(np.searchsorted(graph.train_nodes(), bounds)),
            nonzeros=graph.num_edges,
            symmetric=graph.undirected,
            reuse=graph.reuse_of_rows(),
        )

    @property
    def num_nodes(self) -> int:
        return int(self.rows.sum())

    def owned(self, rank: int) -> Ints:
        """The vertices of a rank, rising."""
        first = int(self.rows[:rank].sum())
        return np.arange(first, first + int(self.rows[rank]))


def resident(
    shape: StackShape, structure: MixtureStructure, relayouts: Relayouts
) -> tuple[Buffer, ...]:
    """Buffers that live from before the first epoch: the whole graph, a share of all else."""
    s, rows, num_nodes = shape.element_bytes, structure.rows, structure.num_nodes
    fan_in = shape.dims[0]
    # More ranks than columns leave some without any.
    columns = np.array(even_split(fan_in, len(rows)))
    # Every rank aggregates a slice of columns over the whole graph, so each holds all of it: the
    # price of having no halo.
    topology = 8 * (num_nodes + 1) + 4 * structure.nonzeros
    held: dict[str, Any] = {
        "x": rows * fan_in * s if relayouts.x_rows else 0,
        "x_columns": num_nodes * columns * s if relayouts.x_columns else 0,
        "z1": rows * fan_in * s if shape.precompute else 0,
        "topology": topology,
        "topology_t": 0 if structure.symmetric else topology,
        "labels": 8 * rows + 3 * rows,
        "row_ids": 8 * rows,
        "train_rows": 8 * structure.train_rows,
    }
    if shape.model.attention:
        # As in partition parallelism: self loops are entries, which backward finds by their place.
        entries = structure.nonzeros + num_nodes
        held["topology"] += 4 * num_nodes
        held["topology_t"] = held["topology"] + 8 * entries
        held["edge_ids"] = 8 * entries if shape.dropout > 0 else 0
    else:
        held["scales"] = {"symmetric": 3, "mean": 1}[shape.model.normalisation] * num_nodes * s
    return buffers(held) + parameter_buffers(shape)


class Mixture(Approach):
    """Card and plan of `mixture`."""

    name = "mixture"
    title = "Mixture of parallelism (column slices to aggregate, row slices to update)"
    paper = "MixGCN's mixture of parallelism; RDM (IPDPS 2023) redistributes matrices the same way"
    summary = "whole graph on every rank; all-to-all between column and row slices; no halo"
    promise = EXACT
    accepts = Accepts(attention=True)
    look = Look(colour="#CC79A7", marker="P")
    published = (
        Published(
            names=r"naive tp|^mixgcn\b(?!.*accelerator)",
            recipe="gnnbench.published.recipes:native",
        ),
    )
    knobs_type = MixtureKnobs
    runtime = "gnnbench_runtime.approaches.whole_graph.mixture:MixtureTrainer"

    def examples(self) -> list[RunSpec]:
        gat = {"kind": "gat", "heads": 2, "layers": 3, "dropout": 0.5}
        sage = {"kind": "sage", "layers": 3, "dropout": 0.5, "input_dropout": 0.3}
        return [
            example("mixture"),
            # Four classes on five ranks: one has no column of the logits.
            example("mixture", 5, model=sage, knobs={"order": "transform_first"}),
            example("mixture", 3, model=gat),
            example("mixture", knobs={"precompute": True}, model={"norm": "layer"}),
        ]

    def skip_reason(self, run: RunSpec, data: GraphLike | None = None) -> str | None:
        """Any number of ranks is allowed; `precompute` needs fixed weights and fixed features."""
        return precompute_problem(run) if self.knobs(run).precompute else None

    def structure(
        self, data: GraphLike, run: RunSpec, cache: Path | None = None
    ) -> MixtureStructure:
        """Deal vertices out evenly and contiguously; a profile says as much as the graph."""
        rows = even_split(data.num_nodes, run.ranks)
        if not isinstance(data, GraphProfile):
            return MixtureStructure.of_rows(data, rows)
        return MixtureStructure(
            rows=np.array(rows),
            train_rows=np.array(even_split(data.num_train, run.ranks)),
            nonzeros=data.num_edges,
            symmetric=data.undirected,
            reuse=data.reuse_of_rows(),
            counted=run.ranks == 1,
            basis="closed forms of the profile's counts; training vertices dealt out evenly",
        )

    def plan(self, data: GraphLike, run: RunSpec, structure: Any, layout: Layout) -> Plan:
        knobs: MixtureKnobs = self.knobs(run)
        shape = stack_shape(data, run, knobs.order, precompute=knobs.precompute)
        rows, world = structure.rows, len(structure.rows)
        relayouts = Relayouts.of(shape, ranks=world)
        # One rank has all columns and all rows; the relayouts vanish and `single` is left.
        if world == 1:
            options = Options(order=knobs.order, precompute=knobs.precompute)
            iteration = row_iteration(shape, RowSizes.whole(data), options)
        else:
            iteration = mixture_iteration(
                shape, rows, structure.train_rows, structure.nonzeros, relayouts, structure.reuse
            )
        plan = Plan(
            approach=run.approach,
            world_size=world,
            **repeated([iteration], run.training.epochs),
            resident=resident(shape, structure, relayouts),
            counted=structure.counted,
            basis=structure.basis,
            notes={
                "order": shape.orders,
                "relayout_widths": relayouts.widths,
                "relayout_elements": relayouts.epoch_elements(rows.tolist()),
                "num_parameters": shape.num_parameters,
            },
        )
        return answered(plan)


APPROACH = Mixture()
