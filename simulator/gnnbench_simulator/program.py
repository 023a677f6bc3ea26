"""A plan made ready to simulate: blocks of steps with durations, for classes of like ranks.

Ranks whose steps have the same names, kinds, lanes and waits form a class; their durations differ
and are arrays over the ranks of the class. Consecutive local steps of a lane that nobody waits for
in between are one block: removing events, not a faster engine, is what makes simulation fast
(simulation 12.2). Engine and replay execute the same blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from gnnbench.cluster import Cluster
from gnnbench.costs.facts import Floats
from gnnbench.plan import COLLECTIVES, Kind, Lane, Plan, RankSteps, Step
from gnnbench_simulator.compute import CostClass, Durations
from gnnbench_simulator.matching import Catalogue, Collectives, Ints, Meeting, Members
from gnnbench_simulator.network import Network

_LINKS = frozenset({Kind.COPY, Kind.READ, Kind.WRITE})


class Mode(Enum):
    """How a block spends its time."""

    LOCAL = "local"
    COLLECTIVE = "collective"
    FLOW = "flow"


@dataclass(slots=True)
class Block:
    """Steps of one lane that run back to back, for all ranks of a class.

    seconds    per step and rank (steps, ranks); of a collective, the transfer without waiting
    meeting    of a collective: whom each rank of the class meets
    gap_s      per rank, time after the steps that belongs to none of them, calibrated like one
    total      per rank, all steps and their gaps
    pool       what the work occupies: "cores" of the host, its "device"s, or "" (neither)
    """

    mode: Mode
    lane: Lane
    steps: tuple[int, ...]
    seconds: Floats
    waits: tuple[tuple[str, int], ...] = ()
    publishes: str = ""
    release_s: float = 0.0
    takes: str = ""
    puts: str = ""
    meeting: Meeting | None = None
    pool: str = ""
    gap_s: Floats = field(default_factory=lambda: np.zeros(0))
    total: Floats = field(default_factory=lambda: np.zeros(0))


@dataclass(slots=True)
class RankClass:
    """Ranks with the same program, and its blocks in program order.

    columns   place of each rank in the arrays of the class
    labels    cost class of each step
    """

    ranks: Ints
    columns: dict[int, int]
    blocks: list[Block]
    labels: list[str]


@dataclass(slots=True)
class Iteration:
    """One distinct iteration: classes, and the groups of its collectives.

    class_of   class of each rank
    names      published step names of each class
    """

    classes: list[RankClass]
    groups: list[tuple[int, ...]]
    class_of: dict[int, int]
    names: list[frozenset[str]]


@dataclass(slots=True)
class Program:
    """A compiled plan. `cost_classes` by label: what each duration rests on."""

    plan: Plan
    cluster: Cluster
    ranks_per_host: int
    iterations: list[Iteration]
    cost_classes: dict[str, CostClass]
    max_lag: int

    @property
    def world_size(self) -> int:
        return self.plan.world_size

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
        """Why blocks may slow each other down or who goes first is not known; "" if neither."""
        blocks = [b for it in self.iterations for c in it.classes for b in c.blocks]
        if any(b.takes or b.puts for b in blocks):
            return "named queues: only the engine can say who takes what"
        if any(b.mode is Mode.FLOW for b in blocks):
            return "transfers share links"
        contended = self.contended_pools()
        if "cores" in contended:
            return f"busy lanes want more than the {self.cluster.host.cores} cores of a host"
        if "device" in contended:
            return f"{self.ranks_per_host} ranks share the devices of a host"
        return ""

    def contended_pools(self) -> set[str]:
        """Which of "cores" and "device" can be wanted by more than there is on a host."""
        blocks = [b for it in self.iterations for c in it.classes for b in c.blocks]
        contended = set()
        wanted = self._lanes_at_once() * self.ranks_per_host * self.cluster.device.threads
        if wanted > self.cluster.host.cores:
            contended.add("cores")
        on_device = any(b.pool == "device" for b in blocks)
        if on_device and self.ranks_per_host > self.cluster.host.devices_per_host:
            contended.add("device")
        return contended

    def _lanes_at_once(self) -> int:
        """The most lanes of one rank that may keep cores busy together.

        A rank's class can change from one iteration to the next, and iterations overlap; so only
        where there is a single one do the classes count apart.
        """
        each = [
            {b.lane for b in c.blocks if b.pool == "cores"}
            for it in self.iterations
            for c in it.classes
        ]
        if len(self.iterations) > 1:
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
    """Give every step its duration on a cluster and fuse what can be fused."""
    per_host = ranks_per_host or cluster.ranks_per_host(plan.world_size)
    per_host = min(per_host, plan.world_size)
    durations = Durations(cluster, co_located=per_host, element_bytes=element_bytes)
    network = Network(cluster, per_host)
    matched = []
    for ranks_steps in plan.iterations:
        catalogue = Catalogue(ranks_steps)
        matched.append((ranks_steps, catalogue, catalogue.classes()))
    # Steps of a class have the same names, lanes and waits: its first rank tells them.
    programs = [ranks[members.ranks[0]] for ranks, _, classes in matched for members in classes]
    rules = _Rules(
        cluster, _published(programs), _shared_links(cluster, per_host), _overlaps(programs), fuse
    )
    iterations = [
        _compile(ranks_steps, catalogue, classes, durations, network, rules)
        for ranks_steps, catalogue, classes in matched
    ]
    lags = [after.lag for steps in programs for step in steps for after in step.after]
    return Program(
        plan=plan,
        cluster=cluster,
        ranks_per_host=per_host,
        iterations=iterations,
        cost_classes={**durations.classes, **network.classes},
        max_lag=max(lags, default=0),
    )


@dataclass(frozen=True, slots=True)
class _Rules:
    """What decides how steps become blocks, the same for a whole plan.

    published   names of steps that a step on another lane waits for
    shared      kinds whose transfers share links with other ranks
    overlaps    whether ranks compute while they communicate
    """

    cluster: Cluster
    published: set[str]
    shared: frozenset[Kind]
    overlaps: bool
    fuse: bool


def _overlaps(programs: Sequence[RankSteps]) -> bool:
    """Whether any transfer runs in the background."""
    return any(
        step.lane is Lane.BACKGROUND and step.kind in COLLECTIVES
        for steps in programs
        for step in steps
    )


def _published(programs: Sequence[RankSteps]) -> set[str]:
    """Names of steps that some step on another lane waits for."""
    names: set[str] = set()
    for steps in programs:
        waits = [(after, step.lane) for step in steps for after in step.after]
        if not waits:
            continue
        lanes = {step.name: step.lane for step in steps}
        for after, lane in waits:
            if after.lag or lanes.get(after.step) is not lane:
                names.add(after.step)
    return names


def _shared_links(cluster: Cluster, per_host: int) -> frozenset[Kind]:
    """Kinds whose transfers share a link with other ranks, so that the engine must see them."""
    kinds = {Kind.SEND, Kind.RECV}
    if per_host > 1 and cluster.storage is not None:
        kinds |= {Kind.READ, Kind.WRITE}
    if per_host > 1 and cluster.links.host is not None and cluster.links.host.shared:
        kinds.add(Kind.COPY)
    return frozenset(kinds)


def _compile(
    ranks_steps: Sequence[RankSteps],
    catalogue: Catalogue,
    members: Sequence[Members],
    durations: Durations,
    network: Network,
    rules: _Rules,
) -> Iteration:
    collectives = Collectives(catalogue, members, network)
    seconds, labels = durations.seconds(catalogue.steps)
    gaps = durations.gaps(catalogue.steps)
    classes = []
    for class_ in members:
        template = ranks_steps[class_.ranks[0]]
        table = seconds[class_.steps].T.copy()
        meetings = dict(zip(class_.places.tolist(), collectives.meetings(class_), strict=True))
        for place, meeting in meetings.items():
            table[place] = meeting.seconds
        own = [labels[i] for i in class_.steps[0].tolist()]
        classes.append(
            RankClass(
                ranks=np.array(class_.ranks),
                columns={rank: column for column, rank in enumerate(class_.ranks)},
                blocks=_blocks(template, table, meetings, rules, gaps[class_.steps].T),
                labels=[
                    label or step.kind.value for label, step in zip(own, template, strict=True)
                ],
            )
        )
    return Iteration(
        classes=classes,
        groups=catalogue.groups,
        class_of={rank: c for c, cls in enumerate(classes) for rank in cls.columns},
        names=[frozenset(b.publishes for b in cls.blocks) for cls in classes],
    )


def _blocks(
    template: RankSteps,
    table: Floats,
    meetings: dict[int, Meeting],
    rules: _Rules,
    gaps: Floats,
) -> list[Block]:
    """Cut a class's program into blocks.

    Args:
        template: the steps of one of its ranks.
        table: seconds, (steps, ranks).
        meetings: of each collective, by its place: whom it meets.
        rules: what may be fused, and what must be seen by others.
        gaps: seconds between a step and the next, (steps, ranks).
    """
    lanes = {step.name: step.lane for step in template}
    open_block: dict[Lane, int] = {}
    blocks: list[Block] = []
    places: list[list[int]] = []
    for place, step in enumerate(template):
        # A wait on the own lane within an iteration is program order already.
        waits = tuple(
            (a.step, a.lag) for a in step.after if a.lag or lanes.get(a.step) is not step.lane
        )
        mode = _mode(step, rules.shared)
        pool = _pool(step, mode, rules)
        number = open_block.get(step.lane, -1)
        joins = (
            rules.fuse
            and number >= 0
            and mode is Mode.LOCAL
            and blocks[number].mode is Mode.LOCAL
            and blocks[number].pool == pool
            and not (blocks[number].publishes or blocks[number].puts)
            and not (waits or step.takes or step.release_s)
        )
        if not joins:
            number = open_block[step.lane] = len(blocks)
            blocks.append(Block(mode, step.lane, (), table, waits))
            blocks[-1].release_s, blocks[-1].takes = step.release_s, step.takes
            blocks[-1].pool = pool
            places.append([])
        places[number].append(place)
        blocks[number].puts = step.puts
        if step.name in rules.published:
            blocks[number].publishes = step.name
        if mode is Mode.COLLECTIVE:
            blocks[number].meeting = meetings[place]
    for block, steps in zip(blocks, places, strict=True):
        block.steps, block.seconds = tuple(steps), table[steps]
        block.gap_s = gaps[steps].sum(axis=0)
        block.total = block.seconds.sum(axis=0) + block.gap_s
    return blocks


def _mode(step: Step, shared: frozenset[Kind]) -> Mode:
    if step.kind in COLLECTIVES:
        return Mode.COLLECTIVE
    return Mode.FLOW if step.kind in shared else Mode.LOCAL


def _pool(step: Step, mode: Mode, rules: _Rules) -> str:
    """What a step keeps busy. Without a network card of its own, so does a transfer.

    Sockets are read and written by the CPU: transfers beside computation take their cores from it.
    Where every rank waits for its transfers, it has nothing else to do with the cores.
    """
    cluster = rules.cluster
    if mode is Mode.COLLECTIVE:
        return "cores" if cluster.device.kind == "cpu" and rules.overlaps else ""
    if mode is Mode.FLOW or step.kind in _LINKS:
        return ""
    return "cores" if cluster.device.kind == "cpu" or step.lane is Lane.HOST else "device"
