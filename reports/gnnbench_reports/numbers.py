"""Write numbers with as many digits as their spread supports, in units people read."""

from __future__ import annotations

import math

from gnnbench.metrics import Measure

# Relative uncertainty assumed of a number without a known spread: two to three digits are printed.
UNKNOWN_SPREAD = 0.05
_TIME_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_RATE_UNITS = ((1e6, "M/s"), (1e3, "k/s"), (1.0, "/s"))
_BYTE_UNITS = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B"))


class Quantity(str):
    """A number as text that keeps its value in SI units: pages sort and copy by it."""

    __slots__ = ("value",)
    value: float

    def __new__(cls, text: str, value: float) -> Quantity:
        made = super().__new__(cls, text)
        made.value = float(value)
        return made


def rounded(value: float, uncertainty: float, *, max_digits: int = 4) -> str:
    """Round so that the last digit is of the order of the uncertainty; two digits at least.

    With one digit 24 would become 20, and a ratio of two such numbers would be wrong by half.
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}" if value == 0 else str(value)
    first = math.floor(math.log10(abs(value)))
    place = math.floor(math.log10(uncertainty)) if uncertainty > 0 else first - max_digits + 1
    place = max(min(place, first - 1), first - max_digits + 1)
    return f"{round(value, -place):.{max(-place, 0)}f}"


def seconds(value: float | None, spread: float | None = None) -> str:
    """Write a time in s, ms, µs or ns; `spread` is relative."""
    if value is None:
        return "–"
    scale, unit = _unit(abs(value), _TIME_UNITS)
    relative = UNKNOWN_SPREAD if spread is None else max(spread, 1e-4)
    return Quantity(f"{rounded(value / scale, abs(value) / scale * relative)} {unit}", value)


def interval(low: float | None, high: float | None) -> str:
    """Write both ends in one unit; the width decides the digits, two of the lower end at least."""
    if low is None or high is None:
        return "–"
    scale, unit = _unit((low + high) / 2, _TIME_UNITS)
    uncertainty = min(max(high - low, 0) / 4, 0.09 * abs(low)) / scale
    text = f"{rounded(low / scale, uncertainty)} … {rounded(high / scale, uncertainty)} {unit}"
    return Quantity(text, low)


def percent(value: float | None, spread: float | None = None, *, signed: bool = False) -> str:
    """Write a share as percent; tenths only where the spread is below half a percent."""
    if value is None:
        return "–"
    digits = 1 if spread is not None and spread < 0.005 else 0
    text = f"{100 * value:{'+' if signed else ''}.{digits}f}"
    return Quantity(f"{_no_negative_zero(text)} %", value)


def size(value: float | None) -> str:
    """Write bytes with three digits in binary units."""
    if value is None:
        return "–"
    scale, unit = _unit(abs(value), _BYTE_UNITS)
    if unit == "B":
        return Quantity(f"{value:.0f} B", value)
    number = value / scale
    text = f"{number:.{max(0, 2 - math.floor(math.log10(number)))}f} {unit}"
    return Quantity(text, value)


def whole(value: float | None) -> str:
    """Write a count exactly, in groups of three; a mean over periods may have a fraction."""
    if value is None:
        return "–"
    return Quantity(f"{value:,.{0 if float(value).is_integer() else 1}f}", value)


def rate(value: float | None) -> str:
    """Write a rate in events per second with three digits: 1.23 k/s."""
    if value is None:
        return "–"
    scale, unit = _unit(abs(value), _RATE_UNITS)
    return Quantity(f"{rounded(value / scale, 0.0, max_digits=3)} {unit}", value)


def factor(value: float | None) -> str:
    """Write a ratio such as 1.07×."""
    return "–" if value is None else Quantity(f"{value:.2f}×", value)


def metric(measure: Measure, value: float | None, std: float | None = None) -> str:
    """Write a metric with its deviation: a share in percent, others with four digits at most."""
    if value is None:
        return "–"
    if measure.unit == "share":
        text = f"{100 * value:.1f} %" + (f" ± {100 * std:.1f}" if std else "")
    else:
        text = rounded(value, std or 0.0) + (f" ± {rounded(std, std)}" if std else "")
    return Quantity(text, value)


def difference(
    measure: Measure, value: float | None, error: float | None = None, *, signed: bool = True
) -> str:
    """Write a difference of metrics with its standard error: shares in percentage points."""
    if value is None:
        return "–"
    sign = "+" if signed else ""
    scale, digits = (100, 2) if measure.unit == "share" else (1, 4)
    text = _no_negative_zero(f"{scale * value:{sign}.{digits}f}")
    return Quantity(text if error is None else f"{text} ± {scale * error:.{digits}f}", value)


def _unit(value: float, units: tuple[tuple[float, str], ...]) -> tuple[float, str]:
    return next((pair for pair in units if value >= pair[0]), units[-1])


def _no_negative_zero(text: str) -> str:
    return text.replace("-", "") if text.strip("+-0.") == "" else text
