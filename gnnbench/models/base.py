"""Cards of models: parameters, normalisation, and the products of a layer.

A model here is a stack of layers with an activation and dropout after every layer but the last. A
layer is a convolution, `Y = norm(A) H W (+ H W_self) + b`, or attention, where the weights of the
sum over neighbours are computed from the layer's input (see `approaches.writing.layers`).
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
                    "mean": D^-1 A over in-neighbours, the vertex itself apart; "softmax": weights
                    of attention over A+I, which sum to one per row and head
                    "none" where there is no sum
    self_weight     a second weight applied to the vertex's own row
    activation      after every layer but the last
    built           "stack": of layers as above; "module": of torch modules on a tape, which only
                    the approaches that name the model can train; "table": of rows by id
    """

    name: str
    title: str
    paper: str
    normalisation: Literal["symmetric", "mean", "softmax", "none"]
    self_weight: bool
    activation: Literal["relu", "elu"] = "relu"
    built: Literal["stack", "module", "table"] = "stack"

    @property
    def attention(self) -> bool:
        return self.normalisation == "softmax"

    def problems(self, spec: ModelSpec) -> list[str]:
        """Problems of a spec for this model."""
        if spec.heads > 1 and not self.attention:
            return [f"heads: found {spec.heads}, model {self.name} has no attention; leave it at 1"]
        if spec.hidden % spec.heads:
            return [
                f"hidden: found {spec.hidden}, which {spec.heads} heads cannot share evenly; "
                "hidden is heads times the width of a head"
            ]
        return []

    def heads(self, spec: ModelSpec) -> tuple[int, ...]:
        """Heads of each layer: hidden layers concatenate theirs, the last one has a single head."""
        return (*([spec.heads] * (spec.layers - 1)), 1)

    def dims(self, spec: ModelSpec, num_features: int, num_classes: int) -> tuple[int, ...]:
        """Widths d_0 ... d_L."""
        return (num_features, *([spec.hidden] * (spec.layers - 1)), num_classes)

    def parameters(
        self, dims: tuple[int, ...], heads: tuple[int, ...] = (), *, norm: bool = False
    ) -> list[tuple[str, tuple[int, ...]]]:
        """Name and shape of each parameter in the order of the flat parameter vector.

        `heads` per layer matter to attention only; absent, they are ones. With `norm`, hidden
        layers have a scale and a shift (LayerNorm).
        """
        shapes: list[tuple[str, tuple[int, ...]]] = []
        for layer, (fan_in, fan_out) in enumerate(pairwise(dims), start=1):
            shapes.append((f"weight_{layer}", (fan_in, fan_out)))
            if self.self_weight:
                shapes.append((f"self_weight_{layer}", (fan_in, fan_out)))
            if self.attention:
                count = heads[layer - 1] if heads else 1
                for end in ("destination", "source"):
                    shapes.append((f"attention_{end}_{layer}", (count, fan_out // count)))
            shapes.append((f"bias_{layer}", (fan_out,)))
            if norm and layer < len(dims) - 1:
                shapes += [(f"norm_scale_{layer}", (fan_out,)), (f"norm_shift_{layer}", (fan_out,))]
        return shapes

    def num_parameters(
        self, dims: tuple[int, ...], heads: tuple[int, ...] = (), *, norm: bool = False
    ) -> int:
        return sum(math.prod(shape) for _, shape in self.parameters(dims, heads, norm=norm))


def layer_order(fan_in: int, fan_out: int, policy: str) -> Order:
    """Which product of a layer comes first; `min_width` aggregates at the smaller width.

    Source: fullgraph section 2, operation order.
    """
    if policy == "aggregate_first" or (policy == "min_width" and fan_in <= fan_out):
        return "aggregate_first"
    return "transform_first"
