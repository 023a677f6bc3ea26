"""The engine's semantics without SimPy: time is known ahead wherever nothing is shared.

A lane runs on by itself, as in the replay, until it meets something that only the clock decides: a
flow over shared links or cores, or a message that has not come. Events are the starts and ends of
flows, and nothing else. Equal to the engine (a property test holds that) for all plans but those
with named queues; failures are the engine's too. Used where the replay declines.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from gnnbench.costs.facts import Floats
from gnnbench.errors import Unsupported
from gnnbench.plan import Kind, Lane, Step
from gnnbench_simulator.network import NO_ROOT, Network
from gnnbench_simulator.outcome import SimResult, Span
from gnnbench_simulator.program import Block, Mode, Program
from gnnbench_simulator.sharing import Pipe, Sharing, Watched
from gnnbench_simulator.tree import Descent, tree_of

Key = tuple[int, int, str]
_DONE = -1


def simulate_events(
    program: Program, *, epochs: int | None = None, record: Iterable[int] = ()
) -> SimResult:
    """Execute a program.

    Args:
        program: a compiled plan.
        epochs: how many epochs; by default all of the plan.
        record: ranks whose blocks are kept for ledgers.

    Raises:
        Unsupported: queues, messages between two ranks on several lanes, or ranks that wait for
            each other in a circle; the message says which.
    """
    reason = _declined(program)
    if reason:
        raise Unsupported(f"only the engine can do this plan: {reason}")
    epochs = program.plan.num_epochs if epochs is None else epochs
    return _Clock(program, epochs, record).run()


def _declined(program: Program) -> str:
    for iteration, ranks in zip(program.iterations, program.plan.iterations, strict=True):
        if any(b.takes or b.puts for cls in iteration.classes for b in cls.blocks):
            return "named queues"
        if not any(b.mode is Mode.FLOW for cls in iteration.classes for b in cls.blocks):
            continue
        lanes: dict[tuple[int, int, Kind], Lane] = {}
        for rank, steps in enumerate(ranks):
            for step in steps:
                if step.kind in (Kind.SEND, Kind.RECV):
                    key = rank, _peer(step, rank), step.kind
                    if lanes.setdefault(key, step.lane) is not step.lane:
                        return "messages between two ranks on several lanes"
    return ""


def _peer(step: Step, rank: int) -> int:
    return next(other for other in step.group if other != rank)


@dataclass(slots=True, eq=False)
class _Mailbox:
    """Messages between two ranks in their order: when they came, or who waits for them."""

    arrived: list[float] = field(default_factory=list)
    taken: int = 0
    waiting: tuple[_Track, _Work, float] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Route:
    """What a flow takes: the pipes, its units of work and most of them per second, and latency."""

    path: tuple[Pipe, ...]
    work: float
    cap: float
    latency_s: float = 0.0
    mailbox: _Mailbox | None = None


@dataclass(slots=True, eq=False)
class _Work:
    """A block, and of each rank of its class what the clock needs to know."""

    block: Block
    seconds: list[float]
    flows: bool
    routes: dict[int, _Route | _Mailbox] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Track:
    """A lane of a rank, where it is in the schedule, and since when it is free."""

    rank: int
    lane: Lane
    programs: list[list[_Work]]
    columns: list[int]
    number: int = 0
    place: int = 0
    free_s: float = 0.0


@dataclass(slots=True, eq=False)
class _Meeting:
    """A collective under way: how many ranks are still to come, and who is there since when.

    `descent` tells who leaves when, where not all leave together; ranks are then in `by_member`.
    """

    missing: int
    latest_s: float = 0.0
    there: list[tuple[_Track, float]] = field(default_factory=list)
    descent: Descent | None = None
    by_member: dict[int, tuple[_Track, float]] = field(default_factory=dict)


class _Clock:
    def __init__(self, program: Program, epochs: int, record: Iterable[int]) -> None:
        self.program, plan = program, program.plan
        self.schedule = plan.schedule[: epochs * plan.iterations_per_epoch]
        self.network = Network(program.cluster, program.ranks_per_host)
        self.threads = float(program.cluster.device.threads)
        self.contended = program.contended_pools()
        self.sharing = Sharing(self._alarm)
        self.now = 0.0
        self.count = 0
        self.heap: list[tuple[float, int, Callable[[], None]]] = []
        self.ended: dict[Key, float] = {}
        self.waiting: dict[Key, list[_Track]] = {}
        self.meetings: dict[tuple[int, int, int], _Meeting] = {}
        self.mail: dict[tuple[int, int], _Mailbox] = {}
        self.iteration_end = [0.0] * len(self.schedule)
        self.recorded: dict[int, list[Span]] = {rank: [] for rank in sorted(set(record))}
        self.tracks = self._tracks()
        self.ready: list[_Track] = []

    def run(self) -> SimResult:
        for track in self.tracks:
            self._advance(track)
        self._run_on()
        while self.heap:
            time_s, _, action = heapq.heappop(self.heap)
            if time_s > self.now:
                self.now = time_s
            action()
            self._run_on()
            if self.sharing.unsettled and not (self.heap and self.heap[0][0] <= self.now):
                self.sharing.settle(self.now)
        if any(track.number != _DONE for track in self.tracks):
            raise Unsupported("ranks wait for each other in a circle")
        per_epoch = self.program.plan.iterations_per_epoch
        last = np.maximum.accumulate(np.array(self.iteration_end))[per_epoch - 1 :: per_epoch]
        end_s = np.zeros(self.program.world_size)
        np.maximum.at(end_s, [t.rank for t in self.tracks], [t.free_s for t in self.tracks])
        for spans in self.recorded.values():
            spans.sort(key=lambda span: (span.ready_s, span.end_s))
        return SimResult(
            method="events",
            epoch_s=np.diff(last, prepend=0.0),
            end_s=end_s,
            busy_s=self._busy(),
            spans=self.recorded,
        )

    def _busy(self) -> dict[str, Floats]:
        busy = {track.lane.value: np.zeros(self.program.world_size) for track in self.tracks}
        for index, times in Counter(self.schedule).items():
            for cls in self.program.iterations[index].classes:
                for block in cls.blocks:
                    busy[block.lane.value][cls.ranks] += times * block.total
        return busy

    def _tracks(self) -> list[_Track]:
        iterations = self.program.iterations
        works: list[list[dict[Lane, list[_Work]]]] = []
        for iteration in iterations:
            works.append([])
            for cls in iteration.classes:
                lanes: dict[Lane, list[_Work]] = {}
                for block in cls.blocks:
                    local = block.mode is Mode.LOCAL
                    flows = block.mode is Mode.FLOW or (local and block.pool in self.contended)
                    work = _Work(block, block.total.tolist(), flows)
                    lanes.setdefault(block.lane, []).append(work)
                works[-1].append(lanes)
        tracks = []
        for rank in range(self.program.world_size):
            classes = [iteration.class_of[rank] for iteration in iterations]
            columns = [
                iteration.classes[c].columns[rank]
                for iteration, c in zip(iterations, classes, strict=True)
            ]
            own = [table[c] for table, c in zip(works, classes, strict=True)]
            for lane in dict.fromkeys(lane for lanes in own for lane in lanes):
                programs = [lanes.get(lane, []) for lanes in own]
                tracks.append(_Track(rank, lane, programs, columns))
        return tracks

    # -- lanes -----------------------------------------------------------------------------------

    def _run_on(self) -> None:
        while self.ready:
            self._advance(self.ready.pop())

    def _advance(self, track: _Track) -> None:
        """Run a lane on until it has to wait for others."""
        schedule = self.schedule
        while True:
            number = track.number
            if number == len(schedule):
                track.number = _DONE
                return
            index = schedule[number]
            program = track.programs[index]
            if track.place == len(program):
                self.iteration_end[number] = max(self.iteration_end[number], track.free_s)
                track.number, track.place = number + 1, 0
                continue
            work = program[track.place]
            ready = self._ready(track, work.block, number)
            if ready is None:
                return
            if work.flows:
                self._flow(track, work, ready, index)
                return
            seconds = work.seconds[track.columns[index]]
            if work.block.mode is not Mode.COLLECTIVE:
                self._finish(track, work.block, ready, ready + seconds)
            else:
                self._meet(track, work.block, ready, seconds, index)
                return

    def _ready(self, track: _Track, block: Block, number: int) -> float | None:
        """When a lane can start its next block; None if it waits for a step of the rank."""
        ready, rank = track.free_s, track.rank
        for name, lag in block.waits:
            before = number - lag
            if before < 0:
                continue
            key = rank, before, name
            ended = self.ended.get(key)
            if ended is None:
                iteration = self.program.iterations[self.schedule[before]]
                if name not in iteration.names[iteration.class_of[rank]]:
                    continue
                self.waiting.setdefault(key, []).append(track)
                return None
            if ended > ready:
                ready = ended
        return max(ready, block.release_s)

    def _finish(self, track: _Track, block: Block, ready: float, end: float) -> None:
        track.free_s = end
        track.place += 1
        if block.publishes:
            key = track.rank, track.number, block.publishes
            self.ended[key] = end
            self.ready += self.waiting.pop(key, ())
        if track.rank in self.recorded:
            self.recorded[track.rank].append(Span(track.number, block, ready, end))

    def _meet(self, track: _Track, block: Block, ready: float, seconds: float, index: int) -> None:
        """Join a collective; the lane goes on when it is over."""
        assert block.meeting is not None
        column = track.columns[index]
        group = int(block.meeting.groups[column])
        key = track.number, group, block.meeting.sequence
        meeting = self.meetings.get(key)
        if meeting is None:
            size = len(self.program.iterations[index].groups[group])
            meeting = self.meetings[key] = _Meeting(size)
        member = int(block.meeting.members[column])
        if member != NO_ROOT and block.pool not in self.contended:
            self._descend(meeting, member, track, ready, seconds)
            if meeting.descent is not None and meeting.descent.over:
                del self.meetings[key]
            return
        meeting.missing -= 1
        meeting.latest_s = max(meeting.latest_s, ready)
        if meeting.missing:
            meeting.there.append((track, ready))
            return
        del self.meetings[key]
        meeting.there.append((track, ready))
        if block.pool in self.contended:
            members = self.program.iterations[index].groups[group]
            idle_s = float(block.meeting.idle[column])
            self._at(
                meeting.latest_s + idle_s,
                lambda: self._together(meeting, members, seconds - idle_s, index),
            )
        else:
            self._part(meeting, meeting.latest_s + seconds, index)

    def _descend(
        self, meeting: _Meeting, member: int, track: _Track, ready: float, seconds: float
    ) -> None:
        """Join a broadcast down a tree; lanes go on as far as that is now known."""
        if meeting.descent is None:
            tree = tree_of(meeting.missing)
            meeting.descent = Descent(tree, seconds / tree.depth)
        meeting.by_member[member] = track, ready
        for one, end in meeting.descent.arrive(member, ready):
            other, since = meeting.by_member.pop(one)
            block = other.programs[self.schedule[other.number]][other.place].block
            self._finish(other, block, since, end)
            self.ready.append(other)

    def _part(self, meeting: _Meeting, end: float, index: int) -> None:
        """A collective is over: its lanes go on."""
        for track, since in meeting.there:
            self._finish(track, track.programs[index][track.place].block, since, end)
            self.ready.append(track)

    def _together(
        self, meeting: _Meeting, members: tuple[int, ...], seconds: float, index: int
    ) -> None:
        """Begin a collective that keeps the cores of its ranks busy; over when all are done."""
        program, left = self.program, [len(members)]
        share = program.core_share()

        def done(end: float) -> None:
            left[0] -= 1
            if not left[0]:
                self._part(meeting, end, index)

        for rank in members:
            pool = self._pipe(("cores", program.host_of(rank)))
            self.sharing.start(self.now, (pool,), seconds * share, share, done)

    # -- flows -----------------------------------------------------------------------------------

    def _flow(self, track: _Track, work: _Work, ready: float, index: int) -> None:
        """Begin a flow, or wait for a message; the lane goes on when it ends."""
        column = track.columns[index]
        route = work.routes.get(column)
        if route is None:
            route = work.routes[column] = self._route(track.rank, work, column, index)
        if isinstance(route, _Route):
            self._at(ready + route.latency_s, lambda: self._start(track, work.block, ready, route))
        elif route.taken < len(route.arrived):
            route.taken += 1
            end = max(ready, route.arrived[route.taken - 1])
            self._finish(track, work.block, ready, end)
            self.ready.append(track)
        else:
            route.waiting = track, work, ready

    def _start(self, track: _Track, block: Block, ready: float, route: _Route) -> None:
        def done(end: float) -> None:
            if route.mailbox is not None:
                self._arrive(route.mailbox, end)
            self._finish(track, block, ready, end)
            self.ready.append(track)

        self.sharing.start(self.now, route.path, route.work, route.cap, done)

    def _arrive(self, mailbox: _Mailbox, end: float) -> None:
        mailbox.arrived.append(end)
        if mailbox.waiting is not None:
            track, work, ready = mailbox.waiting
            mailbox.waiting = None
            mailbox.taken += 1
            self._finish(track, work.block, ready, max(ready, end))
            self.ready.append(track)

    def _route(self, rank: int, work: _Work, column: int, index: int) -> _Route | _Mailbox:
        block, seconds = work.block, work.seconds[column]
        if block.mode is not Mode.FLOW:
            share = self.threads if block.pool == "cores" else 1.0
            pool = self._pipe((block.pool, self.program.host_of(rank)))
            return _Route((pool,), seconds * share, share)
        step = self.program.plan.iterations[index][rank][block.steps[0]]
        if step.kind is Kind.RECV:
            return self.mail.setdefault((_peer(step, rank), rank), _Mailbox())
        if step.kind is Kind.SEND:
            peer = _peer(step, rank)
            latency, cap, path = self.network.point_to_point(rank, peer)
            mailbox = self.mail.setdefault((rank, peer), _Mailbox())
            pipes = tuple(self._pipe(name) for name in path)
            return _Route(pipes, float(step.bytes), cap, latency, mailbox)
        what = "host_link" if step.kind is Kind.COPY else "disk"
        # One unit per second: a transfer alone takes the seconds it was given.
        return _Route((self._pipe((what, self.program.host_of(rank))),), seconds, 1.0)

    def _pipe(self, name: tuple[str, int]) -> Pipe:
        return self.sharing.pipe(name, self._capacity)

    def _capacity(self, name: tuple[str, int]) -> float:
        return self.program.capacity(name, self.network)

    def _at(self, time_s: float, action: Callable[[], None]) -> None:
        self.count += 1
        heapq.heappush(self.heap, (time_s, self.count, action))

    def _alarm(self, time_s: float, who: Watched, version: int) -> None:
        self._at(time_s, lambda: self.sharing.wake(self.now, who, version))
