"""The probe workloads: generated graphs and models that cover the sizes of real runs.

Operations are calibrated inside real training epochs of these workloads, so that caches, call
overheads and concurrent ranks are those of training. Shapes follow a low-discrepancy sequence over
their ranges and belong to no suite. `mix` chooses the approaches that train them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from gnnbench.spec import BatchSpec, DatasetRef, ModelSpec, RunSpec, TrainingSpec

T = TypeVar("T")

# Ranges (low, high), spread evenly in the logarithm.
NODES = (600, 60_000)
DEGREE = (3, 150)
FEATURES = (8, 1600)
HIDDEN = (8, 512)
HIDDEN_CHOICES = (8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
CLASSES = (2, 48)
BATCH = (32, 4096)

KINDS = ("planted_partition", "web", "rmat", "grid", "stars", "bipartite")
"""Kinds of graph, in turn: they differ in the nearness of neighbours and in the skew of degrees."""

# The first epochs of a process run on fresh pages and cold predictors; runs leave them out too.
WARMUP_EPOCHS = 3
LEAST_EPOCHS = 5  # of which the last is kept, and the one after a speed probe is not


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How large probes may be.

    edge_values   of one attention layer: edges times width, each touched six times
    flops         of the products of one epoch: 1.5e9 are a tenth of a second on one core
    features      width of the input
    epochs        share of the usual epochs; a long step is timed well in few of them
    """

    nodes: tuple[int, int]
    edges: int
    feature_elements: int
    edge_values: float
    flops: float
    features: tuple[int, int] = FEATURES
    epochs: float = 1.0


USUAL = Scale(
    nodes=NODES, edges=1_500_000, feature_elements=8_000_000, edge_values=1.5e7, flops=1.5e9
)
# Real graphs are larger than what many probes can afford. A few go beyond every cache, so that
# what a miss costs is seen and not extrapolated.
LARGE = Scale(
    nodes=(50_000, 600_000),
    edges=4_000_000,
    feature_elements=16_000_000,
    edge_values=8e7,
    flops=6e9,
    epochs=0.5,
)
LARGE_EVERY, LARGE_PLACE = 8, 5  # of the full-graph probes
# Bags of words have thousands of columns, whose products live on other costs than square ones.
WIDE = Scale(
    nodes=(1_500, 24_000),
    edges=400_000,
    feature_elements=24_000_000,
    edge_values=1.5e7,
    flops=1e10,
    features=(900, 8_192),
    epochs=0.5,
)

WIDE_PLACES = (0.5, 1.0, 0.0, 0.75, 0.25)
"""Places of the wide probes in the range of features."""

