"""A plan made ready to simulate: layouts, and the seconds of every step of each iteration.

Iterations are looked at one after the other and may be made lazily; what is kept of each are some
numbers per block and rank. Steps are priced many at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from gnnbench.cluster import Cluster
from gnnbench.costs.facts import Floats
from gnnbench.iterations import Iteration
from gnnbench.plan import Plan, iteration_bytes
from gnnbench.steps import LATEST, Engine, Groups, Kind, Lane
from gnnbench_simulator.compute import CostClass, Durations, Item
from gnnbench_simulator.layout import ClassLayout, Layout, Mode, Rules, lay_out
from gnnbench_simulator.network import Call, Network

_PRICED_AT_ONCE = 200_000
"""Steps of all ranks after which the iterations gathered so far are priced."""


@dataclass(slots=True, eq=False)
class Timed:
    """One distinct iteration with its seconds; per class of its layout, arrays over its ranks.

    seconds   (steps, ranks); of a collective, the transfer without waiting
    gaps      (blocks, ranks): time after the steps of a block that belongs to none of them
    totals    (blocks, ranks): all steps of a block, and their gaps
    idle      by place of a collective (ranks,): seconds in which its ranks keep no core busy
    letters   by place of a message (ranks,): its bytes
    sent      bytes that all ranks move, by (kind, phase)
    """

    layout: Layout
    seconds: list[Floats]
    gaps: list[Floats]
    totals: list[Floats]
    idle: list[dict[int, Floats]]
    letters: list[dict[int, Floats]]
    sent: dict[tuple[str, str], int]


@dataclass(slots=True)
class Program:
    """A compiled plan.

    iterations     by number of the distinct iteration
    layouts        of the iterations, each once
    cost_classes   by label: what each duration rests on
    labels         per layout and class, the cost class of each step
    max_lag        the largest lag that any step waits with
    waits_latest   names of steps whose latest occurrence is waited for
    """

    plan: Plan
    cluster: Cluster
    ranks_per_host: int
    iterations: dict[int, Timed]
    layouts: list[Layout]
    cost_classes: dict[str, CostClass]
    labels: dict[int, list[list[str]]]
    max_lag: int = 0
    waits_latest: frozenset[str] = frozenset()
    contended: frozenset[str] = field(default_factory=frozenset)

    @property
    def world_size(self) -> int:
        return self.plan.world_size

    def labels_of(self, layout: Layout) -> list[list[str]]:
        return self.labels[id(layout)]

    def latest(self, rank: int, name: str, number: int) -> int | None:
        """The last place in the schedule before `number` at which a rank has a step."""
        for before in range(number - 1, -1, -1):
            layout = self.iterations[self.plan.schedule[before]].layout
            if name in layout.names(rank):
                return before
        return None

    def peer(self, layout: Layout, rank: int, place: int) -> int:
        """The other rank of the group of a message."""
        of = layout.classes[layout.class_of[rank]]
        group = of.steps[place].group
        if isinstance(group, Groups):
            group = group.table[group.of[of.columns[rank]]]
        return int(next(other for other in group if other != rank))

    def host_of(self, rank: int) -> int:
        return rank // self.ranks_per_host

    def capacity(self, resource: tuple[str, int], network: Network) -> float:
        """Units per second of what flows share: cores, devices, or bytes of a link."""
        if resource[0] == "cores":
            return float(self.cluster.host.cores)
        if resource[0] == "device":
            return float(self.cluster.host.devices_per_host)
        if resource[0] in ("host_link", "disk"):
            return 1.0
        return network.capacity(resource)

    def core_share(self) -> float:
        """Cores that a rank's transfer keeps busy: its share of what all ranks of a host have.

        Collectives were measured with all ranks of a host in them: together they had all cores.
        """
        return min(1.0, self.cluster.host.cores / self.ranks_per_host)

    def contention(self) -> str:
        """Why blocks may slow each other down; "" if they cannot."""
        if any(block.mode is Mode.FLOW for of in self._classes() for block in of.blocks):
            return "transfers share links or a disk"
        if "cores" in self.contended:
            return f"busy lanes want more than the {self.cluster.host.cores} cores of a host"
        if "device" in self.contended:
            return f"{self.ranks_per_host} ranks share the devices of a host"
        return ""

    def _classes(self) -> Iterator[ClassLayout]:
        for layout in self.layouts:
            yield from layout.classes

    def contended_pools(self) -> frozenset[str]:
        """Which of "cores" and "device" can be wanted by more than there is on a host."""
        contended = set()
        wanted = self._lanes_at_once() * self.ranks_per_host * self.cluster.device.threads
        if wanted > self.cluster.host.cores:
            contended.add("cores")
        on_device = any(b.pool == "device" for of in self._classes() for b in of.blocks)
        if on_device and self.ranks_per_host > self.cluster.host.devices_per_host:
            contended.add("device")
        return frozenset(contended)

    def _lanes_at_once(self) -> int:
        """The most lanes of one rank that may keep cores busy together.

        A rank's class can change from one iteration to the next, and iterations overlap; so only
        where there is a single layout do the classes count separately.
        """
        each = [{b.lane for b in of.blocks if b.pool == "cores"} for of in self._classes()]
        if len(self.layouts) > 1:
            return len(set[Lane]().union(*each))
        return max((len(lanes) for lanes in each), default=0)


def compile_plan(
    plan: Plan,
    cluster: Cluster,
    *,
    ranks_per_host: int | None = None,
    element_bytes: float = 4.0,
    fuse: bool = True,
) -> Program:
    """Give every step its duration on a cluster, and join steps to blocks where nobody sees it.

    Raises:
        SpecError: the ranks' steps do not fit together.
        Unsupported: the cluster lacks what a step needs, such as a disk.
    """
    plan.validate()
    per_host = min(ranks_per_host or cluster.ranks_per_host(plan.world_size), plan.world_size)
    layout_of, samples = plan.layouts
    rules = Rules.of(samples, cluster, per_host, fuse=fuse)
    layouts = [lay_out(sample, rules) for sample in samples]
    pricing = _Pricing(cluster, per_host, element_bytes)
    for index, number in layout_of.items():
        pricing.add(index, plan.iterations[index], layouts[number])
    pricing.price()
    waits = [a for of in samples for c in of.classes for s in c.steps for a in s.after]
    program = Program(
        plan=plan,
        cluster=cluster,
        ranks_per_host=per_host,
        iterations=pricing.done,
        layouts=layouts,
        cost_classes={**pricing.durations.classes, **pricing.network.classes},
        labels=pricing.labels,
        max_lag=max((after.lag for after in waits), default=0),
        waits_latest=frozenset(after.step for after in waits if after.lag == LATEST),
    )
    program.contended = program.contended_pools()
    return program


class _Pricing:
    """Gathers iterations, and prices the steps of many at once."""

    def __init__(self, cluster: Cluster, per_host: int, element_bytes: float) -> None:
        self.durations = Durations(cluster, co_located=per_host, element_bytes=element_bytes)
        self.network = Network(cluster, per_host)
        self.done: dict[int, Timed] = {}
        self.labels: dict[int, list[list[str]]] = {}
        self._waiting: list[tuple[int, Iteration, Layout]] = []
        self._steps = 0

    def add(self, index: int, iteration: Iteration, layout: Layout) -> None:
        self._waiting.append((index, iteration, layout))
        self._steps += iteration.num_steps()
        if self._steps > _PRICED_AT_ONCE:
            self.price()

    def price(self) -> None:
        items = [
            Item(step.work, len(of), step.lane.engine is Engine.HOST)
            for _, iteration, _ in self._waiting
            for of in iteration.classes
            for step in of.steps
        ]
        priced, gaps, labels = self.durations.price(items)
        at = 0
        for index, iteration, layout in self._waiting:
            tables = []
            for of in iteration.classes:
                span = slice(at, at + len(of.steps))
                tables.append((priced[span], gaps[span], labels[span]))
                at = span.stop
            self.done[index] = self._timed(iteration, layout, tables)
        self._waiting, self._steps = [], 0

    def _timed(
        self,
        iteration: Iteration,
        layout: Layout,
        tables: Sequence[tuple[Sequence[Floats], Sequence[Floats], Sequence[str]]],
    ) -> Timed:
        if id(layout) not in self.labels:
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
        idle = self._meet(iteration, layout, seconds)
        gaps = [
            cls.by_block(_table(rows, len(cls.ranks)))
            for cls, (_, rows, _) in zip(layout.classes, tables, strict=True)
        ]
        totals = [
            cls.by_block(table) + gap
            for cls, table, gap in zip(layout.classes, seconds, gaps, strict=True)
        ]
        letters = [
            {
                place: np.broadcast_to(np.asarray(step.work.bytes, np.float64), (len(of),))
                for place, step in enumerate(of.steps)
                if step.work.kind is Kind.SEND
            }
            for of in iteration.classes
        ]
        return Timed(layout, seconds, gaps, totals, idle, letters, iteration_bytes(iteration))

    def _meet(
        self, iteration: Iteration, layout: Layout, seconds: list[Floats]
    ) -> list[dict[int, Floats]]:
        """Put the seconds of all collectives into the tables; return those without a core."""
        idle: list[dict[int, Floats]] = [{} for _ in layout.classes]
        for encounter in layout.encounters:
            group = layout.groups[encounter.group]
            works = [
                (iteration.classes[part.number].steps[part.place].work, part)
                for part in encounter.parts
            ]
            timing = self.network.collective(Call.gathered(encounter.kind, group, works))
            for _, part in works:
                seconds[part.number][part.place, part.columns] = timing.seconds
                if timing.idle_s:
                    held = idle[part.number].get(part.place)
                    if held is None:
                        held = np.zeros(len(layout.classes[part.number].ranks))
                        idle[part.number][part.place] = held
                    held[part.columns] = timing.idle_s
        return idle


def _table(rows: Sequence[Floats], ranks: int) -> Floats:
    """Rows of seconds, some of them the same for all ranks, as one (steps, ranks) array."""
    table = np.empty((len(rows), ranks))
    for place, row in enumerate(rows):
        table[place] = row
    return table
