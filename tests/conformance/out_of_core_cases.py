"""What a rank does in tests of `out-of-core`; runs in this process, which needs no other rank."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from gnnbench.approaches.out_of_core.embeddings import APPROACH as IN_MEMORY
from gnnbench.spec import RunSpec
from gnnbench_runtime.approaches.out_of_core.links import LinkTrainer, Prepared
from gnnbench_runtime.approaches.out_of_core.tables import MemoryTable
from gnnbench_runtime.conformance.perform import make_trainer


def learnt(run: RunSpec, data: Any) -> Any:
    """What a run learns."""
    with tempfile.TemporaryDirectory() as folder:
        trainer, _, _ = make_trainer(0, 1, run, data, Path(folder))
        try:
            for period in range(run.training.epochs):
                trainer.train_period(period)
            return trainer.learnt().numpy().copy()
        finally:
            trainer.close()


def replayed(run: RunSpec, data: Any) -> tuple[Any, Any]:
    """What an epoch from the disk learns, and the same batches in memory."""
    with tempfile.TemporaryDirectory() as folder:
        trainer, _, _ = make_trainer(0, 1, run, data, Path(folder))
        structure = IN_MEMORY.structure(data, run)
        table = MemoryTable(trainer.context, data, structure, run.model.hidden)
        other = LinkTrainer(trainer.context, data, structure, table)
        for batch in trainer._batches(0):
            trainer._train(batch)
            rows = torch.from_numpy(batch.drawn.ids)
            fields = {name: getattr(batch, name) for name in Prepared.__slots__}
            fields |= {"rows": rows, "states": rows + data.num_entities, "x": table.table[rows]}
            other._train(Prepared(**fields))
        found = trainer.learnt().numpy().copy(), other.learnt().numpy().copy()
        trainer.close()
    return found
