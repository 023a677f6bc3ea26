"""A layer of temporal attention on the host, up to its output's product, as one function.

Same sums as `TemporalAttention` on a tape, with fewer passes: queries without neighbours take part
in the product of their own rows only, gradients of rows are written where they belong, and nothing
is concatenated.

Legend: R queries, Q of them with neighbours, S edges, H heads, n, e, d columns, W = n + e + d.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function

from gnnbench_runtime.models.temporal_functions import attend, attend_backward, row_starts, waves


def attention(
    rows: Tensor,
    edges: Tensor,
    ages: Tensor,
    places: Tensor,
    fanout: int,
    heads: int,
    mask: Tensor,
    parameters: tuple[Tensor, ...],
) -> Tensor:
    """Return the output's product [R, d]; arguments as for `TemporalAttention.forward`.

    Args:
        mask: of attention weights [S, H]; empty without dropout.
        parameters: matrices and biases of queries, keys, values and output in turn, then
            frequencies and phases of the time encoding.
    """
    with_way_back = torch.is_grad_enabled()
    found: Tensor = _Attention.apply(
        rows, edges, ages, places, fanout, heads, mask, with_way_back, *parameters
    )
    return found


class _Attention(Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        edges: Tensor,
        ages: Tensor,
        places: Tensor,
        fanout: int,
        heads: int,
        mask: Tensor,
        with_way_back: bool,
        *parameters: Tensor,
    ) -> Tensor:
        query, query_bias, key, key_bias, value, value_bias, output, output_bias = parameters[:8]
        time, phase = parameters[8:]
        rows, edges = rows.contiguous(), edges.contiguous()
        count, d = len(rows) - len(ages), len(time)
        own, near = rows[:count], rows[count:]
        n, head = own.shape[1], d // heads
        starts = row_starts(places, count, fanout)
        some = torch.from_numpy(np.flatnonzero(np.diff(starts)))
        indptr = np.append(starts[some.numpy()], starts[-1])
        asking = own if len(some) == count else own.index_select(0, some)
        # A query is encoded at age 0.
        shift = torch.addmv(query_bias, query[n:].t(), torch.cos(phase))
        asked = torch.addmm(shift, asking, query[:n])
        towards = torch.bmm(
            asked.view(-1, heads, head).transpose(0, 1), key.view(-1, heads, head).permute(1, 2, 0)
        )
        biases = (asked * key_bias).view(-1, heads, head).sum(-1)
        then, sine = waves(ages, time, phase, with_way_back)
        sums, total, raw, weight = attend(indptr, near, edges, then, towards, biases, mask)
        found = torch.bmm(sums, value.view(-1, heads, head).transpose(0, 1)).transpose(0, 1)
        found = found + total.unsqueeze(-1) * value_bias.view(heads, head)
        found = found.reshape(len(some), d)
        out = torch.addmm(output_bias, own, output[d:])
        if len(some) == count:
            out.addmm_(found, output[:d])
        else:
            out.index_add_(0, some, found @ output[:d])
        if with_way_back:
            ctx.indptr, ctx.heads = indptr, heads
            made = asking, asked, towards, then, sine, sums, total, raw, weight, found
            ctx.save_for_backward(rows, edges, ages, some, mask, *made, *parameters)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, edges, ages, some, mask, *made = ctx.saved_tensors
        asking, asked, towards, then, sine, sums, total, raw, weight, found = made[:10]
        query, _, key, key_bias, value, value_bias, output, _, _, phase = made[10:]
        heads, (count, d) = ctx.heads, gradients[0].shape
        own, near = rows[:count], rows[count:]
        n, head = own.shape[1], d // heads
        grad = gradients[0].contiguous()
        part = grad if len(some) == count else grad.index_select(0, some)
        of_rows = torch.empty_like(rows)
        of_output = torch.empty_like(output)
        torch.mm(found.t(), part, out=of_output[:d])
        torch.mm(own.t(), grad, out=of_output[d:])
        of_found = (part @ output[:d].t()).view(-1, heads, head)
        of_total = (of_found * value_bias.view(heads, head)).sum(-1)
        of_value_bias = (of_found * total.unsqueeze(-1)).sum(0).view(-1)
        by_head = of_found.transpose(0, 1)
        of_value = torch.bmm(sums.transpose(1, 2), by_head)
        of_sums = torch.bmm(by_head, value.view(-1, heads, head).permute(1, 2, 0))
        of_towards, of_biases = attend_backward(
            ctx.indptr,
            (near, edges, then, towards),
            mask,
            raw,
            weight,
            of_sums,
            of_total,
            sine,
            of_rows[count:],
        )
        asked_by_head = asked.view(-1, heads, head)
        of_asked = torch.bmm(of_towards, key.view(-1, heads, head).transpose(0, 1)).transpose(0, 1)
        of_asked = of_asked + of_biases.unsqueeze(-1) * key_bias.view(heads, head)
        of_asked = of_asked.reshape(-1, d)
        of_key = torch.bmm(of_towards.transpose(1, 2), asked_by_head.transpose(0, 1))
        of_key_bias = (asked_by_head * of_biases.unsqueeze(-1)).sum(0).view(-1)
        if ctx.needs_input_grad[0]:
            of_own = torch.mm(grad, output[d:].t(), out=of_rows[:count])
            of_own.index_add_(0, some, of_asked @ query[:n].t())
        of_shift = of_asked.sum(0)
        of_query = torch.empty_like(query)
        torch.mm(asking.t(), of_asked, out=of_query[:n])
        torch.outer(torch.cos(phase), of_shift, out=of_query[n:])
        of_phase = sine.sum(0) - torch.sin(phase) * (query[n:] @ of_shift)
        return (
            of_rows if ctx.needs_input_grad[0] else None,
            *(None,) * 7,
            of_query,
            of_shift,
            of_key.transpose(0, 1).reshape(key.shape),
            of_key_bias,
            of_value.transpose(0, 1).reshape(value.shape),
            of_value_bias,
            of_output,
            grad.sum(0),
            ages @ sine,
            of_phase,
        )
