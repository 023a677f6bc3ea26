"""Does an approach train as well as one device does? Test accuracy against `single`, seed by seed.

Approaches that call themselves exact must end where `single` ends with the same seed. Approximate
ones may differ by as much as their papers do from full training.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gnnbench_reports import numbers
from gnnbench_reports.finding import Finding
from gnnbench_reports.markup import Column

if TYPE_CHECKING:
    from gnnbench_reports.compare import Comparison
    from gnnbench_reports.study import Study

REFERENCE = "single"
EXACT_TOLERANCE = 0.001
"""A tenth of a point: what float32 sums in another order may flip at the end of training."""
APPROXIMATE_TOLERANCE = 0.01
"""One point: BNS-GCN and PipeGCN report about half a point either way, on larger test sets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyRow:
    """Test accuracy of one approach, as shares of 1; deviations are over seeds.

    difference   mean over the seeds that `single` was trained with too, of this minus `single`
    error        standard error of that mean; None with fewer than two seeds
    tolerance    what the difference may be at most; approximate approaches: how far below
    within       whether it is; None without `single` beside it, and for an approximate approach
                 with a single seed
    """

    graph: str
    model: str
    label: str
    ranks: int
    exact: bool
    seeds: int
    mean: float
    std: float | None
    reference: float | None = None
    difference: float | None = None
    error: float | None = None
    tolerance: float | None = None
    within: bool | None = None


def accuracies(study: Study) -> list[AccuracyRow]:
    """Return a row per configuration with test accuracy; `single` first on each graph and model."""
    by_seed = _by_seed(study)
    references: dict[str, Mapping[int, float]] = {}
    for row in study.rows:
        if row.approach == REFERENCE and by_seed.get(row.config_id):
            references.setdefault(_place(study, row), by_seed[row.config_id])
    found = []
    for row in study.rows:
        values = by_seed.get(row.config_id)
        if values:
            reference = references.get(_place(study, row), {})
            found.append(_row(row, values, reference))
    return sorted(
        found, key=lambda r: (r.graph, r.model, r.label != REFERENCE, not r.exact, r.label, r.ranks)
    )


def _row(row: Comparison, values: Mapping[int, float], reference: Mapping[int, float]) -> Any:
    exact = _is_exact(row)
    shares = list(values.values())
    table: dict[str, Any] = {
        "graph": row.graph,
        "model": row.model,
        "label": row.label,
        "ranks": row.ranks,
        "exact": exact,
        "seeds": len(values),
        "mean": statistics.fmean(shares),
        "std": statistics.stdev(shares) if len(shares) > 1 else None,
    }
    common = sorted(values.keys() & reference.keys())
    if row.approach != REFERENCE and common:
        table |= judge([values[s] for s in common], [reference[s] for s in common], exact)
    return AccuracyRow(**table)


def judge(values: Sequence[float], references: Sequence[float], exact: bool) -> dict[str, Any]:
    """Judge accuracies against those of `single` with the same seeds, in the same order."""
    differences = [value - other for value, other in zip(values, references, strict=True)]
    mean = statistics.fmean(differences)
    table: dict[str, Any] = {"reference": statistics.fmean(references), "difference": mean}
    if len(differences) < 2 and not exact:
        return table  # one seed tells nothing of what an approximation does on the whole
    error = None
    if len(differences) > 1:
        error = statistics.stdev(differences) / len(differences) ** 0.5
    tolerance = EXACT_TOLERANCE if exact else max(APPROXIMATE_TOLERANCE, 2 * (error or 0.0))
    return table | {
        "error": error,
        "tolerance": tolerance,
        # Shares of small test sets land on the tolerance itself. An approximate approach that ends
        # above `single` (sampling takes more steps per epoch) has reached it.
        "within": (abs(mean) if exact else -mean) <= tolerance + 1e-9,
    }


