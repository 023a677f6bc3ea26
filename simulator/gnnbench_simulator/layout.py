"""The layout of an iteration: classes of ranks, blocks of steps, and matched collectives.

Iterations that differ only in sizes share one layout, so a layout is computed once for thousands of
iterations. `program.Timed` holds the seconds, which differ.

A block is a sequence of local steps on one lane in which no other step waits for an inner one.
Fewer events make the simulation faster than a faster engine would (simulation 12.2). Engine, event
loop and replay execute the same blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from gnnbench.cluster import Cluster
from gnnbench.iterations import Iteration, RankClass
from gnnbench.steps import (
    COLLECTIVES,
    LATEST,
    NO_ROOT,
    STORAGE,
    After,
    Engine,
    Groups,
    Kind,
    Lane,
    Step,
)

Places = npt.NDArray[np.intp]


class Mode(Enum):
    """How a block spends its time."""

    LOCAL = "local"
    COLLECTIVE = "collective"
    FLOW = "flow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Meeting:
    """A collective from the side of one class; arrays have one entry per rank of the class.

    groups     index into `Layout.groups` of each rank's group
    sequence   number of this collective among those of the group
    members    for a broadcast over a tree (see `tree`): distance of each rank from the root in the
               order of the group; NO_ROOT where all ranks of the group end at the same time
    """

    groups: Places
    sequence: int
    members: Places


@dataclass(slots=True, eq=False)
class Block:
    """Steps of one lane that run without a gap, for all ranks of a class.

    number     index among the blocks of the class
    steps      indices of the steps in the program of the class
    waits      steps on other lanes or of earlier iterations that must end first, see `steps.After`
    publishes  name of the step that other blocks wait for, or ""
    meeting    the collective, if the block is one
    pool       resource that the work occupies: "cores", "device", or "" for neither
    """

    number: int
    mode: Mode
    lane: Lane
    steps: tuple[int, ...]
    waits: tuple[After, ...] = ()
    publishes: str = ""
    meeting: Meeting | None = None
    pool: str = ""


@dataclass(slots=True, eq=False)
class ClassLayout:
    """A class of ranks, which take the same steps, with its blocks in program order.

    ranks      in ascending order
    columns    index of each rank in arrays of the class
    steps      the program; its sizes are those of the first iteration with this layout
    order      indices of the steps, block after block; those of block b begin at starts[b]
    """

    ranks: Places
    columns: dict[int, int]
    steps: tuple[Step, ...]
    blocks: list[Block]
    order: Places
    starts: Places
    names: frozenset[str]

    def by_block(self, table: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Sums over the steps of each block: from (steps, ...) to (blocks, ...)."""
        if not len(self.starts):
            return np.zeros((0, *table.shape[1:]))
        return np.asarray(np.add.reduceat(table[self.order], self.starts, axis=0))


@dataclass(frozen=True, slots=True)
class Part:
    """Ranks of one class in a collective: index in the class and index in the group of each."""

    number: int
    place: int
    columns: Places
    members: Places


@dataclass(frozen=True, slots=True)
class Encounter:
    """One collective: its group in `Layout.groups`, its number there, and its ranks by class."""

    kind: Kind
    group: int
    sequence: int
    parts: tuple[Part, ...]


