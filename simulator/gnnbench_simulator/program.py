"""A compiled plan: layouts, and the seconds of every step of each iteration.

Iterations are compiled one after the other and may be made lazily: only a few numbers per step and
rank are kept of each. Steps of many iterations are priced together, with one array operation per
cost class.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from gnnbench.cluster import Cluster
from gnnbench.costs.facts import Floats, column
from gnnbench.costs.storage import limited
from gnnbench.iterations import Iteration, RankClass
from gnnbench.plan import Plan, iteration_bytes
from gnnbench.steps import LATEST, STORAGE, Engine, Groups, Kind, Lane
from gnnbench_simulator.compute import CostClass
from gnnbench_simulator.fabric_links import Demand
from gnnbench_simulator.fabric_network import FabricNetwork, network_of
from gnnbench_simulator.host_kinds import durations_of
from gnnbench_simulator.layout import ClassLayout, Encounter, Layout, Mode, Rules, lay_out
from gnnbench_simulator.network import Call, Network
from gnnbench_simulator.pieces import Item, Pieces

_PRICED_AT_ONCE = 2_000
_SECONDS_AT_ONCE = 200_000
"""Steps of classes, and steps of all ranks, after which the iterations gathered are priced: many at
once for speed, and not all at once, because a step takes kilobytes and its seconds some bytes."""
_KEPT_PAIRS = 500_000
"""Pairs of ranks in the collectives of an iteration that are kept for the next cluster: a pair may
take eight bytes."""


@dataclass(slots=True, eq=False)
class Timed:
    """One distinct iteration with its seconds; per class of its layout, arrays over its ranks.

    seconds   (steps, ranks); of a collective, the transfer without waiting
    gaps      (blocks, ranks): time after the steps of a block that belongs to none of them
    totals    (blocks, ranks): all steps of a block, and their gaps
    idle      by place of a collective (ranks,): seconds in which its ranks keep no core busy
    demand    by place of a message or of a copy over shared links (ranks,): its bytes; of a
              transfer on a shared disk: seconds for which it keeps the disk busy
    crossing  by (group, sequence) of a collective: what it takes of the links of a fabric
    sent      bytes that all ranks move, by (kind, phase)
    """

    layout: Layout
    seconds: list[Floats]
    gaps: list[Floats]
    totals: list[Floats]
    idle: list[dict[int, Floats]]
    demand: list[dict[int, Floats]]
    crossing: dict[tuple[int, int], Demand]
    sent: dict[tuple[str, str], int]


@dataclass(slots=True)
class Program:
    """A compiled plan.

    iterations     seconds of each distinct iteration, by its number in the plan
    layouts        each layout once
    network        seconds of collectives, and the links of messages
    cost_classes   by label: grade and error radius of the durations
    labels         per layout and class, the cost class of each step
    max_lag        largest lag of any wait
    waits_latest   names of steps for whose latest occurrence a step waits
    contended      which of "cores" and "device" more work can want than a host has
    crowded        whether several transfers can meet at a declared link of a fabric
    """

    plan: Plan
    cluster: Cluster
    ranks_per_host: int
    iterations: dict[int, Timed]
    layouts: list[Layout]
    network: Network
    cost_classes: dict[str, CostClass]
    labels: dict[int, list[list[str]]]
    max_lag: int = 0
    waits_latest: frozenset[str] = frozenset()
    contended: frozenset[str] = field(default_factory=frozenset)
    crowded: bool = False

    @property
    def world_size(self) -> int:
        return self.plan.world_size

    def labels_of(self, layout: Layout) -> list[list[str]]:
        return self.labels[id(layout)]

    def latest(self, rank: int, name: str, number: int) -> int | None:
        """Index of the last scheduled iteration before `number` in which a rank has a step."""
        for before in range(number - 1, -1, -1):
            layout = self.iterations[self.plan.schedule[before]].layout
            if name in layout.names(rank):
                return before
        return None

    def peer(self, layout: Layout, rank: int, place: int) -> int:
        """The rank with which a rank exchanges a message."""
        of = layout.classes[layout.class_of[rank]]
        group = of.steps[place].group
        if isinstance(group, Groups):
            group = group.table[group.of[of.columns[rank]]]
        return int(next(other for other in group if other != rank))

    def host_of(self, rank: int) -> int:
        return rank // self.ranks_per_host

    def capacity(self, resource: tuple[str, int]) -> float:
        """Capacity of a shared resource: cores, devices, or bytes per second of a link."""
        if resource[0] == "cores":
            return float(self.cluster.of_host(resource[1]).host.cores)
        if resource[0] == "device":
            return float(self.cluster.of_host(resource[1]).host.devices_per_host)
        if resource[0] in ("host_link", "disk"):
            return 1.0
        return self.network.capacity(resource)

    def core_share(self, rank: int) -> float:
        """Cores that a rank occupies during a collective: its share of the cores of the host.

        Collectives are calibrated with all ranks of a host at once, which had all cores together.
        """
        host = self.cluster.of_host(self.host_of(rank)).host
        return min(1.0, host.cores / self.ranks_per_host)

    def threads(self, rank: int) -> float:
        """Cores that a rank's own work keeps busy."""
        return float(self.cluster.of_host(self.host_of(rank)).device.threads)

    def contention(self) -> str:
        """The resource for which blocks compete, in words; "" if there is none."""
        if any(block.mode is Mode.FLOW for of in self._classes() for block in of.blocks):
            return "transfers share links or a disk"
        if self.crowded:
            return "collectives share links of the fabric"
        if "cores" in self.contended:
            return f"busy lanes want more than the {self.cluster.host.cores} cores of a host"
        if "device" in self.contended:
            return f"{self.ranks_per_host} ranks share the devices of a host"
        return ""

    def _classes(self) -> Iterator[ClassLayout]:
        for layout in self.layouts:
            yield from layout.classes

    def contended_pools(self) -> frozenset[str]:
        """Which of "cores" and "device" more work can want at once than a host has."""
        contended = set()
        at_once = self._lanes_at_once() * self.ranks_per_host
        # Counted at its worst. Where even that fits, the faster replay is exact.
        if any(at_once * kind.device.threads > kind.host.cores for kind in self.cluster.kinds):
            contended.add("cores")
        on_device = any(b.pool == "device" for of in self._classes() for b in of.blocks)
        least = min(kind.host.devices_per_host for kind in self.cluster.kinds)
        if on_device and self.ranks_per_host > least:
            contended.add("device")
        return frozenset(contended)

    def _lanes_at_once(self) -> int:
        """The most lanes of one rank that may keep cores busy together.

        A rank's class can change from one iteration to the next, and iterations overlap; so only
        where there is a single layout do the classes count separately.
        """
        each = [{b.lane for b in of.blocks if b.pool == "cores"} for of in self._classes()]
        # Lanes of different layouts may be busy at once, because iterations overlap.
        if len(self.layouts) > 1:
            return len(set[Lane]().union(*each))
        return max((len(lanes) for lanes in each), default=0)


