"""How good the predictions are: errors, interval coverage, order of approaches, regret.

In the definitions t is a measured and t̂ a predicted time per period.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, product

from gnnbench_reports.comparison import Comparison
from gnnbench_reports.noise import distinct, repeat_spread, usual_noise

DECISIVE = 0.15
"""Two approaches differ clearly if their measured medians are further apart than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Agreement of prediction and measurement over the configurations that have both.

    Attributes:
        median_error, p90_error: of |t̂/t - 1|.
        bias: exp(mean ln(t̂/t)): above 1 predictions are too slow on average.
        adjusted_error: median |error| after correcting for the machine's speed at run time.
        coverage: share of measured medians inside their 90 % interval, of num_intervals.
        memory_error: median |predicted / measured - 1| of peak memory; workload_error of the part
            above the baseline.
        order_right, order_pairs: pairs of approaches on one dataset, model and rank count whose
            measured medians differ by more than 15 %, and those predicted in that order;
            approaches that run the same program there are not paired.
        kendall_tau: over all such pairs, close ones included.
        regret_*: t(fastest by prediction) / t(fastest measured) - 1, over groups.
        scaling_points: median |efficiency predicted - measured| in percentage points, where
            efficiency(n) = t(1) / (n t(n)).
        repeat_spread: median over configurations.
    """

    num_rows: int
    num_measured: int
    num_predicted: int
    num_compared: int
    median_error: float | None = None
    p90_error: float | None = None
    bias: float | None = None
    adjusted_error: float | None = None
    probe_ratio: float | None = None
    coverage: float | None = None
    num_intervals: int = 0
    memory_error: float | None = None
    workload_error: float | None = None
    num_memory: int = 0
    order_right: int = 0
    order_pairs: int = 0
    kendall_tau: float | None = None
    regret_median: float | None = None
    regret_worst: float | None = None
    num_choices: int = 0
    scaling_points: float | None = None
    num_scaling: int = 0
    bytes_equal: int = 0
    bytes_compared: int = 0
    repeat_spread: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorRow:
    """One line of the error table: a group of configurations and how well they were predicted."""

    by: str
    group: str
    configurations: int
    median_error: float
    p90_error: float
    bias: float
    inside_interval: int
    intervals: int
    memory_error: float | None
    repeat_spread: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The order of approaches on one dataset, model and rank count, measured and predicted.

    In both orders "=" joins approaches that run one program, "<" stands before a slower one, and
    "≈" before one whose time differs by less than the noise (or than the predicted interval).
    """

    dataset: str
    model: str
    ranks: int
    measured_order: str
    predicted_order: str
    regret: float
    decisive_pairs: int
    right_pairs: int


def summarise(rows: Sequence[Comparison]) -> Summary:
    """Return the agreement over all rows; figures without data are None."""
    both = [row for row in rows if row.ratio is not None]
    inside = [row.inside_interval for row in both if row.inside_interval is not None]
    judged = [row.bytes_equal for row in rows if row.bytes_equal is not None]
    memory = _errors(rows, lambda row: row.memory.peak_ratio)
    picks = choices(rows)
    regrets = [pick.regret for pick in picks]
    points = scaling_points(rows)
    return Summary(
        num_rows=len(rows),
        num_measured=sum(row.measured for row in rows),
        num_predicted=sum(row.predicted for row in rows),
        num_compared=len(both),
        median_error=_median(_errors(both, lambda row: row.ratio)),
        p90_error=_p90(_errors(both, lambda row: row.ratio)),
        bias=_bias(both),
        adjusted_error=_median(
            abs(row.speed_adjusted_error) for row in both if row.speed_adjusted_error is not None
        ),
        probe_ratio=_median(row.probe_ratio for row in both if row.probe_ratio is not None),
        coverage=sum(inside) / len(inside) if inside else None,
        num_intervals=len(inside),
        memory_error=_median(memory),
        workload_error=_median(_errors(rows, lambda row: row.memory.workload_ratio)),
        num_memory=len(memory),
        order_right=sum(pick.right_pairs for pick in picks),
        order_pairs=sum(pick.decisive_pairs for pick in picks),
        kendall_tau=_kendall_tau(both),
        regret_median=_median(regrets),
        regret_worst=max(regrets, default=None),
        num_choices=len(picks),
        scaling_points=_median(points),
        num_scaling=len(points),
        bytes_equal=sum(judged),
        bytes_compared=len(judged),
        repeat_spread=repeat_spread(rows),
    )


