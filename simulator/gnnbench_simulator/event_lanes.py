"""What the event loop keeps: lanes, their blocks, messages, and collectives in progress."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from gnnbench.steps import Lane
from gnnbench_simulator.fabric_links import Demand
from gnnbench_simulator.layout import Block
from gnnbench_simulator.sharing import Pipe
from gnnbench_simulator.tree import Descent


@dataclass(slots=True, eq=False)
class Mailbox:
    """Messages between two ranks in their order: when they came, or who waits for them."""

    arrived: list[float] = field(default_factory=list)
    taken: int = 0
    waiting: tuple[Track, float] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Way:
    """Resources of a flow: pipes, highest rate, and latency.

    share     units of work per second if the flow is alone
    mailbox   of a message: where it arrives; its work are its bytes
    demand    of a transfer over a fabric: its links, instead of pipes; its work are its bytes
    disk      whether its work are the seconds for which it keeps the disk busy; alone it takes
              longer, and the disk is free for others meanwhile
    """

    path: tuple[Pipe, ...]
    cap: float
    share: float = 1.0
    latency_s: float = 0.0
    mailbox: Mailbox | None = None
    demand: Demand | None = None
    disk: bool = False


@dataclass(slots=True, eq=False)
class Stop:
    """A block as a lane meets it, with what would be looked up for every rank.

    waits      numbers of step names, and the lags
    publishes  number of a step name, or -1
    shared     whether its speed depends on what others do
    groups, members   of a collective, by column of the class, see `layout.Meeting`
    """

    block: Block
    waits: tuple[tuple[int, int], ...]
    publishes: int
    shared: bool
    groups: Sequence[int] = ()
    members: Sequence[int] = ()


@dataclass(slots=True, eq=False)
class Track:
    """A lane of a rank, where it is in the schedule, and since when it is free.

    `programs` are its blocks by layout and class.
    """

    rank: int
    lane: Lane
    programs: dict[tuple[int, int], list[Stop]]
    number: int = 0
    place: int = 0
    free_s: float = 0.0
    stops: Sequence[Stop] = ()
    seconds: Sequence[float] = ()
    column: int = 0
    of: int = 0


@dataclass(slots=True, eq=False)
class Meeting:
    """A collective in progress: how many ranks are missing, and since when the others wait.

    `descent` gives the end of each rank where ranks do not end together; ranks are then in
    `by_member`.
    """

    missing: int
    latest_s: float = 0.0
    there: list[tuple[Track, float]] = field(default_factory=list)
    descent: Descent | None = None
    by_member: dict[int, tuple[Track, float]] = field(default_factory=dict)
