"""The declared split of published rows into fitted and held-out ones (fullgraph FG-66).

Declared before any fit: of the logged trainings on the M40 host (GAT, four ranks), configurations
with an odd hidden width are fitted, even ones are held out. `comm_time` of the fitted half gave the
gloo link of cluster `m40x4-gloo-logged`, and its epoch times gave `LOGGED_RADIUS`. Every time of
such a training contains what was fitted, so none of the fitted half is scored. The rate at which
devices draw edges was fitted to the sampling times of SGNN on ogbn-products (GNNLab's artefact, two
configurations on a V100). All other rows are scores, further rows of those hosts included.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from gnnbench.approaches.names import APPROACHES
from gnnbench.published.metrics import EPOCH_TIME, MEAN, TIMES, TOTAL, epochs_of, phases_of
from gnnbench.published.places import LOGGED_CLUSTER
from gnnbench.published.rows import PublishedRow
from gnnbench.published.stream_times import StreamMeasure
from gnnbench.published.systems import Case, Count

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
_REDUCTION = "grad_allreduce_time"
FIT, HELD_OUT, INPUT, SCORE = "fit", "held out", "input", "score"
SCORED = (HELD_OUT, SCORE)
LOGGED_RADIUS = 0.41
"""Radius (log) of what is unknown of the software of the logged trainings on the M40 host.

Nine of ten epoch times of the fitted half lie within it and the simulator's own interval together
(split conformal prediction). How many of the held-out half lie inside is therefore a test."""
REDUCTION_RADIUS = 1.63
"""The same of the timer of the reduction, which waits for all work and for the slowest rank: of the
fitted half, tested on the held-out half."""
EPOCH_RADIUS: Mapping[str, float] = {
    "whole_graph": 0.49,
    "mini_batch": 0.64,
    "out_of_core": 0.54,
    "temporal": 0.87,
}
PART_RADIUS: Mapping[str, float] = {
    "whole_graph": 0.49,
    "mini_batch": 0.64,
    "out_of_core": 0.97,
    "temporal": 0.87,
}
"""The same of all other rows, by family, of times of epochs and of times of parts of an epoch: what
nine of ten visible times need (scripts/software_radius.py, 30 November 2026), and of parts at least
that of epochs; of temporal systems, of which few rows are parts, both together. The script also
prints the share inside with each source left out. Radii move no prediction."""


def software_radius(row: PublishedRow, case: Case | Count) -> float:
    """Radius (log) of what is unknown of a row's software and machine."""
    if row.metric == _REDUCTION:
        return REDUCTION_RADIUS
    if isinstance(case, Case) and case.cluster == LOGGED_CLUSTER:
        return LOGGED_RADIUS
    family = family_of(case)
    return (EPOCH_RADIUS if is_whole(row) else PART_RADIUS)[family]


def is_whole(row: PublishedRow) -> bool:
    """Whether a time is of whole epochs, or of a part of one."""
    return row.metric in (EPOCH_TIME, MEAN, TOTAL) or epochs_of(row) > 0


def family_of(case: Case | Count) -> str:
    """The family of approaches that a case belongs to."""
    if isinstance(case, Case):
        return APPROACHES.get(case.run.approach).family
    return "temporal" if isinstance(case, StreamMeasure) else "out_of_core"


def widened(value: float, low: float, high: float, radius: float) -> tuple[float, float]:
    """The 90 % interval of a predicted time, widened by what is unknown of the software."""
    below = math.hypot(math.log(value / low), radius)
    above = math.hypot(math.log(high / value), radius)
    return value * math.exp(-below), value * math.exp(above)


def used(row: PublishedRow, case: Case | Count) -> str:
    """How a row may be used: only rows of `SCORED` enter a median."""
    if not isinstance(case, Case):
        return INPUT if case.is_input(row) else SCORE
    if row.system.lower().startswith("sgnn") and phases_of(row) == ("sample",):
        return FIT if case.profile.name == "ogbn-products" else SCORE
    graphs = {graph for graph, _ in FITTED}
    logged = case.cluster == LOGGED_CLUSTER and row.model.lower() == "gat" and row.ranks == 4
    if row.metric in TIMES and logged and row.dataset.lower() in graphs:
        widths = FITTED.get((row.dataset.lower(), row.num_layers or 0), ())
        return FIT if row.hidden_width in widths else HELD_OUT
    return SCORE
