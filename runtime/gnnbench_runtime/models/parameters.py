"""All parameters in one flat vector, with gradient and Adam state beside it.

One vector makes the gradient all-reduce one collective and the optimizer one kernel. The last
element of the gradient vector carries the loss, so that it is summed by the same collective.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gnnbench.models.base import Model


class Parameters:
    """Flat parameters; `value` and `grad` give views by name.

    Initial values depend on (seed, parameter number) only, so every rank starts equal without a
    broadcast. Weights are Glorot uniform, biases zero.
    """

    def __init__(
        self,
        model: Model,
        dims: Sequence[int],
        seed: int,
        device: torch.device,
        dtype: torch.dtype,
        heads: Sequence[int] = (),
    ) -> None:
        shapes = model.parameters(tuple(dims), tuple(heads))
        count = sum(math.prod(shape) for _, shape in shapes)
        self.flat = torch.zeros(count, device=device, dtype=dtype)
        self.flat_grad = torch.zeros(count + 1, device=device, dtype=dtype)
        self.first_moment = torch.zeros_like(self.flat)
        self.second_moment = torch.zeros_like(self.flat)
        self.value: dict[str, Tensor] = {}
        self.grad: dict[str, Tensor] = {}
        start = 0
        for number, (name, shape) in enumerate(shapes):
            size = math.prod(shape)
            self.value[name] = self.flat[start : start + size].view(shape)
            self.grad[name] = self.flat_grad[start : start + size].view(shape)
            if len(shape) == 2:
                limit = math.sqrt(6.0 / (shape[0] + shape[1]))
                draw = np.random.default_rng((seed, number)).uniform(-limit, limit, shape)
                self.value[name].copy_(torch.from_numpy(draw).to(dtype))
            start += size

    @property
    def count(self) -> int:
        return self.flat.numel()

    @property
    def gradient(self) -> Tensor:
        """The gradient without the loss element."""
        return self.flat_grad[:-1]

    @property
    def loss(self) -> Tensor:
        """The loss element (one value), summed over ranks once the gradient is."""
        return self.flat_grad[-1:]
