"""The interface between the worker and the trainers of approaches.

An approach names its trainer as "module:Class" (`Approach.runtime`). The worker builds one per rank
and calls `warm_up`, `train_period` for each period, `evaluate`, `close`. Most trainers are composed
of parts, see `training.StepTrainer`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from gnnbench.spec import RunSpec
from gnnbench_runtime.comm import Comm
from gnnbench_runtime.recorder import Recorder


@dataclass(frozen=True, slots=True, kw_only=True)
class RankContext:
    """What a rank has before it sees data.

    Args:
        run: specification of the run.
        rank, world_size: number of this rank, and number of ranks.
        device: of this rank.
        comm: collectives among all ranks.
        recorder: of steps.
        kernels: the backend for `device` (see `gnnbench_runtime.kernels`).
        cache: folder that the ranks of this machine share and that outlives the run, for partitions
            and other structure.
    """

    run: RunSpec
    rank: int
    world_size: int
    device: torch.device
    comm: Comm
    recorder: Recorder
    kernels: Any
    cache: Path

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of the run."""
        return torch.float64 if self.run.training.precision == "float64" else torch.float32


class Trainer(Protocol):
    """One rank's share of a training run."""

    def __init__(self, context: RankContext, data: Any, structure: Any) -> None:
        """Allocate, and move data to the device. Arrays of the data may be memory-mapped."""

    def warm_up(self) -> None:
        """Compile kernels, before the first period and unrecorded.

        Changes no state, and calls the same collectives on every rank.
        """

    def train_period(self, period: int) -> float:
        """Train one period and return its global mean loss; steps go through recorder and comm.

        Trainers of several iterations call `context.recorder.at(iteration)` as each one begins.
        """
        ...

    def period_metrics(self) -> dict[str, float]:
        """Return metrics that training the last period produced, equal on every rank.

        Streams are the example: their edges are predicted before they are learnt. Otherwise empty.
        """
        ...

    def is_finite(self) -> bool:
        """Whether the parameters that this rank holds in memory are finite; no collective."""
        ...

    def learnt(self) -> Tensor:
        """Return all parameters as one vector, in the order of the model's `parameters`.

        Where ranks hold shards, they are gathered: all ranks call it together.
        """
        ...

    def outputs(self, period: int) -> tuple[Tensor, Tensor]:
        """Return (vertex ids, model outputs) of this rank's batches of a period; train nothing.

        Conformance uses it to test promises. All ranks call it together.
        """
        ...

    def evaluate(self) -> dict[str, float]:
        """Return metrics by name, such as "test_accuracy"; equal on every rank."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Return the tensors that the next period depends on: what a checkpoint must keep."""
        ...

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` returned, on the same number of ranks."""

    def close(self) -> None:
        """Stop threads and release memory."""
