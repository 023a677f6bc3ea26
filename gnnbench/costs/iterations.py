"""How wrong sums of operations are: intervals earned on whole iterations of the probes.

The radius of an operation says how far single steps were off. The time of an iteration is a sum of
many steps of several operations, whose errors cancel in part. How much they do is counted on the
probes of a calibration: the steps of each probe, predicted by fits that have not seen it (nor its
kind of graph, where kinds are left out), are added up and compared with the measured sum.

Two numbers result. `common` is the share of the variance that operations of one iteration have in
common. `factor` multiplies the radii: it is the conformal quantile of the errors of the sums, in
units of the spread that radii, `shared` and `common` give. No constant is chosen: with
iterations like those of the probes, nine of ten lie inside (normalised conformal prediction,
Papadopoulos et al., ECML 2002).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gnnbench.cluster import IterationModel, OpModel
from gnnbench.costs.facts import Floats
from gnnbench.costs.fit import conformal_radius

Z90 = 1.645
"""Standard deviations of a normal distribution between its median and its 95 % quantile."""
SHARED = 0.3
"""Share of the variance of a class's errors that all its steps have in common; the rest is each
shape's own and averages out over the different steps of an iteration. Assumed where calibration
does not say it (`OpModel.shared`)."""
UNCOUNTED = IterationModel(common=0.23, factor=1.0)
"""Assumed of cluster files that do not say it. `common` as in the first calibration that counted it
(76 iterations of one rank, two cores of an AMD EPYC, 30 November 2026); the factor was 1.02."""
LEAST = 10
"""Iterations from which on a factor can be counted: with fewer, no error is the 90 % quantile."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Held:
    """One operation's samples, held out: log of measured over predicted, and measured seconds.

    `sums` names, for each sample, the iteration of a rank that the step belongs to; None: to none.
    """

    model: OpModel
    seconds: Floats
    errors: Floats
    sums: Sequence[Hashable | None]


@dataclass(frozen=True, slots=True, eq=False)
class _Sum:
    """An iteration: share of the predicted time, log error and spread of each operation."""

    key: Hashable
    shares: Floats
    errors: Floats
    spreads: Floats

    @property
    def error(self) -> float:
        """Log of the measured sum over the predicted one."""
        return float(np.log(np.sum(self.shares * np.exp(self.errors))))

    def spread(self, common: float) -> float:
        """Standard deviation of the log of the sum."""
        each = self.shares * self.spreads
        return float(np.sqrt((1.0 - common) * (each**2).sum() + common * each.sum() ** 2))


def class_spread(radius: float, shared: float | None, steps: float) -> float:
    """Standard deviation of the log of the time of one operation's steps in an iteration.

    Args:
        radius: 90 % of single steps lie within exp(+-radius).
        shared: share of the variance that all steps have in common; None: not known.
        steps: number of steps, see `alike`.
    """
    share = SHARED if shared is None else shared
    return float(radius / Z90 * np.sqrt(share + (1.0 - share) / max(steps, 1.0)))


def alike(seconds: Floats) -> float:
    """As many equal steps as have the relative spread of a sum of these: (sum t)^2 / sum t^2."""
    squares = float((seconds**2).sum())
    return float(seconds.sum()) ** 2 / squares if squares > 0 else 1.0


def iteration_model(
    held: Sequence[Held], co_located: int, kinds: Mapping[Hashable, str]
) -> IterationModel | None:
    """Judge the sums of the iterations of probes; None where too few of them are known.

    Args:
        held: held-out errors of each operation.
        co_located: ranks that worked on the host at the same time.
        kinds: kind of graph of each iteration.
    """
    sums = _sums(held)
    if len(sums) < LEAST:
        return None
    common = common_of(sums)
    scores = np.array([s.error / s.spread(common) for s in sums])
    errors = np.array([s.error for s in sums])
    # Iterations on a kind of graph are judged by the quantile of those on other kinds, as a run on
    # a graph unlike the probes is by all of them.
    kind = np.array([kinds.get(s.key, "") for s in sums])
    inside = [
        abs(score) <= conformal_radius(scores[kind != own])
        for score, own in zip(scores.tolist(), kind.tolist(), strict=True)
        if np.any(kind != own)
    ]
    return IterationModel(
        co_located=co_located,
        common=round(common, 4),
        factor=round(conformal_radius(scores) / Z90, 4),
        radius=round(conformal_radius(errors), 4),
        median=round(float(np.median(np.abs(np.expm1(-errors)))), 4),
        inside=round(float(np.mean(inside)), 4) if inside else None,
        iterations=len(sums),
    )


def common_of(sums: Sequence[_Sum]) -> float:
    """Share of the variance that the operations of an iteration have in common.

    The products of the errors of two operations, over what they would be if both were always off
    alike, weighed by the time of both: as a sum of the operations feels them.
    """
    found = expected = 0.0
    for one in sums:
        # Cut at twice the radius, as in `shared_of`: one wild step says nothing of the others.
        cut = 2.0 * Z90 * one.spreads
        felt = one.shares * np.clip(one.errors, -cut, cut)
        most = one.shares * one.spreads
        found += float(felt.sum() ** 2 - (felt**2).sum())
        expected += float(most.sum() ** 2 - (most**2).sum())
    return float(np.clip(found / expected, 0.0, 1.0)) if expected > 0 else 0.0


def _sums(held: Sequence[Held]) -> list[_Sum]:
    """The iterations of which more than one step is known."""
    found: dict[Hashable, list[tuple[float, float, float]]] = defaultdict(list)
    counts: dict[Hashable, int] = defaultdict(int)
    for op in held:
        for key, places in _places(op.sums).items():
            measured = op.seconds[places]
            predicted = measured * np.exp(-op.errors[places])
            spread = class_spread(op.model.radius, op.model.shared, alike(predicted))
            total = float(predicted.sum())
            found[key].append((total, float(np.log(measured.sum() / total)), spread))
            counts[key] += len(places)
    sums = []
    for key, parts in found.items():
        totals, errors, spreads = np.array(parts, dtype=np.float64).T
        if counts[key] > 1:
            shares = totals / totals.sum()
            sums.append(_Sum(key, shares, errors, spreads))
    return sums


def _places(names: Sequence[Hashable | None]) -> Mapping[Hashable, npt.NDArray[np.intp]]:
    found: dict[Hashable, list[int]] = defaultdict(list)
    for place, name in enumerate(names):
        if name is not None:
            found[name].append(place)
    return {name: np.array(places, dtype=np.intp) for name, places in found.items()}
