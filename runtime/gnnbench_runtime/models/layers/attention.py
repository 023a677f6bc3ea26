"""An attention layer: edge scores, a softmax over each row, a weighted sum (GAT).

Scores are LeakyReLU with slope 0.2.

Legend: n rows, u source rows, E entries (self loops included), K heads, F input width, H output
width: K times a head's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnnbench.data.halo import transpose, with_self_loops
from gnnbench.data.keys import fold
from gnnbench.plan import Kind, Phase
from gnnbench_runtime.models.layers.pattern import Pattern

if TYPE_CHECKING:
    from gnnbench_runtime.models.stack import Stack

SLOPE = 0.2
_EDGES = 1 << 32  # keys the dropout of attention weights apart from that of rows


@dataclass(slots=True, kw_only=True)
class Attention(Pattern):
    """Who attends to whom in one layer on one rank: the pattern with self loops, both ways.

    Shapes: indptr int64 [n+1], indices int32 [E] in 0..u-1; transposed [u+1], [E]; `edges_t` int64
    [E] is where each transposed entry lies among the others; `edge_ids` int64 [E] tell entries
    apart on the whole graph, on whichever rank (absent without dropout).
    """

    indptr: Tensor
    indices: Tensor
    indptr_t: Tensor
    indices_t: Tensor
    edges_t: Tensor
    edge_ids: Tensor | None

    @classmethod
    def of(
        cls,
        indptr: NDArray[np.int64],
        indices: NDArray[np.int32],
        sources: NDArray[np.int64],
        num_nodes: int,
        *,
        with_ids: bool,
    ) -> Attention:
        """Add self loops to a pattern whose columns stand for the vertices `sources` [u].

        Its rows are the first of them. An entry's id is destination * num_nodes + source.
        """
        rows = len(indptr) - 1
        looped_indptr, looped = with_self_loops(indptr, indices)
        turned = transpose(looped_indptr, looped, len(sources))
        ids = None
        if with_ids:
            targets = np.repeat(sources[:rows], np.diff(looped_indptr))
            ids = torch.from_numpy(targets * num_nodes + sources[looped])
        return cls(
            indptr=torch.from_numpy(looped_indptr),
            indices=torch.from_numpy(looped),
            indptr_t=torch.from_numpy(turned.indptr),
            indices_t=torch.from_numpy(turned.indices),
            edges_t=torch.from_numpy(turned.edges),
            edge_ids=ids,
            rows=rows,
            source_rows=len(sources),
        )

    @property
    def nonzeros(self) -> int:
        return self.indices.numel()


def forward(stack: Stack, layer: int, h_uF: Tensor, phase: Phase) -> Tensor:
    """Return the buffer of the layer's output, its rows filled up to the activation."""
    shape, value, att = stack.shape, stack.parameters.value, stack.aggregation(layer)
    fan_out, heads, where = shape.dims[layer], shape.heads[layer - 1], f"{phase}/{layer}"
    n, u = att.rows, att.source_rows
    kernels, space = stack.kernels, stack.workspace
    rows = n if stack.exchange is not None else u
    t_uH = space.get(f"t{layer}", u, fan_out)
    weight = value[f"weight_{layer}"]
    stack._mm(f"{where}/gemm", "gemm_nn", phase, layer, h_uF[:rows], weight, t_uH[:rows])
    if stack.exchange is not None:
        stack.exchange.forward(t_uH, layer, phase)
    s = t_uH.element_size()
    to_nK, from_uK = _two(stack, f"scores{layer}", n, u, heads)
    size = (n + u) * (fan_out + heads) * s
    with stack._step(
        f"{where}/scores", Kind.ELEMENTWISE, "attention_scores", phase, layer, size,
        2 * (n + u) * fan_out,
    ):  # fmt: skip
        kernels.head_scores(t_uH[:n], value[f"attention_destination_{layer}"], to_nK)
        kernels.head_scores(t_uH, value[f"attention_source_{layer}"], from_uK)
    weight_EK = weights(stack, layer, att, to_nK, from_uK, phase)
    out = space.get(f"h{layer}", stack._out_rows(layer), fan_out)
    weighted_sum(stack, layer, att, weight_EK, t_uH, out[:n], phase)
    with stack._elementwise(f"{where}/bias", "bias", phase, layer, out[:n], 2):
        out[:n].add_(value[f"bias_{layer}"])
    return out