@dataclass(slots=True)
class Shared:
    """What compiling one plan for one cluster leaves to the next, whose speeds alone differ.

    layouts  by the rules of a cluster
    pieces   all local steps of the plan; None if they are too many to keep
    calls    the collectives of an iteration, by the identity of its layout and its index
    """

    layouts: MutableMapping[Rules, list[Layout]]
    pieces: Pieces | None = None
    calls: dict[tuple[int, int], list[Call]] = field(default_factory=dict)


def compile_plan(
    plan: Plan,
    cluster: Cluster,
    *,
    ranks_per_host: int | None = None,
    element_bytes: float = 4.0,
    fuse: bool = True,
    shared: Shared | None = None,
) -> Program:
    """Compile a plan for a cluster: validate it, join steps to blocks, and price every step.

    Args:
        plan: steps of all ranks.
        cluster: devices, links and calibrated constants.
        ranks_per_host: by default as many as a host has devices.
        element_bytes: bytes of a feature element, for working sets in caches.
        fuse: False gives every step a block of its own.
        shared: of this plan compiled for earlier clusters; a plan that has layouts was validated
            with the first of them. New ones are added.

    Raises:
        SpecError: the ranks' steps do not fit together.
        Unsupported: the cluster lacks what a step needs, such as a disk.
    """
    shared = Shared({}) if shared is None else shared
    if not shared.layouts:
        # An invalid plan would deadlock below, and a deadlock says less than the plan's own checks.
        plan.validate()
    cluster = limited(cluster, plan.disk)
    per_host = min(ranks_per_host or cluster.ranks_per_host(plan.world_size), plan.world_size)
    layout_of, samples = plan.layouts
    rules = Rules.of(samples, cluster, per_host, fuse=fuse)
    layouts = shared.layouts.get(rules)
    if layouts is None:
        layouts = shared.layouts[rules] = [lay_out(sample, rules) for sample in samples]
    pricing = _Pricing(cluster, per_host, element_bytes, shared, _busy_lanes(layouts))
    for index, number in layout_of.items():
        pricing.add(index, plan.iterations[index], layouts[number])
    pricing.price(whole=True)
    # One sample of each layout is enough: iterations of a layout differ in sizes only.
    waits = [a for of in samples for c in of.classes for s in c.steps for a in s.after]
    program = Program(
        plan=plan,
        cluster=cluster,
        ranks_per_host=per_host,
        iterations=pricing.done,
        layouts=layouts,
        network=pricing.network,
        cost_classes={**pricing.durations.classes, **pricing.network.classes},
        labels=pricing.labels,
        max_lag=max((0, *(after.lag for after in waits))),
        waits_latest=frozenset(after.step for after in waits if after.lag == LATEST),
    )
    program.contended = program.contended_pools()
    program.crowded = isinstance(pricing.network, FabricNetwork) and _meet_on_links(program)
    return program


