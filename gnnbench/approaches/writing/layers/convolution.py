"""Steps of one convolution layer: a fixed weighted sum over neighbours, and a dense product.

Aggregate-first, Z = A H, Y = Z W + b; transform-first, T = H W, Y = A T + b; with a self weight,
Y += H[:n] W_self. The runtime performs them in `gnnbench_runtime.models.layers.convolution`.
"""

from __future__ import annotations

from gnnbench import work
from gnnbench.approaches.writing.writer import LayerWriter
from gnnbench.steps import Phase


def forward(writer: LayerWriter, layer: int) -> None:
    """Write the layer up to, not including, its normalisation and activation."""
    shape, size, s = writer.shape, writer.sizes[layer - 1], writer.element_bytes
    fan_in, fan_out = shape.dims[layer - 1], shape.dims[layer]
    where, phase = f"forward/{layer}", Phase.FORWARD
    out = writer.output(layer, fan_out)
    if shape.orders[layer - 1] == "aggregate_first":
        if not shape.is_precomputed(layer):
            kept = writer.buffer(f"z{layer}", size.rows, fan_in)
            writer.aggregate(phase, layer, fan_in, allocates=kept)
        sizes = size.rows, fan_in, fan_out
        writer.gemm(f"{where}/gemm", "gemm_nn_bias", phase, layer, sizes, allocates=out)
    else:
        sizes = writer.input_rows(layer), fan_in, fan_out
        kept = writer.buffer(f"t{layer}", size.source_rows, fan_out)
        writer.gemm(f"{where}/gemm", "gemm_nn", phase, layer, sizes, allocates=kept)
        writer.aggregate(phase, layer, fan_out, allocates=out)
        writer.step(f"{where}/bias", work.bias(size.rows, fan_out, s), phase, layer)
    if shape.model.self_weight:
        sizes = size.rows, fan_in, fan_out
        writer.gemm(f"{where}/self", "gemm_nn_add", phase, layer, sizes)


def backward(writer: LayerWriter, layer: int) -> None:
    """Write the gradients of the layer's parameters and, above layer 1, of its input."""
    shape, size, s = writer.shape, writer.sizes[layer - 1], writer.element_bytes
    fan_in, fan_out = shape.dims[layer - 1], shape.dims[layer]
    where, phase, n = f"backward/{layer}", Phase.BACKWARD, size.rows
    writer.step(f"{where}/bias", work.column_sum(n, fan_out, s), phase, layer)
    grad = writer.buffer(f"g{layer - 1}", size.source_rows, fan_in)
    if shape.orders[layer - 1] == "aggregate_first":
        writer.gemm(f"{where}/weight", "gemm_tn", phase, layer, (fan_in, n, fan_out))
        if layer > 1:
            writer.gemm(f"{where}/input", "gemm_nt", phase, layer, (n, fan_out, fan_in))
            writer.aggregate(phase, layer, fan_in, allocates=grad)
    else:
        writer.aggregate(phase, layer, fan_out)
        rows = writer.input_rows(layer)
        writer.gemm(f"{where}/weight", "gemm_tn", phase, layer, (fan_in, rows, fan_out))
        if layer > 1:
            sizes = rows, fan_out, fan_in
            writer.gemm(f"{where}/input", "gemm_nt", phase, layer, sizes, allocates=grad)
    if shape.model.self_weight:
        writer.gemm(f"{where}/self_weight", "gemm_tn", phase, layer, (fan_in, n, fan_out))
        if layer > 1:
            sizes = n, fan_out, fan_in
            writer.gemm(f"{where}/self_input", "gemm_nt_add", phase, layer, sizes)
