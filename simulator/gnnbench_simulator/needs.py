"""What the buffers of a plan need on each rank, phase by phase, whatever the machine."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.approaches.names import family_of
from gnnbench.plan import Peaks, Plan
from gnnbench.steps import Ints, Space
from gnnbench_simulator.allocator import replay_allocators, replay_evaluation

_STEPS_MAX = 400_000
"""Steps of all ranks whose allocations are followed; later periods repeat the first ones."""
_COUNTED = 32
"""Iterations whose steps are counted to know how many a period has."""
TRAINING, EVALUATION = "training", "evaluation"
"""Phases of a run, each with a peak of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseNeeds:
    """What one phase of a run needs on each rank, in bytes, whatever the machine.

    Args:
        workload: largest sum of living buffers on the device (on a CPU: of all).
        allocated, reserved: by the device's caching allocator; on a CPU as `workload`. An
            evaluation reserves what it cannot do without, as PyTorch gives unused segments back
            before it fails.
        host: largest sum of living buffers in the host's memory; zero on a CPU.
    """

    workload: list[int]
    allocated: list[int]
    reserved: list[int]
    host: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a plan's buffers need on each rank, in bytes, whatever the machine.

    Args:
        gpu: whether device and host are memories of their own.
        training: of the periods.
        evaluation: of the evaluation after them; None where it was left out.
        disk: largest sum of files.
        loose: on a CPU, the largest buffer whose size changes from one allocation to the next and
            that the C library's allocator may keep after it was freed, see `_loose`.
        periods: how many were followed.
        code: names of the approach and of its family, which decide what code a process loads.
    """

    gpu: bool
    training: PhaseNeeds
    evaluation: PhaseNeeds | None
    disk: list[int]
    loose: list[int]
    periods: int
    code: tuple[str, ...] = ()

    @property
    def phases(self) -> dict[str, PhaseNeeds]:
        """The phases by name."""
        found = {TRAINING: self.training}
        return found if self.evaluation is None else {**found, EVALUATION: self.evaluation}

    @property
    def workload(self) -> list[int]:
        """The larger of the phases' workloads, by rank."""
        return [
            max(sizes) for sizes in zip(*(p.workload for p in self.phases.values()), strict=True)
        ]

    def largest(self) -> list[int]:
        """The ranks that need most of a space: no other can have the least room."""
        # Rows of several spaces are judged apart: the rank with the largest workload may not be the
        # one with the largest host buffers.
        columns = [self.disk]
        for phase in self.phases.values():
            columns += [phase.reserved, phase.workload, phase.host]
        return sorted({int(np.argmax(column)) for column in columns})


def needs_of(plan: Plan, *, gpu: bool, evaluates: bool = True) -> Needs:
    """Follow a plan's buffers in program order.

    Args:
        plan: steps of all ranks.
        gpu: whether device and host are memories of their own.
        evaluates: whether the evaluation after the periods is followed, too.
    """
    periods = _periods(plan)
    # A CPU has one memory: device and host buffers of a rank live in one resident set.
    spaces = [(Space.DEVICE,), (Space.HOST,)] if gpu else [(Space.DEVICE, Space.HOST)]
    found = plan.peaks([*spaces, (Space.DISK,)], periods=periods, evaluates=evaluates)
    if gpu:
        reserves = _reserves(plan, periods, evaluates=evaluates)
        host = found[1]
    else:
        reserves, host = [], Peaks(*[np.zeros(plan.world_size, np.int64)] * 2)
    phases = []
    for place, (workload, held) in enumerate(zip(found[0], host, strict=True)):
        own: Any = reserves[place] if gpu else (workload.tolist(), workload.tolist())
        phases.append(
            PhaseNeeds(
                workload=workload.tolist(), allocated=own[0], reserved=own[1], host=held.tolist()
            )
        )
    disk = np.maximum(*found[-1])
    return Needs(
        gpu=gpu,
        training=phases[0],
        evaluation=phases[1] if evaluates else None,
        disk=disk.tolist(),
        loose=[0] * plan.world_size if gpu else _loose(plan, periods).tolist(),
        periods=periods,
        code=(plan.approach, family_of(plan.approach)),
    )


