"""PipeGCN on real ranks: transfers in the background, consumed one epoch later."""

from __future__ import annotations

import torch
from torch import Tensor

from gnnbench.approaches.whole_graph.pipegcn import PLACE_PASSES, SMOOTH_PASSES, SMOOTHED
from gnnbench.approaches.writing.stack import StackShape
from gnnbench.data.halo import RankHalo
from gnnbench.plan import Kind, Lane, Phase
from gnnbench_runtime.approaches.whole_graph.partition import HaloExchange, PartitionTrainer
from gnnbench_runtime.comm import Pending
from gnnbench_runtime.models.stack import Exchange
from gnnbench_runtime.models.workspace import Workspace
from gnnbench_runtime.protocol import RankContext


class Channel:
    """One layer in one direction: both ends of its transfer, and the one transfer under way.

    Shapes: `leaving_gF` rows given to others, `arrived_tF` rows taken; `average_tF` if smoothed.
    `sent_in` is the epoch of the transfer, -1 before the first: its arrival is then zero.
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
        """Make the arrival usable; nothing is under way afterwards."""
        if self.pending is not None:
            self.pending.wait()
            self.pending = None

    def smooth(self, gamma: float) -> None:
        """Fold the arrival into the average."""
        assert self.average_tF is not None
        self.average_tF.lerp_(self.arrived_tF, 1.0 - gamma)


class StaleExchange(HaloExchange):
    """Serve the boundary rows that were sent one epoch ago, and send this epoch's.

    Dropout masks are the owner's, as in `partition` (the paper's code masks after receiving), so
    that staleness is all that differs. With attention the rows are transformed ones, T = H W.
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
            if layer > 1 or shape.orders[0] == "transform_first":
                self.channels[Phase.BACKWARD, layer] = Channel(
                    halo, boundary, width, workspace, Phase.BACKWARD in SMOOTHED[smoothing]
                )

    def forward(self, x_uF: Tensor, layer: int, phase: Phase) -> None:
        context, n, name = self._context, self._rows, f"{phase}/{layer}"
        channel = self.channels[Phase.FORWARD, layer]
        channel.wait()
        if channel.average_tF is None:
            with self._moving(f"{name}/place", phase, layer, channel.arrived_tF):
                x_uF[n:].copy_(channel.arrived_tF)
        else:
            with self._averaging(f"{name}/place", phase, layer, channel.arrived_tF, PLACE_PASSES):
                channel.smooth(self._gamma)
                x_uF[n:].copy_(channel.average_tF)
        with self._step(f"{name}/pack", Kind.GATHER, "gather", phase, layer, channel.leaving_gF):
            context.kernels.gather_rows(x_uF[:n], self._ids, channel.leaving_gF)
        self._begin(channel, phase, layer, self._recv, self._send)

    def backward(self, grad_uF: Tensor, layer: int) -> None:
        context, n, phase = self._context, self._rows, Phase.BACKWARD
        channel, name = self.channels[phase, layer], f"{phase}/{layer}"
        channel.wait()
        arrived = channel.arrived_tF
        if channel.average_tF is not None:
            with self._averaging(f"{name}/smooth", phase, layer, arrived, SMOOTH_PASSES):
                channel.smooth(self._gamma)
            arrived = channel.average_tF
        with self._step(f"{name}/unpack", Kind.SCATTER, "scatter_add", phase, layer, arrived):
            context.kernels.scatter_add_rows(grad_uF[:n], self._ids, arrived)
        with self._moving(f"{name}/pack", phase, layer, channel.leaving_gF):
            channel.leaving_gF.copy_(grad_uF[n:])
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
            channel.arrived_tF, channel.leaving_gF, taken, given,
            f"{phase}/{layer}/exchange", phase, layer=layer,
        )  # fmt: skip

    def _moving(self, name: str, phase: Phase, layer: int, rows: Tensor):
        return self._context.recorder.step(
            name, Kind.GATHER, "gather", lane=Lane.COMPUTE, phase=phase, layer=layer,
            bytes=2 * rows.numel() * rows.element_size(),
        )  # fmt: skip

    def _averaging(self, name: str, phase: Phase, layer: int, rows: Tensor, passes: int):
        return self._context.recorder.step(
            name, Kind.ELEMENTWISE, "smooth", lane=Lane.COMPUTE, phase=phase, layer=layer,
            bytes=passes * rows.numel() * rows.element_size(), flops=rows.numel(),
        )  # fmt: skip


class PipeTrainer(PartitionTrainer):
    """Full-graph training whose boundary rows are one epoch late; evaluation fetches fresh ones."""

    stale: StaleExchange | None = None
    _fresh: HaloExchange | None = None

    def _exchange(self, local: RankHalo) -> Exchange:
        knobs = self.context.run.knobs
        self._fresh = self._fresh_exchange(local)
        if int(knobs["staleness"]) == 0:
            return self._fresh
        self.context.comm.open_background()
        self.stale = StaleExchange(
            self.context,
            local,
            self.workspace,
            self.shape,
            str(knobs["smoothing"]),
            float(knobs["gamma"]),
        )
        return self.stale

    def gradients(self, counters: tuple[int, ...]) -> Tensor:
        """As `partition`, with what arrived since the epoch before."""
        if self.stale is not None:
            self.stack.exchange, self.stale.epoch = self.stale, counters[-1]
        return super().gradients(counters)

    def evaluate(self) -> dict[str, float]:
        """Accuracy with fresh, synchronous boundary rows."""
        self.stack.exchange = self._fresh
        return super().evaluate()

    def close(self) -> None:
        if self.stale is not None:
            self.stale.drain()
