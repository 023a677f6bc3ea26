"""Named buffers that are allocated once and reused, so that steady epochs allocate nothing.

The names are those of the plan, so that predicted and real memory can be compared by buffer.
"""

from __future__ import annotations

import torch
from torch import Tensor


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
            flat = self._flat[name] = torch.empty(size, device=self.device, dtype=self.dtype)
        return flat[:size].view(rows, width)

    def clear(self) -> None:
        """Forget all buffers; who holds a view of one keeps it alive."""
        self._flat.clear()

    @property
    def num_bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in self._flat.values())
