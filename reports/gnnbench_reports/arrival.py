"""Throughput against arrival rate: whether training keeps up with a stream, measured and predicted.

Period i brings n_i events, the last of which arrives at r_i; training on it takes s_i seconds and
ends at e_i >= r_i. Over the periods after the first, which warms up:

    arrival rate   sum n / (r_last - r_first)
    capacity       sum n / sum s
    load           arrival rate / capacity
    lag            e_last - r_last, of the last period

With a load above 1 training falls behind: each period adds to the lag. A few percent of capacity
decide on which side of 1 a run lies, so runs near it are counted apart.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gnnbench_reports import numbers
from gnnbench_reports.finding import Finding
from gnnbench_reports.labels import label_all
from gnnbench_reports.tables import Column

if TYPE_CHECKING:
    from gnnbench_reports.comparison import Comparison
    from gnnbench_reports.study import Study

NEAR = 0.15
"""Loads that differ from 1 by at most this share are near the flip."""
LEAST_PERIODS = 3
"""Periods with arriving events that a rate is taken over, the first included."""
SIDES = ("measured", "predicted")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrivalRow:
    """One configuration at one speed-up of its stream.

    `approach` is the label without the speed-up. Rates are events per second, lags seconds. Of
    several repeats the medians are taken.
    """

    dataset: str
    model: str
    approach: str
    ranks: int
    speedup: float
    periods: int
    arrival_per_s: float
    measured_capacity_per_s: float | None = None
    predicted_capacity_per_s: float | None = None
    measured_lag_s: float | None = None
    predicted_lag_s: float | None = None

    def load(self, side: str) -> float | None:
        """Arrival rate over the capacity of a side."""
        capacity = getattr(self, f"{side}_capacity_per_s")
        return None if capacity is None else self.arrival_per_s / capacity

    def keeps_up(self, side: str) -> bool | None:
        """Whether training keeps up with the stream."""
        load = self.load(side)
        return None if load is None else load <= 1

    @property
    def near(self) -> bool:
        """Whether the load is near 1: as measured, or else as predicted."""
        load = self.load("measured") or self.load("predicted")
        return load is not None and abs(load - 1) <= NEAR


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Rates of one run or prediction, see the module."""

    periods: int
    arrival_per_s: float
    capacity_per_s: float
    lag_s: float


def pace(
    events: Sequence[int],
    releases_s: Sequence[float],
    seconds: Sequence[float],
    ends_s: Sequence[float] = (),
) -> Pace | None:
    """The rates of the periods with arriving events; None where there are too few of them.

    Args:
        events, releases_s, seconds: of each period.
        ends_s: of each period; else each begins when the one before has ended and its events are
            there.
    """
    if not ends_s:
        ends_s = _ends(releases_s, seconds)
    lines = [line for line in zip(events, releases_s, seconds, ends_s, strict=False) if line[0]]
    if len(lines) < LEAST_PERIODS:
        return None
    (_, first, _, _), *later = lines
    _, last, _, ended = later[-1]
    count, busy = sum(line[0] for line in later), sum(line[2] for line in later)
    if not (last > first and busy > 0):
        return None
    return Pace(
        periods=len(lines),
        arrival_per_s=count / (last - first),
        capacity_per_s=count / busy,
        lag_s=ended - last,
    )


def _ends(releases_s: Sequence[float], seconds: Sequence[float]) -> list[float]:
    ended, found = 0.0, []
    for release, took in zip(releases_s, seconds, strict=False):
        ended = max(ended, release) + took
        found.append(ended)
    return found


def rows_of(study: Study) -> list[ArrivalRow]:
    """A row for each configuration whose events arrive late, fastest arrivals last."""
    specs = {row.key: study.spec(row) for row in study.rows}
    late = {key: spec for key, spec in specs.items() if _training(spec).get("speedup")}
    # One line of the figure has all speed-ups of one configuration.
    alike = {
        _text(key): {**spec, "training": {**_training(spec), "speedup": 0.0}}
        for key, spec in late.items()
    }
    labels = label_all(alike, {_text(key): key[1] for key in late})
    found = [
        made
        for row in study.rows
        if row.key in late
        and (made := _row(study, row, late[row.key], labels[_text(row.key)])) is not None
    ]
    return sorted(
        found, key=lambda r: (r.dataset, r.model, r.approach, r.ranks, r.arrival_per_s, r.speedup)
    )


def _row(study: Study, row: Comparison, spec: Mapping[str, Any], label: str) -> ArrivalRow | None:
    measured = [one for run in study.runs_of(row) if (one := _measured(run.periods)) is not None]
    record = study.prediction_of(row)
    predicted = None
    if record is not None and record.status == "ok":
        predicted = pace(*(record.notes.get(name, ()) for name in _NOTES))
    known = measured or ([predicted] if predicted is not None else [])
    if not known:
        return None

    def middle(name: str) -> float | None:
        values = [getattr(one, name) for one in measured]
        return statistics.median(values) if values else None

    return ArrivalRow(
        dataset=row.dataset,
        model=row.model,
        approach=label,
        ranks=row.ranks,
        speedup=float(_training(spec)["speedup"]),
        periods=known[0].periods,
        arrival_per_s=known[0].arrival_per_s,
        measured_capacity_per_s=middle("capacity_per_s"),
        predicted_capacity_per_s=None if predicted is None else predicted.capacity_per_s,
        measured_lag_s=middle("lag_s"),
        predicted_lag_s=None if predicted is None else predicted.lag_s,
    )


