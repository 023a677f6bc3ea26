"""What a short probe of a machine should measure: the operations that move predictions most.

The swing of an operation is how far its 90 % range moves a period (a tornado). Operations are taken
by their swing until they make up most of it, each at the shapes that spend most of its time.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gnnbench.approaches.names import APPROACHES
from gnnbench.cluster import Cluster
from gnnbench.costs.facts import FIELDS
from gnnbench.data.source import Library
from gnnbench.errors import GnnbenchError, Unsupported
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import COLLECTIVES, Kind, Step
from gnnbench_simulator.predict import Prediction, predict_plan
from gnnbench_simulator.session import layout_on

PROBED = frozenset(
    {
        Kind.GEMM,
        Kind.SPMM,
        Kind.SDDMM,
        Kind.GATHER,
        Kind.SCATTER,
        Kind.ELEMENTWISE,
        Kind.OPTIMIZER,
        Kind.COPY,
        Kind.ALL_REDUCE,
        Kind.ALL_GATHER,
        Kind.REDUCE_SCATTER,
        Kind.ALL_TO_ALL,
    }
)
"""Kinds that a script without gnnbench can do. Drawing, modules and disks need the trainers."""
MOST_OPS, COVERED, SHAPES = 8, 0.95, 5


@dataclass(slots=True, kw_only=True)
class Target:
    """An operation to measure.

    swing_s   by which its 90 % range moves a period, mean over the runs that have it
    seconds   that it takes of a period
    shapes    facts of its steps as in `costs.facts.FIELDS`, with `seconds` predicted for a step
    """

    op: str
    kind: str
    grade: str
    radius: float
    swing_s: float = 0.0
    seconds: float = 0.0
    runs: int = 0
    shapes: dict[tuple[float, ...], float] = field(default_factory=dict)

    @property
    def can_be_probed(self) -> bool:
        return self.kind in PROBED


def targets(
    runs: Iterable[RunSpec],
    cluster: Cluster,
    roots: Sequence[Path],
    *,
    ranks_per_host: int | None = None,
) -> list[Target]:
    """The operations of a suite's runs on a cluster, largest swing first.

    Raises:
        Unsupported: no run can be predicted; the reason of the first.
    """
    library, found, reason = Library(roots, None), dict[str, Target](), ""
    counted = 0
    for run in runs:
        try:
            data = library.open(run.dataset)
            card = APPROACHES.get(run.approach)
            why = card.cannot_run(run, data)
            if why:
                raise Unsupported(why)
            per_host = ranks_per_host or cluster.ranks_per_host(run.ranks)
            layout = layout_on(run, cluster, per_host)
            plan = card.plan(data, run, card.structure(data, run, None), layout)
            prediction = predict_plan(
                plan,
                cluster,
                ranks_per_host=per_host,
                element_bytes=run.training.element_bytes,
            )
        except GnnbenchError as error:
            reason = reason or str(error)
            continue
        counted += 1
        _collect(found, plan, prediction)
    if not found:
        raise Unsupported(f"nothing to probe: {reason or 'the suite has no runs'}")
    for target in found.values():
        target.swing_s /= counted
        target.seconds /= counted
    return sorted(found.values(), key=lambda target: -target.swing_s)


def chosen(all_targets: Sequence[Target]) -> list[Target]:
    """Those that a probe measures: by swing, until they make up most of what it can measure."""
    able = [target for target in all_targets if target.can_be_probed]
    total, taken, out = sum(target.swing_s for target in able), 0.0, []
    for target in able[:MOST_OPS]:
        if taken >= COVERED * total:
            break
        out.append(target)
        taken += target.swing_s
    return out


def _collect(found: dict[str, Target], plan: Plan, prediction: Prediction) -> None:
    """Add a run's operations: their swing, and the shapes of one period of the slowest rank."""
    classes = prediction.notes["classes"]
    kinds: dict[str, str] = {}
    shapes: dict[str, dict[tuple[float, ...], float]] = defaultdict(dict)
    rank, world = prediction.slowest_rank, plan.world_size
    for index in list(plan.iteration_counts(plan.num_periods - 1))[:3]:
        for step in plan.iterations[index][rank]:
            op = step.kind.value if step.kind in COLLECTIVES else step.op
            kinds[op] = step.kind.value
            facts = _facts(step, world)
            shapes[op][facts] = max(shapes[op].get(facts, 0.0), facts[1])
    for op, seconds in prediction.work.items():
        known = classes.get(op)
        if known is None or op not in kinds or seconds <= 0:
            continue
        target = found.setdefault(
            op, Target(op=op, kind=kinds[op], grade=known["grade"], radius=known["radius"])
        )
        radius = known["radius"]
        target.swing_s += seconds * (math.exp(radius) - math.exp(-radius))
        target.seconds += seconds
        target.runs += 1
        target.shapes |= shapes[op]


def _facts(step: Step, world: int) -> tuple[float, ...]:
    """The facts of one call of a step on one rank, in the order of `FIELDS`, then its ranks."""
    work = step.work
    calls = float(np.max(work.calls)) or 1.0
    values = [float(np.max(getattr(work, name))) for name in FIELDS]
    each = [v / calls if name in _TOTALS else v for name, v in zip(FIELDS, values, strict=True)]
    ranks = len(step.ranks) if step.kind in COLLECTIVES else 1
    volume = float(np.max(work.buffer_bytes)) / calls
    return (*each, float(min(ranks, world)), volume)


_TOTALS = ("flops", "bytes", "rows", "nonzeros")
SHAPE_COLUMNS = (*FIELDS, "ranks", "buffer_bytes")


def question(targets_chosen: Sequence[Target], element_bytes: float) -> list[dict[str, Any]]:
    """The operations as the script reads them, each with some of its shapes by their size."""
    out = []
    for target in targets_chosen:
        ordered = sorted(target.shapes, key=lambda facts: (facts[1], facts[0]))
        picks = np.unique(np.linspace(0, len(ordered) - 1, SHAPES).round().astype(int))
        out.append(
            {
                "op": target.op,
                "kind": target.kind,
                "element_bytes": element_bytes,
                "swing_s": target.swing_s,
                "shapes": [dict(zip(SHAPE_COLUMNS, ordered[int(at)], strict=True)) for at in picks],
            }
        )
    return out
