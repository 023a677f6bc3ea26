"""Fit physics forms to measured samples: relative errors, robust loss, radius from held-out points.

A fit starts from non-negative least squares on relative errors for each combination of starting
shapes, then refines everything together in log space with a soft-L1 loss (simulation 10.1). The
radius comes from points that were not used in the fit (split conformal over folds, simulation
10.4).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gnnbench.cluster import UNJUDGED, CollectiveModel, OpModel
from gnnbench.costs.facts import Facts, Floats
from gnnbench.costs.forms import CEILINGS, FORM_OF_KIND, FORM_OF_OP, Form, Shapes
from gnnbench.costs.forms import form as form_named
from gnnbench.costs.model import BOUND, nearest_residual
from gnnbench.costs.ranges import range_of, stretch_of
from gnnbench.errors import SpecError
from gnnbench.steps import Work

MAX_POINTS = 128
COVERAGE = 0.9
FOLDS = 5
REFITS = 25
"""Steps of a fit to some of the samples, which starts from the fit to all of them."""
LEAST_KINDS = 4
"""Kinds of graph from which on whole kinds are left out."""
CUT = frozenset({"rows", "width", "inner", "source rows", "elements", "mean degree", "bytes"})
"""Facts whose upper range is left out, to see what extrapolation costs."""
_SOFT = 0.1  # log error beyond which a sample counts as an outlier
_STEP = 1e-4  # in the logarithm of a cache size, to see what it changes
_UNKNOWN = math.log(10.0)
_TINY = 1e-4  # a coefficient never starts below this share of the samples' time
_COMMON = 0.05
"""Share of a ceiling that is common: 4 GB/s of a core from memory, 20 ns of each of many misses."""


def fit_op(samples: Sequence[tuple[Work, float]], **how: Any) -> OpModel:
    """The model of an operation, see `fit_judged`."""
    return fit_judged(samples, **how)[0]


def fit_judged(
    samples: Sequence[tuple[Work, float]],
    *,
    op: str = "",
    form: str = "",
    origins: npt.ArrayLike | None = None,
    graphs: npt.ArrayLike | None = None,
    co_located: int = 1,
    element_bytes: float = 4.0,
    constants: Mapping[str, float] | None = None,
    status: str = "measured",
    source: str = "calibrate",
) -> tuple[OpModel, Floats]:
    """Fit one operation to samples of (work, seconds).

    Returns the model, and the log errors (measured over predicted) of the samples when held out.

    Args:
        samples: work with all shape facts that their kind has, and measured seconds each. Several
            samples of one shape are allowed. At least four different shapes.
        op: cost class; the samples' own by default.
        origins: number of the source of each sample. Samples of one source share its
            disturbances and are held out together. By default, the shape is the source.
        graphs: kind of graph of each sample. Where there are enough kinds, each is left out as a
            whole, so that the radius is earned on kinds that the fit has not seen.
        form: a form's name; by default that of the samples' kind ("rows" for elementwise work).
        co_located: number of ranks that worked on the host at the same time.
        constants: parameters of the form that are set, not fitted (e.g. line_bytes).

    Raises:
        SpecError: too few samples, or a time that is not positive.
    """
    works = [done for done, _ in samples]
    seconds = np.array([s for _, s in samples], dtype=np.float64)
    op = op or (works[0].op if works else "")
    _check(seconds, f"fit of {op!r}")
    kind = works[0].kind.value
    shape = form_named(form or FORM_OF_OP.get(op) or FORM_OF_KIND.get(kind, "rows"))
    facts = Facts.of(works, element_bytes=element_bytes)
    fixed = dict(constants or {})
    params = _fit(shape, facts, seconds, fixed)
    if origins is None:
        # Rounded, so that equal shapes fall together in spite of the last digits of their
        # logarithms.
        features = shape.features(facts).round(6)
        origins = np.unique(features, axis=0, return_inverse=True)[1].reshape(-1)
    kinds = np.zeros(0) if graphs is None else np.asarray(graphs)
    # Few kinds would leave too little to fit to when one is left out.
    by_kind = len(np.unique(kinds)) >= LEAST_KINDS
    judge = Judge(shape, seconds, fixed, params)
    places = np.asarray(origins)
    bare, corrected = judge.held_out(facts, kinds if by_kind else places, by_kind)
    # Samples too noisy to tell their neighbours' times are better left to physics.
    helps = np.median(np.abs(corrected)) < np.median(np.abs(bare))
    features = shape.features(facts)
    # Samples of one shape have no neighbours that are nearer than others.
    helps = helps and bool(np.ptp(features, axis=0).any())
    errors = corrected if helps else bare
    radius = conformal_radius(errors)
    residual = np.log(seconds / shape.seconds(facts, params))
    # A subset spread evenly is enough to look neighbours up in, and keeps cluster files small.
    keep = _spread(len(seconds), MAX_POINTS if helps else 0)
    # Bounded: one wild sample must not multiply predictions near it.
    rows = np.column_stack([features, np.clip(residual, -BOUND, BOUND)])[keep]
    blind = 0.0
    if facts.reuse is not None:
        ordered = ~np.isnan(facts.reuse[:, 0])
        unordered = facts.take(np.flatnonzero(ordered)).without_order()
        # The same samples judged as if the order of vertices were unknown: what a profile will have
        # to do.
        blind = conformal_radius(np.log(seconds[ordered] / shape.seconds(unordered, params)))
    model = OpModel(
        op=op,
        kind=kind,
        form=shape.name,
        params={name: float(value) for name, value in params.items()},
        co_located=co_located,
        residuals=tuple(tuple(round(float(v), 4) for v in row) for row in rows),
        radius=radius,
        # A profile cannot be surer than a graph whose order is known.
        blind_radius=max(blind, radius) if blind else 0.0,
        range=range_of(features),
        stretch=stretch_of(
            features,
            radius,
            lambda out: judge.left_out(facts, out)[0],
            [place for place, name in enumerate(shape.feature_names) if name in CUT],
        ),
        held_out="kinds of graph" if by_kind else "workloads",
        shared=shared_of(errors, places, radius),
        mape=float(np.mean(np.abs(np.exp(-errors) - 1.0))),
        points=len(seconds),
        status=status,
        source=source,
    )
    return model, errors


def fit_collective(
    samples: Sequence[tuple[float, float]],
    *,
    op: str,
    ranks: int,
    co_located: int = 0,
    layout: str = "intra",
    status: str = "measured",
    source: str = "calibrate",
) -> CollectiveModel:
    """Fit one collective to samples of (bytes, seconds).

    Bytes are the most that any rank sends (`steps.Work.bytes`; broadcast: the buffer; barrier: 0),
    seconds from the last rank's start to the end. At least six sizes are wise (simulation 10.1).
    """
    # In relative terms, so that small and large transfers weigh alike.
    volume = np.array([b for b, _ in samples], dtype=np.float64)
    seconds = np.array([s for _, s in samples], dtype=np.float64)
    where = f"fit of {op!r} on {ranks} ranks"
    _check(seconds, where, least=1)
    # A barrier has no bytes: only its latency can be fitted.
    if not np.any(volume > 0):
        latency, rate, errors = (
            float(np.median(seconds)),
            1e12,
            np.log(seconds / np.median(seconds)),
        )
        pairs: list[tuple[float, float]] = []
    else:
        shape = _ALPHA_BETA
        params = _fit(shape, _volumes(volume), seconds, {})
        # At most 1e14 bytes per second, where the slope vanishes in the noise.
        latency, rate = params["t0_s"], 1.0 / max(params["s_per_byte"], 1e-14)
        errors = np.log(seconds / (latency + volume / rate))
        pairs = _by_size(volume, errors)
        # Left-out points: what their own size adds to the residual must not shrink the radius.
        errors = errors - np.array([_without(volume, errors, i) for i in range(len(errors))])
    return CollectiveModel(
        op=op,
        ranks=ranks,
        co_located=co_located,
        layout=layout,
        latency_s=latency,
        bytes_per_s=rate,
        residuals=tuple(pairs),
        radius=conformal_radius(errors),
        mape=float(np.mean(np.abs(np.exp(-errors) - 1.0))),
        points=len(seconds),
        status=status,
        source=source,
    )


def conformal_radius(errors: Floats, coverage: float = COVERAGE) -> float:
    """The ceil((m+1) coverage)-th smallest |log error| of m held-out points (simulation 10.4).

    # The conformal rank needs a point beyond the coverage; with fewer points the largest error is
    # stretched.
    With too few points for that rank, 1.5 times the largest error.
    """
    sizes = np.sort(np.abs(errors))
    rank = math.ceil((len(sizes) + 1) * coverage)
    radius = float(sizes[rank - 1]) if rank <= len(sizes) else 1.5 * float(sizes[-1])
    # At least one percent: a perfect fit of few points promises too much.
    return max(radius, 0.01)


def shared_of(errors: Floats, origins: npt.NDArray[Any], radius: float) -> float | None:
    """Share of the variance of log errors that samples of one origin have in common.

    The mean product of two errors of an origin over the mean square (intraclass correlation around
    zero: a bias is in common too). Errors are cut at twice the radius. None without pairs.
    """
    kept = np.clip(errors, -2 * radius, 2 * radius)
    groups = np.unique(origins, return_inverse=True)[1].reshape(-1)
    sizes, sums = np.bincount(groups), np.bincount(groups, kept)
    squares = np.bincount(groups, kept**2)
    pairs = float((sizes * (sizes - 1)).sum())
    square = float((kept**2).mean())
    if not pairs or square == 0:
        return None
    # A workload with many steps of a kind says no more about what workloads have in common.
    several = sizes > 1
    each = (sums**2 - squares)[several] / (sizes * (sizes - 1))[several]
    return round(float(np.clip(each.mean() / square, 0.0, 1.0)), 4)


def _check(seconds: Floats, where: str, least: int = 4) -> None:
    if len(seconds) < least:
        raise SpecError(f"{where}: found {len(seconds)} samples, needs at least {least}")
    if not np.all(np.isfinite(seconds)) or np.any(seconds <= 0):
        raise SpecError(f"{where}: every sample needs a finite time above zero")


def _fit(
    shape: Form,
    facts: Facts,
    seconds: Floats,
    fixed: Shapes,
    start: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Best parameters over all starting shapes; with `start`, refine that one alone."""
    if start is not None:
        return _refine(shape, facts, seconds, fixed, start, most=REFITS)[1]
    if _few(shape, facts):
        # So few samples meet any bend exactly: a cache size fitted to them would be noise.
        middle = {name: sizes[len(sizes) // 2] for name, sizes in shape.shapes.items()}
        fixed = {**middle, **fixed}
    free = [name for name in shape.shapes if name not in fixed]
    starts = []
    # Starts on a grid of cache sizes, because the loss has a minimum on each side of a bend.
    for values in itertools.product(*(shape.shapes[name] for name in free)):
        shapes = {**fixed, **dict(zip(free, values, strict=True))}
        coefficients = _nonnegative(shape, shape.terms(facts, shapes), seconds)
        first = {**shapes, **dict(zip(shape.coefficients, coefficients, strict=True))}
        predicted = shape.seconds(facts, first)
        # Compared in logarithms, in which errors are judged later.
        loss = float(np.abs(np.log(np.maximum(predicted, 1e-12) / seconds)).mean())
        starts.append((loss, first))
    starts.sort(key=lambda pair: pair[0])
    # Refining the best three starts finds the same minimum as refining all.
    found = [_refine(shape, facts, seconds, fixed, first) for _, first in starts[:3]]
    return min(found, key=lambda pair: pair[0])[1]


def _few(shape: Form, facts: Facts) -> bool:
    """Whether a fit has about as many parameters as samples, of those that any sample tells of."""
    middle = {name: sizes[len(sizes) // 2] for name, sizes in shape.shapes.items()}
    used = np.count_nonzero(shape.terms(facts, middle).any(axis=0))
    return bool(len(facts) <= 2 * (used + len(shape.shapes)))


def _nonnegative(shape: Form, terms: Floats, seconds: Floats) -> Floats:
    from scipy.optimize import lsq_linear, nnls

    # Divided by the seconds, so that least squares minimises relative errors.
    relative = terms / seconds[:, None]
    scale = np.maximum(np.abs(relative).max(axis=0), 1e-300)
    most = np.array([CEILINGS.get(name, np.inf) for name in shape.coefficients])
    # Bounds must leave room between them, even where a ceiling lies below the smallest share.
    bounds = (np.zeros(len(scale)), np.maximum(most * scale, 2 * _TINY))
    # On few noisy samples the solver tries steps of no direction (0 times infinity), which it then
    # rejects.
    with np.errstate(invalid="ignore"):
        solution = lsq_linear(relative / scale, np.ones(len(seconds)), bounds=bounds).x
    if not np.all(np.isfinite(solution)):
        solution = np.minimum(nnls(relative / scale, np.ones(len(seconds)))[0], bounds[1])
    used = np.abs(relative).max(axis=0) > 0
    # Small, not zero: a refinement in logarithms cannot leave zero. What the samples hardly show
    # (misses of steps that fit the cache) is a guess that larger steps will pay: a common cost.
    least = np.minimum(_TINY / scale, _COMMON * most)
    coefficients: Floats = np.where(used, np.clip(solution / scale, least, most), 0.0)
    return coefficients


def _refine(
    shape: Form,
    facts: Facts,
    seconds: Floats,
    fixed: Shapes,
    start: Mapping[str, float],
    *,
    most: int = 200,
) -> tuple[float, dict[str, float]]:
    from scipy.optimize import least_squares

    names = [n for n in (*shape.coefficients, *shape.shapes) if n not in fixed and start[n] > 0]
    # Logarithms keep coefficients positive without a bound.
    origin = np.log([start[n] for n in names])
    # A cache size is pinned by few points: keep it within a factor of two of where it started.
    reach = np.array([math.log(2.0) if n in shape.shapes else 25.0 for n in names])
    ceilings = np.log([CEILINGS.get(n, np.inf) for n in names])
    highest = np.maximum(np.minimum(origin + reach, ceilings), origin + 1e-6)
    logs = np.log(seconds)

    def params_at(x: Floats) -> dict[str, float]:
        values = dict(zip(names, np.exp(x).tolist(), strict=True))
        return {**{n: 0.0 for n in shape.coefficients}, **fixed, **values}

    def residual(x: Floats) -> Floats:
        predicted = shape.seconds(facts, params_at(x))
        out: Floats = np.log(np.maximum(predicted, 1e-12)) - logs
        return out

    def slopes(x: Floats) -> Floats:
        """Derivatives of the residuals by the logarithm of each parameter.

        Of a sum of costs, that of a coefficient is the share of its cost; only cache sizes need a
        difference, which spares most evaluations of the terms.
        """
        params = params_at(x)
        parts = shape.terms(facts, params) * np.array([params[n] for n in shape.coefficients])
        total = np.maximum(parts.sum(axis=1), 1e-12)
        found = np.empty((len(seconds), len(names)))
        for place, name in enumerate(names):
            if name in shape.shapes:
                moved = x.copy()
                moved[place] += _STEP
                found[:, place] = (residual(moved) - residual(x)) / _STEP
            else:
                found[:, place] = parts[:, shape.coefficients.index(name)] / total
        return found

    result = least_squares(
        residual,
        origin,
        # With overlapped costs the largest one counts, which has no smooth derivative.
        jac="2-point" if shape.overlapped else slopes,
        bounds=(origin - reach, highest),
        # Soft: an epoch disturbed by another process must not bend the fit.
        loss="soft_l1",
        f_scale=_SOFT,
        max_nfev=most,
    )
    return float(result.cost), params_at(result.x)


class Judge:
    """Fits to some of the samples, judged on the others.

    Args:
        shape: the form.
        seconds: of all samples.
        fixed: parameters that are set.
        start: parameters from which fits start.
    """

    def __init__(
        self, shape: Form, seconds: Floats, fixed: Shapes, start: Mapping[str, float]
    ) -> None:
        self.shape, self.seconds, self.fixed, self.start = shape, seconds, fixed, start

    def held_out(
        self, facts: Facts, origins: npt.NDArray[Any], by_kind: bool
    ) -> tuple[Floats, Floats]:
        """Log errors of each sample by a model fitted without its fold, as `left_out`.

        A fold has some of the origins, or with `by_kind` one.
        """
        groups = np.unique(origins, return_inverse=True)[1].reshape(-1)
        number = int(groups.max()) + 1
        order = np.random.default_rng(0).permutation(number)
        folds = groups if by_kind else order[groups] % min(FOLDS, number)
        bare, corrected = np.zeros(len(self.seconds)), np.zeros(len(self.seconds))
        for fold in range(int(folds.max()) + 1):
            out = folds == fold
            bare[out], corrected[out] = self.left_out(facts, out)
        return bare, corrected

    def left_out(self, facts: Facts, out: npt.NDArray[Any]) -> tuple[Floats, Floats]:
        """Log errors of the samples in the mask `out` by a fit to the others.

        Returns:
            Errors of the form alone, and with the residual of the samples that were not left out.
        """
        shape, seconds = self.shape, self.seconds
        unseen, rest = facts.take(np.flatnonzero(out)), np.flatnonzero(~out)
        if not len(rest):
            nothing = np.full(int(out.sum()), UNJUDGED)
            return nothing, nothing
        known = facts.take(rest)
        # A start from all samples would remember those that are left out where few are left.
        start = None if _few(shape, known) else self.start
        fitted = _fit(shape, known, seconds[rest], self.fixed, start=start)
        residual = np.log(seconds[rest] / shape.seconds(known, fitted))
        correction = nearest_residual(shape.features(unseen), shape.features(known), residual)
        bare: Floats = np.log(seconds[out] / np.maximum(shape.seconds(unseen, fitted), 1e-12))
        # Beyond a factor of ten an interval says no more than that nothing is known.
        bare = np.clip(bare, -_UNKNOWN, _UNKNOWN)
        return bare, bare - correction


def _spread(count: int, most: int) -> npt.NDArray[np.intp]:
    """At most this many evenly spread places."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.intp))


def _volume_terms(f: Facts, _: Shapes) -> Floats:
    return np.stack([np.ones(len(f)), f.bytes], axis=1)


_ALPHA_BETA = Form(
    name="alpha_beta",
    coefficients=("t0_s", "s_per_byte"),
    terms=_volume_terms,
    features=lambda f: np.log(np.maximum(f.bytes, 1.0))[:, None],
    feature_names=("bytes",),
    shapes={},
)


def _volumes(volume: Floats) -> Facts:
    none = np.zeros(len(volume))
    return Facts(
        flops=none,
        bytes=volume,
        rows=none,
        nonzeros=none,
        width=none,
        inner=none,
        source_rows=none,
    )


def _by_size(volume: Floats, errors: Floats) -> list[tuple[float, float]]:
    """Median log error of each size, at most MAX_POINTS of them."""
    sizes = np.unique(volume)
    sizes = sizes[_spread(len(sizes), MAX_POINTS)]
    medians = [float(np.median(errors[volume == size])) for size in sizes]
    clipped = np.clip(medians, -BOUND, BOUND)
    return [
        (round(math.log(max(size, 1.0)), 4), round(float(e), 4))
        for size, e in zip(sizes.tolist(), clipped, strict=True)
    ]


def _without(volume: Floats, errors: Floats, index: int) -> float:
    """Residual at a point, interpolated from the other sizes."""
    others = volume != volume[index]
    if not np.any(others):
        return 0.0
    pairs = _by_size(volume[others], errors[others])
    logs, medians = zip(*pairs, strict=True)
    return float(np.interp(math.log(max(float(volume[index]), 1.0)), logs, medians))
