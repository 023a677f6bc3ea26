"""NVML during a run on a GPU: memory in use, power and energy of the whole device."""

from __future__ import annotations

import threading
from contextlib import suppress
from time import perf_counter
from typing import Any

import torch

_SAMPLE_S = 0.05


class GpuMeter:
    """Sample one device 20 times a second, from `start` to `stop`.

    What it says is of the device and thus of all its users. Energy comes from the device's own
    counter where there is one, else from the power samples.
    """

    def __init__(self, device: torch.device) -> None:
        import pynvml

        self._nvml = pynvml
        pynvml.nvmlInit()
        self.uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        self._handle = pynvml.nvmlDeviceGetHandleByUUID(self.uuid)
        self._stop = threading.Event()
        self._power_w: list[float] = []
        self._used_bytes = 0
        self._thread = threading.Thread(target=self._sample, daemon=True, name="gpu-meter")

    def start(self) -> None:
        self._begun_s, self._begun_j = perf_counter(), self._counter_j()
        self._thread.start()

    def stop(self) -> dict[str, Any]:
        """Return seconds, joules and where they come from, mean power and most memory in use."""
        self._stop.set()
        self._thread.join()
        seconds = perf_counter() - self._begun_s
        ended_j = self._counter_j()
        mean_w = sum(self._power_w) / len(self._power_w) if self._power_w else None
        joules, source = None, ""
        if ended_j is not None and self._begun_j is not None:
            joules, source = ended_j - self._begun_j, "NVML energy counter"
        elif mean_w is not None:
            joules, source = mean_w * seconds, "NVML power samples"
        self._nvml.nvmlShutdown()
        return {
            "device": self.uuid,
            "seconds": seconds,
            "joules": joules,
            "source": source,
            "mean_w": mean_w,
            "device_used_bytes": self._used_bytes,
        }

    def _sample(self) -> None:
        nvml = self._nvml
        while True:
            # A device may not tell one of the two.
            with suppress(nvml.NVMLError):
                self._power_w.append(nvml.nvmlDeviceGetPowerUsage(self._handle) / 1e3)
            with suppress(nvml.NVMLError):
                used = int(nvml.nvmlDeviceGetMemoryInfo(self._handle).used)
                self._used_bytes = max(self._used_bytes, used)
            if self._stop.wait(_SAMPLE_S):
                return

    def _counter_j(self) -> float | None:
        try:
            return self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) / 1e3
        except self._nvml.NVMLError:
            return None


def open_meter(device: torch.device) -> GpuMeter | None:
    """Return a running meter, or None without a GPU or without NVML."""
    if device.type != "cuda":
        return None
    try:
        meter = GpuMeter(device)
    except Exception:  # NVML raises its own kinds, absent pynvml another: measuring is a bonus
        return None
    meter.start()
    return meter
