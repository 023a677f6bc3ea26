"""A stack of GNN layers with forward and backward written out, recorded step by step.

Buffers come from
a workspace by the plan's names. What one layer does is its kind's business (`models.layers`), which
rows are exchanged, if any, the exchange's.

Legend: n rows, u source rows (own and halo, or a block's inputs), F input width, H output width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from gnnbench.approaches.writing.stack import StackShape
from gnnbench.data.keys import fold
from gnnbench.plan import Kind, Lane, Phase
from gnnbench_runtime.comm import Pending
from gnnbench_runtime.models.layers import attention, convolution
from gnnbench_runtime.models.layers.attention import Attention
from gnnbench_runtime.models.layers.convolution import Aggregation, Split
from gnnbench_runtime.models.parameters import Parameters
from gnnbench_runtime.models.workspace import Workspace

__all__ = ["Aggregation", "Aggregations", "Attention", "Exchange", "Split", "Stack"]

Aggregations = Sequence[Aggregation] | Sequence[Attention]


class Exchange(Protocol):
    """How rows that live on other ranks get here, and their gradients back."""

    def forward(self, x_uF: Tensor, layer: int, phase: Phase) -> None:
        """Fill rows n..u of `x_uF` with the owners' current rows."""

    def backward(self, grad_uF: Tensor, layer: int) -> None:
        """Send rows n..u home and add what comes back to rows 0..n."""

    def begin_forward(self, x_uF: Tensor, layer: int, phase: Phase) -> Pending:
        """As `forward`, beside the caller, who leaves rows n..u alone until `wait`."""

    def begin_backward(self, grad_uF: Tensor, layer: int) -> Pending:
        """Send rows n..u home beside the caller; `wait`, then `end_backward`."""

    def end_backward(self, grad_uF: Tensor, layer: int) -> None:
        """Add what came back to rows 0..n."""


