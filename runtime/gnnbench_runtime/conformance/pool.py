"""Real ranks for tests: a pool of processes joined by gloo, kept for many cases.

Starting a rank costs seconds (torch), a case milliseconds, so a pool lives until it is closed.
"""

from __future__ import annotations

import importlib
import multiprocessing as mp
import os
import sys
import traceback
from contextlib import ExitStack
from multiprocessing.connection import Connection
from typing import Any

from gnnbench import owner


class RankPool:
    """P processes that run `module:function(rank, world_size, *args)` together."""

    def __init__(self, world_size: int) -> None:
        context = mp.get_context("spawn")
        self.world_size = world_size
        self._open = ExitStack()
        store = str(self._open.enter_context(owner.scratch("gnnbench-ranks-")) / "store")
        self._pipes: list[Connection] = []
        self._processes = []
        for rank in range(world_size):
            here, there = context.Pipe()
            process = context.Process(
                target=_serve, args=(rank, world_size, store, there, list(sys.path)), daemon=True
            )
            process.start()
            self._pipes.append(here)
            self._processes.append(process)

    def run(self, function: str, *args: Any, timeout_s: float = 120) -> list[Any]:
        """Call the function on every rank; return the results in rank order.

        Raises:
            AssertionError: a rank raised or did not answer in time; the pool is closed then.
        """
        for pipe in self._pipes:
            pipe.send((function, args))
        results: list[Any] = []
        failures: list[str] = []
        for rank, pipe in enumerate(self._pipes):
            if not pipe.poll(timeout_s):
                failures.append(f"rank {rank}: no answer in {timeout_s:g} s")
                continue
            try:
                ok, value = pipe.recv()
            except EOFError:
                ok, value = False, "ended without an answer"
            results.append(value)
            if not ok:
                failures.append(f"rank {rank}: {value}")
        if failures:
            self.close()
            raise AssertionError("\n".join(failures))
        return results

    @property
    def closed(self) -> bool:
        return not self._processes

    def close(self) -> None:
        """End the ranks."""
        for process in self._processes:
            process.kill()
            process.join()
        self._processes.clear()
        self._open.close()


class Pools:
    """Pools by their number of ranks, each started when it is first asked for."""

    def __init__(self) -> None:
        self._pools: dict[int, RankPool] = {}

    def of(self, world_size: int) -> RankPool:
        pool = self._pools.get(world_size)
        if pool is None or pool.closed:
            pool = self._pools[world_size] = RankPool(world_size)
        return pool

    def close(self) -> None:
        """End the ranks of all pools."""
        while self._pools:
            self._pools.popitem()[1].close()


def _serve(
    rank: int, world_size: int, store: str, pipe: Connection, search_path: list[str]
) -> None:
    # What the parent can import, the rank must be able to import as well.
    sys.path[:] = search_path
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    groups: list[Any] = []
    make = dist.new_group

    def noted(*args: Any, **settings: Any) -> Any:
        groups.append(make(*args, **settings))
        return groups[-1]

    dist.new_group = noted
    if world_size > 1:
        dist.init_process_group(
            "gloo", init_method=f"file://{store}", rank=rank, world_size=world_size
        )
    while True:
        try:
            function, args = pipe.recv()
        except EOFError:
            return
        # All ranks have answered, so that nothing is under way in the groups of the case before.
        # Each has a thread, and hundreds of them wake one another.
        while groups:
            dist.destroy_process_group(groups.pop())
        module, _, name = function.partition(":")
        try:
            pipe.send(
                (True, getattr(importlib.import_module(module), name)(rank, world_size, *args))
            )
        except Exception:
            pipe.send((False, traceback.format_exc()))
