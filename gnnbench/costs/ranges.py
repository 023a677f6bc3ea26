"""The range of shapes in which an operation was measured, and what going beyond it costs.

A form is physics and stays usable outside of the measured shapes, but its error grows. How fast is
measured where an operation is fitted: the shapes of the top quarter of each fact are left out, and
their errors are compared with their distance from the shapes that are left (`stretch`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from gnnbench.cluster import OpModel
from gnnbench.costs.facts import Facts, Floats
from gnnbench.costs.forms import form

SLACK = 0.25
"""Distance (log) beyond the measured shapes that is still taken as measured."""
_TOP = 0.75
_LEAST = 8  # samples on each side of a cut
MOST_STRETCH = 1.5
"""Largest growth of the error (log) per unit of log distance."""


def range_of(features: Floats) -> tuple[tuple[float, float], ...]:
    """Lowest and highest value of each log feature."""
    low, high = features.min(axis=0), features.max(axis=0)
    pairs = zip(low.tolist(), high.tolist(), strict=True)
    return tuple((round(a, 4), round(b, 4)) for a, b in pairs)


def beyond(model: OpModel, facts: Facts) -> Floats:
    """Log distance of each step from the measured range, by feature of the form; 0 within it."""
    features = form(model.form).features(facts)
    if len(model.range) != features.shape[1]:
        return np.zeros_like(features)
    low, high = np.array(model.range).T
    over = np.maximum(np.maximum(low - features, features - high), 0.0)
    return np.where(over > SLACK, over, 0.0)


def radius_of(model: OpModel, facts: Facts, over: Floats) -> Floats:
    """The radius of each step: that of the operation, wider outside of the measured range.

    Steps of a graph whose order is not known have at least the radius that the fit has without it.
    """
    least = max(model.radius, model.blind_radius) if facts.blind else model.radius
    return np.asarray(least + model.stretch * over.max(axis=1, initial=0.0))


def outside(model: OpModel, facts: Facts, over: Floats, seconds: Floats) -> list[str]:
    """Facts of a form that lie outside of the measured range in steps that matter, in words."""
    shape, total = form(model.form), max(float(seconds.sum()), 1e-300)
    features, lines = shape.features(facts), []
    for place, name in enumerate(shape.feature_names):
        far = over[:, place] > 0
        if float(seconds[far].sum()) < 0.05 * total or not len(model.range):
            continue
        worst = int(np.argmax(np.where(far, over[:, place], -1.0)))
        low, high = np.exp(model.range[place])
        value = float(np.exp(features[worst, place]))
        lines.append(
            f"{model.op}: {name} {_plain(value)}, measured {_plain(low)} to {_plain(high)}"
        )
    return lines


def _plain(value: float) -> str:
    return f"{value:,.0f}" if value >= 99.5 else f"{value:.3g}"


def stretch_of(
    features: Floats,
    radius: float,
    errors_without: Callable[[npt.NDArray[np.bool_]], Floats],
    among: Sequence[int],
) -> float:
    """Growth of the error per unit of log distance beyond the measured range.

    Args:
        features: log features of all samples, [n, k].
        radius: of the operation within its range.
        errors_without: from the mask [n] of samples that are left out to their log errors by a fit
            to the others.
        among: the features that are cut.
    """
    found: list[float] = []
    for place in among:
        cut = float(np.quantile(features[:, place], _TOP))
        out = features[:, place] > cut
        if min(out.sum(), (~out).sum()) < _LEAST:
            continue
        distance = features[out, place] - float(features[~out, place].max())
        far = distance > SLACK
        if far.any():
            errors = np.abs(errors_without(out))[far]
            found += ((errors - radius) / distance[far]).tolist()
    if not found:
        return 0.0
    return float(np.clip(np.quantile(found, 0.9), 0.0, MOST_STRETCH))
