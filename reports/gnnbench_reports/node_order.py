"""What the order of the vertices gains: the same run on one graph in several orders.

Rows belong together if their runs differ in nothing but the order of the dataset's vertices.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gnnbench_reports import numbers
from gnnbench_reports.finding import Finding
from gnnbench_reports.tables import Column

if TYPE_CHECKING:
    from gnnbench_reports.comparison import Comparison
    from gnnbench_reports.study import Study

GIVEN = "given"


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderGain:
    """One configuration on a graph in an order that is not the given one.

    Attributes:
        dataset: the name of the dataset in the given order.
        measured, predicted: time in the given order over the time in this one; None if not known.
    """

    dataset: str
    model: str
    label: str
    ranks: int
    order: str
    measured: float | None = None
    predicted: float | None = None


def gains(study: Study) -> list[OrderGain]:
    """A row per configuration and order, where the given order is in the results too."""
    together: dict[str, dict[str, Comparison]] = defaultdict(dict)
    for row in study.rows:
        spec = study.spec(row)
        dataset = dict(spec.get("dataset") or {})
        order = str(dataset.get("order", GIVEN))
        kept = {k: v for k, v in dataset.items() if k not in ("name", "digest", "order")}
        rest = {k: v for k, v in spec.items() if k not in ("suite", "repeat", "dataset")}
        key = json.dumps([kept, rest, row.ranks_per_host], sort_keys=True, default=str)
        together[key][order] = row
    found = []
    for by_order in together.values():
        base = by_order.get(GIVEN)
        if base is None:
            continue
        for order, row in by_order.items():
            if order != GIVEN:
                found.append(
                    OrderGain(
                        dataset=base.dataset,
                        model=base.model,
                        label=base.label,
                        ranks=base.ranks,
                        order=order,
                        measured=_ratio(base.measured_period_s, row.measured_period_s),
                        predicted=_ratio(base.predicted_period_s, row.predicted_period_s),
                    )
                )
    return sorted(found, key=lambda r: (r.dataset, r.model, r.label, r.ranks, r.order))


def _ratio(given: float | None, other: float | None) -> float | None:
    return given / other if given and other else None


def finding(study: Study) -> Finding | None:
    """The table, where a graph was run or predicted in several orders."""
    return table(gains(study))


def table(rows: Sequence[OrderGain]) -> Finding | None:
    """The finding that shows these rows; None without rows."""
    if not rows:
        return None
    columns = (
        Column(heading="dataset", word=True),
        Column(heading="model"),
        Column(heading="approach", word=True),
        Column(heading="ranks", number=True),
        Column(heading="order"),
        Column(heading="measured", number=True, meaning="time in the given order over this one's"),
        Column(heading="predicted", number=True),
    )
    return Finding(
        title="Speed-up by the order of the vertices",
        meaning=(
            "Time per period in the given order divided by the time in another order of the same "
            "graph, measured and predicted. Above 1 the other order is faster. Exact approaches "
            "learn the same in every order."
        ),
        columns=columns,
        rows=tuple(rows),
        cells=tuple(_cells(row) for row in rows),
        verdict=_verdict(rows),
    )


def _cells(row: OrderGain) -> tuple[object, ...]:
    return (
        row.dataset,
        row.model,
        row.label,
        row.ranks,
        row.order,
        numbers.factor(row.measured),
        numbers.factor(row.predicted),
    )


def _verdict(rows: Sequence[OrderGain]) -> tuple[str, ...]:
    """The best order of each dataset, by the geometric mean over its configurations."""
    sentences = []
    for dataset in dict.fromkeys(row.dataset for row in rows):
        own = [row for row in rows if row.dataset == dataset]
        kind = "measured" if any(row.measured for row in own) else "predicted"
        means = {
            order: _mean([getattr(r, kind) for r in own if r.order == order])
            for order in dict.fromkeys(row.order for row in own)
        }
        known = {order: mean for order, mean in means.items() if mean is not None}
        if not known:
            continue
        best = max(known, key=lambda order: known[order] or 0.0)
        gain = known[best] or 1.0
        if gain <= 1.0:
            sentences.append(f"Order of the vertices of {dataset}: the given one is the fastest.")
            continue
        said = f"{numbers.factor(gain)} as fast as in the given order ({kind}"
        other = _mean([row.predicted for row in own if row.order == best])
        if kind == "measured" and other is not None:
            said += f"; predicted {numbers.factor(other)}"
        sentences.append(f"Order of the vertices of {dataset}: {best}, {said}).")
    return tuple(sentences)


def _mean(values: Sequence[float | None]) -> float | None:
    """Geometric mean of what is known."""
    known = [value for value in values if value]
    return statistics.geometric_mean(known) if known else None