def error_table(rows: Sequence[Comparison]) -> list[ErrorRow]:
    """Errors over all configurations, then by approach, dataset, model and rank count."""
    both = [row for row in rows if row.error is not None]
    if not both:
        return []
    table = [_error_row("all", "all", both)]
    for by in ("label", "dataset", "model", "ranks"):
        groups: dict[object, list[Comparison]] = defaultdict(list)
        for row in both:
            groups[getattr(row, by)].append(row)
        if len(groups) > 1:
            name = "approach" if by == "label" else by
            table += [_error_row(name, str(key), group) for key, group in groups.items()]
    return table


def _error_row(by: str, group: str, rows: Sequence[Comparison]) -> ErrorRow:
    errors = _errors(rows, lambda row: row.ratio)
    inside = [row.inside_interval for row in rows if row.inside_interval is not None]
    median, p90, bias = _median(errors), _p90(errors), _bias(rows)
    assert median is not None and p90 is not None and bias is not None, "a group is never empty"
    return ErrorRow(
        by=by,
        group=group,
        configurations=len(rows),
        median_error=median,
        p90_error=p90,
        bias=bias,
        inside_interval=sum(inside),
        intervals=len(inside),
        memory_error=_median(_errors(rows, lambda row: row.memory.peak_ratio)),
        repeat_spread=repeat_spread(rows),
    )


def choices(rows: Iterable[Comparison]) -> list[Choice]:
    """The order of approaches wherever at least two were measured and predicted."""
    rows = list(rows)
    usual = usual_noise(rows)
    found = []
    for (dataset, model, ranks), group in contests(rows).items():
        decisive = [pair for pair in pairs(group) if _differ(*pair)]
        found.append(
            Choice(
                dataset=dataset,
                model=model,
                ranks=ranks,
                measured_order=ordered(group, _measured, lambda a, b: distinct(a, b, usual)),
                predicted_order=ordered(group, _predicted, predicted_apart),
                regret=regret(group),
                decisive_pairs=len(decisive),
                right_pairs=sum(agreement(*pair) > 0 for pair in decisive),
            )
        )
    return found


def contests(rows: Iterable[Comparison]) -> dict[tuple[str, str, int], list[Comparison]]:
    """Measured and predicted rows, where several programs share dataset, model and rank count."""
    groups: dict[tuple[str, str, int], list[Comparison]] = defaultdict(list)
    for row in rows:
        if row.ratio is not None:
            groups[row.dataset, row.model, row.ranks].append(row)
    return {key: group for key, group in groups.items() if len(_programs(group)) > 1}


def _programs(group: Iterable[Comparison]) -> list[list[Comparison]]:
    """The rows of each program; most approaches run the same program on one rank."""
    found: dict[str, list[Comparison]] = defaultdict(list)
    for row in group:
        found[row.program or row.config_id].append(row)
    return list(found.values())


