"""A made-up edge stream: communities, hubs, repeats and bursts. Same seed, same stream."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.generator_values import stream_problems
from gnnbench.data.stream import EdgeStream, from_events
from gnnbench.strict import raise_all

_NOISE = 0.1  # of edge features around the community's mean


def synthetic_stream(
    num_nodes: int,
    num_edges: int,
    *,
    num_communities: int = 8,
    repeat: float = 0.5,
    burst: float = 0.3,
    hub_exponent: float = 1.2,
    bipartite: bool = False,
    num_edge_features: int = 0,
    num_features: int = 0,
    mean_gap: float = 60.0,
    seed: int = 0,
    name: str = "events",
) -> EdgeStream:
    """Draw events whose next destination can be learnt from the past of their source.

    A source is drawn with a weight that falls as rank**-hub_exponent. With the chance `repeat` it
    writes to the destination of its previous event again; else to a random member of its
    community, hubs first. With the chance `burst` an event has the time of the one before it, else
    the gap is exponential with mean `mean_gap` (rounded to whole seconds), so that times tie.

    Args:
        num_nodes: both sides together.
        num_edges: events.
        num_communities: nodes of one community talk to each other.
        repeat: share of events that repeat the pair of their source's previous event.
        burst: share of events that share the time of the event before.
        hub_exponent: 0 makes all nodes equally busy.
        bipartite: the first half of the nodes are sources, the second half destinations.
        num_edge_features: float32 features that carry the community of the source, plus noise.
        num_features: the same of nodes.
        mean_gap: seconds.
        seed: of everything.
        name: of the stream.

    Raises:
        SpecError: numbers that no stream has.
    """
    half = num_nodes // 2 if bipartite else 0
    raise_all(
        f"generator: {problem}"
        for problem in stream_problems(
            num_nodes=num_nodes,
            num_edges=num_edges,
            num_communities=num_communities,
            repeat=repeat,
            burst=burst,
            hub_exponent=hub_exponent,
            bipartite=bipartite,
            mean_gap=mean_gap,
        )
    )
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, num_communities, num_nodes)
    senders = rng.permutation(half or num_nodes)  # the busiest first
    receivers = half + rng.permutation(num_nodes - half)
    receivers = receivers[np.argsort(groups[receivers], kind="stable")]
    sizes = np.bincount(groups[receivers], minlength=num_communities)
    starts = np.cumsum(sizes) - sizes
    starts[sizes == 0], sizes[sizes == 0] = 0, len(receivers)  # nobody there: talk to everybody
    sources = senders[_ranks(np.full(num_edges, len(senders)), hub_exponent, rng)]
    group = groups[sources]
    fresh = receivers[starts[group] + _ranks(sizes[group], hub_exponent, rng)]
    destinations = _repeated(sources, fresh, rng.random(num_edges) < repeat)
    gaps = np.rint(rng.exponential(mean_gap, num_edges)).astype(np.int64)
    gaps[rng.random(num_edges) < burst] = 0
    centres = rng.standard_normal((num_communities, max(num_edge_features, num_features, 1)))
    return from_events(
        name,
        sources,
        destinations,
        np.cumsum(gaps),
        num_nodes=num_nodes,
        num_sources=half,
        edge_features=_features(centres[:, :num_edge_features], group, rng),
        node_features=_features(centres[:, :num_features], groups, rng),
        notes={"generator": "synthetic_stream", "seed": seed},
    )


def _ranks(
    sizes: NDArray[np.int64], exponent: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """For each size a rank 0..size-1 whose density falls as (rank + 1)**-exponent."""
    drawn, power = rng.random(len(sizes)), 1.0 - exponent
    if abs(power) < 1e-9:
        found = (sizes + 1.0) ** drawn
    else:
        found = (1 + drawn * ((sizes + 1.0) ** power - 1)) ** (1 / power)
    return np.minimum(found.astype(np.int64) - 1, sizes - 1)


def _repeated(
    sources: NDArray[np.int64], fresh: NDArray[np.int64], again: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Destinations: those of `again` take the latest fresh one of their source, if there is one."""
    order = np.argsort(sources, kind="stable")  # by source, in the order of time
    starts = np.diff(sources[order], prepend=-1) != 0
    drawn = ~again[order] | starts
    latest = np.maximum.accumulate(np.where(drawn, np.arange(len(order)), 0))
    found = np.empty_like(fresh)
    found[order] = fresh[order][latest]
    return found


def _features(
    centres: NDArray[np.float64], groups: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.float32] | None:
    if not centres.shape[1]:
        return None
    noise = rng.standard_normal((len(groups), centres.shape[1]), np.float32)
    return np.asarray(centres.astype(np.float32)[groups] + np.float32(_NOISE) * noise)
