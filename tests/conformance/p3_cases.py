"""What ranks do in tests of `p3`; runs inside pools of ranks."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from gnnbench.spec import RunSpec
from gnnbench_runtime.conformance.perform import make_trainer


def first_gradient(rank: int, world_size: int, run: RunSpec, data: Any) -> tuple[float, Any]:
    """Loss and gradient of this rank's parameters, summed over ranks, of the first batch."""
    with tempfile.TemporaryDirectory() as folder:
        trainer, _, _ = make_trainer(rank, world_size, run, data, Path(folder))
        batch = next(iter(trainer.batches.of_period(0)))
        trainer.net.gradients(batch)
        trainer.all_reduce()
        found = float(trainer.parameters.loss), trainer.parameters.gradient.clone().numpy()
        trainer.close()
    return found
