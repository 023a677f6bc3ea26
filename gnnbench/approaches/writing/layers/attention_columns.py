"""Steps of one attention layer on column slices, on two ranks at least: the mixture's kind.

The rows T = H W go to columns, each rank weighs all entries for the heads that its columns belong
to and sums up its columns, the sums go back to rows. Scores come from the columns where no slice
cuts a head; else from the rows, by an all-to-all of their own (`approaches.relayout` says why the
gradients of entries need none). One rank does what a single device does. The runtime's part is
`gnnbench_runtime.models.layers.attention_columns`.

Products stay balanced to a column. Softmax and its like take E k, which stops falling where a head
has several ranks: with one head (the last layer's) every rank weighs all entries.

Legend: N vertices, n own rows, E entries with the self loops, K heads, k those of own columns,
d the layer's width, f own columns of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gnnbench.approaches.writing.layers.attention import (
    Sums,
    weighted_sum,
    weights,
    weights_backward,
)
from gnnbench.steps import Kind, Lane, Phase, Step

if TYPE_CHECKING:
    from gnnbench.approaches.whole_graph.mixture import MixtureSteps


def forward(stack: MixtureSteps, layer: int) -> None:
    """Write the layer up to, not including, its activation."""
    shape, n, s = stack.shape, stack.rows, stack.shape.element_bytes
    fan_in, d = shape.dims[layer - 1], shape.dims[layer]
    where, phase, sums = f"forward/{layer}", Phase.FORWARD, own_sums(stack, layer)
    stack._gemm(
        f"{where}/gemm", "gemm_nn", phase, layer, n, fan_in, d,
        allocates=((f"t{layer}", n * d * s),),
    )  # fmt: skip
    cut = bool(stack.relayouts.score_heads[layer - 1])
    if cut:
        _scores_to_columns(stack, layer)
    # T stays in columns for the gradients of the weights.
    columns = ((f"columns{layer}", sums.rows * sums.width * s),)
    stack._to_columns(phase, layer, d, columns)
    if sums.width:
        if not cut:
            held = (("scores", 2 * sums.rows * sums.heads * s),)
            _scores(stack, layer, sums.rows, sums.width, sums.heads, allocates=held)
        weights(stack, layer, sums)
        weighted_sum(stack, phase, layer, sums, allocates=stack._buffer("aggregated", True))
    stack._to_rows(phase, layer, d, ((f"h{layer}", n * d * s),))
    stack._elementwise(f"{where}/bias", "bias", phase, layer, n, d, 2)


def backward(stack: MixtureSteps, layer: int) -> None:
    """Write the gradients of the layer's parameters and, above layer 1, of its input."""
    shape, n, s = stack.shape, stack.rows, stack.shape.element_bytes
    fan_in, d, heads = shape.dims[layer - 1], shape.dims[layer], shape.heads[layer - 1]
    where, phase, sums = f"backward/{layer}", Phase.BACKWARD, own_sums(stack, layer)
    stack._elementwise(f"{where}/bias", "column_sum", phase, layer, n, d, 1)
    stack._to_columns(phase, layer, d, stack._buffer("columns", False))
    cut = bool(stack.relayouts.score_heads[layer - 1])
    if sums.width:
        weights_backward(stack, layer, sums)
        weighted_sum(stack, phase, layer, sums, allocates=stack._buffer("aggregated", True))
        if not cut:
            _scores_backward(stack, layer, sums.rows, sums.width, sums.heads)
    stack._to_rows(phase, layer, d, ((f"gt{layer}", n * d * s),))
    if cut:
        _scores_to_rows(stack, layer)
        _scores_backward(stack, layer, n, d, heads)
    stack._gemm(f"{where}/weight", "gemm_tn", phase, layer, fan_in, n, d)
    if layer > 1:
        grad = ((f"g{layer - 1}", n * fan_in * s),)
        stack._gemm(f"{where}/input", "gemm_nt", phase, layer, n, d, fan_in, allocates=grad)


def own_sums(stack: MixtureSteps, layer: int) -> Sums:
    """All vertices and entries, and the heads of this rank's columns."""
    width, nodes = stack._columns(stack.shape.dims[layer]), stack.num_nodes
    return Sums(
        rows=nodes,
        sources=nodes,
        entries=stack.sizes[layer - 1].nonzeros + nodes,
        heads=stack.relayouts.heads[layer - 1][stack.rank].count,
        width=width,
    )


def _scores(stack: MixtureSteps, layer: int, rows: int, d: int, heads: int, **facts: Any) -> None:
    """Both scores of every row and head."""
    stack._compute(
        f"forward/{layer}/scores", Kind.ELEMENTWISE, "attention_scores", Phase.FORWARD, layer,
        rows=2 * rows * d, width=d, flops=4 * rows * d,
        bytes=2 * rows * (d + heads) * stack.shape.element_bytes, **facts,
    )  # fmt: skip


