"""Histograms as profiles keep them: exact for small values, in wider bins for the tail."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def binned(values: NDArray[Any]) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Return values and how many there are of each; those over 16 joined in bins a seventh wide.

    A joined value is the mean of its bin, so that sums stay.
    """
    distinct, counts = np.unique(values, return_counts=True)
    tail = 16 + np.ceil(np.log(np.maximum(distinct, 16) / 16) / math.log(1.15))
    starts = np.flatnonzero(np.diff(np.where(distinct <= 16, distinct, tail), prepend=-1))
    if not len(starts):
        return (), ()
    joined = np.add.reduceat(counts, starts)
    means = np.add.reduceat(distinct * counts, starts) / joined
    return tuple(round(m, 4) for m in means.tolist()), tuple(joined.tolist())


def median(values: Sequence[float], counts: Sequence[int]) -> float | None:
    """Return the median of a histogram, to the width of its bin; None without one."""
    seen, half = 0, sum(counts) / 2
    for value, count in zip(values, counts, strict=True):
        seen += count
        if seen >= half:
            return value
    return None
