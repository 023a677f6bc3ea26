"""Values with 90 % intervals, and the interval of a ratio or a difference of two.

Where two values share errors, their ratio or difference is known better than either:

metrics      runs of one seed have the same first parameters, split and batches, so that a
             difference is taken seed by seed where both sides were trained with the same seeds
predictions  an operation that is mispredicted is mispredicted on both sides; `causes` holds how
             much of a prediction's error each operation makes, and how much of that is common to
             all shapes
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

_T90 = (6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833)
"""Student's t that nine of ten samples stay within, by degrees of freedom from 1 on; the last one
also for more."""


@dataclass(frozen=True, slots=True)
class Value:
    """A value between two ends; all three are equal where it is exact.

    Attributes:
        samples: values by seed, of a metric.
        causes: log errors (half of a 90 % interval) by operation that other predictions share.
    """

    value: float
    low: float
    high: float
    samples: Mapping[int, float] = field(default_factory=dict)
    causes: Mapping[str, float] = field(default_factory=dict)


def exact(value: float | None) -> Value | None:
    """A value that was counted; None where it is not known."""
    return None if value is None else Value(value, value, value)


def noisy(value: float, relative: float) -> Value:
    """A value with a relative error."""
    return Value(value, value / (1 + relative), value * (1 + relative))


def sampled(samples: Mapping[int, float]) -> Value:
    """The mean over seeds with its 90 % interval by Student's t; exact with one seed."""
    mean, error = _mean(list(samples.values()))
    return Value(mean, mean - error, mean + error, samples=samples)


def pooled(mean: float, std: float, count: int) -> Value:
    """As `sampled`, where the single values are not there."""
    error = _t(count) * std / math.sqrt(count) if count > 1 else 0.0
    return Value(mean, mean - error, mean + error)


def _mean(values: list[float]) -> tuple[float, float]:
    """Mean and half of its 90 % interval."""
    mean, count = statistics.fmean(values), len(values)
    if count < 2:
        return mean, 0.0
    return mean, _t(count) * statistics.stdev(values) / math.sqrt(count)


def _t(count: int) -> float:
    return _T90[min(count - 1, len(_T90)) - 1]


def difference(a: Value, b: Value) -> Value:
    """`a` minus `b`: by seed where the seeds are the same, else with independent errors."""
    if len(a.samples) > 1 and a.samples.keys() == b.samples.keys():
        return sampled({seed: value - b.samples[seed] for seed, value in a.samples.items()})
    value = a.value - b.value
    down = math.hypot(a.value - a.low, b.high - b.value)
    up = math.hypot(a.high - a.value, b.value - b.low)
    return Value(value, value - down, value + up)


def ratio(a: Value, b: Value) -> Value | None:
    """`a` over `b`, with errors that are independent but for shared causes; None if `b` is 0."""
    if b.value == 0:
        return None
    value = a.value / b.value
    common = 2 * sum(share * b.causes.get(cause, 0.0) for cause, share in a.causes.items())
    down = _apart(_gap(a.low, a.value), _gap(b.value, b.high), common)
    up = _apart(_gap(a.value, a.high), _gap(b.low, b.value), common)
    return Value(value, value * math.exp(-down), value * math.exp(up))


def _apart(a: float, b: float, common: float) -> float:
    """Log error of a ratio, given the log errors of both sides and twice their covariance."""
    # Errors that move together leave at least the difference of the two.
    return max(math.sqrt(max(a * a + b * b - common, 0.0)), abs(a - b))


def _gap(low: float, high: float) -> float:
    """Logarithm of high over low; 0 where there is none."""
    return math.log(high / low) if low > 0 and high > 0 else 0.0
