"""Steps of one attention layer on column slices, for two or more ranks (used by the mixture).

The rows T = H W are sent to columns; each rank computes the weights of all entries for the heads
that its columns belong to, aggregates its columns, and the sums are sent back to rows. Scores are
computed from the columns where no slice cuts a head, otherwise from the rows, with an all-to-all of
their own (`whole_graph.relayout` explains why gradients of entries need none). On one rank the
layer is that of a single device. The runtime performs the steps in
`gnnbench_runtime.models.layers.attention_columns`.

Products are balanced to within one column. Softmax and other work on entries takes E k, which no
longer falls once several ranks share a head: with one head (the last layer) every rank computes the
weights of all entries.

Legend: N vertices, n own rows, E entries with the self loops, K heads, k those of own columns, d
the layer's width, f own columns of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gnnbench import work
from gnnbench.approaches.whole_graph.column_writer import ColumnWriter
from gnnbench.approaches.whole_graph.relayout import score_blocks_work
from gnnbench.approaches.writing.layers.attention import (
    Sums,
    weighted_sum,
    weights,
    weights_backward,
)
from gnnbench.steps import Ints, Phase, Size, larger


def forward(writer: ColumnWriter, layer: int) -> None:
    """Write the layer up to, not including, its normalisation and activation."""
    shape, n, s = writer.shape, writer.rows, writer.element_bytes
    fan_in, d = shape.dims[layer - 1], shape.dims[layer]
    where, phase, sums = f"forward/{layer}", Phase.FORWARD, own_sums(writer, layer)
    kept = writer.buffer(f"t{layer}", n, d)
    writer.gemm(f"{where}/gemm", "gemm_nn", phase, layer, (n, fan_in, d), allocates=kept)
    cut = bool(writer.relayouts.score_heads[layer - 1])
    if cut:
        _scores_to_columns(writer, layer)
    # T stays in columns for the gradients of the weights.
    columns = writer.buffer(f"columns{layer}", sums.rows, sums.width)
    writer.to_columns(phase, layer, d, columns)
    if np.any(sums.width):
        if not cut:
            room = writer.buffer("scores", 2 * sums.rows, sums.heads)
            _scores(writer, layer, sums.rows, sums.width, sums.heads, allocates=room)
        weights(writer, layer, sums)
        weighted_sum(writer, phase, layer, sums, allocates=writer.aggregated())
    writer.to_rows(phase, layer, d, allocates=writer.output(layer, d))
    writer.step(f"{where}/bias", work.bias(n, d, s), phase, layer)


def backward(writer: ColumnWriter, layer: int) -> None:
    """Write the gradients of the layer's parameters and, above layer 1, of its input."""
    shape, n, s = writer.shape, writer.rows, writer.element_bytes
    fan_in, d, heads = shape.dims[layer - 1], shape.dims[layer], shape.heads[layer - 1]
    where, phase, sums = f"backward/{layer}", Phase.BACKWARD, own_sums(writer, layer)
    writer.step(f"{where}/bias", work.column_sum(n, d, s), phase, layer)
    writer.to_columns(phase, layer, d, writer.arriving())
    cut = bool(writer.relayouts.score_heads[layer - 1])
    if np.any(sums.width):
        weights_backward(writer, layer, sums)
        weighted_sum(writer, phase, layer, sums, allocates=writer.aggregated())
        if not cut:
            _scores_backward(writer, layer, sums.rows, sums.width, sums.heads)
    writer.to_rows(phase, layer, d, allocates=writer.buffer(f"gt{layer}", n, d))
    if cut:
        _scores_to_rows(writer, layer)
        _scores_backward(writer, layer, n, d, heads)
    writer.gemm(f"{where}/weight", "gemm_tn", phase, layer, (fan_in, n, d))
    if layer > 1:
        grad = writer.buffer(f"g{layer - 1}", n, fan_in)
        writer.gemm(f"{where}/input", "gemm_nt", phase, layer, (n, d, fan_in), allocates=grad)


