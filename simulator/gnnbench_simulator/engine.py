"""The engine: executes a plan in SimPy, with shared links, disks, cores and devices.

One process per rank and lane runs the lane's blocks. A collective is one event for all ranks of its
group, not one per message. Transfers over shared links and work on oversubscribed cores are fluid
flows. The semantics are those of `gnnbench.plan`. Property tests require that the event loop gives
the same times for every plan, and the replay for plans without contention.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import simpy

from gnnbench.errors import RunFailed
from gnnbench.steps import LATEST, NO_ROOT, Kind, Lane, Step
from gnnbench_simulator.fabric_links import Demand
from gnnbench_simulator.fabric_network import TO_HOST, FabricNetwork
from gnnbench_simulator.layout import Block, Mode
from gnnbench_simulator.links import Fluid, FluidTraffic, Resource
from gnnbench_simulator.outcome import SimResult, Span, period_seconds
from gnnbench_simulator.program import Program, Timed
from gnnbench_simulator.tree import Descent, tree_of

Process = Generator[simpy.Event, Any, None]
Key = tuple[int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A rank that fails at `at_s` seconds; the others wait `timeout_s` seconds, then give up."""

    rank: int
    at_s: float
    timeout_s: float = 120.0


@dataclass(slots=True)
class _Meeting:
    """A collective in progress: how many ranks are missing, and the event of its end.

    `descent` gives the end of each rank where ranks do not end together; each then has its own
    event.
    """

    missing: int
    end: simpy.Event
    descent: Descent | None = None
    own: dict[int, simpy.Event] = field(default_factory=dict)

    def finish(self, _: simpy.Event) -> None:
        self.end.succeed()


def simulate(
    program: Program,
    *,
    periods: int | None = None,
    record: Iterable[int] = (),
    failure: Failure | None = None,
) -> SimResult:
    """Execute a program.

    Args:
        program: a compiled plan.
        periods: how many periods; by default all of the plan.
        record: ranks whose blocks are kept for ledgers.
        failure: a rank that dies on the way.

    Raises:
        RunFailed: a rank died, or ranks wait for each other in a circle.
    """
    periods = program.plan.num_periods if periods is None else periods
    return _Engine(program, periods, set(record), failure).run()


