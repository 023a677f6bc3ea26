"""The graph profile: statistics from which a graph that is not available is predicted.

Profiles of every kind of dataset are read, saved and listed here.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from gnnbench.atomic import write_text
from gnnbench.data.dataset import digest_of
from gnnbench.data.graph import Graph
from gnnbench.data.histogram import binned, log_normal_degrees
from gnnbench.data.hit_curves import HitCurve, hit_curves
from gnnbench.data.stream import EdgeStream
from gnnbench.data.stream_profile import StreamProfile, profile_stream, shortened
from gnnbench.data.triples import Triples
from gnnbench.data.triples_profile import TriplesProfile, profile_triples
from gnnbench.errors import SpecError, UnknownName, suggest
from gnnbench.reuse import BINS, Reuse
from gnnbench.strict import bounds, build, choices, raise_all, read_toml

if TYPE_CHECKING:
    from gnnbench.data.frontier import Sizes
    from gnnbench.data.overlap import Counted as Overlap
    from gnnbench.data.reach import Counted, Inclusion

SCHEMA = 1
FOLDER = Path(__file__).resolve().parent.parent / "catalogue" / "profiles"
LARGE_BATCHES = 2
"""Batches of the largest size of which a profile takes the mean: they hardly differ."""
_MOST = 2**31 - 1
_DEFAULT_IMBALANCE = 1.3  # METIS halos are 1.3 to 1.6 max/mean (fullgraph section 5)


@dataclass(frozen=True, slots=True, kw_only=True)
class HaloPoint:
    """A partition: `halo_per_node` is S/N, `halo_imbalance` the largest halo over the mean."""

    parts: int = field(metadata=bounds(1))
    method: str = field(metadata=choices("metis-vol", "metis-cut", "fennel", "hash", "chunk"))
    halo_per_node: float = field(metadata=bounds(0))
    halo_imbalance: float | None = field(default=None, metadata=bounds(1))
    cut_fraction: float | None = field(default=None, metadata=bounds(0, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontierPoint:
    """Mean batch sizes: vertices n_0 ... n_L and edges e_1 ... e_L, or n_0 alone."""

    fanouts_from_seeds: tuple[int, ...]
    batch: int = field(metadata=bounds(1))
    vertices: tuple[float, ...]
    edges: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        hops = len(self.fanouts_from_seeds)
        if (len(self.vertices), len(self.edges)) not in ((hops + 1, hops), (1, 0)):
            raise SpecError(
                f"found {len(self.vertices)} vertices and {len(self.edges)} edges for {hops} hops, "
                f"allowed {hops + 1} and {hops}, or n_0 alone"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphProfile:
    """Statistics of a graph. `num_edges` counts stored edges without self loops, as Graph does.

    Degrees are in-degrees. `degree_values` and `degree_counts` are the histogram (a value is the
    mean of its bin). Without a histogram, a log-normal one is built from the graph's mean degree
    and `degree_spread`, the standard deviation of the logarithm of the degree. 0 for num_val and
    num_test means unknown. `reuse` are shares of the reads of one product by reuse distance, in the
    order of vertices that was measured (see `gnnbench.reuse`); without them, predictions take the
    order as random and give a wider interval. `status`: measured on the graph, or published by
    `source`.
    """

    kind: ClassVar[str] = "graph"

    schema: int = field(default=SCHEMA, metadata=bounds(SCHEMA, SCHEMA))
    name: str
    source: str
    status: str = field(metadata=choices("measured", "published"))
    undirected: bool = True
    num_nodes: int = field(metadata=bounds(0))
    num_edges: int = field(metadata=bounds(0))
    num_features: int = field(default=0, metadata=bounds(0))
    num_classes: int = field(default=0, metadata=bounds(0))
    num_train: int = field(default=0, metadata=bounds(0))
    num_val: int = field(default=0, metadata=bounds(0))
    num_test: int = field(default=0, metadata=bounds(0))
    degree_p99: float | None = field(default=None, metadata=bounds(0))
    degree_max: int | None = field(default=None, metadata=bounds(0))
    degree_spread: float | None = field(default=None, metadata=bounds(0, 10))
    degree_values: tuple[float, ...] = ()
    degree_counts: tuple[int, ...] = ()
    edge_homophily: float | None = field(default=None, metadata=bounds(0, 1))
    reuse: tuple[float, ...] = field(default=(), metadata=bounds(0, 1))
    halo: tuple[HaloPoint, ...] = ()
    frontier: tuple[FrontierPoint, ...] = ()
    hits: tuple[HitCurve, ...] = ()

    def __post_init__(self) -> None:
        problems = []
        if len(self.degree_values) != len(self.degree_counts):
            problems.append("degree_values and degree_counts: lengths differ")
        elif self.degree_counts and sum(self.degree_counts) != self.num_nodes:
            found = sum(self.degree_counts)
            problems.append(f"degree_counts: found a sum of {found}, allowed {self.num_nodes}")
        if self.num_train + self.num_val + self.num_test > self.num_nodes:
            problems.append("num_train, num_val, num_test: together more than num_nodes")
        if len(self.reuse) not in (0, BINS):
            problems.append(f"reuse: found {len(self.reuse)} shares, allowed {BINS} or none")
        raise_all(problems)

    def reuse_of_rows(self) -> Reuse:
        """The reuse that was measured, or an unknown one."""
        return Reuse.of(self.reuse)

    @property
    def digest(self) -> str:
        """Identifies the statistics."""
        return digest_of(self)

    def cannot_train(self, task: str) -> str | None:
        """Why a model cannot be planned on it, with the remedy."""
        lacking = [
            what
            for what in ("num_features", "num_classes")
            if not getattr(self, what) and task == "node_classification"
        ]
        if not lacking:
            return None
        nouns = " and no ".join(what.removeprefix("num_") for what in lacking)
        keys = ", ".join(f"{what} = ..." for what in lacking)
        asked = " ".join(f"--set {what}=..." for what in lacking)
        return f"profile {self.name} has no {nouns}: set override = {{ {keys} }} (advise: {asked})"

    @property
    def degree_mean(self) -> float:
        return self.num_edges / max(self.num_nodes, 1)

    def histogram(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return degrees and how many nodes have each, measured or log-normal; one bin at worst."""
        if self.degree_counts:
            return self.degree_values, tuple(float(c) for c in self.degree_counts)
        return log_normal_degrees(self.num_nodes, self.degree_mean, self.degree_spread or 0.0)

    def expected_frontier(self, fanouts_from_seeds: Sequence[int], batch: int) -> Sizes:
        """Return expected n_0 ... n_L and e_1 ... e_L: the curve's point, else from the degrees.

        Estimates are corrected by counted batches of other sizes. Where n_0 alone was counted, the
        batch grows within the part of the graph that meets it.
        """
        # Late: the command line reads profiles, and the estimators' compiler is slow to import.
        from gnnbench.data.overlap import corrected
        from gnnbench.data.reach import expected_frontier

        batch = min(batch, self.num_train)
        # A point of the curve was counted; the recursion only estimates.
        for point in self.frontier:
            same = tuple(fanouts_from_seeds) == point.fanouts_from_seeds
            if same and batch == point.batch and point.edges:
                return point.vertices, point.edges
        estimated = expected_frontier(
            self.histogram(),
            self.num_train,
            fanouts_from_seeds,
            batch,
            self._counted(),
            undirected=self.undirected,
        )
        return corrected(estimated, fanouts_from_seeds, self._overlaps(), self.num_nodes)

    def expected_inclusion(self, fanouts_from_seeds: Sequence[int], batch: int) -> Inclusion:
        """Return the chance of every class of vertices to be an input of a batch.

        Batches reach the same part of the graph as those of `expected_frontier`.
        """
        from gnnbench.data.reach import inclusion_within

        return inclusion_within(
            self.reached_share(fanouts_from_seeds, batch),
            self.histogram(),
            self.num_train,
            fanouts_from_seeds,
            min(batch, self.num_train),
            undirected=self.undirected,
        )

    def reached_share(self, fanouts_from_seeds: Sequence[int], batch: int) -> float:
        """Return the share of the vertices that batches reach, see `gnnbench.data.reach`."""
        from gnnbench.data.reach import nearest_share

        return nearest_share(
            self.histogram(),
            self.num_train,
            fanouts_from_seeds,
            min(batch, self.num_train),
            self._counted(),
            undirected=self.undirected,
        )

    def _overlaps(self) -> list[Overlap]:
        """Batches of which all sizes were counted: estimated from the degrees, and counted."""
        from gnnbench.data.overlap import by_degrees

        facts = self.histogram(), self.num_train
        return [
            (
                p.fanouts_from_seeds,
                by_degrees(*facts, p.fanouts_from_seeds, p.batch, undirected=self.undirected),
                (p.vertices, p.edges),
            )
            for p in self.frontier
            if p.edges
        ]

    def _counted(self) -> tuple[Counted, ...]:
        """Batches of which n_0 alone was counted."""
        return tuple(
            (p.fanouts_from_seeds, p.batch, p.vertices[0]) for p in self.frontier if not p.edges
        )

    def expected_halo(self, parts: int, method: str = "metis-vol") -> tuple[HaloPoint, str]:
        """Return the halo of a partition in `parts`, and the source of the number.

        Between two points of the curve S/N follows a power of the number of parts; beyond the last
        point the power of the last two is continued, up to parts - 1. If the curve of one METIS
        objective is missing or too short, the curve of the other is used, scaled to meet its last
        point. For hash (and chunk without points) the halo follows from the degrees: a node of
        degree d has copies on (P - 1)(1 - (1 - 1/P)^d) other parts on average.

        Raises SpecError when the profile has no METIS curve.
        """
        if parts == 1:
            # The two objectives differ by a nearly constant factor, so that one's curve, scaled to
            # meet the last common point, stands in for the other's.
            return HaloPoint(parts=1, method=method, halo_per_node=0.0, cut_fraction=0.0), "exact"
        curve, basis, scale = self._curve(method), f"halo curve of {self.name}, {method}", 1.0
        if method.startswith("metis"):
            other = "metis-cut" if method == "metis-vol" else "metis-vol"
            spare = self._curve(other)
            if not curve and not spare:
                problem = "no halo curve of METIS (`profile fit --like` lends one); allowed: hash"
                raise SpecError(f"profile {self.name}: {problem}")
            if not curve or (spare and curve[-1].parts < min(parts, spare[-1].parts)):
                if curve:
                    scale = curve[-1].halo_per_node / _power_between(spare, curve[-1].parts)
                curve, basis = spare, f"halo curve of {self.name}, {other} times {scale:.3g}"
        if not curve:
            return self._random_halo(parts, method), f"degrees of {self.name}, random owners"
        for point in curve:
            if point.parts == parts and scale == 1.0 and point.method == method:
                return point, basis
        imbalances = [p for p in curve if p.halo_imbalance is not None]
        near = min(imbalances, key=lambda p: abs(math.log(p.parts / parts)), default=None)
        point = HaloPoint(
            parts=parts,
            method=method,
            halo_per_node=min(scale * _power_between(curve, parts), parts - 1.0),
            halo_imbalance=_DEFAULT_IMBALANCE if near is None else near.halo_imbalance,
        )
        return point, basis + ", interpolated"

    def _curve(self, method: str) -> list[HaloPoint]:
        return sorted((p for p in self.halo if p.method == method), key=lambda p: p.parts)

    def _random_halo(self, parts: int, method: str) -> HaloPoint:
        values, counts = (np.asarray(x, float) for x in self.histogram())
        # expm1 and log1p keep the digits for vertices of degree one among a thousand parts.
        copies = (parts - 1) * -np.expm1(values * math.log1p(-1 / parts))
        per_node = float((copies * counts).sum() / max(self.num_nodes, 1))
        return HaloPoint(
            parts=parts, method=method, halo_per_node=per_node, cut_fraction=1 - 1 / parts
        )


