"""What the patterns of all kinds of layers share: tensors that move to a device together."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import torch
from torch import Tensor


@dataclasses.dataclass(slots=True, kw_only=True)
class Pattern:
    """Who sums up whom in one layer on one rank: n rows over u source rows."""

    rows: int
    source_rows: int

    def to(self, device: torch.device) -> Self:
        """Return the pattern on a device."""
        tensors: dict[str, Any] = {k: v.to(device) for k, v in self._tensors().items()}
        return dataclasses.replace(self, **tensors)

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(t.numel() * t.element_size() for t in self._tensors().values())

    def _tensors(self) -> dict[str, Tensor]:
        held = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: value for name, value in held.items() if isinstance(value, Tensor)}
