"""Perform a run on this rank and keep all that conformance asks about; runs inside pools."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from gnnbench import owner
from gnnbench.approaches.names import APPROACHES
from gnnbench.ledger import Row
from gnnbench.spec import RunSpec
from gnnbench_runtime.comm import Comm
from gnnbench_runtime.kernels import backend
from gnnbench_runtime.protocol import RankContext
from gnnbench_runtime.recorder import Recorder


@dataclass(slots=True, kw_only=True)
class Performance:
    """What one rank did.

    Args:
        losses: global mean loss of each period.
        learnt: all parameters after the last period, in the order of the model, float64.
        metrics: of the evaluation after the last period.
        moved: bytes that this rank moved in each period, by "kind/phase".
        rows: its ledger.
        peak_bytes, evaluation_peak_bytes: most bytes of living tensors at once while training, and
            in the evaluation.
    """

    losses: list[float]
    learnt: NDArray[np.float64]
    metrics: dict[str, float]
    moved: list[dict[str, int]]
    rows: list[Row]
    peak_bytes: int
    evaluation_peak_bytes: int


_HOST = torch.device("cpu")


class KeptRows:
    """A ledger writer that keeps rows in memory."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def append(self, rows: Any) -> None:
        self.rows += list(rows)

    def close(self) -> None:
        """Nothing is open."""


class TensorMeter(TorchDispatchMode):
    """Counts the bytes of tensors that operations made and that still live."""

    def __init__(self) -> None:
        super().__init__()
        self.live_bytes = self.peak_bytes = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        for item in tree_iter(made):
            if isinstance(item, torch.Tensor):
                self._see(item.untyped_storage())
        return made

    def _see(self, storage: Any) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        weakref.finalize(storage, self._drop, size)
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def restart(self) -> int:
        """Return the peak until now; the next one begins with what lives."""
        peak, self.peak_bytes = self.peak_bytes, self.live_bytes
        return peak

    def _drop(self, size: int) -> None:
        self.live_bytes -= size


def make_trainer(
    rank: int,
    world_size: int,
    run: RunSpec,
    data: Any,
    cache: Path,
    structure: Any = None,
    *,
    device: torch.device = _HOST,
    kernels: Any = None,
) -> tuple[Any, Recorder, KeptRows]:
    """Build the trainer of a run on this rank."""
    kept = KeptRows()
    recorder = Recorder(device, writer=kept)  # type: ignore[arg-type]
    context = RankContext(
        run=run,
        rank=rank,
        world_size=world_size,
        device=device,
        comm=Comm(recorder, rank=rank, world_size=world_size, device=device),
        recorder=recorder,
        kernels=kernels or backend(device, 1),
        cache=cache,
    )
    approach = APPROACHES.get(run.approach)
    module, _, name = approach.runtime.partition(":")
    if structure is None:
        structure = approach.structure(data, run)
    return getattr(import_module(module), name)(context, data, structure), recorder, kept


def perform(rank: int, world_size: int, run: RunSpec, data: Any) -> Performance:
    """Train all periods, then evaluate."""
    losses, moved = [], []
    with owner.scratch("gnnbench-conform-") as folder, TensorMeter() as meter:
        trainer, recorder, kept = make_trainer(rank, world_size, run, data, folder)
        for period in range(_periods(run)):
            recorder.period_begin(period)
            losses.append(trainer.train_period(period))
            moved.append(recorder.period_end())
        peak = meter.restart()
        with recorder.evaluating():
            metrics = trainer.evaluate()
        evaluation_peak = meter.peak_bytes
        learnt = trainer.learnt().to(torch.float64).numpy().copy()
        trainer.close()
        recorder.close()
    return Performance(
        losses=losses,
        learnt=learnt,
        metrics=metrics,
        moved=moved,
        rows=kept.rows,
        peak_bytes=peak,
        evaluation_peak_bytes=evaluation_peak,
    )


def resumed(rank: int, world_size: int, run: RunSpec, data: Any) -> NDArray[np.float64]:
    """Parameters of a run that stops after its first period and is resumed by a new trainer."""
    with owner.scratch("gnnbench-conform-") as folder:
        trainer, _, _ = make_trainer(rank, world_size, run, data, folder)
        trainer.train_period(0)
        kept = {name: tensor.clone() for name, tensor in trainer.state().items()}
        trainer.close()
        trainer, _, _ = make_trainer(rank, world_size, run, data, folder)
        trainer.restore(kept)
        for period in range(1, _periods(run)):
            trainer.train_period(period)
        learnt = trainer.learnt().to(torch.float64).numpy().copy()
        trainer.close()
    return learnt


def outputs(
    rank: int, world_size: int, run: RunSpec, data: Any, periods: int
) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Vertex ids and model outputs of the batches of each period, nothing being trained."""
    with owner.scratch("gnnbench-conform-") as folder:
        trainer, _, _ = make_trainer(rank, world_size, run, data, folder)
        found = []
        for period in range(periods):
            ids, values = trainer.outputs(period)
            found.append((ids.numpy().copy(), values.to(torch.float64).numpy().copy()))
        trainer.close()
    return found


def _periods(run: RunSpec) -> int:
    return APPROACHES.get(run.approach).num_periods(run)
