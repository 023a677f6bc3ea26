"""An attention layer on column slices, on two ranks at least.

The steps are those of `gnnbench.approaches.writing.layers.attention_columns`.

Legend: N vertices, n own rows, E entries with the self loops, K heads, k those of own columns,
F input width, H output width, f own columns of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gnnbench import work
from gnnbench.approaches.whole_graph.relayout import HeadSlice
from gnnbench.steps import Phase
from gnnbench_runtime.models.column_stack import ColumnStack
from gnnbench_runtime.models.layers.attention import (
    Cut,
    weighted_sum,
    weights,
    weights_backward,
)

ENDS = ("destination", "source")
Ends = tuple[Tensor, Tensor] | Tensor
"""Both ends' scores or their gradients: two (rows, heads), or one (2, rows, heads)."""


def forward(stack: ColumnStack, layer: int, h_nF: Tensor, phase: Phase) -> Tensor:
    """Return the buffer of the layer's output, own rows filled up to the activation."""
    shape, value, att = stack.shape, stack.parameters.value, stack.aggregation(layer).whole
    relayout, space, where = stack.relayout, stack.workspace, f"{phase}/{layer}"
    n, nodes, fan_out = stack.aggregation(layer).rows, att.rows, shape.dims[layer]
    t_nH, t_Nf, own = _held(stack, layer, n)
    product = h_nF, value[f"weight_{layer}"], t_nH
    stack.mm(f"{where}/gemm", "gemm_nn", phase, layer, product)
    scores_2Nk = space.get("scores", 2 * nodes, own.count).view(2, nodes, own.count)
    cut = bool(stack.relayouts.score_heads[layer - 1])
    if cut:
        scores_2nK, slices = _row_scores(stack, layer, n), stack.relayouts.heads[layer - 1]
        _score(stack, layer, t_nH, scores_2nK, slice(None), phase)
        stack.scores.to_columns(scores_2nK, slices, scores_2Nk, layer, phase)
    relayout.to_columns(t_nH, layer, phase, t_Nf)
    sums_Nf = relayout.aggregated(fan_out)
    if t_Nf.shape[1]:
        if not cut:
            _score(stack, layer, t_Nf, scores_2Nk, slice(own.first, own.stop), phase)
        place = _cut(stack, layer, own)
        weight_Ek = weights(stack, layer, att, (scores_2Nk[0], scores_2Nk[1]), phase, place)
        weighted_sum(stack, layer, att, weight_Ek, t_Nf, sums_Nf, phase, place)
    y_nH = stack.output(layer, fan_out)
    relayout.to_rows(sums_Nf, y_nH, layer, phase)
    with stack.step(f"{where}/bias", work.bias(n, fan_out, y_nH.element_size()), phase, layer):
        y_nH.add_(value[f"bias_{layer}"])
    return y_nH


