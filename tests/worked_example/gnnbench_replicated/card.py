"""Card, knobs and plan of `replicated`. Torch-free: only sizes and structure.

Data parallelism without partitioning: every rank holds the whole graph and computes every layer of
every vertex, but only a share of the training vertices contributes to its loss. Gradients are sum
over ranks, so one all-reduce per epoch gives the exact gradient. No features travel; the price is P
times the computation and the memory of one device. It is the upper bound of redundant computation
against which sampling and partitioning are compared.

Closed forms, per epoch and rank (S: bytes of parameters and loss; P ranks):

    communication   floor(2 (P - 1) S / P), the ring all-reduce of the gradient
    flops           those of one device, except the loss, which is computed on 1/P of the vertices
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gnnbench.approaches.base import Approach, Layout, example
from gnnbench.approaches.card import EXACT, Accepts, Look
from gnnbench.approaches.whole_graph.rows import Options, RowSizes, resident, row_iteration
from gnnbench.approaches.writing.shape import stack_shape
from gnnbench.plan import Plan, repeated
from gnnbench.spec import RunSpec
from gnnbench.strict import choices


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicatedKnobs:
    """Knobs of `replicated`.

    deal: how training vertices are dealt to ranks: round_robin or blocks of consecutive ids.
    """

    deal: str = field(default="round_robin", metadata=choices("round_robin", "blocks"))


def share(deal: str, count: int, ranks: int, rank: int) -> slice:
    """Which of `count` training vertices, in rising order of id, are a rank's.

    Both worlds call it: the plan for the number, the trainer for the vertices.
    """
    if deal == "round_robin":
        return slice(rank, None, ranks)
    return slice(rank * count // ranks, (rank + 1) * count // ranks)


class Replicated(Approach):
    """Card and plan of `replicated`."""

    name = "replicated"
    title = "Replicated graph, data-parallel loss"
    paper = "baseline"
    summary = "every rank computes the whole graph and a share of the losses"
    promise = EXACT
    accepts = Accepts(attention=True)
    look = Look(colour="#8c564b", marker="P")
    knobs_type = ReplicatedKnobs
    runtime = "gnnbench_replicated.training:ReplicatedTrainer"

    def examples(self) -> list[RunSpec]:
        """Tiny runs: one rank, several, both ways to deal, dropout, and attention."""
        return [
            example("replicated", 1),
            example("replicated", 3, knobs={"deal": "blocks"}),
            example("replicated", 2, model={"kind": "sage", "dropout": 0.5}),
            example("replicated", 2, model={"kind": "gat", "heads": 2}),
        ]

    def structure(self, data: Any, run: RunSpec, cache: Path | None = None) -> RowSizes:
        """All sizes of all ranks; a profile knows them as well as a graph."""
        knobs, ranks = self.knobs(run), run.ranks
        train = range(data.num_train)
        dealt = [len(train[share(knobs.deal, data.num_train, ranks, r)]) for r in range(ranks)]
        return RowSizes(
            rows=np.full(ranks, data.num_nodes),
            nonzeros=np.full(ranks, data.num_edges),
            train_rows=np.array(dealt),
            received=np.zeros((ranks, ranks), np.int64),
            halo_nonzeros=np.zeros(ranks, np.int64),
        )

    def plan(self, data: Any, run: RunSpec, structure: RowSizes, layout: Layout) -> Plan:
        """One epoch: the stack's forward, loss, backward, all-reduce, update, on every rank."""
        shape, options = stack_shape(data, run, "min_width"), Options(order="min_width")
        iteration = row_iteration(shape, structure, options, exchanges=False)
        return Plan(
            approach=self.name,
            world_size=run.ranks,
            **repeated([iteration], run.training.epochs),
            resident=resident(shape, structure),
            notes={"order": shape.orders, "num_parameters": shape.num_parameters},
        )


APPROACH = Replicated()
