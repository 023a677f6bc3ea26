r"""Time the operations that loops of interpreted code consist of; print JSON, in seconds.

    python benchmarks/bench_interpreter.py [--repeats N]

They are the constants of `gnnbench/published/effort.py`. Each is the smallest of several means over
many turns: what the operation costs where nothing else runs.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections import defaultdict
from collections.abc import Callable
from time import perf_counter

import numpy as np
import torch
from numba import njit, typed, types

TURNS = 2_000


def steps() -> float:
    """A turn that looks a list up by its key, tests it and appends to another one."""
    table: dict[int, list[int]] = defaultdict(list)
    for key in range(TURNS):
        table[key].append(key)

    def loop() -> None:
        found = []
        for key in range(TURNS):
            if len(table[key]) > 0:
                found.append(table[key][-1])

    return mean(loop)


def views() -> float:
    """A slice of an array."""
    column = np.arange(1000)

    def loop() -> None:
        for at in range(TURNS):
            column[: at & 511]

    return mean(loop)


def calls() -> float:
    """A search, an index list, a copy into a row: their mean."""
    column, rows = np.arange(1000.0), np.zeros((64, 10), np.float32)
    some = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3])

    def loop() -> None:
        for at in range(TURNS):
            np.searchsorted(column, 500.5)
            part = column[some]
            rows[at & 63, :] = part

    return mean(loop) / 3


def handles() -> float:
    """A row of a tensor, and a tensor without its history: their mean."""
    table = torch.zeros(512, 64, requires_grad=True) * 1.0

    def loop() -> None:
        for at in range(TURNS):
            table[at & 511].detach()

    return mean(loop) / 2


@njit
def _fill(table, count):  # type: ignore[no-untyped-def]
    total = 0.0
    for key in range(count):
        table[(key & 31, key & 7, 1.5)] = total
        total += table[(key & 31, key & 7, 1.5)]
    return total


def entries() -> float:
    """An entry of a hash table with keys of three numbers, written or read by compiled code."""
    kinds = types.Tuple((types.int64, types.int64, types.float64))
    table = typed.Dict.empty(key_type=kinds, value_type=types.float64)
    _fill(table, 2)
    return mean(lambda: _fill(table, TURNS)) / 2


@njit
def _key(row, node, time):  # type: ignore[no-untyped-def]
    return "-".join([str(row), str(node), str(time)])


def strings() -> float:
    """A string of three numbers, made by compiled code."""
    _key(1, 2, 3)

    def loop() -> None:
        for at in range(TURNS):
            _key(at & 127, at, 1_000_000 + at)

    return mean(loop)


REPEATS = [100]


def mean(loop: Callable[[], object]) -> float:
    """Seconds of a turn, the smallest of some means."""
    found = []
    for _ in range(REPEATS[0]):
        begin = perf_counter()
        loop()
        found.append((perf_counter() - begin) / TURNS)
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=100)
    REPEATS[0] = parser.parse_args().repeats
    torch.set_num_threads(1)
    parts = (steps, views, calls, handles, entries, strings)
    found = {part.__name__: float(f"{part():.3g}") for part in parts}
    header = {"python": platform.python_version(), "numpy": np.__version__}
    sys.stdout.write(json.dumps({**header, **found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
