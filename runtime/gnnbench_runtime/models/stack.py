"""A stack of GNN layers with forward and backward written out, recorded step by step.

Buffers come from a workspace by the plan's names. What one layer does is in `models.layers`; which
rows are exchanged, if any, is the exchange's business.

Legend: n rows, u source rows (own and halo, or a block's inputs), F input width, H output width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gnnbench import work
from gnnbench.data.keys import fold
from gnnbench.steps import Phase
from gnnbench_runtime.models.layers import attention, convolution
from gnnbench_runtime.models.performer import Performer

EPSILON = 1e-5
"""Added to the variance that a normalisation layer divides by."""
_ROWS_BYTES = 2**19
"""Rows that a CPU normalises at once: torch computes them in a temporary array first."""


class Stack(Performer):
    """Forward, loss and backward of a model over given aggregations."""

    _hidden: list[Tensor]

    def forget(self) -> None:
        """Let go of what the last pass was given and returned."""
        self._hidden, self.aggregations, self.row_ids = [], (), ()

    # -- forward ---------------------------------------------------------------------------------

    def forward(
        self,
        x: Tensor,
        aggregations: Sequence[Any],
        *,
        row_ids: Sequence[Tensor],
        counters: tuple[int, ...] | None,
        phase: Phase = Phase.FORWARD,
        keeps: bool = True,
    ) -> Tensor:
        """Return the logits of the last layer's rows.

        Args:
            x: input rows, (u of layer 1, d_0); rows past the own ones are filled by the exchange.
            aggregations: one per layer, input layer first.
            row_ids: global vertex ids of the rows of H_0 ... H_{L-1} (int64), which key dropout.
            counters: (seed, epoch, ...) that key dropout; None turns dropout off (evaluation).
            phase: forward or evaluate.
            keeps: whether a way back follows; else the buffers of a layer end with the next one.
        """
        self.aggregations, self.row_ids, self.counters = aggregations, row_ids, counters
        hidden = x
        if counters is not None and self.shape.input_dropout > 0:
            hidden = self.drop_input(x, counters, phase)
        self._hidden = [hidden] if keeps else []
        for layer in range(1, self.shape.num_layers + 1):
            raw = self.layer_forward(layer, hidden, phase)
            hidden = self.activate(layer, raw, phase)
            if keeps:
                self._hidden.append(hidden)
            else:
                del raw
                made = f"n{layer}" if self.shape.has_norm(layer) else f"h{layer}"
                self.workspace.keep(made, "halo_rows")
        return hidden[: self.output_rows()]

    def output_rows(self) -> int:
        """Rows of the logits."""
        rows: int = self.aggregations[-1].rows
        return rows

    def rows_of(self, layer: int) -> int:
        """Own rows of the output of a layer."""
        rows: int = self.aggregation(layer).rows
        return rows

    def drop_input(self, x: Tensor, counters: tuple[int, ...], phase: Phase) -> Tensor:
        """Return the input rows, some elements of the own ones dropped."""
        agg, ids, rows = self.aggregation(1), self.row_ids[0], self.input_rows(1)
        out = self.workspace.get("h0", agg.source_rows, x.shape[1])
        with self.step(
            f"{phase}/0/dropout", work.dropout(rows, x.shape[1], x.element_size()), phase, 0
        ):
            key = fold(*counters, 0)
            self.kernels.dropout(x[:rows], out[:rows], self.shape.input_dropout, key, ids[:rows])
        return out

    def layer_forward(self, layer: int, h_uF: Tensor, phase: Phase) -> Tensor:
        """Return the buffer of a layer's output, up to its normalisation and activation."""
        kind = attention if self.shape.model.attention else convolution
        return kind.forward(self, layer, h_uF, phase)

    def activate(self, layer: int, raw: Tensor, phase: Phase) -> Tensor:
        """Normalise, activate and drop out a hidden layer; return the buffer of the result."""
        if layer == self.shape.num_layers:
            return raw
        n, out = self.rows_of(layer), raw
        if self.shape.has_norm(layer):
            out = self._normalise(layer, raw[:n], phase)
        y_nH = out[:n]
        name, counters = self.shape.model.activation, self.counters
        rate = self.shape.dropout if counters is not None else 0.0
        kernel = self.kernels.relu_dropout if name == "relu" else self.kernels.elu_dropout
        s = y_nH.element_size()
        done = work.activation(name, n, y_nH.shape[1], s, dropped=rate > 0)
        with self.step(f"{phase}/{layer}/activation", done, phase, layer):
            key = fold(*counters, layer) if counters is not None else 0
            kernel(y_nH, y_nH, rate, key, self.row_ids[layer][:n])
        return out

    def _normalise(self, layer: int, raw_nH: Tensor, phase: Phase) -> Tensor:
        """LayerNorm of the rows, in a buffer with room for halo rows; keeps mean and deviation."""
        n, width = raw_nH.shape
        out = self.workspace.get(f"n{layer}", self.out_rows(layer), width)
        mean, deviation = self._statistics(layer, n)
        value = self.parameters.value
        done = work.layer_norm(n, width, raw_nH.element_size())
        with self.step(f"{phase}/{layer}/norm", done, phase, layer):
            for rows in _pieces(raw_nH):
                torch.ops.aten.native_layer_norm.out(
                    raw_nH[rows],
                    [width],
                    value[f"norm_scale_{layer}"],
                    value[f"norm_shift_{layer}"],
                    EPSILON,
                    out0=out[rows],
                    out1=mean[rows],
                    out2=deviation[rows],
                )
        return out

    def _statistics(self, layer: int, rows: int) -> tuple[Tensor, Tensor]:
        both = self.workspace.get(f"statistics{layer}", rows, 2).view(2, rows, 1)
        return both[0], both[1]

    # -- loss ------------------------------------------------------------------------------------

    def loss(
        self,
        logits_nC: Tensor,
        labels: Tensor,
        train_rows: Tensor,
        scale: float,
        weights: Tensor | None = None,
    ) -> None:
        """Put scale * sum of the rows' cross-entropies into the loss element; keep its gradient.

        `weights` are those of the training rows, ones where absent.
        """
        rows, classes = logits_nC.shape
        grad = self.workspace.get(f"g{self.shape.num_layers}", rows, classes)
        done = work.cross_entropy(rows, classes, train_rows.numel(), logits_nC.element_size())
        with self.step("forward/loss", done, Phase.FORWARD, self.shape.num_layers):
            value = self.kernels.softmax_cross_entropy(
                logits_nC, labels, train_rows, scale, grad, weights
            )
            self.parameters.loss.copy_(value.reshape(1))

    # -- backward --------------------------------------------------------------------------------

    def backward(self) -> None:
        """Fill the gradient vector from the loss gradient of the last `loss` call."""
        for layer in range(self.shape.num_layers, 0, -1):
            g_nH = self.workspace.get(f"g{layer}", self.rows_of(layer), self.shape.dims[layer])
            if self.shape.has_norm(layer):
                g_nH = self.workspace.get(f"gn{layer}", *g_nH.shape)
            g_uF = self.layer_backward(layer, self._hidden[layer - 1], g_nH)
            if g_uF is not None:
                n = self.rows_of(layer - 1)
                self._activate_backward(layer, g_uF[:n], self._hidden[layer - 1][:n])

    def layer_backward(self, layer: int, h_uF: Tensor, g_nH: Tensor) -> Tensor | None:
        """Fill a layer's parameter gradients; return that of its input above layer 1."""
        kind = attention if self.shape.model.attention else convolution
        return kind.backward(self, layer, h_uF, g_nH)

    def _activate_backward(self, layer: int, g_nF: Tensor, h_nF: Tensor) -> None:
        """Gradients of activation and normalisation of layer - 1, from its output."""
        below, where, phase = layer - 1, f"backward/{layer}", Phase.BACKWARD
        rate, name, s = self.shape.dropout, self.shape.model.activation, g_nF.element_size()
        done = work.activation_backward(name, len(g_nF), g_nF.shape[1], s)
        with self.step(f"{where}/activation", done, phase, below):
            if name == "relu":
                self.kernels.relu_dropout_backward(g_nF, h_nF, rate, g_nF)
            else:
                assert self.counters is not None
                key, ids = fold(*self.counters, below), self.row_ids[below][: len(g_nF)]
                self.kernels.elu_dropout_backward(g_nF, h_nF, rate, key, ids, g_nF)
        if self.shape.has_norm(below):
            self._normalise_backward(below, where, g_nF)

    def _normalise_backward(self, layer: int, where: str, g_nF: Tensor) -> None:
        n, width = g_nF.shape
        mean, deviation = self._statistics(layer, n)
        value, grad = self.parameters.value, self.parameters.grad
        done = work.layer_norm_backward(n, width, g_nF.element_size())
        scale, shift = grad[f"norm_scale_{layer}"], grad[f"norm_shift_{layer}"]
        h_nF = self.workspace.get(f"h{layer}", n, width)
        out = self.workspace.get(f"gn{layer}", n, width)
        with self.step(f"{where}/norm", done, Phase.BACKWARD, layer):
            sums = torch.zeros((2, width), device=g_nF.device, dtype=g_nF.dtype)
            for rows in _pieces(g_nF):
                torch.ops.aten.native_layer_norm_backward.out(
                    g_nF[rows],
                    h_nF[rows],
                    [width],
                    mean[rows],
                    deviation[rows],
                    value[f"norm_scale_{layer}"],
                    value[f"norm_shift_{layer}"],
                    [True, True, True],
                    out0=out[rows],
                    out1=scale,
                    out2=shift,
                )
                sums[0].add_(scale)
                sums[1].add_(shift)
            scale.copy_(sums[0])
            shift.copy_(sums[1])


def _pieces(x_nF: Tensor) -> list[slice]:
    """Ranges of rows to normalise at once: some on a CPU, all on a device."""
    count, width = x_nF.shape
    size = count
    if x_nF.device.type == "cpu":
        size = max(_ROWS_BYTES // max(width * x_nF.element_size(), 1), 1)
    # The output may have room for further rows, so the last range ends with the input.
    starts = range(0, max(count, 1), max(size, 1))
    return [slice(start, min(start + size, count)) for start in starts]
