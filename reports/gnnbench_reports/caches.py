"""Feature caches: hit rates measured and predicted, and the rows that are still fetched."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gnnbench_reports import numbers
from gnnbench_reports.finding import Finding
from gnnbench_reports.tables import Column

if TYPE_CHECKING:
    from gnnbench_reports.comparison import Comparison
    from gnnbench_reports.study import Study

POLICY, RATE, MISSES = "cache_policy", "cache_hit_rate", "cache_misses"


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRow:
    """One configuration with a cache; of the last period, all ranks together.

    Hit rates are shares of the rows that ranks would have to fetch; `*_fetched` counts those that
    they fetched. `share` is what a rank's cache holds of all rows.
    """

    dataset: str
    model: str
    ranks: int
    placement: str
    policy: str
    share: float
    measured_rate: float | None = None
    predicted_rate: float | None = None
    measured_fetched: float | None = None
    predicted_fetched: float | None = None

    @property
    def error(self) -> float | None:
        """Predicted minus measured hit rate."""
        if self.measured_rate is None or self.predicted_rate is None:
            return None
        return self.predicted_rate - self.measured_rate


def finding(study: Study) -> Finding | None:
    """The table, where runs or predictions have caches."""
    rows = [row for one in study.rows if (row := _row(study, one)) is not None]
    if not rows:
        return None
    columns = (
        Column(heading="dataset", word=True),
        Column(heading="model"),
        Column(heading="ranks", number=True),
        Column(heading="features", meaning="where they lie without the cache"),
        Column(heading="policy"),
        Column(heading="cache", number=True, meaning="rows of a rank's cache / all rows"),
        Column(heading="hits", number=True, meaning="hit rate, measured"),
        Column(heading="predicted", number=True, meaning="hit rate, predicted"),
        Column(heading="rows fetched", number=True, meaning="in the last period, all ranks"),
    )
    return Finding(
        title="Feature caches",
        meaning=(
            "Hit rate of the last period: rows found in a rank's cache over all rows that it would "
            "have to fetch from the host's memory or from other owners. Where sizes are counted on "
            "the real graph, predicted and measured hits are the same integers."
        ),
        columns=columns,
        rows=tuple(rows),
        cells=tuple(_cells(row) for row in rows),
        verdict=_verdict(rows),
    )


def _row(study: Study, row: Comparison) -> CacheRow | None:
    policy = str(row.knobs.get(POLICY, "none"))
    prediction = study.prediction_of(row)
    notes: dict[str, Any] = dict(prediction.notes) if prediction is not None else {}
    if policy == "none" or (RATE not in row.metrics and RATE not in notes):
        return None

    def measured(name: str) -> float | None:
        found = row.metrics.get(name, {})
        return found.get("mean")

    fetched = notes.get(MISSES)
    return CacheRow(
        dataset=row.dataset,
        model=row.model,
        ranks=row.ranks,
        placement=str(row.knobs.get("placement", "")),
        policy=policy,
        share=float(row.knobs.get("cache_share", 0.0)),
        measured_rate=measured(RATE),
        predicted_rate=notes.get(RATE),
        measured_fetched=measured(MISSES),
        predicted_fetched=float(fetched[-1]) if fetched else None,
    )


def _cells(row: CacheRow) -> tuple[object, ...]:
    fetched = row.predicted_fetched if row.measured_fetched is None else row.measured_fetched
    return (
        row.dataset,
        row.model,
        row.ranks,
        row.placement,
        row.policy,
        numbers.percent(row.share),
        _rate(row.measured_rate),
        _rate(row.predicted_rate),
        None if fetched is None else numbers.whole(round(fetched)),
    )


def _rate(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"


def _verdict(rows: Iterable[CacheRow]) -> tuple[str, ...]:
    off = [abs(error) for row in rows if (error := row.error) is not None]
    if not off:
        return ()
    return (
        f"Cache hit rates: predicted within {max(off):.3f} of the measured ones in "
        f"{len(off)} configurations.",
    )
