"""Seconds by a calibrated model: the physics form times a bounded residual.

The residual is the distance-weighted mean of the log errors of the five nearest calibration
points. It is clipped, and fades with the distance to the nearest of them, so that far extrapolation
rests on physics alone (simulation 2.2, 10.1).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gnnbench.cluster import CollectiveModel, OpModel
from gnnbench.costs.facts import Facts, Floats
from gnnbench.costs.forms import form

NEIGHBOURS = 5
BOUND = 0.4
"""Largest correction, in log: a residual never changes a time by more than a factor of 1.5."""
REACH = 1.5
"""Distance in log features (a factor of 4.5 in one of them) at which the residual has faded."""


def op_seconds(model: OpModel, facts: Facts) -> Floats:
    """Seconds of each step by a calibrated operation.

    Residuals over features that the form does not have, as in files of older versions, are ignored.
    """
    physics = form(model.form).seconds(facts, model.params)
    if not model.residuals:
        return physics
    points = np.array(model.residuals, dtype=np.float64)
    features = form(model.form).features(facts)
    if points.shape[1] != features.shape[1] + 1:
        return physics
    correction = nearest_residual(features, points[:, :-1], points[:, -1])
    corrected: Floats = physics * np.exp(correction)
    return corrected


def nearest_residual(at: Floats, features: Floats, residuals: Floats) -> Floats:
    """Residual at each row of `at` (n, k) from points (m, k) with their log errors (m,)."""
    unique, inverse = np.unique(at, axis=0, return_inverse=True)
    out = np.empty(len(unique))
    for start in range(0, len(unique), 4096):
        block = unique[start : start + 4096]
        distance = np.sqrt(((block[:, None, :] - features[None, :, :]) ** 2).sum(axis=2))
        out[start : start + 4096] = _weighted(distance, residuals)
    spread: Floats = out[inverse.reshape(-1)]
    return spread


def _weighted(distance: Floats, residuals: Floats) -> Floats:
    count = min(NEIGHBOURS, distance.shape[1])
    near: npt.NDArray[np.intp] = np.argpartition(distance, count - 1, axis=1)[:, :count]
    closest = np.take_along_axis(distance, near, axis=1)
    weights = 1.0 / (0.05 + closest**2)
    mean = (weights * residuals[near]).sum(axis=1) / weights.sum(axis=1)
    fade = np.exp(-((closest.min(axis=1) / REACH) ** 2))
    bounded: Floats = np.clip(mean, -BOUND, BOUND) * fade
    return bounded


def collective_seconds(model: CollectiveModel, volume: Floats) -> Floats:
    """Seconds of a calibrated collective for each volume in bytes."""
    physics: Floats = model.latency_s + volume / model.bytes_per_s
    if not model.residuals:
        return physics
    logs, errors = np.array(model.residuals, dtype=np.float64).T
    correction = np.interp(np.log(np.maximum(volume, 1.0)), logs, errors)
    corrected: Floats = physics * np.exp(np.clip(correction, -BOUND, BOUND))
    return corrected