def own_sums(writer: ColumnWriter, layer: int) -> Sums:
    """All vertices and entries, and the heads of each rank's own columns."""
    nodes, slices = writer.num_nodes, writer.relayouts.heads[layer - 1][writer.own]
    return Sums(
        rows=nodes,
        sources=nodes,
        entries=writer.sizes[layer - 1].nonzeros + nodes,
        heads=np.array([part.count for part in slices]),
        width=writer.columns(writer.shape.dims[layer]),
        reuse=writer.sizes[layer - 1].reuse,
    )


def _scores(
    writer: ColumnWriter, layer: int, rows: Size, d: Size, heads: Size, **place: Any
) -> None:
    """Both scores of every row and head."""
    done = work.attention_scores(2 * rows, d, heads, writer.element_bytes)
    writer.step(f"forward/{layer}/scores", done, Phase.FORWARD, layer, **place)


def _scores_backward(writer: ColumnWriter, layer: int, rows: Size, d: Size, heads: Size) -> None:
    done = work.attention_scores_backward(2 * rows, d, heads, writer.element_bytes)
    writer.step(f"backward/{layer}/scores", done, Phase.BACKWARD, layer)


def _scores_to_columns(writer: ColumnWriter, layer: int) -> None:
    """Scores of own rows and all heads become those of all vertices and own heads."""
    n, nodes, s = writer.rows, writer.num_nodes, writer.element_bytes
    heads, where, phase = writer.shape.heads[layer - 1], f"forward/{layer}", Phase.FORWARD
    counts, mine = writer.relayouts.score_heads[layer - 1], _own_heads(writer, layer)
    room = writer.buffer("row_scores", 2 * n, heads)
    _scores(writer, layer, n, writer.shape.dims[layer], heads, allocates=room)
    room = writer.buffer("row_blocks", 2 * n, sum(counts))
    writer.step(
        f"{where}/score_pack", score_blocks_work(n, counts, s), phase, layer, allocates=room
    )
    sent = writer.traffic.scores_to_columns(counts)[writer.own]
    room = writer.buffer("column_blocks", 2 * nodes, mine)
    elements = sent, 2 * (nodes - n) * mine, _larger_side(writer, layer)
    writer.transfer_blocks(f"{where}/scores_to_columns", phase, layer, elements, room)
    if mine.any():
        room = writer.buffer("scores", 2 * nodes, mine)
        copied = work.gather(2 * nodes, mine, 2 * nodes, s, ids=False)
        writer.step(f"{where}/score_unpack", copied, phase, layer, allocates=room)


def _scores_to_rows(writer: ColumnWriter, layer: int) -> None:
    """Gradients of own heads' scores go to the owners of the rows, and are added up there."""
    n, nodes, s = writer.rows, writer.num_nodes, writer.element_bytes
    heads, where, phase = writer.shape.heads[layer - 1], f"backward/{layer}", Phase.BACKWARD
    counts, mine = writer.relayouts.score_heads[layer - 1], _own_heads(writer, layer)
    if mine.any():
        room = writer.buffer("column_blocks", 2 * nodes, mine)
        copied = work.gather(2 * nodes, mine, 2 * nodes, s, ids=False)
        writer.step(f"{where}/score_pack", copied, phase, layer, allocates=room)
    sent = writer.traffic.scores_to_columns(counts).T[writer.own]
    room = writer.buffer("row_blocks", 2 * n, sum(counts))
    elements = sent, 2 * n * (sum(counts) - mine), _larger_side(writer, layer)
    writer.transfer_blocks(f"{where}/scores_to_rows", phase, layer, elements, room)
    added, room = (
        score_blocks_work(n, counts, s, adds=True),
        writer.buffer("row_scores", 2 * n, heads),
    )
    writer.step(f"{where}/score_sum", added, phase, layer, allocates=room)


def _own_heads(writer: ColumnWriter, layer: int) -> Ints:
    """Heads that each rank has columns of: its k."""
    return np.array(writer.relayouts.score_heads[layer - 1])[writer.own]


def _larger_side(writer: ColumnWriter, layer: int) -> Size:
    """Elements of the larger of both buffers: scores by rows, or by columns."""
    by_rows = 2 * writer.rows * sum(writer.relayouts.score_heads[layer - 1])
    return larger(by_rows, 2 * writer.num_nodes * _own_heads(writer, layer))
