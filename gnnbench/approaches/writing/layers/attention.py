"""Steps of one attention layer: edge scores, a softmax over each row, a weighted sum.

T = H W; e_ij = LeakyReLU(a_dst . T_i + a_src . T_j) per head over in-neighbours and the vertex
itself; weights = softmax over j, dropped out; Y_i = sum_j weight_ij T_j + b (Velickovic et al.,
ICLR 2018, equations 3 to 5). The runtime's part is `gnnbench_runtime.models.layers.attention`.

Legend: n rows, u source rows, e entries with the self loops, K heads, d = K times a head's width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gnnbench import work
from gnnbench.approaches.writing.writer import LayerWriter
from gnnbench.reuse import Reuse
from gnnbench.steps import Phase, Size


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """Sizes of one layer's weighted sums; `entries` include the self loops."""

    rows: Size
    sources: Size
    entries: Size
    heads: Size
    width: Size
    reuse: Reuse | None = None

    @classmethod
    def of(cls, writer: LayerWriter, layer: int) -> Sums:
        """All heads over the rows that the writer's rank holds."""
        size, shape = writer.sizes[layer - 1], writer.shape
        return cls(
            rows=size.rows,
            sources=size.source_rows,
            entries=size.nonzeros + size.rows,
            heads=shape.heads[layer - 1],
            width=shape.dims[layer],
            reuse=size.reuse,
        )


def forward(writer: LayerWriter, layer: int) -> None:
    """Write the layer up to, not including, its normalisation and activation."""
    shape, sums = writer.shape, Sums.of(writer, layer)
    fan_in, d = shape.dims[layer - 1], sums.width
    sizes = writer.input_rows(layer), fan_in, d
    kept = writer.buffer(f"t{layer}", sums.sources, d)
    writer.gemm(f"forward/{layer}/gemm", "gemm_nn", Phase.FORWARD, layer, sizes, allocates=kept)
    writer.exchange(Phase.FORWARD, layer, shape.dims[layer])
    attend(writer, layer)


def attend(writer: LayerWriter, layer: int) -> None:
    """Write the layer from its transformed rows T on."""
    sums, s = Sums.of(writer, layer), writer.element_bytes
    d, heads, n, u = sums.width, sums.heads, sums.rows, sums.sources
    where, phase = f"forward/{layer}", Phase.FORWARD
    scored = work.attention_scores(n + u, d, heads, s)
    held = writer.buffer(f"scores{layer}", n + u, heads)
    writer.step(f"{where}/scores", scored, phase, layer, allocates=held)
    weights(writer, layer, sums)
    weighted_sum(writer, phase, layer, sums, allocates=writer.output(layer, d))
    writer.step(f"{where}/bias", work.bias(n, d, s), phase, layer)


def backward(writer: LayerWriter, layer: int) -> None:
    """Write the gradients of the layer's parameters and, above layer 1, of its input."""
    shape, sums = writer.shape, Sums.of(writer, layer)
    fan_in, d, u = shape.dims[layer - 1], sums.width, sums.sources
    where, phase = f"backward/{layer}", Phase.BACKWARD
    attend_backward(writer, layer)
    writer.exchange(phase, layer, shape.dims[layer])
    rows = writer.input_rows(layer)
    writer.gemm(f"{where}/weight", "gemm_tn", phase, layer, (fan_in, rows, d))
    if layer > 1:
        grad = writer.buffer(f"g{layer - 1}", u, fan_in)
        writer.gemm(f"{where}/input", "gemm_nt", phase, layer, (rows, d, fan_in), allocates=grad)


def attend_backward(writer: LayerWriter, layer: int) -> None:
    """Write the way back to the gradient of the transformed rows T."""
    sums, s = Sums.of(writer, layer), writer.element_bytes
    d, heads, n, u = sums.width, sums.heads, sums.rows, sums.sources
    where, phase = f"backward/{layer}", Phase.BACKWARD
    writer.step(f"{where}/bias", work.column_sum(n, d, s), phase, layer)
    weights_backward(writer, layer, sums)
    kept = writer.buffer(f"gt{layer}", u, d)
    weighted_sum(writer, phase, layer, sums, allocates=kept)
    scored = work.attention_scores_backward(n + u, d, heads, s)
    writer.step(f"{where}/scores", scored, phase, layer)


def weights(writer: LayerWriter, layer: int, sums: Sums) -> None:
    """Write the way from scores of vertices to weights of entries."""
    e, heads, s = sums.entries, sums.heads, writer.element_bytes
    where, phase = f"forward/{layer}", Phase.FORWARD
    scored = work.sddmm_add(
        rows=sums.rows,
        nonzeros=e,
        heads=heads,
        source_rows=sums.sources,
        element_bytes=s,
        reuse=sums.reuse,
    )
    kept = writer.buffer(f"e{layer}", e, heads)
    writer.step(f"{where}/sddmm", scored, phase, layer, allocates=kept)
    kept = writer.buffer(f"a{layer}", e, heads)
    writer.elementwise(
        f"{where}/softmax", "edge_softmax", phase, layer, e, heads, passes=2, allocates=kept
    )
    if writer.shape.dropout > 0:
        kept = writer.buffer(f"d{layer}", e, heads)
        _edge_dropout(writer, where, phase, layer, sums, allocates=kept)


def weights_backward(writer: LayerWriter, layer: int, sums: Sums) -> None:
    """Write the way from the gradient of the sums to that of the vertices' scores."""
    n, u, e, heads, s = sums.rows, sums.sources, sums.entries, sums.heads, writer.element_bytes
    where, phase = f"backward/{layer}", Phase.BACKWARD
    dotted = work.sddmm_dot(
        rows=n,
        nonzeros=e,
        width=sums.width,
        heads=heads,
        source_rows=u,
        element_bytes=s,
        reuse=sums.reuse,
    )
    kept = writer.buffer("edge_grad", e, heads)
    writer.step(f"{where}/sddmm", dotted, phase, layer, allocates=kept)
    if writer.shape.dropout > 0:
        _edge_dropout(writer, where, phase, layer, sums)
    op = "edge_softmax_backward"
    writer.elementwise(f"{where}/softmax", op, phase, layer, e, heads, passes=4)
    kept = writer.buffer("score_grad", n + u, heads)
    summed = work.edge_sums(e, heads, s, reuse=sums.reuse)
    writer.step(f"{where}/edge_sums", summed, phase, layer, allocates=kept)


def weighted_sum(writer: LayerWriter, phase: Phase, layer: int, sums: Sums, **place: Any) -> None:
    """Write a sparse product whose entries have one weight per head; backward, its transpose."""
    back = phase is Phase.BACKWARD
    rows, sources = (sums.sources, sums.rows) if back else (sums.rows, sums.sources)
    summed = work.spmm_weighted(
        rows=rows,
        nonzeros=sums.entries,
        width=sums.width,
        source_rows=sources,
        heads=sums.heads,
        element_bytes=writer.element_bytes,
        transpose=back,
        reuse=sums.reuse,
    )
    writer.step(f"{phase}/{layer}/spmm", summed, phase, layer, **place)


def _edge_dropout(
    writer: LayerWriter, where: str, phase: Phase, layer: int, sums: Sums, **place: Any
) -> None:
    entries, heads = sums.entries, sums.heads
    name = f"{where}/edge_dropout"
    writer.elementwise(name, "edge_dropout", phase, layer, entries, heads, passes=2, **place)