def backward(stack: ColumnStack, layer: int, h_nF: Tensor, g_nH: Tensor) -> Tensor | None:
    """Fill the layer's parameter gradients; return that of its input above layer 1."""
    shape, grads, att = stack.shape, stack.parameters.grad, stack.aggregation(layer).whole
    relayout, space = stack.relayout, stack.workspace
    phase, where, (n, fan_out) = Phase.BACKWARD, f"backward/{layer}", g_nH.shape
    t_nH, t_Nf, own = _held(stack, layer, n)
    summed = work.column_sum(n, fan_out, g_nH.element_size())
    with stack.step(f"{where}/bias", summed, phase, layer):
        torch.sum(g_nH, 0, out=grads[f"bias_{layer}"])
    g_Nf = relayout.to_columns(g_nH, layer, phase)
    gt_Nf, nodes = relayout.aggregated(fan_out), att.rows
    cut = bool(stack.relayouts.score_heads[layer - 1])
    if not cut:
        # Other ranks' heads: their gradients come with the all-reduce.
        for end in ENDS:
            grads[f"attention_{end}_{layer}"].zero_()
    if t_Nf.shape[1]:
        place = _cut(stack, layer, own)
        ends = weights_backward(stack, layer, att, own.count, g_Nf, t_Nf, place)
        kept = "d" if shape.dropout > 0 else "a"
        used_Ek = space.get(f"{kept}{layer}", att.nonzeros, own.count)
        weighted_sum(stack, layer, att, used_Ek, g_Nf, gt_Nf, phase, place)
        if not cut:
            _score_backward(stack, layer, t_Nf, ends, gt_Nf, slice(own.first, own.stop))
    gt_nH = space.get(f"gt{layer}", n, fan_out)
    relayout.to_rows(gt_Nf, gt_nH, layer, phase)
    if cut:
        score_2Nk = space.get("score_grad", 2 * nodes, own.count).view(2, nodes, own.count)
        score_2nK, slices = _row_scores(stack, layer, n), stack.relayouts.heads[layer - 1]
        stack.scores.to_rows(score_2Nk, slices, score_2nK, layer)
        _score_backward(stack, layer, t_nH, score_2nK, gt_nH, slice(None))
    weight, weight_grad = stack.parameters.value[f"weight_{layer}"], grads[f"weight_{layer}"]
    stack.mm(f"{where}/weight", "gemm_tn", phase, layer, (h_nF.t(), gt_nH, weight_grad))
    if layer == 1:
        return None
    g_nF = space.get(f"g{layer - 1}", n, shape.dims[layer - 1])
    stack.mm(f"{where}/input", "gemm_nt", phase, layer, (gt_nH, weight.t(), g_nF))
    return g_nF


def _held(stack: ColumnStack, layer: int, n: int) -> tuple[Tensor, Tensor, HeadSlice]:
    """T in rows (n, H) and in columns (N, f), and the heads of the latter."""
    relayout, width = stack.relayout, stack.shape.dims[layer]
    columns = relayout.own_columns(width)
    t_nH = stack.workspace.get(f"t{layer}", n, width)
    t_Nf = stack.workspace.get(f"columns{layer}", relayout.num_nodes, columns)
    return t_nH, t_Nf, stack.relayouts.heads[layer - 1][relayout.rank]


def _cut(stack: ColumnStack, layer: int, own: HeadSlice) -> Cut:
    width = stack.shape.dims[layer] // stack.shape.heads[layer - 1]
    return Cut(first=own.first, width=width, offset=own.offset)


def _row_scores(stack: ColumnStack, layer: int, n: int) -> Tensor:
    heads = stack.shape.heads[layer - 1]
    return stack.workspace.get("row_scores", 2 * n, heads).view(2, n, heads)


def _score(
    stack: ColumnStack, layer: int, t: Tensor, scores: Tensor, heads: slice, phase: Phase
) -> None:
    """Fill both ends' scores of whole heads' columns."""
    (rows, width), count = t.shape, scores.shape[2]
    done = work.attention_scores(2 * rows, width, count, t.element_size())
    with stack.step(f"{phase}/{layer}/scores", done, phase, layer):
        for end, out in zip(ENDS, scores, strict=True):
            vectors = stack.parameters.value[f"attention_{end}_{layer}"][heads]
            stack.kernels.head_scores(t, vectors, out)


def _score_backward(
    stack: ColumnStack, layer: int, t: Tensor, score_grads: Ends, t_grad: Tensor, heads: slice
) -> None:
    """Add to the gradient of T, and fill that of these heads' vectors."""
    (rows, width), count, phase = t.shape, score_grads[0].shape[1], Phase.BACKWARD
    done = work.attention_scores_backward(2 * rows, width, count, t.element_size())
    with stack.step(f"backward/{layer}/scores", done, phase, layer):
        for end, grad in zip(ENDS, score_grads, strict=True):
            name = f"attention_{end}_{layer}"
            vectors, out = stack.parameters.value[name][heads], stack.parameters.grad[name][heads]
            stack.kernels.head_scores_backward(t, vectors, grad, t_grad, out)
