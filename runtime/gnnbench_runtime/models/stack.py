"""A stack of GNN layers with forward and backward written out, recorded step by step.

The steps, their names and their order are those of `gnnbench.approaches.layers`. Buffers come from
a workspace by the plan's names. Which rows are exchanged, if any, is the exchange's business.

Legend: n rows, u source rows (own and halo, or a block's inputs), F input width, H output width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from gnnbench.approaches.layers import StackShape
from gnnbench.graph.keys import fold
from gnnbench.plan import Kind, Lane, Phase
from gnnbench_runtime.models.parameters import Parameters
from gnnbench_runtime.models.workspace import Workspace


@dataclass(slots=True, kw_only=True)
class Aggregation:
    """The normalised adjacency of one layer on one rank, and its transpose.

    Forward: out[r] = row_scale[r] * sum_c col_scale[c] * x[c] + self_scale[r] * x[r].
    Shapes: indptr int64 [n+1], indices int32 [nnz] in 0..u-1; transposed arrays [u+1], [nnz];
    row_scale, self_scale [n]; col_scale [u]. Absent scales are ones (self_scale: no self term).
    """

    indptr: Tensor
    indices: Tensor
    indptr_t: Tensor | None
    indices_t: Tensor | None
    rows: int
    source_rows: int
    row_scale: Tensor | None
    col_scale: Tensor | None
    self_scale: Tensor | None

    @property
    def nonzeros(self) -> int:
        return self.indices.numel()


class Exchange(Protocol):
    """How rows that live on other ranks get here, and their gradients back."""

    def forward(self, x_uF: Tensor, layer: int, phase: Phase) -> None:
        """Fill rows n..u of `x_uF` with the owners' current rows."""

    def backward(self, grad_uF: Tensor, layer: int) -> None:
        """Send rows n..u home and add what comes back to rows 0..n."""


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
    ) -> None:
        self.shape, self.parameters, self.workspace = shape, parameters, workspace
        self.kernels, self.recorder, self.exchange = kernels, recorder, exchange
        self._hidden: list[Tensor] = []
        self._aggregations: Sequence[Aggregation] = ()

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
        rows, sources = (agg.source_rows, agg.rows) if transpose else (agg.rows, agg.source_rows)
        width, s, nnz = x.shape[1], x.element_size(), agg.nonzeros
        size = 8 * (rows + 1) + 4 * nnz + (min(sources, nnz) + rows) * width * s
        with self._step(name, Kind.SPMM, "spmm", phase, layer, size, 2 * nnz * width):
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
        aggregations: Sequence[Aggregation],
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
        self._aggregations = aggregations
        hidden = x
        if counters is not None and shape.input_dropout > 0:
            hidden = self._input_dropout(x, aggregations[0], row_ids[0], counters, phase)
        self._hidden = [hidden]
        for layer in range(1, shape.num_layers + 1):
            hidden = self._forward_layer(layer, hidden, aggregations, row_ids, counters, phase)
            self._hidden.append(hidden)
        return hidden[: aggregations[-1].rows]

    def _input_dropout(
        self, x: Tensor, agg: Aggregation, ids: Tensor, counters: tuple[int, ...], phase: Phase
    ) -> Tensor:
        rows = agg.rows if self.exchange is not None else agg.source_rows
        out = self.workspace.get("h0", agg.source_rows, x.shape[1])
        with self._elementwise(f"{phase}/0/dropout", "dropout", phase, 0, x[:rows], 2):
            key = fold(*counters, 0)
            self.kernels.dropout(x[:rows], out[:rows], self.shape.input_dropout, key, ids[:rows])
        return out

    def _forward_layer(
        self,
        layer: int,
        h_uF: Tensor,
        aggregations: Sequence[Aggregation],
        row_ids: Sequence[Tensor],
        counters: tuple[int, ...] | None,
        phase: Phase,
    ) -> Tensor:
        shape, value, agg = self.shape, self.parameters.value, aggregations[layer - 1]
        fan_in, fan_out, n = shape.dims[layer - 1], shape.dims[layer], agg.rows
        weight, bias, where = value[f"weight_{layer}"], value[f"bias_{layer}"], f"{phase}/{layer}"
        out = self.workspace.get(f"h{layer}", self._out_rows(layer), fan_out)
        y_nH = out[:n]
        if shape.orders[layer - 1] == "aggregate_first":
            if self.exchange is not None:
                self.exchange.forward(h_uF, layer, phase)
            z_nF = self.workspace.get(f"z{layer}", n, fan_in)
            self._spmm(f"{where}/spmm", phase, layer, agg, h_uF, z_nF, transpose=False)
            self._mm(f"{where}/gemm", "gemm_nn_bias", phase, layer, z_nF, weight, y_nH, add=bias)
        else:
            rows = n if self.exchange is not None else agg.source_rows
            t_uH = self.workspace.get(f"t{layer}", agg.source_rows, fan_out)
            self._mm(f"{where}/gemm", "gemm_nn", phase, layer, h_uF[:rows], weight, t_uH[:rows])
            if self.exchange is not None:
                self.exchange.forward(t_uH, layer, phase)
            self._spmm(f"{where}/spmm", phase, layer, agg, t_uH, y_nH, transpose=False)
            with self._elementwise(f"{where}/bias", "bias", phase, layer, y_nH, 2):
                y_nH.add_(bias)
        if shape.model.self_weight:
            own = value[f"self_weight_{layer}"]
            self._mm(
                f"{where}/self", "gemm_nn_add", phase, layer, h_uF[:n], own, y_nH, accumulate=True
            )
        if layer < shape.num_layers:
            rate = shape.dropout if counters is not None else 0.0
            op = "relu_dropout" if rate > 0 else "relu"
            with self._elementwise(f"{where}/activation", op, phase, layer, y_nH, 2):
                key = fold(*counters, layer) if counters is not None else 0
                self.kernels.relu_dropout(y_nH, y_nH, rate, key, row_ids[layer][:n])
        return out

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
        shape, grads, agg = self.shape, self.parameters.grad, self._aggregations[layer - 1]
        value, phase, where = self.parameters.value, Phase.BACKWARD, f"backward/{layer}"
        fan_in, fan_out, n, u = shape.dims[layer - 1], shape.dims[layer], agg.rows, agg.source_rows
        h_uF = self._hidden[layer - 1]
        g_nH = self.workspace.get(f"g{layer}", n, fan_out)
        with self._elementwise(f"{where}/bias", "column_sum", phase, layer, g_nH, 1):
            torch.sum(g_nH, 0, out=grads[f"bias_{layer}"])
        weight, weight_grad = value[f"weight_{layer}"], grads[f"weight_{layer}"]
        g_uF = None
        if shape.orders[layer - 1] == "aggregate_first":
            z_nF = self.workspace.get(f"z{layer}", n, fan_in)
            self._mm(f"{where}/weight", "gemm_tn", phase, layer, z_nF.t(), g_nH, weight_grad)
            if layer > 1:
                # Z is not needed again: its buffer takes dZ.
                self._mm(f"{where}/input", "gemm_nt", phase, layer, g_nH, weight.t(), z_nF)
                g_uF = self.workspace.get(f"g{layer - 1}", u, fan_in)
                self._spmm(f"{where}/spmm", phase, layer, agg, z_nF, g_uF, transpose=True)
                if self.exchange is not None:
                    self.exchange.backward(g_uF, layer)
        else:
            t_uH = self.workspace.get(f"t{layer}", u, fan_out)
            self._spmm(f"{where}/spmm", phase, layer, agg, g_nH, t_uH, transpose=True)
            if self.exchange is not None:
                self.exchange.backward(t_uH, layer)
            rows = n if self.exchange is not None else u
            self._mm(
                f"{where}/weight",
                "gemm_tn",
                phase,
                layer,
                h_uF[:rows].t(),
                t_uH[:rows],
                weight_grad,
            )
            if layer > 1:
                g_uF = self.workspace.get(f"g{layer - 1}", u, fan_in)
                self._mm(
                    f"{where}/input", "gemm_nt", phase, layer, t_uH[:rows], weight.t(), g_uF[:rows]
                )
        if shape.model.self_weight:
            own, own_grad = value[f"self_weight_{layer}"], grads[f"self_weight_{layer}"]
            self._mm(f"{where}/self_weight", "gemm_tn", phase, layer, h_uF[:n].t(), g_nH, own_grad)
            if g_uF is not None:
                self._mm(
                    f"{where}/self_input",
                    "gemm_nt_add",
                    phase,
                    layer,
                    g_nH,
                    own.t(),
                    g_uF[:n],
                    accumulate=True,
                )
        if layer > 1:
            assert g_uF is not None
            below = self._aggregations[layer - 2].rows
            with self._elementwise(
                f"{where}/activation", "relu_backward", phase, layer - 1, g_uF[:below], 3
            ):
                self.kernels.relu_dropout_backward(
                    g_uF[:below], h_uF[:below], shape.dropout, g_uF[:below]
                )
