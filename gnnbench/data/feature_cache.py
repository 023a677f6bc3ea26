"""Which feature rows a device caches: LRU, LFU, FIFO, or a fixed set chosen by pre-sampling.

The cache has a number of slots. A request names row ids, repeats included; the cache answers which
of them are hits and in which slots, which distinct rows must be moved to the device, and which of
those enter which slots. It holds no features: both worlds ask it, the runtime for slots and the
plan for counts.

    hits + misses = requests             bytes moved = distinct misses x bytes of a row

Policies, at the end of a request of number n = 1, 2, ... (ties: the lowest slot leaves first):

lru      a hit or new row gets the score n; the lowest score leaves
lfu      a hit row's score rises by one, once per request; a new row has 1; the lowest score leaves
fifo     rows leave in the order in which they came
static   nothing enters or leaves

Empty slots fill first. Of more distinct misses than slots, those of the largest ids enter.

`gnnbench.data.caching` is an engine of its own. Its batches have no repeats, it decides by ids
which rows stay, may keep held rows instead of new ones, and knows the next batches. Here new rows
always enter, ties go by slot, and arrays of slots are saved with a run: one class for both would
branch at every step.

Source: temporal reference section 8, invariants C1-C6; static: GNNLab (Yang et al., EuroSys 2022).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.draws import compiled

Ids = NDArray[np.int64]
POLICIES = ("lru", "lfu", "fifo", "static")
_NONE = -1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """What a request finds.

    Args:
        hits: places of the hits in the request, rising.
        slots: of the hits.
        missing: places of the misses in the request, rising.
        rows: of the misses, among the moved ones.
        moved: distinct missing ids, rising.
        entering: which of the moved ones enter the cache.
        entered: the slots that they enter.
    """

    hits: Ids
    slots: Ids
    missing: Ids
    rows: Ids
    moved: Ids
    entering: Ids
    entered: Ids

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Hits, misses, rows moved, rows that enter."""
        return len(self.hits), len(self.missing), len(self.moved), len(self.entered)


class FeatureCache:
    """The cache of one rank.

    Args:
        num_rows: N, rows there are.
        capacity: slots.
        policy: one of `POLICIES`.
    """

    def __init__(self, num_rows: int, capacity: int, policy: str) -> None:
        if policy not in POLICIES:
            raise ValueError(f"policy {policy!r}, allowed: {', '.join(POLICIES)}")
        self.capacity, self.policy = min(capacity, num_rows), policy
        self.slot_of = np.full(num_rows, _NONE, np.int64)
        self.id_of = np.full(self.capacity, _NONE, np.int64)
        self.scores = np.zeros(self.capacity, np.int64)
        # The number of the request, and the slot that FIFO gives away next.
        self.counters = np.zeros(2, np.int64)

    @property
    def num_cached(self) -> int:
        return int((self.id_of != _NONE).sum())

    def clear(self) -> None:
        """Forget everything."""
        for array, empty in (
            (self.slot_of, _NONE),
            (self.id_of, _NONE),
            (self.scores, 0),
            (self.counters, 0),
        ):
            array.fill(empty)

    def put(self, ids: Ids) -> Ids:
        """Let the cache contain these distinct ids and no others, the i-th in slot i.

        Returns the slots whose row must be moved: those that had another one. At most `capacity`
        ids are kept, the first.
        """
        kept = ids[: self.capacity]
        before = self.id_of.copy()
        self.clear()
        slots = np.arange(len(kept), dtype=np.int64)
        self.id_of[slots], self.slot_of[kept], self.scores[slots] = kept, slots, 1
        self.counters[:] = 1, len(kept) % max(self.capacity, 1)
        return np.flatnonzero(before[: len(kept)] != kept)

    def request(self, ids: Ids) -> Answer:
        """Look ids up, int64 [n], and let the distinct misses enter."""
        found = self.slot_of[ids]
        hit = found != _NONE
        hits, missing = np.flatnonzero(hit), np.flatnonzero(~hit)
        slots = found[hits]
        moved, rows = np.unique(ids[missing], return_inverse=True)
        self.counters[0] += 1
        now = int(self.counters[0])
        if self.policy == "lru":
            self.scores[slots] = now
        elif self.policy == "lfu":
            # Repeats write one value: a row counts once per request.
            self.scores[slots] = self.scores[slots] + 1
        count = 0 if self.policy == "static" else min(len(moved), self.capacity)
        entering = np.arange(len(moved) - count, len(moved), dtype=np.int64)
        entered = self._leaving(count)
        gone = self.id_of[entered]
        self.slot_of[gone[gone != _NONE]] = _NONE
        new = moved[entering]
        self.id_of[entered], self.slot_of[new] = new, entered
        self.scores[entered] = now if self.policy == "lru" else 1
        return Answer(
            hits=hits,
            slots=slots,
            missing=missing,
            rows=rows.astype(np.int64, copy=False),
            moved=moved,
            entering=entering,
            entered=entered,
        )

    def _leaving(self, count: int) -> Ids:
        """The slots that `count` new rows enter."""
        if self.policy == "fifo":
            first = int(self.counters[1])
            found = (first + np.arange(count, dtype=np.int64)) % max(self.capacity, 1)
            self.counters[1] = (first + count) % max(self.capacity, 1)
            return found
        found = np.empty(count, np.int64)
        if count:
            _lowest(self.scores, int(self.counters[0]) + 2, found)
        return found

    def state(self) -> dict[str, NDArray[Any]]:
        """Arrays that are the cache's own; `slot_of` follows from them."""
        return {"ids": self.id_of, "scores": self.scores, "counters": self.counters}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take over a state of a cache of the same size."""
        for name, array in self.state().items():
            array[:] = state[name]
        self.slot_of.fill(_NONE)
        full = np.flatnonzero(self.id_of != _NONE)
        self.slot_of[self.id_of[full]] = full


@compiled
def _lowest(scores: Any, bound: int, out: Any) -> None:
    """The slots of the len(out) lowest scores, all below `bound`; rising, ties by slot.

    A histogram finds the largest score that leaves: a score never exceeds the number of requests.
    """
    counts = np.zeros(bound, np.int64)
    for slot in range(len(scores)):
        counts[scores[slot]] += 1
    left = len(out)
    top = 0
    while counts[top] < left:
        left -= counts[top]
        top += 1
    at = 0
    for slot in range(len(scores)):
        if scores[slot] < top:
            out[at] = slot
            at += 1
        elif scores[slot] == top and left > 0:
            out[at] = slot
            at += 1
            left -= 1


def most_asked(counts: Ids, capacity: int) -> Ids:
    """The ids that were asked for most often, at most `capacity`; ties: the lowest id first."""
    found = np.argsort(-counts, kind="stable")[:capacity]
    return found[counts[found] > 0].astype(np.int64)
