"""Model quality: the task's metric of each approach against its reference, seed by seed.

An approach whose promise is "exact" must end where its reference ends with the same seed. One whose
promise is "unbiased" or "stale" may fall short by as much as papers report of such approximations.
One that promises neither (kind "own") is shown and not judged.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gnnbench.metrics import measure_of
from gnnbench_reports import numbers
from gnnbench_reports.finding import Finding
from gnnbench_reports.labels import card, seed_of
from gnnbench_reports.tables import Column

if TYPE_CHECKING:
    from gnnbench.approaches.card import Promise
    from gnnbench_reports.comparison import Comparison
    from gnnbench_reports.study import Study

EXACT_TOLERANCE = 0.001
"""0.1 percentage point: what float32 sums in another order may flip at the end of training."""
APPROXIMATE_TOLERANCE = 0.01
"""1 point: BNS-GCN and PipeGCN report about half a point either way, on larger test sets."""
_TIMING = ("seed", "threads_per_rank", "timeout_s", "warmup_epochs", "evaluate_every")
"""Fields of the training that leave the trained model as it is, and the seed, which is paired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityRow:
    """The test metric of one approach in the metric's own unit; deviations are over seeds.

    Attributes:
        metric: such as "test_accuracy".
        reference_label: the approach that the row is compared with; "" if there is none.
        reference: its mean over the seeds that both were trained with.
        difference: mean over these seeds of this minus the reference.
        error: standard error of that mean; None with fewer than two seeds.
        tolerance: what the difference may be at most; of an approximation, how far it may be worse.
        within: whether it is; None without a reference, without a promise of equality, and for an
            approximation with a single seed.
    """

    dataset: str
    model: str
    label: str
    ranks: int
    metric: str
    exact: bool
    seeds: int
    mean: float
    std: float | None
    reference_label: str = ""
    reference: float | None = None
    difference: float | None = None
    error: float | None = None
    tolerance: float | None = None
    within: bool | None = None


def qualities(study: Study) -> list[QualityRow]:
    """A row per configuration that was tested; references first on each dataset and model."""
    by_seed = _by_seed(study)
    tested = [row for row in study.rows if row.key in by_seed]
    found = [_row(study, row, tested, by_seed) for row in tested]
    return sorted(
        found,
        key=lambda r: (r.dataset, r.model, bool(r.reference_label), not r.exact, r.label, r.ranks),
    )


def _row(
    study: Study,
    row: Comparison,
    tested: Sequence[Comparison],
    by_seed: Mapping[tuple[str, int], Mapping[int, float]],
) -> QualityRow:
    known = card(row.approach)
    reference = None if known is None else _reference(study, row, known.promise.reference, tested)
    exact = known is not None and _is_exact(study, row, known.promise, reference)
    values = by_seed[row.key]
    shares = list(values.values())
    table: dict[str, Any] = {}
    if reference is not None and known is not None:
        others = by_seed[reference.key]
        common = sorted(values.keys() & others.keys())
        if common:
            pairs = [values[seed] for seed in common], [others[seed] for seed in common]
            table = {"reference_label": reference.label, **compare(*pairs)}
            if exact or known.promise.kind in ("unbiased", "stale"):
                table |= judge(*pairs, exact=exact, metric=row.metric)
    return QualityRow(
        dataset=row.dataset,
        model=row.model,
        label=row.label,
        ranks=row.ranks,
        metric=f"test_{row.metric}",
        exact=exact,
        seeds=len(values),
        mean=statistics.fmean(shares),
        std=statistics.stdev(shares) if len(shares) > 1 else None,
        **table,
    )


def compare(values: Sequence[float], references: Sequence[float]) -> dict[str, Any]:
    """Difference to the reference with the same seeds, in the same order."""
    differences = [value - other for value, other in zip(values, references, strict=True)]
    error = None
    if len(differences) > 1:
        error = statistics.stdev(differences) / len(differences) ** 0.5
    return {
        "reference": statistics.fmean(references),
        "difference": statistics.fmean(differences),
        "error": error,
    }


def judge(
    values: Sequence[float], references: Sequence[float], *, exact: bool, metric: str
) -> dict[str, Any]:
    """Judge metrics against those of the reference; empty where one seed cannot decide.

    Tolerances are shares: of 1 for a metric that is a share, else of the reference.
    """
    if len(values) < 2 and not exact:
        return {}
    measure, found = measure_of(metric), compare(values, references)
    scale = 1.0 if measure.unit == "share" else abs(found["reference"])
    allowed = EXACT_TOLERANCE * scale
    if not exact:
        allowed = max(APPROXIMATE_TOLERANCE * scale, 2 * (found["error"] or 0.0))
    difference = found["difference"]
    # An approximation that ends better than its reference has reached it: sampling, for example,
    # takes more optimiser steps per epoch.
    worse = abs(difference) if exact else -difference if measure.higher_is_better else difference
    # Metrics of small test sets land on the tolerance itself.
    return {"tolerance": allowed, "within": worse <= allowed + 1e-9 * scale}


