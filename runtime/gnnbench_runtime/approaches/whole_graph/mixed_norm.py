"""LayerNorm of one layer's rows, chunk by chunk.

Legend: n rows of a chunk, H width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gnnbench import work
from gnnbench.steps import Phase
from gnnbench_runtime.approaches.whole_graph.mixed_rank import MixedRank
from gnnbench_runtime.models.data import sizes_of
from gnnbench_runtime.models.stack import EPSILON


class ChunkNorm:
    """Normalises a layer's rows into `out`, and takes their gradient into `grad`.

    Args:
        rank: the dense rank.
        layer: whose rows they are.
        raw: the rows before normalisation.
        above: the gradient of the rows after it.
        at: where each chunk's rows are.
    """

    def __init__(
        self, rank: MixedRank, layer: int, raw: Tensor, above: Tensor, at: Sequence[slice]
    ) -> None:
        self._rank, self._layer, self._raw, self._above, self._at = rank, layer, raw, above, at
        self.out, self.grad = torch.empty_like(raw), torch.empty_like(raw)
        n, width = raw.shape
        self._mean, self._deviation = rank.empty(n, 1), rank.empty(n, 1)
        self._scale_grad, self._shift_grad = rank.empty(width), rank.empty(width)

    def forward(self, phase: Phase, chunk: int) -> None:
        """Normalise a chunk's rows."""
        at, value, layer = self._at[chunk], self._rank.parameters.value, self._layer
        raw_nH = self._raw[at]
        done = work.layer_norm(*sizes_of(raw_nH), raw_nH.element_size())
        with self._rank.step(f"{phase}/{layer}/norm/{chunk}", done, phase, layer):
            torch.ops.aten.native_layer_norm.out(
                raw_nH,
                [raw_nH.shape[1]],
                value[f"norm_scale_{layer}"],
                value[f"norm_shift_{layer}"],
                EPSILON,
                out0=self.out[at],
                out1=self._mean[at],
                out2=self._deviation[at],
            )

    def backward(self, chunk: int) -> None:
        """Take a chunk's gradient; add those of scale and shift to what other chunks gave."""
        at, value, layer = self._at[chunk], self._rank.parameters.value, self._layer
        grad, above_nH = self._rank.parameters.grad, self._above[at]
        phase, (n, width) = Phase.BACKWARD, above_nH.shape
        done = work.layer_norm_backward(n, width, above_nH.element_size())
        with self._rank.step(f"{phase}/{layer}/norm/{chunk}", done, phase, layer):
            if n == 0:  # torch leaves the gradients of no rows undefined
                return
            torch.ops.aten.native_layer_norm_backward.out(
                above_nH,
                self._raw[at],
                [width],
                self._mean[at],
                self._deviation[at],
                value[f"norm_scale_{layer}"],
                value[f"norm_shift_{layer}"],
                [True, True, True],
                out0=self.grad[at],
                out1=self._scale_grad,
                out2=self._shift_grad,
            )
            grad[f"norm_scale_{layer}"].add_(self._scale_grad)
            grad[f"norm_shift_{layer}"].add_(self._shift_grad)
