"""Peak reserved memory over runs whose batches differ: a distribution, not a point.

A caching allocator keeps what it once took from the device, so that a run reserves what its most
unlucky sequence of batches needed. It gives unused segments back before a run dies of want of
memory, so that the chance of that is judged by the segments in which something lives. A plan of a
real graph has the batches of one seed: a run with another seed has batches like them, drawn here
with replacement. A plan of a profile has batches of the mean size: each is scaled by a log-normal
factor, and one of them by the largest factor that an epoch of so many batches has.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gnnbench.buffers import ACTIVATIONS, category
from gnnbench.iterations import Iteration, LazyIterations, RankClass
from gnnbench.plan import Plan
from gnnbench.steps import Ints, Size, Space, Step, pick
from gnnbench_simulator.allocator import CachingAllocator
from gnnbench_simulator.memory import (
    DEVICE_MEMORY,
    FITS,
    P_OUT_OF_MEMORY,
    TIGHT,
    least_room,
    out_of_memory,
)
from gnnbench_simulator.needs import EVALUATION

RUNS = 9
"""Runs that are replayed; the quantiles are of these."""
_BATCHES = 12
"""Batches of a run that are replayed: fragments settle within a few."""
SEED_SPREAD = 1.0
"""Deviation of the logarithm of a batch's size, times the root of its seeds: what one seed brings
in varies about as much as its mean."""
_BATCH_BUFFERS = ("blocks", "halo_rows", "missed_rows", "entering_rows")


def reserved_over_batches(plan: Plan, rank: int, *, seeds: int = 0) -> tuple[tuple[int, int], ...]:
    """Peak reserved bytes of a rank in several runs, rising, and what it cannot do without.

    () where batches cannot differ.

    Args:
        plan: of an approach that trains on batches; its first period is what a run repeats.
        rank: whose device.
        seeds: of a batch on the rank, which decide how much batches of a profile vary.
    """
    steps = plan.periods[0] if plan.periods else 0
    if steps < 2 or not (plan.counted or seeds):
        return ()
    rng = np.random.default_rng(0)
    places = plan.schedule[: plan.starts[1]]
    found = []
    for _ in range(RUNS):
        order = rng.choice(np.asarray(places), min(steps, _BATCHES)).tolist()
        factors = np.ones(len(order))
        if not plan.counted:
            spread = SEED_SPREAD / math.sqrt(seeds)
            drawn = rng.standard_normal(len(order))
            most = min(max(float(rng.random()) ** (1.0 / steps), 1e-9), 1.0 - 1e-9)
            drawn[-1] = statistics.NormalDist().inv_cdf(most)
            factors = np.exp(spread * rng.permutation(drawn))
        found.append(_replayed(plan, rank, order, factors.tolist()))
    return tuple(sorted(found))


def widen_by_batches(memory: Sequence[dict[str, Any]], plan: Plan, *, seeds: int) -> None:
    """Say of the rank with the least room what it reserves over runs, and how likely it runs out.

    Its entry of `memory.predict_memory` gets "reserved_quantiles_bytes", lowest, median and highest
    of the runs; the chance of its device memory becomes the mean over them.
    """
    entry = memory[least_room(memory)["rank"]]
    over_runs = reserved_over_batches(plan, entry["rank"], seeds=seeds)
    if not over_runs or DEVICE_MEMORY not in entry["spaces"]:
        return
    name_quantiles(entry, over_runs)
    space, context = entry["spaces"][DEVICE_MEMORY], entry["baseline_bytes"]
    # An evaluation does not differ between the runs.
    least = space["needed_bytes"] - context if space["phase"] == EVALUATION else 0
    limit = space["limit_bytes"]
    chances = [out_of_memory(context, max(size, least), limit) for _, size in over_runs]
    space["p_out_of_memory"] = sum(chances) / len(chances)
    space["high_bytes"] = max(space["high_bytes"], context + over_runs[-1][0])
    if entry["fits"]:
        worst = max(float(one["p_out_of_memory"]) for one in entry["spaces"].values())
        entry["verdict"] = TIGHT if worst > P_OUT_OF_MEMORY else FITS


def name_quantiles(entry: dict[str, Any], over_runs: Sequence[tuple[int, int]]) -> None:
    """Add lowest, median and highest reserved bytes over runs to the entry of a rank."""
    if over_runs:
        reserved = [size for size, _ in over_runs]
        middle = reserved[len(reserved) // 2]
        entry["reserved_quantiles_bytes"] = [reserved[0], middle, reserved[-1]]


def _replayed(
    plan: Plan, rank: int, order: Sequence[int], factors: Sequence[float]
) -> tuple[int, int]:
    """Reserved bytes after some batches of some sizes, and those that something lived in."""
    allocator = CachingAllocator()
    for buffer in plan.resident:
        if buffer.space is Space.DEVICE:
            allocator.allocate(buffer.name, pick(buffer.bytes, rank))
    known: dict[int, list[tuple[int, Step]]] = {}
    for index, factor in zip(order, factors, strict=True):
        if index not in known:
            known[index] = _of_rank(plan, index, rank)
        for column, step in known[index]:
            for buffer in step.allocates:
                if buffer.space is not Space.DEVICE:
                    continue
                if buffer.exact:
                    allocator.free(buffer.name)
                size = pick(buffer.bytes, column)
                if _is_of_batch(buffer.name):
                    size = round(size * factor)
                allocator.allocate(buffer.name, size)
            for name in step.frees:
                allocator.free(name)
    return allocator.reserved, allocator.peak_held


def _of_rank(plan: Plan, index: int, rank: int) -> list[tuple[int, Step]]:
    """The allocating steps of a rank in an iteration, each with the rank's column in its sizes."""
    found = []
    for of in plan.iterations[index].classes:
        column = int(np.searchsorted(of.ranks, rank))
        if column < len(of.ranks) and of.ranks[column] == rank:
            found += [(column, step) for step in of.steps if step.allocates or step.frees]
    return found


