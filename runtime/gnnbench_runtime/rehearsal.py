"""The rehearsal: one period on a miniature of the dataset, before anything is measured.

It loads and compiles every kernel that the run will use, and lets libraries allocate what they keep
(threads, workspaces, compiled code). The memory baseline then contains what any dataset would need,
and the first period of the run takes as long as the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gnnbench.approaches.base import Approach
from gnnbench.data.dataset import Dataset
from gnnbench_runtime.protocol import RankContext

_NODES, _NODES_PER_RANK = 256, 16


def rehearse(
    trainer_type: Callable[..., Any], approach: Approach, context: RankContext, data: Dataset
) -> None:
    """Train one period and evaluate on a miniature, all ranks together; keep nothing."""
    run = context.run
    small: Any = data.miniature(max(_NODES, _NODES_PER_RANK * run.ranks))
    if approach.cannot_run(run, small) is not None:
        return
    structure = approach.structure(small, run, context.cache)
    trainer = trainer_type(context, small, structure)
    trainer.train_period(0)
    trainer.evaluate()
    trainer.close()


def scratch_context(context: RankContext, folder: Path) -> RankContext:
    """Return the context with a cache of the rank's own, so that nothing false is ever reused."""
    cache = folder / f"rehearsal-rank{context.rank}"
    cache.mkdir()
    return dataclasses.replace(context, cache=cache)
