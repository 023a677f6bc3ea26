"""What ranks do in tests of temporal approaches; runs inside pools."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench import owner
from gnnbench.approaches.names import APPROACHES
from gnnbench_runtime.conformance.perform import make_trainer


def predicted(rank: int, world_size: int, run: Any, data: Any) -> NDArray[np.float64]:
    """Every score that the ranks gathered in a run, in order, unrounded."""
    found: list[NDArray[np.float64]] = []
    with owner.scratch("gnnbench-conform-") as folder:
        trainer, _, _ = make_trainer(rank, world_size, run, data, folder)
        measure = trainer.predictions.measure

        def kept(first: int, scores: NDArray[np.float64], indptr: NDArray[np.int64]) -> None:
            found.append(scores.copy())
            measure(first, scores, indptr)

        trainer.predictions.measure = kept
        for period in range(APPROACHES.get(run.approach).num_periods(run)):
            trainer.train_period(period)
        trainer.close()
    return np.concatenate(found)


def hit_rates(rank: int, world_size: int, run: Any, data: Any) -> dict[str, float]:
    """Hit rates that a rank reports after the last period."""
    with owner.scratch("gnnbench-conform-") as folder:
        trainer, _, _ = make_trainer(rank, world_size, run, data, folder)
        for period in range(APPROACHES.get(run.approach).num_periods(run)):
            trainer.train_period(period)
            found = trainer.period_metrics()
        trainer.close()
    return {name: value for name, value in found.items() if name.endswith("_hit_rate")}
