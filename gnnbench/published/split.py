"""Which published rows were used to fix constants: the declared split (fullgraph FG-66).

Declared before any fit: of the logged trainings on the M40 host, a configuration with an odd hidden
width belongs to the fit half, an even one is held out. Only `comm_time` of the fit half was fitted,
into the gloo link of cluster `m40x4-gloo-logged`; but no time of such a training is scored, because
all of them contain what was fitted. Everything else is a score.
"""

from __future__ import annotations

import math

from gnnbench.published.metrics import COUNTS, TIMES
from gnnbench.published.places import LOGGED_CLUSTER
from gnnbench.published.rows import PublishedRow
from gnnbench.published.systems import Case

FIT, HELD_OUT, INPUT, SCORE = "fit", "held out", "input", "score"
SCORED = (HELD_OUT, SCORE)
SOFTWARE_RADIUS = 0.41
"""Radius (log) of what is not known of others' software and machines: nine of ten epoch times of
the fit half lie within it and the simulator's own interval together. Split conformal: those rows
are not scored, so that how many of the scored ones lie inside is a test."""
_SAME = 5e-3
"""A count within this of the profile's own point is where the profile has it from."""


def widened(value: float, low: float, high: float) -> tuple[float, float]:
    """The 90 % interval of a predicted time with what is not known of the software in it."""
    below = math.hypot(math.log(value / low), SOFTWARE_RADIUS)
    above = math.hypot(math.log(high / value), SOFTWARE_RADIUS)
    return value * math.exp(-below), value * math.exp(above)


def used(row: PublishedRow, case: Case) -> str:
    """How a row may be used: only `SCORED` ones enter a median."""
    if row.metric in COUNTS:
        return INPUT if is_input(row, case) else SCORE
    if row.metric in TIMES and case.cluster == LOGGED_CLUSTER:
        return FIT if (row.hidden_width or 0) % 2 else HELD_OUT
    return SCORE


def is_input(row: PublishedRow, case: Case) -> bool:
    """Whether a count is what the profile was made from: the same partition, the same number."""
    for point in case.profile.halo:
        if point.parts == row.ranks and point.method == case.method:
            total = point.halo_per_node * case.profile.num_nodes
            largest = total / point.parts * (point.halo_imbalance or 1.0)
            if row.metric.endswith("_total"):
                return abs(total / row.value - 1) < _SAME
            if not row.metric.startswith("inner"):
                return point.halo_imbalance is not None and abs(largest / row.value - 1) < _SAME
    return False
