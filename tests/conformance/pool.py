"""Real ranks for tests: a pool of processes joined by gloo, kept for many cases.

Starting a rank costs seconds (torch), a case milliseconds, so the pool lives as long as the
session.
"""

from __future__ import annotations

import importlib
import multiprocessing as mp
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

_POOLS: dict[int, RankPool] = {}


class RankPool:
    """P processes that run `module:function(rank, world_size, *args)` together."""

    def __init__(self, world_size: int, folder: Path) -> None:
        context = mp.get_context("spawn")
        self.world_size = world_size
        self._pipes: list[Connection] = []
        self._processes = []
        for rank in range(world_size):
            here, there = context.Pipe()
            process = context.Process(
                target=_serve, args=(rank, world_size, str(folder / "store"), there), daemon=True
            )
            process.start()
            self._pipes.append(here)
            self._processes.append(process)

    def run(self, function: str, *args: Any, timeout_s: float = 120) -> list[Any]:
        """Call the function on every rank; return the results in rank order."""
        for pipe in self._pipes:
            pipe.send((function, args))
        results: list[Any] = []
        failures: list[str] = []
        for rank, pipe in enumerate(self._pipes):
            if not pipe.poll(timeout_s):
                failures.append(f"rank {rank}: no answer in {timeout_s} s")
                continue
            ok, value = pipe.recv()
            results.append(value)
            if not ok:
                failures.append(f"rank {rank}: {value}")
        if failures:
            self.close()
            _POOLS.pop(self.world_size, None)
            raise AssertionError("\n".join(failures))
        return results

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()


def pool(world_size: int, folder: Path) -> RankPool:
    """The session's pool of this size."""
    if world_size not in _POOLS:
        folder.mkdir(parents=True, exist_ok=True)
        _POOLS[world_size] = RankPool(world_size, folder)
    return _POOLS[world_size]


def close_all() -> None:
    while _POOLS:
        _POOLS.popitem()[1].close()


def _serve(rank: int, world_size: int, store: str, pipe: Connection) -> None:
    import os

    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    if world_size > 1:
        dist.init_process_group(
            "gloo", store=dist.FileStore(store, world_size), rank=rank, world_size=world_size
        )
    while True:
        try:
            function, args = pipe.recv()
        except EOFError:
            return
        module, _, name = function.partition(":")
        try:
            pipe.send(
                (True, getattr(importlib.import_module(module), name)(rank, world_size, *args))
            )
        except Exception:
            pipe.send((False, traceback.format_exc()))
