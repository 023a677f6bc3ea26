"""Steps of one convolution layer: a fixed weighted sum over neighbours, and a dense product.

Aggregate-first, Z = A H, Y = Z W + b; transform-first, T = H W, Y = A T + b; with a self weight,
Y += H[:n] W_self. The runtime performs them in `gnnbench_runtime.models.layers.convolution`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gnnbench.plan import Phase

if TYPE_CHECKING:
    from gnnbench.approaches.writing.stack import StackSteps


def forward(stack: StackSteps, layer: int) -> None:
    """Write the layer up to, not including, its activation."""
    shape, size, s = stack.shape, stack.sizes[layer - 1], stack.shape.element_bytes
    fan_in, fan_out = shape.dims[layer - 1], shape.dims[layer]
    where, phase = f"forward/{layer}", Phase.FORWARD
    out = ((f"h{layer}", stack._out_rows(layer) * fan_out * s),)
    if shape.orders[layer - 1] == "aggregate_first":
        if not shape.is_precomputed(layer):
            kept = ((f"z{layer}", size.rows * fan_in * s),)
            stack._aggregate(phase, layer, fan_in, allocates=kept)
        stack._gemm(
            f"{where}/gemm", "gemm_nn_bias", phase, layer, size.rows, fan_in, fan_out,
            allocates=out,
        )  # fmt: skip
    else:
        rows = size.rows if stack.halo is not None else size.source_rows
        stack._gemm(
            f"{where}/gemm", "gemm_nn", phase, layer, rows, fan_in, fan_out,
            allocates=((f"t{layer}", size.source_rows * fan_out * s),),
        )  # fmt: skip
        stack._aggregate(phase, layer, fan_out, allocates=out)
        stack._elementwise(f"{where}/bias", "bias", phase, layer, size.rows, fan_out, 2)
    if shape.model.self_weight:
        stack._gemm(f"{where}/self", "gemm_nn_add", phase, layer, size.rows, fan_in, fan_out)


def backward(stack: StackSteps, layer: int) -> None:
    """Write the gradients of the layer's parameters and, above layer 1, of its input."""
    shape, size, s = stack.shape, stack.sizes[layer - 1], stack.shape.element_bytes
    fan_in, fan_out = shape.dims[layer - 1], shape.dims[layer]
    where, phase = f"backward/{layer}", Phase.BACKWARD
    stack._elementwise(f"{where}/bias", "column_sum", phase, layer, size.rows, fan_out, 1)
    grad = ((f"g{layer - 1}", size.source_rows * fan_in * s),)
    if shape.orders[layer - 1] == "aggregate_first":
        stack._gemm(f"{where}/weight", "gemm_tn", phase, layer, fan_in, size.rows, fan_out)
        if layer > 1:
            stack._gemm(f"{where}/input", "gemm_nt", phase, layer, size.rows, fan_out, fan_in)
            stack._aggregate(phase, layer, fan_in, allocates=grad)
    else:
        stack._aggregate(phase, layer, fan_out)
        rows = size.rows if stack.halo is not None else size.source_rows
        stack._gemm(f"{where}/weight", "gemm_tn", phase, layer, fan_in, rows, fan_out)
        if layer > 1:
            stack._gemm(
                f"{where}/input", "gemm_nt", phase, layer, rows, fan_out, fan_in, allocates=grad
            )
    if shape.model.self_weight:
        stack._gemm(f"{where}/self_weight", "gemm_tn", phase, layer, fan_in, size.rows, fan_out)
        if layer > 1:
            stack._gemm(
                f"{where}/self_input", "gemm_nt_add", phase, layer, size.rows, fan_out, fan_in
            )
