"""A third party's approach: few steps, one collective, and anything a test wants to see go wrong.

It is installed for child processes as a distribution with an entry point (see conftest), so these
tests go the way that a third party's approach goes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gnnbench import work
from gnnbench.approaches.base import Approach, example
from gnnbench.approaches.card import Promise
from gnnbench.iterations import Iteration
from gnnbench.plan import Plan, repeated
from gnnbench.steps import After, Buffer, Lane, Phase, Space, Step
from gnnbench.strict import bounds

ITEMS = 3
"""Items that the host works on in each epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyKnobs:
    """megabytes: memory held during an epoch; pause_s: how long a step takes; lies: by which its
    trainer differs from its plan: "" (nothing), "bytes", "steps" or "epochs"."""

    megabytes: int = field(default=0, metadata=bounds(0))
    pause_s: float = field(default=0.0, metadata=bounds(0))
    unsupported: bool = False
    lies: str = ""


class Toy(Approach):
    name = "toy"
    title = "toy"
    paper = "none"
    summary = "adds ones over ranks"
    promise = Promise(kind="own", text="It adds a one for every vertex and rank.")
    runtime = "toy_approach:ToyTrainer"
    knobs_type = ToyKnobs

    def examples(self) -> list[Any]:
        return [example("toy", 1), example("toy", 3, knobs={"megabytes": 1})]

    def structure(self, data: Any, run: Any, cache: Any = None) -> int:
        return int(data.num_nodes)

    def plan(self, data: Any, run: Any, structure: Any, layout: Any) -> Plan:
        group = tuple(range(run.ranks))
        held = Buffer("held", self.knobs(run).megabytes * 2**20, Space.HOST)
        steps = [
            Step(
                name="work",
                work=work.host("toy_items", rows=ITEMS, bytes=ITEMS),
                lane=Lane.HOST,
                phase=Phase.FORWARD,
                allocates=(held,),
                frees=("held",),
            )
        ]
        if run.ranks > 1:
            summed = work.all_reduce(structure, 8, run.ranks)
            steps.append(
                Step(
                    name="sum",
                    work=summed,
                    lane=Lane.COMM,
                    phase=Phase.SYNC,
                    group=group,
                    after=(After("work"),),
                    allocates=(Buffer("ones", 8 * structure),),
                )
            )
        return Plan(
            approach="toy",
            world_size=run.ranks,
            **repeated([Iteration.of_ranks([steps] * run.ranks)], run.training.epochs),
        )


class ToyTrainer:
    def __init__(self, context: Any, data: Any, structure: int) -> None:
        from gnnbench.errors import Unsupported

        self.context, self.structure = context, structure
        self.knobs = APPROACH.knobs(context.run)
        if self.knobs.unsupported:
            raise Unsupported("toy cannot do this here")

    def warm_up(self) -> None:
        pass

    def train_period(self, period: int) -> float:
        import torch

        recorder, comm, lies = self.context.recorder, self.context.comm, self.knobs.lies
        items = ITEMS + (lies == "bytes")
        done = work.host("toy_items", rows=items, bytes=items)
        with recorder.step("work", done, phase=Phase.FORWARD, lane=Lane.HOST):
            held = np.ones(self.knobs.megabytes * 2**20, np.uint8)
            time.sleep(self.knobs.pause_s)
            del held
        if lies == "steps":
            with recorder.step("more work", done, phase=Phase.FORWARD, lane=Lane.HOST):
                pass
        total = torch.ones(self.structure, dtype=torch.float64, device=self.context.device)
        comm.all_reduce(total, "sum", Phase.SYNC)
        return float(total.sum()) / (period + 1)

    def evaluate(self) -> dict[str, float]:
        import torch

        total = torch.ones(1, device=self.context.device)
        self.context.comm.all_reduce(total, "count", Phase.FORWARD)
        return {"train_accuracy": 1.0, "val_accuracy": 0.5, "test_accuracy": float(total) / 4}

    def period_metrics(self) -> dict[str, float]:
        return {}

    def is_finite(self) -> bool:
        """There is nothing that could not be."""
        return True

    def learnt(self) -> Any:
        import torch

        return torch.zeros(0)

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        pass

    def close(self) -> None:
        pass


APPROACH = Toy()
