"""Held-out protocols on measured runs: leave out a graph, a model, an approach or a scale.

Predictions rest on kernels that `calibrate` measured, never on runs. A protocol asks two things of
each group of runs that is left out: how large the errors are as predicted, and whether a factor and
an interval that the other runs earn serve this group too. The factor is the median of measured over
predicted of the others, the interval their split-conformal radius around it. A factor that helps
the groups it was not made from shows a bias that they share; one that does not shows that errors
belong to a graph, a model, an approach or a number of ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gnnbench.costs.fit import conformal_radius
from gnnbench_reports.comparison import Comparison

Floats = NDArray[np.float64]
FEWEST = 5
"""Runs beside a left-out group that a factor and an interval need."""
_FACTORS: tuple[tuple[str, Callable[[Comparison], str]], ...] = (
    ("graph", lambda row: row.dataset),
    ("model", lambda row: row.model),
    ("approach", lambda row: row.approach),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """A protocol, over all of its groups together.

    Args:
        left_out: what is left out: "graph", "model", "approach", "ranks > 1", "ranks > 2".
        groups: how many were left out in turn.
        runs: configurations in them.
        error: median |error| as predicted.
        corrected: median |error| with the factor of the other groups.
        inside: share of the runs inside the interval that the other groups earned.
        worst: the group with the largest median |error| as predicted, and that error.
    """

    left_out: str
    groups: int
    runs: int
    error: float
    corrected: float
    inside: float
    worst: tuple[str, float]


def held_out(rows: Sequence[Comparison]) -> list[HeldOut]:
    """Judge every protocol that some rows allow: measured and predicted, from several groups."""
    known = [row for row in rows if row.measured_period_s and row.predicted_period_s]
    found: list[HeldOut] = []
    for name, group_of in _FACTORS:
        names = sorted({group_of(row) for row in known})
        parts = [
            (
                name_of,
                [row for row in known if group_of(row) != name_of],
                [row for row in known if group_of(row) == name_of],
            )
            for name_of in names
        ]
        found += _judged(name, parts)
    for most in sorted({row.ranks for row in known})[:-1]:
        few = [row for row in known if row.ranks <= most]
        many = [row for row in known if row.ranks > most]
        found += _judged(f"ranks > {most}", [(f"ranks > {most}", few, many)])
    return found


def _judged(
    name: str, parts: Sequence[tuple[str, list[Comparison], list[Comparison]]]
) -> Iterator[HeldOut]:
    """Judge left-out groups by the runs beside them."""
    raw, corrected, inside, medians = [], [], [], []
    for group, others, own in parts:
        if len(others) < FEWEST or not own:
            continue
        errors, beside = _logs(own), _logs(others)
        shift = float(np.median(beside))
        radius = conformal_radius(beside - shift)
        raw.append(errors)
        corrected.append(errors - shift)
        inside.append(np.abs(errors - shift) <= radius)
        medians.append((group, float(np.median(_relative(errors)))))
    if not raw:
        return
    every = np.concatenate(raw)
    yield HeldOut(
        left_out=name,
        groups=len(raw),
        runs=len(every),
        error=float(np.median(_relative(every))),
        corrected=float(np.median(_relative(np.concatenate(corrected)))),
        inside=float(np.concatenate(inside).mean()),
        worst=max(medians, key=lambda pair: pair[1]),
    )


def _logs(rows: Sequence[Comparison]) -> Floats:
    """Logs of measured over predicted seconds."""
    pairs = [(row.measured_period_s or 0.0, row.predicted_period_s or 0.0) for row in rows]
    measured, predicted = np.array(pairs, np.float64).T
    return np.asarray(np.log(measured / predicted))


def _relative(errors: Floats) -> Floats:
    """|predicted / measured - 1| of log errors."""
    return np.abs(np.expm1(-errors))
