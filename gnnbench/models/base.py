"""What both worlds must know of a model: parameters, scalings, and which products it needs.

A model here is a stack of layers `Y = norm(A) H W (+ H W_self) + b`, with ReLU and dropout after
every layer but the last. What differs is the normalisation and whether there is a self weight.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from gnnbench.spec import ModelSpec

Order = Literal["aggregate_first", "transform_first"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Card of a model kind.

    normalisation   "symmetric": D^-1/2 (A+I) D^-1/2 with true in- and out-degrees plus one;
                    "mean": D^-1 A over in-neighbours, the vertex itself apart
    self_weight     a second weight applied to the vertex's own row
    """

    name: str
    title: str
    paper: str
    normalisation: Literal["symmetric", "mean"]
    self_weight: bool

    def dims(self, spec: ModelSpec, num_features: int, num_classes: int) -> tuple[int, ...]:
        """Widths d_0 ... d_L."""
        return (num_features, *([spec.hidden] * (spec.layers - 1)), num_classes)

    def parameters(self, dims: tuple[int, ...]) -> list[tuple[str, tuple[int, ...]]]:
        """Name and shape of each parameter in the order of the flat parameter vector."""
        shapes: list[tuple[str, tuple[int, ...]]] = []
        for layer, (fan_in, fan_out) in enumerate(pairwise(dims), start=1):
            shapes.append((f"weight_{layer}", (fan_in, fan_out)))
            if self.self_weight:
                shapes.append((f"self_weight_{layer}", (fan_in, fan_out)))
            shapes.append((f"bias_{layer}", (fan_out,)))
        return shapes

    def num_parameters(self, dims: tuple[int, ...]) -> int:
        return sum(math.prod(shape) for _, shape in self.parameters(dims))


def layer_order(fan_in: int, fan_out: int, policy: str) -> Order:
    """Which product comes first. `min_width` aggregates the narrower side.

    Source: fullgraph section 2, operation order.
    """
    if policy == "aggregate_first" or (policy == "min_width" and fan_in <= fan_out):
        return "aggregate_first"
    return "transform_first"
