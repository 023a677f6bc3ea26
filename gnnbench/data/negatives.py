"""Negatives of temporal link prediction: destinations that an event's source did not meet then.

Uniform over the ids that a destination can have; never a true destination of the same source at the
same time (temporal reference, invariant E2). A negative depends on (key, event, slot) only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.data import keys
from gnnbench.data.draws import below, compiled, extend
from gnnbench.data.stream import EdgeStream

_TRIES = 64


def draw_negatives(
    stream: EdgeStream, events: NDArray[np.int64], count: int, seed: int, *counters: int
) -> NDArray[np.int64]:
    """Return int64 [len(events), count].

    A source that met every destination at one time gets true ones: after 64 tries a draw stands.
    """
    low, high = stream.destination_range()
    out = np.empty((len(events), count), np.int64)
    key = np.uint64(keys.fold(seed, *counters))
    ends = np.asarray(stream.sources), np.asarray(stream.destinations), np.asarray(stream.times)
    _draw(*ends, events, low, high, key, _TRIES, out)
    return out


@compiled
def _draw(
    sources: Any,
    destinations: Any,
    times: Any,
    events: Any,
    low: int,
    high: int,
    key: Any,
    tries: int,
    out: Any,
) -> None:
    for i in range(len(events)):
        event = events[i]
        first = event
        while first > 0 and times[first - 1] == times[event]:
            first -= 1
        stop = event + 1
        while stop < len(times) and times[stop] == times[event]:
            stop += 1
        own = extend(key, event)
        for slot in range(out.shape[1]):
            key_of_slot = extend(own, slot)
            for attempt in range(tries):
                found = low + below(key_of_slot, attempt, high - low)
                clashes = False
                for e in range(first, stop):
                    if destinations[e] == found and sources[e] == sources[event]:
                        clashes = True
                        break
                if not clashes:
                    break
            out[i, slot] = found
