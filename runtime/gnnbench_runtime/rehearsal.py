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
from gnnbench.models.names import MODELS
from gnnbench.spec import RunSpec
from gnnbench_runtime.protocol import RankContext

_NODES, _NODES_PER_RANK = 256, 16
_WIDEST = 2048
"""Hidden width beyond which a narrower model is rehearsed: kernels are the same for all widths, and
an ultra-wide model would take the memory that the run's cap is to limit."""


def rehearse(
    trainer_type: Callable[..., Any], approach: Approach, context: RankContext, data: Dataset
) -> None:
    """Train one period and evaluate on a miniature, all ranks together; keep nothing."""
    run = context.run
    small: Any = data.miniature(max(_NODES, _NODES_PER_RANK * run.ranks))
    if approach.cannot_run(run, small) is not None:
        return
    run = narrowed(approach, run, small)
    context = dataclasses.replace(context, run=run)
    structure = approach.structure(small, run, context.cache)
    trainer = trainer_type(context, small, structure)
    trainer.train_period(0)
    trainer.evaluate()
    trainer.close()


def narrowed(approach: Approach, run: RunSpec, data: Any) -> RunSpec:
    """The run with its hidden width halved while it is too wide and the approach can still run."""
    while run.model.hidden > _WIDEST and run.model.hidden % 2 == 0:
        model = dataclasses.replace(run.model, hidden=run.model.hidden // 2)
        half = dataclasses.replace(run, model=model)
        if MODELS.get(model.kind).problems(model) or approach.problems(half):
            break
        if approach.cannot_run(half, data) is not None:
            break
        run = half
    return run


def scratch_context(context: RankContext, folder: Path) -> RankContext:
    """Return the context with a cache of the rank's own, so that nothing false is ever reused."""
    cache = folder / f"rehearsal-rank{context.rank}"
    cache.mkdir()
    return dataclasses.replace(context, cache=cache)