# Generalised golden ratios: additive recurrences fill a six-dimensional box evenly.
_RATIO = 1.1127756842787055
_STEPS = [(1 / _RATIO ** (k + 1)) % 1.0 for k in range(6)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One probe: a run, and the operations whose times are kept; all of them if `only` is empty.

    Operations that run during background transfers, or next to another lane, are slower than alone.
    """

    run: RunSpec
    only: frozenset[str] = frozenset()


def of_turn(probes: Sequence[T], turn: int, turns: int) -> list[T]:
    """The probes of one of several turns. Blocks alternate, each with all that a block can hold."""
    return [probe for n, probe in enumerate(probes) if n // (2 * LARGE_EVERY) % turns == turn]


def workload(index: int, *, threads: int, epochs: int, seed: int = 1) -> RunSpec:
    """A run without an approach: dataset, model, batch and training of one probe.

    Every second one (odd `index`) is for training on batches: few training vertices, because a few
    batches say as much as an epoch of them. Two of five are of attention, whose operations are of
    their own.
    """
    at = [(0.5 + (index + seed) * step) % 1.0 for step in _STEPS]
    batches, other = index % 2 == 1, index // 2
    scale, kind = scale_of(index), KINDS[(other + other // len(KINDS)) % len(KINDS)]

    def spread(bounds: tuple[float, float], position: float) -> int:
        low, high = bounds
        return round(low * (high / low) ** position)

    nodes, degree = spread(scale.nodes, at[0]), spread(DEGREE, at[1])
    if scale is WIDE:  # few probes, which must span the widths
        at[2] = WIDE_PLACES[other // LARGE_EVERY % len(WIDE_PLACES)]
    features, hidden = spread(scale.features, at[2]), spread(HIDDEN, at[3])
    if scale is WIDE:
        nodes = min(nodes, scale.feature_elements // features)
    classes, batch = spread(CLASSES, at[4]), spread(BATCH, at[5])
    degree = max(2, min(degree, nodes // 20, scale.edges // nodes))
    if kind == "rmat":
        nodes = 2 ** round(math.log2(nodes))
    # A class must have room for its share of the edges.
    classes = max(2, min(classes, nodes // (10 * degree)))
    features = max(4, min(features, scale.feature_elements // nodes))
    hidden = max(8, min(hidden, round(scale.flops / (6 * nodes * features + 1))))
    # People choose hidden widths that fill vector registers; widths of data are what they are.
    hidden = max(width for width in HIDDEN_CHOICES if width <= hidden)
    attention = other % 5 in (1, 4)
    if attention:
        hidden = max(8, min(hidden, int(scale.edge_values / (nodes * degree)) // 8 * 8))
    model = ModelSpec(
        name="probe",
        kind="gat" if attention else ("gcn", "sage")[other % 2],
        heads=(8, 1, 4, 2)[other // 5 % 4] if attention else 1,
        hidden=hidden,
        layers=2 + (other % 4 == 3),
        dropout=(0.0, 0.5, 0.5)[other % 3],
        input_dropout=(0.0, 0.3, 0.0, 0.5, 0.0)[other % 5],
    )
    batch = min(batch, max(64, nodes // 4))
    fanouts: tuple[int, ...] = ((15, 10), (10, 5), (25, 10), (5, 5))[other % 4]
    return RunSpec(
        suite="calibration",
        dataset=_dataset(
            kind,
            index,
            nodes=nodes,
            degree=degree,
            classes=classes,
            features=features,
            train=min(0.5, 6 * batch / nodes) if batches else 0.5,
        ),
        model=model,
        batch=BatchSpec(size=batch, fanouts_from_seeds=fanouts + (5,) * (model.layers - 2)),
        training=TrainingSpec(
            epochs=max(LEAST_EPOCHS, round(epochs * scale.epochs)),
            warmup_epochs=WARMUP_EPOCHS,
            threads_per_rank=threads,
            seed=index,
        ),
        approach="",
        ranks=1,
    )


def scale_of(index: int) -> Scale:
    """The scale of a probe: of the full-graph ones, a few are large and a few wide."""
    batches, other = index % 2 == 1, index // 2
    if batches:
        return USUAL
    return {LARGE_PLACE: LARGE, 1: WIDE}.get(other % LARGE_EVERY, USUAL)


def _dataset(
    kind: str, index: int, *, nodes: int, degree: int, classes: int, features: int, train: float
) -> DatasetRef:
    """A generated graph of a kind."""
    options: dict[str, Any] = {"num_classes": classes, "num_features": features, "seed": index}
    if kind == "rmat":
        options |= {"scale": round(math.log2(nodes)), "edge_factor": degree / 2}
    else:
        options |= {"num_nodes": nodes, "mean_degree": float(degree)}
    if kind == "planted_partition":
        options |= {"homophily": 0.6, "degree_exponent": (2.2, 2.6, 3.2)[index // 2 % 3]}
    return DatasetRef(
        name=f"probe-{index}",
        generator=kind,
        options=options,
        split={"train": train, "val": 0.2, "replace": True},
    )


def spread_sizes(low_bytes: int, high_bytes: int, count: int) -> list[int]:
    """Message sizes spread evenly in the logarithm, multiples of 4 bytes."""
    ratio = math.log(high_bytes / low_bytes) / (count - 1)
    return sorted({4 * round(low_bytes * math.exp(i * ratio) / 4) for i in range(count)})


DRAWN_LARGE_EVERY = 4
"""Graphs from one large one to the next, of those from which batches are drawn alone."""
DRAWN_BATCHES = ((0.2, (15, 10)), (0.6, (10, 5)), (0.0, (25, 10, 5)), (0.9, (5, 5)))
"""Batches of a graph: place in the range of sizes, and fan-outs from the seeds."""


def drawn_batches(
    index: int, workload_of: Callable[[int], RunSpec], *, large: bool
) -> Iterator[RunSpec]:
    """Batches of several sizes on one graph, for draws without training.

    Args:
        index: of the graph.
        workload_of: gives the workload of a number.
        large: whether the graph is one beyond every cache.
    """
    # Batches are drawn from the graphs of odd workloads; large graphs are those of even ones.
    base = workload_of(2 * (LARGE_EVERY * index + LARGE_PLACE) if large else 2 * index + 1)
    options = {**base.dataset.options, "num_features": 4}
    split = {"train": 0.5, "val": 0.2, "replace": True}
    dataset = replace(base.dataset, options=options, split=split)
    nodes = int(options.get("num_nodes") or 2 ** int(options["scale"]))
    for number, (place, fanouts) in enumerate(DRAWN_BATCHES):
        low, high = BATCH
        size = round(low * (high / low) ** ((place + index * _STEPS[0]) % 1.0))
        attention = number == 1
        model = ModelSpec(
            name="probe",
            kind="gat" if attention else ("gcn", "sage")[(index + number) % 2],
            heads=2 if attention else 1,
            hidden=16,
            layers=len(fanouts),
        )
        batch = BatchSpec(size=min(size, max(32, nodes // 8)), fanouts_from_seeds=fanouts)
        yield replace(base, dataset=dataset, model=model, batch=batch)