def profile(
    graph: Graph,
    parts: Sequence[int] = (2, 4, 8, 16),
    methods: Sequence[str] = ("metis-vol",),
    fanouts: Sequence[Sequence[int]] = ((10, 10),),
    batch: int = 1024,
    seed: int = 0,
    *,
    batches: int = 8,
    hits: bool = False,
    source: str | None = None,
) -> GraphProfile:
    """Measure a graph: degrees, halos of partitions, mean sizes of sampled batches.

    Means are over `batches` batches of each size (see `_batch_sizes`). With `hits`, hit rates of
    feature caches on sampled batches as well. Without a training split
    both stay empty. Cost: METIS dominates; hits need some hundred batches.
    """
    from gnnbench.data.overlap import counted_batches
    from gnnbench.data.splits import edge_homophily

    degrees = graph.in_degrees()
    values, counts = binned(degrees)
    masks = (graph.val_mask, graph.test_mask)
    num_val, num_test = (0 if m is None else int(np.count_nonzero(m)) for m in masks)
    some = len(degrees) > 0
    return GraphProfile(
        name=graph.name,
        source=source or f"measured by gnnbench, seed {seed}, mean of {batches} batches",
        status="measured",
        undirected=graph.undirected,
        num_nodes=graph.num_nodes,
        num_edges=graph.num_edges,
        num_features=graph.num_features,
        num_classes=graph.num_classes,
        num_train=graph.num_train,
        num_val=num_val,
        num_test=num_test,
        degree_p99=float(np.percentile(degrees, 99)) if some else None,
        degree_max=int(degrees.max()) if some else None,
        degree_values=values,
        degree_counts=counts,
        edge_homophily=edge_homophily(graph),
        reuse=tuple(graph.reuse_of_rows().shares.tolist()),
        halo=tuple(_halo_point(graph, p, method, seed) for method in methods for p in parts),
        frontier=tuple(
            _frontier_point(graph, f, size, seed, batches if size <= batch else LARGE_BATCHES)
            for f, size in counted_batches(fanouts, batch, graph.num_train)
        ),
        hits=tuple(
            curve
            for f in (fanouts if graph.num_train and hits else ())
            for curve in hit_curves(graph, f, batch, seed)
        ),
    )


