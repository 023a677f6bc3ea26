"""Made-up datasets: graphs (planted classes, R-MAT, uniform; `patterns`), a stream and triples.

Same seed, same dataset.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_type_hints

import numpy as np
from numpy.typing import NDArray

from gnnbench.data import generator_values as values
from gnnbench.data.graph import Graph, from_edges
from gnnbench.data.patterns import bipartite, grid, stars, web, with_task
from gnnbench.data.splits import class_features, random_split
from gnnbench.data.stream import EdgeStream
from gnnbench.data.synthetic_stream import synthetic_stream
from gnnbench.data.synthetic_triples import synthetic_triples
from gnnbench.data.triples import Triples
from gnnbench.errors import SpecError, UnknownName, suggest
from gnnbench.strict import convert, raise_all

_ROUNDS = 40  # of drawing again what fell on an edge that was there


def planted_partition(
    num_nodes: int,
    mean_degree: float,
    num_classes: int,
    num_features: int,
    *,
    homophily: float = 0.8,
    degree_exponent: float | None = 2.5,
    feature_noise: float = 1.0,
    train_fraction: float = 0.6,
    val_fraction: float = 0.2,
    weighted: bool = False,
    seed: int = 0,
    name: str = "planted",
) -> Graph:
    """Draw an undirected degree-corrected block graph whose features carry the class.

    Exactly round(num_nodes * mean_degree / 2) distinct edges, of which the share `homophily` joins
    nodes of one class. Expected degrees follow a power law of `degree_exponent` (None: equal),
    cut at sqrt(number of stored edges). Classes are equal in size and at random ids. `weighted`
    gives each edge a weight between 0.1 and 10, even on a logarithmic scale.

    Source: Karrer and Newman 2011 (degree-corrected block model), with fixed edge counts.
    Raises SpecError for settings no simple graph can meet.
    """
    _refuse(
        values.planted_problems(
            num_nodes=num_nodes,
            mean_degree=mean_degree,
            num_classes=num_classes,
            num_features=num_features,
            homophily=homophily,
            degree_exponent=degree_exponent,
            feature_noise=feature_noise,
            train_fraction=train_fraction,
            val_fraction=val_fraction,
        )
    )
    rng = np.random.default_rng(seed)
    num_edges = round(num_nodes * mean_degree / 2)
    labels = rng.permutation(num_nodes) % num_classes
    order = np.argsort(labels, kind="stable")
    weights = _power_law(num_nodes, mean_degree, degree_exponent, rng)[order]
    blocks = _Blocks(weights, labels[order], num_classes)
    num_inside = round(homophily * num_edges)
    even = _Blocks(np.ones(num_nodes), labels[order], num_classes)
    inside = _distinct_pairs((blocks.draw_inside, even.draw_inside), num_inside, num_nodes, rng)
    across = _distinct_pairs(
        (blocks.draw_across, even.draw_across), num_edges - num_inside, num_nodes, rng
    )
    pairs = order[np.concatenate([inside, across])]
    graph = from_edges(
        name,
        pairs[:, 0],
        pairs[:, 1],
        num_nodes,
        features=class_features(labels, num_features, num_classes, feature_noise, rng),
        labels=labels.astype(np.int64),
        num_classes=num_classes,
        notes={"generator": "planted_partition", "seed": seed},
        edge_weights=_scattered(len(pairs), seed) if weighted else None,
    )
    return random_split(graph, train_fraction, val_fraction, seed)


def _scattered(count: int, seed: int) -> NDArray[np.float64]:
    """Weights of edges, drawn apart from all else, so that the graph is the one without weights."""
    drawn: NDArray[np.float64] = 10.0 ** np.random.default_rng((seed, 1)).uniform(-1, 1, count)
    return drawn


def rmat(
    scale: int,
    edge_factor: float = 16,
    *,
    a: float = 0.57,
    b: float = 0.19,
    c: float = 0.19,
    num_features: int = 0,
    num_classes: int = 0,
    seed: int = 0,
    name: str = "rmat",
) -> Graph:
    """Draw an undirected R-MAT graph: 2**scale nodes, edge_factor edges drawn per node.

    Repeats and self loops are dropped as usual, so fewer edges stay. Ids are permuted. With
    features and classes asked for, `synthetic_task` and a random split are added.

    Source: Chakrabarti, Zhan, Faloutsos, SDM 2004; Graph500 uses the default a, b, c.
    """
    _refuse(values.rmat_problems(scale=scale, edge_factor=edge_factor, a=a, b=b, c=c))
    rng = np.random.default_rng(seed)
    num_nodes, num_drawn = 1 << scale, round(edge_factor * (1 << scale))
    src, dst = np.zeros(num_drawn, np.int64), np.zeros(num_drawn, np.int64)
    for _ in range(scale):
        quadrant = rng.random(num_drawn, np.float32)
        down = quadrant >= a + b
        right = ((quadrant >= a) & ~down) | (quadrant >= a + b + c)
        src, dst = 2 * src + down, 2 * dst + right
    ids = rng.permutation(num_nodes)
    notes: dict[str, object] = {"generator": "rmat", "seed": seed}
    graph = from_edges(name, ids[src], ids[dst], num_nodes, notes=notes)
    return with_task(graph, num_features, num_classes, seed)


def uniform(
    num_nodes: int,
    mean_degree: float,
    *,
    num_features: int = 0,
    num_classes: int = 0,
    seed: int = 0,
    name: str = "uniform",
) -> Graph:
    """Draw an undirected graph with round(num_nodes * mean_degree / 2) edges, all equally likely.

    With features and classes asked for, `synthetic_task` and a random split are added.
    """
    _refuse(values.degree_problems(num_nodes=num_nodes, mean_degree=mean_degree))
    rng = np.random.default_rng(seed)
    blocks = _Blocks(np.ones(num_nodes), np.zeros(num_nodes, np.int64), 1)
    num_edges = round(num_nodes * mean_degree / 2)
    pairs = _distinct_pairs((blocks.draw_inside, blocks.draw_inside), num_edges, num_nodes, rng)
    notes: dict[str, object] = {"generator": "uniform", "seed": seed}
    graph = from_edges(name, pairs[:, 0], pairs[:, 1], num_nodes, notes=notes)
    return with_task(graph, num_features, num_classes, seed)


GENERATORS: dict[str, Callable[..., Graph | EdgeStream | Triples]] = {
    "planted_partition": planted_partition,
    "rmat": rmat,
    "uniform": uniform,
    "web": web,
    "grid": grid,
    "stars": stars,
    "bipartite": bipartite,
    "synthetic_stream": synthetic_stream,
    "synthetic_triples": synthetic_triples,
}
_PROBLEMS: dict[str, Callable[..., list[str]]] = {
    "planted_partition": values.planted_problems,
    "rmat": values.rmat_problems,
    "uniform": values.uniform_problems,
    **dict.fromkeys(("web", "grid", "stars", "bipartite"), values.pattern_problems),
    "synthetic_stream": values.stream_problems,
    "synthetic_triples": values.triples_problems,
}


def generate(kind: str, **options: Any) -> Any:
    """Call a generator by name. Raises UnknownName for a name or option that does not exist."""
    if kind not in GENERATORS:
        raise UnknownName("dataset generator", kind, GENERATORS)
    parameters = inspect.signature(GENERATORS[kind]).parameters
    for option in options:
        if option not in parameters:
            raise UnknownName(f"option of generator {kind!r}:", option, parameters)
    needed = [n for n, p in parameters.items() if p.default is p.empty and n not in options]
    if needed:
        raise SpecError(f"generator {kind!r} needs {', '.join(needed)}")
    raise_all(f"generator {kind!r}: {problem}" for problem in option_problems(kind, options))
    return GENERATORS[kind](**options)


def kind(name: str) -> str:
    """The kind of dataset that a generator draws. Raises UnknownName."""
    if name not in GENERATORS:
        raise UnknownName("dataset generator", name, GENERATORS)
    drawn: str = get_type_hints(GENERATORS[name])["return"].kind
    return drawn


def option_problems(kind: str, options: Mapping[str, Any]) -> list[str]:
    """Return which options of a generator are unknown, missing, of a wrong type or out of range.

    Nothing is drawn.
    """
    parameters = inspect.signature(GENERATORS[kind]).parameters
    hints = get_type_hints(GENERATORS[kind])
    problems = [
        f"{name}: unknown option, {suggest(name, parameters)}"
        for name in options
        if name not in parameters
    ]
    for name, parameter in parameters.items():
        if name in options:
            least = {"low": 0} if hints[name] is int else {}  # counts, sizes and seeds
            convert(options[name], hints[name], name, problems, least)
        elif parameter.default is parameter.empty:
            problems.append(f"{name}: missing, expected a value")
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    return problems or _PROBLEMS[kind](**{**defaults, **options})


class _Blocks:
    """Nodes sorted by class, with running sums of weight, to draw ends in or out of a class."""

    def __init__(
        self, weights: NDArray[np.float64], labels: NDArray[np.int64], num_classes: int
    ) -> None:
        self.running = np.cumsum(weights)
        sums = np.bincount(labels, weights, minlength=num_classes)
        self.ends = np.cumsum(sums)
        self.starts, self.sums, self.labels = self.ends - sums, sums, labels

    def draw_inside(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw pairs of one class; a class has edges in proportion to its weight."""
        first = self._at(rng.random(count) * self.running[-1])
        own = self.labels[first]
        return np.stack([first, self._at(self.starts[own] + rng.random(count) * self.sums[own])], 1)

    def draw_across(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw pairs of two classes: the second end from all weight outside the first's class."""
        first = self._at(rng.random(count) * self.running[-1])
        own = self.labels[first]
        where = rng.random(count) * (self.running[-1] - self.sums[own])
        where += np.where(where >= self.starts[own], self.sums[own], 0)
        second = self._at(where)
        apart = self.labels[second] != own  # rounding at a class border can step over it
        return np.stack([first[apart], second[apart]], 1)

    def _at(self, position: NDArray[np.float64]) -> NDArray[np.int64]:
        found = np.searchsorted(self.running, position, side="right")
        return np.minimum(found, len(self.running) - 1)


_Draw = Callable[[int, np.random.Generator], NDArray[np.int64]]


def _distinct_pairs(
    draws: tuple[_Draw, _Draw],
    wanted: int,
    num_nodes: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Draw until `wanted` distinct unordered pairs without loops are there; int64 [wanted, 2].

    The second of `draws` takes over late: it spreads what saturated hubs cannot take evenly.
    """
    kept = np.zeros(0, np.int64)
    for attempt in range(_ROUNDS):
        missing = wanted - len(kept)
        if missing <= 0:
            break
        late = attempt >= _ROUNDS // 2
        pairs = draws[late](missing * (4 if late else 1) + missing // 8 + 16, rng)
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        keys = np.sort(pairs.min(axis=1) * num_nodes + pairs.max(axis=1))
        keys = keys[np.diff(keys, prepend=-1) != 0]
        if len(kept):
            at = np.minimum(np.searchsorted(kept, keys), len(kept) - 1)
            keys = keys[kept[at] != keys]
        if len(keys) > missing:
            keys = rng.choice(keys, missing, replace=False, shuffle=False)
        kept = np.sort(np.concatenate([kept, keys]))
    if len(kept) < wanted:
        raise SpecError(
            f"generator: found room for {len(kept)} of {wanted} distinct edges; lower the mean "
            "degree or the homophily, or use fewer classes"
        )
    return np.stack([kept // num_nodes, kept % num_nodes], 1)


def _power_law(
    num_nodes: int, mean_degree: float, exponent: float | None, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return weights of mean about 1 whose tail falls as degree**-exponent, cut structurally."""
    if exponent is None:
        return np.ones(num_nodes)
    weights = (1.0 - rng.random(num_nodes)) ** (-1.0 / (exponent - 1.0))
    weights /= weights.mean()
    # Beyond sqrt(stored edges) two hubs would expect more than one edge between them.
    largest = max(1.0, np.sqrt(num_nodes * mean_degree) / max(mean_degree, 1e-9))
    return np.asarray(np.minimum(weights, largest))


def _refuse(problems: Sequence[str]) -> None:
    raise_all(f"generator: {problem}" for problem in problems)
