"""What was predicted of a stream so far: scores gathered from all ranks, metrics by split."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnnbench.approaches.temporal.metrics import link_metrics
from gnnbench.approaches.temporal.structure import StreamStructure
from gnnbench.data.stream import EdgeStream
from gnnbench.steps import Phase
from gnnbench_runtime.protocol import RankContext
from gnnbench_runtime.reading import array_on_host

SPLITS, METRICS = ("val", "test"), ("mrr", "ap", "auc")


class Predictions:
    """Metrics of the predicted events.

    Args:
        context: the rank.
        data: the stream.
        structure: of the run.
    """

    def __init__(self, context: RankContext, data: EdgeStream, structure: StreamStructure) -> None:
        self.context, self.data, self.structure = context, data, structure
        # Events and sums of metrics over them, of the events predicted so far, by split.
        self.sums = torch.zeros((len(SPLITS), 1 + len(METRICS)), dtype=torch.float64)
        self.latest: dict[str, float] = {}
        # Made once: a transport may keep the tensors of a collective for a while after it.
        most = structure.gathered_pairs * (1 + context.world_size)
        self._room = torch.zeros(most, device=context.device, dtype=context.dtype)

    def gathered(
        self, first: int, stop: int, rows: list[Tensor]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """The scores of events first..stop-1 on every rank, and where each event's begin.

        Args:
            rows: this rank's scores, in order.
        """
        context, structure = self.context, self.structure
        shares = structure.pairs(first, stop)
        most = max(int(each[-1]) for each in shares)
        need = most * (1 + context.world_size)
        room = self._room if need <= len(self._room) else self._room.new_empty(need)
        own, every = room[:most].zero_(), room[:most]
        torch.cat(rows, out=own[: sum(map(len, rows))])
        if context.world_size > 1:
            every = room[most:need]
            context.comm.all_gather(every, own, "evaluate/scores", Phase.EVALUATE)
        counts = np.concatenate([np.diff(each) for each in shares])
        indptr = np.zeros(len(counts) + 1, np.int64)
        np.cumsum(counts, out=indptr[1:])
        scores, padded, at = np.empty(indptr[-1]), array_on_host(every), 0
        for rank, each in enumerate(shares):
            # Written where they belong: all scores are there once, in float64.
            scores[at : at + each[-1]] = padded[rank * most :][: each[-1]]
            at += int(each[-1])
        return scores, indptr

    def measure(self, first: int, scores: NDArray[np.float64], indptr: NDArray[np.int64]) -> None:
        """Take in the scores of the events from `first` on, for the period and by split."""
        self.latest = link_metrics(scores, indptr)
        count = len(indptr) - 1
        for place, split in enumerate(SPLITS):
            part = self.data.part(split)
            begin = min(max(part.start - first, 0), count)
            end = min(max(part.stop - first, 0), count)
            own = indptr[begin : end + 1]
            measured = link_metrics(scores[own[0] : own[-1]], own - own[0]) if end > begin else {}
            if len(measured) == len(METRICS):
                values = [1.0, *(measured[name] for name in METRICS)]
                sums = [(end - begin) * value for value in values]
                self.sums[place] += torch.tensor(sums, dtype=torch.float64)

    def so_far(self) -> dict[str, float]:
        """Means over the events of each split."""
        return {
            f"{split}_{name}": float(total / sums[0])
            for split, sums in zip(SPLITS, self.sums.tolist(), strict=True)
            for name, total in zip(METRICS, sums[1:], strict=True)
            if sums[0]
        }
