"""A stream drawn from a profile: events on which a plan can count where the real ones are absent.

Both ends of an event are drawn by their activity, each from its side of a bipartite stream. So
many events repeat the latest pair of their source that the distinct pairs of the profile remain.
Times are spread evenly over the profile's span, tied as often as there are fewer times than events.

What a profile does not say is assumed: Zipf's law for activity, no repeats, a minute between
events. What it cannot say is lost: bursts, communities and drift. Counts of recent neighbours
hardly depend on them; hit rates of caches do, so they are those of a stream without locality.

Source: temporal reference section 14, where fill ratios depend on the history of nodes.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.stream import EdgeStream
from gnnbench.data.stream_profile import StreamProfile

MOST_EVENTS = 20_000_000
"""That are drawn: they and their temporal CSR take 56 bytes each."""
_GAP = 60
_SEED = 0


def too_large(profile: StreamProfile) -> str | None:
    """Why no stream is drawn from a profile, or None."""
    if profile.num_edges <= MOST_EVENTS:
        return None
    return (
        f"a plan counts on events that are drawn from the profile {profile.name}: found "
        f"{profile.num_edges:,} events, allowed {MOST_EVENTS:,}; plan a part of the stream: "
        "override num_edges (advise: --set num_edges=1000000), events per second are alike"
    )


@lru_cache(maxsize=1)
def drawn_stream(profile: StreamProfile) -> EdgeStream:
    """Draw the events of a profile; the same profile gives the same events."""
    rng = np.random.default_rng(_SEED)
    count, nodes, first = profile.num_edges, profile.num_nodes, profile.num_sources
    weights = rng.permutation(_activity(profile))
    sources = _ends(weights[: first or nodes], count, rng)
    destinations = first + _ends(weights[first:], count, rng)
    _repeat(sources, destinations, _repeats(profile), rng)
    return EdgeStream(
        name=profile.name,
        sources=sources.astype(np.int32),
        destinations=destinations.astype(np.int32),
        times=_times(profile),
        num_nodes=nodes,
        num_sources=first,
        train_end=profile.num_train,
        val_end=profile.num_train + profile.num_val,
        edge_features=_zeros(count, profile.num_edge_features),
        node_features=_zeros(nodes, profile.num_features),
        digest=f"drawn-{profile.digest}",
    )


def _activity(profile: StreamProfile) -> NDArray[np.float64]:
    """Weights of the nodes, in any order."""
    found = np.repeat(np.array(profile.activity_values), profile.activity_counts)
    if len(found) == profile.num_nodes and found.sum() > 0:
        return found.astype(np.float64)
    return 1.0 / np.arange(1, profile.num_nodes + 1)


def _ends(weights: NDArray[np.float64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Positions drawn by weight; evenly where no weight is positive."""
    if weights.sum() <= 0:
        weights = np.ones(len(weights))
    edges = np.cumsum(weights)
    found = np.searchsorted(edges, rng.random(count) * edges[-1], side="right")
    kept: NDArray[np.int64] = np.minimum(found, len(weights) - 1)
    return kept


def _repeats(profile: StreamProfile) -> float:
    """Share of the events that repeat a pair."""
    if not profile.num_pairs or not profile.num_edges:
        return 0.0
    return 1.0 - min(profile.num_pairs / profile.num_edges, 1.0)


def _repeat(
    sources: NDArray[np.int64],
    destinations: NDArray[np.int64],
    share: float,
    rng: np.random.Generator,
) -> None:
    """Let a share of the events take the latest fresh destination of their source, in place."""
    order = np.argsort(sources, kind="stable")
    starts = np.diff(sources[order], prepend=-1) != 0
    fresh = (rng.random(len(order)) >= share) | starts
    latest = np.maximum.accumulate(np.where(fresh, np.arange(len(order)), 0))
    destinations[order] = destinations[order][latest]


def _times(profile: StreamProfile) -> NDArray[np.int64]:
    count = profile.num_edges
    distinct = min(profile.num_times or count, count)
    places = np.arange(count, dtype=np.int64) * distinct // max(count, 1)
    span = profile.last_time - profile.first_time or _GAP * (distinct - 1)
    return profile.first_time + places * span // max(distinct - 1, 1)


def _zeros(rows: int, width: int) -> NDArray[np.float32] | None:
    """Features without values: a plan needs their width only, and they take no memory."""
    return np.broadcast_to(np.zeros((1, width), np.float32), (rows, width)) if width else None
