"""Fixed negatives of temporal link prediction, by the rule of the Temporal Graph Benchmark.

Up to half of an event's candidates are destinations that its source met in training, the rest are
destinations that it did not meet there; none is a true destination of the source at that time, and
none is drawn twice. Where fewer remain, all of them are taken, so lists differ in length. A list
depends on (source, destination, time) only: equal events share one, whatever the run's seed.

Deviation: the draws are keyed by counters, not those of the benchmark's published files.

Source: temporal reference section 12; Huang et al., Temporal Graph Benchmark, NeurIPS 2023.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.data import keys
from gnnbench.data.draws import below, compiled, extend
from gnnbench.data.stream import EdgeStream

Ids = NDArray[np.int64]
_SEED = 123
_MOST_TRIES = 2
"""Draw with rejection where at least this many times as many remain as are needed."""


class FixedNegatives:
    """The candidates of a stream's events.

    Args:
        stream: its training events are the history.
        count: candidates per event, at most.
    """

    def __init__(self, stream: EdgeStream, count: int) -> None:
        self.stream, self.count = stream, count
        train = slice(0, stream.train_end)
        n = stream.num_nodes
        pairs = np.unique(
            np.asarray(stream.sources[train], np.int64) * n
            + np.asarray(stream.destinations[train], np.int64)
        )
        self._met = pairs % n
        self._starts = np.zeros(n + 1, np.int64)
        self._starts[1:] = np.cumsum(np.bincount(pairs // n, minlength=n))

    def of(self, events: Ids) -> tuple[Ids, Ids]:
        """Return where each event's candidates begin and end, int64 [n + 1], and all of them."""
        stream = self.stream
        low, high = stream.destination_range()
        indptr = np.zeros(len(events) + 1, np.int64)
        found = np.empty(len(events) * min(self.count, high - low), np.int64)
        _draw(
            np.asarray(stream.sources),
            np.asarray(stream.destinations),
            np.asarray(stream.times),
            self._starts,
            self._met,
            events,
            low,
            high,
            self.count,
            np.uint64(keys.fold(_SEED)),
            np.zeros(high - low, np.int64),
            np.empty(high - low, np.int64),
            indptr,
            found,
        )
        return indptr, found[: indptr[-1]]


@compiled
def _draw(
    sources: Any,
    destinations: Any,
    times: Any,
    starts: Any,
    met: Any,
    events: Any,
    low: int,
    high: int,
    count: int,
    key: Any,
    marks: Any,
    left: Any,
    indptr: Any,
    out: Any,
) -> None:
    """Fill `out`; `marks` [D] hold 3 i + 1, + 2, + 3 for what is true, met or taken by event i."""
    at = 0
    for i in range(len(events)):
        e = events[i]
        source = sources[e]
        own = extend(extend(extend(key, source), destinations[e]), times[e])
        true, old, taken = 3 * i + 1, 3 * i + 2, 3 * i + 3
        banned = 0
        first = e
        while first > 0 and times[first - 1] == times[e]:
            first -= 1
        while first < len(times) and times[first] == times[e]:
            v = destinations[first] - low
            if sources[first] == source and marks[v] != true:
                marks[v] = true
                banned += 1
            first += 1
        # Destinations that the source met, by a draw without replacement from the front of `left`.
        size = 0
        for k in range(starts[source], starts[source + 1]):
            v = met[k] - low
            if marks[v] != true:
                marks[v] = old
                left[size] = v
                size += 1
                banned += 1
        wanted = min(count // 2, size)
        for slot in range(wanted):
            pick = slot + below(own, slot, size - slot)
            left[slot], left[pick] = left[pick], left[slot]
            out[at] = low + left[slot]
            at += 1
        rest = high - low - banned
        need = min(count - wanted, rest)
        if rest < _MOST_TRIES * need:
            size = 0
            for v in range(high - low):
                if marks[v] != true and marks[v] != old:
                    left[size] = v
                    size += 1
            for slot in range(need):
                pick = slot + below(own, count + slot, size - slot)
                left[slot], left[pick] = left[pick], left[slot]
                out[at] = low + left[slot]
                at += 1
        else:
            slot = 0
            tries = 0
            while slot < need:
                v = below(own, count + tries, high - low)
                tries += 1
                if marks[v] != true and marks[v] != old and marks[v] != taken:
                    marks[v] = taken
                    out[at] = low + v
                    at += 1
                    slot += 1
        indptr[i + 1] = at
