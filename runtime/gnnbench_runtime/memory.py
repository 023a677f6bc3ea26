"""Memory of a rank: its resident set on CPU, the allocator's peak on CUDA.

The baseline is taken before the run's own data is loaded, when the process group is up and the
rehearsal on a miniature has loaded and compiled everything: it is what the process needs for any
dataset. The peak is the highest value during training; evaluation is reported separately.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from gnnbench.memory_cap import cap_growth, lift_cap, settle_cap
from gnnbench.resident import ResidentSet, resident_bytes, return_free_heap


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
        self._cap = ""

    def take_baseline(self) -> None:
        release_free_memory(self._cuda)
        self._baseline = self._gauge.now_bytes()

    def limit(self, caps: Mapping[str, float]) -> None:
        """Enforce the caps of a run: beyond them, allocating fails.

        On CUDA the device's cap limits torch's allocator. The host's cap (on a CPU, the smaller of
        both) limits by how much this process may grow, see `gnnbench.memory_cap`.
        """
        spaces = ("host",) if self._cuda else ("host", "device")
        host = [caps[space] for space in spaces if space in caps]
        if self._cuda and "device" in caps:
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(min(caps["device"] / total, 1.0))
        if host:
            self._cap = cap_growth(max(int(min(host)) - resident_bytes(), 0))

    def lift(self) -> None:
        """End the caps: what follows the training is not part of what a cap is asked for."""
        lift_cap()
        if self._cuda:
            torch.cuda.set_per_process_memory_fraction(1.0)

    def take_start(self) -> None:
        """Note what is held when everything is set up and training is about to begin."""
        settle_cap()
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
            **({"cap": self._cap} if self._cap else {}),
            **self._peaks,
        }


def release_free_memory(cuda: bool = False) -> None:
    """Give freed heap and freed blocks of a GPU back to the system."""
    if cuda:
        torch.cuda.empty_cache()
    return_free_heap()
