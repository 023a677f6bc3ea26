"""The arithmetic of training, by device: one object of kernels with the same names everywhere."""

from __future__ import annotations

import torch

from gnnbench_runtime.kernels.cpu import CpuKernels
from gnnbench_runtime.kernels.torch_ops import TorchKernels

Kernels = CpuKernels | TorchKernels

__all__ = ["CpuKernels", "Kernels", "TorchKernels", "backend"]


def backend(device: torch.device | str, threads: int = 1) -> Kernels:
    """Return the kernels for a device. `threads` counts host threads, the caller's included."""
    kind = torch.device(device).type
    return CpuKernels(threads) if kind == "cpu" else TorchKernels(kind, threads)
