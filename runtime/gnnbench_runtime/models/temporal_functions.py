"""Functions of temporal models with a way back of their own: fewer passes, less to keep.

`encoded`   phi(age) = cos(w age + b)
`gathered`  rows by id
`attended`  weighted sums of neighbours' rows by attention; the host has `attention_function`
`updated`   a GRU that reads memory, the other end's memory, an edge and an age

On the host they are compiled loops (`kernels.temporal_loops`) around matrix products; elsewhere
torch's operations, on tables padded to the fan-out.

Legend: N nodes, R queries, S edges, U nodes with memory, H heads, n, e, d columns, W = n + e + d.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from gnnbench.data.threads import Team
from gnnbench_runtime.kernels import loops, temporal_loops
from gnnbench_runtime.models.temporal_layers import OUT, SLOPE, full_places, table

_LEAST = 65_536  # values worth handing to another thread


def encoded(ages: Tensor, time: Tensor, bias: Tensor) -> Tensor:
    """Return cos(time * age + bias), [S, d], for ages [S]."""
    found: Tensor = _Encoded.apply(ages, time, bias, torch.is_grad_enabled())
    return found


def gathered(rows: Tensor, ids: Tensor) -> Tensor:
    """Return rows[ids]; ids repeat, and gradients are summed in their order."""
    if rows.device.type != "cpu":
        return rows[ids]
    found: Tensor = _Gathered.apply(rows, ids)
    return found


def attended(
    near: Tensor,
    edges: Tensor,
    ages: Tensor,
    encoding: tuple[Tensor, Tensor],
    keys: Tensor,
    biases: Tensor,
    places: Tensor,
    fanout: int,
    mask: Tensor,
) -> tuple[Tensor, Tensor]:
    """Attend to the sampled neighbours of each query, on tables padded to the fan-out.

    On the host, `attention_function.attention` does this and the products around it. An edge's row
    is x = [near, edge, phi(age)]. Its weight is the softmax, over the edges of its query, of
    LeakyReLU(x . key + bias), times its mask.

    Args:
        near: rows of the neighbours, [S, n].
        edges: their features, [S, e]; they get no gradient.
        ages: [S].
        encoding: frequencies and phases of phi, [d] each.
        keys: of the queries per head, [H, R, W].
        biases: [R, H].
        places: of the edges in a table [R, fan-out], rising, int64 [S].
        mask: is multiplied into the weights, [S, H]; empty without dropout.

    Returns:
        The weighted sums of rows [H, R, W], and of ones [R, H].
    """
    count = keys.shape[1]
    rows = torch.cat([near, edges, encoded(ages, *encoding)], 1)
    x = table(rows, places, count * fanout).view(count, fanout, rows.shape[1])
    full = full_places(places, count, fanout).unsqueeze(-1)
    scores = torch.bmm(x, keys.permute(1, 2, 0)) + biases.unsqueeze(1)
    scores = functional.leaky_relu(scores, SLOPE).masked_fill(~full, OUT)
    weights = torch.softmax(scores, 1) * full
    if len(mask):
        weights = weights * table(mask, places, count * fanout).view(count, fanout, len(keys))
    return torch.bmm(weights.transpose(1, 2), x).transpose(0, 1), weights.sum(1)


def updated(
    held: Tensor,
    edges: Tensor,
    ages: Tensor,
    has: Tensor,
    weights: tuple[Tensor, Tensor, Tensor, Tensor],
    encoding: tuple[Tensor, Tensor],
) -> Tensor:
    """Apply stored messages to memory: GRU([memory, other, edge, phi(age)], memory), [U, d].

    On the host nodes without a message are left out; elsewhere finding them would wait for the
    device.

    Args:
        held: memory of U nodes, and of the other ends of their messages, [U, 2 d].
        edges: features of the messages' events, [U, e].
        ages, has: of the messages; has is 1 or 0, and 0 leaves the memory as it is, [U].
        weights: of the input [3 d + e, 3 d] and its bias, of the state [d, 3 d] and its bias; the
            columns are those of reset, update and candidate.
        encoding: frequencies and phases of phi, [d] each.
    """
    with_way_back = torch.is_grad_enabled()
    given: tuple[Tensor, ...] = (held, edges, ages, has)
    some = has.nonzero().view(-1) if held.device.type == "cpu" else has
    if len(some) < len(has):
        given = tuple(tensor.index_select(0, some) for tensor in given)
    found: Tensor = _Updated.apply(*given, *weights, *encoding, with_way_back)
    if len(some) < len(has):
        return held[:, : found.shape[1]].index_copy(0, some, found)
    return found


class _Encoded(Function):
    @staticmethod
    def forward(ctx: Any, ages: Tensor, time: Tensor, bias: Tensor, with_way_back: bool) -> Tensor:
        cosine, sine = waves(ages, time, bias, with_way_back)
        ctx.save_for_backward(ages, sine)
        return cosine

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        ages, sine = ctx.saved_tensors
        arguments = sine.mul_(gradients[0]).neg_()
        return None, ages @ arguments, arguments.sum(0), None


class _Gathered(Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, ids: Tensor) -> Tensor:
        ctx.ids, ctx.shape = ids, rows.shape
        return rows.index_select(0, ids)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        found = gradients[0].new_zeros(ctx.shape)
        _add_rows(found, ctx.ids, gradients[0].contiguous())
        return found, None


class _Updated(Function):
    """Memory is the input of the GRU and its state, so one product serves both where gates add."""

    @staticmethod
    def forward(
        ctx: Any,
        held: Tensor,
        edges: Tensor,
        ages: Tensor,
        has: Tensor,
        input: Tensor,
        input_bias: Tensor,
        state: Tensor,
        state_bias: Tensor,
        time: Tensor,
        bias: Tensor,
        with_way_back: bool,
    ) -> Tensor:
        d = len(time)
        memory, other = held[:, :d], held[:, d:]
        then, sine = waves(ages, time, bias, with_way_back)
        gates = 2 * d
        # Columns: reset, update, candidate of the input, candidate of the state.
        own = torch.cat(
            [input[:d, :gates] + state[:, :gates], input[:d, gates:], state[:, gates:]], 1
        )
        shift = torch.cat(
            [input_bias[:gates] + state_bias[:gates], input_bias[gates:], state_bias[gates:]]
        )
        made = torch.addmm(shift, memory, own)
        given = made[:, : 3 * d]
        given.addmm_(other, input[d:gates])
        if edges.shape[1]:
            given.addmm_(edges, input[gates:-d])
        given.addmm_(then, input[-d:])
        reset, update, fresh, kept = made.split(d, 1)
        made[:, :gates].sigmoid_()
        fresh.addcmul_(reset, kept).tanh_()
        if memory.device.type == "cpu":
            applied = memory.new_empty(memory.shape)
            _by_rows(temporal_loops.blend, held, made, has, applied)
        else:
            applied = torch.addcmul(memory, (1.0 - update) * has.unsqueeze(1), fresh - memory)
        if with_way_back:
            ctx.save_for_backward(held, edges, ages, has, input, made, then, sine)
        return applied

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        held, edges, ages, has, input, made, then, sine = ctx.saved_tensors
        d = then.shape[1]
        memory, other = held[:, :d], held[:, d:]
        reset, update, fresh, kept = made.split(d, 1)
        slopes = torch.empty_like(made)
        if made.device.type == "cpu":
            grad = gradients[0].contiguous()
            _by_rows(temporal_loops.blend_backward, grad, held, made, has, slopes)
        else:
            through = gradients[0] * has.unsqueeze(1)
            of_reset, of_update, of_fresh, of_kept = slopes.split(d, 1)
            torch.mul(through * (memory - fresh), update * (1.0 - update), out=of_update)
            torch.mul(through * (1.0 - update), 1.0 - fresh * fresh, out=of_fresh)
            torch.mul(of_fresh, reset, out=of_kept)
            torch.mul(of_kept * kept, 1.0 - reset, out=of_reset)
        given, gates = slopes[:, : 3 * d], 2 * d
        own, sums = memory.t() @ slopes, slopes.sum(0)
        of_input = torch.empty_like(input)
        of_input[:d] = own[:, : 3 * d]
        torch.mm(other.t(), given, out=of_input[d:gates])
        if edges.shape[1]:
            torch.mm(edges.t(), given, out=of_input[gates:-d])
        torch.mm(then.t(), given, out=of_input[-d:])
        of_state = torch.cat([own[:, :gates], own[:, 3 * d :]], 1)
        of_state_bias = torch.cat([sums[:gates], sums[3 * d :]])
        arguments = (given @ input[-d:].t()).mul_(sine).neg_()
        return (
            None,
            None,
            None,
            None,
            of_input,
            sums[: 3 * d],
            of_state,
            of_state_bias,
            ages @ arguments,
            arguments.sum(0),
            None,
        )


def row_starts(places: Tensor, count: int, fanout: int) -> Any:
    """Where the edges of each query begin and end, int64 [R + 1], from their places in a table."""
    return np.searchsorted(places.numpy(), np.arange(count + 1, dtype=np.int64) * fanout)


def attend(
    indptr: Any,
    near: Tensor,
    edges: Tensor,
    then: Tensor,
    keys: Tensor,
    biases: Tensor,
    mask: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Attend on the host, see `attended`: sums, total, raw scores and weights [S, H]."""
    heads, count, width = keys.shape
    raw, weight = (keys.new_empty((len(near), heads)) for _ in range(2))
    out, total = keys.new_empty((heads, count, width)), keys.new_empty((count, heads))
    given = near, edges, then, keys, biases, mask, raw, weight, out, total
    arrays = [_array(t) for t in given]
    _by_queries(
        lambda a, b: temporal_loops.attend(indptr, *arrays[:5], SLOPE, *arrays[5:], a, b),
        indptr,
        heads * width,
    )
    return out, total, raw, weight


