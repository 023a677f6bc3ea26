"""The vocabulary of a plan: steps with their work, lane, phase, buffers and waits.

A step is a piece of work at a place. `Work` holds kind, operation, bytes, flops and the shape facts
that cost models need; functions in `gnnbench.work` make it. `Step` adds name, lane, phase, buffers
and dependencies. Pure data, torch-free.

Sizes are integers for one rank, or int64 arrays with one entry per rank where several ranks take
the same step with different sizes (see `gnnbench.plan.RankClass`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import ClassVar, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from gnnbench.reuse import Reuse

Ints = NDArray[np.int64]
Size = int | Ints
"""A count: one integer, or int64 [ranks of a class]."""

LATEST = -1
"""As the lag of `After`: the latest earlier occurrence of the step, however long ago."""
NO_ROOT = -1
"""As the root of a collective: no rank sends alone."""


class Kind(StrEnum):
    """What a step does."""

    SPMM = "spmm"
    SDDMM = "sddmm"
    GEMM = "gemm"
    GATHER = "gather"
    SCATTER = "scatter"
    SAMPLE = "sample"
    ELEMENTWISE = "elementwise"
    OPTIMIZER = "optimizer"
    MODULE = "module"
    HOST = "host"
    COPY = "copy"
    READ = "read"
    WRITE = "write"
    ALL_REDUCE = "all_reduce"
    ALL_TO_ALL = "all_to_all"
    ALL_GATHER = "all_gather"
    REDUCE_SCATTER = "reduce_scatter"
    BROADCAST = "broadcast"
    SEND = "send"
    RECV = "recv"
    BARRIER = "barrier"


COLLECTIVES = frozenset(
    {
        Kind.ALL_REDUCE,
        Kind.ALL_TO_ALL,
        Kind.ALL_GATHER,
        Kind.REDUCE_SCATTER,
        Kind.BROADCAST,
        Kind.BARRIER,
    }
)
COMMUNICATION = COLLECTIVES | {Kind.SEND, Kind.RECV}
STORAGE = frozenset({Kind.READ, Kind.WRITE})
COUNTED = COMMUNICATION | STORAGE | {Kind.COPY}
"""Kinds whose bytes the runtime counts from buffers, and a record keeps per period."""


class Engine(StrEnum):
    """The part of a rank's machine that a lane occupies.

    `background` is communication on a second communicator or thread that runs at the same time as
    `comm`; `sparse` and `dense` are the two accelerators of a mixed pair.
    """

    COMPUTE = "compute"
    COMM = "comm"
    BACKGROUND = "background"
    COPY = "copy"
    HOST = "host"
    DISK = "disk"
    SPARSE = "sparse"
    DENSE = "dense"


class Lane(str):
    """An engine of a rank that runs one step at a time, in order.

    A rank may have several lanes of one engine (four reader threads, say); `number` tells them
    apart. As text it is "disk" for number 0 and "disk:2" for number 2. Equal lanes are one object.
    """

    __slots__ = ("engine", "number")
    engine: Engine
    number: int

    COMPUTE: ClassVar[Lane]
    COMM: ClassVar[Lane]
    BACKGROUND: ClassVar[Lane]
    COPY: ClassVar[Lane]
    HOST: ClassVar[Lane]
    DISK: ClassVar[Lane]
    SPARSE: ClassVar[Lane]
    DENSE: ClassVar[Lane]

    def __new__(cls, engine: Engine | str, number: int = 0) -> Lane:
        # A plan names a lane on every step. One object per lane makes comparing and hashing by
        # identity cheap, and copies of plans stay small.
        return _lane(Engine(engine), number)

    @classmethod
    def parse(cls, text: str) -> Lane:
        """Return the lane that `str` wrote: "disk:2" is the disk lane of number 2."""
        engine, _, number = text.partition(":")
        return _lane(Engine(engine), int(number or 0))

    def at(self, number: int) -> Lane:
        """The lane of this engine with another number."""
        return _lane(self.engine, number)

    @property
    def value(self) -> str:
        return str(self)

    # The default would call `__new__` without its arguments and lose the shared object.
    def __reduce__(self) -> tuple[object, ...]:
        return _lane, (self.engine, self.number)


@cache
def _lane(engine: Engine, number: int) -> Lane:
    lane = str.__new__(Lane, engine.value if number == 0 else f"{engine.value}:{number}")
    lane.engine, lane.number = engine, number
    return lane


Lane.COMPUTE = Lane(Engine.COMPUTE)
Lane.COMM = Lane(Engine.COMM)
Lane.BACKGROUND = Lane(Engine.BACKGROUND)
Lane.COPY = Lane(Engine.COPY)
Lane.HOST = Lane(Engine.HOST)
Lane.DISK = Lane(Engine.DISK)
Lane.SPARSE = Lane(Engine.SPARSE)
Lane.DENSE = Lane(Engine.DENSE)


class Phase(StrEnum):
    """Why a step happens."""

    LOAD = "load"
    SAMPLE = "sample"
    FETCH = "fetch"
    FORWARD = "forward"
    BACKWARD = "backward"
    SYNC = "sync"
    UPDATE = "update"
    EVALUATE = "evaluate"


class Space(StrEnum):
    """A memory of its own size: the accelerator's, the host's, or the disk.

    On a CPU, `device` and `host` are one memory: the rank's resident set.
    """

    DEVICE = "device"
    HOST = "host"
    DISK = "disk"


class Buffer(NamedTuple):
    """A named piece of memory.

    Allocating a name that lives already leaves it at the larger of both sizes, as a workspace does
    that is reused; with `exact` it takes the new size, so that a store can shrink as well.
    """

    name: str
    bytes: Size
    space: Space = Space.DEVICE
    exact: bool = False


class After(NamedTuple):
    """Wait for the end of `step` on the same rank.

    `lag` counts scheduled iterations back: 0 is the same iteration, 2 the one before the last. In
    the first `lag` iterations there is nothing to wait for. `LATEST` waits for the latest earlier
    occurrence, wherever it is: the last write-back of a buffer slot, for example.
    """

    step: str
    lag: int = 0


class Groups(NamedTuple):
    """The groups of the ranks of a class where they differ: rank i of it is in `table[of[i]]`."""

    table: tuple[tuple[int, ...], ...]
    of: NDArray[np.intp]

    @property
    def size(self) -> int:
        """Ranks of each group, where all groups have as many."""
        return len(self.table[0])


class Work(NamedTuple):
    """The work of a step: kind, operation, bytes, flops, and the shape facts of its cost model.

    Units: `bytes` is, for communication, what this rank sends to other ranks (its own block
    excluded; all_reduce: the ring volume 2 (P-1)/P of the buffer, rounded down); for read, write
    and copy, what moves; for everything else, what the operation must at least read and write.
    `flops` counts multiplications and additions separately.

    Shape facts by kind (elements, not bytes):

    spmm, sddmm             rows (destinations), nonzeros, width, source_rows (rows read from)
    gemm                    rows M, inner K, width N
    gather, scatter         rows, width, source_rows
    sample                  rows (seeds of all hops), nonzeros (edges drawn), source_rows (found),
                            inner (edges looked at), width (bytes of the tables looked up)
    elementwise, optimizer  rows (elements), width
    module                  rows, nonzeros, width, inner: what its flops grow with
    read, write             rows (requests issued); of single rows: source_rows (rows asked for),
                            width (bytes from one to the next)
    communication           rows (elements sent)

    `op` is the cost class: operations with one `op` share calibrated constants. `calls` is how many
    equal operations the step represents; sizes are totals over all of them.

    Communication only: `buffer_bytes` is the size of a collective's buffer on this rank (the S of
    alpha-beta formulas); `send` are the units sent to each rank of the group, int64 [P] (or
    [ranks, P]), of `unit_bytes` bytes each; `root` is the rank that sends in a broadcast.

    `reuse` is how far apart reads of the same source row lie, where rows are read in the order of a
    graph; None where the order is random, as in the blocks of a sampled batch.
    """

    kind: Kind
    op: str
    bytes: Size = 0
    flops: Size = 0
    rows: Size = 0
    nonzeros: Size = 0
    width: Size = 0
    inner: Size = 0
    source_rows: Size = 0
    calls: Size = 1
    buffer_bytes: Size = 0
    send: Ints | None = None
    unit_bytes: int = 0
    root: Size = NO_ROOT
    reuse: Reuse | None = None

    @property
    def send_bytes(self) -> Ints | None:
        """Bytes to each rank of the group, in its order; None where no split is stated."""
        return None if self.send is None else self.send * self.unit_bytes


SIZES = (
    "bytes",
    "flops",
    "rows",
    "nonzeros",
    "width",
    "inner",
    "source_rows",
    "calls",
    "buffer_bytes",
    "root",
)
"""The fields of `Work` that may differ between the ranks of a class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One piece of work of one rank, or of each rank of a class.

    Args:
        name: unique within an iteration of a rank, such as "forward/2/spmm".
        work: what is done.
        lane: where; steps of one lane run one after the other, in the order of the plan.
        phase: why.
        layer: of the model, from 1; 0 for its input, -1 for none.
        group: ranks that take part in communication, in order; empty for local work.
        allocates: buffers that live from the start of this step.
        frees: names of buffers that end with it.
        after: steps that must have ended before.

    `kind`, `op`, `bytes` and `flops` are those of the work; they are integers where the step is
    one rank's own.
    """

    name: str
    work: Work
    lane: Lane = Lane.COMPUTE
    phase: Phase
    layer: int = -1
    group: tuple[int, ...] | Groups = ()
    allocates: tuple[Buffer, ...] = ()
    frees: tuple[str, ...] = ()
    after: tuple[After, ...] = ()

    @property
    def kind(self) -> Kind:
        return self.work.kind

    @property
    def op(self) -> str:
        return self.work.op

    @property
    def bytes(self) -> int:
        return cast(int, self.work.bytes)

    @property
    def flops(self) -> int:
        return cast(int, self.work.flops)

    @property
    def ranks(self) -> tuple[int, ...]:
        """The group of a single rank's step."""
        # A class of ranks has one group per rank; an arbitrary one would be silently wrong.
        assert not isinstance(self.group, Groups), "the ranks of a class differ in their group"
        return self.group


def pick(size: Size, column: int) -> int:
    """The size of one rank of a class."""
    return size if isinstance(size, int) else int(size[column])


def smaller(a: Size, b: Size) -> Size:
    """The smaller of two sizes, entry by entry where they are arrays."""
    # `min` and `np.minimum` would turn plain integers into numpy ones, which JSON cannot write.
    if isinstance(a, int) and isinstance(b, int):
        return a if a < b else b
    return np.minimum(a, b)


def larger(a: Size, b: Size) -> Size:
    """The larger of two sizes, entry by entry where they are arrays."""
    if isinstance(a, int) and isinstance(b, int):
        return a if a > b else b
    return np.maximum(a, b)
