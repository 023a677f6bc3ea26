"""Ginex on a real rank: draw a superbatch, inspect it, read what the cache lacks, train."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnnbench import owner, work
from gnnbench.approaches.mini_batch.drawing import drawing_of
from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.out_of_core.belady import BeladyStructure, inspection
from gnnbench.approaches.out_of_core.caching import AlignedRows
from gnnbench.approaches.writing.shape import StackShape, stack_shape
from gnnbench.data import sampling
from gnnbench.data.caching import Inspection, Turn, inspect, superbatches
from gnnbench.data.dealing import undivided
from gnnbench.data.graph import Graph
from gnnbench.steps import Ints, Lane, Phase, Work
from gnnbench_runtime.approaches.mini_batch.sampled import (
    BlockMaker,
    SampledBatches,
)
from gnnbench_runtime.approaches.out_of_core.layerwise import LayerwiseEvaluator
from gnnbench_runtime.approaches.out_of_core.row_files import write_rows
from gnnbench_runtime.disk import BlockFile, Disk, aligned_empty
from gnnbench_runtime.models.data import size_of
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


def row_file(context: RankContext, graph: Graph, rows: AlignedRows) -> BlockFile:
    """Write the features to the disk, a row per stride; the file leaves with the process."""
    with owner.scratch("belady-", context.cache) as folder:
        return write_rows(
            context,
            graph,
            folder / "rows.bin",
            row_bytes=rows.row_bytes,
            stride=rows.stride,
            file_bytes=rows.file_bytes,
        )


class CachedRows:
    """Input rows out of a cache, and out of the file what it lacks.

    Args:
        context: the rank.
        structure: sizes of rows and cache.
        file: the rows on the disk.
        width: elements of a row.
        lane: of local work.
    """

    def __init__(
        self,
        context: RankContext,
        structure: BeladyStructure,
        file: BlockFile,
        width: int,
        lane: Lane,
    ) -> None:
        self._context, self._rows, self._file = context, structure.rows, file
        self._width, self._lane = width, lane
        knobs = APPROACHES.get(context.run.approach).knobs(context.run)
        self._disk = Disk(context.recorder, knobs.disk)
        self._kind = torch.empty(0, dtype=context.dtype).numpy().dtype
        self._cache = torch.empty((structure.capacity, width), dtype=context.dtype)
        self._slot_of = np.full(structure.rows.num_rows, -1, np.int64)
        self._free, self._num_free = np.empty(structure.capacity, np.int64), 0
        self._turns: Iterator[Turn] = iter(())
        self._on_host = context.device.type == "cpu"

    def open(self, made: Inspection) -> None:
        """Fill the cache for a superbatch."""
        # Nothing of the superbatch before is kept: the inspection chose this one's first rows.
        self._slot_of[:] = -1
        self._num_free = len(self._free)
        self._free[:] = np.arange(self._num_free)
        staged, places = self._read("load/fill", made.initial, Phase.LOAD)
        with self._step("load/cache", self._moved(len(places), len(staged)), Phase.LOAD):
            self._insert(made.initial, staged, places)
        self._turns = iter(made.turns)

    def fetch(self, ids: NDArray[np.int64], out: Tensor) -> None:
        """Put the rows of `ids` into `out`, in order, and change the cache."""
        turn = next(self._turns)
        staged, places = self._read("fetch/misses", turn.misses, Phase.FETCH)
        into = out if self._on_host else torch.empty(out.shape, dtype=out.dtype)
        sources = len(self._cache) + len(staged)
        with self._step("fetch/gather", self._moved(len(ids), sources), Phase.FETCH):
            slots = self._slot_of[ids]
            hit = slots >= 0
            into[torch.from_numpy(hit)] = self._cache[torch.from_numpy(slots[hit])]
            missed = places[np.searchsorted(turn.misses, ids[~hit])]
            into[torch.from_numpy(~hit)] = staged[torch.from_numpy(missed)]
        done = self._moved(len(turn.inserted), len(staged))
        with self._step("fetch/cache", done, Phase.FETCH):
            # Slots are freed before others are taken: a full cache has none to spare.
            more = self._num_free + len(turn.evicted)
            self._free[self._num_free : more] = self._slot_of[turn.evicted]
            self._num_free = more
            self._slot_of[turn.evicted] = -1
            own = places[np.searchsorted(turn.misses, turn.inserted)]
            self._insert(turn.inserted, staged, own)
        if not self._on_host:
            copied = work.to_device(size_of(out))
            with self._step("fetch/rows", copied, Phase.FETCH, lane=Lane.COPY):
                out.copy_(into)

    def _read(self, name: str, ids: Ints, phase: Phase) -> tuple[Tensor, Ints]:
        """Read rows; return what the blocks hold, a row per stride, and where the rows are."""
        spans, places = self._rows.spans(ids)
        sizes = spans[:, 1] - spans[:, 0]
        ends = np.cumsum(sizes)
        staging = aligned_empty((int(sizes.sum()),), np.uint8)
        starts = (ends - sizes).tolist()
        pieces = [
            (staging[start:stop], offset)
            for start, stop, offset in zip(starts, ends.tolist(), spans[:, 0].tolist(), strict=True)
        ]
        self._disk.read(name, self._file, pieces, phase=phase)
        rows = staging.reshape(-1, self._rows.stride)[:, : self._rows.row_bytes]
        # Rows at a stride that is no multiple of an element cannot be viewed as elements in place.
        held = np.ascontiguousarray(rows) if self._rows.stride % self._kind.itemsize else rows
        return torch.from_numpy(held.view(self._kind)), places

    def _insert(self, ids: Ints, staged: Tensor, places: Ints) -> None:
        self._num_free -= len(ids)
        slots = self._free[self._num_free : self._num_free + len(ids)].copy()
        self._slot_of[ids] = slots
        self._cache[torch.from_numpy(slots)] = staged[torch.from_numpy(places)]

    def _moved(self, rows: int, sources: int) -> Work:
        return work.gather(rows, self._width, sources, self._kind.itemsize)

    def _step(self, name: str, done: Work, phase: Phase, *, lane: Lane | None = None) -> Any:
        return self._context.recorder.step(name, done, phase=phase, lane=lane or self._lane)

    def close(self) -> None:
        """Give the file's space back."""
        self._file.close()