def backward(stack: Stack, layer: int, h_uF: Tensor, g_nH: Tensor) -> Tensor | None:
    """Fill the layer's parameter gradients; return that of its input above layer 1."""
    shape, grads, att = stack.shape, stack.parameters.grad, stack.aggregation(layer)
    value, phase, where = stack.parameters.value, Phase.BACKWARD, f"backward/{layer}"
    fan_in, fan_out, heads = shape.dims[layer - 1], shape.dims[layer], shape.heads[layer - 1]
    n, u, e, s = att.rows, att.source_rows, att.nonzeros, g_nH.element_size()
    kernels, space = stack.kernels, stack.workspace
    t_uH = space.get(f"t{layer}", u, fan_out)
    with stack._elementwise(f"{where}/bias", "column_sum", phase, layer, g_nH, 1):
        torch.sum(g_nH, 0, out=grads[f"bias_{layer}"])
    to_nK, from_uK = weights_backward(stack, layer, att, heads, g_nH, t_uH)
    gt_uH = space.get(f"gt{layer}", u, fan_out)
    used_EK = space.get(f"d{layer}" if shape.dropout > 0 else f"a{layer}", e, heads)
    weighted_sum(stack, layer, att, used_EK, g_nH, gt_uH, phase)
    with stack._step(
        f"{where}/scores", Kind.ELEMENTWISE, "attention_scores_backward", phase, layer,
        (n + u) * (3 * fan_out + heads) * s, 4 * (n + u) * fan_out,
    ):  # fmt: skip
        for end, grad_K, rows in (("destination", to_nK, n), ("source", from_uK, u)):
            name = f"attention_{end}_{layer}"
            kernels.head_scores_backward(
                t_uH[:rows], value[name], grad_K, gt_uH[:rows], grads[name]
            )
    if stack.exchange is not None:
        stack.exchange.backward(gt_uH, layer)
    rows = n if stack.exchange is not None else u
    weight, weight_grad = value[f"weight_{layer}"], grads[f"weight_{layer}"]
    h_t = h_uF[:rows].t()
    stack._mm(f"{where}/weight", "gemm_tn", phase, layer, h_t, gt_uH[:rows], weight_grad)
    if layer == 1:
        return None
    g_uF = space.get(f"g{layer - 1}", u, fan_in)
    stack._mm(f"{where}/input", "gemm_nt", phase, layer, gt_uH[:rows], weight.t(), g_uF[:rows])
    return g_uF


@dataclass(frozen=True, slots=True)
class Cut:
    """Columns that are a slice of the layer's: heads from `first` on, which are `width` wide.

    `offset` columns of the first head lie before the slice.
    """

    first: int = 0
    width: int = 0
    offset: int = 0


_WHOLE = Cut()


def weights(
    stack: Stack, layer: int, att: Attention, to_nK: Tensor, from_uK: Tensor, phase: Phase,
    cut: Cut = _WHOLE,
) -> Tensor:  # fmt: skip
    """Return the weights of entries (E, K) from the scores of both ends."""
    (n, heads), u, e, s = to_nK.shape, len(from_uK), att.nonzeros, to_nK.element_size()
    kernels, space, where = stack.kernels, stack.workspace, f"{phase}/{layer}"
    score_EK, weight_EK = space.get(f"e{layer}", e, heads), space.get(f"a{layer}", e, heads)
    size = 8 * (n + 1) + 4 * e + (n + min(u, e) + e) * heads * s
    with stack._step(f"{where}/sddmm", Kind.SDDMM, "sddmm_add", phase, layer, size, 3 * e * heads):
        kernels.sddmm_add(att.indptr, att.indices, to_nK, from_uK, SLOPE, score_EK)
    with stack._elementwise(f"{where}/softmax", "edge_softmax", phase, layer, score_EK, 2):
        kernels.segment_softmax(att.indptr, score_EK, weight_EK)
    return _dropped(stack, layer, att, weight_EK, f"d{layer}", phase, cut.first)