def _reserves(plan: Plan, periods: int, *, evaluates: bool) -> list[tuple[list[int], list[int]]]:
    """Bytes that the device's allocator gives out and reserves, by rank; of both phases."""
    # Ranks that allocate alike share one replay of the allocator. The others are replayed in one
    # walk of the plan, because iterations are made on demand.
    keys = _allocation_keys(plan, evaluates=evaluates).tolist()
    first = {key: rank for rank, key in reversed(list(enumerate(keys)))}
    replayed = replay_allocators(plan, list(first.values()), periods=periods)
    trained = [(of.peak_allocated, of.reserved) for of in replayed]
    if evaluates:
        replay_evaluation(plan, list(first.values()), replayed)
    evaluated = [(of.peak_allocated, of.peak_held) for of in replayed]
    found = []
    for pairs in (trained, evaluated):
        known = dict(zip(first, pairs, strict=True))
        found.append(([known[key][0] for key in keys], [known[key][1] for key in keys]))
    return found


_KEPT_MOST, _KEPT_LEAST, KEPT = 32 * 2**20, 128 * 2**10, 2.5
"""glibc keeps freed chunks of 128 KiB to 32 MiB once such a chunk was freed: it then gives memory
back to the system only beyond twice the largest of them (mallopt(3), M_MMAP_THRESHOLD). Runs of
`sampled` held up to 2.5 times the largest fetched buffer more than their plan, and 2 % more with
the threshold fixed."""


def _loose(plan: Plan, periods: int) -> Ints:
    """The largest buffer of each rank whose size changes between allocations, int64 [ranks].

    Buffers of constant size are found again by the allocator. On a profile all batches have the
    mean sizes, and those of a plan of several batches are taken to vary.
    """
    low: dict[str, Ints] = {}
    high: dict[str, Ints] = {}
    for ranks, step in plan.allocations(periods=periods):
        for buffer in step.allocates:
            if buffer.space is Space.DISK:
                continue
            if buffer.name not in low:
                # The largest integer is neutral for the minimum of ranks that have not allocated
                # the buffer yet.
                low[buffer.name] = np.full(plan.world_size, np.iinfo(np.int64).max)
                high[buffer.name] = np.zeros(plan.world_size, np.int64)
            low[buffer.name][ranks] = np.minimum(low[buffer.name][ranks], buffer.bytes)
            high[buffer.name][ranks] = np.maximum(high[buffer.name][ranks], buffer.bytes)
    # A profile states mean sizes only. Batches of a real graph vary, so their buffers are taken to
    # vary.
    batches = not plan.counted and max(plan.periods, default=1) > 1
    found = np.zeros(plan.world_size, np.int64)
    for name, most in high.items():
        kept = np.minimum(most, _KEPT_MOST)
        # One percent separates a buffer that grows between batches from rounding of its size.
        varies = batches | (most > 1.01 * low[name])
        found = np.maximum(found, np.where(varies & (most > _KEPT_LEAST), kept, 0))
    return found


def _periods(plan: Plan) -> int:
    """Periods to follow: two at least, because what the first one leaves lives in the second."""
    # The step budget bounds the time; two periods show what the first one leaves behind. Iterations
    # of a period have about as many steps each, and making all of them to count takes long.
    ahead = plan.scheduled(0)[:_COUNTED]
    steps = sum(plan.iterations[index].num_steps() for index in ahead) / max(len(ahead), 1)
    return min(plan.num_periods, max(2, int(_STEPS_MAX // max(steps * sum(plan.periods[:1]), 1))))


def _allocation_keys(plan: Plan, *, evaluates: bool) -> NDArray[np.uint64]:
    """A hash per rank of what it allocates and frees on its device, [ranks].

    In the first period and, if it `evaluates`, in the evaluation. Ranks that allocate alike have
    equal keys.
    """
    keys = np.zeros(plan.world_size, np.uint64)
    if plan.world_size == 1:
        return keys
    for buffer in plan.resident:
        _mix(keys, slice(None), buffer.bytes)
    evaluated = plan.evaluated() if evaluates else ()
    for ranks, step in chain(plan.allocations(periods=1), evaluated):
        for buffer in step.allocates:
            if buffer.space is Space.DEVICE:
                _mix(keys, ranks, zlib.crc32(buffer.name.encode()))
                _mix(keys, ranks, buffer.bytes)
        for name in step.frees:
            _mix(keys, ranks, zlib.crc32(name.encode()))
    return keys


def _mix(keys: NDArray[np.uint64], ranks: Any, value: Any) -> None:
    """Fold a size, or one per rank, into the keys of some ranks (FNV-1a on whole words)."""
    folded = (keys[ranks] ^ np.asarray(value).astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
    # The product moves low bits up only; the shift brings the high ones down again.
    keys[ranks] = folded ^ (folded >> np.uint64(29))
