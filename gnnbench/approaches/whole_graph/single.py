"""The whole graph on one device: the reference that every exact approach must equal.

It runs on one rank and sends nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gnnbench.approaches.base import Approach, GraphLike, Layout, Probe, example
from gnnbench.approaches.card import EXACT, Accepts, Look
from gnnbench.approaches.whole_graph.partition import PartitionStructure
from gnnbench.approaches.whole_graph.rows import Options, precompute_problem, row_plan
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.strict import choices


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleKnobs:
    """Knobs of `single`.

    Args:
        order: which product of a layer comes first; min_width aggregates at the smaller of the
            layer's two widths.
        precompute: aggregate the input features once, before training; layer 1 then has no sparse
            product.
    """

    order: str = field(
        default="min_width", metadata=choices("min_width", "aggregate_first", "transform_first")
    )
    precompute: bool = False


class Single(Approach):
    """Card and plan of `single`."""

    name = "single"
    title = "Single device, full graph"
    paper = "baseline"
    summary = "the whole graph on one device, one exact gradient step per epoch"
    promise = EXACT
    accepts = Accepts(attention=True)
    look = Look(colour="#222222", marker="s")
    knobs_type = SingleKnobs
    runtime = "gnnbench_runtime.approaches.whole_graph.partition:PartitionTrainer"

    def examples(self) -> list[RunSpec]:
        return [
            example("single", 1),
            example("single", 1, model={"kind": "sage", "dropout": 0.5, "norm": "layer"}),
            example("single", 1, knobs={"precompute": True}, training={"optimizer": "sgd"}),
        ]

    def probes(self, probe: Probe) -> list[RunSpec]:
        order = ("min_width", "aggregate_first", "transform_first")[probe.number % 3]
        return [replace(probe.run, approach=self.name, ranks=1, knobs={"order": order})]

    def skip_reason(self, run: RunSpec, data: GraphLike | None = None) -> str | None:
        """`single` is for one rank."""
        if run.ranks != 1:
            return f"single runs on 1 rank, {run.ranks} asked"
        return precompute_problem(run) if self.knobs(run).precompute else None

    def structure(
        self, data: GraphLike, run: RunSpec, cache: Path | None = None
    ) -> PartitionStructure:
        """One rank owns everything."""
        return PartitionStructure.whole(data)

    def plan(self, data: GraphLike, run: RunSpec, structure: Any, layout: Layout) -> Plan:
        knobs: SingleKnobs = self.knobs(run)
        return row_plan(
            data,
            run,
            structure.sizes,
            Options(order=knobs.order, precompute=knobs.precompute),
            counted=structure.counted,
            basis=structure.basis,
        )


APPROACH = Single()
