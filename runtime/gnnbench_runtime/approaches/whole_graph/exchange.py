"""Exchanges of halo rows: rows come from their owners, gradients return to them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gnnbench import work
from gnnbench.data.halo import RankHalo
from gnnbench.steps import Lane, Phase, Work
from gnnbench_runtime.models.data import size_of, sizes_of
from gnnbench_runtime.models.workspace import Workspace
from gnnbench_runtime.pending import Pending
from gnnbench_runtime.protocol import RankContext
from gnnbench_runtime.recorder import Span


class Staging:
    """Pinned host memory through which exchanged rows pass, and a Comm for host tensors."""

    def __init__(self, context: RankContext) -> None:
        self.comm = context.comm.on_host()
        self._recorder, self._device = context.recorder, context.device
        self._flat: dict[str, Tensor] = {}

    def buffer(self, name: str, like: Tensor) -> Tensor:
        """Return host memory of a tensor's shape, uninitialised."""
        flat = self._flat.get(name)
        if flat is None or flat.numel() < like.numel():
            pinned = self._device.type == "cuda"
            flat = torch.empty(like.numel(), dtype=like.dtype, pin_memory=pinned)
            self._flat[name] = flat
        return flat[: like.numel()].view(like.shape)

    def to_host(
        self, tensor: Tensor, name: str, where: str, phase: Phase, layer: int = -1
    ) -> Tensor:
        """Copy to host memory and wait, so that the host may read it."""
        host, copied = self.buffer(name, tensor), work.to_host(size_of(tensor))
        with self._copying(f"{where}/to_host", copied, phase, layer):
            host.copy_(tensor, non_blocking=True)
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()
        return host

    def to_device(
        self, host: Tensor, tensor: Tensor, where: str, phase: Phase, layer: int = -1
    ) -> None:
        """Copy back; the device waits for the copy, the host does not."""
        with self._copying(f"{where}/to_device", work.to_device(size_of(tensor)), phase, layer):
            tensor.copy_(host, non_blocking=True)

    def _copying(self, name: str, done: Work, phase: Phase, layer: int) -> Span:
        return self._recorder.step(name, done, phase=phase, layer=layer, lane=Lane.COPY)


class HaloExchange:
    """Fetch halo rows from their owners; return their gradients, which the owners add to their own.

    With `staging`, rows are copied to host memory, exchanged there, and copied back.
    """

    def __init__(
        self,
        context: RankContext,
        local: RankHalo,
        workspace: Workspace,
        widest: int,
        staging: Staging | None = None,
    ) -> None:
        self._context, self._workspace, self._widest = context, workspace, widest
        self._staging = staging
        self._rows = local.num_owned
        self._ids = torch.from_numpy(np.ascontiguousarray(local.send_rows)).to(context.device)
        self._send = np.diff(local.send_offsets).tolist()
        self._recv = np.diff(local.halo_offsets).tolist()

    def _buffer(self, width: int) -> Tensor:
        rows = len(self._ids)
        flat = self._workspace.get("halo_rows", rows, self._widest)
        return flat.view(-1)[: rows * width].view(rows, width)

    def forward(self, x_uF: Tensor, layer: int, phase: Phase) -> None:
        packed = self.pack(x_uF, layer, phase)
        self._transfer(x_uF[self._rows :], packed, self._recv, self._send, layer, phase)

    def backward(self, grad_uF: Tensor, layer: int) -> None:
        returned = self._buffer(grad_uF.shape[1])
        leaving = grad_uF[self._rows :]
        self._transfer(returned, leaving, self._send, self._recv, layer, Phase.BACKWARD)
        self.end_backward(grad_uF, layer)

    def begin_forward(self, x_uF: Tensor, layer: int, phase: Phase) -> Pending:
        packed, name = self.pack(x_uF, layer, phase), f"{phase}/{layer}/exchange"
        arriving, comm = x_uF[self._rows :], self._context.comm
        return comm.all_to_all_async(
            arriving, packed, self._recv, self._send, name, phase, layer=layer
        )

    def begin_backward(self, grad_uF: Tensor, layer: int) -> Pending:
        phase, returned = Phase.BACKWARD, self._buffer(grad_uF.shape[1])
        leaving, name = grad_uF[self._rows :], f"{phase}/{layer}/exchange"
        return self._context.comm.all_to_all_async(
            returned, leaving, self._send, self._recv, name, phase, layer=layer
        )

    def end_backward(self, grad_uF: Tensor, layer: int) -> None:
        self.unpack(grad_uF, self._buffer(grad_uF.shape[1]), layer)

    def unpack(self, grad_uF: Tensor, returned: Tensor, layer: int) -> None:
        """Add returned gradients to those of the own rows."""
        done = work.scatter_add(*sizes_of(returned), self._rows, returned.element_size())
        name, phase = f"backward/{layer}/unpack", Phase.BACKWARD
        with self._context.recorder.step(name, done, phase=phase, layer=layer):
            own = grad_uF[: self._rows]
            self._context.kernels.scatter_add_rows(own, self._ids, returned)

    def pack(self, x_uF: Tensor, layer: int, phase: Phase, into: Tensor | None = None) -> Tensor:
        """Gather the own rows that others need."""
        packed = self._buffer(x_uF.shape[1]) if into is None else into
        done = work.gather(*sizes_of(packed), self._rows, packed.element_size())
        with self._context.recorder.step(f"{phase}/{layer}/pack", done, phase=phase, layer=layer):
            self._context.kernels.gather_rows(x_uF[: self._rows], self._ids, packed)
        return packed

    def _transfer(
        self,
        arriving: Tensor,
        leaving: Tensor,
        recv: list[int],
        send: list[int],
        layer: int,
        phase: Phase,
    ) -> None:
        name = f"{phase}/{layer}/exchange"
        if self._staging is None:
            comm = self._context.comm
            comm.all_to_all(arriving, leaving, recv, send, name, phase, layer=layer)
            return
        staging, where = self._staging, f"{phase}/{layer}"
        given = staging.to_host(leaving, "given", where, phase, layer)
        taken = staging.buffer("taken", arriving)
        staging.comm.all_to_all(taken, given, recv, send, name, phase, layer=layer)
        staging.to_device(taken, arriving, where, phase, layer)
