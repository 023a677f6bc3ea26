"""Which published rows were used to fix constants: the declared split (fullgraph FG-66).

Declared before any fit: of the logged trainings on the M40 host (GAT, four ranks), a configuration
with an odd hidden width belongs to the fit half, an even one is held out. `comm_time` of the fit
half was fitted, into the gloo link of cluster `m40x4-gloo-logged`, and its epoch times gave
`SOFTWARE_RADIUS`; no time of such a training is scored, because all of them contain what was
fitted. Everything else is a score, and so is any further row of that host.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from gnnbench.published.metrics import COUNTS, TIMES
from gnnbench.published.places import LOGGED_CLUSTER
from gnnbench.published.rows import PublishedRow
from gnnbench.published.systems import Case

FITTED: Mapping[tuple[str, int], tuple[int, ...]] = {
    ("ogbn-arxiv", 2): (123, 141, 223, 247),
    ("ogbn-arxiv", 3): (83, 115, 135, 137, 245),
    ("ogbn-arxiv", 4): (171, 211, 233),
    ("ogbn-arxiv", 5): (99, 237),
    ("pubmed", 2): (227,),
    ("pubmed", 3): (83, 153),
    ("pubmed", 4): (77, 191),
    ("pubmed", 5): (77,),
}
"""Hidden widths that were fitted, by graph and layers."""
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
    graphs = {graph for graph, _ in FITTED}
    logged = case.cluster == LOGGED_CLUSTER and row.model.lower() == "gat" and row.ranks == 4
    if row.metric in TIMES and logged and row.dataset.lower() in graphs:
        widths = FITTED.get((row.dataset.lower(), row.num_layers or 0), ())
        return FIT if row.hidden_width in widths else HELD_OUT
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
