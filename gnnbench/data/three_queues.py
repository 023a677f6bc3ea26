"""Misses of a warm S3-FIFO cache where references are independent of each other.

S3-FIFO (Yang et al., SOSP 2023) has three queues that are first in, first out:

small   a tenth of the cache. New rows enter it. A row at its end that was used again moves to the
        main queue; another one leaves, and only its number is kept, in the ghost queue.
main    the rest. A row has a counter of uses, at most 3. A row at the end goes round again with a
        counter that is one lower; it leaves when the counter is 0.
ghost   as many numbers as the main queue has rows. A missed row whose number is there enters the
        main queue at once.

Rows that are used once pass through the small queue and do not push out others. So the cache keeps
the popular rows, where a cache of the rows used last of the same size keeps recent ones.

The estimate is that of Che for LRU, with one time per queue (Che, Tung and Wang, IEEE JSAC 2002;
Fricker, Robert and Roberts, ITC 2012): each queue is so long that a row stays in it for a time that
is the same for all rows. A row of rate r goes through a cycle: out, small, then main or ghost. The
three times are those with which the queues are full in the mean. Uses of a row are a Poisson
process; a row has at most one use in a batch, so its rate is -log(1 - chance).

Deviation known: a batch uses its rows at once, and seeds come once an epoch. Where a batch misses
more rows than the small queue has, GraphBolt keeps rows in use and misses less than this estimate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SMALL_SHARE = 0.1
_HALVINGS, _ROUNDS, _SAME = 60, 100, 1e-4
_SHORTEST, _LONGEST = 1e-6, 1e9
"""Batches for which a row stays in a queue, at least and at most."""
_MOST_A_TURN = 100.0
"""Uses in a turn beyond which a row practically never leaves."""

Floats = NDArray[np.float64]


def s3_fifo_misses(rows: Floats, chance: Floats, capacity: float) -> float:
    """Share of the uses that a warm cache misses.

    Args:
        rows: rows of each class.
        chance: of a row to be in a batch.
        capacity: rows of the cache.
    """
    used = chance > 0.0
    rows, rate = rows[used], -np.log1p(-np.clip(chance[used], 0.0, 1.0 - 1e-12))
    total = float(rows.sum())
    if not total or capacity >= total:
        return 0.0
    if capacity <= 0.0:
        return 1.0
    small_rows = SMALL_SHARE * capacity
    main_rows = capacity - small_rows
    # Batches in the small, main and ghost queue: at first as if every use were a new row.
    times = [capacity / float((rows * rate).sum())] * 3
    for _ in range(_ROUNDS):
        before = list(times)
        for queue, wanted in enumerate((small_rows, main_rows, main_rows)):
            times[queue] = _full(rows, rate, times, queue, wanted)
        if np.allclose(before, times, rtol=_SAME, atol=0.0):
            break
    missed = _held(rows, rate, *times)[3]
    return min(missed / float((rows * chance[used]).sum()), 1.0)


def _held(
    rows: Floats, rate: Floats, small: float, main: float, ghost: float
) -> tuple[float, float, float, float]:
    """Rows in the small and the main queue, numbers in the ghost queue, and misses a batch.

    Args:
        rows, rate: of each class; uses per batch.
        small, main, ghost: batches for which a row, or a number, stays in each queue.
    """
    again, remembered = -np.expm1(-rate * small), -np.expm1(-rate * ghost)
    promoted = again + (1.0 - again) * remembered
    in_main = main * _turns(rate * main)
    # A cycle starts with the use that misses. A number that is used leaves the ghost queue's set,
    # but not its place there.
    cycle = 1.0 / rate + small + (1.0 - again) * remembered / rate + promoted * in_main
    per_row = rows / cycle
    missed = per_row * (1.0 + (1.0 - again) * remembered)
    return (
        float((per_row * small).sum()),
        float((per_row * promoted * in_main).sum()),
        float((per_row * (1.0 - again)).sum()) * ghost,
        float(missed.sum()),
    )


def _turns(uses: Floats) -> Floats:
    """Expected turns in the main queue, with so many uses in the mean of a turn.

    From counter c at the start of a turn, k uses make it min(c + k, 3) at its end. At 0 the row
    leaves; otherwise the next turn starts with one less. A row enters with a counter of 0. With t_c
    turns from counter c, and chances a of no use, f of two or more and g of three or more:
    t_2 = t_1 + 1/a, t_1 = t_0 + 1/a + f/a^2, and a t_0 = 1 + g/a + f (1/a + f/a^2).
    """
    uses = np.minimum(uses, _MOST_A_TURN)
    none = np.exp(-uses)
    two_or_more = -np.expm1(-uses) - uses * none
    three_or_more = np.maximum(two_or_more - uses**2 / 2.0 * none, 0.0)
    turns: Floats = (
        1.0 + three_or_more / none + two_or_more / none + (two_or_more / none) ** 2
    ) / none
    return turns


def _full(rows: Floats, rate: Floats, times: Sequence[float], queue: int, wanted: float) -> float:
    """Batches with which a queue holds so many rows; it holds more with more of them."""
    low, high = _SHORTEST, _LONGEST
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        small, main, ghost = (middle if k == queue else t for k, t in enumerate(times))
        too_many = _held(rows, rate, small, main, ghost)[queue] > wanted
        low, high = (low, middle) if too_many else (middle, high)
    return math.sqrt(low * high)
