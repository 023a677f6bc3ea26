"""The pulse: the current step of a rank, in a small shared file that the launcher reads.

A rank writes at the beginning of every step (under a microsecond, no system call), so the position
of a rank that was killed or hangs is known. Times are of the system-wide monotonic clock and
comparable on one machine only.
"""

from __future__ import annotations

import mmap
import struct
import threading
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

# beat (main thread), touch (any thread), steps begun, period, collective number, stage, phase, name
_LAYOUT = struct.Struct("<ddqqq16s16s96s")
_TOUCH = struct.Struct("<d")
_TOUCH_OFFSET = 8


@dataclass(frozen=True, slots=True)
class Beat:
    """What a rank was doing at its last sign of life.

    time_s         monotonic clock; 0 before the first sign
    stage          "start", "setup", "train", "evaluate" or "done"
    collective     how many collectives the rank has entered; negative when it is not in one now
    """

    time_s: float = 0.0
    steps: int = 0
    period: int = -1
    collective: int = -1
    stage: str = "start"
    phase: str = ""
    step: str = ""

    @property
    def in_collective(self) -> bool:
        return self.collective >= 0


class Pulse:
    """The writing side, one per rank."""

    def __init__(self, path: Path | None) -> None:
        self._map = mmap.mmap(-1, _LAYOUT.size) if path is None else _map(path, create=True)
        self._owner = threading.get_ident()
        self._steps = 0
        self._collectives = 0
        self._period = -1
        self._stage = b"start"
        self._encoded: dict[str, bytes] = {}
        self._phase, self._name = b"", b""
        self._write(-1)

    @property
    def where(self) -> Beat:
        """The last position that was written."""
        texts = (text.decode(errors="replace") for text in (self._stage, self._phase, self._name))
        return Beat(perf_counter(), self._steps, self._period, -1, *texts)

    def stage(self, stage: str, period: int = -1) -> None:
        """Enter a part of the worker's life; the last step's name no longer holds."""
        self._stage, self._period = stage.encode(), period
        self._phase = self._name = b""
        self._write(-1)

    def beat(self, name: str, phase: str, collective: bool) -> None:
        """Say which step begins. Other threads than the first only show that the rank lives."""
        if threading.get_ident() != self._owner:
            _TOUCH.pack_into(self._map, _TOUCH_OFFSET, perf_counter())
            return
        self._steps += 1
        encoded = self._encoded
        if name not in encoded:
            encoded[name] = name.encode()[:96]
        if phase not in encoded:
            encoded[phase] = phase.encode()[:16]
        self._name, self._phase = encoded[name], encoded[phase]
        self._collectives += collective
        self._write(self._collectives - 1 if collective else -1)

    def leave(self) -> None:
        """Say that the collective has ended."""
        if threading.get_ident() == self._owner:
            self._write(-1)

    def _write(self, collective: int) -> None:
        now = perf_counter()
        where = (self._steps, self._period, collective, self._stage, self._phase, self._name)
        _LAYOUT.pack_into(self._map, 0, now, now, *where)


class PulseReader:
    """The reading side, in the launcher."""

    def __init__(self, path: Path) -> None:
        self._map = _map(path, create=True)

    def read(self) -> Beat:
        beat_s, touch_s, steps, period, collective, *texts = _LAYOUT.unpack_from(self._map)
        if not touch_s:
            return Beat()
        stage, phase, name = (t.rstrip(b"\0").decode(errors="replace") for t in texts)
        return Beat(max(beat_s, touch_s), steps, period, collective, stage, phase, name)

    def close(self) -> None:
        self._map.close()


def _map(path: Path, *, create: bool) -> mmap.mmap:
    with path.open("a+b" if create else "r+b") as file:
        if file.seek(0, 2) < _LAYOUT.size:
            file.truncate(_LAYOUT.size)
        return mmap.mmap(file.fileno(), _LAYOUT.size)
