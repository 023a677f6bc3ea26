"""Sizes, durations and rates as people write them: "2 GB", "30 min", "50M/day"."""

from __future__ import annotations

import math
import re

from gnnbench.errors import SpecError

_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}


def size_bytes(text: str) -> int:
    """Bytes of a size such as "2 GB" (10^9) or "2GiB" (2^30). Raises SpecError."""
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", text)
    if found is None or found[2].lower() not in _UNITS:
        raise SpecError(f"found {text!r}, expected a size such as '2 GB' or '512 MiB'")
    size = float(found[1]) * _UNITS[found[2].lower()]
    if size >= 2**63:
        raise SpecError(f"found {text[:40]!r}, expected a size below 8 EiB")
    return round(size)


_DURATIONS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def duration_s(text: str) -> float:
    """Seconds of a duration such as "90s", "30 min", "2h" or "1.5d". Raises SpecError."""
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", text)
    seconds = 0.0
    if found is not None and (found[2].lower() or "s") in _DURATIONS:
        seconds = float(found[1]) * _DURATIONS[found[2].lower() or "s"]
    if not 0 < seconds < 1e12:
        raise SpecError(f"found {text!r}, expected a duration such as '90s', '30min', '2h' or '1d'")
    return seconds


_EVENTS = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9}
_PER = {"s": 1.0, "min": 60.0, "h": 3600.0, "hour": 3600.0, "d": 86400.0, "day": 86400.0}
_RATE = re.compile(r"\s*(\d+\.?\d*(?:[eE][+-]?\d+)?)\s*([kKmMbB]?)\s*(?:/\s*([a-z]+))?\s*")


def rate_per_s(text: str) -> float:
    """Events per second of a rate such as "579", "2k/s" or "50M/day". Raises SpecError."""
    found = _RATE.fullmatch(text)
    rate = 0.0
    if found is not None and (found[3] or "s") in _PER:
        rate = float(found[1]) * _EVENTS[found[2].lower()] / _PER[found[3] or "s"]
    if not 0 < rate < 1e15:
        raise SpecError(f"found {text[:40]!r}, expected a rate such as '579', '2k/s' or '50M/day'")
    return rate


_WRITTEN = ((86400.0, "d", 2), (3600.0, "h", 2), (60.0, "min", 2), (1.0, "s", 1))


def duration(seconds: float) -> str:
    """Write a duration with three significant digits in the unit people use for it."""
    size, unit = _unit(seconds)
    return f"{digits(seconds / size)} {unit}"


def roughly(seconds: float) -> str:
    """Write a duration that is only an estimate: "8 s", "2 min", "1 h 10 min"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def durations(low: float, high: float, of: float | None = None) -> str:
    """Write an interval of durations in the unit of the duration `of`, or of its upper end."""
    size, unit = _unit(high if of is None else of)
    return f"{digits(low / size)} … {digits(high / size)} {unit}"


def _unit(seconds: float) -> tuple[float, str]:
    return next(((size, unit) for size, unit, n in _WRITTEN if seconds >= n * size), (1e-3, "ms"))


def digits(value: float, significant: int = 3) -> str:
    """Write a number with so many significant digits and without an exponent."""
    if value == 0:
        return "0"
    place = significant - 1 - math.floor(math.log10(abs(value)))
    return f"{round(value, place):,.{max(place, 0)}f}"
