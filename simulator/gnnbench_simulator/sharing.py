"""Links and cores that flows share, as in `links`, but fast where one resource binds them all.

Most flows meet at a single resource: messages from many senders at their receiver's link, ranks at
their host's cores. There all of them have the same rate, so each ends when the bytes served to one
flow since it came reach its size: a heap of such marks, and nothing to re-rate flow by flow.
Elsewhere rates are the max-min fair ones.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import inf

from gnnbench_simulator.fairness import max_min_rates


@dataclass(slots=True, eq=False)
class Pipe:
    """A resource; `capacity` in units per second.

    users    flows that are on it
    marks    where it is a hub: (units served to one flow when the flow ends, number, flow)
    served   units served to one flow up to `since_s`, while `rate` goes to each
    """

    name: tuple[str, int]
    capacity: float
    users: dict[Stream, None] = field(default_factory=dict)
    marks: list[tuple[float, int, Stream]] = field(default_factory=list)
    served: float = 0.0
    rate: float = 0.0
    since_s: float = 0.0
    version: int = 0


@dataclass(slots=True, eq=False)
class Stream:
    """A flow. `hub` is the pipe that says when it ends; without one it has a rate of its own."""

    path: tuple[Pipe, ...]
    left: float
    cap: float
    done: Callable[[float], None]
    hub: Pipe | None = None
    rate: float = 0.0
    since_s: float = 0.0
    version: int = 0


Watched = Pipe | Stream
Alarm = Callable[[float, Watched, int], None]


class Sharing:
    """Flows in progress. The caller keeps the clock: it wakes flows when asked, and settles rates.

    `alarm(time_s, who, version)` asks for `wake(time_s, who, version)` at that time. After all
    events of one moment, `settle(time_s)` sets the new rates.
    """

    def __init__(self, alarm: Alarm) -> None:
        self._alarm = alarm
        self._pipes: dict[tuple[str, int], Pipe] = {}
        self._touched: dict[Pipe, None] = {}
        self._count = 0

    def pipe(self, name: tuple[str, int], capacity: Callable[[tuple[str, int]], float]) -> Pipe:
        """The pipe of this name, made when it is first asked for."""
        known = self._pipes.get(name)
        if known is None:
            known = self._pipes[name] = Pipe(name, capacity(name))
        return known

    @property
    def unsettled(self) -> bool:
        return bool(self._touched)

    def start(
        self,
        now: float,
        path: tuple[Pipe, ...],
        work: float,
        cap: float,
        done: Callable[[float], None],
    ) -> None:
        """Begin a flow of some work, which calls `done` with the time of its end."""
        if work <= 0 or not path:
            done(now)
            return
        stream = Stream(path, work, cap, done, since_s=now)
        hub = self._hub(stream, now)
        for pipe in path:
            pipe.users[stream] = None
        if hub is not None:
            self._join(stream, hub, now)
        else:
            for pipe in path:
                self._loosen(pipe, now)
                self._touched[pipe] = None

    def wake(self, now: float, who: Watched, version: int) -> None:
        """End what ends at a time asked for; of an alarm that is out of date, nothing."""
        if who.version != version:
            return
        if isinstance(who, Stream):
            self._end(who, now)
            return
        self._serve(who, now)
        who.served = who.marks[0][0]  # what the alarm was set for, free of rounding
        while who.marks and who.marks[0][0] <= who.served:
            self._end(heapq.heappop(who.marks)[2], now)
        if not who.marks:
            who.served = 0.0

    def settle(self, now: float) -> None:
        """Set the rates of all that was touched."""
        touched, self._touched = self._touched, {}
        loose: list[Pipe] = []
        for pipe in touched:
            if pipe.marks:
                self._serve(pipe, now)
                pipe.rate = min(pipe.capacity / len(pipe.marks), pipe.marks[0][2].cap)
                pipe.version += 1
                ahead = max(pipe.marks[0][0] - pipe.served, 0.0)
                self._alarm(now + ahead / pipe.rate, pipe, pipe.version)
            elif pipe.users:
                loose.append(pipe)
        if loose:
            self._rerate(loose, now)

    # -- flows of one hub ------------------------------------------------------------------------

    def _hub(self, stream: Stream, now: float) -> Pipe | None:
        """The one pipe at which a new flow meets others, or any if it meets none."""
        met = [pipe for pipe in stream.path if pipe.users]
        if len(met) > 1:
            return None
        hub = met[0] if met else stream.path[-1]
        if hub.capacity > min(pipe.capacity for pipe in stream.path):
            return None  # another pipe of the path may bind it
        if met and not hub.marks:
            (other, *more) = hub.users
            if more or other.hub is None or len(other.hub.marks) > 1 or other.cap != stream.cap:
                return None
            if hub.capacity > min(pipe.capacity for pipe in other.path):
                return None
            # The flow there meets nobody else: this pipe can as well say when it ends.
            before = other.hub
            self._serve(before, now)
            other.left = before.marks[0][0] - before.served
            before.marks.clear()
            before.version += 1
            before.served = 0.0
            self._join(other, hub, now)
        elif met and hub.marks[0][2].cap != stream.cap:
            return None
        return hub

    def _join(self, stream: Stream, hub: Pipe, now: float) -> None:
        self._serve(hub, now)
        self._count += 1
        stream.hub = hub
        heapq.heappush(hub.marks, (hub.served + stream.left, self._count, stream))
        self._touched[hub] = None

    def _serve(self, hub: Pipe, now: float) -> None:
        if len(hub.marks) and hub.rate:
            hub.served += hub.rate * (now - hub.since_s)
        hub.since_s = now

    def _end(self, stream: Stream, now: float) -> None:
        stream.version += 1
        for pipe in stream.path:
            del pipe.users[stream]
            if pipe is stream.hub or stream.hub is None:
                self._touched[pipe] = None
        stream.done(now)

    # -- flows that meet at several pipes --------------------------------------------------------

    def _loosen(self, pipe: Pipe, now: float) -> None:
        """Give the flows of a pipe's hubs rates of their own: the hubs no longer bind alone."""
        for hub in {id(s.hub): s.hub for s in pipe.users if s.hub is not None}.values():
            self._serve(hub, now)
            for mark, _, stream in hub.marks:
                stream.left, stream.rate, stream.since_s = mark - hub.served, hub.rate, now
                stream.hub = None
                for other in stream.path:
                    self._touched[other] = None
            hub.marks.clear()
            hub.version += 1
            hub.served = 0.0

    def _rerate(self, pipes: Iterable[Pipe], now: float) -> None:
        streams = self._component(pipes, now)
        capacity = {pipe: pipe.capacity for stream in streams for pipe in stream.path}
        rates = max_min_rates([(s.path, s.cap) for s in streams], capacity)
        for stream, rate in zip(streams, rates, strict=True):
            stream.left -= stream.rate * (now - stream.since_s)
            stream.since_s, stream.rate = now, rate
            stream.version += 1
            end = now + max(stream.left, 0.0) / rate if rate > 0 else inf
            self._alarm(end, stream, stream.version)

    def _component(self, pipes: Iterable[Pipe], now: float) -> list[Stream]:
        """Flows that share a pipe, directly or through others, with one that was touched."""
        found: dict[Stream, None] = {}
        frontier = list(pipes)
        seen = dict.fromkeys(frontier)
        while frontier:
            pipe = frontier.pop()
            self._loosen(pipe, now)
            for stream in pipe.users:
                if stream in found:
                    continue
                found[stream] = None
                for other in stream.path:
                    if other not in seen:
                        seen[other] = None
                        frontier.append(other)
        for pipe in seen:
            self._touched.pop(pipe, None)
        return list(found)
