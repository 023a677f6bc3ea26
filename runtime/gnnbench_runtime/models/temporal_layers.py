"""Layers of temporal models besides attention: mean, static attention, mixer.

All take the same input, see `TemporalAttention.forward`. Rows of neighbours are put into tables
that are padded to the fan-out: sums then have one order, and both directions write distinct places.

Source: `gnnbench.models.temporal_layers`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gnnbench.models.temporal import TemporalShape

SLOPE = 0.2
OUT = -1e30
"""The score of an empty place."""


def row(width: int) -> nn.Parameter:
    """A vector of parameters."""
    return nn.Parameter(torch.empty(width))


def affine(fan_in: int, fan_out: int) -> tuple[nn.Parameter, nn.Parameter]:
    """A matrix and its bias."""
    return nn.Parameter(torch.empty(fan_in, fan_out)), row(fan_out)


def table(rows: Tensor, places: Tensor, count: int) -> Tensor:
    """Rows at their places in a table of zeros [count, width]."""
    return rows.new_zeros(count, rows.shape[1]).index_copy(0, places, rows)


def full_places(places: Tensor, queries: int, fanout: int) -> Tensor:
    """Which places of a table [R, f] have a neighbour: bool [R, f]."""
    full = torch.zeros(queries * fanout, dtype=torch.bool, device=places.device)
    full[places] = True
    return full.view(queries, fanout)


def dropped(rows: Tensor, masks: tuple[Tensor, ...]) -> Tensor:
    """Rows times the mask of a layer's output, the first one; as they are without masks."""
    return rows * masks[0] if masks else rows


class TemporalMean(nn.Module):
    """A layer of GraphSAGE; no activation in the last one."""

    def __init__(self, shape: TemporalShape, layer: int) -> None:
        super().__init__()
        n, e, d = shape.width(layer), shape.edges, shape.hidden
        self.fanout, self.last = shape.fanouts[layer - 1], layer == shape.num_layers
        self.own, self.bias = affine(n, d)
        self.near = nn.Parameter(torch.empty(n + e, d))

    def forward(
        self, rows: Tensor, edges: Tensor, deltas: Tensor, places: Tensor, *masks: Tensor
    ) -> Tensor:
        """Return the rows of the queries, see `TemporalAttention.forward`."""
        count, f = len(rows) - len(deltas), self.fanout
        inputs = torch.cat([rows[count:], edges], 1)
        width = inputs.shape[1]
        total = table(inputs, places, count * f).view(count, f, width).sum(1)
        number = full_places(places, count, f).sum(1, keepdim=True).clamp(min=1)
        out = torch.addmm(self.bias, rows[:count], self.own)
        out = torch.addmm(out, total / number, self.near)
        return dropped(out if self.last else functional.relu(out), masks)


