"""Steps of one attention layer: edge scores, a softmax over each row, a weighted sum.

T = H W; e_ij = LeakyReLU(a_dst . T_i + a_src . T_j) per head over in-neighbours and the vertex
itself; weights = softmax over j, dropped out; Y_i = sum_j weight_ij T_j + b (Velickovic et al.,
ICLR 2018, equations 3 to 5). The runtime's part is `gnnbench_runtime.models.layers.attention`.

Legend: n rows, u source rows, e entries with the self loops, K heads, d = K times a head's width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gnnbench.plan import Kind, Phase

if TYPE_CHECKING:
    from gnnbench.approaches.writing.stack import StackSteps


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """Sizes of one layer's weighted sums on one rank; `entries` include the self loops."""

    rows: int
    sources: int
    entries: int
    heads: int
    width: int

    @classmethod
    def of(cls, stack: StackSteps, layer: int) -> Sums:
        """All heads over the rows that the stack holds."""
        size, shape = stack.sizes[layer - 1], stack.shape
        return cls(
            rows=size.rows,
            sources=size.source_rows,
            entries=size.nonzeros + size.rows,
            heads=shape.heads[layer - 1],
            width=shape.dims[layer],
        )


def forward(stack: StackSteps, layer: int) -> None:
    """Write the layer up to, not including, its activation."""
    shape, sums, s = stack.shape, Sums.of(stack, layer), stack.shape.element_bytes
    fan_in, d, heads, n, u = shape.dims[layer - 1], sums.width, sums.heads, sums.rows, sums.sources
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
    weights(stack, layer, sums)
    out = ((f"h{layer}", stack._out_rows(layer) * d * s),)
    weighted_sum(stack, phase, layer, sums, allocates=out)
    stack._elementwise(f"{where}/bias", "bias", phase, layer, n, d, 2)


def backward(stack: StackSteps, layer: int) -> None:
    """Write the gradients of the layer's parameters and, above layer 1, of its input."""
    shape, sums, s = stack.shape, Sums.of(stack, layer), stack.shape.element_bytes
    fan_in, d, heads, n, u = shape.dims[layer - 1], sums.width, sums.heads, sums.rows, sums.sources
    where, phase = f"backward/{layer}", Phase.BACKWARD
    stack._elementwise(f"{where}/bias", "column_sum", phase, layer, n, d, 1)
    weights_backward(stack, layer, sums)
    weighted_sum(stack, phase, layer, sums, allocates=((f"gt{layer}", u * d * s),))
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


def weights(stack: StackSteps, layer: int, sums: Sums) -> None:
    """Write the way from scores of vertices to weights of entries."""
    n, u, e, heads = sums.rows, sums.sources, sums.entries, sums.heads
    where, phase, s = f"forward/{layer}", Phase.FORWARD, stack.shape.element_bytes
    stack._compute(
        f"{where}/sddmm", Kind.SDDMM, "sddmm_add", phase, layer,
        rows=n, source_rows=u, nonzeros=e, width=heads, flops=3 * e * heads,
        bytes=8 * (n + 1) + 4 * e + (n + min(u, e) + e) * heads * s,
        allocates=((f"e{layer}", e * heads * s),),
    )  # fmt: skip
    softmax = ((f"a{layer}", e * heads * s),)
    stack._elementwise(
        f"{where}/softmax", "edge_softmax", phase, layer, e, heads, 2, allocates=softmax
    )
    if stack.shape.dropout > 0:
        kept = ((f"d{layer}", e * heads * s),)
        stack._elementwise(
            f"{where}/edge_dropout", "edge_dropout", phase, layer, e, heads, 2, allocates=kept
        )


def weights_backward(stack: StackSteps, layer: int, sums: Sums) -> None:
    """Write the way from the gradient of the sums to that of the vertices' scores."""
    n, u, e, heads, d = sums.rows, sums.sources, sums.entries, sums.heads, sums.width
    where, phase, s = f"backward/{layer}", Phase.BACKWARD, stack.shape.element_bytes
    stack._compute(
        f"{where}/sddmm", Kind.SDDMM, "sddmm_dot", phase, layer,
        rows=n, source_rows=u, nonzeros=e, width=d, inner=heads, flops=2 * e * d,
        bytes=8 * (n + 1) + 4 * e + e * heads * s + (n + min(u, e)) * d * s,
        allocates=(("edge_grad", e * heads * s),),
    )  # fmt: skip
    if stack.shape.dropout > 0:
        stack._elementwise(f"{where}/edge_dropout", "edge_dropout", phase, layer, e, heads, 2)
    stack._elementwise(f"{where}/softmax", "edge_softmax_backward", phase, layer, e, heads, 4)
    stack._elementwise(
        f"{where}/edge_sums", "edge_sums", phase, layer, e, heads, 2,
        allocates=(("score_grad", (n + u) * heads * s),),
    )  # fmt: skip


def weighted_sum(stack: StackSteps, phase: Phase, layer: int, sums: Sums, **facts: Any) -> None:
    """Write a sparse product whose entries have one weight per head; backward, its transpose."""
    d, heads, e, s = sums.width, sums.heads, sums.entries, stack.shape.element_bytes
    forward = phase is Phase.FORWARD
    rows, source = (sums.rows, sums.sources)[:: 1 if forward else -1]
    stack._compute(
        f"{phase}/{layer}/spmm", Kind.SPMM, "spmm_weighted" if forward else "spmm_weighted_t",
        phase, layer, rows=rows, source_rows=source, nonzeros=e, width=d, inner=heads,
        flops=2 * e * d,
        bytes=8 * (rows + 1) + 4 * e + e * heads * s + (min(source, e) + rows) * d * s, **facts,
    )  # fmt: skip
