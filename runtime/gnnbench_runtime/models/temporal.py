"""Modules of temporal models: attention over sampled neighbours, the decoder of a link.

Sums over neighbours have one order, so that every run gives the same bits. Tensors are cut by
`split`, whose way back is one concatenation; that of a slice fills a tensor of zeros for each part.

Source: temporal reference section 6.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gnnbench.models.temporal import TemporalShape
from gnnbench_runtime.models.attention_function import attention
from gnnbench_runtime.models.modules import shapes_of
from gnnbench_runtime.models.parameters import Parameters
from gnnbench_runtime.models.temporal_functions import attended, gathered, updated
from gnnbench_runtime.models.temporal_layers import (
    TemporalGat,
    TemporalMean,
    TemporalMixer,
    affine,
    dropped,
    row,
)


class TemporalAttention(nn.Module):
    """A layer of attention over temporal neighbours (see `gnnbench.models.temporal`)."""

    def __init__(self, shape: TemporalShape, layer: int) -> None:
        super().__init__()
        n, e, d = shape.width(layer), shape.edges, shape.hidden
        self.heads, self.fanout, self.hidden = shape.heads, shape.fanouts[layer - 1], d
        self.query, self.query_bias = affine(n + d, d)
        self.key, self.key_bias = affine(n + e + d, d)
        self.value, self.value_bias = affine(n + e + d, d)
        self.output, self.output_bias = affine(d + n, d)
        self.time, self.time_bias = row(d), row(d)
        self.norm_scale, self.norm_shift = row(d), row(d)

    def forward(
        self, rows: Tensor, edges: Tensor, deltas: Tensor, places: Tensor, *masks: Tensor
    ) -> Tensor:
        """Return the rows of the queries.

        Args:
            rows: of the R queries, then of their S neighbours, [R + S, n].
            edges: features of the sampled edges, [S, e].
            deltas: time of the query less that of the edge, [S].
            places: of the edges in a table [R, fan-out], int64 [S].
            masks: of dropout, scaled: of the output [R, d] and of attention weights [S, heads];
                none without dropout.
        """
        d = self.hidden
        made = self._on_host if rows.device.type == "cpu" else self._on_tables
        out = dropped(made(rows, edges, deltas, places, masks), masks)
        return functional.layer_norm(functional.relu(out), (d,), self.norm_scale, self.norm_shift)

    def _on_host(
        self,
        rows: Tensor,
        edges: Tensor,
        deltas: Tensor,
        places: Tensor,
        masks: tuple[Tensor, ...],
    ) -> Tensor:
        """The output's product by compiled loops."""
        mask = masks[-1] if masks else rows.new_empty((0, self.heads))
        parameters = (
            self.query,
            self.query_bias,
            self.key,
            self.key_bias,
            self.value,
            self.value_bias,
            self.output,
            self.output_bias,
            self.time,
            self.time_bias,
        )
        return attention(rows, edges, deltas, places, self.fanout, self.heads, mask, parameters)

    def _on_tables(
        self,
        rows: Tensor,
        edges: Tensor,
        deltas: Tensor,
        places: Tensor,
        masks: tuple[Tensor, ...],
    ) -> Tensor:
        """The output's product by torch's operations."""
        count, heads, d = len(rows) - len(deltas), self.heads, self.hidden
        own, near = rows.split([count, len(deltas)])
        n, head = own.shape[1], d // heads
        of_rows, of_times = self.query.split([n, d])
        # A query is encoded at age 0.
        shift = torch.addmv(self.query_bias, of_times.t(), torch.cos(self.time_bias))
        query = torch.addmm(shift, own, of_rows).view(count, heads, head)
        # Scores are linear in the rows of edges, and so are sums of values: the products with the
        # matrices of keys and values are made per query and not per edge.
        keys = self.key.view(-1, heads, head).permute(1, 2, 0)
        towards = torch.bmm(query.transpose(0, 1), keys)
        biases = (query * self.key_bias.view(heads, head)).sum(-1)
        encoding = self.time, self.time_bias
        mask = masks[-1] if masks else rows.new_empty((0, heads))
        sums, total = attended(
            near, edges, deltas, encoding, towards, biases, places, self.fanout, mask
        )
        values = self.value.view(-1, heads, head).transpose(0, 1)
        found = torch.bmm(sums, values).transpose(0, 1)
        found = found + total.unsqueeze(-1) * self.value_bias.view(heads, head)
        found = found.reshape(count, d)
        return torch.addmm(self.output_bias, torch.cat([found, own], 1), self.output)