class TemporalGat(nn.Module):
    """A layer of static graph attention; no activation in the last one."""

    def __init__(self, shape: TemporalShape, layer: int) -> None:
        super().__init__()
        n, e, d = shape.width(layer), shape.edges, shape.hidden
        self.fanout, self.last = shape.fanouts[layer - 1], layer == shape.num_layers
        self.heads, self.hidden = shape.heads, d
        self.own, self.bias = affine(n, d)
        self.near = nn.Parameter(torch.empty(n + e, d))
        self.score_own = nn.Parameter(torch.empty(shape.heads, d // shape.heads))
        self.score_near = nn.Parameter(torch.empty(shape.heads, d // shape.heads))

    def forward(
        self, rows: Tensor, edges: Tensor, deltas: Tensor, places: Tensor, *masks: Tensor
    ) -> Tensor:
        """Return the rows of the queries, see `TemporalAttention.forward`."""
        count, f, heads, d = len(rows) - len(deltas), self.fanout, self.heads, self.hidden
        own = rows[:count] @ self.own
        near = torch.cat([rows[count:], edges], 1) @ self.near
        asks = (own.view(count, heads, d // heads) * self.score_own).sum(-1)
        gives = (near.view(len(near), heads, d // heads) * self.score_near).sum(-1)
        full = full_places(places, count, f).unsqueeze(-1)
        scores = table(gives, places, count * f).view(count, f, heads) + asks.unsqueeze(1)
        scores = functional.leaky_relu(scores, SLOPE).masked_fill(~full, OUT)
        weights = torch.softmax(scores, 1) * full
        if masks:
            weights = weights * table(masks[1], places, count * f).view(count, f, heads)
        values = table(near, places, count * f).view(count, f, heads, d // heads)
        found = (weights.unsqueeze(-1) * values).sum(1).view(count, d)
        out = own + found + self.bias
        return dropped(out if self.last else functional.elu(out), masks)


class TemporalMixer(nn.Module):
    """GraphMixer: two MLP-Mixer blocks over the sampled edges, a mean of node features."""

    def __init__(self, shape: TemporalShape, layer: int) -> None:
        super().__init__()
        n, e, d = shape.width(layer), shape.edges, shape.hidden
        sizes = shape.sizes(layer)
        self.fanout = f = sizes.fanout
        self.token, self.token_bias = affine(e + d, d)
        for block in ("first", "second"):
            for part, width in (("places", d), ("channels", d)):
                setattr(self, f"{block}_{part}_norm_scale", row(width))
                setattr(self, f"{block}_{part}_norm_shift", row(width))
            for part, fan_in, inner in (("places", f, sizes.tokens), ("channels", d, 4 * d)):
                for way, ends in (("in", (fan_in, inner)), ("out", (inner, fan_in))):
                    weight, bias = affine(*ends)
                    setattr(self, f"{block}_{part}_{way}", weight)
                    setattr(self, f"{block}_{part}_{way}_bias", bias)
        self.output, self.output_bias = affine(d + n, d)
        # Fixed frequencies d^(-x / (2 sqrt(d))): alpha = beta = sqrt(d) of the paper.
        steps = torch.arange(d, dtype=torch.float64)
        self.register_buffer("frequencies", d ** (-steps / (2.0 * d**0.5)), persistent=False)

    def forward(
        self, rows: Tensor, edges: Tensor, deltas: Tensor, places: Tensor, *masks: Tensor
    ) -> Tensor:
        """Return the rows of the queries, see `TemporalAttention.forward`."""
        count, f = len(rows) - len(deltas), self.fanout
        own, near = rows[:count], rows[count:]
        assert isinstance(self.frequencies, Tensor)
        then = torch.cos(deltas.unsqueeze(1) * self.frequencies)
        tokens = torch.addmm(self.token_bias, torch.cat([edges, then], 1), self.token)
        d = tokens.shape[1]
        full = full_places(places, count, f)
        mixed = table(tokens, places, count * f).view(count, f, d)
        for block in ("first", "second"):
            mixed = self._mixed(mixed, block)
        number = full.sum(1, keepdim=True).clamp(min=1)
        link = (mixed * full.unsqueeze(-1)).sum(1) / number
        mean = table(near, places, count * f).view(count, f, near.shape[1]).sum(1) / number
        out = torch.addmm(self.output_bias, torch.cat([link, own + mean], 1), self.output)
        return dropped(out, masks)

    def _mixed(self, x: Tensor, block: str) -> Tensor:
        """Products over places, then over channels, each around a residual."""
        inner = self._mlp(self._norm(x, f"{block}_places").transpose(1, 2), f"{block}_places")
        x = x + inner.transpose(1, 2)
        return x + self._mlp(self._norm(x, f"{block}_channels"), f"{block}_channels")

    def _norm(self, x: Tensor, name: str) -> Tensor:
        scale, shift = getattr(self, f"{name}_norm_scale"), getattr(self, f"{name}_norm_shift")
        return functional.layer_norm(x, (x.shape[-1],), scale, shift)

    def _mlp(self, x: Tensor, name: str) -> Tensor:
        weights = [getattr(self, f"{name}_{part}") for part in ("in", "in_bias", "out", "out_bias")]
        hidden = functional.gelu(torch.matmul(x, weights[0]) + weights[1])
        return torch.matmul(hidden, weights[2]) + weights[3]