_NOTES = ("events", "releases_s", "periods_s")


def _measured(periods: Sequence[Mapping[str, Any]]) -> Pace | None:
    if not all("end_s" in period for period in periods):
        return None
    return pace(
        *([p[name] for p in periods] for name in ("events", "release_s", "seconds", "end_s"))
    )


def _training(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    return spec.get("training") or {}


def _text(key: tuple[str, int]) -> str:
    return f"{key[0]}-x{key[1]}"


def finding(study: Study) -> Finding | None:
    """The table, where streams have arrival rates."""
    return table(rows_of(study))


def table(rows: Sequence[ArrivalRow]) -> Finding | None:
    """The finding of some rows; None without any."""
    if not rows:
        return None
    columns = (
        Column(heading="dataset", word=True),
        Column(heading="model"),
        Column(heading="approach"),
        Column(heading="ranks", number=True),
        Column(heading="arrivals", number=True, meaning="events per second"),
        Column(heading="capacity", number=True, meaning="events per second of training, measured"),
        Column(heading="predicted capacity", number=True, meaning="events per second of training"),
        Column(heading="keeps up", meaning="arrivals are at most the measured capacity"),
        Column(heading="predicted", meaning="arrivals are at most the predicted capacity"),
        Column(heading="lag", number=True, meaning="of the last increment, measured"),
        Column(heading="predicted lag", number=True, meaning="of the last increment"),
        Column(
            heading="near the flip",
            page_only=True,
            meaning=f"load within {numbers.percent(NEAR)} of 1",
        ),
    )
    return Finding(
        title="Throughput against arrival rate",
        meaning=(
            "Increments of a stream arrive at a stated speed-up of its own clock. Capacity: events "
            "of the increments over the seconds of training on them, waiting for arrivals left "
            "out. Load: arrivals over capacity; above 1 training falls behind, and the lag grows "
            "with every increment. Lag: from the arrival of the last increment's last event until "
            "it was learnt from. The first increment is left out of rates. Near the flip, with a "
            f"load within {numbers.percent(NEAR)} of 1, a few percent of capacity decide whether "
            "the lag grows: these runs are counted apart."
        ),
        columns=columns,
        rows=tuple(rows),
        cells=tuple(_cells(row) for row in rows),
        verdict=_verdict(rows),
    )


def _cells(row: ArrivalRow) -> tuple[object, ...]:
    words = {True: "yes", False: "no", None: None}
    return (
        row.dataset,
        row.model,
        row.approach,
        row.ranks,
        numbers.rate(row.arrival_per_s),
        numbers.rate(row.measured_capacity_per_s),
        numbers.rate(row.predicted_capacity_per_s),
        words[row.keeps_up("measured")],
        words[row.keeps_up("predicted")],
        numbers.seconds(row.measured_lag_s),
        numbers.seconds(row.predicted_lag_s),
        "near" if row.near else "",
    )


def capacities(rows: Iterable[ArrivalRow]) -> list[tuple[tuple[Any, ...], dict[str, float]]]:
    """Median capacity of each side over the speed-ups of a configuration: where its knee lies."""
    groups: dict[tuple[Any, ...], list[ArrivalRow]] = defaultdict(list)
    for row in rows:
        groups[row.dataset, row.model, row.approach, row.ranks].append(row)
    found = []
    for key, group in groups.items():
        known = {}
        for side in SIDES:
            values = [getattr(row, f"{side}_capacity_per_s") for row in group]
            values = [value for value in values if value is not None]
            if values:
                known[side] = statistics.median(values)
        found.append((key, known))
    return found


def _verdict(rows: Sequence[ArrivalRow]) -> tuple[str, ...]:
    both = [row for row in rows if row.load("measured") and row.load("predicted")]
    if not both:
        return ()
    sentences = []
    ratios = [known["predicted"] / known["measured"] for _, known in capacities(both)]
    off = [abs(ratio - 1) for ratio in ratios]
    lines = f"{len(off)} configuration{'' if len(off) == 1 else 's'}"
    sentences.append(
        f"Highest arrival rate that training keeps up with, {lines}: median error of the "
        f"prediction {numbers.percent(statistics.median(off))}, largest "
        f"{numbers.percent(max(off))}."
    )
    apart = [row for row in both if not row.near]
    near = [row for row in both if row.near]
    parts = []
    for group, where in (
        (apart, f"with a load more than {numbers.percent(NEAR)} from 1"),
        (near, "nearer"),
    ):
        if group:
            right = sum(row.keeps_up("measured") == row.keeps_up("predicted") for row in group)
            errors = [
                abs(row.predicted_lag_s / row.measured_lag_s - 1)
                for row in group
                if row.measured_lag_s and row.predicted_lag_s is not None
            ]
            lag = f", median error of the lag {numbers.percent(statistics.median(errors))}"
            parts.append(f"{right} of {len(group)} runs {where}{lag if errors else ''}")
    sentences.append(f"Keeping up is predicted right in {'; in '.join(parts)}.")
    return tuple(sentences)
