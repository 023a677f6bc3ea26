"""Two sets of results side by side: two folders, two machines, or two states of the code.

Configurations are matched by their id, and else by dataset, model, approach, knobs and rank count.
Where both were measured, measured times are compared; else predicted ones; else what each has.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from gnnbench.errors import DataError
from gnnbench.metrics import measure_of
from gnnbench_reports import numbers
from gnnbench_reports.comparison import Comparison
from gnnbench_reports.noise import noise, usual_noise
from gnnbench_reports.study import Study


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One configuration in both sets; `first` and `second` are seconds per period.

    Attributes:
        side: "measured", "predicted", or "measured, predicted" where each set has another.
        noise: relative noise of the ratio; of predictions 0, as they repeat exactly.
        bytes_equal: whether both sent the same bytes; None where one set counted none.
        metric: difference of the primary test metric, second minus first.
    """

    dataset: str
    model: str
    label: str
    ranks: int
    period: str
    side: str
    first: float
    second: float
    noise: float
    bytes_equal: bool | None = None
    metric_name: str = ""
    metric: float | None = None

    @property
    def ratio(self) -> float:
        """Second over first: above 1 the second set is slower."""
        return self.second / self.first

    @property
    def word(self) -> str:
        """Whether the second set is "slower", "faster" or, within the noise, the "same"."""
        if abs(math.log(self.ratio)) <= math.log1p(self.noise):
            return "same"
        return "slower" if self.ratio > 1 else "faster"

    def is_past(self, threshold: float) -> bool:
        """Whether the second set is slower by more than the threshold, and than the noise."""
        return self.ratio > 1 + threshold and self.word == "slower"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """Two sets of results: what both have, and what only one of them has."""

    changes: tuple[Change, ...]
    only_first: tuple[Comparison, ...]
    only_second: tuple[Comparison, ...]


def contrast(first: Study, second: Study) -> Contrast:
    """Match the configurations of two studies. Raises DataError if they share none."""
    timed = [
        [row for row in study.rows if row.measured or row.predicted] for study in (first, second)
    ]
    by_id = {row.config_id: row for row in timed[1]}
    by_place = _unique(timed[1])
    usual = max(usual_noise(first.rows), usual_noise(second.rows))
    changes, matched, alone = [], set(), []
    for row in timed[0]:
        other = by_id.get(row.config_id) or by_place.get(_place(row))
        if other is None or other.key in matched:
            alone.append(row)
            continue
        matched.add(other.key)
        changes.append(_change(row, other, usual))
    if not changes:
        raise DataError(
            second.results.folder,
            f"has no configuration in common with {first.results.folder}: run or predict one suite "
            "into both",
        )
    rest = tuple(row for row in timed[1] if row.key not in matched)
    return Contrast(changes=tuple(changes), only_first=tuple(alone), only_second=rest)


def _unique(rows: Sequence[Comparison]) -> dict[tuple[object, ...], Comparison]:
    """Rows by place, where a place has one row only."""
    counts = Counter(map(_place, rows))
    return {_place(row): row for row in rows if counts[_place(row)] == 1}


def _place(row: Comparison) -> tuple[object, ...]:
    knobs = json.dumps(dict(row.knobs), sort_keys=True, default=str)
    return row.dataset, row.model, row.approach, knobs, row.ranks


def _change(row: Comparison, other: Comparison, usual: float) -> Change:
    sides = [_side(row, other), _side(other, row)]
    measured = [one for one, side in zip((row, other), sides, strict=True) if side == "measured"]
    same = row.counted_bytes is not None and other.counted_bytes is not None
    a, b = row.test_metric.get("mean"), other.test_metric.get("mean")
    return Change(
        dataset=row.dataset,
        model=row.model,
        label=row.label,
        ranks=row.ranks,
        period=row.period,
        side=", ".join(dict.fromkeys(sides)),
        first=_seconds(row, sides[0]),
        second=_seconds(other, sides[1]),
        noise=math.hypot(*(noise(one, usual) for one in measured), 0.0),
        bytes_equal=row.counted_bytes == other.counted_bytes if same else None,
        metric_name=row.metric,
        metric=None if a is None or b is None else b - a,
    )


def _side(row: Comparison, other: Comparison) -> str:
    if row.measured and (other.measured or not row.predicted or not other.predicted):
        return "measured"
    return "predicted" if row.predicted else "measured"


def _seconds(row: Comparison, side: str) -> float:
    seconds = row.measured_period_s if side == "measured" else row.predicted_period_s
    assert seconds is not None, "a row is compared on a side that it has"
    return seconds


def sentences(found: Contrast, names: tuple[str, str], threshold: float | None) -> list[str]:
    """What changed from the first set to the second, most important first."""
    changes = found.changes
    ratios = sorted(change.ratio for change in changes)
    middle = math.exp(statistics.fmean(map(math.log, ratios)))
    counts = Counter(change.word for change in changes)
    lines = []
    if threshold is not None:
        past = [change for change in changes if change.is_past(threshold)]
        worst = max(past, key=lambda change: change.ratio, default=None)
        lines.append(
            f"{len(past)} of {len(changes)} configurations are slower by more than "
            f"{numbers.percent(threshold)}"
            + ("." if worst is None else f"; most of all {_named(worst)}.")
        )
    lines.append(
        f"{names[1]} against {names[0]}: the time of {len(changes)} "
        f"configuration{'s' if len(changes) > 1 else ''} is {numbers.factor(middle)} in the "
        f"geometric mean ({numbers.factor(ratios[0])} to {numbers.factor(ratios[-1])}); "
        f"{counts['slower']} slower and {counts['faster']} faster than the noise, "
        f"{counts['same']} the same."
    )
    wrong = [change for change in changes if change.bytes_equal is False]
    if wrong:
        lines.append(f"Bytes sent differ in {len(wrong)} of them, as of {_named(wrong[0])}.")
    for number, name in ((len(found.only_first), names[0]), (len(found.only_second), names[1])):
        if number:
            lines.append(f"{number} configuration{'s' if number > 1 else ''} only in {name}.")
    return lines


def _named(change: Change) -> str:
    return (
        f"{change.dataset}, {change.model}, {change.label} on {change.ranks}: "
        f"{numbers.factor(change.ratio)}"
    )


def cells(change: Change) -> dict[str, object]:
    """The cells of a line of the table."""
    measure = measure_of(change.metric_name)
    return {
        "approach": change.label,
        "ranks": change.ranks,
        "first": numbers.seconds(change.first, max(change.noise / 2, 0.005)),
        "second": numbers.seconds(change.second, max(change.noise / 2, 0.005)),
        "ratio": numbers.factor(change.ratio),
        "noise": f"±{numbers.percent(change.noise)}".replace(" ", ""),
        "": change.word,
        "bytes": {True: "equal", False: "differ", None: None}[change.bytes_equal],
        "metric": None if change.metric is None else numbers.difference(measure, change.metric),
    }


def machine(study: Study) -> str:
    """The devices on which a study was measured, or the cluster for which it was predicted."""
    devices = dict.fromkeys(
        f"{run.device['name']}"
        + (f", {run.device['cores']} cores" if "cores" in run.device else "")
        for run in study.runs
        if run.device.get("name")
    )
    return " and ".join(devices) or (f"predicted for {study.cluster}" if study.cluster else "")
