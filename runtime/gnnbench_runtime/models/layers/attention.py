"""An attention layer: edge scores, a softmax over each row, a weighted sum (GAT).

The steps are those of `gnnbench.approaches.writing.layers.attention`. Scores are LeakyReLU with
slope 0.2.

Legend: n rows, u source rows, E entries (self loops included), K heads, F input width, H output
width: K times a head's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gnnbench import work
from gnnbench.data.keys import fold
from gnnbench.steps import Phase
from gnnbench_runtime.models.patterns import Attention
from gnnbench_runtime.models.performer import Performer

SLOPE = 0.2
_EDGES = 1 << 32  # keys the dropout of attention weights apart from that of rows


@dataclass(frozen=True, slots=True)
class Cut:
    """Columns that are a slice of the layer's: heads from `first` on, which are `width` wide.

    `offset` columns of the first head lie before the slice.
    """

    first: int = 0
    width: int = 0
    offset: int = 0


WHOLE = Cut()


def forward(stack: Performer, layer: int, h_uF: Tensor, phase: Phase) -> Tensor:
    """Return the buffer of the layer's output, its rows filled up to the activation."""
    shape, att, rows = stack.shape, stack.aggregation(layer), stack.input_rows(layer)
    t_uH = stack.workspace.get(f"t{layer}", att.source_rows, shape.dims[layer])
    product = h_uF[:rows], stack.parameters.value[f"weight_{layer}"], t_uH[:rows]
    stack.mm(f"{phase}/{layer}/gemm", "gemm_nn", phase, layer, product)
    if stack.exchange is not None:
        stack.exchange.forward(t_uH, layer, phase)
    return attend(stack, layer, t_uH, phase)


def attend(stack: Performer, layer: int, t_uH: Tensor, phase: Phase) -> Tensor:
    """Return the buffer of the layer's output, given its transformed rows."""
    shape, value, att = stack.shape, stack.parameters.value, stack.aggregation(layer)
    fan_out, heads, where = shape.dims[layer], shape.heads[layer - 1], f"{phase}/{layer}"
    n, u, kernels, s = att.rows, att.source_rows, stack.kernels, t_uH.element_size()
    to_nK, from_uK = _two(stack, f"scores{layer}", n, u, heads)
    scored = work.attention_scores(n + u, fan_out, heads, s)
    with stack.step(f"{where}/scores", scored, phase, layer):
        kernels.head_scores(t_uH[:n], value[f"attention_destination_{layer}"], to_nK)
        kernels.head_scores(t_uH, value[f"attention_source_{layer}"], from_uK)
    weight_EK = weights(stack, layer, att, (to_nK, from_uK), phase)
    out = stack.output(layer, fan_out)
    weighted_sum(stack, layer, att, weight_EK, t_uH, out[:n], phase)
    with stack.step(f"{where}/bias", work.bias(n, fan_out, s), phase, layer):
        out[:n].add_(value[f"bias_{layer}"])
    return out


def backward(stack: Performer, layer: int, h_uF: Tensor, g_nH: Tensor) -> Tensor | None:
    """Fill the layer's parameter gradients; return that of its input above layer 1."""
    value, grads, phase = stack.parameters.value, stack.parameters.grad, Phase.BACKWARD
    fan_in, where = stack.shape.dims[layer - 1], f"backward/{layer}"
    gt_uH = attend_backward(stack, layer, g_nH)
    if stack.exchange is not None:
        stack.exchange.backward(gt_uH, layer)
    rows = stack.input_rows(layer)
    weight, weight_grad = value[f"weight_{layer}"], grads[f"weight_{layer}"]
    product = h_uF[:rows].t(), gt_uH[:rows], weight_grad
    stack.mm(f"{where}/weight", "gemm_tn", phase, layer, product)
    if layer == 1:
        return None
    g_uF = stack.workspace.get(f"g{layer - 1}", len(gt_uH), fan_in)
    stack.mm(f"{where}/input", "gemm_nt", phase, layer, (gt_uH[:rows], weight.t(), g_uF[:rows]))
    return g_uF


def attend_backward(stack: Performer, layer: int, g_nH: Tensor) -> Tensor:
    """Fill the gradients of bias and attention vectors; return that of the transformed rows."""
    shape, grads, att = stack.shape, stack.parameters.grad, stack.aggregation(layer)
    value, phase, where = stack.parameters.value, Phase.BACKWARD, f"backward/{layer}"
    fan_out, heads = shape.dims[layer], shape.heads[layer - 1]
    n, u, e, s = att.rows, att.source_rows, att.nonzeros, g_nH.element_size()
    kernels, space = stack.kernels, stack.workspace
    t_uH = space.get(f"t{layer}", u, fan_out)
    with stack.step(f"{where}/bias", work.column_sum(n, fan_out, s), phase, layer):
        torch.sum(g_nH, 0, out=grads[f"bias_{layer}"])
    to_nK, from_uK = weights_backward(stack, layer, att, heads, g_nH, t_uH)
    gt_uH = space.get(f"gt{layer}", u, fan_out)
    used_EK = space.get(f"d{layer}" if shape.dropout > 0 else f"a{layer}", e, heads)
    weighted_sum(stack, layer, att, used_EK, g_nH, gt_uH, phase)
    scored = work.attention_scores_backward(n + u, fan_out, heads, s)
    with stack.step(f"{where}/scores", scored, phase, layer):
        for end, grad_K, rows in (("destination", to_nK, n), ("source", from_uK, u)):
            name = f"attention_{end}_{layer}"
            kernels.head_scores_backward(
                t_uH[:rows], value[name], grad_K, gt_uH[:rows], grads[name]
            )
    return gt_uH