def _scores_backward(stack: MixtureSteps, layer: int, rows: int, d: int, heads: int) -> None:
    stack._compute(
        f"backward/{layer}/scores", Kind.ELEMENTWISE, "attention_scores_backward",
        Phase.BACKWARD, layer, rows=2 * rows * d, width=d, flops=8 * rows * d,
        bytes=2 * rows * (3 * d + heads) * stack.shape.element_bytes,
    )  # fmt: skip


def _scores_to_columns(stack: MixtureSteps, layer: int) -> None:
    """Scores of own rows and all heads become those of all vertices and own heads."""
    n, d, s = stack.rows, stack.shape.dims[layer], stack.shape.element_bytes
    own_heads, phase = stack.shape.heads[layer - 1], Phase.FORWARD
    counts = stack.relayouts.score_heads[layer - 1]
    mine, size = 2 * stack.num_nodes * counts[stack.rank] * s, 2 * n * sum(counts) * s
    row_scores = (("row_scores", 2 * n * own_heads * s),)
    _scores(stack, layer, n, d, own_heads, allocates=row_scores)
    by_peer = (("row_blocks", size),)
    _regroup(stack, "score_pack", phase, layer, Kind.GATHER, counts, allocates=by_peer)
    sent = stack.peers.scores_to_columns(stack.rank, layer, counts)
    _transfer(stack, "scores_to_columns", phase, layer, sent, (("column_blocks", mine),))
    if mine:
        stack._compute(
            f"forward/{layer}/score_unpack", Kind.GATHER, "gather", phase, layer,
            **_own_blocks(stack, counts), allocates=(("scores", mine),),
        )  # fmt: skip


def _scores_to_rows(stack: MixtureSteps, layer: int) -> None:
    """Gradients of own heads' scores go to the owners of the rows, and are added up there."""
    n, s, phase = stack.rows, stack.shape.element_bytes, Phase.BACKWARD
    counts = stack.relayouts.score_heads[layer - 1]
    mine, size = 2 * stack.num_nodes * counts[stack.rank] * s, 2 * n * sum(counts) * s
    if mine:
        stack._compute(
            f"backward/{layer}/score_pack", Kind.GATHER, "gather", phase, layer,
            **_own_blocks(stack, counts), allocates=(("column_blocks", mine),),
        )  # fmt: skip
    sent = stack.peers.scores_to_rows(stack.rank, counts)
    _transfer(stack, "scores_to_rows", phase, layer, sent, (("row_blocks", size),))
    summed = (("row_scores", 2 * n * stack.shape.heads[layer - 1] * s),)
    _regroup(stack, "score_sum", phase, layer, Kind.SCATTER, counts, allocates=summed)


def _regroup(
    stack: MixtureSteps, name: str, phase: Phase, layer: int, kind: Kind, counts: tuple[int, ...],
    **facts: Any,
) -> None:  # fmt: skip
    """Scores of own rows, to or from one block for each rank with columns."""
    total, pieces = sum(counts), sum(count > 0 for count in counts)
    rows = 2 * stack.rows * pieces
    stack._compute(
        f"{phase}/{layer}/{name}", kind, "gather" if kind is Kind.GATHER else "scatter_add",
        phase, layer, rows=rows, width=-(-total // pieces), source_rows=2 * stack.rows,
        bytes=4 * stack.rows * total * stack.shape.element_bytes, **facts,
    )  # fmt: skip


def _own_blocks(stack: MixtureSteps, counts: tuple[int, ...]) -> dict[str, Any]:
    """Facts of copying own heads' scores between blocks by owner of the rows and two matrices."""
    rows, width = 2 * stack.num_nodes, counts[stack.rank]
    size = 2 * rows * width * stack.shape.element_bytes
    return {"rows": rows, "width": width, "source_rows": rows, "bytes": size}


def _transfer(
    stack: MixtureSteps, name: str, phase: Phase, layer: int, sent: tuple[int, ...],
    allocates: tuple[tuple[str, int], ...],
) -> None:  # fmt: skip
    s, counts = stack.shape.element_bytes, stack.relayouts.score_heads[layer - 1]
    whole = 2 * max(stack.rows * sum(counts), stack.num_nodes * counts[stack.rank]) * s
    total = sum(sent)
    stack.chain.add(
        Step(
            name=f"{phase}/{layer}/{name}", kind=Kind.ALL_TO_ALL, op="all_to_all", lane=Lane.COMM,
            phase=phase, layer=layer, rows=total // s, width=max(counts), bytes=total,
            send_bytes=sent, buffer_bytes=whole, group=stack.peers.group, allocates=allocates,
        )
    )  # fmt: skip
