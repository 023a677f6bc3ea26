"""How busy other programs kept the processors meanwhile: measured times then say less.

On Linux, from the counters of the kernel; other systems say nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

STAT = Path("/proc/stat")
_BUSY = (0, 1, 2, 5, 6, 7)
"""Columns of a processor's line: user, nice, system, irq, softirq, and stolen by other machines."""


class OtherWork:
    """Processors that other programs kept busy since this was made.

    Own work is that of this process and of its children that have ended. Containers that share our
    processors are other programs.
    """

    def __init__(self) -> None:
        self._own = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
        self._start = self._read()

    @property
    def processors(self) -> float | None:
        """Mean number of processors that others kept busy; None where the system does not tell."""
        before, after = self._start, self._read()
        if before is None or after is None:
            return None
        elapsed = after["wall"] - before["wall"]
        if elapsed <= 0:
            return None
        own = after["own"] - before["own"]
        return max(0.0, after["busy"] - before["busy"] - own) / elapsed

    def _read(self) -> Mapping[str, float] | None:
        try:
            lines = STAT.read_text(encoding="ascii").splitlines()
            ticks = sum(busy_ticks(line) for line in lines if _number(line) in self._own)
            rate = os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, IndexError):
            return None
        times = os.times()
        own = times.user + times.system + times.children_user + times.children_system
        return {"wall": time.monotonic(), "busy": ticks / rate, "own": own}


def busy_ticks(line: str) -> int:
    """Clock ticks that a processor was busy, from its line of /proc/stat."""
    words = line.split()[1:]
    return sum(int(words[column]) for column in _BUSY)


def _number(line: str) -> int | None:
    name = line.split(" ", 1)[0]
    return int(name[3:]) if name.startswith("cpu") and name != "cpu" else None
