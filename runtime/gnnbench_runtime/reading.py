"""The one place where training waits for values of the device.

Every read stalls the queue of a GPU, so each is deliberate: the loss of a period, counts of an
exchange whose sizes only the other ranks know, metrics. Conformance runs every trainer on a device
that the host cannot read (`conformance.device`), so that any other read is an error there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def on_host(tensor: Tensor) -> list[Any]:
    """The values of a tensor as nested lists; a tensor without storage (meta) reads as zeros."""
    if tensor.is_meta:
        tensor = torch.zeros(tensor.shape, dtype=tensor.dtype)
    found: list[Any] = tensor.tolist()
    return found


def array_on_host(tensor: Tensor) -> NDArray[Any]:
    """The same as an array."""
    if tensor.is_meta:
        return np.zeros(tuple(tensor.shape), torch.empty(0, dtype=tensor.dtype).numpy().dtype)
    return tensor.cpu().numpy()