def weights(
    stack: Performer,
    layer: int,
    att: Attention,
    scores: tuple[Tensor, Tensor],
    phase: Phase,
    cut: Cut = WHOLE,
) -> Tensor:
    """Return the weights of entries (E, K) from the scores of both ends, (n, K) and (u, K)."""
    to_nK, from_uK = scores
    (n, heads), u, e, s = to_nK.shape, len(from_uK), att.nonzeros, to_nK.element_size()
    kernels, space, where = stack.kernels, stack.workspace, f"{phase}/{layer}"
    score_EK, weight_EK = space.get(f"e{layer}", e, heads), space.get(f"a{layer}", e, heads)
    added = work.sddmm_add(rows=n, nonzeros=e, heads=heads, source_rows=u, element_bytes=s)
    with stack.step(f"{where}/sddmm", added, phase, layer):
        kernels.sddmm_add(att.indptr, att.indices, to_nK, from_uK, SLOPE, score_EK)
    with stack.elementwise(f"{where}/softmax", "edge_softmax", phase, layer, score_EK, passes=2):
        kernels.segment_softmax(att.indptr, score_EK, weight_EK)
    return _dropped(stack, layer, att, weight_EK, f"d{layer}", phase, cut.first)


def weights_backward(
    stack: Performer,
    layer: int,
    att: Attention,
    heads: int,
    g_nH: Tensor,
    t_uH: Tensor,
    cut: Cut = WHOLE,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of both ends' scores (n, K), (u, K) that these columns bring about.

    Every step is linear in the gradient of the sums, so those of parts of a head's columns add up.
    """
    phase, where, width = Phase.BACKWARD, f"backward/{layer}", g_nH.shape[1]
    n, u, e, s = att.rows, att.source_rows, att.nonzeros, g_nH.element_size()
    kernels, space = stack.kernels, stack.workspace
    edge_EK, weight_EK = space.get("edge_grad", e, heads), space.get(f"a{layer}", e, heads)
    dotted = work.sddmm_dot(
        rows=n, nonzeros=e, width=width, heads=heads, source_rows=u, element_bytes=s
    )
    with stack.step(f"{where}/sddmm", dotted, phase, layer):
        kernels.sddmm_dot(att.indptr, att.indices, g_nH, t_uH, edge_EK, cut.width, cut.offset)
    # Dropout's gradient is dropout of the gradient, by the same key.
    edge_EK = _dropped(stack, layer, att, edge_EK, "edge_grad", phase, cut.first)
    op = "edge_softmax_backward"
    with stack.elementwise(f"{where}/softmax", op, phase, layer, edge_EK, passes=4):
        kernels.segment_softmax_backward(att.indptr, weight_EK, edge_EK, edge_EK)
        kernels.leaky_backward(space.get(f"e{layer}", e, heads), SLOPE, edge_EK)
    to_nK, from_uK = _two(stack, "score_grad", n, u, heads)
    with stack.step(f"{where}/edge_sums", work.edge_sums(e, heads, s), phase, layer):
        kernels.segment_sum(att.indptr, edge_EK, to_nK)
        kernels.segment_sum(att.indptr_t, edge_EK, from_uK, att.edges_t)
    return to_nK, from_uK


def weighted_sum(
    stack: Performer,
    layer: int,
    att: Attention,
    weight_EK: Tensor,
    x: Tensor,
    out: Tensor,
    phase: Phase,
    cut: Cut = WHOLE,
) -> None:
    """Fill out (n, H) with weighted sums of x (u, H); backward, by the transposed pattern."""
    e, heads = weight_EK.shape
    back = phase is Phase.BACKWARD
    indptr, indices = (att.indptr_t, att.indices_t) if back else (att.indptr, att.indices)
    summed = work.spmm_weighted(
        rows=len(out),
        nonzeros=e,
        width=x.shape[1],
        source_rows=len(x),
        heads=heads,
        element_bytes=x.element_size(),
        transpose=back,
    )
    places = att.edges_t if back else None
    with stack.step(f"{phase}/{layer}/spmm", summed, phase, layer):
        stack.kernels.spmm_heads(indptr, indices, weight_EK, x, out, places, cut.width, cut.offset)


def _dropped(
    stack: Performer,
    layer: int,
    att: Attention,
    values_EK: Tensor,
    into: str,
    phase: Phase,
    first_head: int,
) -> Tensor:
    """Drop entries by their ids and heads while training; the same values otherwise."""
    rate, counters = stack.shape.dropout, stack.counters
    if counters is None or rate == 0:
        return values_EK
    out_EK = stack.workspace.get(into, *values_EK.shape)
    name = f"{phase}/{layer}/edge_dropout"
    with stack.elementwise(name, "edge_dropout", phase, layer, values_EK, passes=2):
        key = fold(*counters, layer, _EDGES)
        stack.kernels.dropout(values_EK, out_EK, rate, key, att.edge_ids, first_head)
    return out_EK


def _two(stack: Performer, name: str, n: int, u: int, heads: int) -> tuple[Tensor, Tensor]:
    """One buffer for a value per head of the rows as destinations and of the rows as sources."""
    both = stack.workspace.get(name, n + u, heads)
    return both[:n], both[n:]
