"""The resident set of this process: what it holds in memory now, and its peaks."""

from __future__ import annotations

import ctypes
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_TASKS = Path("/proc/self/task")
_SAMPLE_S = 0.002


class ResidentSet:
    """The resident set of this process, by the kernel's high-water mark.

    Where the mark cannot be reset (no /proc/self/clear_refs), a thread samples instead and may
    miss peaks shorter than 2 ms.
    """

    source = "resident set"

    def __init__(self) -> None:
        self._can_reset = _reset_high_water()

    def now_bytes(self) -> int:
        return status_bytes("VmRSS")

    @contextmanager
    def peak(self, into: dict[str, int], key: str) -> Iterator[None]:
        """Raise `into[key]` to the highest resident set during the block."""
        if self._can_reset:
            # The kernel keeps one mark per process; it is lowered to the present use before each
            # block.
            _reset_high_water()
            yield
            highest = status_bytes("VmHWM")
        else:
            with _Sampler(self.now_bytes) as sampler:
                yield
            highest = sampler.highest
        into[key] = max(into.get(key, 0), highest)


def resident_bytes() -> int:
    """Return what this process holds resident now."""
    return status_bytes("VmRSS")


def return_free_heap() -> None:
    """Give freed heap back to the system, where the C library can (glibc)."""
    # glibc only; other C libraries give memory back by themselves.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def limit_growth(room_bytes: int) -> int:
    """Let allocations fail that would add more than so many bytes to what the process holds now.

    The limit is RLIMIT_DATA: private memory counts, shared mappings of files and the page cache do
    not.

    Returns:
        The limit until now, for `set_data_limit`.
    """
    before = data_limit()
    set_data_limit(status_bytes("VmData") + room_bytes)
    return before


def data_limit() -> int:
    """The soft limit of RLIMIT_DATA."""
    return resource.getrlimit(resource.RLIMIT_DATA)[0]


def num_threads() -> int:
    """How many threads this process has."""
    return len(list(_TASKS.iterdir()))


def stack_bytes() -> int:
    """The size of a new thread's stack, as glibc takes it from the limit of the main thread's."""
    soft = resource.getrlimit(resource.RLIMIT_STACK)[0]
    return 2 * 2**20 if soft == resource.RLIM_INFINITY else soft


def set_data_limit(limit_bytes: int) -> None:
    """Set the soft limit of RLIMIT_DATA; no higher than the hard one."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, hard))


def status_bytes(key: str) -> int:
    """Return a line of /proc/self/status in bytes, such as VmRSS; 0 where there is none."""
    for line in _STATUS.read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    return 0


def _reset_high_water() -> bool:
    """Set the high-water mark to the present resident set; tell whether that worked."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


class _Sampler:
    def __init__(self, read: Any) -> None:
        self._read = read
        self._stop = threading.Event()
        self.highest = 0
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self) -> None:
        while not self._stop.wait(_SAMPLE_S):
            self.highest = max(self.highest, self._read())

    def __enter__(self) -> _Sampler:
        self.highest = self._read()
        self._thread.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._stop.set()
        self._thread.join()
        self.highest = max(self.highest, self._read())
