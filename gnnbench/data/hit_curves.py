"""Hit rates of caches measured on sampled batches: the part of a profile that degrees cannot give.

Neighbours of one vertex are drawn together, so batches of a clustered graph reuse rows otherwise
than independent draws do (`gnnbench.data.expected_hits`). The curve of LRU is that of the reuse
distances in number of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.caching import HitRates, cache_of, count_hits
from gnnbench.data.graph import Graph
from gnnbench.errors import SpecError
from gnnbench.steps import Ints
from gnnbench.strict import bounds, choices

SHARES = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6)
POLICIES = ("degree", "presampling", "inclusion", "lru", "planned")
LOOKAHEAD = 32
_BATCHES = 150
"""Batches at most, before counting and while counting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HitCurve:
    """Hit rates of a warm cache, and inserted rows per row used, by its share of all rows.

    `lookahead` is that of the policy planned; presampling counted one epoch.
    """

    fanouts_from_seeds: tuple[int, ...]
    batch: int = field(metadata=bounds(1))
    policy: str = field(metadata=choices(*POLICIES))
    lookahead: int = field(default=LOOKAHEAD, metadata=bounds(0))
    shares: tuple[float, ...]
    hits: tuple[float, ...]
    inserted: tuple[float, ...]

    def __post_init__(self) -> None:
        sizes = {len(self.shares), len(self.hits), len(self.inserted)}
        if len(sizes) != 1 or list(self.shares) != sorted(set(self.shares)):
            raise SpecError(
                f"hits of {self.policy}: shares must rise, each with its hits and inserted rows"
            )

    def at(self, share: float) -> HitRates:
        """The rates at a share, between measured points by straight lines."""
        shares = (0.0, *self.shares, 1.0)
        last = (1.0 if max(self.shares) < 1 else self.hits[-1], 0.0)
        hits, inserted = (
            float(np.interp(share, shares, (first, *values, end)))
            for first, values, end in (
                (0.0, self.hits, last[0]),
                (0.0, self.inserted, last[1]),
            )
        )
        return HitRates(hits=hits, inserted=inserted, held=1.0)


def hit_curves(
    graph: Graph, fanouts: Sequence[int], batch: int, seed: int = 0
) -> tuple[HitCurve, ...]:
    """Measure the curve of every policy on batches as one rank draws them."""
    # Late: the command line reads profiles, and these are slow to import.
    from gnnbench.data.frontier import vip_inclusion
    from gnnbench.data.sampling import NeighbourSampler, batch_seeds, epoch_seeds, steps

    fans, train = tuple(fanouts), graph.train_nodes()
    batch = min(batch, len(train))
    sampler = NeighbourSampler(np.asarray(graph.indptr), np.asarray(graph.indices), fans, seed)
    count = steps(len(train), batch)

    def drawn(first: int, number: int) -> list[Ints]:
        """So many batches from the start of an epoch on."""
        found, orders = [], {}
        for at in range(first * count, first * count + number):
            epoch, step = divmod(at, count)
            if epoch not in orders:
                orders = {epoch: epoch_seeds(train, seed, epoch)}
            own = batch_seeds(orders[epoch], batch, step)
            found.append(sampler.sample(own, epoch, step).input_nodes)
        return found

    warm, counted = min(2 * count, _BATCHES), min(count, _BATCHES)
    batches = drawn(0, warm + counted)
    before = np.bincount(
        np.concatenate(drawn(4, min(count, 2 * _BATCHES))), minlength=graph.num_nodes
    )
    scores: dict[str, NDArray[np.floating]] = {
        "degree": graph.out_degrees().astype(np.float64),
        "presampling": before.astype(np.float64),
        "inclusion": vip_inclusion(graph, fans, batch),
    }
    curves = []
    for policy in POLICIES:
        rates = []
        for share in SHARES:
            capacity = int(share * graph.num_nodes)
            cache = cache_of(policy, graph.num_nodes, capacity, scores.get(policy))
            rates.append(count_hits(cache, batches, warm, LOOKAHEAD))
        curves.append(
            HitCurve(
                fanouts_from_seeds=fans,
                batch=batch,
                policy=policy,
                shares=SHARES,
                hits=tuple(round(rate.hits, 5) for rate in rates),
                inserted=tuple(round(rate.inserted, 5) for rate in rates),
            )
        )
    return tuple(curves)
