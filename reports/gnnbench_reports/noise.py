"""The noise of measured times: what tells two of them apart, and what spoils all of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from gnnbench_reports.numbers import factor, percent

if TYPE_CHECKING:
    from gnnbench_reports.comparison import Comparison

LEAST_NOISE = 0.025
"""Relative noise assumed of any measured time at least."""
LOUD = 0.10
"""Repeats that spread by more than this are of a machine that did something else meanwhile."""
DRIFT = 0.15
"""A probe kernel that runs slower than at calibration by more than this: another load or clock."""


def repeat_spread(rows: Iterable[Comparison]) -> float | None:
    """The median spread of repeats of one configuration; None without repeats."""
    found = [row.repeat_spread for row in rows if row.repeat_spread is not None]
    return statistics.median(found) if found else None


def usual_noise(rows: Iterable[Comparison]) -> float:
    """The median spread of repeats, or `LEAST_NOISE` if that is more.

    The spread over the periods of one process is too small an estimate: memory placement and other
    load on the machine are the same for all of them.
    """
    return max(LEAST_NOISE, repeat_spread(rows) or 0.0)


def noise(row: Comparison, usual: float) -> float:
    """Relative noise of a measured time: the spread of its repeats, or else of its periods.

    At least the usual noise: two or three repeats may agree by chance.
    """
    return max(row.uncertainty or 0.0, usual)


def distinct(a: Comparison, b: Comparison, usual: float) -> bool:
    """Tell whether two measured times differ by more than their noise together."""
    first, second = a.measured_period_s or 0.0, b.measured_period_s or 0.0
    return abs(first - second) > noise(a, usual) * first + noise(b, usual) * second


def ratio_noise(a: Comparison, b: Comparison, usual: float) -> float:
    """Relative noise of the ratio of two measured times, their errors being independent."""
    return math.hypot(noise(a, usual), noise(b, usual))


def warnings(rows: Sequence[Comparison]) -> list[str]:
    """A sentence with advice for each reason to distrust the measured times; often none."""
    measured = [row for row in rows if row.measured]
    if not measured:
        return []
    found = []
    spread = repeat_spread(measured)
    if spread is None:
        found.append(
            "Mind: nothing was repeated, so the noise of the measured times is unknown; "
            "`gnnbench run SUITE --repeats 3` measures it."
        )
    elif spread > LOUD:
        loud = sum((row.repeat_spread or 0.0) > LOUD for row in measured)
        found.append(
            f"Mind: repeats spread by ±{percent(spread)} in the median, and by more than "
            f"{percent(LOUD)} in {loud} of {len(measured)} configurations: the machine was not "
            "idle. Differences below that are noise; run again when nothing else runs."
        )
    probes = [row.probe_ratio for row in measured if row.probe_ratio is not None]
    if probes and abs(statistics.median(probes) - 1) > DRIFT:
        found.append(
            f"Mind: a fixed kernel took {factor(statistics.median(probes))} its time at "
            "calibration during the runs: calibrate again, or run again on an idle machine, before "
            "errors of predictions are judged."
        )
    return found
