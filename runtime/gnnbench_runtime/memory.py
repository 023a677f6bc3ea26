"""Memory of a rank: its resident set on CPU, the allocator's peak on CUDA.

The baseline is taken before the run's own data is loaded, when the process group is up and the
rehearsal on a miniature has loaded and compiled everything: it is what the process needs for any
dataset. The peak is the highest value during training; evaluation is reported separately.
"""

from __future__ import annotations

import ctypes
import resource
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
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
        return _status_bytes("VmRSS")

    @contextmanager
    def peak(self, into: dict[str, int], key: str) -> Iterator[None]:
        """Raise `into[key]` to the highest resident set during the block."""
        if self._can_reset:
            # The kernel keeps one mark per process; it is lowered to the present use before each
            # block.
            _reset_high_water()
            yield
            highest = _status_bytes("VmHWM")
        else:
            with _Sampler(self.now_bytes) as sampler:
                yield
            highest = sampler.highest
        into[key] = max(into.get(key, 0), highest)


class Allocator:
    """The memory that torch's allocator has given out on a CUDA device."""

    source = "allocator"

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def now_bytes(self) -> int:
        # Allocated, not reserved: what the workload holds, without the reserve of the allocator.
        return torch.cuda.memory_allocated(self._device)

    @contextmanager
    def peak(self, into: dict[str, int], key: str) -> Iterator[None]:
        """Raise `into[key]` to the allocator's peak during the block."""
        torch.cuda.reset_peak_memory_stats(self._device)
        yield
        into[key] = max(into.get(key, 0), torch.cuda.max_memory_allocated(self._device))
        reserved = torch.cuda.max_memory_reserved(self._device)
        into["reserved_bytes"] = max(into.get("reserved_bytes", 0), reserved)


class MemoryMeter:
    """Baseline and peaks of one rank, as `RunRecord.memory` wants them."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._gauge = Allocator(device) if self._cuda else ResidentSet()
        self._peaks: dict[str, int] = {}
        self._baseline = self._start = 0

    def take_baseline(self) -> None:
        release_free_memory(self._cuda)
        self._baseline = self._gauge.now_bytes()

    def limit(self, caps: Mapping[str, float]) -> None:
        """Enforce the caps of a run: beyond them, allocating fails.

        On CUDA the device's cap limits torch's allocator. The host's cap (on a CPU, the smaller of
        both) limits anonymous memory of this process, by as much as its resident set may grow.
        """
        spaces = ("host",) if self._cuda else ("host", "device")
        host = [caps[space] for space in spaces if space in caps]
        if self._cuda and "device" in caps:
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(min(caps["device"] / total, 1.0))
        if host:
            # The limit counts virtual data, of which part is not resident: only growth from here on
            # is limited.
            room = max(int(min(host)) - resident_bytes(), 0)
            hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
            resource.setrlimit(resource.RLIMIT_DATA, (_status_bytes("VmData") + room, hard))

    def take_start(self) -> None:
        """Note what is held when everything is set up and training is about to begin."""
        release_free_memory(self._cuda)
        self._start = self._gauge.now_bytes()

    def training(self) -> Any:
        """Return a `with` block whose peak counts as training."""
        return self._gauge.peak(self._peaks, "peak_bytes")

    def evaluation(self) -> Any:
        """Return a `with` block whose peak counts as evaluation."""
        return self._gauge.peak(self._peaks, "evaluation_peak_bytes")

    def report(self, rank: int) -> dict[str, Any]:
        return {
            "rank": rank,
            "baseline_bytes": self._baseline,
            "start_bytes": self._start,
            "source": self._gauge.source,
            **self._peaks,
        }


def forget_mapped_pages(arrays: list[np.ndarray[Any, Any] | None]) -> None:
    """Release resident pages of memory-mapped arrays; they are read again when accessed.

    Pages that set-up has read once would otherwise count as memory of the training.
    """
    import mmap

    for array in arrays:
        mapped = getattr(array, "_mmap", None)
        if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            # The pages stay in the page cache: reading them again is no disk access.
            mapped.madvise(mmap.MADV_DONTNEED)


def release_free_memory(cuda: bool = False) -> None:
    """Give freed heap back to the system, where the C library can (glibc), and freed GPU blocks."""
    if cuda:
        torch.cuda.empty_cache()
    # glibc only; other C libraries give memory back by themselves.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def resident_bytes() -> int:
    """Return what this process holds resident now."""
    return _status_bytes("VmRSS")


def _status_bytes(key: str) -> int:
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