def attend_backward(
    indptr: Any,
    given: tuple[Tensor, ...],
    mask: Tensor,
    raw: Tensor,
    weight: Tensor,
    grad: Tensor,
    grad_total: Tensor,
    sine: Tensor,
    of_near: Tensor,
) -> tuple[Tensor, Tensor]:
    """The way back of `attend`: gradients of keys and biases.

    Args:
        given: near, edges, then and keys.
        sine: replaced by the gradients of the encodings' arguments.
        of_near: written: the gradient of near.
    """
    keys = given[-1]
    of_keys, of_biases = torch.empty_like(keys), torch.empty_like(grad_total)
    scores = torch.empty_like(raw)
    before = [_array(t) for t in given]
    after = [_array(t) for t in (mask, raw, weight, grad, grad_total, sine, scores)]
    out = [_array(t) for t in (of_near, of_keys, of_biases)]
    _by_queries(
        lambda a, b: temporal_loops.attend_backward(indptr, *before, SLOPE, *after, *out, a, b),
        indptr,
        keys.shape[0] * keys.shape[2],
    )
    return of_keys, of_biases


def waves(ages: Tensor, time: Tensor, bias: Tensor, with_sine: bool) -> tuple[Tensor, Tensor]:
    """Cosine of time * age + bias, and its sine if it is needed."""
    count, d = len(ages), len(time)
    if ages.device.type == "cpu" and ages.dtype is torch.float32:
        cosine = time.new_empty((count, d))
        sine = time.new_empty((count if with_sine else 0, d))
        arrays = [_array(t.contiguous()) for t in (ages, time, bias)] + [
            _array(cosine),
            _array(sine),
        ]
        team = _team()
        team.run(
            lambda a, b: temporal_loops.encode(*arrays, a, b), team.split(count, _LEAST // d + 1)
        )
        return cosine, sine
    arguments = torch.addcmul(bias, ages.unsqueeze(1), time)
    return torch.cos(arguments), torch.sin(arguments) if with_sine else arguments[:0]


def _add_rows(out: Tensor, ids: Tensor, rows: Tensor) -> None:
    """out[ids[i]] += rows[i], in the order of i: threads share the columns."""
    team, width = _team(), rows.shape[1]
    ranges = team.split(width, 16) if rows.numel() >= _LEAST * team.threads else [(0, width)]
    arrays = _array(out), _array(ids), _array(rows)
    team.run(lambda a, b: loops.scatter_add_rows(*arrays, a, b), ranges)


def _by_queries(work: Any, indptr: Any, values: int) -> None:
    """Run a loop over ranges of queries with about as many edges; `values` per edge."""
    team = _team()
    team.run(work, team.split_rows(indptr, _LEAST // max(values, 1) + 1))


def _by_rows(loop: Any, *tensors: Tensor) -> None:
    """Run a loop over ranges of the rows of contiguous tensors; the last one is written."""
    arrays, team = [_array(tensor) for tensor in tensors], _team()
    count, width = tensors[-1].shape
    team.run(lambda a, b: loop(*arrays, a, b), team.split(count, _LEAST // width + 1))


def _array(tensor: Tensor) -> Any:
    return tensor.detach().numpy()


def _team() -> Team:
    return _teams(torch.get_num_threads())


@lru_cache(maxsize=4)
def _teams(threads: int) -> Team:
    """As many threads as torch has."""
    return Team(threads)