class SuperBatches(SampledBatches):
    """The batches of `sampled`, drawn a superbatch at a time."""

    def __init__(
        self, context: RankContext, graph: Graph, structure: BeladyStructure, shape: StackShape
    ) -> None:
        run = context.run
        self.context, self.shape, self.structure = context, shape, structure
        self.steps, self.num_nodes = structure.num_steps, graph.num_nodes
        self.size, self.seed = run.batch.size, run.training.seed
        self.sampler = sampling.NeighbourSampler(
            graph.indptr,
            graph.indices,
            run.batch.fanouts(run.model.layers),
            self.seed,
            threads=run.training.threads_per_rank,
        )
        self.train_nodes = graph.train_nodes()
        self.blocks = BlockMaker(context, graph, shape)
        self.lane = Lane.COMPUTE if context.device.type == "cpu" else Lane.HOST
        self.labels = np.array(graph.labels)
        self.workspace = Workspace(context.device, context.dtype)
        file = row_file(context, graph, structure.rows)
        self.cache = CachedRows(context, structure, file, shape.dims[0], self.lane)
        self.features: Any = self.cache

    def of_period(self, period: int) -> Iterator[Batch]:
        """Yield every batch of an epoch, each training vertex once."""
        order = sampling.epoch_seeds(self.train_nodes, self.seed, period)
        for numbers in superbatches(self.steps, self.structure.superbatch):
            self.context.recorder.at(numbers[0])
            seeds = [sampling.batch_seeds(order, self.size, step) for step in numbers]
            with self._step("sample/superbatch") as span:
                drawn = [
                    self.sampler.sample(own, period, step)
                    for own, step in zip(seeds, numbers, strict=True)
                ]
                span.did(drawing_of(drawn))
            uses = [batch.input_nodes for batch in drawn]
            with self.context.recorder.step(
                "sample/inspect",
                inspection(sum(map(len, uses))),
                phase=Phase.SAMPLE,
                lane=self.lane,
            ):
                made = inspect(uses, self.structure.capacity, self.num_nodes)
            self.cache.open(made)
            for step, batch in zip(numbers, drawn, strict=True):
                self.context.recorder.at(step)
                yield self.build(undivided(batch, len(self.train_nodes)), period, step, 0)

    def close(self) -> None:
        self.cache.close()


class BeladyTrainer(StepTrainer):
    """Trains as `sampled` does, with features on the disk."""

    def __init__(self, context: RankContext, data: Graph, structure: BeladyStructure) -> None:
        self.context = context
        shape = stack_shape(data, context.run, "aggregate_first")
        parameters = make_parameters(context, shape)
        workspace = Workspace(context.device, context.dtype)
        self.net = StackNet(Stack(shape, parameters, workspace, context.kernels, context.recorder))
        self.batches = SuperBatches(context, data, structure, shape)
        self.optimizer = optimizer_of(context, parameters)
        self.evaluator = LayerwiseEvaluator(context, data, shape, parameters)
