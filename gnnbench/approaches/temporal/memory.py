"""The clock of node memories: which event each node's message is of, and when memory was written.

None of it depends on the model, so both worlds know it without computing. The message of a node is
that of its greatest event, by (time, event): one write per node and batch over all ends, a self
loop once.

Source: temporal reference sections 6 and 7, invariants M2-M4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gnnbench.approaches.temporal.schedule import Piece
from gnnbench.data.draws import compiled

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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stored:
    """Messages of the ends of a batch as its input was read, in the order of its `Writes.nodes`.

    `has` bool [U]: whether there is one. `times` int64 [U]: of the messages.
    """

    has: NDArray[np.bool_]
    times: Ids


class _Times(NamedTuple):
    """Event and time of each node's message, and the time of the last one applied before it."""

    event: Ids
    message_time: Ids
    memory_time: Ids

    @classmethod
    def of(cls, num_nodes: int) -> _Times:
        return cls(
            np.full(num_nodes, NONE, np.int64),
            np.zeros(num_nodes, np.int64),
            np.zeros(num_nodes, np.int64),
        )


class MemoryClock:
    """Times and events of the messages of N nodes; as arrays, so that a checkpoint can keep them.

    With `replays` there are two: the memory of the run, and one that old events use when they are
    learnt from again. The latter begins empty, so that what came after an old event is unknown.

    Args:
        num_nodes: N.
        replays: whether old events are learnt from again.
    """

    def __init__(self, num_nodes: int, *, replays: bool = False) -> None:
        self._all = [_Times.of(num_nodes) for _ in range(1 + replays)]
        self.replaying = np.zeros(1, np.int64)
        self._places = np.zeros(num_nodes, np.int32)

    @property
    def _now(self) -> _Times:
        return self._all[int(self.replaying[0])]

    @property
    def event(self) -> Ids:
        """The event of each node's message, int64 [N], NONE where it has none."""
        return self._now.event

    def turn(self, piece: Piece, *, anew: bool) -> bool:
        """Turn to the memory that a piece uses; return whether it is emptied first.

        Args:
            anew: whether the passes of its period begin with an empty memory.
        """
        self.replaying[0] = piece.replays
        empties = piece.begins_pass and (anew or piece.replays)
        if empties:
            self.reset()
        return empties

    def reset(self) -> None:
        """Forget all messages of the memory in use."""
        for array, empty in zip(self._now, (NONE, 0, 0), strict=True):
            array.fill(empty)

    def arrays(self) -> dict[str, Ids]:
        """All there is to know, for a checkpoint."""
        found = {"replaying": self.replaying}
        for number, times in enumerate(self._all):
            found |= {f"{name}_{number}": array for name, array in times._asdict().items()}
        return found

    def distinct(self, nodes: Ids) -> tuple[Ids, Ids]:
        """The distinct nodes of some in the order of their first place, and each one's number."""
        found, numbers = np.empty_like(nodes), np.empty_like(nodes)
        count = _number(nodes, self._places, found, numbers)
        return found[:count], numbers

    def read(self, nodes: Ids) -> Messages:
        """The stored messages of distinct nodes."""
        event, message_time, memory_time = self._now
        return Messages(events=event[nodes], ages=message_time[nodes] - memory_time[nodes])

    def stored(self, sources: Ids, destinations: Ids) -> Stored:
        """What is stored now of the ends of a batch: what its memory is computed from."""
        return self._stored(last_events(sources, destinations).nodes)

    def _stored(self, nodes: Ids) -> Stored:
        event, message_time, _ = self._now
        return Stored(has=event[nodes] != NONE, times=message_time[nodes])

    def write(
        self,
        sources: Ids,
        destinations: Ids,
        times: Ids,
        events: Ids,
        read: Stored | None = None,
    ) -> Writes:
        """Apply messages of the ends of a batch's events, and store their new messages.

        Args:
            sources, destinations, times, events: of the batch, in order.
            read: the messages that are applied, where the batch's input was read before others
                wrote; None: those that are stored now.
        """
        found = last_events(sources, destinations)
        event, message_time, memory_time = self._now
        nodes, newest = found.nodes, times[found.places]
        applied = self._stored(nodes) if read is None else read
        # A first message has no earlier one: its age is zero.
        memory_time[nodes] = np.where(applied.has, applied.times, newest)
        message_time[nodes] = newest
        event[nodes] = events[found.places]
        return found


@compiled
def _number(nodes: Any, places: Any, found: Any, numbers: Any) -> int:
    """Number nodes as they come; `places` is zero before and after."""
    count = 0
    for i in range(len(nodes)):
        node = nodes[i]
        if places[node] == 0:
            found[count] = node
            count += 1
            places[node] = count
        numbers[i] = places[node] - 1
    for i in range(count):
        places[found[i]] = 0
    return count


def last_events(sources: Ids, destinations: Ids) -> Writes:
    """The last event of each end in a batch that is in order of (time, event)."""
    count = len(sources)
    ends = np.empty(2 * count, np.int64)
    ends[0::2], ends[1::2] = destinations, sources
    nodes, first = np.unique(ends[::-1], return_index=True)
    at = 2 * count - 1 - first
    return Writes(nodes=nodes, places=at // 2, reversed=at % 2 == 0)
