"""Metrics of node classification, from the logits of the rows that each rank owns."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from gnnbench.steps import Phase
from gnnbench_runtime.comm import Comm
from gnnbench_runtime.reading import on_host


class NodeAccuracy:
    """Share of right answers on every split, over the rows of all ranks.

    Args:
        logits: runs the model on the whole graph and returns the own rows' logits.
        labels: of the own rows.
        masks: of the own rows, by split.
        comm: ranks that own every row once among them.
    """

    def __init__(
        self,
        logits: Callable[[], Tensor],
        labels: Tensor,
        masks: Mapping[str, Tensor],
        comm: Comm,
    ) -> None:
        self._logits, self._labels, self._masks, self._comm = logits, labels, masks, comm

    def evaluate(self) -> dict[str, float]:
        """Return "train_accuracy" and the like for every split that has rows."""
        logits, names = self._logits(), sorted(self._masks)
        counts = torch.zeros((len(names), 2), dtype=torch.float64, device=logits.device)
        for place, name in enumerate(names):
            counts[place] = right_and_asked(logits, self._labels, self._masks[name])
        self._comm.all_reduce(counts, "evaluate/counts", Phase.EVALUATE)
        return {
            f"{name}_accuracy": right / asked
            for name, (right, asked) in zip(names, on_host(counts), strict=True)
            if asked > 0
        }


def right_and_asked(logits: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
    """Right answers and questions among some rows, float64 [2], without waiting for the device.

    Args:
        logits: [n, C].
        labels: class numbers [n], or one float per class [n, C] of a multi-label task, each of
            which is a question.
        rows: bool [n].
    """
    if labels.dtype.is_floating_point:
        asked = rows.unsqueeze(1).expand_as(labels)
        right = ((logits > 0) == (labels > 0.5)) & asked
    else:
        asked = rows & (labels >= 0)
        right = (logits.argmax(1) == labels) & asked
    return torch.stack([right.sum(), asked.sum()]).to(torch.float64)
