"""The plan: typed steps that every rank must take. Pure data, torch-free, one definition.

A plan is what both worlds share: the runtime performs its steps and records them, the simulator
gives them durations. Bytes and flops in it are closed forms or counts from the real structure,
never estimates of time.

Execution semantics, which engine and replay obey:

- Each rank has lanes. A lane runs its steps one at a time in program order; program order goes on
  from one iteration to the next.
- A step starts when its lane is free and every step in `after` has ended. `After(name, lag=k)`
  means the step of that name k iterations earlier; before the first iteration there is nothing to
  wait for. Staleness, prefetch depth and bounded buffers are all said this way.
- A collective starts on a rank when the rank reaches it, and ends on all ranks of its group
  together. Collectives match by (group, sequence number within that group), so a plan whose ranks
  disagree is an error before it is a hang.
- A buffer named in `allocates` lives until a step frees it. Allocating a living name resizes it to
  the larger of both sizes (a persistent workspace grows, never shrinks), so memory is a timeline.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from gnnbench.errors import SpecError


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


class Lane(StrEnum):
    """An engine of a rank that runs one step at a time, in order.

    `background` is communication on a second communicator or thread, beside `comm`.
    """

    COMPUTE = "compute"
    COMM = "comm"
    BACKGROUND = "background"
    COPY = "copy"
    HOST = "host"
    DISK = "disk"
    SPARSE = "sparse"
    DENSE = "dense"


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


@dataclass(frozen=True, slots=True)
class After:
    """Wait for the end of `step`, `lag` iterations ago (0: of this iteration), on the same rank."""

    step: str
    lag: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One typed unit of work of one rank.

    Units: `bytes` is, for communication, what this rank sends to other ranks (own block excluded;
    `all_reduce`: the ring volume 2(P-1)/P of the buffer, rounded down) and, for everything else,
    the bytes the operation must at least read and write. `flops` counts multiply and add apart.

    Shape facts, by kind (elements, not bytes):
    spmm, sddmm   rows (destinations), nonzeros, width, source_rows (rows the sources lie in)
    gemm          rows M, inner K, width N
    gather, scatter   rows, width, source_rows
    sample        rows (seeds of all hops), nonzeros (edges drawn), source_rows (distinct ones)
    elementwise, optimizer   rows (elements)
    communication   rows (elements of the buffer), `send_bytes` per peer for all_to_all, in
    the order of the group

    `op` is the cost class: one calibrated constant set per op (e.g. gemm_tn, relu_dropout).
    `group` are the ranks that take part; empty for local work. `buffer_bytes` is the full size of a
    collective's buffer on this rank (the S of alpha-beta formulas).
    """

    name: str
    kind: Kind
    op: str
    lane: Lane
    phase: Phase
    layer: int = -1
    bytes: int = 0
    flops: int = 0
    rows: int = 0
    nonzeros: int = 0
    width: int = 0
    inner: int = 0
    source_rows: int = 0
    group: tuple[int, ...] = ()
    send_bytes: tuple[int, ...] = ()
    buffer_bytes: int = 0
    allocates: tuple[tuple[str, int], ...] = ()
    frees: tuple[str, ...] = ()
    after: tuple[After, ...] = ()
    release_s: float = 0.0
    puts: str = ""
    takes: str = ""


