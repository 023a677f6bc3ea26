"""Fit kernel forms to measured points, and judge them on matrices and devices left out.

Two levels: coefficients of a kernel for all devices that were measured, drawn to physical ones; and
those of one device, drawn to the first. What a device's points do not tell, the others' do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gnnbench.costs.fit import conformal_radius
from gnnbench.costs.kernels import KERNELS, Floats, Kernel, Params
from gnnbench.costs.points import Points

FOLDS = 10
_SOFT = 0.15  # log error beyond which a point counts as an outlier
_GENERATED = 0.3  # weight of a generated matrix beside a real graph's 1
_ROWS_OF_ORIGIN = 3.0  # an origin of more points than these weighs no more


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Log errors (measured over predicted) of points that a fit had not seen.

    `inside` is whether each lies in an interval that other folds or devices earned.
    """

    kernel: str
    device: str
    left_out: str
    errors: Floats
    inside: Floats

    @property
    def median(self) -> float:
        """Median of |predicted / measured - 1|."""
        return float(np.median(np.abs(np.expm1(-self.errors))))

    @property
    def p90(self) -> float:
        return float(np.quantile(np.abs(np.expm1(-self.errors)), 0.9))

    @property
    def bias(self) -> float:
        """Median of predicted over measured."""
        return float(np.exp(-np.median(self.errors)))


def fit_kernel(
    kernel: Kernel, groups: Sequence[Points], *, near: Params | None = None
) -> dict[str, float]:
    """Coefficients of a kernel for the points of some devices.

    Args:
        kernel: the form.
        groups: points, one group per device.
        near: coefficients to draw to; those of physics by default.
    """
    from scipy.optimize import least_squares

    start = dict(near or kernel.start)
    names = list(start)
    origin = np.log([start[n] for n in names])
    draw = kernel.device_draw if near else kernel.draw
    price = draw / np.array([kernel.spread[n] for n in names])
    logs = [np.log(group.seconds) for group in groups]
    weights = [_weights(group) for group in groups]

    def residual(x: Floats) -> Floats:
        params = dict(zip(names, np.exp(x).tolist(), strict=True))
        parts = []
        for group, log, weight in zip(groups, logs, weights, strict=True):
            error = weight * (np.log(kernel.seconds(group.shapes, group.device, params)) - log)
            bent = np.sqrt(2.0 * (np.sqrt(1.0 + (error / _SOFT) ** 2) - 1.0))
            parts.append(np.sign(error) * bent * _SOFT)
        return np.concatenate([*parts, price * (x - origin)])

    found = least_squares(residual, origin, max_nfev=60).x
    return dict(zip(names, np.exp(found).tolist(), strict=True))


def _weights(group: Points) -> Floats:
    """Every matrix counts alike, however many widths it was measured at."""
    _, place, counts = np.unique(group.origins, return_inverse=True, return_counts=True)
    each = np.minimum(_ROWS_OF_ORIGIN / counts[place], 1.5)
    return np.asarray(np.sqrt(each * np.where(group.judged, 1.0, _GENERATED)))


def errors_of(kernel: Kernel, group: Points, params: Params) -> Floats:
    """Log of measured over predicted seconds."""
    seconds = kernel.seconds(group.shapes, group.device, params)
    return np.asarray(np.log(group.seconds / seconds))


def leave_origins_out(groups: Sequence[Points], *, seed: int = 1) -> list[Judged]:
    """Judge each device's own fit on matrices (GEMM: shapes) that no fit had seen, in ten folds."""
    kernel = KERNELS[groups[0].kernel]
    names = list(dict.fromkeys(name for group in groups for name in group.origins))
    order = np.random.default_rng(seed).permutation(len(names)) % FOLDS
    fold_of = dict(zip(names, order.tolist(), strict=True))
    folds = [np.array([fold_of[name] for name in group.origins]) for group in groups]
    errors = [np.zeros(len(group)) for group in groups]
    for fold in range(FOLDS):
        rest = [take(g, f != fold) for g, f in zip(groups, folds, strict=True)]
        if not any(np.any(f == fold) for f in folds) or not all(len(g) for g in rest):
            continue
        joint = fit_kernel(kernel, rest)
        for group, known, places, out in zip(groups, rest, folds, errors, strict=True):
            unseen = places == fold
            if np.any(unseen):
                params = fit_kernel(kernel, [known], near=joint)
                out[unseen] = errors_of(kernel, take(group, unseen), params)
    judged = []
    for group, error, places in zip(groups, errors, folds, strict=True):
        inside = np.zeros(len(group))
        for fold in np.unique(places):
            rest_of = (places != fold) & group.judged
            if np.any(rest_of):
                at = places == fold
                inside[at] = np.abs(error[at]) <= conformal_radius(error[rest_of])
        real = group.judged
        what = "shape" if kernel.operation == "gemm" else "matrix"
        judged.append(judged_of(group, what, error[real], inside[real]))
    return judged


def leave_devices_out(groups: Sequence[Points]) -> list[Judged]:
    """Judge the common fit on each device that it had not seen; needs two devices.

    The interval of a device is earned on the others: of what each of these misses when it is left
    out too, the largest counts.
    """
    kernel = KERNELS[groups[0].kernel]
    if len(groups) < 2:
        return []
    errors = []
    for out, group in enumerate(groups):
        rest = [g for place, g in enumerate(groups) if place != out]
        error = errors_of(kernel, group, fit_kernel(kernel, rest))
        errors.append(error[group.judged])
    radii = [conformal_radius(error) for error in errors]
    judged = []
    for out, group in enumerate(groups):
        radius = max(r for place, r in enumerate(radii) if place != out)
        inside = (np.abs(errors[out]) <= radius).astype(float)
        judged.append(judged_of(group, "device", errors[out], inside))
    return judged


def take(group: Points, index: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Points:
    """The points of some places."""
    return Points(
        kernel=group.kernel,
        device=group.device,
        shapes=group.shapes.take(index),
        seconds=group.seconds[index],
        origins=tuple(np.array(group.origins, dtype=object)[index]),
        judged=group.judged[index],
        source=group.source,
    )


def judged_of(group: Points, left_out: str, errors: Floats, inside: Floats) -> Judged:
    """A judgement of a group's points, or of some of them."""
    return Judged(
        kernel=group.kernel,
        device=group.device.device,
        left_out=left_out,
        errors=errors,
        inside=inside,
    )
