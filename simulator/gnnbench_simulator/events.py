"""The event loop: the engine's semantics without SimPy, used for plans with contention.

A lane advances without events, as in the replay, until its time depends on others: at a flow over
shared links, disks or cores, or at a message that has not arrived. The only events are starts and
ends of flows. A property test requires the times of the engine. Failed ranks are simulated by the
engine alone.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

import numpy as np

from gnnbench.errors import Unsupported
from gnnbench.steps import LATEST, NO_ROOT, Kind, Lane
from gnnbench_simulator.event_lanes import Mailbox, Meeting, Stop, Track, Way
from gnnbench_simulator.fabric_links import Demand
from gnnbench_simulator.fabric_network import TO_HOST, FabricNetwork
from gnnbench_simulator.layout import Block, Layout, Mode
from gnnbench_simulator.outcome import SimResult, Span, period_seconds
from gnnbench_simulator.program import Program, Timed
from gnnbench_simulator.replay import busy_seconds
from gnnbench_simulator.sharing import Pipe, Sharing, Watched
from gnnbench_simulator.traffic_flows import TrafficFlows
from gnnbench_simulator.tree import Descent, tree_of

_DONE = -1


def simulate_events(
    program: Program, *, periods: int | None = None, record: Iterable[int] = ()
) -> SimResult:
    """Execute a program.

    Args:
        program: a compiled plan.
        periods: how many periods; by default all of the plan.
        record: ranks whose blocks are kept for ledgers.

    Raises:
        Unsupported: messages between two ranks on several lanes, or ranks that wait for each other
            in a circle; the message says which.
    """
    reason = _declined(program)
    if reason:
        raise Unsupported(f"only the engine can do this plan: {reason}")
    periods = program.plan.num_periods if periods is None else periods
    return _Clock(program, periods, record).run()


def _declined(program: Program) -> str:
    for layout in program.layouts:
        lanes: dict[tuple[int, int, Kind], Lane] = {}
        for cls in layout.classes:
            for place, step in enumerate(cls.steps):
                if step.work.kind not in (Kind.SEND, Kind.RECV):
                    continue
                for rank in cls.ranks.tolist():
                    key = rank, program.peer(layout, rank, place), step.work.kind
                    # Mailboxes match messages in the order of one lane. Over two lanes the order
                    # depends on the clock, and only the engine keeps it.
                    if lanes.setdefault(key, step.lane) is not step.lane:
                        return "messages between two ranks on several lanes"
    return ""


class _Clock:
    def __init__(self, program: Program, periods: int, record: Iterable[int]) -> None:
        self.program, plan = program, program.plan
        self.period_ends = np.array(plan.starts[1 : periods + 1])
        self.schedule = plan.schedule[: plan.starts[periods]]
        self.releases = plan.releases
        self.contended = program.contended
        self.sharing = Sharing(self._alarm)
        self.fabric = program.network if isinstance(program.network, FabricNetwork) else None
        capacities = [] if self.fabric is None else self.fabric.links.capacities
        self.traffic = TrafficFlows(capacities, self._wake_later)
        self.now = 0.0
        self.count = 0
        self.heap: list[tuple[float, int, Callable[[], None]]] = []
        # By rank: when steps ended, and the lanes that wait for one, by iteration and name.
        self.ended: list[dict[int, float]] = [{} for _ in range(program.world_size)]
        self.waiting: list[dict[int, list[Track]]] = [{} for _ in range(program.world_size)]
        self.names: dict[str, int] = {}
        self.meetings: dict[tuple[int, int, int], Meeting] = {}
        self.mail: dict[tuple[int, int], Mailbox] = {}
        self.ways: dict[tuple[int, int], Way | Mailbox] = {}
        self.iteration_end = [0.0] * len(self.schedule)
        self.recorded: dict[int, list[Span]] = {rank: [] for rank in sorted(set(record))}
        self.tracks = self._tracks()
        self.width = len(self.names)
        self.ready: list[Track] = []

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
            # Rates are worked out once per instant: flows that start or end together would
            # otherwise each re-rate all the others.
            if not (self.heap and self.heap[0][0] <= self.now):
                if self.sharing.unsettled:
                    self.sharing.settle(self.now)
                if self.traffic.unsettled:
                    self.traffic.settle(self.now)
        # Nothing will happen any more, and a lane still waits.
        if any(track.number != _DONE for track in self.tracks):
            raise Unsupported("deadlock: ranks wait for each other in a cycle")
        # A transfer in the background may outlive the iteration after its own, so ends need not
        # rise.
        last = np.maximum.accumulate(np.array(self.iteration_end))[self.period_ends - 1]
        end_s = np.zeros(self.program.world_size)
        np.maximum.at(end_s, [t.rank for t in self.tracks], [t.free_s for t in self.tracks])
        for spans in self.recorded.values():
            spans.sort(key=lambda span: (span.ready_s, span.end_s))
        return SimResult(
            method="events",
            period_s=period_seconds(last, self.program.plan),
            end_s=end_s,
            busy_s=busy_seconds(self.program, self.schedule),
            spans=self.recorded,
        )

    def _tracks(self) -> list[Track]:
        programs: dict[Lane, dict[tuple[int, int], list[Stop]]] = {}
        for layout in self.program.layouts:
            for of, cls in enumerate(layout.classes):
                for block in cls.blocks:
                    lane = programs.setdefault(block.lane, {})
                    lane.setdefault((id(layout), of), []).append(self._stop(block))
        return [
            Track(rank, lane, own)
            for rank in range(self.program.world_size)
            for lane, own in programs.items()
            if any(
                (id(layout), int(layout.class_of[rank])) in own for layout in self.program.layouts
            )
        ]

    def _stop(self, block: Block) -> Stop:
        names, met = self.names, block.meeting
        return Stop(
            block,
            tuple((names.setdefault(name, len(names)), lag) for name, lag in block.waits),
            names.setdefault(block.publishes, len(names)) if block.publishes else -1,
            self._flows(block),
            () if met is None else met.groups.tolist(),
            () if met is None else met.members.tolist(),
        )

    def _flows(self, block: Block) -> bool:
        """Whether a block's speed depends on what others do."""
        if block.mode is Mode.FLOW:
            return True
        return block.mode is Mode.LOCAL and block.pool in self.contended

    # -- lanes -----------------------------------------------------------------------------------

    def _run_on(self) -> None:
        while self.ready:
            self._advance(self.ready.pop())

    def _advance(self, track: Track) -> None:
        """Run a lane on until it has to wait for others."""
        schedule = self.schedule
        while True:
            number = track.number
            if number == len(schedule):
                track.number = _DONE
                return
            if track.place == 0:
                self._enter(track, self.program.iterations[schedule[number]])
            if track.place == len(track.stops):
                if track.free_s > self.iteration_end[number]:
                    self.iteration_end[number] = track.free_s
                track.number, track.place = number + 1, 0
                continue
            stop = track.stops[track.place]
            ready = self._ready(track, stop, number)
            if ready is None:
                return
            block = stop.block
            seconds = track.seconds[block.number]
            if stop.shared:
                timed = self.program.iterations[schedule[number]]
                self._flow(track, block, ready, timed, seconds)
                return
            if stop.groups:
                timed = self.program.iterations[schedule[number]]
                self._meet(track, stop, ready, seconds, timed)
                return
            self._finish(track, ready, ready + seconds)

    def _enter(self, track: Track, timed: Timed) -> None:
        """Begin an iteration on a lane."""
        track.of, track.column = self._seat(track.rank, timed.layout)
        track.stops = track.programs.get((id(timed.layout), track.of), ())
        track.seconds = timed.totals[track.of][:, track.column].tolist()

    def _ready(self, track: Track, stop: Stop, number: int) -> float | None:
        """When a lane can start its next block; None if it waits for a step of the rank."""
        ready, ended = track.free_s, self.ended[track.rank]
        for name, lag in stop.waits:
            before: int | None = number - lag
            if lag == LATEST:
                before = self.program.latest(track.rank, self._name(name), number)
            if before is None or before < 0:
                continue
            key = before * self.width + name
            end = ended.get(key)
            if end is None:
                self.waiting[track.rank].setdefault(key, []).append(track)
                return None
            if end > ready:
                ready = end
        return max(ready, self.releases[number]) if self.releases else ready

    def _name(self, number: int) -> str:
        return list(self.names)[number]

    def _finish(self, track: Track, ready: float, end: float) -> None:
        """End the block at which a lane is."""
        stop = track.stops[track.place]
        track.free_s = end
        track.place += 1
        if stop.publishes >= 0:
            rank = track.rank
            key = track.number * self.width + stop.publishes
            self.ended[rank][key] = end
            # Lanes are put on a list and not advanced here: a chain of waits would be as deep as
            # the plan is long.
            waiting = self.waiting[rank].pop(key, None)
            if waiting is not None:
                self.ready += waiting
        if self.recorded and track.rank in self.recorded:
            self.recorded[track.rank].append(Span(track.number, stop.block, ready, end))

    def _meet(self, track: Track, stop: Stop, ready: float, seconds: float, timed: Timed) -> None:
        """Join a collective; the lane continues when the collective ends."""
        of, column, block = track.of, track.column, stop.block
        assert block.meeting is not None
        group = stop.groups[column]
        key = track.number, group, block.meeting.sequence
        meeting = self.meetings.get(key)
        if meeting is None:
            meeting = self.meetings[key] = Meeting(len(timed.layout.groups[group]))
        member = stop.members[column]
        # In a tree, a rank ends as soon as its own parents have sent; late ranks delay only what is
        # below them. Shared cores couple all ranks, and then the ranks end together.
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
            idle = timed.idle[of].get(block.steps[0])
            idle_s = 0.0 if idle is None else float(idle[column])
            members = timed.layout.groups[group]
            # Seconds without a core (latency, waiting for the network) pass before the cores are
            # asked for, so that a collective of many small messages does not slow its neighbours.
            self._at(
                meeting.latest_s + idle_s,
                lambda: self._together(meeting, members, seconds - idle_s),
            )
        else:
            crossing = timed.crossing.get(key[1:]) if self.program.crowded else None
            if crossing is None or seconds <= 0:
                self._part(meeting, meeting.latest_s + seconds)
            else:
                # Alone it takes its seconds; where links are full it gets a fair share of them.
                self._at(meeting.latest_s, lambda: self._cross(meeting, crossing, 1 / seconds))

    def _descend(
        self, meeting: Meeting, member: int, track: Track, ready: float, seconds: float
    ) -> None:
        """Join a broadcast down a tree; lanes go on as far as that is now known."""
        if meeting.descent is None:
            tree = tree_of(meeting.missing)
            meeting.descent = Descent(tree, seconds / tree.depth)
        meeting.by_member[member] = track, ready
        for one, end in meeting.descent.arrive(member, ready):
            other, since = meeting.by_member.pop(one)
            self._finish(other, since, end)
            self.ready.append(other)

    def _part(self, meeting: Meeting, end: float) -> None:
        """End a collective: its lanes continue."""
        # Lanes that wait for the collective are put behind, and run first: this lane's next block
        # mostly waits for one of theirs.
        self.ready += [track for track, _ in meeting.there]
        for track, since in meeting.there:
            self._finish(track, since, end)

    def _cross(self, meeting: Meeting, crossing: Demand, cap: float) -> None:
        """Begin a collective over the links of a fabric, whose parts progress together."""
        self.traffic.start(self.now, crossing, 1.0, cap, lambda end: self._part(meeting, end))

    def _together(self, meeting: Meeting, members: tuple[int, ...], seconds: float) -> None:
        """Begin a collective that keeps the cores of its ranks busy; over when all are done."""
        program, left = self.program, [len(members)]

        def done(end: float) -> None:
            left[0] -= 1
            if not left[0]:
                self._part(meeting, end)

        for rank in members:
            share = program.core_share(rank)
            pool = self._pipe(("cores", program.host_of(rank)))
            self.sharing.start(self.now, (pool,), seconds * share, share, done)

    # -- flows -----------------------------------------------------------------------------------

    def _flow(self, track: Track, block: Block, ready: float, timed: Timed, seconds: float) -> None:
        """Begin a flow, or wait for a message; the lane goes on when it ends."""
        # Pipes of a block never change, and finding them costs more than the event itself.
        key = track.rank, id(block)
        way = self.ways.get(key)
        if way is None:
            way = self.ways[key] = self._way(track.rank, block, timed.layout)
        if isinstance(way, Way):
            work, cap, start = way.share * seconds, way.cap, ready + way.latency_s
            if way.mailbox is not None or way.disk or way.demand is not None:
                of, column = self._seat(track.rank, timed.layout)
                work = float(timed.demand[of][block.steps[0]][column])
            if way.disk:
                # Alone, a request is limited by its depth and latency and takes longer than the
                # disk is busy with it. The disk's other time is free for other lanes.
                cap = work / seconds if work else 1.0
                start = ready if work else ready + seconds
            elif way.demand is not None and way.mailbox is None:
                # A copy: alone it takes the seconds that it was given.
                cap = work / seconds if work else 1.0
                start = ready if work else ready + seconds
            self._at(start, lambda: self._start(track, ready, way, work, cap))
        elif way.taken < len(way.arrived):
            way.taken += 1
            end = max(ready, way.arrived[way.taken - 1])
            self._finish(track, ready, end)
            self.ready.append(track)
        else:
            way.waiting = track, ready

    def _start(self, track: Track, ready: float, way: Way, work: float, cap: float) -> None:
        def done(end: float) -> None:
            if way.mailbox is not None:
                self._arrive(way.mailbox, end)
            self._finish(track, ready, end)
            self.ready.append(track)

        if way.demand is not None:
            self.traffic.start(self.now, way.demand, work, cap, done)
        else:
            self.sharing.start(self.now, way.path, work, cap, done)

    def _arrive(self, mailbox: Mailbox, end: float) -> None:
        mailbox.arrived.append(end)
        if mailbox.waiting is not None:
            track, ready = mailbox.waiting
            mailbox.waiting = None
            mailbox.taken += 1
            self._finish(track, ready, max(ready, end))
            self.ready.append(track)

    def _seat(self, rank: int, layout: Layout) -> tuple[int, int]:
        """Class of a rank in a layout, and its place in the class."""
        of = int(layout.class_of[rank])
        return of, layout.classes[of].columns[rank]

    def _way(self, rank: int, block: Block, layout: Layout) -> Way | Mailbox:
        if block.mode is not Mode.FLOW:
            share = self.program.threads(rank) if block.pool == "cores" else 1.0
            pool = self._pipe((block.pool, self.program.host_of(rank)))
            return Way((pool,), share, share)
        place = block.steps[0]
        kind = layout.classes[layout.class_of[rank]].steps[place].work.kind
        if kind is Kind.RECV:
            peer = self.program.peer(layout, rank, place)
            return self.mail.setdefault((peer, rank), Mailbox())
        if kind is Kind.SEND:
            peer = self.program.peer(layout, rank, place)
            mailbox = self.mail.setdefault((rank, peer), Mailbox())
            if self.fabric is not None:
                latency, cap, demand = self.fabric.message(rank, peer)
                return Way((), cap, 1.0, latency, mailbox, demand)
            latency, cap, path = self.program.network.point_to_point(rank, peer)
            return Way(tuple(self._pipe(name) for name in path), cap, 1.0, latency, mailbox)
        host = self.program.host_of(rank)
        if kind is Kind.COPY and self.fabric is not None:
            op = layout.classes[layout.class_of[rank]].steps[place].work.op
            return Way((), 1.0, demand=self.fabric.copy(rank, to_host=op == TO_HOST))
        if kind is Kind.COPY:
            # One unit per second: a transfer alone takes the seconds it was given.
            return Way((self._pipe(("host_link", host)),), 1.0)
        return Way((self._pipe(("disk", host)),), 1.0, disk=True)

    def _pipe(self, name: tuple[str, int]) -> Pipe:
        return self.sharing.pipe(name, self._capacity)

    def _capacity(self, name: tuple[str, int]) -> float:
        return self.program.capacity(name)

    def _at(self, time_s: float, action: Callable[[], None]) -> None:
        self.count += 1
        # The count keeps events of one instant in the order of their making, so that results do not
        # depend on how functions compare.
        heapq.heappush(self.heap, (time_s, self.count, action))

    def _wake_later(self, time_s: float, version: int) -> None:
        self._at(time_s, lambda: self.traffic.wake(self.now, version))

    def _alarm(self, time_s: float, who: Watched, version: int) -> None:
        self._at(time_s, lambda: self.sharing.wake(self.now, who, version))
