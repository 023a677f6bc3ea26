"""A small graph that stands in for the graph of a profile: equal degrees, halo, batches and reuse.

Vertices are the leaves of a binary tree of nested communities. An edge first draws a level, level l
with weight q^l (0 is the whole graph, the last one communities of a few dozen vertices), then its
second end among the vertices of that community, both ends by log-normal weights. A larger q makes a
more local graph; q is bisected until a METIS partition has the profile's halo per vertex.

What scales: per-vertex figures at equal numbers of parts, and shares of the graph that a batch of
an equal share of the vertices reaches. `compare` measures both and prints what is left as error.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.frontier import occupancy_frontier
from gnnbench.data.graph import Graph, from_edges
from gnnbench.data.partition import partition, report
from gnnbench.data.profile import GraphProfile
from gnnbench.data.splits import class_features, random_split
from gnnbench.errors import SpecError

PARTS = (2, 4, 8)
FANOUTS = (10, 10)
CACHED = (0.01, 0.1, 0.25)
"""Shares of the vertices whose rows a cache holds, by degree."""
Floats = NDArray[np.float64]

_LEAF, _LEAF_DEGREES = 32, 4
"""A leaf community has so many vertices, or so many times the mean degree if that is more."""
_CORRECTIONS, _DAMPING = 2, 0.9
_LOCAL = (0.5, 64.0)
_BISECTIONS = 9
_ROUNDS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """One figure of the profile and of the scaled graph; q was fitted to the `tuned` one."""

    name: str
    profile: float
    scaled: float
    tuned: bool = False

    @property
    def error(self) -> float:
        return self.scaled / self.profile - 1 if self.profile else 0.0


def synthesise(profile: GraphProfile, num_nodes: int, *, seed: int = 0) -> tuple[Graph, float]:
    """A graph of so many vertices with the profile's degrees and, where it has a curve, its halo.

    Returns:
        The graph, with features, labels and a split as the profile has them, and q.

    Raises:
        SpecError: fewer vertices than the mean degree needs.
    """
    mean = profile.degree_mean
    if num_nodes < max(4 * mean, 2 * _LEAF) or num_nodes > max(profile.num_nodes, 1):
        least, most = round(max(4 * mean, 2 * _LEAF)), profile.num_nodes
        raise SpecError(
            f"--synthesise {num_nodes}: allowed {least:,} to {most:,}, for degrees of "
            f"{mean:.3g} on average"
        )
    target = _target(profile)
    low, high = _LOCAL
    q = 1.0
    if target is None:
        return _finish(_draw(profile, num_nodes, q, seed), profile, seed), q
    parts, halo, method = target
    tried: list[tuple[float, float]] = []
    for _ in range(_BISECTIONS):
        q = float(np.sqrt(low * high))
        found = _halo(_draw(profile, num_nodes, q, seed), parts, method, seed)
        tried.append((abs(found - halo), q))
        low, high = (q, high) if found > halo else (low, q)
    # The halo of METIS is not quite monotonic in q: the last one tried need not be the nearest.
    q = min(tried)[1]
    return _finish(_draw(profile, num_nodes, q, seed), profile, seed), q


def compare(profile: GraphProfile, graph: Graph, *, seed: int = 0) -> list[Match]:
    """Degrees, halos, batches and reuse of the scaled graph beside those of the profile."""
    degrees = np.asarray(graph.in_degrees(), np.float64)
    found = [Match(name="mean degree", profile=profile.degree_mean, scaled=float(degrees.mean()))]
    values, counts = (np.asarray(column, np.float64) for column in profile.histogram())
    for quantile in (0.5, 0.9, 0.99):
        found.append(
            Match(
                name=f"degree, quantile {quantile:g}",
                profile=_quantile(profile, quantile),
                scaled=float(np.quantile(degrees, quantile)),
            )
        )
    target = _target(profile)
    methods = {point.method for point in profile.halo}
    for method in sorted(methods & {"metis-vol", "metis-cut"})[:1]:
        for parts in PARTS:
            found.append(
                Match(
                    name=f"halo per vertex, {parts} parts, {method}",
                    profile=profile.expected_halo(parts, method)[0].halo_per_node,
                    scaled=_halo(graph, parts, method, seed),
                    tuned=target is not None and target[0] == parts,
                )
            )
    if profile.num_train:
        found += _batches(profile, graph, values, counts, seed)
    for share in CACHED:
        found.append(
            Match(
                name=f"hits of a cache of {100 * share:g} % by degree",
                profile=_hits(values, counts, share),
                scaled=_hits(degrees, np.ones_like(degrees), share),
            )
        )
    return found


def _target(profile: GraphProfile) -> tuple[int, float, str] | None:
    """Parts, halo and partitioner that q is fitted to; None without a curve of METIS."""
    for method in ("metis-cut", "metis-vol"):
        if any(point.method == method and point.halo_per_node > 0 for point in profile.halo):
            parts = PARTS[len(PARTS) // 2]
            return parts, profile.expected_halo(parts, method)[0].halo_per_node, method
    return None


def _draw(profile: GraphProfile, num_nodes: int, q: float, seed: int) -> Graph:
    """Exactly the profile's mean degree, drawn in rounds until so many distinct edges are there."""
    rng = np.random.default_rng(seed)
    wanted = _degrees(profile, num_nodes, rng)
    weights = wanted.copy()
    for _ in range(_CORRECTIONS):
        # Repeats and full communities take edges from hubs: give them more to draw with.
        pairs = _pairs(profile, weights, q, rng)
        had = np.bincount(np.concatenate(pairs), minlength=num_nodes)
        had = had * wanted.sum() / max(had.sum(), 1)
        weights *= (wanted / np.maximum(had, 0.5)) ** _DAMPING
    src, dst = _pairs(profile, weights, q, rng)
    ids = rng.permutation(num_nodes)
    community = np.empty(num_nodes, np.int64)
    community[ids] = np.arange(num_nodes) * max(profile.num_classes, 1) // num_nodes
    return from_edges(
        f"{profile.name}-{num_nodes}",
        ids[src],
        ids[dst],
        num_nodes,
        undirected=profile.undirected,
        labels=community,
        num_classes=max(profile.num_classes, 1),
        notes={"scaled": profile.name, "q": q, "seed": seed},
    )


