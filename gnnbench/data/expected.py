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
) -> tuple[tuple[float, ...], tuple[float, ...], float, list[tuple[float, float, float]]]:
    """Expected sizes of a rank's part of a LADIES batch of `batch` seeds.

    The last two: edges looked at to restrict blocks; and, hop by hop from the seeds, what each of
    the ranks looks at that look for candidates together (rows, candidates, edges).

    A destination v among a vertex's neighbours draws it at a rate in proportion to the squared
    entry of Â, and destinations lie at random, so a vertex of degree d is missed with the chance
    exp(-d sum_v (share of the edges that lead to v) (1 - exp(-rate))). Poisson draws are taken at
    the rate at which as many distinct vertices are drawn.
    """
    degree, weight, seed = classes(degrees, counts, num_train, batch)
    num_edges = max(float((degree * weight).sum()), 1e-300)
    if symmetric:
        entries = np.outer(1 / (degree + 1), 1 / (degree + 1))
    else:
        entries = np.repeat(1 / np.maximum(degree, 1)[None, :] ** 2, len(degree), axis=0)
    every, own = seed, seed / ranks
    vertices, edges, scanned = [float((own * weight).sum())], [], 0.0
    near: list[tuple[float, float, float]] = []
    for _ in range(layers):
        leading, mine = every * weight * degree / num_edges, own * weight * degree / num_edges
        norms = float((weight * degree * (entries @ leading)).sum())
        rate = drawn / max(norms, 1e-300)
        if poisson:
            rate = _rate_of(drawn, rate, weight, degree, entries, leading)
        hit = -np.expm1(-rate * entries)
        kept = 1 - (1 - hit) * np.exp(-degree * (hit @ leading))[:, None]
        # The destination through which a vertex was found is no discovery.
        found, own_found = (
            mass - np.maximum(part - start, 0) * weight / num_edges
            for mass, part, start in ((leading, every, seed), (mine, own, seed / ranks))
        )
        missed = np.exp(-degree * (hit @ found))
        elsewhere = np.exp(-degree * own_found.sum()) * -np.expm1(
            -degree * (hit @ np.maximum(found - own_found, 0))
        )
        edges.append(float(((weight * degree) @ kept) @ mine))
        scanned += num_edges * float(mine.sum())
        share = float(leading.sum()) / ranks
        candidates = float((weight * -np.expm1(-degree * share)).sum())
        near.append((float((every * weight).sum()) / ranks, candidates, num_edges * share))
        every = 1 - (1 - every) * missed
        own = 1 - (1 - own) * (1 - np.maximum(1 - missed - elsewhere, 0))
        vertices.append(float((own * weight).sum()))
    return tuple(reversed(vertices)), tuple(reversed(edges)), scanned, near


def drawn_frontier(
    degrees: Sequence[float],
    counts: Sequence[float],
    num_train: int,
    fanouts_from_seeds: Sequence[int],
    batch: int,
    *,
    by_degree: bool,
    replacement: bool,
    scans: bool = False,
    undirected: bool = True,
) -> tuple[tuple[float, ...], tuple[float, ...], float]:
    """Expected vertices and edges of blocks, input layer first, and edges looked at.

    An edge leads to a vertex in proportion to its degree; the other neighbours of its destination
    are drawn by lot from all edges. Destinations draw anew in every hop (sampling section 3,
    estimator 2). `scans`: all neighbours are looked at, as where edges have weights; those are
    assumed to be equal. Deviation known: as `occupancy_frontier`'s on clustered graphs.
    """
    degree, weight = np.asarray(degrees, float), np.asarray(counts, float)
    ends = max(float((weight * degree).sum()), 1e-300)
    weights = degree if by_degree else np.ones(len(degree))
    seeds = np.full(len(degree), min(batch, num_train) / max(float(weight.sum()), 1e-300))
    unseen, fresh = [1 - seeds], [seeds]
    # Chance that a destination found in a hop has never drawn a given source: [hops, class, class].
    missed: list[Floats] = []
    vertices, edges, scanned = [float((weight * seeds).sum())], [], 0.0
    for fanout in fanouts_from_seeds:
        picks = degree if fanout < 0 else np.minimum(degree, fanout)
        if replacement and fanout >= 0:
            picks = np.where(degree > 0, float(fanout), 0.0)
        reached = weight * (1 - unseen[-1])
        edges.append(float((reached * picks).sum()))
        scanned += float((reached * degree).sum()) if by_degree or scans else 0.0
        again = replacement and fanout >= 0
        chance = _chances(degree, picks, weights, weight * degree / ends, replacement=again)
        once = 1 - chance
        missed = [before * once for before in missed] + [once]
        hits = np.zeros(len(degree))
        for hop, kept in enumerate(missed):
            # The neighbour through which a vertex was found is no discovery.
            useful = np.maximum(degree - 1, 0) if hop and undirected else degree
            hits += (weight * fresh[hop] * useful) @ (1 - kept)
        unseen.append((1 - seeds) * np.exp(-degree * hits / ends))
        fresh.append(unseen[-2] - unseen[-1])
        vertices.append(float((weight * (1 - unseen[-1])).sum()))
    return tuple(reversed(vertices)), tuple(reversed(edges)), scanned