def ordered(
    group: Iterable[Comparison],
    time: Callable[[Comparison], float],
    apart: Callable[[Comparison, Comparison], bool],
) -> str:
    """Write the order of a group's programs, fastest first, as `Choice` describes it."""
    by_time = sorted(
        (sorted(rows, key=time) for rows in _programs(group)),
        key=lambda rows: statistics.median(map(time, rows)),
    )
    text = ""
    for at, rows in enumerate(by_time):
        if at:
            before = by_time[at - 1]
            sure = apart(before[len(before) // 2], rows[len(rows) // 2])
            text += " < " if sure else " ≈ "
        text += " = ".join(row.label for row in rows)
    return text


def predicted_apart(a: Comparison, b: Comparison) -> bool:
    """Tell whether two predictions differ by more than a quarter of the wider interval.

    The constants behind both are the same, so their errors are largely common.
    """
    widths = [
        row.predicted_high_s - row.predicted_low_s
        for row in (a, b)
        if row.predicted_low_s is not None and row.predicted_high_s is not None
    ]
    return abs(_predicted(a) - _predicted(b)) > max(widths, default=0.0) / 4


def pairs(group: Sequence[Comparison]) -> list[tuple[Comparison, Comparison]]:
    """Pairs of a contest that run different programs: only these have an order to predict."""
    return [
        (a, b) for one, other in combinations(_programs(group), 2) for a, b in product(one, other)
    ]


def regret(group: Sequence[Comparison]) -> float:
    """t(fastest by prediction) / t(fastest measured) - 1 over the programs of a group.

    The time of a program that was measured under several names is the median of their times.
    """
    timed = [
        (min(map(_predicted, rows)), statistics.median(map(_measured, rows)))
        for rows in _programs(group)
    ]
    chosen = min(timed, key=lambda pair: pair[0])
    return chosen[1] / min(measured for _, measured in timed) - 1


def _kendall_tau(rows: Iterable[Comparison]) -> float | None:
    """(right - wrong) / pairs over all pairs of one dataset, model and rank count."""
    signs = [agreement(*pair) for group in contests(rows).values() for pair in pairs(group)]
    return sum(signs) / len(signs) if signs else None


def agreement(a: Comparison, b: Comparison) -> int:
    """1 if prediction orders the two as measurement does, -1 if the other way, 0 on a tie."""
    both = (_measured(a) - _measured(b)) * (_predicted(a) - _predicted(b))
    return (both > 0) - (both < 0)


def _differ(a: Comparison, b: Comparison) -> bool:
    slow, fast = max(_measured(a), _measured(b)), min(_measured(a), _measured(b))
    return slow / fast - 1 > DECISIVE


def scaling_points(rows: Iterable[Comparison]) -> list[float]:
    """Error of scaling efficiency in percentage points, for each configuration above the smallest.

    The base of each series is its smallest rank count that was measured and predicted, usually 1.
    """
    series: dict[tuple[str, str, str], list[Comparison]] = defaultdict(list)
    for row in rows:
        if row.ratio is not None:
            series[row.dataset, row.model, row.label].append(row)
    points = []
    for group in series.values():
        base, *larger = sorted(group, key=lambda row: row.ranks)
        for row in larger:
            growth = row.ranks / base.ranks
            measured = _measured(base) / growth / _measured(row)
            predicted = _predicted(base) / growth / _predicted(row)
            points.append(100 * abs(predicted - measured))
    return points


def _measured(row: Comparison) -> float:
    assert row.measured_period_s is not None, (
        "only rows that were measured and predicted are compared"
    )
    return row.measured_period_s


def _predicted(row: Comparison) -> float:
    assert row.predicted_period_s is not None, (
        "only rows that were measured and predicted are compared"
    )
    return row.predicted_period_s


def _errors(rows: Iterable[Comparison], ratio: Callable[[Comparison], float | None]) -> list[float]:
    return [abs(value - 1) for row in rows if (value := ratio(row)) is not None]


def _bias(rows: Iterable[Comparison]) -> float | None:
    logs = [math.log(row.ratio) for row in rows if row.ratio]
    return math.exp(statistics.fmean(logs)) if logs else None


def _median(values: Iterable[float]) -> float | None:
    found = list(values)
    return statistics.median(found) if found else None


def _p90(values: Iterable[float]) -> float | None:
    """Nearest rank: the smallest value that at least 90 % do not exceed."""
    found = sorted(values)
    return found[math.ceil(0.9 * len(found)) - 1] if found else None
