"""A plan made ready to simulate: blocks of steps with durations, for classes of like ranks.

Ranks whose steps have the same names, kinds, lanes and waits form a class; their durations differ
and are arrays over the ranks of the class. Consecutive local steps of a lane that nobody waits for
in between are one block: removing events, not a faster engine, is what makes simulation fast
(simulation 12.2). Engine and replay execute the same blocks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
import numpy.typing as npt

from gnnbench.cluster import Cluster
from gnnbench.costs.facts import Floats
from gnnbench.plan import COLLECTIVES, Kind, Lane, Plan, RankSteps, Step
from gnnbench_simulator.compute import CostClass, Durations
from gnnbench_simulator.network import Network

Ints = npt.NDArray[np.intp]
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
    groups     of a collective: which entry of `Iteration.groups` each rank of the class is in
    sequence   of a collective: its place among the group's collectives of the iteration
    gap_s      time after the steps that belongs to none of them, calibrated like an operation
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
    groups: Ints | None = None
    sequence: int = 0
    pool: str = ""
    gap_s: float = 0.0
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
        lanes = {b.lane for b in blocks if b.pool == "cores"}
        contended = set()
        wanted = len(lanes) * self.ranks_per_host * self.cluster.device.threads
        if wanted > self.cluster.host.cores:
            contended.add("cores")
        on_device = any(b.pool == "device" for b in blocks)
        if on_device and self.ranks_per_host > self.cluster.host.devices_per_host:
            contended.add("device")
        return contended


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
    published = _published(plan)
    shared = _shared_links(cluster, per_host)
    iterations = [
        _compile(ranks_steps, durations, network, published, shared, fuse, cluster)
        for ranks_steps in plan.iterations
    ]
    lags = [a.lag for it in plan.iterations for steps in it for s in steps for a in s.after]
    return Program(
        plan=plan,
        cluster=cluster,
        ranks_per_host=per_host,
        iterations=iterations,
        cost_classes={**durations.classes, **network.classes},
        max_lag=max(lags, default=0),
    )


def _published(plan: Plan) -> set[str]:
    """Names of steps that some step on another lane waits for."""
    names: set[str] = set()
    for iteration in plan.iterations:
        for steps in iteration:
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


def _signature(steps: RankSteps) -> tuple[object, ...]:
    """What ranks of a class have in common, the places of collectives within their groups too."""
    order: dict[int, int] = {}
    counts: dict[int, int] = defaultdict(int)
    parts = []
    for s in steps:
        place: tuple[int, ...] = ()
        if s.kind in COLLECTIVES:
            group = order.setdefault(hash(s.group), len(order))
            counts[group] += 1
            place = (group, counts[group])
        parts.append((s.name, s.kind, s.lane, s.op, s.after, s.release_s, s.puts, s.takes, place))
    return tuple(parts)


def _compile(
    ranks_steps: Sequence[RankSteps],
    durations: Durations,
    network: Network,
    published: set[str],
    shared: frozenset[Kind],
    fuse: bool,
    cluster: Cluster,
) -> Iteration:
    members: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for rank, steps in enumerate(ranks_steps):
        members[_signature(steps)].append(rank)
    collectives = _Collectives(ranks_steps, network)
    classes = []
    for ranks in members.values():
        programs = [ranks_steps[rank] for rank in ranks]
        flat = [step for steps in programs for step in steps]
        seconds, labels = durations.seconds(flat)
        count = len(programs[0])
        table = seconds.reshape(len(ranks), count).T.copy()
        labels = labels[:count]
        for place, step in enumerate(programs[0]):
            if step.kind in COLLECTIVES:
                labels[place] = step.kind.value
                table[place] = [collectives.seconds(rank, place) for rank in ranks]
            elif not labels[place]:
                labels[place] = step.kind.value
        blocks = list(
            _blocks(
                programs[0],
                ranks,
                table,
                published,
                shared,
                collectives,
                fuse,
                cluster,
                durations.gap_s,
            )
        )
        classes.append(
            RankClass(
                ranks=np.array(ranks),
                columns={rank: column for column, rank in enumerate(ranks)},
                blocks=blocks,
                labels=labels,
            )
        )
    return Iteration(
        classes=classes,
        groups=collectives.groups,
        class_of={rank: c for c, cls in enumerate(classes) for rank in cls.columns},
        names=[frozenset(b.publishes for b in cls.blocks) for cls in classes],
    )


class _Collectives:
    """Match collectives across ranks by (group, sequence in program order) and time them."""

    def __init__(self, ranks_steps: Sequence[RankSteps], network: Network) -> None:
        self.groups: list[tuple[int, ...]] = []
        self._number: dict[tuple[int, ...], int] = {}
        self.place: dict[tuple[int, int], tuple[int, int]] = {}
        found: dict[tuple[int, int], dict[int, Step]] = defaultdict(dict)
        by_identity: dict[int, int] = {}
        for rank, steps in enumerate(ranks_steps):
            counts: dict[int, int] = defaultdict(int)
            for i, step in enumerate(steps):
                if step.kind not in COLLECTIVES:
                    continue
                number = by_identity.get(id(step.group))
                if number is None:
                    number = by_identity[id(step.group)] = self._group(step.group)
                key = (number, counts[number])
                counts[number] += 1
                self.place[rank, i] = key
                found[key][rank] = step
        self._seconds: dict[tuple[int, int], float] = {}
        for (number, sequence), by_rank in found.items():
            group = self.groups[number]
            members = [by_rank[rank] for rank in group if rank in by_rank]
            self._seconds[number, sequence] = network.collective(members, group)[0]

    def _group(self, group: tuple[int, ...]) -> int:
        if group not in self._number:
            self._number[group] = len(self.groups)
            self.groups.append(group)
        return self._number[group]

    def seconds(self, rank: int, place: int) -> float:
        return self._seconds[self.place[rank, place]]


def _blocks(
    template: RankSteps,
    ranks: Sequence[int],
    table: Floats,
    published: set[str],
    shared: frozenset[Kind],
    collectives: _Collectives,
    fuse: bool,
    cluster: Cluster,
    gap_s: float,
) -> Iterable[Block]:
    lanes = {step.name: step.lane for step in template}
    open_block: dict[Lane, Block] = {}
    blocks: list[Block] = []
    for place, step in enumerate(template):
        # A wait on the own lane within an iteration is program order already.
        waits = tuple(
            (a.step, a.lag) for a in step.after if a.lag or lanes.get(a.step) is not step.lane
        )
        mode = _mode(step, shared)
        pool = _pool(step, mode, cluster)
        before = open_block.get(step.lane)
        joins = (
            fuse
            and before is not None
            and mode is Mode.LOCAL
            and before.mode is Mode.LOCAL
            and before.pool == pool
            and not (before.publishes or before.puts)
            and not (waits or step.takes or step.release_s)
        )
        if joins and before is not None:
            before.steps += (place,)
            before.seconds = np.vstack([before.seconds, table[place]])
            block = before
        else:
            block = Block(mode, step.lane, (place,), table[place][None, :], waits)
            block.release_s, block.takes, block.pool = step.release_s, step.takes, pool
            blocks.append(block)
            open_block[step.lane] = block
        block.puts = step.puts
        if step.name in published:
            block.publishes = step.name
        if mode is Mode.COLLECTIVE:
            keys = [collectives.place[rank, place] for rank in ranks]
            block.groups = np.array([number for number, _ in keys])
            block.sequence = keys[0][1]
    for block in blocks:
        block.gap_s = gap_s * len(block.steps)
        block.total = block.seconds.sum(axis=0) + block.gap_s
    return blocks


def _mode(step: Step, shared: frozenset[Kind]) -> Mode:
    if step.kind in COLLECTIVES:
        return Mode.COLLECTIVE
    return Mode.FLOW if step.kind in shared else Mode.LOCAL


def _pool(step: Step, mode: Mode, cluster: Cluster) -> str:
    """What a step keeps busy. Without a network card of its own, so does a transfer.

    Sockets are read and written by the CPU: a transfer in the background takes its cores from
    whatever else runs there. In the foreground its rank has nothing else to do with them.
    """
    if mode is Mode.COLLECTIVE:
        on_cores = cluster.device.kind == "cpu" and step.lane is Lane.BACKGROUND
        return "cores" if on_cores else ""
    if mode is Mode.FLOW or step.kind in _LINKS:
        return ""
    return "cores" if cluster.device.kind == "cpu" or step.lane is Lane.HOST else "device"
