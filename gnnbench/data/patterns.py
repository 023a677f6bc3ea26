"""Generated graphs of unlike kinds: a web crawl, a grid, stars, and two sides.

They differ in what decides the speed of a sparse product: how near neighbours lie in the order of
the vertices, and how unequal degrees are. Degrees are means of what is drawn; repeats and self
loops are dropped, so that graphs have up to a few per cent fewer edges.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.generator_values import pattern_problems, task_problems
from gnnbench.data.graph import Graph, from_edges
from gnnbench.data.splits import random_split, synthetic_task
from gnnbench.strict import raise_all

Ids = NDArray[np.int64]

_SITE = 200.0  # mean pages of a site
_INSIDE, _HUBS = 0.75, 0.15  # shares of links within a site, and to the known pages of the web


def web(
    num_nodes: int,
    mean_degree: float,
    *,
    num_features: int = 0,
    num_classes: int = 0,
    seed: int = 0,
    name: str = "web",
) -> Graph:
    """Draw an undirected graph like a crawl of the web, in crawl order.

    Sites are ranges of ids with sizes of a heavy tail. Three of four links stay in their site, most
    of them near their page or to the first pages of the site; few pages have most of the links
    between sites. Degrees have a heavy tail. Source: link locality as in Boldi and Vigna, WWW 2004.
    """
    rng = _checked("web", num_nodes, mean_degree, seed)
    sizes = np.ceil(_SITE / 3.0 * (1.0 - rng.random(max(num_nodes // 20, 1))) ** (-1.0 / 1.5))
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    starts = np.append(starts[starts < num_nodes], num_nodes)
    count = round(num_nodes * mean_degree / 2)
    source = _heavy(num_nodes, count, 2.3, rng)
    site = np.searchsorted(starts, source, side="right") - 1
    low, high = starts[site], starts[site + 1]
    kind = rng.random(count)
    # Within a site, half of the links go to its first pages (menus), half to pages nearby.
    depth = (high - low) * rng.random(count) ** 4
    near = source + np.sign(rng.random(count) - 0.5) * np.ceil(
        8.0 * (1.0 - rng.random(count)) ** -0.7
    )
    inside = np.where(rng.random(count) < 0.5, low + depth, near)
    inside = np.clip(inside, low, high - 1)
    known = num_nodes * rng.random(count) ** 6
    anywhere = num_nodes * rng.random(count)
    target = np.where(kind < _INSIDE, inside, np.where(kind < _INSIDE + _HUBS, known, anywhere))
    return _made(name, source, target, num_nodes, num_features, num_classes, seed)


def grid(
    num_nodes: int,
    mean_degree: float,
    *,
    num_features: int = 0,
    num_classes: int = 0,
    seed: int = 0,
    name: str = "grid",
) -> Graph:
    """Make an undirected grid of two dimensions, row by row: each vertex and the nearest ones.

    Degrees are equal except at the borders; `seed` draws only features, labels and split.
    """
    _checked("grid", num_nodes, mean_degree, seed)
    side = max(1, int(np.sqrt(num_nodes)))
    half = max(1, round(mean_degree / 2))
    reach = int(np.ceil(np.sqrt(half))) + 1
    steps = [
        (dx * dx + dy * dy, dx, dy)
        for dy in range(reach + 1)
        for dx in range(-reach, reach + 1)
        if dy > 0 or dx > 0
    ]
    ids = np.arange(num_nodes)
    sources, targets = [], []
    for _, dx, dy in sorted(steps)[:half]:
        there = ids % side + dx
        found = ids + dx + dy * side
        kept = (there >= 0) & (there < side) & (found < num_nodes)
        sources.append(ids[kept])
        targets.append(found[kept])
    ends = np.concatenate(sources), np.concatenate(targets)
    return _made(name, *ends, num_nodes, num_features, num_classes, seed)


def stars(
    num_nodes: int,
    mean_degree: float,
    *,
    num_features: int = 0,
    num_classes: int = 0,
    seed: int = 0,
    name: str = "stars",
) -> Graph:
    """Draw an undirected graph in which few hubs, at random ids, have half of all edge ends."""
    rng = _checked("stars", num_nodes, mean_degree, seed)
    count = round(num_nodes * mean_degree / 2)
    hubs = rng.permutation(num_nodes)[: max(1, num_nodes // 500)]
    place = (len(hubs) * rng.random(count) ** 2).astype(np.int64)
    return _made(
        name,
        hubs[place],
        rng.integers(0, num_nodes, count),
        num_nodes,
        num_features,
        num_classes,
        seed,
    )


def bipartite(
    num_nodes: int,
    mean_degree: float,
    *,
    num_features: int = 0,
    num_classes: int = 0,
    seed: int = 0,
    name: str = "bipartite",
) -> Graph:
    """Draw an undirected graph of two sides: users, then a tenth as many items of unequal fame."""
    rng = _checked("bipartite", num_nodes, mean_degree, seed)
    users = max(1, num_nodes - num_nodes // 10)
    count = round(num_nodes * mean_degree / 2)
    items = max(num_nodes - users, 1)
    return _made(
        name,
        rng.integers(0, users, count),
        num_nodes - items + (items * rng.random(count) ** 2.5).astype(np.int64),
        num_nodes,
        num_features,
        num_classes,
        seed,
    )


def _checked(kind: str, num_nodes: int, mean_degree: float, seed: int) -> np.random.Generator:
    problems = pattern_problems(num_nodes=num_nodes, mean_degree=mean_degree)
    raise_all(f"{kind}: {problem}" for problem in problems)
    return np.random.default_rng(seed)


def _heavy(num_nodes: int, count: int, exponent: float, rng: np.random.Generator) -> Ids:
    """Draw vertices in proportion to weights with a power law of this exponent."""
    weights = (1.0 - rng.random(num_nodes)) ** (-1.0 / (exponent - 1.0))
    running = np.cumsum(weights)
    found = np.searchsorted(running, rng.random(count) * running[-1])
    drawn: Ids = np.minimum(found, num_nodes - 1).astype(np.int64)
    return drawn


def _made(
    name: str,
    source: NDArray[np.generic],
    target: NDArray[np.generic],
    num_nodes: int,
    num_features: int,
    num_classes: int,
    seed: int,
) -> Graph:
    graph = from_edges(
        name,
        source.astype(np.int64),
        target.astype(np.int64),
        num_nodes,
        notes={"generator": name, "seed": seed},
    )
    return with_task(graph, num_features, num_classes, seed)


def with_task(graph: Graph, num_features: int, num_classes: int, seed: int) -> Graph:
    """The graph with a synthetic task and a random split, if features and classes are asked for."""
    if num_features and num_classes:
        return random_split(synthetic_task(graph, num_features, num_classes, seed), seed=seed)
    raise_all(f"generator: {problem}" for problem in task_problems(num_features, num_classes))
    return graph