Profile = GraphProfile | StreamProfile | TriplesProfile
_TYPES: dict[str, type[Profile]] = {
    cls.kind: cls for cls in (GraphProfile, StreamProfile, TriplesProfile)
}
_CHANGEABLE = {
    "graph": ("num_features", "num_classes", "num_train"),
    "stream": ("num_edges", "num_features", "num_edge_features", "num_classes"),
    "triples": (),
}


def measured(data: Graph | EdgeStream | Triples, **measures: Any) -> Profile:
    """Profile a dataset of any kind; `measures` are those of `profile`, and of graphs only."""
    if isinstance(data, Graph):
        return profile(data, **measures)
    if measures:
        names = ", ".join(measures)
        raise SpecError(f"{names}: allowed for graphs only; {data.name} holds {data.kind} data")
    return profile_stream(data) if isinstance(data, EdgeStream) else profile_triples(data)


def save_profile(profile: Profile, path: str | Path) -> Path:
    """Write the profile as TOML; what is unknown is left out. A graph's needs no `kind`."""
    path = Path(path)
    plain = dataclasses.asdict(profile)
    lines = [] if profile.kind == "graph" else [f'kind = "{profile.kind}"']
    lines += [f"{key} = {_toml(value)}" for key, value in plain.items() if _is_plain(key, value)]
    for table in ("halo", "frontier", "hits"):
        for row in plain.get(table, ()):
            given = {key: value for key, value in row.items() if value is not None and value != ()}
            lines += ["", f"[[{table}]]", *(f"{k} = {_toml(v)}" for k, v in given.items())]
    write_text(path, "\n".join(lines) + "\n")
    return path


