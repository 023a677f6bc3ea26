"""Pieces of work to be priced together, with what no cluster decides about them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from gnnbench.costs.facts import Facts, Floats, column
from gnnbench.steps import COMMUNICATION, Kind, Work

Places = npt.NDArray[np.intp]
GAP_OP = "gap"
"""Calibrated time between one step and the next, which is part of no step's duration."""


@dataclass(frozen=True, slots=True)
class Item:
    """Work of `ranks` ranks; `hosted` work runs on the host's cores, not on the device.

    `places` are those ranks, where hosts are of several kinds.
    """

    work: Work
    ranks: int
    hosted: bool = False
    places: Places | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Pieces that one cost class prices.

    index  of each piece among all
    spans  where each piece's ranks lie in arrays over the ranks of all the group's pieces
    facts  of one call, over those ranks
    calls  number of calls, over those ranks; None where each piece is one call
    """

    op: str
    kind: Kind
    hosted: bool
    index: list[int]
    spans: list[slice]
    facts: Facts
    calls: Floats | None


class Pieces:
    """Pieces of work in order; what is computed from them once serves any number of clusters.

    Args:
        items: the pieces.
        element_bytes: bytes of a feature element, for working sets in caches.
    """

    def __init__(self, items: Sequence[Item], element_bytes: float) -> None:
        self.items, self.element_bytes = items, element_bytes

    @cached_property
    def groups(self) -> list[Group]:
        """The pieces by operation; communication between ranks is in none (see `network`)."""
        found: dict[tuple[str, Kind, bool], list[int]] = defaultdict(list)
        for place, item in enumerate(self.items):
            if item.work.kind not in COMMUNICATION:
                found[item.work.op, item.work.kind, item.hosted].append(place)
        return [self._group(*key, index) for key, index in found.items()]

    def _group(self, op: str, kind: Kind, hosted: bool, index: list[int]) -> Group:
        works = [self.items[i].work for i in index]
        counts = [self.items[i].ranks for i in index]
        calls = None
        if any(not isinstance(work.calls, int) or work.calls != 1 for work in works):
            calls = column([work.calls for work in works], counts, sum(counts))
        facts = Facts.of(works, counts, element_bytes=self.element_bytes)
        return Group(op, kind, hosted, index, _spans(counts), facts, calls)

    @cached_property
    def gaps(self) -> tuple[Facts, list[slice]]:
        """Facts of all pieces for the time after each, and where each piece's ranks lie in them.

        Gaps are calibrated after local steps. Ranks of a collective send unlike bytes and leave
        together, so that its bytes do not count.
        """
        works = [
            item.work if item.work.kind not in COMMUNICATION else item.work._replace(bytes=0)
            for item in self.items
        ]
        counts = [item.ranks for item in self.items]
        return Facts.of(works, counts), _spans(counts)


def _spans(counts: Sequence[int]) -> list[slice]:
    ends = np.cumsum(counts).tolist()
    return [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]