def _by_seed(study: Study) -> dict[str, dict[int, float]]:
    """Test accuracy by seed, repeats averaged, of each row (by its first configuration)."""
    from gnnbench_reports.labels import seed_of

    rows = {name: row.config_id for row in study.rows for name in row.config_ids}
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in study.runs:
        value = run.accuracy.get("test")
        if run.status == "ok" and value is not None:
            found[rows[run.config_id]][seed_of(run.spec)].append(float(value))
    return {
        config_id: {seed: statistics.fmean(values) for seed, values in sorted(seeds.items())}
        for config_id, seeds in found.items()
    }


def _place(study: Study, row: Comparison) -> str:
    """Graph, model and training that must be the same for accuracies to be compared."""
    import json

    spec = study.spec(row)
    training = {**(spec.get("training") or {})}
    for key in ("seed", "threads_per_rank", "timeout_s", "warmup_epochs", "evaluate_every"):
        training.pop(key, None)
    same = [spec.get("graph"), spec.get("model"), training]
    return json.dumps(same, sort_keys=True, default=str)


def _is_exact(row: Comparison) -> bool:
    """Exact by its card, or approximate in name only: staleness 0, sampling rate 1."""
    from gnnbench.approaches.names import APPROACHES

    if row.approach not in APPROACHES.names():
        return False
    return APPROACHES.get(row.approach).exact or (row.ranks == 1 and row.approach in _SAME_ALONE)


# Without a boundary there is nothing to sample and nothing to be stale.
_SAME_ALONE = ("bns", "pipegcn")


def finding(study: Study) -> Finding | None:
    """Return the table, where at least two approaches were trained on one graph and model."""
    rows = accuracies(study)
    judged = [row for row in rows if row.within is not None]
    if not judged:
        return None
    columns = (
        Column(heading="graph", word=True),
        Column(heading="model"),
        Column(heading="approach", word=True),
        Column(heading="ranks", number=True),
        Column(heading="seeds", number=True),
        Column(heading="test accuracy", number=True, meaning="mean ± deviation over seeds"),
        Column(heading="against single", number=True, meaning="points, seeds paired ± error"),
        Column(heading="allowed", number=True, meaning="points"),
        Column(heading="within"),
    )
    return Finding(
        title="Accuracy against one device",
        meaning=(
            "Test accuracy after the last epoch, mean and deviation over seeds, and its difference "
            "to single with the same seeds in percentage points, ± the standard error of the mean "
            "difference. Allowed: exact approaches 0.1 point either way, which is what sums in "
            "another order flip; approximate ones may fall short by 1 point or two standard "
            "errors, whichever is more (the papers of BNS-GCN and PipeGCN report about half a "
            "point either way, on test sets much larger than some here). Where an approach takes "
            "more optimiser steps per epoch, as sampling does, it may well end above single. "
            "With one seed, approximate approaches are shown but not judged."
        ),
        columns=columns,
        rows=tuple(rows),
        cells=tuple(_cells(row) for row in rows),
        verdict=_verdict(judged),
    )


def _cells(row: AccuracyRow) -> tuple[object, ...]:
    return (
        row.graph,
        row.model,
        row.label,
        row.ranks,
        row.seeds,
        numbers.accuracy(row.mean, row.std),
        numbers.points(row.difference, row.error),
        "–" if row.tolerance is None else f"{100 * row.tolerance:.1f}",
        {True: "yes", False: "no", None: "–"}[row.within],
    )


def _off(row: AccuracyRow) -> float:
    difference = row.difference or 0.0
    return abs(difference) if row.exact else -difference


def _verdict(judged: Sequence[AccuracyRow]) -> tuple[str, ...]:
    said = []
    for exact, what in ((True, "exact"), (False, "approximate")):
        rows = [row for row in judged if row.exact == exact]
        if not rows:
            continue
        good = sum(bool(row.within) for row in rows)
        one = max(rows, key=_off)
        said.append(
            f"Test accuracy within tolerance of single: {good} of {len(rows)} {what} "
            f"configurations; {'furthest' if exact else 'lowest'} {one.label} on {one.graph}, "
            f"{one.model}, {numbers.points(one.difference, one.error)} points."
        )
    return tuple(said)
