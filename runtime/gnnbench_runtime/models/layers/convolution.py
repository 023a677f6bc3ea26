"""A convolution layer: a fixed weighted sum over neighbours, and a dense product.

The steps are those of `gnnbench.approaches.writing.layers.convolution`.

Legend: n rows, u source rows (own and halo, or a block's inputs), F input width, H output width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gnnbench import work
from gnnbench.steps import Phase
from gnnbench_runtime.models.performer import Performer


def forward(stack: Performer, layer: int, h_uF: Tensor, phase: Phase) -> Tensor:
    """Return the buffer of the layer's output, up to its normalisation and activation."""
    shape, value, agg = stack.shape, stack.parameters.value, stack.aggregation(layer)
    fan_in, fan_out, n = shape.dims[layer - 1], shape.dims[layer], agg.rows
    weight, bias, where = value[f"weight_{layer}"], value[f"bias_{layer}"], f"{phase}/{layer}"
    out = stack.output(layer, fan_out)
    y_nH = out[:n]
    if shape.orders[layer - 1] == "aggregate_first":
        z_nF = _aggregated(stack, layer, fan_in)
        if not shape.is_precomputed(layer):
            aggregate(stack, layer, h_uF, z_nF, phase)
        product = z_nF, weight, y_nH
        stack.mm(f"{where}/gemm", "gemm_nn_bias", phase, layer, product, add=bias)
    else:
        rows = stack.input_rows(layer)
        t_uH = stack.workspace.get(f"t{layer}", agg.source_rows, fan_out)
        product = h_uF[:rows], weight, t_uH[:rows]
        stack.mm(f"{where}/gemm", "gemm_nn", phase, layer, product)
        aggregate(stack, layer, t_uH, y_nH, phase)
        with stack.step(f"{where}/bias", work.bias(n, fan_out, y_nH.element_size()), phase, layer):
            y_nH.add_(bias)
    if shape.model.self_weight:
        product = h_uF[:n], value[f"self_weight_{layer}"], y_nH
        stack.mm(f"{where}/self", "gemm_nn_add", phase, layer, product, accumulate=True)
    return out


def backward(stack: Performer, layer: int, h_uF: Tensor, g_nH: Tensor) -> Tensor | None:
    """Fill the layer's parameter gradients; return that of its input above layer 1."""
    shape, grads, agg = stack.shape, stack.parameters.grad, stack.aggregation(layer)
    value, phase, where = stack.parameters.value, Phase.BACKWARD, f"backward/{layer}"
    fan_in, fan_out, n, u = shape.dims[layer - 1], shape.dims[layer], agg.rows, agg.source_rows
    summed = work.column_sum(n, fan_out, g_nH.element_size())
    with stack.step(f"{where}/bias", summed, phase, layer):
        torch.sum(g_nH, 0, out=grads[f"bias_{layer}"])
    weight, weight_grad = value[f"weight_{layer}"], grads[f"weight_{layer}"]
    g_uF = stack.workspace.get(f"g{layer - 1}", u, fan_in) if layer > 1 else None
    if shape.orders[layer - 1] == "aggregate_first":
        z_nF = _aggregated(stack, layer, fan_in)
        stack.mm(f"{where}/weight", "gemm_tn", phase, layer, (z_nF.t(), g_nH, weight_grad))
        if g_uF is not None:
            # Z is not needed again: its buffer takes dZ.
            stack.mm(f"{where}/input", "gemm_nt", phase, layer, (g_nH, weight.t(), z_nF))
            aggregate_backward(stack, layer, z_nF, g_uF)
    else:
        t_uH = stack.workspace.get(f"t{layer}", u, fan_out)
        aggregate_backward(stack, layer, g_nH, t_uH)
        rows = stack.input_rows(layer)
        product = h_uF[:rows].t(), t_uH[:rows], weight_grad
        stack.mm(f"{where}/weight", "gemm_tn", phase, layer, product)
        if g_uF is not None:
            product = t_uH[:rows], weight.t(), g_uF[:rows]
            stack.mm(f"{where}/input", "gemm_nt", phase, layer, product)
    if shape.model.self_weight:
        own, own_grad = value[f"self_weight_{layer}"], grads[f"self_weight_{layer}"]
        product = h_uF[:n].t(), g_nH, own_grad
        stack.mm(f"{where}/self_weight", "gemm_tn", phase, layer, product)
        if g_uF is not None:
            product = g_nH, own.t(), g_uF[:n]
            name = f"{where}/self_input"
            stack.mm(name, "gemm_nt_add", phase, layer, product, accumulate=True)
    return g_uF