RankSteps = tuple[Step, ...]
Iteration = tuple[RankSteps, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The steps of every rank for a number of epochs.

    iterations           distinct iterations; iterations[k][rank] is that rank's steps
    schedule             which distinct iteration runs when, in order
    iterations_per_epoch how many entries of `schedule` make one epoch
    resident             per rank, named buffers in bytes that live from before the first iteration
    exact                sizes are counts of the real structure; else `basis` says how estimated
    """

    approach: str
    world_size: int
    iterations: tuple[Iteration, ...]
    schedule: tuple[int, ...]
    iterations_per_epoch: int
    resident: tuple[Mapping[str, int], ...] = ()
    exact: bool = True
    basis: str = "counted on the real graph"
    notes: Mapping[str, object] = field(default_factory=dict)

    @property
    def num_epochs(self) -> int:
        return len(self.schedule) // self.iterations_per_epoch

    def epoch(self, epoch: int) -> Iterator[Iteration]:
        """Yield the iterations of one epoch in order."""
        start = epoch * self.iterations_per_epoch
        for index in self.schedule[start : start + self.iterations_per_epoch]:
            yield self.iterations[index]

    def validate(self) -> None:
        """Raise SpecError naming every way in which the ranks' steps do not fit together."""
        problems: list[str] = []
        for number, iteration in enumerate(self.iterations):
            problems += _iteration_problems(f"{self.approach} iteration {number}", iteration, self)
        per_epoch = self.iterations_per_epoch
        if per_epoch < 1 or len(self.schedule) % per_epoch:
            problems.append(
                f"{self.approach}: schedule of {len(self.schedule)} is not a whole number of "
                f"epochs of {per_epoch}"
            )
        for index in sorted(set(self.schedule) - set(range(len(self.iterations)))):
            problems.append(
                f"{self.approach}: schedule names iteration {index} of {len(self.iterations)}"
            )
        if problems:
            raise SpecError(problems)

    def sent_bytes(self, epoch: int = 0) -> dict[tuple[str, str], int]:
        """Bytes sent by all ranks in one epoch, by (kind, phase) of communication."""
        totals: dict[tuple[str, str], int] = defaultdict(int)
        for index, times in self.iteration_counts(epoch).items():
            # An iteration that an epoch repeats a thousand times is counted once.
            for steps in self.iterations[index]:
                for step in steps:
                    if step.kind in COMMUNICATION:
                        totals[step.kind.value, step.phase.value] += times * step.bytes
        return dict(totals)

    def num_steps(self, epoch: int = 0) -> int:
        """Steps of all ranks in one epoch."""
        return sum(
            times * sum(len(steps) for steps in self.iterations[index])
            for index, times in self.iteration_counts(epoch).items()
        )

    def iteration_counts(self, epoch: int) -> dict[int, int]:
        """How often an epoch has each distinct iteration, in order of first use."""
        start = epoch * self.iterations_per_epoch
        return dict(Counter(self.schedule[start : start + self.iterations_per_epoch]))

    def program_key(self, *, most_steps: int = 20_000) -> str:
        """A key that plans share whose ranks do the same steps in an epoch, whatever their names.

        On one rank many approaches are one program, and its times have no order to foretell. Plans
        of more steps have no key: "".
        """
        if self.num_steps() > most_steps:
            return ""
        told = [
            [
                [
                    (s.kind.value, s.op, s.lane.value, s.phase.value, s.bytes, s.flops, s.rows,
                     s.nonzeros, s.width, s.inner, s.source_rows, s.group, s.send_bytes,
                     s.buffer_bytes, tuple(a.lag for a in s.after))
                    for s in steps
                ]
                for steps in self.iterations[index]
            ]
            for index in self.schedule[: self.iterations_per_epoch]
        ]  # fmt: skip
        return hashlib.sha256(repr(told).encode()).hexdigest()[:16]

    def memory_peak_bytes(self, rank: int, *, epochs: int | None = None) -> int:
        """Highest sum of living named buffers of a rank, in program order."""
        live = dict(self.resident[rank]) if self.resident else {}
        total = peak = sum(live.values())
        for step in self.allocations(rank, epochs=epochs):
            for name, size in step.allocates:
                grown = max(size - live.get(name, 0), 0)
                live[name] = max(size, live.get(name, 0))
                total += grown
            peak = max(peak, total)
            for name in step.frees:
                total -= live.pop(name, 0)
        return peak

    def allocations(self, rank: int, *, epochs: int | None = None) -> Iterator[Step]:
        """Yield a rank's steps that allocate or free, in program order.

        Repeats of an iteration that frees nothing are left out: all it allocates is there already.
        """
        epochs = self.num_epochs if epochs is None else epochs
        known: dict[int, tuple[list[Step], bool]] = {}
        before = -1
        for index in self.schedule[: epochs * self.iterations_per_epoch]:
            if index not in known:
                steps = [s for s in self.iterations[index][rank] if s.allocates or s.frees]
                known[index] = steps, any(step.frees for step in steps)
            steps, frees = known[index]
            if index != before or frees:
                yield from steps
            before = index


def _iteration_problems(where: str, iteration: Iteration, plan: Plan) -> list[str]:
    problems: list[str] = []
    if len(iteration) != plan.world_size:
        return [f"{where}: steps for {len(iteration)} ranks in a plan of {plan.world_size}"]
    # Names may differ between iterations (the last batch of an epoch), so a lagged wait may name
    # any step of the rank in the plan.
    known_anywhere: list[set[str]] = [
        {step.name for it in plan.iterations for step in it[rank]}
        if any(after.lag for step in steps for after in step.after)
        else set()
        for rank, steps in enumerate(iteration)
    ]
    sequences: dict[tuple[int, ...], dict[int, list[tuple[str, int]]]] = defaultdict(dict)
    for rank, steps in enumerate(iteration):
        seen: set[str] = set()
        for step in steps:
            if step.name in seen:
                problems.append(f"{where} rank {rank}: two steps named {step.name!r}")
            for after in step.after:
                if after.lag == 0 and after.step not in seen:
                    problems.append(
                        f"{where} rank {rank}: {step.name!r} waits for {after.step!r}, "
                        "which is not an earlier step of the iteration"
                    )
                elif after.lag and after.step not in known_anywhere[rank]:
                    problems.append(
                        f"{where} rank {rank}: {step.name!r} waits for unknown {after.step!r}"
                    )
            seen.add(step.name)
            if step.kind in COLLECTIVES:
                if rank not in step.group:
                    problems.append(
                        f"{where} rank {rank}: {step.name!r} is of a foreign group "
                        f"{_short(step.group)}"
                    )
                    continue
                sequences[step.group].setdefault(rank, []).append((step.kind.value, step.layer))
    for group, by_rank in sequences.items():
        first = by_rank.get(group[0], [])
        for rank in group[1:]:
            if by_rank.get(rank, []) != first:
                problems.append(
                    f"{where}: ranks {group[0]} and {rank} disagree on the collectives of group "
                    f"{_short(group)}: {first} against {by_rank.get(rank, [])}"
                )
                break
    return problems


def _short(group: Sequence[int]) -> str:
    return str(tuple(group)) if len(group) <= 8 else f"({group[0]}, ..., {group[-1]})"


def all_reduce_bytes(buffer_bytes: int, world_size: int) -> int:
    """Bytes a rank sends in a ring all-reduce: floor(2 (P-1) S / P).

    Source: fullgraph section 2.
    """
    return 2 * (world_size - 1) * buffer_bytes // world_size