def _degrees(profile: GraphProfile, num_nodes: int, rng: np.random.Generator) -> Floats:
    """A degree for each vertex, as the profile's are distributed, with its mean."""
    if profile.degree_counts:
        values, counts = (np.asarray(column, np.float64) for column in profile.histogram())
        drawn = rng.choice(values, num_nodes, p=counts / counts.sum())
    else:
        drawn = np.exp((profile.degree_spread or 0.0) * rng.standard_normal(num_nodes))
        drawn *= profile.degree_mean / drawn.mean()
    # No vertex can have more neighbours than there are vertices.
    drawn = np.clip(drawn, 0.25, num_nodes / 4)
    return np.asarray(drawn * profile.degree_mean / drawn.mean(), np.float64)


def _pairs(
    profile: GraphProfile, weights: Floats, q: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Distinct edges between places in the tree, as many as the profile's mean degree asks for."""
    num_nodes = len(weights)
    sums = np.concatenate([[0.0], np.cumsum(weights)])
    leaf = max(_LEAF, _LEAF_DEGREES * profile.degree_mean)
    levels = max(int(np.log2(num_nodes / leaf)), 0)
    steps: Floats = q ** np.arange(levels + 1, dtype=np.float64)
    shares: Floats = steps / steps.sum()
    wanted = round(num_nodes * profile.degree_mean / (2 if profile.undirected else 1))
    kept = np.zeros(0, np.int64)
    for _ in range(_ROUNDS):
        missing = wanted - len(kept)
        if missing <= 0:
            break
        keys = _keys(sums, shares, missing + missing // 4 + 16, profile, rng)
        kept = np.unique(np.concatenate([kept, keys]))
    if len(kept) > wanted:
        kept = np.sort(rng.choice(kept, wanted, replace=False))
    return kept // num_nodes, kept % num_nodes


def _keys(
    sums: NDArray[np.float64],
    shares: NDArray[np.float64],
    draws: int,
    profile: GraphProfile,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Distinct pairs without loops, as first end times N plus second end."""
    num_nodes = len(sums) - 1
    level = rng.choice(len(shares), draws, p=shares)
    first = _places(sums, rng.random(draws) * sums[-1])
    blocks = 1 << level
    block = first * blocks // num_nodes
    start = -(-block * num_nodes // blocks)
    end = -(-(block + 1) * num_nodes // blocks)
    second = _places(sums, sums[start] + rng.random(draws) * (sums[end] - sums[start]))
    kept = first != second
    first, second = first[kept], second[kept]
    if profile.undirected:
        first, second = np.minimum(first, second), np.maximum(first, second)
    return np.unique(first * num_nodes + second)


def _places(sums: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.int64]:
    found = np.searchsorted(sums, points, side="right") - 1
    return np.clip(found, 0, len(sums) - 2)


def _finish(graph: Graph, profile: GraphProfile, seed: int) -> Graph:
    """Features that carry the class, and a split in the profile's proportions."""
    rng = np.random.default_rng(seed)
    labels = np.asarray(graph.labels)
    width = max(profile.num_features, 1)
    features = class_features(labels, width, graph.num_classes, 1.0, rng)
    graph = dataclasses.replace(graph, features=features)
    train = profile.num_train / max(profile.num_nodes, 1) or 0.6
    val = (profile.num_val or profile.num_train / 3) / max(profile.num_nodes, 1) or 0.2
    return random_split(graph, min(train, 0.9), min(val, 0.95 - min(train, 0.9)), seed)


def _halo(graph: Graph, parts: int, method: str, seed: int) -> float:
    name, _, objective = method.partition("-")
    assignment = partition(graph, parts, name, objective=objective or "vol", seed=seed)
    return report(graph, assignment, parts).halo_per_node


def _batches(
    profile: GraphProfile,
    graph: Graph,
    values: NDArray[np.float64],
    counts: NDArray[np.float64],
    seed: int,
) -> list[Match]:
    """Shares of the graph that a batch of an equal share of it reaches, and its repeats."""
    from gnnbench.data.sampling import NeighbourSampler

    batch = max(1024 * graph.num_nodes // profile.num_nodes, 8)
    whole = round(batch * profile.num_nodes / graph.num_nodes)
    vertices, edges = occupancy_frontier(
        values, counts, profile.num_train, FANOUTS, whole, undirected=profile.undirected
    )
    sampler = NeighbourSampler(
        np.asarray(graph.indptr), np.asarray(graph.indices), FANOUTS, seed=seed
    )
    rng, train = np.random.default_rng(seed), graph.train_nodes()
    drawn = [
        sampler.sizes(rng.choice(train, min(batch, len(train)), replace=False), 0, step)
        for step in range(8)
    ]
    mean = [np.mean([sizes[i] for sizes in drawn], axis=0) for i in range(2)]
    return [
        Match(
            name=f"share of vertices in a batch of {whole:,}",
            profile=vertices[0] / profile.num_nodes,
            scaled=float(mean[0][0]) / graph.num_nodes,
        ),
        Match(
            name="sampled edges per vertex of the batch",
            profile=sum(edges) / vertices[0],
            scaled=float(np.sum(mean[1])) / float(mean[0][0]),
        ),
    ]


def _hits(degrees: NDArray[Any], counts: NDArray[Any], share: float) -> float:
    """Share of the edges whose source is among the vertices of highest degree."""
    order = np.argsort(-degrees, kind="stable")
    degrees, counts = degrees[order].astype(float), counts[order].astype(float)
    room = share * counts.sum()
    taken = np.minimum(counts, np.maximum(room - (np.cumsum(counts) - counts), 0.0))
    return float((taken * degrees).sum() / max((counts * degrees).sum(), 1e-12))


def _quantile(profile: GraphProfile, quantile: float) -> float:
    """Of the degrees: by the histogram, else of the log-normal form (see `fitting`)."""
    if not profile.degree_counts:
        spread = profile.degree_spread or 0.0
        score = NormalDist().inv_cdf(quantile)
        return float(profile.degree_mean * np.exp(score * spread - spread**2 / 2))
    values, counts = (np.asarray(column, np.float64) for column in profile.histogram())
    order = np.argsort(values)
    place = np.searchsorted(np.cumsum(counts[order]), quantile * counts.sum())
    return float(values[order][min(int(place), len(values) - 1)])


def worst(matches: Sequence[Match]) -> Match:
    """The figure that is off most, the tuned one left out."""
    return max((m for m in matches if not m.tuned), key=lambda match: abs(match.error))