class MemoryUpdater(nn.Module):
    """A GRU that applies stored messages: `GRU([memory, other, edge, phi(age)], memory)`.

    A message holds the memory of its node as it was after the message's event, which is the memory
    of the node itself, and that of the event's other end.
    """

    def __init__(self, shape: TemporalShape) -> None:
        super().__init__()
        d = shape.hidden
        self.input, self.input_bias = affine(shape.message, 3 * d)
        self.state, self.state_bias = affine(d, 3 * d)
        self.time, self.time_bias = row(d), row(d)

    def forward(
        self, held: Tensor, edges: Tensor, ages: Tensor, has: Tensor, places: Tensor, rows: Tensor
    ) -> Tensor:
        """Return the input rows of the first layer, [R, d + n]: memory, then features.

        Args:
            held: memory of the U distinct nodes and of the other ends of their messages, [U, 2 d].
            edges: features of the messages' events, [U, e].
            ages: of the messages, [U].
            has: 1 where a node has a message, else 0, [U].
            places: of the rows' nodes among the distinct ones, int64 [R].
            rows: features of the rows' nodes, [R, n].
        """
        weights = self.input, self.input_bias, self.state, self.state_bias
        applied = updated(held, edges, ages, has, weights, (self.time, self.time_bias))
        asked = gathered(applied, places)
        return torch.cat([asked, rows], 1) if rows.shape[1] else asked


class LinkDecoder(nn.Module):
    """Scores of a true edge and its false ones: `W_o ReLU(W_s h_src + W_d h_dst)`."""

    def __init__(self, shape: TemporalShape) -> None:
        super().__init__()
        d = shape.hidden
        self.source, self.source_bias = affine(d, d)
        self.destination, self.destination_bias = affine(d, d)
        self.output, self.output_bias = affine(d, 1)

    def forward(self, rows: Tensor, candidates: int | tuple[Tensor, Tensor]) -> Tensor:
        """Return scores of the pairs, event by event, the true edge first; [b + candidates].

        Args:
            rows: of sources, destinations, and candidates, [2 b + candidates, d].
            candidates: per event, where all have as many; or the event of each pair and the place
                of its other end among destinations and candidates, int64 [b + candidates].
        """
        if isinstance(candidates, int):
            count = len(rows) // (2 + candidates)
        else:
            events, places = candidates
            count = len(rows) - len(events)
        sources, ends = rows.split([count, len(rows) - count])
        source = torch.addmm(self.source_bias, sources, self.source)
        others = torch.addmm(self.destination_bias, ends, self.destination)
        d = others.shape[1]
        if isinstance(candidates, int):
            # A view has a gradient without sums whose order could vary.
            true, false = others.split([count, count * candidates])
            pairs = torch.cat([true.unsqueeze(1), false.view(count, candidates, d)], 1)
            pairs = (pairs + source.unsqueeze(1)).view(count * (1 + candidates), d)
        else:
            pairs = others[places] + source[events]
        hidden = functional.relu(pairs)
        return torch.addmm(self.output_bias, hidden, self.output).view(-1)


LAYERS: dict[str, type[nn.Module]] = {
    "attention": TemporalAttention,
    "mean": TemporalMean,
    "gat": TemporalGat,
    "mixer": TemporalMixer,
}


def temporal_modules(shape: TemporalShape) -> dict[str, nn.Module]:
    """The modules of a model: the memory's updater, layers from the input on, the decoder."""
    updater: dict[str, nn.Module] = {"updater": MemoryUpdater(shape)} if shape.memory else {}
    layers: dict[str, nn.Module] = {
        f"{shape.layer}_{layer}": LAYERS[shape.layer](shape, layer)
        for layer in range(1, shape.num_layers + 1)
    }
    return {**updater, **layers, "decoder": LinkDecoder(shape)}


def temporal_parameters(
    modules: dict[str, nn.Module], seed: int, device: torch.device, dtype: torch.dtype
) -> Parameters:
    """Their parameters: matrices drawn by counter, frequencies of time from 1 to 1e-9, biases 0."""
    made = Parameters(shapes_of(modules), seed, device, dtype)
    for name, value in made.value.items():
        own = name.rpartition(".")[2]
        if own == "time":
            count = len(value)
            steps = torch.arange(count, dtype=torch.float64) / max(count - 1, 1)
            value.copy_((10.0 ** (-9.0 * steps)).to(dtype))
        elif own.endswith("norm_scale"):
            value.fill_(1.0)
    return made
