"""The reader's question answered: which approach, per dataset and model, and what limits it.

Measured times come first; where a dataset and model have none, the answer is a prediction and says
so. Approaches are compared at their best rank count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from gnnbench.metrics import measure_of
from gnnbench_reports import numbers
from gnnbench_reports.noise import distinct, ratio_noise, usual_noise, warnings
from gnnbench_reports.parts import HIDDEN, parts_of, whole
from gnnbench_reports.reaching import Reach, reach, target
from gnnbench_reports.summary import predicted_apart

if TYPE_CHECKING:
    from gnnbench_reports.comparison import Comparison
    from gnnbench_reports.study import Study

_DIGITS = 0.01
"""Least relative uncertainty with which times are written: three digits."""
EQUAL = 0.0025
"""Metrics that differ by less are called equal: a quarter of a point, or of a percent."""
LEAST_GAIN = 1.05
"""Smaller factors are no gain: with two digits they are written as 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer for one dataset and model; `sentences` begin with the fastest approach.

    `compared` says whether there are several approaches to choose from.
    """

    dataset: str
    model: str
    sentences: tuple[str, ...]
    compared: bool


def answers(study: Study) -> list[Answer]:
    """An answer per dataset and model that has any time."""
    found = []
    for (dataset, model), group in groupby(study.rows, key=lambda row: (row.dataset, row.model)):
        rows = list(group)
        timed = [row for row in rows if row.measured] or [row for row in rows if row.predicted]
        if timed:
            sentences = (*_fastest(study, timed), *_to_metric(study, timed), *_scaling(study, rows))
            compared = len(_contenders(timed)) > 1
            found.append(
                Answer(dataset=dataset, model=model, sentences=sentences, compared=compared)
            )
    return found


def opening(study: Study) -> list[str]:
    """Warnings about noise, then a line per dataset and model."""
    lines = warnings(study.rows)
    for one in answers(study):
        lines.append(f"{one.dataset}, {one.model}: {' '.join(one.sentences)}")
    return lines


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contender:
    """The best configuration of an approach, or of several that run one program there."""

    names: tuple[str, ...]
    row: Comparison
    seconds: float

    @property
    def name(self) -> str:
        ranks = f"{self.row.ranks} rank{'s' if self.row.ranks > 1 else ''}"
        return f"{' = '.join(self.names)} on {ranks}"


def _contenders(rows: Sequence[Comparison]) -> list[_Contender]:
    """Approaches by the time of their best configuration, fastest first."""
    best: dict[str, tuple[float, Comparison]] = {}
    for row in rows:
        seconds = row.measured_period_s if row.measured else row.predicted_period_s
        if seconds is not None and (row.label not in best or seconds < best[row.label][0]):
            best[row.label] = seconds, row
    programs: dict[tuple[str, int, str], list[tuple[float, Comparison]]] = {}
    for seconds, row in best.values():
        # On two machines one program takes two times.
        place = row.program or row.config_id, row.ranks, "" if row.measured else row.cluster
        programs.setdefault(place, []).append((seconds, row))
    found = []
    for same in programs.values():
        same.sort(key=lambda pair: pair[0])
        seconds, row = same[len(same) // 2]
        names = tuple(sorted(one.label for _, one in same))
        found.append(_Contender(names=names, row=row, seconds=seconds))
    return sorted(found, key=lambda contender: contender.seconds)


def _fastest(study: Study, rows: Sequence[Comparison]) -> list[str]:
    contenders = _contenders(rows)
    measured = rows[0].measured
    usual = usual_noise(study.rows)

    def apart(a: _Contender, b: _Contender) -> bool:
        return distinct(a.row, b.row, usual) if measured else predicted_apart(a.row, b.row)

    first = contenders[0]
    leaders = [one for one in contenders if not apart(first, one)]
    others = [one for one in contenders if apart(first, one)]
    verb = "is" if measured else "is predicted to be"
    noun = rows[0].period
    time = _time(first)
    if len(contenders) == 1:
        return [f"{first.name} takes {time} per {noun}{'' if measured else ' by prediction'}."]
    if len(leaders) > 1:
        names = ", ".join(f"{one.name} ({_time(one)})" for one in leaders[:3])
        more = f" and {len(leaders) - 3} more" if len(leaders) > 3 else ""
        doubt = "noise" if measured else "interval"
        sentence = f"no approach {verb} fastest per {noun}: {names}{more} differ by less than the "
        sentence += f"{doubt}"
    else:
        sentence = f"{first.name} {verb} fastest per {noun} ({time})"
    if others:
        second = others[0]
        who = "" if len(leaders) == 1 else f"{first.names[0]} is "
        sentence += f"; {who}{_against(first, second, usual if measured else None)}"
        sentence += f" ({_time(second)})"
        sentence += _quality(first.row, second.row)
    return [f"{sentence}."]


def _time(one: _Contender) -> str:
    return numbers.seconds(one.seconds, max(one.row.uncertainty or 0.0, _DIGITS))


def _against(fast: _Contender, slow: _Contender, usual: float | None) -> str:
    """How much faster than the other, such as "2.4 ± 0.2 × faster than single on 1 rank".

    A prediction has the errors of its interval. The errors of two predictions are largely common,
    so half of each interval is counted.
    """
    value = slow.seconds / fast.seconds
    if usual is not None:
        error = ratio_noise(fast.row, slow.row, usual)
    else:
        error = math.hypot(*(_half_interval(one) / 2 for one in (fast, slow)))
    text = numbers.rounded(value, value * error)
    decimals = len(text.partition(".")[2])
    shown = f"{value * error:.{decimals}f}"
    if float(text) == 1:
        return f"as fast as {slow.name}"
    doubt = shown if float(shown) else f"{value * error:.1g}"
    return f"{text} ± {doubt} × faster than {slow.name}"


def _half_interval(one: _Contender) -> float:
    low, high = one.row.predicted_low_s, one.row.predicted_high_s
    return 0.0 if low is None or high is None else (high - low) / 2 / one.seconds


def _quality(fast: Comparison, slow: Comparison) -> str:
    """The metrics of both: ", with test accuracy 0.9 points lower (97.4 % against 98.3 %)"."""
    a, b = fast.test_metric, slow.test_metric
    if not a or not b or fast.metric != slow.metric:
        return ""
    measure = measure_of(fast.metric)
    scale = 1.0 if measure.unit == "share" else abs(b["mean"])
    both = " against ".join(numbers.metric(measure, one["mean"]) for one in (a, b))
    more = a["mean"] - b["mean"]
    if abs(more) <= EQUAL * scale:
        return f", at equal test {measure.title} ({both})"
    size = f"{abs(100 * more):.1f} points" if measure.unit == "share" else f"{abs(more):.2g}"
    doubt = 2 * math.hypot(a.get("std", 0.0), b.get("std", 0.0))
    noise = ", within the spread of repeats" if abs(more) <= doubt else ""
    word = "higher" if more > 0 else "lower"
    return f", with test {measure.title} {size} {word} ({both}{noise})"


def _to_metric(study: Study, rows: Sequence[Comparison]) -> list[str]:
    """Time to the metric that the best approach nearly ends with; empty if not evaluated often."""
    goal = target(study, rows)
    if goal is None:
        return []
    best: dict[str, Reach] = {}
    for row in rows:
        found = reach(study, row, goal)
        if found is not None and _sooner(found, best.get(row.label)):
            best[row.label] = found
    reached = sorted(
        (one for one in best.values() if one.seconds is not None),
        key=lambda one: one.seconds or 0.0,
    )
    if not reached:
        return []
    measure = measure_of(rows[0].metric)
    first = reached[0]
    ranks = f"{first.row.ranks} rank{'s' if first.row.ranks > 1 else ''}"
    sentence = (
        f"To {numbers.metric(measure, goal)} validation {measure.title}: {first.row.label} on "
        f"{ranks} in {_written(first)} ({first.periods:g} "
        f"{first.row.period}{'s' if first.periods != 1 else ''}"
        f"{_foreseen(first, ', predicted ')})"
    )
    if len(reached) > 1:
        second = reached[1]
        factor = (second.seconds or 0.0) / (first.seconds or 1.0)
        times = numbers.rounded(factor, factor * 0.05)
        times = "as long" if float(times) == 1 else f"{times} × as long"
        sentence += (
            f"; {second.row.label} takes {_written(second)}"
            f"{_foreseen(second, ' (predicted ', ')')}, {times}"
        )
    absent = sorted(label for label, one in best.items() if one.seconds is None)
    if absent:
        sentence += f"; not reached by {', '.join(absent)}"
    return [f"{sentence}."]


def _written(one: Reach) -> str:
    return numbers.seconds(one.seconds, max(one.spread or 0.0, _DIGITS))


def _foreseen(one: Reach, before: str, after: str = "") -> str:
    """The predicted time to the target between two texts; empty without a prediction."""
    if one.predicted_seconds is None:
        return ""
    return f"{before}{numbers.seconds(one.predicted_seconds)}{after}"


def _sooner(one: Reach, other: Reach | None) -> bool:
    if other is None or other.seconds is None:
        return True
    return one.seconds is not None and one.seconds < other.seconds


def _scaling(study: Study, rows: Sequence[Comparison]) -> list[str]:
    """How far the fastest approach scales, measured and predicted, and what stops it."""
    timed = [row for row in rows if row.measured] or [row for row in rows if row.predicted]
    label = _contenders(timed)[0].row.label
    own = sorted((row for row in rows if row.label == label), key=lambda row: row.ranks)
    sentences = []
    for side in ("measured", "predicted"):
        series = [row for row in own if getattr(row, side)]
        if len({row.ranks for row in series}) < 2 or (
            side == "predicted" and max(r.ranks for r in series) <= _most_measured(own)
        ):
            continue
        sentences.append(_range(study, label, series, side))
    return sentences


def _most_measured(rows: Sequence[Comparison]) -> int:
    return max((row.ranks for row in rows if row.measured), default=0)


def _range(study: Study, label: str, series: Sequence[Comparison], side: str) -> str:
    def seconds(row: Comparison) -> float:
        return float(getattr(row, f"{side}_period_s"))

    base, last = series[0], series[-1]
    best = min(series, key=seconds)
    gain = seconds(base) / seconds(best)
    from_ranks = f"{base.ranks} rank{'s' if base.ranks > 1 else ''}"
    if best is base or gain < LEAST_GAIN:
        sentence = f"{_by(side)}{label} gains nothing from more than {from_ranks}"
    elif side == "measured" and not distinct(base, best, usual_noise(study.rows)):
        sentence = f"{_by(side)}{label} gains less than the noise from more than {from_ranks}"
    else:
        efficiency = numbers.percent(gain * base.ranks / best.ranks)
        sentence = (
            f"{_by(side)}{label} scales to {best.ranks} ranks, {gain:.2g} × faster than on "
            f"{from_ranks} (efficiency {efficiency})"
        )
    limit = _limit(
        parts_of(study, base, side), parts_of(study, last, side), base.ranks / last.ranks
    )
    if limit:
        sentence += f"; on {last.ranks} ranks {limit}"
    return f"{sentence}."


def _by(side: str) -> str:
    return "Measured, " if side == "measured" else "By prediction, "


def _limit(base: Mapping[str, float], last: Mapping[str, float], shrunk: float) -> str:
    """The part that is furthest above its share under perfect scaling, with its share of all."""
    total = whole(last)
    if not base or total <= 0:
        return ""
    excess = {
        part: seconds - shrunk * base.get(part, 0.0)
        for part, seconds in last.items()
        if part != HIDDEN
    }
    worst = max(excess, key=lambda part: excess[part])
    if excess[worst] < 0.05 * total:
        return ""
    return f"{worst} limits it: {numbers.percent(last[worst] / total)} of the time"
