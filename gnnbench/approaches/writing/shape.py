"""Widths and sizes that plans need: the model's layers and a rank's share of the graph.

Legend: n rows (destinations), u source rows (own and halo, or all vertices of a block's input), s
bytes per element, L layers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

from gnnbench.models.base import Model, Order, layer_order
from gnnbench.models.names import MODELS
from gnnbench.reuse import Reuse
from gnnbench.spec import ModelSpec, RunSpec
from gnnbench.steps import Ints, Size

OPTIMIZER_STATES = {"adam": 2, "sgd": 0, "adagrad": 1}
"""Vectors of the parameters' size that an optimizer keeps, parameters and gradient not counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSizes:
    """Sizes of one layer's aggregation: rows and nonzeros (no self loops).

    Args:
        rows: destinations.
        source_rows: rows that are read.
        nonzeros: edges.
        halo_nonzeros: edges whose source row belongs to another rank; only `overlap` needs them.
        edge_weights: whether edges have weights of their own, as samplers give them.
        reuse: of the source rows, and of the transpose's; None where the order is random.
    """

    rows: Size
    source_rows: Size
    nonzeros: Size
    halo_nonzeros: Size = 0
    edge_weights: bool = False
    reuse: Reuse | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Halo:
    """Exchange of halo rows with other ranks.

    group      the ranks
    send       rows sent to each rank of the group, int64 [P], or [ranks, P] for a class; the entry
               of the rank itself is 0
    receive    rows received from each rank, in the same form
    overlap    halo rows are sent on lane `background` while edges with own sources are aggregated
    staged     rows are copied through host memory before and after every exchange
    """

    group: tuple[int, ...]
    send: Ints
    receive: Ints
    overlap: bool = False
    staged: bool = False

    @property
    def sent_rows(self) -> Size:
        return total(self.send)

    @property
    def received_rows(self) -> Size:
        return total(self.receive)


def total(units: Ints) -> Size:
    """Units to or from all ranks together."""
    summed = units.sum(axis=-1)
    return int(summed) if units.ndim == 1 else summed


class HasWidths(Protocol):
    """The sizes of a dataset that determine a model's first and last width."""

    @property
    def num_features(self) -> int: ...
    @property
    def num_classes(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StackShape:
    """A model at given widths, with the product order of each layer fixed.

    heads        attention heads of each layer; ones where there is no attention
    norm         whether hidden layers are normalised (LayerNorm) before their activation
    optimizer    adam, sgd or adagrad
    precompute   the first aggregation is done once, before training: layer 1 moves nothing
    """

    model: Model
    dims: tuple[int, ...]
    orders: tuple[Order, ...]
    element_bytes: int
    dropout: float
    input_dropout: float
    heads: tuple[int, ...]
    norm: bool = False
    optimizer: str = "adam"
    precompute: bool = False

    @classmethod
    def of(
        cls,
        model: Model,
        spec: ModelSpec,
        dims: tuple[int, ...],
        element_bytes: int,
        order: str,
        *,
        optimizer: str = "adam",
        precompute: bool = False,
    ) -> StackShape:
        """Fix the product order of every layer by policy (see `models.base.layer_order`).

        Attention needs its transformed rows first, precomputation its aggregated ones.
        """
        if model.attention:
            order = "transform_first"
        orders = [layer_order(a, b, order) for a, b in pairwise(dims)]
        if precompute:
            orders[0] = "aggregate_first"
        return cls(
            model=model,
            dims=dims,
            orders=tuple(orders),
            element_bytes=element_bytes,
            dropout=spec.dropout,
            input_dropout=spec.input_dropout,
            heads=model.heads(spec),
            norm=spec.norm == "layer",
            optimizer=optimizer,
            precompute=precompute,
        )

    def with_dims(self, dims: tuple[int, ...]) -> StackShape:
        """The same model at other widths, every product in the same order."""
        return replace(self, dims=dims)

    @property
    def num_layers(self) -> int:
        return len(self.dims) - 1

    @property
    def num_parameters(self) -> int:
        return self.model.num_parameters(self.dims, self.heads, norm=self.norm)

    @property
    def parameter_bytes(self) -> int:
        """Bytes of parameters, their gradient and the optimizer's state."""
        copies = 2 + OPTIMIZER_STATES[self.optimizer]
        return copies * self.num_parameters * self.element_bytes

    def is_precomputed(self, layer: int) -> bool:
        """Whether the layer's aggregated input is held from before the first epoch."""
        return self.precompute and layer == 1

    def has_norm(self, layer: int) -> bool:
        """Whether the layer's output is normalised: all but the last layer's are."""
        return self.norm and layer < self.num_layers

    def exchange_width(self, layer: int) -> int:
        """Width w_l at which layer l's aggregation is communicated."""
        first = self.orders[layer - 1] == "aggregate_first"
        return self.dims[layer - 1] if first else self.dims[layer]

    @property
    def widest_exchange(self) -> int:
        """The widest row that is ever exchanged; 0 if none is."""
        layers = range(1, self.num_layers + 1)
        widths = [self.exchange_width(at) for at in layers if not self.is_precomputed(at)]
        return max(widths, default=0)

    def forward_widths(self) -> int:
        """Phi: the sum of w_l over layers that exchange in the forward pass."""
        layers = range(1, self.num_layers + 1)
        return sum(self.exchange_width(at) for at in layers if not self.is_precomputed(at))

    def backward_widths(self) -> int:
        """Psi: layer 1 exchanges in the backward pass only when it transforms first."""
        first = 1 if self.orders[0] == "transform_first" else 2
        return sum(self.exchange_width(layer) for layer in range(first, self.num_layers + 1))


def stack_shape(
    data: HasWidths, run: RunSpec, order: str, *, precompute: bool = False
) -> StackShape:
    """The model of a run on a dataset, product orders fixed."""
    model = MODELS.get(run.model.kind)
    return StackShape.of(
        model,
        run.model,
        model.dims(run.model, data.num_features, data.num_classes),
        run.training.element_bytes,
        order,
        optimizer=run.training.optimizer,
        precompute=precompute,
    )
