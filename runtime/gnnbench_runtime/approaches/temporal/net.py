"""The net: a temporal model on a tape, with binary cross-entropy over true and false edges."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gnnbench import work
from gnnbench.approaches.temporal.modules import decoder_work, layer_work, updater_work
from gnnbench.data import keys
from gnnbench.models.temporal import TemporalShape
from gnnbench.steps import Phase, Work
from gnnbench_runtime.approaches.temporal.source import StreamBatch
from gnnbench_runtime.models.modules import Tape, adopt
from gnnbench_runtime.models.temporal import temporal_modules, temporal_parameters
from gnnbench_runtime.protocol import RankContext

_DROPOUT = 19


class TemporalNet:
    """Scores of edges, and gradients of their loss: the mean over true plus that over false ones.

    Args:
        context: the rank.
        shape: the model.
    """

    def __init__(self, context: RankContext, shape: TemporalShape) -> None:
        self.context, self.shape = context, shape
        self.modules = temporal_modules(shape)
        seed = context.run.training.seed
        self.parameters = temporal_parameters(self.modules, seed, context.device, context.dtype)
        adopt(self.modules, self.parameters)
        self.tape = Tape(context.recorder)
        self.ends: Tensor | None = None
        """New memory of source and destination of the latest batch's events, [b, 2 d]."""

    def start_over(self) -> None:
        """Give the parameters their first values again."""
        held, seed = self.parameters, self.context.run.training.seed
        shapes = temporal_modules(self.shape)
        first = temporal_parameters(shapes, seed, held.flat.device, held.flat.dtype)
        held.flat.copy_(first.flat)

    def scores(self, batch: StreamBatch) -> Tensor:
        """Scores of the pairs, event by event, the true edge first; nothing is kept."""
        with torch.no_grad():
            return self._forward(batch, training=False)

    def gradients(self, batch: StreamBatch, negatives: int, events: int) -> None:
        """Fill gradient and loss with this rank's share.

        Args:
            batch: the rank's share.
            negatives: per event.
            events: of all ranks' shares.
        """
        self.parameters.flat_grad.zero_()
        scores = self._forward(batch, training=True)
        done = work.binary_cross_entropy(scores.numel(), scores.element_size())
        with self.context.recorder.step("loss", done, phase=Phase.FORWARD), torch.no_grad():
            weights = scores.new_full((1, 1 + negatives), 1.0 / (events * negatives))
            weights[:, 0] = 1.0 / events
            true = scores.new_zeros((1, 1 + negatives))
            true[:, 0] = 1.0
            # softplus(x) - y x, whose gradient is sigmoid(x) - y
            table = scores.view(len(batch.events), 1 + negatives)
            losses = functional.softplus(table) - true * table
            self.parameters.loss.copy_((losses * weights).sum())
            gradient = ((torch.sigmoid(table) - true) * weights).view(-1)
        self.tape.backward({scores: gradient})

    def _forward(self, batch: StreamBatch, *, training: bool) -> Tensor:
        top, rows = self.shape.num_layers, batch.rows
        if batch.memory:
            rows = self._updated(batch, training=training)
        for layer in range(1, top + 1):
            hop = top - layer
            name = f"{self.shape.layer}_{layer}"
            count = len(batch.deltas[hop])
            ways = [
                layer_work(self.shape, layer, len(rows) - count, count, backward=way)
                for way in (False, True)
            ]
            masks = self._masks(batch, layer) if training else ()
            inputs = rows, batch.edges[hop], batch.deltas[hop], batch.places[hop], *masks
            rows = self._run(name, self.modules[name], inputs, ways, layer, training)
        pairs = len(rows) - len(batch.events)
        ways = [decoder_work(self.shape, len(rows), pairs, backward=way) for way in (False, True)]
        decoder = _WithCandidates(self.modules["decoder"], batch.candidates)
        return self._run("decoder", decoder, (rows,), ways, -1, training)

    def _masks(self, batch: StreamBatch, layer: int) -> tuple[Tensor, ...]:
        """Masks of a layer's dropout, keyed by the rows: of its output, of its edges' weights."""
        shape, context = self.shape, self.context
        if not shape.dropout:
            return ()
        assert batch.row_keys is not None
        hop, found = shape.num_layers - layer, []
        now, then = batch.sizes[hop : hop + 2]
        for number, (name, ids, width) in enumerate(
            (
                ("rows", batch.row_keys[:now], shape.hidden),
                ("edges", batch.row_keys[now:then], shape.heads),
            )
        ):
            full = f"forward/{shape.layer}_{layer}/mask_{name}"
            done = work.dropout(len(ids), width, shape.element_bytes)
            with context.recorder.step(full, done, phase=Phase.FORWARD, layer=layer):
                ones = torch.ones((len(ids), width), device=context.device, dtype=context.dtype)
                mask = torch.empty_like(ones)
                key = keys.fold(_DROPOUT, layer, number)
                context.kernels.dropout(ones, mask, shape.dropout, key, ids)
            found.append(mask)
        return tuple(found)

    def _updated(self, batch: StreamBatch, *, training: bool) -> Tensor:
        """Apply stored messages; return the input rows, and keep those of the events' ends."""
        distinct, count, d = len(batch.memory[0]), len(batch.rows), self.shape.hidden
        ways = [updater_work(self.shape, distinct, count, backward=way) for way in (False, True)]
        inputs = *batch.memory, batch.rows
        rows = self._run("updater", self.modules["updater"], inputs, ways, -1, training)
        events = len(batch.events)
        pairs = rows.detach()[: 2 * events, :d].view(2, events, d)
        self.ends = pairs.transpose(0, 1).reshape(events, 2 * d)
        return rows

    def _run(
        self,
        name: str,
        module: nn.Module,
        inputs: tuple[Tensor, ...],
        ways: list[Work],
        layer: int,
        training: bool,
    ) -> Tensor:
        """Run a module forward: on the tape, or once and for all."""
        if training:
            made = self.tape.run(
                name, module, *inputs, forward=ways[0], backward=ways[1], layer=layer
            )
            assert isinstance(made, Tensor)
            return made
        recorder = self.context.recorder
        with recorder.step(f"forward/{name}", ways[0], phase=Phase.FORWARD, layer=layer):
            found: Tensor = module(*inputs)
        return found


class _WithCandidates(nn.Module):
    """The decoder, and which candidates belong to which event."""

    def __init__(self, decoder: nn.Module, candidates: int | tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.decoder, self.candidates = decoder, candidates

    def forward(self, rows: Tensor) -> Tensor:
        found: Tensor = self.decoder(rows, self.candidates)
        return found
