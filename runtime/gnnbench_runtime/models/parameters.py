"""All parameters in one flat vector, with the gradient beside it.

One vector makes the gradient all-reduce one collective and the optimizer one kernel. The last
element of the gradient vector carries the loss, so that it is summed by the same collective.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnnbench.data.keys import extend_array, fold

Shapes = Sequence[tuple[str, tuple[int, ...]]]


class Parameters:
    """Flat parameters; `value` and `grad` give views by name.

    Args:
        shapes: name and shape of each, in order.
        seed: initial values depend on (seed, parameter number, element) only, so that every rank
            starts equal without a broadcast. Matrices are Glorot uniform; vectors are zero, but
            scales of normalisation layers are one.
        device, dtype: where they are, and what.
        flat: where the values lie already; nothing is drawn then.
    """

    def __init__(
        self,
        shapes: Shapes,
        seed: int,
        device: torch.device,
        dtype: torch.dtype,
        *,
        flat: Tensor | None = None,
    ) -> None:
        count = sum(math.prod(shape) for _, shape in shapes)
        self.flat = torch.zeros(count, device=device, dtype=dtype) if flat is None else flat
        self.flat_grad = torch.zeros(count + 1, device=device, dtype=dtype)
        self.value: dict[str, Tensor] = {}
        self.grad: dict[str, Tensor] = {}
        start = 0
        for number, (name, shape) in enumerate(shapes):
            size = math.prod(shape)
            self.value[name] = self.flat[start : start + size].view(shape)
            self.grad[name] = self.flat_grad[start : start + size].view(shape)
            if flat is not None:
                pass
            elif len(shape) == 2:
                drawn = glorot(seed, number, shape)
                self.value[name].copy_(torch.from_numpy(drawn).to(dtype))
            elif name.startswith("norm_scale"):
                self.value[name].fill_(1.0)
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


def initial(shapes: Shapes, seed: int, start: int, stop: int) -> NDArray[np.float64]:
    """Initial values of some flat parameters: a shard is drawn alone, the whole never made.

    Args:
        shapes, seed: of all parameters, as `Parameters` has them.
        start, stop: of the range of flat parameters.

    Returns:
        float64 [stop - start].
    """
    found = np.zeros(stop - start)
    first = 0
    for number, (name, shape) in enumerate(shapes):
        last = first + math.prod(shape)
        low, high = max(first, start), min(last, stop)
        if low < high and len(shape) == 2:
            places = np.arange(low - first, high - first, dtype=np.int64)
            found[low - start : high - start] = _uniform(seed, number, shape, places)
        elif low < high and name.startswith("norm_scale"):
            found[low - start : high - start] = 1.0
        first = last
    return found


def glorot(
    seed: int,
    number: int,
    shape: tuple[int, ...],
    rows: slice = slice(None),
    columns: slice = slice(None),
) -> NDArray[np.float64]:
    """Initial values of a block of a matrix, uniform in +-sqrt(6 / (fan in + fan out)).

    An element depends on its place in the whole matrix, so that a block can be drawn alone.

    Args:
        seed: of the run.
        number: of the parameter among all.
        shape: of the whole matrix.
        rows, columns: the block.

    Returns:
        float64 [rows, columns].

    Source: Glorot and Bengio, AISTATS 2010, equation 16.
    """
    height, width = shape
    row = np.arange(height, dtype=np.int64)[rows]
    column = np.arange(width, dtype=np.int64)[columns]
    return _uniform(seed, number, shape, row[:, None] * width + column[None, :])


def _uniform(
    seed: int, number: int, shape: tuple[int, ...], places: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Values of elements by their places in a matrix, row by row."""
    limit = math.sqrt(6.0 / sum(shape))
    bits = extend_array(fold(seed, number), places)
    unit = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return np.asarray((2.0 * unit - 1.0) * limit)
