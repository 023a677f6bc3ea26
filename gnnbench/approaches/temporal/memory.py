"""The clock of node memories: which event each node's message is of, and when memory was written.

None of it depends on the model, so both worlds know it without computing. The message of a node is
that of its greatest event, by (time, event): one write per node and batch over all ends, a self
loop once.

Source: temporal reference sections 6 and 7, invariants M2-M4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
NONE = -1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Messages:
    """Stored messages of some nodes: events int64 [U], NONE where there is none, and ages.

    An age is the time of the message less that of the last one that was applied before it.
    """

    events: Ids
    ages: Ids


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Writes:
    """What a batch writes: each node once, with the place of its last event in the batch.

    `reversed` marks nodes that are the destination of that event.
    """

    nodes: Ids
    places: Ids
    reversed: NDArray[np.bool_]


class MemoryClock:
    """Times and events of the messages of N nodes; as arrays, so that a checkpoint can keep them.

    Args:
        num_nodes: N.
    """

    def __init__(self, num_nodes: int) -> None:
        self.event = np.full(num_nodes, NONE, np.int64)
        self.message_time = np.zeros(num_nodes, np.int64)
        self.memory_time = np.zeros(num_nodes, np.int64)

    def reset(self) -> None:
        """Forget all messages."""
        self.event.fill(NONE)
        self.message_time.fill(0)
        self.memory_time.fill(0)

    def read(self, nodes: Ids) -> Messages:
        """The stored messages of distinct nodes."""
        return Messages(
            events=self.event[nodes], ages=self.message_time[nodes] - self.memory_time[nodes]
        )

    def write(self, sources: Ids, destinations: Ids, times: Ids, events: Ids) -> Writes:
        """Apply what is stored of the ends of a batch's events, and store their new messages."""
        found = last_events(sources, destinations)
        had = self.event[found.nodes] != NONE
        applied = self.message_time[found.nodes]
        # A first message has no earlier one: its age is zero.
        self.memory_time[found.nodes] = np.where(had, applied, times[found.places])
        self.message_time[found.nodes] = times[found.places]
        self.event[found.nodes] = events[found.places]
        return found


def last_events(sources: Ids, destinations: Ids) -> Writes:
    """The last event of each end in a batch that is in order of (time, event)."""
    count = len(sources)
    ends = np.empty(2 * count, np.int64)
    ends[0::2], ends[1::2] = destinations, sources
    nodes, first = np.unique(ends[::-1], return_index=True)
    at = 2 * count - 1 - first
    return Writes(nodes=nodes, places=at // 2, reversed=at % 2 == 0)
