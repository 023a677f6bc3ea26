"""Features in a memory-mapped file on a real rank: fault the pages of a batch, gather, drop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnnbench import owner, work
from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.out_of_core.mmap import MmapStructure, drop, seed_source
from gnnbench.approaches.out_of_core.pages import PageCache
from gnnbench.approaches.writing.shape import StackShape, stack_shape
from gnnbench.data.graph import Graph
from gnnbench.steps import Ints, Lane, Phase
from gnnbench_runtime.approaches.mini_batch.sampled import BlockMaker, SampledBatches
from gnnbench_runtime.approaches.out_of_core.layerwise import LayerwiseEvaluator
from gnnbench_runtime.approaches.out_of_core.nodes import BufferedFeatures
from gnnbench_runtime.approaches.out_of_core.row_files import write_rows
from gnnbench_runtime.mapped import MappedFile
from gnnbench_runtime.models.stack import Stack
from gnnbench_runtime.models.workspace import Workspace
from gnnbench_runtime.protocol import RankContext
from gnnbench_runtime.training import (
    Batch,
    StackNet,
    StepTrainer,
    make_parameters,
    optimizer_of,
)


def map_rows(context: RankContext, graph: Graph, structure: MmapStructure) -> MappedFile:
    """Write the features to the disk and map them; the file leaves with the process."""
    rows, knobs = structure.rows, APPROACHES.get(context.run.approach).knobs(context.run)
    with owner.scratch("mmap-", context.cache) as folder:
        path, size = folder / "rows.bin", rows.row_bytes
        file = write_rows(
            context, graph, path, row_bytes=size, stride=size, file_bytes=rows.file_bytes
        )
        file.close()
        return MappedFile(path, context.recorder, knobs.disk)


class MappedFeatures(BufferedFeatures):
    """Input rows out of the mapped file, by id.

    Args:
        context: the rank.
        structure: of the file and the page cache.
        file: the rows.
        width: elements of a row.
        lane: of local work.
    """

    def __init__(
        self,
        context: RankContext,
        structure: MmapStructure,
        file: MappedFile,
        width: int,
        lane: Lane,
    ) -> None:
        kind = torch.empty(0, dtype=context.dtype).numpy().dtype
        table = file.array(kind, (structure.rows.num_rows, width))
        super().__init__(context, torch.from_numpy(table), lane)
        self.file, self.paged = file, structure.rows
        self.pages = PageCache(structure.capacity, structure.rows.num_pages)

    def fetch(self, ids: NDArray[np.int64], out: Tensor) -> None:
        """Put the rows of `ids` into `out`, in order, and drop the oldest pages."""
        faults = self.pages.touch(self.paged.pages(ids))
        self.file.touch("fetch/pages", faults.missed, phase=Phase.FETCH)
        super().fetch(ids, out)
        with self._step("fetch/drop", drop(len(faults.dropped)), self._lane):
            self.file.drop(faults.dropped)

    def place(self, ids: Ints) -> Ints:
        """Rows lie by id."""
        return ids

    def restore(self, last_use: Ints) -> None:
        """Take up a page cache: read the pages that it has."""
        self.pages.restore(last_use)
        self.file.touch("restore/pages", np.flatnonzero(last_use >= 0), phase=Phase.LOAD)


class MappedBatches(SampledBatches):
    """The batches of `sampled`, one at a time."""

    def __init__(
        self, context: RankContext, graph: Graph, structure: MmapStructure, shape: StackShape
    ) -> None:
        run = context.run
        self.context, self.shape, self.seed = context, shape, run.training.seed
        self.source = seed_source(graph, run, threads=run.training.threads_per_rank)
        self.blocks = BlockMaker(context, graph, shape)
        self.lane = Lane.COMPUTE if context.device.type == "cpu" else Lane.HOST
        self.labels = np.array(graph.labels)
        self.workspace = Workspace(context.device, context.dtype)
        file = map_rows(context, graph, structure)
        self.mapped = MappedFeatures(context, structure, file, shape.dims[0], self.lane)
        self.features: Any = self.mapped

    def of_period(self, period: int) -> Iterator[Batch]:
        """Yield every batch of an epoch, and count its page faults anew."""
        self.mapped.file.major_faults = 0
        for step in range(self.source.steps):
            self.context.recorder.at(step)
            with self._step("sample/draw") as span:
                dealt = self.source.draw(period, step, 1, 0)
                span.did(work.draw_neighbours(*dealt.batch.sizes))
            yield self.build(dealt, period, step, 0)

    def close(self) -> None:
        """Let go of the file."""
        self.mapped.file.close()


class MmapTrainer(StepTrainer):
    """Trains as `sampled` does, with features in a mapped file."""

    batches: MappedBatches

    def __init__(self, context: RankContext, data: Graph, structure: MmapStructure) -> None:
        self.context = context
        shape = stack_shape(data, context.run, "aggregate_first")
        parameters = make_parameters(context, shape)
        workspace = Workspace(context.device, context.dtype)
        self.net = StackNet(Stack(shape, parameters, workspace, context.kernels, context.recorder))
        self.batches = MappedBatches(context, data, structure, shape)
        self.optimizer = optimizer_of(context, parameters)
        self.evaluator = LayerwiseEvaluator(context, data, shape, parameters)

    def period_metrics(self) -> dict[str, float]:
        """Page faults of the last period as the kernel counted them.

        Those of the page model are the period's bytes read, by the size of a page.
        """
        return {"train_page_faults": float(self.batches.mapped.file.major_faults)}

    def state(self) -> dict[str, Tensor]:
        """Parameters, the optimizer's state and the page cache."""
        uses = torch.from_numpy(self.batches.mapped.pages.last_use)
        return {**super().state(), "page_uses": uses}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from a state."""
        super().restore(state)
        self.batches.mapped.restore(state["page_uses"].numpy())