def _busy_lanes(layouts: Sequence[Layout]) -> int:
    """The most lanes of one rank that work on cores, each in a thread of its own."""
    return max(
        (
            len({b.lane for b in of.blocks if b.pool == "cores" and b.mode is Mode.LOCAL})
            for layout in layouts
            for of in layout.classes
        ),
        default=1,
    )


def _meet_on_links(program: Program) -> bool:
    """Whether more than one transfer at a time can be on a declared link."""
    blocks = [block for layout in program.layouts for of in layout.classes for block in of.blocks]
    flows = any(
        of.steps[block.steps[0]].work.kind in _OVER_LINKS
        for layout in program.layouts
        for of in layout.classes
        for block in of.blocks
        if block.mode is Mode.FLOW
    )
    if flows:
        return True
    if not any(timed.crossing for timed in program.iterations.values()):
        return False
    lanes = {block.lane for block in blocks if block.mode is Mode.COLLECTIVE}
    groups = {group for layout in program.layouts for group in layout.groups if len(group) > 1}
    return len(lanes) > 1 or len(groups) > 1


_OVER_LINKS = (Kind.SEND, Kind.RECV, Kind.COPY)


class _Pricing:
    """Gathers iterations, and prices the steps of many at once."""

    def __init__(
        self, cluster: Cluster, per_host: int, element_bytes: float, shared: Shared, lanes: int
    ) -> None:
        self.shared, self.element_bytes = shared, element_bytes
        self.durations = durations_of(
            cluster, co_located=per_host, lanes=lanes, element_bytes=element_bytes
        )
        self.network = network_of(cluster, per_host)
        self.done: dict[int, Timed] = {}
        self.labels: dict[int, list[list[str]]] = {}
        # What is the same in all iterations of a layout is kept once.
        self._without_gaps: dict[int, list[Floats]] = {}
        self._nothing: dict[int, list[dict[int, Floats]]] = {}
        self._waiting: list[tuple[int, Iteration, Layout]] = []
        self._steps = self._seconds = 0

    def add(self, index: int, iteration: Iteration, layout: Layout) -> None:
        self._waiting.append((index, iteration, layout))
        self._steps += sum(len(of.steps) for of in iteration.classes)
        self._seconds += iteration.num_steps()
        if self._steps > _PRICED_AT_ONCE or self._seconds > _SECONDS_AT_ONCE:
            self.price()

    def price(self, *, whole: bool = False) -> None:
        """Price the iterations gathered; `whole`: no further ones will come."""
        # Nothing was priced before: these are all local steps of the plan, and few enough to keep.
        kept = whole and not self.done
        pieces = self.shared.pieces if kept else None
        if pieces is None or pieces.element_bytes != self.element_bytes:
            pieces = Pieces(self._items(), self.element_bytes)
            if kept:
                self.shared.pieces = pieces
        priced, gaps, labels = self.durations.price(pieces)
        at = 0
        for index, iteration, layout in self._waiting:
            tables = []
            for of in iteration.classes:
                span = slice(at, at + len(of.steps))
                tables.append((priced[span], gaps[span], labels[span]))
                at = span.stop
            self.done[index] = self._timed(index, iteration, layout, tables)
        self._waiting, self._steps, self._seconds = [], 0, 0

    def _items(self) -> list[Item]:
        return [
            Item(step.work, len(of), step.lane.engine is Engine.HOST, of.ranks)
            for _, iteration, _ in self._waiting
            for of in iteration.classes
            for step in of.steps
        ]

    def _timed(
        self,
        index: int,
        iteration: Iteration,
        layout: Layout,
        tables: Sequence[tuple[Sequence[Floats], Sequence[Floats], Sequence[str]]],
    ) -> Timed:
        if id(layout) not in self.labels:
            self._nothing[id(layout)] = [{} for _ in layout.classes]
            self.labels[id(layout)] = [
                [
                    label or step.work.kind.value
                    for label, step in zip(labels, of.steps, strict=True)
                ]
                for of, (_, _, labels) in zip(iteration.classes, tables, strict=True)
            ]
        seconds = [
            _table(rows, len(of))
            for (rows, _, _), of in zip(tables, iteration.classes, strict=True)
        ]
        crossing: dict[tuple[int, int], Demand] = {}
        calls = self._calls(index, iteration, layout)
        idle = self._meet(calls, layout, seconds, crossing)
        gaps = self._gaps(layout, [rows for _, rows, _ in tables])
        totals = [
            cls.by_block(table) + gap
            for cls, table, gap in zip(layout.classes, seconds, gaps, strict=True)
        ]
        demand = [
            self._demand(of, cls) for of, cls in zip(iteration.classes, layout.classes, strict=True)
        ]
        nothing = self._nothing[id(layout)]
        return Timed(
            layout=layout,
            seconds=seconds,
            gaps=gaps,
            totals=totals,
            idle=idle if any(idle) else nothing,
            demand=demand if any(demand) else nothing,
            crossing=crossing,
            sent=iteration_bytes(iteration),
        )

    def _gaps(self, layout: Layout, rows: Sequence[Sequence[Floats]]) -> list[Floats]:
        """Gaps of the blocks; one table for all iterations of a layout where there are none."""
        known = self._without_gaps.get(id(layout))
        if known is not None:
            return known
        gaps = [
            cls.by_block(_table(own, len(cls.ranks)))
            for cls, own in zip(layout.classes, rows, strict=True)
        ]
        if not self.durations.has_gaps:
            self._without_gaps[id(layout)] = gaps
        return gaps

    def _demand(self, of: RankClass, cls: ClassLayout) -> dict[int, Floats]:
        """What the flows of a class ask of the resource that they share, see `Timed`."""
        found: dict[int, Floats] = {}
        fabric = isinstance(self.network, FabricNetwork)
        flows = {b.steps[0] for b in cls.blocks if b.mode is Mode.FLOW} if fabric else set()
        for place, step in enumerate(of.steps):
            copied = step.work.kind is Kind.COPY and place in flows
            if step.work.kind is Kind.SEND or copied:
                found[place] = column([step.work.bytes], [len(of)], len(of))
            elif step.work.kind in STORAGE:
                # The disk is busy for less time than the request takes: latency is not work.
                found[place] = self.durations.disk_busy(step.work, len(of), of.ranks)
        return found

    def _calls(self, index: int, iteration: Iteration, layout: Layout) -> list[Call]:
        """The collectives of an iteration, in the order of its layout's encounters."""
        calls = self.shared.calls.get((id(layout), index))
        if calls is None:
            calls = [_call(iteration, layout, encounter) for encounter in layout.encounters]
            if sum(len(call.group) ** 2 for call in calls) <= _KEPT_PAIRS:
                self.shared.calls[id(layout), index] = calls
        return calls

    def _meet(
        self,
        calls: Sequence[Call],
        layout: Layout,
        seconds: list[Floats],
        crossing: dict[tuple[int, int], Demand],
    ) -> list[dict[int, Floats]]:
        """Put the seconds of all collectives into the tables; return those without a core."""
        idle: list[dict[int, Floats]] = [{} for _ in layout.classes]
        for encounter, call in zip(layout.encounters, calls, strict=True):
            timing = self.network.collective(call)
            if isinstance(self.network, FabricNetwork):
                demand = self.network.demand(call)
                if len(demand.links):
                    crossing[encounter.group, encounter.sequence] = demand
            for part in encounter.parts:
                seconds[part.number][part.place, part.columns] = timing.seconds
                # Kept sparsely: only collectives that leave cores idle need the split.
                if timing.idle_s:
                    held = idle[part.number].get(part.place)
                    if held is None:
                        held = np.zeros(len(layout.classes[part.number].ranks))
                        idle[part.number][part.place] = held
                    held[part.columns] = timing.idle_s
        return idle


def _call(iteration: Iteration, layout: Layout, encounter: Encounter) -> Call:
    works = [
        (iteration.classes[part.number].steps[part.place].work, part) for part in encounter.parts
    ]
    return Call.gathered(encounter.kind, layout.groups[encounter.group], works)


def _table(rows: Sequence[Floats], ranks: int) -> Floats:
    """Rows of seconds, some of them the same for all ranks, as one (steps, ranks) array."""
    table = np.empty((len(rows), ranks))
    for place, row in enumerate(rows):
        table[place] = row
    return table
