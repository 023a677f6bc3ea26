"""Metrics of temporal link prediction from scores: mean reciprocal rank, AP, ROC AUC.

The rank of a true edge is the middle one among equals: (#{false > true} + #{false >= true}) / 2 +
1, so that a constant scorer gains nothing (temporal reference section 12, invariant E1). AP and AUC
are taken over all events together, with the first false edge of each.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
_DIGITS = 6
"""Scores nearer than this are equal: rows of one table differ by rounding with their place."""


def link_metrics(scores: Scores) -> dict[str, float]:
    """Return mrr, ap and auc; none of them where there are no events.

    Args:
        scores: [n, 1 + k], the true edge first.
    """
    if not len(scores):
        return {}
    rounded: Scores = np.round(scores, _DIGITS)
    true, false = rounded[:, 0], rounded[:, 1]
    return {
        "mrr": float(reciprocal_ranks(rounded).mean()),
        "ap": average_precision(true, false),
        "auc": roc_auc(true, false),
    }


def reciprocal_ranks(scores: Scores) -> Scores:
    """Of the first of each row among the row."""
    true, false = scores[:, :1], scores[:, 1:]
    found: Scores = 1.0 / (0.5 * ((false > true).sum(1) + (false >= true).sum(1)) + 1.0)
    return found


def average_precision(true: Scores, false: Scores) -> float:
    """Mean precision at the scores of the true edges; equal scores are one threshold."""
    scores = np.concatenate([true, false])
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(np.concatenate([np.ones(len(true)), np.zeros(len(false))])[order])
    last = np.flatnonzero(np.diff(scores[order], append=-np.inf))
    gained = np.diff(hits[last], prepend=0.0)
    return float((gained * hits[last] / (last + 1)).sum() / len(true))


def roc_auc(true: Scores, false: Scores) -> float:
    """Chance that a true edge scores above a false one, equal scores counting half."""
    ordered = np.sort(false)
    below = np.searchsorted(ordered, true, side="left")
    upto = np.searchsorted(ordered, true, side="right")
    return float((below + upto).sum() / (2 * len(true) * len(false)))
