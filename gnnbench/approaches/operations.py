"""The local operations that approaches need, taken from the plans of their examples.

Calibration measures the union over all approaches, including those of other packages, and reports
operations that it could not measure. Communication and storage are not included: separate sweeps of
collectives and of the disk measure them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from gnnbench.approaches.base import Layout, example
from gnnbench.approaches.names import APPROACHES
from gnnbench.data.generators import kind
from gnnbench.data.source import Library
from gnnbench.spec import DatasetRef, RunSpec
from gnnbench.steps import COMMUNICATION, STORAGE, Engine

_TINY = example("any").dataset
_BY_ITSELF = frozenset({Engine.COMPUTE, Engine.COMM})


@dataclass(frozen=True, slots=True, kw_only=True)
class Operations:
    """Local operations of the ranks in one iteration of a run.

    counts   steps of each operation, by `Work.op`; the most that any rank and iteration has
    alone    whether nothing else runs at the same time (no background transfer, no second lane);
             only then is the duration of a step that of the operation itself
    """

    counts: Mapping[str, int]
    alone: bool


def operations(run: RunSpec, device: str = "cpu") -> Operations:
    """The operations of a run, on a tiny dataset of the same generator where that can be drawn.

    Args:
        run: an example or a probe; its data must not be large, unless it is a generated graph.
        device: "cpu" or "cuda"; on the latter, plans copy between host and device.
    """
    tiny = _TINY if is_drawn_graph(run.dataset) else run.dataset
    small = replace(run, dataset=tiny)
    approach, data = APPROACHES.get(run.approach), Library([]).open(tiny)
    layout = Layout(world_size=run.ranks, ranks_per_host=run.ranks, device=device)
    plan = approach.plan(data, small, approach.structure(data, small), layout)
    counts: Counter[str] = Counter()
    alone = True
    for index in dict.fromkeys(plan.schedule):
        # Every class of ranks: ranks that only sample, or only aggregate, have steps of their own.
        for ranks in plan.iterations[index].classes:
            found: Counter[str] = Counter()
            for step in ranks.steps:
                alone &= step.lane.engine in _BY_ITSELF and step.lane.number == 0
                if step.kind not in COMMUNICATION | STORAGE:
                    found[step.op] += 1
            counts |= found
    return Operations(counts=counts, alone=alone)


def is_drawn_graph(ref: DatasetRef) -> bool:
    """Whether a dataset is a generated graph; all of them need the same operations."""
    return bool(ref.generator) and kind(ref.generator) == "graph"


def needed(approaches: Iterable[str], device: str = "cpu") -> dict[str, list[str]]:
    """Every operation that the examples of these approaches perform, and which approaches do."""
    owners: dict[str, list[str]] = {}
    for name in approaches:
        each = [operations(run, device).counts for run in APPROACHES.get(name).examples()]
        for op in sorted(set[str]().union(*each)):
            owners.setdefault(op, []).append(name)
    return owners