class Stack:
    """Forward, loss and backward of a model over given aggregations."""

    def __init__(
        self,
        shape: StackShape,
        parameters: Parameters,
        workspace: Workspace,
        kernels: Any,
        recorder: Any,
        exchange: Exchange | None = None,
        precomputed: Tensor | None = None,
    ) -> None:
        """`precomputed` is the first aggregation of the features, (n, d_0), where shape says so."""
        self.shape, self.parameters, self.workspace = shape, parameters, workspace
        self.kernels, self.recorder, self.exchange = kernels, recorder, exchange
        self.precomputed = precomputed
        self.counters: tuple[int, ...] | None = None
        self._kind = attention if shape.model.attention else convolution
        self._hidden: list[Tensor] = []
        self._row_ids: Sequence[Tensor] = ()
        self._aggregations: Aggregations = ()

    def aggregation(self, layer: int) -> Any:
        """What the layer sums over: an `Aggregation`, or an `Attention`."""
        return self._aggregations[layer - 1]

    def forget(self) -> None:
        """Let go of what the last pass was given and returned."""
        self._hidden, self._aggregations, self._row_ids = [], (), ()

    # -- recording -------------------------------------------------------------------------------

    def _step(
        self, name: str, kind: Kind, op: str, phase: Phase, layer: int, bytes_: int, flops: int
    ) -> Any:
        return self.recorder.step(
            name, kind, op, lane=Lane.COMPUTE, phase=phase, layer=layer, bytes=bytes_, flops=flops
        )

    def _mm(
        self, name: str, op: str, phase: Phase, layer: int, a: Tensor, b: Tensor, out: Tensor,
        *, add: Tensor | None = None, accumulate: bool = False,
    ) -> None:  # fmt: skip
        """Out = a b, plus the row vector `add`, or added to what `out` holds."""
        (m, k), n, s = a.shape, b.shape[1], out.element_size()
        with self._step(
            name, Kind.GEMM, op, phase, layer, (m * k + k * n + m * n) * s, 2 * m * k * n
        ):
            if accumulate:
                out.addmm_(a, b)
            elif add is not None:
                torch.addmm(add, a, b, out=out)
            else:
                torch.mm(a, b, out=out)

    def _spmm(
        self,
        name: str,
        phase: Phase,
        layer: int,
        agg: Aggregation,
        x: Tensor,
        out: Tensor,
        *,
        transpose: bool,
    ) -> None:
        """Out = A x with all of an aggregation, or its transpose."""
        rows, sources = (agg.source_rows, agg.rows) if transpose else (agg.rows, agg.source_rows)
        assert agg.indices is not None
        with self._sparse(name, phase, layer, rows, sources, agg.indices, x.shape[1]):
            if transpose:
                self.kernels.spmm(
                    agg.indptr_t, agg.indices_t, x, out,
                    row_scale=agg.col_scale, col_scale=agg.row_scale, self_scale=agg.self_scale,
                )  # fmt: skip
            else:
                self.kernels.spmm(
                    agg.indptr, agg.indices, x, out,
                    row_scale=agg.row_scale, col_scale=agg.col_scale, self_scale=agg.self_scale,
                )  # fmt: skip

    def _sparse(
        self, name: str, phase: Phase, layer: int, rows: int, sources: int, indices: Tensor,
        width: int, *, adds: bool = False,
    ) -> Any:  # fmt: skip
        """The span of a sparse product; one that `adds` reads its output too."""
        nnz, s = indices.numel(), self.shape.element_bytes
        size = 8 * (rows + 1) + 4 * nnz + (min(sources, nnz) + (1 + adds) * rows) * width * s
        return self._step(name, Kind.SPMM, "spmm", phase, layer, size, 2 * nnz * width)

    def _elementwise(
        self, name: str, op: str, phase: Phase, layer: int, x: Tensor, passes: int
    ) -> Any:
        return self._step(
            name,
            Kind.ELEMENTWISE,
            op,
            phase,
            layer,
            passes * x.numel() * x.element_size(),
            x.numel(),
        )

    # -- forward ---------------------------------------------------------------------------------

    def forward(
        self,
        x: Tensor,
        aggregations: Sequence[Any],
        *,
        row_ids: Sequence[Tensor],
        counters: tuple[int, ...] | None,
        phase: Phase = Phase.FORWARD,
    ) -> Tensor:
        """Return the logits of the last layer's rows.

        Args:
            x: input rows, (u of layer 1, d_0); rows past the own ones are filled by the exchange.
            aggregations: one per layer, input layer first.
            row_ids: global vertex ids of the rows of H_0 ... H_{L-1} (int64), which key dropout.
            counters: (seed, epoch, ...) that key dropout; None turns dropout off (evaluation).
        """
        shape = self.shape
        self._aggregations, self._row_ids, self.counters = aggregations, row_ids, counters
        hidden = x
        if counters is not None and shape.input_dropout > 0:
            hidden = self._input_dropout(x, counters, phase)
        self._hidden = [hidden]
        for layer in range(1, shape.num_layers + 1):
            hidden = self._forward_layer(layer, hidden, phase)
            self._hidden.append(hidden)
        return hidden[: aggregations[-1].rows]

    def _input_dropout(self, x: Tensor, counters: tuple[int, ...], phase: Phase) -> Tensor:
        agg, ids = self._aggregations[0], self._row_ids[0]
        rows = agg.rows if self.exchange is not None else agg.source_rows
        out = self.workspace.get("h0", agg.source_rows, x.shape[1])
        with self._elementwise(f"{phase}/0/dropout", "dropout", phase, 0, x[:rows], 2):
            key = fold(*counters, 0)
            self.kernels.dropout(x[:rows], out[:rows], self.shape.input_dropout, key, ids[:rows])
        return out

    def _forward_layer(self, layer: int, h_uF: Tensor, phase: Phase) -> Tensor:
        out = self._kind.forward(self, layer, h_uF, phase)
        if layer < self.shape.num_layers:
            self._activate(layer, out[: self._aggregations[layer - 1].rows], phase)
        return out

    def _activate(self, layer: int, y_nH: Tensor, phase: Phase) -> None:
        """Activation and dropout in place."""
        name, counters = self.shape.model.activation, self.counters
        rate = self.shape.dropout if counters is not None else 0.0
        op = f"{name}_dropout" if rate > 0 else name
        kernel = self.kernels.relu_dropout if name == "relu" else self.kernels.elu_dropout
        with self._elementwise(f"{phase}/{layer}/activation", op, phase, layer, y_nH, 2):
            key = fold(*counters, layer) if counters is not None else 0
            kernel(y_nH, y_nH, rate, key, self._row_ids[layer][: len(y_nH)])

    def _out_rows(self, layer: int) -> int:
        if layer == self.shape.num_layers or self.shape.orders[layer] == "transform_first":
            return self._aggregations[layer - 1].rows
        return self._aggregations[layer].source_rows

    # -- loss ------------------------------------------------------------------------------------

    def loss(self, logits_nC: Tensor, labels: Tensor, train_rows: Tensor, scale: float) -> None:
        """Put scale * sum of the rows' cross-entropies into the loss element; keep its gradient."""
        rows, classes = logits_nC.shape
        size = (rows + 2 * train_rows.numel()) * classes * logits_nC.element_size()
        grad = self.workspace.get(f"g{self.shape.num_layers}", rows, classes)
        with self._step(
            "forward/loss", Kind.ELEMENTWISE, "softmax_cross_entropy", Phase.FORWARD,
            self.shape.num_layers, size, 5 * train_rows.numel() * classes,
        ):  # fmt: skip
            value = self.kernels.softmax_cross_entropy(logits_nC, labels, train_rows, scale, grad)
            self.parameters.loss.fill_(value) if isinstance(
                value, float
            ) else self.parameters.loss.copy_(value.reshape(1))

    # -- backward --------------------------------------------------------------------------------

    def backward(self) -> None:
        """Fill the gradient vector from the loss gradient of the last `loss` call."""
        for layer in range(self.shape.num_layers, 0, -1):
            self._backward_layer(layer)

    def _backward_layer(self, layer: int) -> None:
        rows, width = self._aggregations[layer - 1].rows, self.shape.dims[layer]
        h_uF, g_nH = self._hidden[layer - 1], self.workspace.get(f"g{layer}", rows, width)
        g_uF = self._kind.backward(self, layer, h_uF, g_nH)
        if layer > 1:
            assert g_uF is not None
            below = self._aggregations[layer - 2].rows
            self._activate_backward(layer, g_uF[:below], h_uF[:below])

    def _activate_backward(self, layer: int, g_nF: Tensor, h_nF: Tensor) -> None:
        """Gradient of the activation of layer - 1 from its output, in place."""
        phase, rate, name = Phase.BACKWARD, self.shape.dropout, self.shape.model.activation
        where = f"backward/{layer}/activation"
        with self._elementwise(where, f"{name}_backward", phase, layer - 1, g_nF, 3):
            if name == "relu":
                self.kernels.relu_dropout_backward(g_nF, h_nF, rate, g_nF)
                return
            assert self.counters is not None
            key, ids = fold(*self.counters, layer - 1), self._row_ids[layer - 1][: len(g_nF)]
            self.kernels.elu_dropout_backward(g_nF, h_nF, rate, key, ids, g_nF)
