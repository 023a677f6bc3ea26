"""Metrics of temporal link prediction from scores: mean reciprocal rank, AP, ROC AUC.

The rank of a true edge is the middle one among equals: (#{false > true} + #{false >= true}) / 2 +
1, so that a constant scorer gains nothing (temporal reference section 12, invariant E1). AP and AUC
are taken over all events together, with the first false edge of each.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
PAIRS_AT_ONCE = 1 << 16
"""Pairs that are ranked at once: their arrays take 3 MB."""
_EVENT_BYTES = 192
_DIGITS = 6
"""Scores nearer than this are equal: rows of one table differ by rounding with their place."""


def link_metrics(scores: Scores, indptr: NDArray[np.int64] | None = None) -> dict[str, float]:
    """Return mrr, ap and auc; none of them where there are no events.

    Args:
        scores: [n, 1 + k], the true edge first; or [pairs], event by event.
        indptr: where the pairs of each event begin and end, int64 [n + 1], if those are flat. An
            event without candidates is the first of one, and has no part in AP and AUC.
    """
    if indptr is None:
        indptr = np.arange(len(scores) + 1, dtype=np.int64) * scores.shape[1]
    if len(indptr) < 2:
        return {}
    flat: Scores = scores.ravel()
    ranks = np.empty(len(indptr) - 1)
    for first, stop in _blocks(indptr):
        begin, end = indptr[first], indptr[stop]
        rounded = np.round(flat[begin:end], _DIGITS)
        ranks[first:stop] = reciprocal_ranks(rounded, indptr[first : stop + 1] - begin)
    found = {"mrr": float(ranks.mean())}
    some = indptr[:-1][np.diff(indptr) > 1]
    if len(some):
        true, false = np.round(flat[some], _DIGITS), np.round(flat[some + 1], _DIGITS)
        found |= {"ap": average_precision(true, false), "auc": roc_auc(true, false)}
    return found


def measured_bytes(pairs: int, events: int) -> int:
    """Bytes of the metrics of some events: their scores, and arrays while they are measured.

    Scores are float64. Of a block of pairs: rounded scores, the true edge's for each, and two
    comparisons as integers. Of an event: places, ranks, and for AP and AUC its two scores, in
    order, with what they are worth.
    """
    return 8 * pairs + 40 * min(pairs, PAIRS_AT_ONCE) + _EVENT_BYTES * events


def _blocks(indptr: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Events first..stop-1 with about `PAIRS_AT_ONCE` pairs, and at least one."""
    first, count = 0, len(indptr) - 1
    while first < count:
        stop = int(np.searchsorted(indptr, indptr[first] + PAIRS_AT_ONCE, side="right")) - 1
        stop = min(max(stop, first + 1), count)
        yield first, stop
        first = stop


def reciprocal_ranks(scores: Scores, indptr: NDArray[np.int64]) -> Scores:
    """Of the first pair of each event among its pairs, all events at once.

    Args:
        scores: [pairs].
        indptr: as in `link_metrics`.
    """
    starts = indptr[:-1]
    true = np.repeat(scores[starts], np.diff(indptr))
    # The true pair is not above itself, and once as high as itself.
    above = np.add.reduceat((scores > true).astype(np.int64), starts)
    equal = np.add.reduceat((scores >= true).astype(np.int64), starts) - 1
    found: Scores = 1.0 / (0.5 * (above + equal) + 1.0)
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