def _aggregated(stack: Performer, layer: int, width: int) -> Tensor:
    """The buffer of Z, or the aggregation that was done before training."""
    if stack.shape.is_precomputed(layer):
        assert stack.precomputed is not None
        return stack.precomputed
    return stack.workspace.get(f"z{layer}", stack.aggregation(layer).rows, width)


def aggregate(stack: Performer, layer: int, x_uF: Tensor, out_nF: Tensor, phase: Phase) -> None:
    """Fetch halo rows, if there are any, and aggregate: out = A x."""
    agg, exchange, where = stack.aggregation(layer), stack.exchange, f"{phase}/{layer}"
    if exchange is None or agg.split is None:
        if exchange is not None:
            exchange.forward(x_uF, layer, phase)
        stack.spmm(f"{where}/spmm", phase, layer, agg, x_uF, out_nF, transpose=False)
        return
    n = agg.rows
    arriving = exchange.begin_forward(x_uF, layer, phase)
    own_scale, halo_scale = _halves(agg.col_scale, n)
    x_nF = x_uF[:n]
    with stack.sparse(f"{where}/spmm", phase, layer, agg.split.own, n, x_nF):
        stack.kernels.spmm(
            *agg.split.own,
            x_nF,
            out_nF,
            row_scale=agg.row_scale,
            col_scale=own_scale,
            self_scale=agg.self_scale,
        )
    arriving.wait()
    halo, name = x_uF[n : agg.source_rows], f"{where}/spmm_halo"
    with stack.sparse(name, phase, layer, agg.split.halo, len(halo), halo, adds=True):
        stack.kernels.spmm(
            *agg.split.halo,
            halo,
            out_nF,
            row_scale=agg.row_scale,
            col_scale=halo_scale,
            accumulate=True,
        )


def aggregate_backward(stack: Performer, layer: int, g_nF: Tensor, out_uF: Tensor) -> None:
    """Gradient of `aggregate`: out = A^T g; gradients of halo rows are added by their owners."""
    agg, exchange = stack.aggregation(layer), stack.exchange
    phase, where, n = Phase.BACKWARD, f"backward/{layer}", agg.rows
    if exchange is None or agg.split is None:
        stack.spmm(f"{where}/spmm", phase, layer, agg, g_nF, out_uF, transpose=True)
        if exchange is not None:
            exchange.backward(out_uF, layer)
        return
    own_scale, halo_scale = _halves(agg.col_scale, n)
    with stack.sparse(f"{where}/spmm_halo", phase, layer, agg.split.halo_t, n, g_nF):
        stack.kernels.spmm(
            *agg.split.halo_t, g_nF, out_uF[n:], row_scale=halo_scale, col_scale=agg.row_scale
        )
    leaving = exchange.begin_backward(out_uF, layer)
    with stack.sparse(f"{where}/spmm", phase, layer, agg.split.own_t, n, g_nF):
        stack.kernels.spmm(
            *agg.split.own_t,
            g_nF,
            out_uF[:n],
            row_scale=own_scale,
            col_scale=agg.row_scale,
            self_scale=agg.self_scale,
        )
    leaving.wait()
    exchange.end_backward(out_uF, layer)


def _halves(scale: Tensor | None, rows: int) -> tuple[Tensor | None, Tensor | None]:
    return (None, None) if scale is None else (scale[:rows], scale[rows:])
