"""Decoders with their gradients in closed form: scores of edges from the rows of their ends.

All are linear in each end: the score of (h, r, t') is <tail query(h, r), t'>, that of (h', r, t) is
<head query(r, t), h'>. So the corrupted ends of a whole batch are one product per side.

    dot        tail h            head t
    distmult   tail h * r        head r * t
    complex    tail h r          head conj(r) t, the first half of a row being its real part

Loss: cross-entropy of the positive edge against its corrupted ones, summed over both sides.
Source: Yang et al., ICLR 2015; Trouillon et al., ICML 2016; out-of-core reference section 12.
Deviation: one relation serves both sides (no inverse relations), and corrupted ends are uniform.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Decoder:
    """A decoder.

    Args:
        queries: from heads, relations and tails, each [b, d], to the tail and the head queries.
        back: from heads, relations, tails and the gradients of both queries to the gradients of
            heads, relations and tails.
    """

    queries: Callable[[Tensor, Tensor, Tensor], Pair]
    back: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


def _dot_queries(h: Tensor, r: Tensor, t: Tensor) -> Pair:
    return h, t


def _dot_back(
    h: Tensor, r: Tensor, t: Tensor, by_tail: Tensor, by_head: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return by_tail, torch.zeros_like(r), by_head


def _distmult_queries(h: Tensor, r: Tensor, t: Tensor) -> Pair:
    return h * r, r * t


def _distmult_back(
    h: Tensor, r: Tensor, t: Tensor, by_tail: Tensor, by_head: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return by_tail * r, by_tail * h + by_head * t, by_head * r


def times(a: Tensor, b: Tensor, *, conjugate: bool = False) -> Tensor:
    """Complex product of rows whose first half is real and whose second is imaginary.

    With `conjugate` that of conj(a) and b.
    """
    (x, y), (u, v) = a.chunk(2, dim=1), b.chunk(2, dim=1)
    if conjugate:
        return torch.cat([x * u + y * v, x * v - y * u], dim=1)
    return torch.cat([x * u - y * v, x * v + y * u], dim=1)


def _complex_queries(h: Tensor, r: Tensor, t: Tensor) -> Pair:
    return times(h, r), times(r, t, conjugate=True)


def _complex_back(
    h: Tensor, r: Tensor, t: Tensor, by_tail: Tensor, by_head: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    of_relation = times(h, by_tail, conjugate=True).add_(times(by_head, t, conjugate=True))
    return times(r, by_tail, conjugate=True), of_relation, times(r, by_head)


DECODERS = {
    "dot": Decoder(_dot_queries, _dot_back),
    "distmult": Decoder(_distmult_queries, _distmult_back),
    "complex": Decoder(_complex_queries, _complex_back),
}


@dataclass(slots=True)
class Scored:
    """A scored batch, as its backward pass needs it.

    Args:
        ends: heads, relations, tails [b, d], and corrupted ends [n, d].
        queries: of tails and heads, [b, d].
        shares: softmax over the positive (column 0) and the corrupted ends, per side [b, n + 1].
        loss: summed over the batch and both sides, a tensor of one value.
    """

    ends: tuple[Tensor, Tensor, Tensor, Tensor]
    queries: Pair
    shares: Pair
    loss: Tensor


def score(decoder: Decoder, h: Tensor, r: Tensor, t: Tensor, negatives: Tensor) -> Scored:
    """Score positive and corrupted edges, and compare them."""
    queries = decoder.queries(h, r, t)
    shares, loss = [], h.new_zeros(1)
    for query, true in zip(queries, (t, h), strict=True):
        scores = torch.empty((len(h), len(negatives) + 1), dtype=h.dtype, device=h.device)
        scores[:, 0] = (query * true).sum(1)
        torch.mm(query, negatives.T, out=scores[:, 1:])
        loss = loss + (torch.logsumexp(scores, 1) - scores[:, 0]).sum()
        shares.append(torch.softmax(scores, 1))
    return Scored((h, r, t, negatives), queries, (shares[0], shares[1]), loss)


def gradients(decoder: Decoder, scored: Scored) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the loss: of heads, relations, tails [b, d] and corrupted ends [n, d]."""
    h, r, t, negatives = scored.ends
    of_queries, of_true, of_negatives = [], [], torch.zeros_like(negatives)
    for query, share, true in zip(scored.queries, scored.shares, (t, h), strict=True):
        positive, corrupted = share[:, :1] - 1.0, share[:, 1:]
        of_queries.append((positive * true).addmm_(corrupted, negatives))
        of_true.append(positive * query)
        of_negatives.addmm_(corrupted.T, query)
    of_heads, of_relations, of_tails = decoder.back(h, r, t, of_queries[0], of_queries[1])
    return of_heads + of_true[1], of_relations, of_tails + of_true[0], of_negatives
