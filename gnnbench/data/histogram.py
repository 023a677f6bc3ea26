"""Histograms as profiles keep them: exact for small values, in wider bins for the tail."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def distinct(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the distinct values in rising order, by a sort.

    numpy's `unique` hashes integers, which is fifty times slower on tens of millions.
    """
    ordered = np.sort(values, axis=None)
    return ordered[np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))]


def binned(values: NDArray[np.int64]) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Return counts and how many there are of each; those over 16 joined in bins a seventh wide.

    A joined value is the mean of its bin, so that sums stay.
    """
    per_value = np.bincount(values)
    found = np.flatnonzero(per_value)
    counts = per_value[found]
    tail = 16 + np.ceil(np.log(np.maximum(found, 16) / 16) / math.log(1.15))
    starts = np.flatnonzero(np.diff(np.where(found <= 16, found, tail), prepend=-1))
    if not len(starts):
        return (), ()
    joined = np.add.reduceat(counts, starts)
    means = np.add.reduceat(found * counts, starts) / joined
    return tuple(round(m, 4) for m in means.tolist()), tuple(joined.tolist())


def median(values: Sequence[float], counts: Sequence[int]) -> float | None:
    """Return the median of a histogram, to the width of its bin; None without one."""
    seen, half = 0, sum(counts) / 2
    for value, count in zip(values, counts, strict=True):
        seen += count
        if seen >= half:
            return value
    return None


def log_normal_degrees(
    num_nodes: int, mean: float, spread: float, bins: int = 48
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return a histogram of log-normal degrees of this mean, in bins that get finer in the tail."""
    if spread == 0:
        return (mean,), (float(num_nodes),)
    above = np.concatenate([[1.0], np.geomspace(0.9, 1e-6, bins - 1), [0.0]])
    shares = above[:-1] - above[1:]
    normal = statistics.NormalDist()
    middles = 1 - (above[:-1] + above[1:]) / 2
    values = np.exp(spread * np.array([normal.inv_cdf(float(m)) for m in middles]))
    values *= mean / (values * shares).sum()
    return tuple(values.tolist()), tuple((shares * num_nodes).tolist())
