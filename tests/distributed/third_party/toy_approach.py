"""A third party's approach: few steps, one collective, and anything a test wants to see go wrong.

It is installed for child processes as a distribution with an entry point (see conftest), so these
tests go the way that a third party's approach goes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gnnbench.approaches.base import Approach
from gnnbench.plan import Kind, Lane, Phase, Plan
from gnnbench.strict import bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyKnobs:
    """megabytes: memory held during an epoch; pause_s: how long a step takes."""

    megabytes: int = field(default=0, metadata=bounds(0))
    pause_s: float = field(default=0.0, metadata=bounds(0))
    unsupported: bool = False


class Toy(Approach):
    name = "toy"
    title = "toy"
    paper = "none"
    summary = "adds ones over ranks"
    exact = True
    runtime = "toy_approach:ToyTrainer"
    knobs_type = ToyKnobs

    def structure(self, graph: Any, run: Any, cache: Any = None) -> int:
        return int(graph.num_nodes)

    def plan(self, graph: Any, run: Any, structure: Any, layout: Any) -> Plan:
        return Plan(
            approach="toy",
            world_size=run.ranks,
            iterations=(((),) * run.ranks,),
            schedule=(0,) * run.training.epochs,
            iterations_per_epoch=1,
        )


class ToyTrainer:
    def __init__(self, context: Any, graph: Any, structure: int) -> None:
        from gnnbench.errors import Unsupported

        self.context, self.structure = context, structure
        self.knobs = APPROACH.knobs(context.run)
        if self.knobs.unsupported:
            raise Unsupported("toy cannot do this here")

    def train_epoch(self, epoch: int) -> float:
        import torch

        recorder, comm = self.context.recorder, self.context.comm
        with recorder.step("work", Kind.HOST, "host", Lane.HOST, Phase.FORWARD, bytes=1, flops=2):
            held = np.ones(self.knobs.megabytes * 2**20, np.uint8)
            time.sleep(self.knobs.pause_s)
            del held
        total = torch.ones(self.structure, dtype=torch.float64, device=self.context.device)
        comm.all_reduce(total, "sum", Phase.SYNC)
        return float(total.sum()) / (epoch + 1)

    def evaluate(self) -> dict[str, float]:
        import torch

        total = torch.ones(1, device=self.context.device)
        self.context.comm.all_reduce(total, "count", Phase.FORWARD)
        return {"train": 1.0, "val": 0.5, "test": float(total) / 4}

    def close(self) -> None:
        pass


APPROACH = Toy()
