"""Full graph on one device: the reference that every exact approach must equal."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gnnbench.approaches.base import Approach, GraphLike, Layout
from gnnbench.approaches.whole_graph.rows import RankSizes, full_graph_plan, precompute_problem
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.strict import choices


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleKnobs:
    """Knobs of `single`.

    order: which product comes first in a layer; min_width aggregates the narrower side.
    precompute: aggregate the features once, before training; layer 1 then has no sparse product.
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
    exact = True
    attention = True
    runtime = "gnnbench_runtime.approaches.whole_graph.partition:PartitionTrainer"
    knobs_type = SingleKnobs

    def skip_reason(self, run: RunSpec, graph: GraphLike | None = None) -> str | None:
        """`single` is for one rank."""
        if run.ranks != 1:
            return f"single runs on 1 rank, {run.ranks} asked"
        return precompute_problem(run) if self.knobs(run).precompute else None

    def structure(self, graph: GraphLike, run: RunSpec, cache: Path | None = None) -> Any:
        """One rank owns everything."""
        from gnnbench.approaches.whole_graph.partition import PartitionStructure

        return PartitionStructure.whole(graph)

    def plan(self, graph: GraphLike, run: RunSpec, structure: Any, layout: Layout) -> Plan:
        sizes: list[RankSizes] = structure.sizes
        return full_graph_plan(
            graph,
            run,
            sizes,
            order=self.knobs(run).order,
            exact=structure.exact,
            basis=structure.basis,
            precompute=self.knobs(run).precompute,
        )


APPROACH = Single()
