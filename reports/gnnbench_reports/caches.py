"""Feature caches: hit rates measured and predicted, and the rows that are still fetched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gnnbench_reports import numbers
from gnnbench_reports.finding import Finding
from gnnbench_reports.labels import other_settings
from gnnbench_reports.tables import Column

if TYPE_CHECKING:
    from gnnbench_reports.comparison import Comparison
    from gnnbench_reports.study import Study

POLICY, PLACEMENT = "cache_policy", "placement"
"""Knobs that every cache has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """A cache that an approach may have.

    Attributes:
        rows: what it holds; "" are the rows of all features.
        share: knob with the share of all rows that it holds.
        rate, misses: its metrics, also the names of a prediction's notes.
    """

    rows: str = ""
    share: str
    rate: str
    misses: str = ""


CACHES = (
    Cache(share="cache_share", rate="cache_hit_rate", misses="cache_misses"),
    Cache(rows="nodes", share="node_cache", rate="nodes_hit_rate"),
    Cache(rows="edges", share="edge_cache", rate="edges_hit_rate"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRow:
    """One cache of one configuration; of the last period, all ranks together.

    Hit rates are shares of the rows that ranks would have to fetch; `*_fetched` counts those that
    they fetched. `share` is what a rank's cache holds of all rows.

    Attributes:
        rows: what the cache holds; "" are the rows of all features.
        others: settings of the configuration that are none of its caches, as its label shows them.
        status, reason: of the configuration, see `Comparison`.
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
    rows: str = ""
    approach: str = ""
    others: str = ""
    status: str = "ok"
    reason: str = ""

    @property
    def error(self) -> float | None:
        """Predicted minus measured hit rate."""
        if self.measured_rate is None or self.predicted_rate is None:
            return None
        return self.predicted_rate - self.measured_rate


def cache_rows(study: Study) -> Sequence[CacheRow]:
    """A row per cache of every configuration: of the records, or as an earlier report kept it.

    Configurations that were skipped or failed have rows without a measured rate.
    """
    if "caches" in study.kept:
        return study.kept["caches"]
    return [one for row in study.rows for one in _rows(study, row)]


def finding(study: Study) -> Finding | None:
    """The table, where runs or predictions have caches."""
    rows = [one for row in study.rows for one in _rows(study, row)]
    return table(rows) if any(_known(row) for row in rows) else None


def _known(row: CacheRow) -> bool:
    return row.measured_rate is not None or row.predicted_rate is not None


def table(rows: Sequence[CacheRow]) -> Finding:
    """The table of the caches whose hit rate is known, and how well it was predicted."""
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
    known = [row for row in rows if _known(row)]
    return Finding(
        title="Feature caches",
        meaning=(
            "Hit rate of the last period: rows found in a rank's cache over all rows that it would "
            "have to fetch from the host's memory or from other owners. Where sizes are counted on "
            "the real graph, predicted and measured hits are the same integers."
        ),
        columns=columns,
        rows=tuple(rows),
        cells=tuple(_cells(row) for row in known),
        verdict=_verdict(known),
    )


def _rows(study: Study, row: Comparison) -> Iterator[CacheRow]:
    policy = str(row.knobs.get(POLICY, "none"))
    prediction = study.prediction_of(row)
    notes: dict[str, Any] = dict(prediction.notes) if prediction is not None else {}

    def measured(name: str) -> float | None:
        return row.metrics.get(name, {}).get("mean")

    for cache in CACHES if policy != "none" else ():
        share = float(row.knobs.get(cache.share) or 0.0)
        known = cache.rate in row.metrics or cache.rate in notes
        # A cache that was never used has no hit rate, but a run that ended early was to have one.
        if not known and (share == 0.0 or row.status in ("ok", "running", "predicted")):
            continue
        fetched = notes.get(cache.misses)
        yield CacheRow(
            dataset=row.dataset,
            model=row.model,
            ranks=row.ranks,
            placement=str(row.knobs.get(PLACEMENT, "")),
            policy=policy,
            share=share,
            measured_rate=measured(cache.rate),
            predicted_rate=notes.get(cache.rate),
            measured_fetched=measured(cache.misses),
            predicted_fetched=float(fetched[-1]) if fetched else None,
            rows=cache.rows,
            approach=row.approach,
            others=other_settings(row.label, {POLICY, PLACEMENT, *(c.share for c in CACHES)}),
            status=row.status,
            reason=row.reason,
        )


def _cells(row: CacheRow) -> tuple[object, ...]:
    fetched = row.predicted_fetched if row.measured_fetched is None else row.measured_fetched
    return (
        row.dataset,
        row.model,
        row.ranks,
        ", ".join(filter(None, (row.placement, row.rows))),
        row.policy,
        numbers.Quantity(f"{100 * row.share:.3g} %", row.share),
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
