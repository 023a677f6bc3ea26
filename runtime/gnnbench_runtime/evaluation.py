"""Metrics of node classification, from the logits of the rows that each rank owns."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from gnnbench.steps import Phase
from gnnbench_runtime.comm import Comm


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
            rows = self._masks[name]
            counts[place] = right_and_asked(logits[rows], self._labels[rows])
        self._comm.all_reduce(counts, "evaluate/counts", Phase.EVALUATE)
        return {
            f"{name}_accuracy": right / asked
            for name, (right, asked) in zip(names, counts.tolist(), strict=True)
            if asked > 0
        }


def right_and_asked(logits: Tensor, labels: Tensor) -> Tensor:
    """Right answers and questions, float64 [2]: classes, or single labels of a multi-label task."""
    if labels.dtype.is_floating_point:
        right = ((logits > 0) == (labels > 0.5)).sum()
        asked = torch.tensor(labels.numel(), device=labels.device)
    else:
        known = labels >= 0
        right, asked = ((logits.argmax(1) == labels) & known).sum(), known.sum()
    return torch.stack([right, asked]).to(torch.float64)
