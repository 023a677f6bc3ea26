"""Sweep the collectives of groups of ranks over message sizes.

A collective is measured under the conditions of training: after a millisecond or so of computing.
Ranks that start right after a barrier are awake and synchronous; ranks that come from computing are
neither, and on two cores a small exchange takes three times as long for it. The time of a call is
what it adds to a loop of computing and communicating, including the time in which ranks wait for
one another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch

from gnnbench.steps import Phase
from gnnbench_runtime.calibration.workloads import spread_sizes
from gnnbench_runtime.comm import Comm

LEAST_BYTES, MOST_BYTES, SIZES = 256, 8 << 20, 10
WORK_WIDTH, WORK_PRODUCTS = 256, 3  # 0.1 GFLOP, about 1.5 ms of a core of 2024


@dataclass(slots=True)
class _Sweep:
    """One collective at one size.

    `call` is given the round. `one_way`: the sender leaves before the receiver, and nothing makes
    up for it, so that each call needs a barrier before it.
    """

    op: str
    sent_bytes: int
    call: Callable[[int], None]
    one_way: bool = False
    work_s: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def sweep_all(comm: Comm, device: torch.device, rounds: int) -> list[dict[str, Any]]:
    """Sweep the whole group, and each way of cutting it into equal smaller groups.

    The small groups communicate at the same time, as the groups of a process grid do: shared links
    and cores make them slower than a small group alone.
    """
    world = comm.world_size
    entries: list[dict[str, Any]] = []
    for size in range(world, 1, -1):
        if world % size:
            continue
        firsts = range(0, world, size)
        group = comm if size == world else comm.split([range(f, f + size) for f in firsts])
        found = sweep_collectives(group, device, rounds, everyone=comm)
        entries += [{"ranks": size, "group": comm.rank // size, **entry} for entry in found]
    return entries


def sweep_collectives(
    comm: Comm, device: torch.device, rounds: int, *, everyone: Comm
) -> list[dict[str, Any]]:
    """Time every (collective, size) of a group once per round, each call after some computing.

    Rounds are the outermost loop, so that a slow period of the machine affects all sizes a little
    and none completely. Returns {"op", "bytes" (largest sent by a rank; broadcast: the buffer),
    "one_way", "work_s" (of the computing before each call), "seconds" (of each call)}. On GPUs,
    whose streams do not sleep, each call follows a barrier without computing.

    Args:
        everyone: the ranks that wait for one another before each round, and before one-way calls.
    """
    on_cpu = device.type == "cpu"
    factor = torch.full((WORK_WIDTH, WORK_WIDTH), 0.5, device=device)
    product = torch.empty_like(factor)
    source = torch.zeros(2 * MOST_BYTES // 4, device=device)
    target = torch.zeros_like(source)
    sweeps = [
        sweep
        for size in spread_sizes(LEAST_BYTES, MOST_BYTES, SIZES)
        for sweep in _sweeps(comm, size // 4, source, target)
    ]
    for number in range(rounds + 1):
        everyone.sync()
        for sweep in sweeps:
            if sweep.one_way or not on_cpu:
                everyone.sync()
            start = perf_counter()
            for _ in range(WORK_PRODUCTS if on_cpu else 0):
                torch.mm(factor, factor, out=product)
            begin = perf_counter()
            sweep.call(number)
            if not on_cpu:
                torch.cuda.synchronize(device)
            if number:  # the first round opens connections
                sweep.work_s.append(begin - start)
                sweep.seconds.append(perf_counter() - begin)
    return [
        {
            "op": s.op,
            "bytes": s.sent_bytes,
            "one_way": s.one_way,
            "work_s": s.work_s,
            "seconds": s.seconds,
        }
        for s in sweeps
    ]


def _sweeps(comm: Comm, count: int, source: torch.Tensor, target: torch.Tensor) -> list[_Sweep]:
    """The collectives on buffers of about `count` floats."""
    world, name, phase = comm.world_size, "sweep", Phase.SYNC
    block = max(1, count // world)
    whole, out = source[:count], target[:count]
    shares, received = source[: block * world], target[: block * world]
    own = source[:block]

    def to_the_next(_: int) -> None:
        """One message, from an even rank to the odd one after it: timed where it arrives."""
        if comm.rank % 2:
            comm.recv(out, comm.rank - 1, name, phase)
        else:
            comm.send(whole, comm.rank + 1, name, phase)

    sweeps = [
        _Sweep(
            "all_reduce",
            2 * (world - 1) * 4 * count // world,
            lambda _: comm.all_reduce(whole, name, phase),
        ),
        _Sweep(
            "all_to_all",
            4 * block * (world - 1),
            lambda _: comm.all_to_all(received, shares, None, None, name, phase),
        ),
        # A root is soon ahead of the others; in turn, as in training, they make up for it.
        _Sweep(
            "broadcast",
            4 * count,
            lambda number: comm.broadcast(out, number % world, name, phase),
        ),
        _Sweep(
            "all_gather",
            4 * block * (world - 1),
            lambda _: comm.all_gather(received, own, name, phase),
        ),
        _Sweep(
            "reduce_scatter",
            4 * block * (world - 1),
            lambda _: comm.reduce_scatter(own, received, name, phase),
        ),
    ]
    if world == 2:
        sweeps.append(_Sweep("send", 4 * count, to_the_next, one_way=True))
    return sweeps
