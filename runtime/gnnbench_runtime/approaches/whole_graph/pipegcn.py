"""PipeGCN on real ranks: background transfers whose rows are used one epoch later."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from gnnbench import work
from gnnbench.approaches.whole_graph.pipegcn import SMOOTHED, place_work, smooth_work
from gnnbench.approaches.writing.shape import StackShape
from gnnbench.data.halo import RankHalo
from gnnbench.steps import Phase, Work
from gnnbench_runtime.approaches.whole_graph.exchange import HaloExchange
from gnnbench_runtime.approaches.whole_graph.partition import PartitionTrainer, WholeGraph
from gnnbench_runtime.models.data import sizes_of
from gnnbench_runtime.models.performer import Exchange
from gnnbench_runtime.models.workspace import Workspace
from gnnbench_runtime.pending import Pending
from gnnbench_runtime.protocol import RankContext
from gnnbench_runtime.recorder import Span
from gnnbench_runtime.training import Batch


class Channel:
    """One layer in one direction: send and receive buffers, and the transfer in progress.

    Shapes: `leaving_gF` rows sent to others, `arrived_tF` rows received; `average_tF` if smoothed.
    `sent_in` is the epoch of the transfer, -1 before the first, whose received rows are zero.
    """

    def __init__(
        self, given: int, taken: int, width: int, workspace: Workspace, smoothed: bool
    ) -> None:
        def zeros(rows: int) -> Tensor:
            return torch.zeros((rows, width), device=workspace.device, dtype=workspace.dtype)

        self.leaving_gF, self.arrived_tF = zeros(given), zeros(taken)
        self.average_tF = zeros(taken) if smoothed else None
        self.pending: Pending | None = None
        self.sent_in = -1

    def wait(self) -> None:
        """Wait for the transfer, so that the received rows can be used."""
        if self.pending is not None:
            self.pending.wait()
            self.pending = None

    def smooth(self, gamma: float) -> None:
        """Update the average with the received rows."""
        assert self.average_tF is not None
        self.average_tF.lerp_(self.arrived_tF, 1.0 - gamma)


class StaleExchange(HaloExchange):
    """Provide the halo rows that were sent one epoch ago, and send those of this epoch.

    Dropout masks are those of the owner, as in `partition` (the paper's code applies masks after
    receiving), so that staleness is the only difference. With attention the rows are T = H W.
    """

    def __init__(
        self,
        context: RankContext,
        local: RankHalo,
        workspace: Workspace,
        shape: StackShape,
        smoothing: str,
        gamma: float,
    ) -> None:
        super().__init__(context, local, workspace, 1)
        self.epoch, self._gamma = -1, gamma
        boundary, halo = len(local.send), len(local.halo)
        self.channels: dict[tuple[Phase, int], Channel] = {}
        for layer in range(1, shape.num_layers + 1):
            width = shape.exchange_width(layer)
            self.channels[Phase.FORWARD, layer] = Channel(
                boundary, halo, width, workspace, Phase.FORWARD in SMOOTHED[smoothing]
            )
            # Features have no gradient. Rows that the first layer has multiplied by its weights
            # before it sends them do.
            if layer > 1 or shape.orders[0] == "transform_first":
                self.channels[Phase.BACKWARD, layer] = Channel(
                    halo, boundary, width, workspace, Phase.BACKWARD in SMOOTHED[smoothing]
                )

    def forward(self, x_uF: Tensor, layer: int, phase: Phase) -> None:
        n, channel = self._rows, self.channels[Phase.FORWARD, layer]
        channel.wait()
        arrived, smooth = channel.arrived_tF, channel.average_tF is not None
        placed = place_work(*sizes_of(arrived), arrived.element_size(), smooth=smooth)
        with self._step(f"{phase}/{layer}/place", placed, phase, layer):
            if channel.average_tF is not None:
                channel.smooth(self._gamma)
                arrived = channel.average_tF
            x_uF[n:].copy_(arrived)
        # The transfer of the epoch before has ended, so that its buffer may be filled again.
        self.pack(x_uF, layer, phase, into=channel.leaving_gF)
        self._begin(channel, phase, layer, self._recv, self._send)

    def backward(self, grad_uF: Tensor, layer: int) -> None:
        n, phase = self._rows, Phase.BACKWARD
        channel, name = self.channels[phase, layer], f"{phase}/{layer}"
        channel.wait()
        arrived = channel.arrived_tF
        if channel.average_tF is not None:
            smoothed = smooth_work(*sizes_of(arrived), arrived.element_size())
            with self._step(f"{name}/smooth", smoothed, phase, layer):
                channel.smooth(self._gamma)
            arrived = channel.average_tF
        self.unpack(grad_uF, arrived, layer)
        leaving = channel.leaving_gF
        packed = work.gather(*sizes_of(leaving), len(leaving), leaving.element_size(), ids=False)
        with self._step(f"{name}/pack", packed, phase, layer):
            leaving.copy_(grad_uF[n:])
        self._begin(channel, phase, layer, self._send, self._recv)

    def drain(self) -> None:
        """Wait for everything under way."""
        for channel in self.channels.values():
            channel.wait()

    def _begin(
        self, channel: Channel, phase: Phase, layer: int, taken: list[int], given: list[int]
    ) -> None:
        assert channel.pending is None
        channel.sent_in = self.epoch
        channel.pending = self._context.comm.all_to_all_async(
            channel.arrived_tF,
            channel.leaving_gF,
            taken,
            given,
            f"{phase}/{layer}/exchange",
            phase,
            layer=layer,
        )

    def _step(self, name: str, done: Work, phase: Phase, layer: int) -> Span:
        return self._context.recorder.step(name, done, phase=phase, layer=layer)


class LateGraph(WholeGraph):
    """The whole graph, whose boundary rows arrived since the epoch before."""

    def __init__(self, trainer: PipeTrainer, aggregation: Any, x: Tensor) -> None:
        super().__init__(trainer.loader, trainer.local.owned, aggregation, x)
        self.trainer = trainer

    def of_period(self, period: int) -> Iterator[Batch]:
        """Have the exchange serve late rows, and yield the whole graph."""
        trainer = self.trainer
        if trainer.stale is not None:
            trainer.stack.exchange, trainer.stale.epoch = trainer.stale, period
        yield self.batch((self.seed, period))


class PipeTrainer(PartitionTrainer):
    """Full-graph training with halo rows of the previous epoch; evaluation fetches current ones."""

    stale: StaleExchange | None = None
    _fresh: HaloExchange | None = None

    def make_exchange(self) -> Exchange:
        self._fresh = self.fresh_exchange()
        if self.knobs.staleness == 0:
            return self._fresh
        self.context.comm.open_background()
        self.stale = StaleExchange(
            self.context,
            self.local,
            self.workspace,
            self.shape,
            self.knobs.smoothing,
            self.knobs.gamma,
        )
        return self.stale

    def make_batches(self, pattern: Any, x: Tensor) -> WholeGraph:
        return LateGraph(self, pattern, x)

    def whole_logits(self) -> Tensor:
        """Logits with fresh, synchronous boundary rows."""
        self.stack.exchange = self._fresh
        logits = super().whole_logits()
        if self.stale is not None:
            # Late rows are packed elsewhere.
            self.workspace.drop("halo_rows")
        return logits

    def state(self) -> dict[str, Tensor]:
        """As any trainer's, and the rows that are one epoch old."""
        held = super().state()
        if self.stale is None:
            return held
        # A transfer under way would write into the tensors that are kept.
        self.stale.drain()
        for (phase, layer), channel in self.stale.channels.items():
            held[f"{phase}/{layer}/arrived"] = channel.arrived_tF
            if channel.average_tF is not None:
                held[f"{phase}/{layer}/average"] = channel.average_tF
        return held

    def close(self) -> None:
        """Wait for the transfers under way."""
        if self.stale is not None:
            self.stale.drain()