@dataclass(slots=True, eq=False)
class Layout:
    """Classes of ranks, groups of collectives, and what connects them.

    class_of     index of each rank's class
    encounters   all collectives of the iteration
    """

    classes: list[ClassLayout]
    groups: list[tuple[int, ...]]
    class_of: Places
    encounters: list[Encounter]

    def names(self, rank: int) -> frozenset[str]:
        """Names of the steps of a rank."""
        return self.classes[int(self.class_of[rank])].names


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Rules that turn steps into blocks; the same for all iterations of a plan.

    published   names of steps that a step on another lane, or of a later iteration, waits for
    flows       kinds whose transfers share a link or a disk: their speed depends on other transfers
    cores       whether collectives occupy cores
    on_cpu      whether ranks compute on cores
    trees       whether a broadcast uses gloo's tree, in which a rank need not wait for a late one
    fuse        whether steps are joined to blocks; False gives every step a block, for tests
    """

    published: frozenset[str]
    flows: frozenset[Kind]
    cores: bool
    on_cpu: bool
    trees: bool
    fuse: bool = True

    @classmethod
    def of(
        cls, samples: Sequence[Iteration], cluster: Cluster, per_host: int, *, fuse: bool
    ) -> Rules:
        """Derive the rules from one iteration of each layout and the cluster."""
        programs = [of.steps for iteration in samples for of in iteration.classes]
        background = any(
            step.lane.engine is Engine.BACKGROUND and step.work.kind in COLLECTIVES
            for steps in programs
            for step in steps
        )
        on_cpu = cluster.device.kind == "cpu"
        return cls(
            published=_published(programs),
            flows=_flows(programs, cluster, per_host),
            # Sockets are read and written by the CPU: transfers beside computation take their
            # cores from it. Where every rank waits for its transfers, the cores are idle anyway.
            cores=on_cpu and background,
            on_cpu=on_cpu,
            trees=cluster.transport != "nccl",
            fuse=fuse,
        )

    def mode(self, step: Step) -> Mode:
        if step.work.kind in COLLECTIVES:
            return Mode.COLLECTIVE
        return Mode.FLOW if step.work.kind in self.flows else Mode.LOCAL

    def pool(self, step: Step, mode: Mode) -> str:
        """The resource that a step occupies: "cores", "device" or ""."""
        if mode is Mode.COLLECTIVE:
            return "cores" if self.cores else ""
        if mode is Mode.FLOW or step.work.kind in _LINKS:
            return ""
        return "cores" if self.on_cpu or step.lane.engine is Engine.HOST else "device"


_LINKS = frozenset({Kind.COPY}) | STORAGE


def _published(programs: Sequence[tuple[Step, ...]]) -> frozenset[str]:
    names: set[str] = set()
    for steps in programs:
        waits = [(after, step.lane) for step in steps for after in step.after]
        if not waits:
            continue
        lanes = {step.name: step.lane for step in steps}
        for after, lane in waits:
            # Within a lane and an iteration, program order is already the wait.
            if after.lag or lanes.get(after.step) is not lane:
                names.add(after.step)
    return frozenset(names)


def _flows(
    programs: Sequence[tuple[Step, ...]], cluster: Cluster, per_host: int
) -> frozenset[Kind]:
    """Kinds whose transfers share a resource with other lanes or ranks.

    A host has one disk: reads and writes of all lanes of all its ranks share it. A single lane of a
    single rank has it for itself.
    """
    kinds = {Kind.SEND, Kind.RECV}
    lanes = {step.lane for steps in programs for step in steps if step.work.kind in STORAGE}
    if per_host > 1 or len(lanes) > 1:
        # Two requests at once share the disk's bandwidth, so neither has a duration of its own.
        kinds |= STORAGE
    links = [kind.links.host for kind in cluster.kinds]
    fabrics = [kind.fabric for kind in cluster.kinds]
    shared = any(link is not None and link.shared for link in links)
    if per_host > 1 and (shared or any(f is not None and f.limits_copies for f in fabrics)):
        kinds.add(Kind.COPY)
    return frozenset(kinds)


def lay_out(iteration: Iteration, rules: Rules) -> Layout:
    """Form blocks and match collectives by (group, sequence in program order)."""
    numbers: dict[tuple[int, ...], int] = {}
    joined: dict[tuple[int, int], list[Part]] = {}
    kinds: dict[tuple[int, int], Kind] = {}
    classes = []
    for which, of in enumerate(iteration.classes):
        meetings: dict[int, Meeting] = {}
        uses: dict[bytes, int] = {}
        for place, step in enumerate(of.steps):
            if step.work.kind not in COLLECTIVES:
                continue
            groups = _group_numbers(of, step, numbers)
            # Ranks of a class join the same steps in the same groups: one count serves them all.
            key = groups.tobytes()
            sequence = uses.get(key, 0)
            uses[key] = sequence + 1
            table = list(numbers)
            for number in np.unique(groups).tolist():
                columns = np.flatnonzero(groups == number)
                members = _members(table[number], of.ranks[columns])
                joined.setdefault((number, sequence), []).append(
                    Part(which, place, columns, members)
                )
                kinds.setdefault((number, sequence), step.work.kind)
            meetings[place] = Meeting(
                groups=groups,
                sequence=sequence,
                members=_in_tree(of, step, groups, table) if rules.trees else _nowhere(of),
            )
        classes.append(_class(of, meetings, rules))
    return Layout(
        classes=classes,
        groups=list(numbers),
        class_of=iteration.places()[0],
        encounters=[Encounter(kinds[key], *key, tuple(parts)) for key, parts in joined.items()],
    )


def _group_numbers(of: RankClass, step: Step, numbers: dict[tuple[int, ...], int]) -> Places:
    """The number of each rank's group, new groups numbered in order of first use."""
    group = step.group
    if not isinstance(group, Groups):
        return np.full(len(of), numbers.setdefault(group, len(numbers)), np.intp)
    used = np.unique(group.of)
    table = np.zeros(len(group.table), np.intp)
    for entry in used.tolist():
        table[entry] = numbers.setdefault(group.table[entry], len(numbers))
    return np.asarray(table[group.of])


