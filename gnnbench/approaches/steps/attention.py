"""Steps of one attention layer: edge scores, a softmax over each row, a weighted sum.

T = H W; e_ij = LeakyReLU(a_dst . T_i + a_src . T_j) per head over in-neighbours and the vertex
itself; weights = softmax over j, dropped out; Y_i = sum_j weight_ij T_j + b (Velickovic et al.,
ICLR 2018, equations 3 to 5). The runtime's part is `gnnbench_runtime.models.layers.attention`.

Legend: n rows, u source rows, e entries with the self loops, K heads, d = K times a head's width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gnnbench.plan import Kind, Phase

if TYPE_CHECKING:
    from gnnbench.approaches.layers import StackSteps


def forward(stack: StackSteps, layer: int) -> None:
    """Write the layer up to, not including, its activation."""
    shape, size, s = stack.shape, stack.sizes[layer - 1], stack.shape.element_bytes
    fan_in, d, heads = shape.dims[layer - 1], shape.dims[layer], shape.heads[layer - 1]
    n, u = size.rows, size.source_rows
    e = size.nonzeros + n
    where, phase = f"forward/{layer}", Phase.FORWARD
    rows = n if stack.halo is not None else u
    stack._gemm(
        f"{where}/gemm", "gemm_nn", phase, layer, rows, fan_in, d,
        allocates=((f"t{layer}", u * d * s),),
    )  # fmt: skip
    stack._exchange(phase, layer, d)
    stack._compute(
        f"{where}/scores", Kind.ELEMENTWISE, "attention_scores", phase, layer,
        rows=(n + u) * d, width=d, flops=2 * (n + u) * d, bytes=(n + u) * (d + heads) * s,
        allocates=((f"scores{layer}", (n + u) * heads * s),),
    )  # fmt: skip
    stack._compute(
        f"{where}/sddmm", Kind.SDDMM, "sddmm_add", phase, layer,
        rows=n, source_rows=u, nonzeros=e, width=heads, flops=3 * e * heads,
        bytes=8 * (n + 1) + 4 * e + (n + min(u, e) + e) * heads * s,
        allocates=((f"e{layer}", e * heads * s),),
    )  # fmt: skip
    softmax = ((f"a{layer}", e * heads * s),)
    _edges(stack, f"{where}/softmax", "edge_softmax", phase, layer, 2, allocates=softmax)
    if shape.dropout > 0:
        kept = ((f"d{layer}", e * heads * s),)
        _edges(stack, f"{where}/edge_dropout", "edge_dropout", phase, layer, 2, allocates=kept)
    out = ((f"h{layer}", stack._out_rows(layer) * d * s),)
    _weighted(stack, f"{where}/spmm", "spmm_weighted", phase, layer, n, u, allocates=out)
    stack._elementwise(f"{where}/bias", "bias", phase, layer, n, d, 2)


def backward(stack: StackSteps, layer: int) -> None:
    """Write the gradients of the layer's parameters and, above layer 1, of its input."""
    shape, size, s = stack.shape, stack.sizes[layer - 1], stack.shape.element_bytes
    fan_in, d, heads = shape.dims[layer - 1], shape.dims[layer], shape.heads[layer - 1]
    n, u = size.rows, size.source_rows
    e = size.nonzeros + n
    where, phase = f"backward/{layer}", Phase.BACKWARD
    stack._elementwise(f"{where}/bias", "column_sum", phase, layer, n, d, 1)
    stack._compute(
        f"{where}/sddmm", Kind.SDDMM, "sddmm_dot", phase, layer,
        rows=n, source_rows=u, nonzeros=e, width=d, inner=heads, flops=2 * e * d,
        bytes=8 * (n + 1) + 4 * e + e * heads * s + (n + min(u, e)) * d * s,
        allocates=(("edge_grad", e * heads * s),),
    )  # fmt: skip
    if shape.dropout > 0:
        _edges(stack, f"{where}/edge_dropout", "edge_dropout", phase, layer, 2)
    _edges(stack, f"{where}/softmax", "edge_softmax_backward", phase, layer, 4)
    _edges(
        stack, f"{where}/edge_sums", "edge_sums", phase, layer, 2,
        allocates=(("score_grad", (n + u) * heads * s),),
    )  # fmt: skip
    transposed = ((f"gt{layer}", u * d * s),)
    _weighted(stack, f"{where}/spmm", "spmm_weighted_t", phase, layer, u, n, allocates=transposed)
    stack._compute(
        f"{where}/scores", Kind.ELEMENTWISE, "attention_scores_backward", phase, layer,
        rows=(n + u) * d, width=d, flops=4 * (n + u) * d,
        bytes=(n + u) * (3 * d + heads) * s,
    )  # fmt: skip
    stack._exchange(phase, layer, d)
    rows = n if stack.halo is not None else u
    stack._gemm(f"{where}/weight", "gemm_tn", phase, layer, fan_in, rows, d)
    if layer > 1:
        grad = ((f"g{layer - 1}", u * fan_in * s),)
        stack._gemm(f"{where}/input", "gemm_nt", phase, layer, rows, d, fan_in, allocates=grad)


def _edges(
    stack: StackSteps, name: str, op: str, phase: Phase, layer: int, passes: int, **facts: Any
) -> None:
    """One value per entry and head, read and written `passes` times."""
    size, heads = stack.sizes[layer - 1], stack.shape.heads[layer - 1]
    entries = size.nonzeros + size.rows
    stack._elementwise(name, op, phase, layer, entries, heads, passes, **facts)


def _weighted(
    stack: StackSteps, name: str, op: str, phase: Phase, layer: int, rows: int, source: int,
    **facts: Any,
) -> None:  # fmt: skip
    """A sparse product whose entries have one weight per head."""
    size, shape, s = stack.sizes[layer - 1], stack.shape, stack.shape.element_bytes
    d, heads, e = shape.dims[layer], shape.heads[layer - 1], size.nonzeros + size.rows
    stack._compute(
        name, Kind.SPMM, op, phase, layer, rows=rows, source_rows=source, nonzeros=e, width=d,
        inner=heads, flops=2 * e * d,
        bytes=8 * (rows + 1) + 4 * e + e * heads * s + (min(source, e) + rows) * d * s, **facts,
    )  # fmt: skip
