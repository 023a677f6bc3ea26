"""Metrics on the full graph within bounded memory: layer by layer, some vertices at a time.

Features and topology are read through mapped files, and the rows of every layer go to a scratch
file; pages of all of them are the system's to take back. So a run whose memory is capped can be
evaluated as one that holds everything is: exactly, no neighbour left out.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnnbench import owner
from gnnbench.approaches.out_of_core.evaluating import ANSWERS_AT_ONCE, sources_at_once
from gnnbench.approaches.writing.shape import StackShape
from gnnbench.data.graph import Graph
from gnnbench.data.mapped import forget_mapped_pages
from gnnbench.data.sampling import NeighbourSampler
from gnnbench.data.scattered import read_rows
from gnnbench.metrics import SPLITS
from gnnbench.steps import Phase
from gnnbench_runtime.approaches.mini_batch.sampled import BlockMaker
from gnnbench_runtime.evaluation import right_and_asked
from gnnbench_runtime.models.parameters import Parameters
from gnnbench_runtime.models.stack import Stack
from gnnbench_runtime.models.workspace import Workspace
from gnnbench_runtime.protocol import RankContext
from gnnbench_runtime.reading import array_on_host, on_host


class LayerwiseEvaluator:
    """Accuracy on every split, exact and in bounded memory; of one rank.

    Args:
        context: the rank.
        graph: features and topology, mapped files if they do not fit in memory.
        shape: the model.
        parameters: as they are when `evaluate` is called.
    """

    def __init__(
        self, context: RankContext, graph: Graph, shape: StackShape, parameters: Parameters
    ) -> None:
        self.context, self.graph, self.shape, self.parameters = context, graph, shape, parameters

    def evaluate(self) -> dict[str, float]:
        """Return "train_accuracy" and the like for every split that has vertices."""
        with owner.scratch("layers-", self.context.cache) as folder:
            return self._metrics(self.logits(folder))

    def logits(self, folder: Path) -> Any:
        """Logits of all vertices, [N, C], in a file in a folder."""
        assert self.graph.features is not None
        rows: Any = self.graph.features
        for layer in range(1, self.shape.num_layers + 1):
            rows = self._layer(layer, rows, folder / f"{layer}.bin")
        return rows

    def _layer(self, layer: int, rows: Any, path: Path) -> Any:
        """The output rows of a layer, from those of the one before, in a file of their own."""
        context, n = self.context, self.graph.num_nodes
        kind = torch.empty(0, dtype=context.dtype).numpy().dtype
        out = np.memmap(path, kind, "w+", shape=(n, self.shape.dims[layer]))
        workspace = Workspace(context.device, context.dtype)
        stack = Stack(self.shape, self.parameters, workspace, context.kernels, context.recorder)
        sampler = NeighbourSampler(self.graph.indptr, self.graph.indices, (-1,), 0)
        blocks = BlockMaker(context, self.graph, self.shape)
        for start, stop in self._ranges(rows.shape[1] * kind.itemsize):
            batch = sampler.sample(np.arange(start, stop, dtype=np.int64), 0, 0)
            [pattern] = blocks.patterns(batch, layer)[0]
            ids = torch.from_numpy(batch.input_nodes).to(context.device)
            inputs = read_rows(rows, batch.input_nodes).astype(kind, copy=False)
            made = self._rows(stack, layer, pattern, ids, torch.from_numpy(inputs))
            out[start:stop] = array_on_host(made)
            forget_mapped_pages([rows, out, self.graph.indices])
        return out

    def _rows(self, stack: Stack, layer: int, pattern: Any, ids: Tensor, inputs: Tensor) -> Tensor:
        """Rows of one layer for the destinations of a block."""
        device = self.context.device
        pattern = pattern if device.type == "cpu" else pattern.to(device)
        # One block stands for every layer: only the sizes of this one are read.
        stack.aggregations = [pattern] * self.shape.num_layers
        stack.row_ids, stack.counters = [ids] * (self.shape.num_layers + 1), None
        raw = stack.layer_forward(layer, inputs.to(device), Phase.EVALUATE)
        made = stack.activate(layer, raw, Phase.EVALUATE)[: pattern.rows]
        stack.forget()
        return made

    def _ranges(self, row_bytes: int) -> Iterator[tuple[int, int]]:
        """Ranges of vertices whose source rows are bounded."""
        indptr, most = self.graph.indptr, sources_at_once(row_bytes)
        n, start = self.graph.num_nodes, 0

        def brought(at: int) -> int:
            """Sources of the vertices before `at`: each is one itself, and brings neighbours."""
            return int(indptr[at]) + at

        while start < n:
            stop = bisect_right(range(n + 1), brought(start) + most, key=brought) - 1
            stop = min(max(stop, start + 1), n)
            yield start, stop
            start = stop

    def _metrics(self, logits: NDArray[Any]) -> dict[str, float]:
        graph, found = self.graph, {}
        masks = {name: getattr(graph, f"{name}_mask") for name in sorted(SPLITS)}
        labels: Any = np.asarray(graph.labels)
        for name, mask in masks.items():
            ids = np.empty(0, np.int64) if mask is None else np.flatnonzero(mask)
            counts = torch.zeros(2, dtype=torch.float64)
            for start in range(0, len(ids), ANSWERS_AT_ONCE):
                own = ids[start : start + ANSWERS_AT_ONCE]
                every = torch.ones(len(own), dtype=torch.bool)
                asked = torch.from_numpy(labels[own])
                counts += right_and_asked(torch.from_numpy(logits[own]), asked, every)
            right, total = on_host(counts)
            if total > 0:
                found[f"{name}_accuracy"] = right / total
        return found