def _chances(
    degree: Floats, picks: Floats, weights: Floats, share: Floats, *, replacement: bool
) -> Floats:
    """Chance that a row draws a given neighbour, [class of the row, class of the neighbour].

    Of n draws with replacement, 1 - (1 - E[w / (w + S)])^n, S the weights of the row's others:
    E[1 / (w + S)] is the integral over t of exp(-t w) E[exp(-t w')]^(degree - 1). Without
    replacement min(1, w / t), where t makes the row's chances add up to its picks.
    """
    others = np.maximum(degree - 1, 0)[:, None]
    if not replacement:
        low = np.zeros(len(degree))
        high = np.full(len(degree), degree.max() * weights.max() + 1.0)
        for _ in range(60):
            middle = (low + high) / 2
            ratio = np.minimum(weights[None, :] / np.maximum(middle, 1e-300)[:, None], 1)
            more = degree * (ratio @ share) > picks
            low, high = np.where(more, middle, low), np.where(more, high, middle)
        threshold = np.where(picks >= degree, 0.0, high)[:, None]
        return np.minimum(weights[None, :] / np.maximum(threshold, 1e-300), 1)
    least = max(float(weights[weights > 0].min(initial=np.inf)), 1e-9)
    most = max(float(weights.max()) * max(float(degree.max()), 1.0), least)
    t = np.geomspace(1e-4 / most, 40 / least, 300)
    each = np.exp(-np.outer(t, weights))
    of_others = np.log(np.maximum(each @ share, 1e-300))
    over = np.exp(others * of_others[None, :])
    once = np.trapezoid(over[:, None, :] * each.T[None, :, :], t, axis=2) * weights[None, :]
    found: Floats = 1 - (1 - np.clip(once, 0, 1)) ** picks[:, None]
    return found


def _rate_of(
    drawn: int, rate: float, weight: Floats, degree: Floats, entries: Floats, leading: Floats
) -> float:
    """The rate at which so many distinct vertices are drawn, or as good as all there are."""
    for _ in range(40):
        hit = -np.expm1(-rate * entries)
        found = float((weight * -np.expm1(-degree * (hit @ leading))).sum())
        if found >= 0.999 * drawn:
            break
        rate *= min(drawn / max(found, 1e-300), 2.0)
    return rate


def drawn_by_lot(
    degrees: Sequence[float],
    counts: Sequence[float],
    fanouts_from_seeds: Sequence[int],
    edges: Sequence[float],
) -> float:
    """Expected drawn edges that take a random number: those of vertices with more neighbours.

    Vertices of lower degree than the fan-out give all of their neighbours. Destinations of the
    first hop have the degrees of all vertices, those of later hops are reached in proportion to
    their degree.

    Args:
        degrees, counts: the histogram.
        fanouts_from_seeds: the hop next to the seeds first.
        edges: e_1 ... e_L, input layer first.
    """
    degree, weight = np.asarray(degrees, float), np.asarray(counts, float)
    found = 0.0
    for hop, (fanout, drawn) in enumerate(zip(fanouts_from_seeds, reversed(edges), strict=True)):
        if fanout >= 0:
            picks = (weight * degree if hop else weight) * np.minimum(degree, fanout)
            share = float(picks[degree > fanout].sum()) / max(float(picks.sum()), 1e-300)
            found += share * drawn
    return found


def expected_within(parts: int, cuts: Sequence[tuple[int, float]]) -> float:
    """Share of the edges within parts, from (parts, cut share) of coarser or finer partitions.

    The share goes as a power of the parts between two points and beyond them; it is at least that
    of parts drawn by lot, 1 / parts, which it is where nothing is known.
    """
    points = [(1, 1.0), *sorted({p: 1 - c for p, c in cuts if p > 1 and c < 1}.items())]
    if len(points) == 1:
        return 1 / parts
    after = next((i for i, (p, _) in enumerate(points) if p >= parts), len(points) - 1)
    (p0, c0), (p1, c1) = points[max(after, 1) - 1], points[max(after, 1)]
    power = np.log(c1 / c0) / np.log(p1 / p0)
    return float(min(max(c0 * (parts / p0) ** power, 1 / parts), 1.0))


def saint_subgraph(
    degrees: Sequence[float],
    counts: Sequence[float],
    sampler: str,
    budget: int,
    length: int,
    *,
    undirected: bool = True,
) -> tuple[float, float, float]:
    """Expected vertices, edges and edges looked at of a GraphSAINT subgraph; see `data.saint`.

    A vertex is visited in proportion to its chance per draw; edges are those that walks take, and
    those that vertices have by chance. Deviation known: edges up to 25 % high on block graphs.
    """
    degree, weight = np.asarray(degrees, float), np.asarray(counts, float)
    nodes = max(float(weight.sum()), 1e-300)
    ends = max(float((weight * degree).sum()), 1e-300)
    if sampler == "whole":
        return nodes, ends, ends
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
    edges = ends * share**2 + taken * (1 - share**2)
    return float((weight * chance).sum()), edges, ends * share
