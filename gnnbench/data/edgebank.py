"""EdgeBank: a table of the pairs that a stream has had, each with the time of its last event.

A pair is a source and a destination, in this order. With `window`, a pair is seen only if its
last event lies within that time before the newest event of the table.

An open-addressed table of int64 keys and times that doubles when it is half full:

    bytes = 16 per slot

Source: temporal reference section 6; Poursafaei et al., NeurIPS 2022.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.draws import compiled, mix64
from gnnbench.work.temporal import PAIR_BYTES

Ids = NDArray[np.int64]
_FREE = -1
_SLOTS = 1024


class EdgeBank:
    """Pairs and when they were last seen.

    Args:
        num_nodes: N.
        window: length in units of the stream's times; 0 is unlimited.
    """

    def __init__(self, num_nodes: int, window: int = 0) -> None:
        self.num_nodes, self.window = num_nodes, window
        self.keys = np.full(_SLOTS, _FREE, np.int64)
        self.times = np.zeros(_SLOTS, np.int64)
        self.newest = 0
        self.count = 0

    @property
    def num_bytes(self) -> int:
        """By the formula of the module."""
        return PAIR_BYTES * len(self.keys)

    def insert(self, sources: NDArray[Any], destinations: NDArray[Any], times: Ids) -> None:
        """Remember the pairs of events, in the order of their times."""
        pairs, at = self._pairs(sources, destinations), 0
        if len(times):
            self.newest = max(self.newest, int(times[-1]))
        while at < len(pairs):
            at, self.count = _insert(self.keys, self.times, pairs, times, at, self.count)
            if at < len(pairs):
                self._grow()

    def scores(self, sources: NDArray[Any], destinations: NDArray[Any]) -> NDArray[np.float64]:
        """1 where a pair was seen (in the window), else 0; float64 [n]."""
        out = np.zeros(len(sources), np.float64)
        since = self.newest - self.window if self.window else np.iinfo(np.int64).min
        _score(self.keys, self.times, self._pairs(sources, destinations), since, out)
        return out

    def content(self) -> tuple[Ids, Ids]:
        """Pairs as source * N + destination, rising, and the times of their last events."""
        full = np.flatnonzero(self.keys != _FREE)
        order = full[np.argsort(self.keys[full])]
        return self.keys[order], self.times[order]

    def _pairs(self, sources: NDArray[Any], destinations: NDArray[Any]) -> Ids:
        found: Ids = np.asarray(sources, np.int64) * self.num_nodes + destinations
        return found

    def _grow(self) -> None:
        keys, times = self.content()
        size = 2 * len(self.keys)
        # The old table ends before the new one is made.
        self.keys = self.times = np.empty(0, np.int64)
        self.keys, self.times = np.full(size, _FREE, np.int64), np.zeros(size, np.int64)
        _, self.count = _insert(self.keys, self.times, keys, times, 0, 0)


@compiled
def _insert(keys: Any, times: Any, pairs: Any, when: Any, at: int, count: int) -> Any:
    """Insert from place `at` on; stop where the table is half full and a pair is new."""
    mask = len(keys) - 1
    while at < len(pairs):
        slot = np.int64(mix64(np.uint64(pairs[at])) & np.uint64(mask))
        while keys[slot] >= 0 and keys[slot] != pairs[at]:
            slot = (slot + 1) & mask
        if keys[slot] < 0:
            if 2 * count >= len(keys):
                return at, count
            keys[slot] = pairs[at]
            count += 1
        times[slot] = when[at]
        at += 1
    return at, count


@compiled
def _score(keys: Any, times: Any, pairs: Any, since: int, out: Any) -> None:
    mask = len(keys) - 1
    for i in range(len(pairs)):
        slot = np.int64(mix64(np.uint64(pairs[i])) & np.uint64(mask))
        while keys[slot] >= 0 and keys[slot] != pairs[i]:
            slot = (slot + 1) & mask
        if keys[slot] >= 0 and times[slot] >= since:
            out[i] = 1.0