def weights_backward(
    stack: Stack, layer: int, att: Attention, heads: int, g_nH: Tensor, t_uH: Tensor,
    cut: Cut = _WHOLE,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the gradients of both ends' scores (n, K), (u, K) that these columns bring about.

    Every step is linear in the gradient of the sums, so those of parts of a head's columns add up.
    """
    phase, where, width = Phase.BACKWARD, f"backward/{layer}", g_nH.shape[1]
    n, u, e, s = att.rows, att.source_rows, att.nonzeros, g_nH.element_size()
    kernels, space = stack.kernels, stack.workspace
    edge_EK, weight_EK = space.get("edge_grad", e, heads), space.get(f"a{layer}", e, heads)
    size = 8 * (n + 1) + 4 * e + e * heads * s + (n + min(u, e)) * width * s
    with stack._step(f"{where}/sddmm", Kind.SDDMM, "sddmm_dot", phase, layer, size, 2 * e * width):
        kernels.sddmm_dot(att.indptr, att.indices, g_nH, t_uH, edge_EK, cut.width, cut.offset)
    # Dropout's gradient is dropout of the gradient, by the same key.
    edge_EK = _dropped(stack, layer, att, edge_EK, "edge_grad", phase, cut.first)
    with stack._elementwise(f"{where}/softmax", "edge_softmax_backward", phase, layer, edge_EK, 4):
        kernels.segment_softmax_backward(att.indptr, weight_EK, edge_EK, edge_EK)
        kernels.leaky_backward(space.get(f"e{layer}", e, heads), SLOPE, edge_EK)
    to_nK, from_uK = _two(stack, "score_grad", n, u, heads)
    with stack._elementwise(f"{where}/edge_sums", "edge_sums", phase, layer, edge_EK, 2):
        kernels.segment_sum(att.indptr, edge_EK, to_nK)
        kernels.segment_sum(att.indptr_t, edge_EK, from_uK, att.edges_t)
    return to_nK, from_uK


def weighted_sum(
    stack: Stack, layer: int, att: Attention, weight_EK: Tensor, x: Tensor, out: Tensor,
    phase: Phase, cut: Cut = _WHOLE,
) -> None:  # fmt: skip
    """Fill out (n, H) with weighted sums of x (u, H); backward, by the transposed pattern."""
    (e, heads), d, s = weight_EK.shape, x.shape[1], x.element_size()
    name, rows, source = f"{phase}/{layer}/spmm", len(out), len(x)
    size = 8 * (rows + 1) + 4 * e + e * heads * s + (min(source, e) + rows) * d * s
    back = phase is Phase.BACKWARD
    op = "spmm_weighted_t" if back else "spmm_weighted"
    indptr, indices = (att.indptr_t, att.indices_t) if back else (att.indptr, att.indices)
    with stack._step(name, Kind.SPMM, op, phase, layer, size, 2 * e * d):
        stack.kernels.spmm_heads(
            indptr, indices, weight_EK, x, out, att.edges_t if back else None, cut.width, cut.offset
        )


def _dropped(
    stack: Stack, layer: int, att: Attention, values_EK: Tensor, into: str, phase: Phase,
    first_head: int,
) -> Tensor:  # fmt: skip
    """Drop entries by their ids and heads while training; the same values otherwise."""
    rate, counters = stack.shape.dropout, stack.counters
    if counters is None or rate == 0:
        return values_EK
    out_EK = stack.workspace.get(into, *values_EK.shape)
    name = f"{phase}/{layer}/edge_dropout"
    with stack._elementwise(name, "edge_dropout", phase, layer, values_EK, 2):
        key = fold(*counters, layer, _EDGES)
        stack.kernels.dropout(values_EK, out_EK, rate, key, att.edge_ids, first_head)
    return out_EK


def _two(stack: Stack, name: str, n: int, u: int, heads: int) -> tuple[Tensor, Tensor]:
    """One buffer for a value per head of the rows as destinations and of the rows as sources."""
    both = stack.workspace.get(name, n + u, heads)
    return both[:n], both[n:]
