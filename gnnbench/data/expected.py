"""Expected sizes of layer-wise samples from degrees alone, where the graph is not there.

A histogram says that `counts[k]` vertices have `degrees[k]`. Out-degrees are taken equal to
in-degrees, training vertices to have the degrees of all, edges to lie at random: on clustered
graphs the estimates come out high, as `occupancy_frontier` does.

Legend: w vertices of a class, d their degree, E edges, q chance of a vertex to be a destination,
lambda = d times the share of edges that lead to destinations.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.keys import generator

Floats = NDArray[np.float64]
Sizes = tuple[tuple[float, ...], tuple[float, ...], float]
"""Vertices n_0 ... n_L and edges e_1 ... e_L, input layer first; edges looked at."""

_POINTS = 512
"""Points at which the random numbers of LABOR are integrated over."""


def classes(
    degrees: Sequence[float], counts: Sequence[float], num_train: int, batch: float
) -> tuple[Floats, Floats, Floats]:
    """Degree, vertices and chance to be a seed of each class: training vertices, then others."""
    degree, count = np.asarray(degrees, float), np.asarray(counts, float)
    share = min(num_train / max(count.sum(), 1e-300), 1.0)
    seed = np.zeros(2 * len(degree))
    seed[: len(degree)] = min(batch / num_train, 1.0) if num_train else 0.0
    return np.tile(degree, 2), np.concatenate([count * share, count * (1 - share)]), seed


def labor_frontier(
    degrees: Sequence[float],
    counts: Sequence[float],
    num_train: int,
    fanouts_from_seeds: Sequence[int],
    batch: int,
    *,
    layer_dependency: bool = False,
) -> Sizes:
    """Expected sizes of a LABOR batch of `batch` seeds.

    A vertex stays unseen if r_j exceeds f_j / deg(v) of all its destinations v in every hop j, so
    the chance is a mean over the r_j. Deviation known: few per cent on random graphs.
    """
    degree, weight, seed = classes(degrees, counts, num_train, batch)
    hops = len(fanouts_from_seeds)
    num_edges = max(float((degree * weight).sum()), 1e-300)
    r = generator(0).random((_POINTS, 1 if layer_dependency else hops))
    r = np.broadcast_to(r, (_POINTS, hops))
    drawn = np.zeros((_POINTS, 1))  # shares of edges to destinations that draw, per point
    unseen, fresh = 1 - seed, [seed]
    vertices, edges, scanned = [float((seed * weight).sum())], [], 0.0
    for hop, fanout in enumerate(fanouts_from_seeds):
        chance_dst = 1 - unseen
        picks = degree if fanout < 0 else np.minimum(degree, fanout)
        edges.append(float((chance_dst * weight * picks).sum()))
        scanned += float((chance_dst * weight * degree).sum())
        drawn = np.zeros((_POINTS, 1))
        for found, members in enumerate(fresh):
            useful = degree if found == 0 else np.maximum(degree - 1, 0)
            draws = np.zeros((_POINTS, len(degree)), bool)
            for later in range(found, hop + 1):
                limit = fanouts_from_seeds[later]
                bar = 1.0 if limit < 0 else np.minimum(limit / np.maximum(degree, 1e-300), 1.0)
                draws |= r[:, later, None] <= bar
            drawn += (draws @ (members * weight * useful))[:, None] / num_edges
        missed = (1 - seed) * np.exp(-drawn * degree).mean(axis=0)
        missed = np.minimum(missed, unseen)
        fresh.append(unseen - missed)
        unseen = missed
        vertices.append(float(((1 - unseen) * weight).sum()))
    return tuple(reversed(vertices)), tuple(reversed(edges)), scanned


def ladies_frontier(
    degrees: Sequence[float],
    counts: Sequence[float],
    num_train: int,
    drawn: int,
    layers: int,
    *,
    batch: int,
    ranks: int = 1,
    symmetric: bool = False,
    poisson: bool = False,
) -> Sizes:
    """Expected sizes of a rank's part of a LADIES batch of `batch` seeds.

    A vertex with c destinations among its neighbours has a column norm of about c times the mean;
    c is Poisson with mean lambda. With replacement the chance to be drawn is 1 - exp(-k p).
    """
    degree, weight, seed = classes(degrees, counts, num_train, batch)
    num_edges = max(float((degree * weight).sum()), 1e-300)
    column = 1 / (degree + 1) if symmetric else np.ones(len(degree))
    every, own = seed, seed / ranks
    vertices, edges, scanned = [float((own * weight).sum())], [], 0.0
    for _ in range(layers):
        leading = float((every * weight * degree).sum())
        mine = float((own * weight * degree).sum())
        near = degree * leading / num_edges
        rate = drawn / max(float((weight * near * column).sum()), 1e-300)
        if poisson:
            # At most one draw each, so that a rare vertex stands in for repeats of a common one.
            rate *= drawn / max(float((weight * _chosen(near, rate * column)).sum()), 1e-300)
        hit = -np.expm1(-rate * column)
        chosen = _chosen(near, rate * column)
        sigma = mine / max(leading, 1e-300)
        elsewhere = np.exp(-near * sigma) * _chosen(near * (1 - sigma), rate * column)
        kept = 1 - (1 - hit) * np.exp(-near * hit)
        edges.append(mine * float((weight * degree * kept).sum()) / num_edges)
        scanned += 2 * leading + mine
        every = 1 - (1 - every) * (1 - chosen)
        own = 1 - (1 - own) * (1 - np.maximum(chosen - elsewhere, 0))
        vertices.append(float((own * weight).sum()))
    return tuple(reversed(vertices)), tuple(reversed(edges)), scanned


def _chosen(near: Floats, rate: Floats) -> Floats:
    """Chance to be drawn with c ~ Poisson(near) destinations, each of which draws at a rate."""
    chance: Floats = -np.expm1(-near * -np.expm1(-rate))
    return chance


def expected_cut(parts: int, known: Sequence[tuple[int, float]]) -> float:
    """Share of the edges between parts, from (parts, share) of coarser or finer partitions.

    Shares go as a power of the parts between two points and beyond them, at most as if parts were
    drawn by lot, 1 - 1 / parts; which they are where nothing is known.
    """
    by_lot = 1 - 1 / parts
    points = sorted({p: c for p, c in known if p > 1 and c > 0}.items())
    if not points or parts == 1:
        return by_lot
    after = next((i for i, (p, _) in enumerate(points) if p >= parts), len(points) - 1)
    (p0, c0), (p1, c1) = points[max(after, 1) - 1], points[min(max(after, 1), len(points) - 1)]
    power = np.log(c1 / c0) / np.log(p1 / p0) if p1 != p0 else 0.0
    return float(min(c0 * (parts / p0) ** power, by_lot))


def saint_subgraph(
    degrees: Sequence[float],
    counts: Sequence[float],
    sampler: str,
    budget: int,
    length: int,
    *,
    undirected: bool = True,
) -> tuple[float, float]:
    """Expected vertices and edges of a subgraph of GraphSAINT; see `gnnbench.data.saint`.

    A vertex is visited in proportion to its chance per draw; edges are those that walks take, and
    those that vertices have by chance.
    """
    degree, weight = np.asarray(degrees, float), np.asarray(counts, float)
    nodes = max(float(weight.sum()), 1e-300)
    ends = max(float((weight * degree).sum()), 1e-300)
    if sampler == "whole":
        return nodes, float((weight * degree).sum())
    walked = 0.0
    if sampler == "node":
        near = float((weight * degree / (degree + 1) ** 2).sum()) / ends
        norms = 1 / (degree + 1) ** 2 + degree * near
        visits = budget * norms / max(float((weight * norms).sum()), 1e-300)
    else:
        steps = 1 if sampler == "edge" else length
        walked = float(budget * steps)
        visits = budget / nodes + walked * degree / ends
    chance = -np.expm1(-visits)
    share = float((weight * degree * chance).sum()) / ends
    taken = ends * -np.expm1(-walked * (2 if undirected else 1) / ends)
    return float((weight * chance).sum()), ends * share**2 + taken * (1 - share**2)
