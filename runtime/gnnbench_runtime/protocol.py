"""What a trainer is and what it is given: the seam between the worker and the approaches.

An approach names its trainer as "module:Class" (`Approach.runtime`). The worker builds one per rank
and drives it: `warm_up` if it has one, `train_epoch` for each epoch, `evaluate`, `close`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from gnnbench.data.graph import Graph
from gnnbench.spec import RunSpec
from gnnbench_runtime.comm import Comm
from gnnbench_runtime.recorder import Recorder


@dataclass(frozen=True, slots=True, kw_only=True)
class RankContext:
    """Everything a rank has before it sees data.

    `kernels` is the backend for `device` (see `gnnbench_runtime.kernels`); `cache` is a folder that
    the ranks of this machine share and that outlives the run (partitions and the like).
    """

    run: RunSpec
    rank: int
    world_size: int
    device: torch.device
    comm: Comm
    recorder: Recorder
    kernels: Any
    cache: Path


class Trainer(Protocol):
    """One rank's share of a training run.

    A trainer may also have `warm_up() -> None`, called once before the first epoch with recording
    off: compile kernels there, change no state, and call the same collectives on every rank.
    """

    def __init__(self, context: RankContext, graph: Graph, structure: object) -> None:
        """Allocate, and move data to the device. The graph's arrays may be memory-mapped."""

    def train_epoch(self, epoch: int) -> float:
        """Train one epoch and return its global loss; steps go through recorder and comm.

        Many-iteration approaches call `context.recorder.at(iteration)` as each iteration begins.
        """
        ...

    def evaluate(self) -> dict[str, float]:
        """Return the accuracy by "train", "val", "test" on the full graph, equal on every rank."""
        ...

    def close(self) -> None:
        """Stop threads and release memory."""
