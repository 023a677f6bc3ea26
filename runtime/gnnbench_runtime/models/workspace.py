"""Named buffers that are allocated once and reused, so that steady epochs allocate nothing.

The names are those of the plan, so that predicted and real memory can be compared by buffer.

On a CPU a large buffer is a mapping of its own. In the heap, buffers that grow a little with every
larger batch would leave holes that no other buffer fits, and the resident set would hold both.
"""

from __future__ import annotations

import mmap

import torch
from torch import Tensor

LEAST_MAPPED_BYTES = 2**18
"""Buffers of at least so many bytes are mappings of their own."""


class Workspace:
    """Buffers by name on one device, of one floating-point type; each grows to its largest use."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self._flat: dict[str, Tensor] = {}

    def get(self, name: str, rows: int, width: int) -> Tensor:
        """Return the buffer as a (rows, width) view; its content is whatever was there."""
        size = rows * width
        flat = self._flat.get(name)
        if flat is None or flat.numel() < size:
            # Drop the old block first: both need not live at once.
            self._flat.pop(name, None)
            del flat
            flat = self._flat[name] = empty(size, self.device, self.dtype)
        return flat[:size].view(rows, width)

    def drop(self, name: str) -> None:
        """Forget a buffer, if it is there; who holds a view of it keeps it alive."""
        self._flat.pop(name, None)

    def keep(self, *names: str) -> None:
        """Forget all buffers but some; who holds a view of one keeps it alive."""
        for name in self._flat.keys() - set(names):
            del self._flat[name]

    def clear(self) -> None:
        """Forget all buffers; who holds a view of one keeps it alive."""
        self._flat.clear()

    @property
    def num_bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in self._flat.values())


def empty(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """An uninitialised vector, whose memory goes back to the system when nobody holds it."""
    num_bytes = size * dtype.itemsize
    if device.type != "cpu" or num_bytes < LEAST_MAPPED_BYTES:
        return torch.empty(size, device=device, dtype=dtype)
    try:
        mapped = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"cannot map {num_bytes} bytes: {error.strerror}") from None
    return torch.frombuffer(mapped, dtype=dtype, count=size)