def _is_of_batch(name: str) -> bool:
    """Whether a buffer grows with a batch; gradients of parameters, for one, do not."""
    return name in _BATCH_BUFFERS or category(name, resident=False) == ACTIVATIONS


def with_largest_batch(plan: Plan, *, seeds: int) -> Plan:
    """The plan of a profile with batches as large as the largest that an epoch likely has.

    A profile has batches of the mean size, and what fits must hold every batch. Other plans stay as
    they are.

    Args:
        plan: of an approach.
        seeds: of a batch on a rank; 0 where it does not train on batches.
    """
    steps = plan.periods[0] if plan.periods else 0
    if plan.counted or steps < 2 or not seeds:
        return plan
    # The median of the largest of so many draws.
    place = statistics.NormalDist().inv_cdf(0.5 ** (1.0 / steps))
    factor = math.exp(SEED_SPREAD / math.sqrt(seeds) * place)

    def made(number: int) -> Iteration:
        classes = [
            RankClass(of.ranks, [_grown(step, factor) for step in of.steps])
            for of in plan.iterations[number].classes
        ]
        return Iteration(classes)

    return replace(plan, iterations=LazyIterations(len(plan.iterations), made))


def scaled(size: Size, factor: float) -> Size:
    """A size times a factor, rounded up."""
    if isinstance(size, int):
        return math.ceil(size * factor)
    grown: Ints = np.ceil(size * factor).astype(np.int64)
    return grown


def _grown(step: Step, factor: float) -> Step:
    """A step whose buffers of a batch are larger."""
    if not any(_is_of_batch(buffer.name) for buffer in step.allocates):
        return step
    room = tuple(
        b._replace(bytes=scaled(b.bytes, factor)) if _is_of_batch(b.name) else b
        for b in step.allocates
    )
    return replace(step, allocates=room)