def read_profile(path: str | Path) -> Any:
    """Read a profile file, of any kind. Raises SpecError with every problem of the file."""
    path = Path(path)
    table = dict(read_toml(path))
    kind = table.pop("kind", "graph")
    if kind not in _TYPES:
        raise SpecError(f"{path}.kind: found {kind!r}, {suggest(str(kind), _TYPES)}")
    problems: list[str] = []
    found = build(_TYPES[kind], table, str(path), problems)
    raise_all(problems)
    return found


def _why_not(kind: str, key: str, changeable: Sequence[str]) -> str:
    """Why a fact of a profile cannot be replaced, with a way out."""
    if kind == "graph" and key in ("num_nodes", "num_edges"):
        return (
            "degrees and halo curves belong to it, so it cannot be replaced; `gnnbench profile "
            "fit` makes a profile of other counts"
        )
    return f"unknown fact, {suggest(key, changeable)}"


def overridden(profile: Profile, override: Mapping[str, Any]) -> Any:
    """The profile with some of its facts replaced. Raises SpecError for one that is unknown."""
    changeable = _CHANGEABLE[profile.kind]
    problems = [
        f"override.{key}: {_why_not(profile.kind, key, changeable)}"
        for key in override
        if key not in changeable
    ]
    least = int(profile.kind == "graph")  # a stream may have no features
    for key, value in override.items():
        if key in changeable and (not isinstance(value, int) or isinstance(value, bool)):
            problems.append(f"override.{key}: found {value!r}, expected a whole number")
        elif key in changeable and not least <= value <= _MOST:
            problems.append(f"override.{key}: found {value}, allowed {least}..{_MOST}")
    raise_all(problems)
    told = ", ".join(f"{key} = {value}" for key, value in sorted(override.items()))
    source = f"{profile.source}; replaced: {told}" if override else profile.source
    if isinstance(profile, StreamProfile) and "num_edges" in override:
        profile = shortened(profile, override["num_edges"])
    return dataclasses.replace(profile, source=source, **override)