def _by_seed(study: Study) -> dict[tuple[str, int], dict[int, float]]:
    """The primary test metric by seed, repeats averaged, of each row that was tested."""
    found: dict[tuple[str, int], dict[int, float]] = {}
    for row in study.rows:
        values: dict[int, list[float]] = defaultdict(list)
        for run in study.runs_of(row):
            value = run.metrics.get(f"test_{row.metric}")
            if value is not None:
                values[seed_of(run.spec)].append(float(value))
        if values:
            found[row.key] = {seed: statistics.fmean(v) for seed, v in sorted(values.items())}
    return found


def _reference(
    study: Study, row: Comparison, approach: str, tested: Iterable[Comparison]
) -> Comparison | None:
    """The reference's row on the same workload, on the fewest ranks; None for a reference."""
    if row.approach == approach:
        return None
    known = card(approach)
    batched = known is not None and known.accepts.batch
    place = _workload(study, row, batched)
    found = [
        other
        for other in tested
        if other.approach == approach and _workload(study, other, batched) == place
    ]
    return min(found, key=lambda other: other.ranks, default=None)


def _workload(study: Study, row: Comparison, batched: bool) -> str:
    """What must be the same for metrics to be compared: dataset, task, model and training."""
    spec = study.spec(row)
    training = {k: v for k, v in (spec.get("training") or {}).items() if k not in _TIMING}
    same = [spec.get("dataset"), spec.get("task"), spec.get("model"), training]
    same += [spec.get("batch")] if batched else []
    return json.dumps(same, sort_keys=True, default=str)


def _is_exact(
    study: Study, row: Comparison, promise: Promise, reference: Comparison | None
) -> bool:
    """Exact by promise, by settings that make it equal its reference, or as the same program."""
    if promise.exact:
        return True
    if reference is not None and row.program and row.program == reference.program:
        return True
    if promise.limit is None and promise.limit_batch is None:
        return False
    batch = study.spec(row).get("batch") or {}
    asked = [(row.knobs, promise.limit), (batch, promise.limit_batch)]
    return all(
        _plain(table.get(k)) == _plain(v) for table, of in asked for k, v in (of or {}).items()
    )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def finding(study: Study) -> Finding | None:
    """The table, where an approach and its reference were trained on one workload."""
    return table(qualities(study))


def table(rows: Sequence[QualityRow]) -> Finding | None:
    """The finding that shows these rows; None if nothing was compared."""
    if not any(row.difference is not None for row in rows):
        return None
    titles = sorted({measure_of(row.metric).title for row in rows})
    columns = (
        Column(heading="dataset", word=True),
        Column(heading="model"),
        Column(heading="approach", word=True),
        Column(heading="ranks", number=True),
        Column(heading="seeds", number=True),
        Column(
            heading=f"test {titles[0]}" if len(titles) == 1 else "test metric",
            number=True,
            meaning="mean ± standard deviation over seeds",
        ),
        Column(heading="difference", number=True, meaning="to the reference, seeds paired ± error"),
        Column(heading="allowed", number=True),
        Column(heading="within"),
    )
    return Finding(
        title=f"Test {' and '.join(titles)} against the reference",
        meaning=(
            "The test metric after the last period, mean and standard deviation over seeds, and "
            "its difference to the reference approach with the same seeds, ± the standard error of "
            "the mean difference; metrics that are shares in percentage points. Allowed for exact "
            "approaches: 0.1 point either way, the effect of summation order. Allowed for "
            "approximations: to be worse by 1 point or two standard errors, whichever is more (the "
            "papers of BNS-GCN and PipeGCN report about half a point either way, on larger test "
            "sets). An approximation that takes more optimiser steps per epoch, as neighbour "
            "sampling does, may end better than its reference. With one seed, approximations are "
            "shown and not judged."
        ),
        columns=columns,
        rows=tuple(rows),
        cells=tuple(_cells(row) for row in rows),
        verdict=_verdict([row for row in rows if row.within is not None]),
    )


def _cells(row: QualityRow) -> tuple[object, ...]:
    measure = measure_of(row.metric)
    return (
        row.dataset,
        row.model,
        row.label,
        row.ranks,
        row.seeds,
        numbers.metric(measure, row.mean, row.std),
        numbers.difference(measure, row.difference, row.error),
        numbers.difference(measure, row.tolerance, signed=False),
        {True: "yes", False: "no", None: "–"}[row.within],
    )


def _verdict(judged: Sequence[QualityRow]) -> tuple[str, ...]:
    sentences = []
    groups: dict[tuple[str, bool], list[QualityRow]] = defaultdict(list)
    for row in judged:
        groups[row.metric, row.exact].append(row)
    for (metric, exact), rows in sorted(
        groups.items(), key=lambda item: (item[0][0], not item[0][1])
    ):
        measure = measure_of(metric)
        one = max(rows, key=lambda row: _worse(row, measure.higher_is_better))
        unit = " points" if measure.unit == "share" else ""
        sentences.append(
            f"Test {measure.title} within tolerance of the reference: "
            f"{sum(bool(row.within) for row in rows)} of {len(rows)} "
            f"{'exact' if exact else 'approximate'} configurations; "
            f"{'largest difference' if exact else 'worst'}: {one.label} on {one.dataset}, "
            f"{one.model}, {numbers.difference(measure, one.difference, one.error)}{unit}."
        )
    return tuple(sentences)


def _worse(row: QualityRow, higher_is_better: bool) -> float:
    difference = row.difference or 0.0
    return abs(difference) if row.exact else -difference if higher_is_better else difference
