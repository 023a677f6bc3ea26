"""MariusGNN: node classification and link prediction on one machine, from the disk.

Source: Waleffe, Mohoney, Rekatsinas, Venkataraman, "MariusGNN: Resource-Efficient Out-of-Core
Training of Graph Neural Networks", EuroSys 2023; out-of-core reference sections 2-7.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gnnbench.approaches.base import Approach, Layout, example
from gnnbench.approaches.card import Accepts, Look, Promise
from gnnbench.approaches.out_of_core import policies
from gnnbench.approaches.out_of_core.node_plan import node_plan
from gnnbench.approaches.out_of_core.nodes import (
    feature_rows,
    node_structure,
    policy_name,
    training_partitions,
)
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.strict import bounds, choices


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfCoreKnobs:
    """Knobs of `out-of-core`.

    partitions: physical partitions p of the table on the disk. buffer: partitions c in memory; 0
    is all of them. policy: of the order in which partitions are read; "auto" is sequential where
    the training partitions fit the buffer and else dispersed, and comet for embeddings. logical:
    logical partitions l of comet; 0 is 2 p / c. prefetch: whether the next partitions are read
    while the present ones are trained on.
    """

    partitions: int = field(default=8, metadata=bounds(1, 16_384))
    buffer: int = field(default=0, metadata=bounds(0, 16_384))
    policy: str = field(
        default="auto", metadata=choices("auto", "sequential", "dispersed", "comet", "beta")
    )
    logical: int = field(default=0, metadata=bounds(0, 16_384))
    prefetch: int = field(default=0, metadata=bounds(0, 1))


NODE_POLICIES = ("auto", "sequential", "dispersed")


class OutOfCore(Approach):
    """Card and plan of `out-of-core`."""

    name = "out-of-core"
    title = "MariusGNN, partitions on disk"
    paper = "Waleffe et al., MariusGNN, EuroSys 2023; Mohoney et al., Marius, OSDI 2021"
    summary = "features or embeddings on disk; batches drawn from the partitions in a buffer"
    promise = Promise(
        kind="own",
        text="Mini-batches are drawn from the partitions in the buffer; with all partitions in the "
        "buffer it is in-memory training.",
        reference="sampled",
        limit={"buffer": 0, "policy": "auto", "logical": 0},
    )
    accepts = Accepts(attention=True, batch=True)
    look = Look(colour="#009E73", marker="D")
    knobs_type = OutOfCoreKnobs
    runtime = "gnnbench_runtime.approaches.out_of_core.nodes:NodeTrainer"

    def examples(self) -> list[RunSpec]:
        few = {"size": 16, "fanouts_from_seeds": (4, 3)}
        return [
            example(self.name, 1, batch=few, knobs={"partitions": 4}),
            example(
                self.name, 1, batch=few, model={"kind": "sage", "norm": "layer"},
                knobs={"partitions": 6, "buffer": 5, "policy": "sequential"},
            ),
            example(
                self.name, 1, batch=few, knobs={"partitions": 6, "buffer": 2, "prefetch": 1}
            ),
            example(
                self.name, 1, batch=few, model={"kind": "gat", "heads": 2, "dropout": 0.3},
                knobs={"partitions": 5, "buffer": 2, "policy": "dispersed"},
            ),
        ]  # fmt: skip

    def skip_reason(self, run: RunSpec, data: Any = None) -> str | None:
        """One rank; partitions that are not empty; a buffer that its policy can work with."""
        if run.ranks > 1:
            return f"{self.name} trains on one rank: several ranks over one disk are not built"
        knobs: OutOfCoreKnobs = self.knobs(run)
        name = "sequential" if knobs.policy == "auto" else knobs.policy
        if knobs.policy not in NODE_POLICIES:
            return f"{self.name} orders graphs by {', '.join(NODE_POLICIES)}, not {knobs.policy}"
        found = policies.problems(
            name, knobs.partitions, knobs.buffer or knobs.partitions, knobs.logical
        )
        if found or data is None:
            return found
        return self._of_graph(run, data)

    def _of_graph(self, run: RunSpec, data: Any) -> str | None:
        """What a graph's sizes do not allow."""
        knobs: OutOfCoreKnobs = self.knobs(run)
        if data.num_train == 0:
            return "the graph has no training vertices to draw batches from"
        rows = feature_rows(data, run, knobs)
        least = training_partitions(data.num_train, rows)
        if rows.problem():
            return rows.problem()
        held = knobs.buffer or knobs.partitions
        if policy_name(knobs, data.num_train, rows) == "sequential" and held < least:
            return (
                f"buffer: found {held}, and the {data.num_train} training vertices fill {least} "
                f'partitions: allowed {least} or more, or policy = "dispersed"'
            )
        return None

    def structure(self, data: Any, run: RunSpec, cache: Path | None = None) -> Any:
        return node_structure(data, run, self.knobs(run))

    def plan(self, data: Any, run: RunSpec, structure: Any, layout: Layout) -> Plan:
        return node_plan(data, run, structure, layout)


APPROACH = OutOfCore()
