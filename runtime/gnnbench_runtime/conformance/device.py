"""A device that the host cannot read: mistakes of the GPU path, found on any machine.

Trainers run a period with their tensors on torch's `meta` device, which has shapes and types but no
values, and with torch's fake process group, which checks collectives and moves nothing. Four
mistakes that a GPU would punish become errors here:

- a tensor left on the host while the others are on the device (`OneDevice`);
- a value that the host reads unawares (meta tensors have none; see `reading.on_host`);
- a wrong type or shape of an output or a block;
- splits of an all-to-all that do not add up to the buffer.

What it cannot find: wrong values (the kernels are tested against numba's on the host), races
between streams, and what CUDA itself refuses.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from gnnbench import owner
from gnnbench.spec import RunSpec
from gnnbench_runtime.conformance.perform import make_trainer
from gnnbench_runtime.kernels.torch_ops import TorchKernels

DEVICE = torch.device("meta")
_COPIES = ("aten.copy_", "aten._to_copy", "aten.set_")


class DeviceKernels(TorchKernels):
    """The kernels of a GPU, but for the sparse product, which meta tensors do not have."""

    def __init__(self) -> None:
        super().__init__("meta")

    def _multiply(self, matrix: Tensor, x_SF: Tensor, out_RF: Tensor, accumulate: bool) -> None:
        """Hold the operands against each other as cuSPARSE would."""
        rows, sources = matrix.shape
        if out_RF.shape != (rows, x_SF.shape[1]) or x_SF.shape[0] != sources:
            raise ValueError(
                f"sparse product of {tuple(matrix.shape)} and {tuple(x_SF.shape)} into "
                f"{tuple(out_RF.shape)}"
            )
        kinds = {matrix.dtype, x_SF.dtype, out_RF.dtype}
        if len(kinds) > 1:
            raise TypeError(f"sparse product of mixed types {sorted(map(str, kinds))}")
        out_RF.add_(0.0)


class OneDevice(TorchDispatchMode):
    """Refuses operations on tensors of both host and device, copies excepted."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        found = {
            item.device.type
            for item in tree_iter((args, kwargs))
            if isinstance(item, Tensor) and not (item.dim() == 0 and item.device.type == "cpu")
        }
        if len(found) > 1 and not str(function).startswith(_COPIES):
            raise RuntimeError(f"{function} is given tensors of host and device")
        return function(*args, **(kwargs or {}))


@contextmanager
def fake_ranks(rank: int, world_size: int) -> Iterator[None]:
    """A process group in which this process is one of many, whose collectives move nothing."""
    if world_size == 1:
        yield
        return
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world_size)
    try:
        yield
    finally:
        dist.destroy_process_group()


def perform_off_the_host(run: RunSpec, data: Any, rank: int) -> list[Any]:
    """Train a period and evaluate as one rank, on a device without values; return its ledger."""
    with (
        owner.scratch("gnnbench-conform-") as folder,
        fake_ranks(rank, run.ranks),
        OneDevice(),
    ):
        trainer, recorder, kept = make_trainer(
            rank, run.ranks, run, data, folder, device=DEVICE, kernels=DeviceKernels()
        )
        try:
            recorder.period_begin(0)
            trainer.train_period(0)
            recorder.period_end()
            with recorder.evaluating():
                trainer.evaluate()
        finally:
            trainer.close()
            recorder.close()
    return kept.rows