def list_profiles() -> list[str]:
    """Return the names of the profiles that come with gnnbench."""
    return sorted(file.stem for file in FOLDER.glob("*.toml"))


def load_profile(name: str | Path) -> Any:
    """Return a profile by name or .toml path. Raises UnknownName, SpecError."""
    if str(name).endswith(".toml"):
        return read_profile(name)
    if name not in list_profiles():
        raise UnknownName("dataset profile", str(name), list_profiles())
    return read_profile(FOLDER / f"{name}.toml")


def _power_between(curve: Sequence[HaloPoint], parts: int) -> float:
    """Interpolate S/N over the parts on doubly logarithmic axes."""
    if len(curve) == 1 or curve[0].halo_per_node == 0:
        # One point gives a slope of one; zero has no logarithm.
        return curve[0].halo_per_node * parts / curve[0].parts
    after = next((i for i, p in enumerate(curve) if p.parts > parts), len(curve) - 1)
    low, high = curve[max(after, 1) - 1], curve[max(after, 1)]
    if low.halo_per_node == 0 or high.halo_per_node == 0:
        return low.halo_per_node
    power = math.log(high.halo_per_node / low.halo_per_node) / math.log(high.parts / low.parts)
    return float(low.halo_per_node * (parts / low.parts) ** power)


def _halo_point(graph: Graph, parts: int, method: str, seed: int) -> HaloPoint:
    from gnnbench.data.partition import partition, report

    name, _, objective = method.partition("-")
    assignment = partition(graph, parts, name, objective=objective or "vol", seed=seed)
    found = report(graph, assignment, parts)
    return HaloPoint(
        parts=parts,
        method=method,
        halo_per_node=round(found.halo_per_node, 6),
        halo_imbalance=round(found.halo_balance, 4),
        cut_fraction=round(found.cut_fraction, 6),
    )


def _frontier_point(
    graph: Graph, fanouts: tuple[int, ...], batch: int, seed: int, batches: int
) -> FrontierPoint:
    """Measure by sampling, which needs no assumption about clustering."""
    from gnnbench.data.sampling import NeighbourSampler

    # Memory maps are read as plain arrays: the sampler's kernel does not take their type.
    sampler = NeighbourSampler(
        np.asarray(graph.indptr), np.asarray(graph.indices), fanouts, seed=seed
    )
    rng, train = np.random.default_rng(seed), graph.train_nodes()
    batch = min(batch, len(train))
    drawn = [
        sampler.sizes(rng.choice(train, batch, replace=False), 0, step) for step in range(batches)
    ]
    vertices, edges = (np.mean([sizes[i] for sizes in drawn], axis=0) for i in range(2))
    return FrontierPoint(
        fanouts_from_seeds=fanouts,
        batch=batch,
        vertices=tuple(round(v, 2) for v in vertices.tolist()),
        edges=tuple(round(e, 2) for e in edges.tolist()),
    )


def _is_plain(key: str, value: object) -> bool:
    return key not in ("halo", "frontier", "hits") and value is not None and value != ()


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    # A JSON string is a TOML basic string; repr keeps every digit of a number.
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
