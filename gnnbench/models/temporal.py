"""What both worlds must know of a model on an edge stream: widths, parameters, kept activations.

Layers are those of `models.temporal_layers`. The decoder of a link is
`W_o ReLU(W_s h_src + W_d h_dst)`.

Source: temporal reference section 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from gnnbench.models.base import Model
from gnnbench.models.names import MODELS
from gnnbench.models.temporal_layers import LAYERS, LayerKind, LayerSizes
from gnnbench.spec import RunSpec
from gnnbench.steps import Size


@dataclass(frozen=True, slots=True, kw_only=True)
class TemporalModel(Model):
    """Card of a model on an edge stream.

    strategy        how its neighbours are drawn unless a knob says otherwise
    memory          whether it keeps a state per node that events update
    layer           kind of its layers, see `models.temporal_layers`
    learns          whether it has parameters
    """

    normalisation: Literal["symmetric", "mean", "softmax", "none"] = "softmax"
    self_weight: bool = True
    built: Literal["stack", "module", "table"] = "module"
    strategy: Literal["recent", "uniform"] = "uniform"
    memory: bool = False
    layer: str = "attention"
    learns: bool = True


def temporal_model(run: RunSpec) -> TemporalModel:
    """The card of a run's model."""
    found = MODELS.get(run.model.kind)
    assert isinstance(found, TemporalModel), f"{run.model.kind} is no model on a stream"
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class TemporalShape:
    """Widths of a temporal model on a stream; layer 1 reads the input rows.

    Args:
        fanouts: neighbours of the queries of each layer, input layer first.
        nodes, edges: widths of input rows: features of nodes and of edges, 0 where there are none.
        hidden: width of every layer's output, and of time encodings.
        heads: of attention.
        element_bytes: 4 or 8.
        negatives: per positive edge in training.
        memory: whether the input rows begin with the memory of their node, of width `hidden`.
        layer: kind of the layers.
        dropout: of attention weights and of the outputs of layers, in training.
    """

    fanouts: tuple[int, ...]
    nodes: int
    edges: int
    hidden: int
    heads: int
    element_bytes: int
    negatives: int
    optimizer: str = "adam"
    memory: bool = False
    layer: str = "attention"
    dropout: float = 0.0

    @classmethod
    def of(cls, data: Any, run: RunSpec) -> TemporalShape:
        """The shape of a run's model on a stream or its profile."""
        return cls(
            fanouts=tuple(reversed(run.batch.fanouts(run.model.layers))),
            nodes=data.num_features,
            edges=data.num_edge_features,
            hidden=run.model.hidden,
            heads=run.model.heads,
            element_bytes=run.training.element_bytes,
            negatives=run.batch.negatives,
            optimizer=run.training.optimizer,
            memory=temporal_model(run).memory,
            layer=temporal_model(run).layer,
            dropout=run.model.dropout,
        )

    @property
    def num_layers(self) -> int:
        return len(self.fanouts)

    def width(self, layer: int) -> int:
        """Of the rows that a layer reads."""
        return self.nodes + self.memory * self.hidden if layer == 1 else self.hidden

    @property
    def kind(self) -> LayerKind:
        """Of the layers."""
        return LAYERS[self.layer]

    def sizes(self, layer: int) -> LayerSizes:
        """Widths of a layer, from 1 on."""
        return LayerSizes(
            nodes=self.width(layer),
            edges=self.edges,
            hidden=self.hidden,
            heads=self.heads,
            fanout=self.fanouts[layer - 1],
        )

    def layer_parameters(self, layer: int) -> int:
        """Parameters of a layer."""
        return self.kind.parameters(self.sizes(layer))

    def layer_kept(self, layer: int, queries: Size, edges: Size) -> Size:
        """Elements that a layer keeps for its way back, masks of dropout included."""
        kept = self.kind.kept(self.sizes(layer), queries, edges)
        if self.dropout:
            places = self.fanouts[layer - 1] * self.heads
            kept = kept + queries * (2 * self.hidden + 2 * places) + edges * self.heads
        return kept

    def layer_held(self, layer: int, queries: Size, edges: Size, *, on_host: bool) -> Size:
        """Elements that live from a layer's way forward to its way back.

        On a device those that it keeps; loops on the host keep less, and masks are drawn apart.
        """
        if not on_host or self.kind.host_kept is None:
            return self.layer_kept(layer, queries, edges)
        kept = self.kind.host_kept(self.sizes(layer), queries, edges)
        return kept + queries * self.hidden if self.dropout else kept

    def layer_back(self, layer: int, queries: Size, edges: Size, *, on_host: bool) -> Size:
        """Elements that come and go on a layer's way back, beside the gradient of its rows."""
        back = self.kind.host_back if on_host else None
        return (back or self.kind.back)(self.sizes(layer), queries, edges)

    @property
    def decoder_parameters(self) -> int:
        d = self.hidden
        return 2 * (d + 1) * d + d + 1

    @property
    def message(self) -> int:
        """Width of what the memory is updated with: both ends' memory, the edge, its time."""
        return 3 * self.hidden + self.edges

    @property
    def memory_width(self) -> int:
        """Width of a row of memory: the node's, and that of the other end of its message."""
        return 2 * self.hidden if self.memory else 0

    @property
    def updater_parameters(self) -> int:
        """Three gates on message and memory with two biases each, and the time encoding."""
        d = self.hidden
        return 3 * (self.message + d + 2) * d + 2 * d if self.memory else 0

    @property
    def num_parameters(self) -> int:
        layers = range(1, self.num_layers + 1)
        of_layers = sum(map(self.layer_parameters, layers))
        return self.updater_parameters + of_layers + self.decoder_parameters

    def updater_kept(self, distinct: Size, rows: Size) -> Size:
        """Elements that the updater keeps: gates, time encodings, new memory, and its rows."""
        return distinct * 8 * self.hidden + rows * self.width(1)

    def decoder_kept(self, pairs: Size) -> Size:
        """Elements that the decoder keeps: both ends' products, their sum and its ReLU."""
        return 4 * pairs * self.hidden
