"""The reuse of rows: how many other rows are read between two reads of the same row.

A cache that holds C rows serves a read if fewer than C different rows were read since the last read
of its row (LRU stack distance, Mattson et al. 1970). The distribution of these distances is a fact
of a graph in an order of its vertices; with a row's bytes it gives the share of reads that miss a
cache of any size. `gnnbench.data.reuse` counts it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

BINS = 24
"""Bins of distances: bin 0 has those below 4 rows, bin k those from 2**(k + 1) to 2**(k + 2)."""
DISTANCES: Floats = np.array([2.0, *(2.0 ** (k + 1.5) for k in range(1, BINS))])
"""Middle of each bin, in rows."""


@dataclass(frozen=True, slots=True, eq=False)
class Reuse:
    """Shares of the reads by reuse distance: [BINS], or [ranks, BINS] for the ranks of a class.

    The first read of a row counts with the number of different rows that the operation reads,
    because the operation runs again in the next epoch. NaN: the order of the vertices is not known.
    """

    shares: Floats

    @classmethod
    def unknown(cls) -> Reuse:
        """Of a graph of which only statistics without an order are known."""
        return cls(np.full(BINS, np.nan))

    @classmethod
    def of(cls, shares: Sequence[float]) -> Reuse:
        """From shares as profiles and facts keep them; unknown if there are none."""
        return cls(np.asarray(shares, dtype=np.float64)) if len(shares) else cls.unknown()

    @classmethod
    def in_turn(cls, rows: Any) -> Reuse:
        """Of lists of rising rows that are read one after the other, in every epoch anew.

        At most `rows` different rows lie between two reads of one. An array is of a class of ranks.
        """
        bins = np.floor(np.log2(np.maximum(np.asarray(rows, dtype=np.float64), 1.0))) - 1.0
        return cls(np.eye(BINS)[np.clip(bins, 0, BINS - 1).astype(np.intp)])

    @property
    def known(self) -> bool:
        return not bool(np.isnan(self.shares).any())

    def of_rank(self, column: int) -> Reuse:
        """That of one rank of a class."""
        return self if self.shares.ndim == 1 else Reuse(self.shares[column])

    def split(self, parts: int) -> Reuse:
        """If the columns are cut into parts at random, and each is read in a pass of its own.

        Distances shrink by the number of parts.
        """
        moved, place = np.zeros_like(self.shares), round(math.log2(max(parts, 1)))
        if not place:
            return self
        moved[..., 0] = self.shares[..., : place + 1].sum(axis=-1)
        moved[..., 1 : BINS - place] = self.shares[..., place + 1 :]
        return Reuse(moved)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reuse) and np.array_equal(
            self.shares, other.shares, equal_nan=True
        )

    def __hash__(self) -> int:
        return hash(self.shares.tobytes())


def stacked(found: Iterable[Reuse | None]) -> Reuse | None:
    """Those of the ranks of a class as one; None unless every rank has one."""
    kept = list(found)
    if any(one is None for one in kept):
        return None
    shares = [one.shares for one in kept if one is not None]
    if all(np.array_equal(row, shares[0], equal_nan=True) for row in shares):
        return Reuse(shares[0])
    return Reuse(np.stack(shares))