def _members(group: tuple[int, ...], ranks: Places) -> Places:
    """Places of ranks in a group."""
    # By far the most common case: all ranks in order. Sorting would cost more than the rest.
    if len(ranks) == len(group) and np.array_equal(ranks, group):
        return np.arange(len(group))
    order = np.argsort(group)
    return np.asarray(order[np.searchsorted(np.asarray(group)[order], ranks)])


def _nowhere(of: RankClass) -> Places:
    return np.full(len(of), NO_ROOT, np.intp)


def _in_tree(of: RankClass, step: Step, groups: Places, table: Sequence[tuple[int, ...]]) -> Places:
    """Each rank's place from the root of its broadcast; NO_ROOT where no rank sends alone."""
    places = _nowhere(of)
    if step.work.kind is not Kind.BROADCAST:
        return places
    roots = np.broadcast_to(np.asarray(step.work.root), groups.shape)
    for number in np.unique(groups[roots != NO_ROOT]).tolist():
        group = table[number]
        columns = np.flatnonzero((groups == number) & (roots != NO_ROOT))
        root = group.index(int(roots[columns[0]]))
        places[columns] = (_members(group, of.ranks[columns]) - root) % len(group)
    return places


def _class(of: RankClass, meetings: Mapping[int, Meeting], rules: Rules) -> ClassLayout:
    """Cut the program of a class into blocks."""
    lanes = {step.name: step.lane for step in of.steps}
    open_block: dict[Lane, int] = {}
    blocks: list[Block] = []
    places: list[list[int]] = []
    before: set[str] = set()
    for place, step in enumerate(of.steps):
        waits = _waits(step, lanes, before)
        mode = rules.mode(step)
        pool = rules.pool(step, mode)
        number = open_block.get(step.lane, -1)
        joins = (
            rules.fuse
            and number >= 0
            and mode is Mode.LOCAL
            and blocks[number].mode is Mode.LOCAL
            # A block asks for one resource from start to end.
            and blocks[number].pool == pool
            # Others wait for the last step of that block: a further step would delay them.
            and not blocks[number].publishes
            and not waits
        )
        if not joins:
            number = open_block[step.lane] = len(blocks)
            blocks.append(Block(number, mode, step.lane, (), waits, pool=pool))
            places.append([])
        places[number].append(place)
        if step.name in rules.published:
            blocks[number].publishes = step.name
        if mode is Mode.COLLECTIVE:
            blocks[number].meeting = meetings[place]
        before.add(step.name)
    for block, steps in zip(blocks, places, strict=True):
        block.steps = tuple(steps)
    sizes = [len(steps) for steps in places]
    return ClassLayout(
        ranks=of.ranks,
        columns={rank: column for column, rank in enumerate(of.ranks.tolist())},
        steps=of.steps,
        blocks=blocks,
        order=np.array([place for steps in places for place in steps], np.intp),
        starts=np.cumsum([0, *sizes[:-1]]).astype(np.intp) if sizes else np.zeros(0, np.intp),
        names=frozenset(lanes),
    )


def _waits(step: Step, lanes: Mapping[str, Lane], before: set[str]) -> tuple[After, ...]:
    """Waits that program order does not imply.

    The latest occurrence of a step is the one earlier in this iteration, if there is one.
    """
    waits = []
    for after in step.after:
        lag = 0 if after.lag == LATEST and after.step in before else after.lag
        if lag or lanes.get(after.step) is not step.lane:
            waits.append(After(after.step, lag))
    return tuple(waits)