class _Engine:
    def __init__(
        self, program: Program, periods: int, record: set[int], failure: Failure | None
    ) -> None:
        self.program, self.failure = program, failure
        self.env = simpy.Environment()
        plan = program.plan
        self.ends = plan.starts[1 : periods + 1]
        self.schedule = plan.schedule[: plan.starts[periods]]
        self.releases = plan.releases
        self.fluid = Fluid(self.env, self._capacity)
        self.fabric = program.network if isinstance(program.network, FabricNetwork) else None
        capacities = [] if self.fabric is None else self.fabric.links.capacities
        self.traffic = FluidTraffic(self.env, capacities)
        self.contended = program.contended
        world = program.world_size
        self.ended: list[dict[Key, simpy.Event | None]] = [{} for _ in range(world)]
        self.meetings: dict[tuple[int, int, int], _Meeting] = {}
        self.mail: dict[tuple[int, int, int], simpy.Event] = {}
        self.sent: dict[tuple[int, int, Kind], int] = {}
        self.iteration_end = [0.0] * len(self.schedule)
        self.end_s = np.zeros(world)
        self.busy: dict[Lane, Any] = {}
        self.recorded: dict[int, list[Span]] = {rank: [] for rank in sorted(record)}
        self.at: dict[tuple[int, Lane], Step] = {}
        self.running = 0

    def run(self) -> SimResult:
        for rank in range(self.program.world_size):
            for lane, blocks in self._lanes(rank).items():
                self.busy.setdefault(lane, np.zeros(self.program.world_size))
                self.env.process(self._lane(rank, lane, blocks))
                self.running += 1
        self.env.run()
        if self.running:
            self._fail()
        last = np.maximum.accumulate(np.array(self.iteration_end))[np.array(self.ends) - 1]
        for spans in self.recorded.values():
            spans.sort(key=lambda span: (span.ready_s, span.end_s))
        return SimResult(
            method="engine",
            period_s=period_seconds(last, self.program.plan),
            end_s=self.end_s,
            busy_s={str(lane): busy for lane, busy in self.busy.items()},
            spans=self.recorded,
        )

    def _lanes(self, rank: int) -> dict[Lane, dict[int, list[Block]]]:
        """Per lane and layout, the rank's blocks."""
        lanes: dict[Lane, dict[int, list[Block]]] = {}
        for layout in self.program.layouts:
            for block in layout.classes[layout.class_of[rank]].blocks:
                lanes.setdefault(block.lane, {}).setdefault(id(layout), []).append(block)
        return lanes

    # -- processes -------------------------------------------------------------------------------

    def _lane(self, rank: int, lane: Lane, programs: dict[int, list[Block]]) -> Process:
        env, busy = self.env, self.busy[lane]
        dies = self.failure.at_s if self.failure and self.failure.rank == rank else np.inf
        spans = self.recorded.get(rank)
        for number, index in enumerate(self.schedule):
            timed = self.program.iterations[index]
            of = int(timed.layout.class_of[rank])
            column = timed.layout.classes[of].columns[rank]
            for block in programs.get(id(timed.layout), ()):
                self.at[rank, lane] = timed.layout.classes[of].steps[block.steps[0]]
                for name, lag in block.waits:
                    before = self._occurrence(rank, number, name, lag)
                    ended = None if before is None else self._event(rank, (before, name))
                    if ended is not None:
                        yield ended
                if self.releases and self.releases[number] > env.now:
                    yield env.timeout(self.releases[number] - env.now)
                ready = env.now
                seconds = float(timed.totals[of][block.number, column])
                if ready >= dies:
                    return
                if block.mode is Mode.COLLECTIVE:
                    yield self._meet(block, timed, of, column, number)
                elif block.mode is Mode.FLOW:
                    yield from self._transfer(block, timed, rank, seconds)
                elif block.pool in self.contended:
                    share = self.program.threads(rank) if block.pool == "cores" else 1.0
                    pool = (block.pool, self.program.host_of(rank))
                    yield self.fluid.start([pool], seconds * share, cap=share)
                elif seconds > 0:
                    yield env.timeout(seconds)
                if env.now > dies:
                    return
                busy[rank] += seconds
                self._publish(block, rank, number)
                if spans is not None:
                    spans.append(Span(number, block, ready, env.now))
            if env.now > self.iteration_end[number]:
                self.iteration_end[number] = env.now
        if env.now > self.end_s[rank]:
            self.end_s[rank] = env.now
        self.running -= 1
        self.at.pop((rank, lane), None)

    def _occurrence(self, rank: int, number: int, name: str, lag: int) -> int | None:
        """Where in the schedule the step is that is waited for; None before the first."""
        if lag != LATEST:
            return number - lag if number >= lag else None
        return self.program.latest(rank, name, number)

    def _event(self, rank: int, key: Key) -> simpy.Event | None:
        """The end of a published step, or None if it has ended."""
        ended = self.ended[rank]
        if key not in ended:
            ended[key] = self.env.event()
        return ended[key]

    def _publish(self, block: Block, rank: int, number: int) -> None:
        if block.publishes:
            key = (number, block.publishes)
            event = self.ended[rank].get(key)
            self.ended[rank][key] = None
            if event is not None:
                event.succeed()

    # -- what takes time -------------------------------------------------------------------------

    def _meet(self, block: Block, timed: Timed, of: int, column: int, number: int) -> simpy.Event:
        assert block.meeting is not None
        group = int(block.meeting.groups[column])
        key = (number, group, block.meeting.sequence)
        meeting = self.meetings.get(key)
        if meeting is None:
            size = len(timed.layout.groups[group])
            meeting = self.meetings[key] = _Meeting(size, self.env.event())
        member = int(block.meeting.members[column])
        seconds = float(timed.totals[of][block.number, column])
        if member != NO_ROOT and block.pool not in self.contended:
            leaves = self._descend(meeting, member, seconds)
            if meeting.descent is not None and meeting.descent.over:
                del self.meetings[key]
            return leaves
        meeting.missing -= 1
        if meeting.missing == 0:
            del self.meetings[key]
            idle = timed.idle[of].get(block.steps[0])
            idle_s = 0.0 if idle is None else float(idle[column])
            crossing = timed.crossing.get(key[1:]) if self.program.crowded else None
            members = timed.layout.groups[group]
            over = self._together(block, seconds, idle_s, members, crossing)
            over.callbacks.append(meeting.finish)
        return meeting.end

    def _descend(self, meeting: _Meeting, member: int, seconds: float) -> simpy.Event:
        """The event at which a rank leaves a broadcast down a tree that it joins now."""
        if meeting.descent is None:
            tree = tree_of(meeting.missing)
            meeting.descent = Descent(tree, seconds / tree.depth)
        leaves = meeting.own[member] = self.env.event()
        for one, end in meeting.descent.arrive(member, self.env.now):
            self.env.process(self._leave(meeting.own[one], max(end - self.env.now, 0.0)))
        return leaves

    def _leave(self, own: simpy.Event, wait_s: float) -> Process:
        """Let a rank leave after a while."""
        yield self.env.timeout(wait_s)
        own.succeed()

    def _together(
        self,
        block: Block,
        seconds: float,
        idle_s: float,
        group: tuple[int, ...],
        crossing: Demand | None,
    ) -> simpy.Event:
        """The end of a collective that begins now."""
        if block.pool not in self.contended:
            if crossing is not None and seconds > 0:
                return self.traffic.start(crossing, 1.0, 1 / seconds)
            return self.env.timeout(seconds)
        return self.env.process(self._with_cores(seconds, idle_s, group))

    def _with_cores(self, seconds: float, idle_s: float, group: tuple[int, ...]) -> Process:
        """Wait for one another, then keep a core of each rank busy for the rest of the time."""
        yield self.env.timeout(idle_s)
        flows = []
        for rank in group:
            share, pool = self.program.core_share(rank), ("cores", self.program.host_of(rank))
            flows.append(self.fluid.start([pool], (seconds - idle_s) * share, cap=share))
        yield self.env.all_of(flows)

    def _transfer(self, block: Block, timed: Timed, rank: int, seconds: float) -> Process:
        of = int(timed.layout.class_of[rank])
        cls = timed.layout.classes[of]
        place, column = block.steps[0], cls.columns[rank]
        kind = cls.steps[place].work.kind
        if kind is Kind.SEND:
            peer = self.program.peer(timed.layout, rank, place)
            size = float(timed.demand[of][place][column])
            if self.fabric is not None:
                latency, cap, demand = self.fabric.message(rank, peer)
                yield self.env.timeout(latency)
                yield self.traffic.start(demand, size, cap)
            else:
                latency, cap, path = self.program.network.point_to_point(rank, peer)
                yield self.env.timeout(latency)
                yield self.fluid.start(path, size, cap=cap)
            self._letter(rank, peer, Kind.SEND).succeed()
        elif kind is Kind.RECV:
            peer = self.program.peer(timed.layout, rank, place)
            yield self._letter(peer, rank, Kind.RECV)
        elif kind is Kind.COPY and self.fabric is not None:
            size = float(timed.demand[of][place][column])
            if not size:
                yield self.env.timeout(seconds)
                return
            demand = self.fabric.copy(rank, to_host=cls.steps[place].work.op == TO_HOST)
            yield self.traffic.start(demand, size, size / seconds)
        elif kind is Kind.COPY:
            # One unit per second: a transfer alone takes the seconds it was given.
            host = self.program.host_of(rank)
            yield self.fluid.start([("host_link", host)], seconds, cap=1.0)
        elif busy := float(timed.demand[of][place][column]):
            # While it waits for its requests, the disk is free for others.
            disk = ("disk", self.program.host_of(rank))
            yield self.fluid.start([disk], busy, cap=busy / seconds)
        else:
            yield self.env.timeout(seconds)

    def _letter(self, sender: int, receiver: int, side: Kind) -> simpy.Event:
        """The arrival of the next message between two ranks, as one side counts them."""
        count = self.sent.get((sender, receiver, side), 0)
        self.sent[sender, receiver, side] = count + 1
        return self.mail.setdefault((sender, receiver, count), self.env.event())

    def _capacity(self, resource: Resource) -> float:
        assert isinstance(resource, tuple)
        return self.program.capacity(resource)

    # -- failure ---------------------------------------------------------------------------------

    def _fail(self) -> None:
        """Say who died, or who waits where."""
        if self.failure is not None:
            dead = self.failure.rank
            steps = [step for (rank, _), step in self.at.items() if rank == dead]
            gave_up = self.env.now + self.failure.timeout_s
            raise RunFailed(
                f"died at {self.failure.at_s:.3g} s in {steps[0].name!r}; "
                f"the other ranks timed out at {gave_up:.3g} s",
                rank=dead,
                phase=steps[0].phase.value,
            )
        (rank, lane), step = next(iter(self.at.items()))
        raise RunFailed(
            f"deadlock: ranks wait in a cycle, {step.name!r} on lane {lane} never starts",
            rank=rank,
            phase=step.phase.value,
        )
