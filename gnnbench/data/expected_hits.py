"""Expected hits of a cache of rows where the draws are not there: independent references.

Vertices are in a batch independently of each other, each with its chance to be an input; seeds are
dealt without repeats within an epoch, as samplers do. On a miniature of a few thousand rows with
these chances, the caches themselves (`gnnbench.data.caching`) count hits, so that every policy is
estimated by its own code. Hit rates do not depend on the number of rows at a fixed share.

Deviation known: neighbours of one vertex are drawn together, and a training vertex brings them in
once an epoch, so batches that follow each other share less than independent draws do. Chances from
degrees are too high on clustered graphs, see `occupancy_frontier`, unless a batch was counted: then
they are those of the part of the graph that batches reach, see `gnnbench.data.reach`. On seven real
graphs the hit rates were off by 0.01 to 0.02 in the median and by 0.06 at most; curves measured on
sampled batches (`gnnbench.data.hit_curves`) by 0.02 at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.caching import HitRates, cache_of, capacity_of, count_hits, inspect
from gnnbench.data.keys import generator
from gnnbench.data.profile import GraphProfile
from gnnbench.steps import Ints

Floats = NDArray[np.float64]
_ROWS = 20_000
_BATCHES = 150
"""Batches of the miniature at most, before counting and while counting."""
_USES = 2_000_000
"""Uses of rows in a superbatch of the miniature at most."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chances:
    """Classes of vertices that are alike.

    Args:
        weight: vertices of each.
        seed: chance to be a seed of a batch.
        inclusion: chance to be an input of a batch, seeds included.
        degree: out-degree.
    """

    weight: Floats
    seed: Floats
    inclusion: Floats
    degree: Floats


def chances_of(profile: GraphProfile, fanouts_from_seeds: Sequence[int], batch: int) -> Chances:
    """Chances of vertices to be in a batch of so many seeds, by degree."""
    found = profile.expected_inclusion(fanouts_from_seeds, batch)
    return Chances(weight=found.rows, seed=found.seed, inclusion=found.chance, degree=found.degree)


def hits_of(
    profile: GraphProfile,
    fanouts_from_seeds: Sequence[int],
    batch: int,
    policy: str,
    share: float,
    *,
    steps: int,
    lookahead: int = 0,
    presample: int = 1,
) -> HitRates:
    """Hits of a warm cache on a graph that is not there: its measured curve, else its degrees.

    Args:
        profile: of the graph.
        fanouts_from_seeds, batch: of a rank.
        policy, share, steps, lookahead, presample: as of `expected_hits`.
    """
    asked = tuple(fanouts_from_seeds), policy, min(batch, profile.num_train)
    for curve in profile.hits:
        known = curve.fanouts_from_seeds, curve.policy, curve.batch
        if known == asked and (policy != "planned" or curve.lookahead == lookahead):
            return curve.at(share)
    return expected_hits(
        chances_of(profile, fanouts_from_seeds, batch),
        policy,
        share,
        steps,
        lookahead=lookahead,
        presample=presample,
    )


def expected_hits(
    chances: Chances,
    policy: str,
    share: float,
    steps: int,
    *,
    lookahead: int = 0,
    presample: int = 1,
) -> HitRates:
    """Hits of a warm cache.

    Args:
        chances: of the rows that the cache may hold.
        policy: degree, presampling, inclusion, lru or planned.
        share: rows of the cache as a share of those.
        steps: batches of an epoch.
        lookahead: batches that are known ahead, if planned.
        presample: epochs that are drawn beforehand.
    """
    rows = _Miniature(chances, steps)
    capacity = min(round(share * rows.count), rows.count)
    warm, counted = min(2 * steps, _BATCHES), min(steps, _BATCHES)
    batches = rows.batches(warm + counted)
    score: Floats | None = None
    if policy not in ("lru", "planned"):
        score = {
            "degree": lambda: rows.degree,
            "inclusion": lambda: rows.inclusion,
            "presampling": lambda: rows.uses(presample * steps),
        }[policy]()
    return count_hits(cache_of(policy, rows.count, capacity, score), batches, warm, lookahead)


@dataclass(frozen=True, slots=True, kw_only=True)
class SuperbatchRates:
    """Reads of a superbatch behind the optimal cache.

    Args:
        fill: rows that are in the cache before the first batch, as a share of all rows.
        missed: rows that are read per row used.
        inserted: rows that enter the cache per row used.
    """

    fill: float
    missed: float
    inserted: float


def expected_superbatch(
    chances: Chances, share: float, steps: int, superbatch: int
) -> SuperbatchRates:
    """Reads of a superbatch whose uses are known: the executor of Ginex, on the miniature.

    Args:
        chances: of the rows that the cache may hold.
        share: rows of the cache as a share of those.
        steps: batches of an epoch.
        superbatch: batches that are inspected together; at most as many as have `_USES` uses.
    """
    rows = _Miniature(chances, steps)
    each = max(float(rows.inclusion.sum()), 1.0)
    batches = rows.batches(max(1, min(superbatch, steps, int(_USES / each))))
    made = inspect(batches, capacity_of(min(share, 1.0), rows.count), rows.count)
    uses = max(sum(map(len, batches)), 1)
    return SuperbatchRates(
        fill=len(made.initial) / rows.count,
        missed=sum(len(turn.misses) for turn in made.turns) / uses,
        inserted=sum(len(turn.inserted) for turn in made.turns) / uses,
    )


class _Miniature:
    """Rows with the chances of a larger table, and batches of them."""

    def __init__(self, chances: Chances, steps: int) -> None:
        total = float(chances.weight.sum())
        self.count = max(int(min(total, _ROWS)), 1)
        ends = np.cumsum(chances.weight) / max(total, 1e-300)
        middles = (np.arange(self.count) + 0.5) / self.count
        of = np.minimum(np.searchsorted(ends, middles), len(ends) - 1)
        self.degree, self.inclusion = chances.degree[of], chances.inclusion[of]
        seed = chances.seed[of]
        # Of a global batch on several ranks a rank has a part of the seeds.
        self._deals = max(round(1 / max(float(seed.max()), 1e-12)), 1)
        self._found = np.clip((self.inclusion - seed) / np.maximum(1 - seed, 1e-12), 0.0, 1.0)
        self._train, self._steps = np.flatnonzero(seed > 0), steps
        self._rng = generator(0)

    def batches(self, count: int) -> list[Ints]:
        """So many batches, one after the other."""
        made: list[Ints] = []
        step: NDArray[np.integer] = np.zeros(0, np.int64)
        for number in range(count):
            if number % self._steps == 0:
                deck = self._rng.permutation(len(self._train))
                step = deck * self._deals // max(len(self._train), 1)
            there = self._rng.random(self.count) < self._found
            there[self._train[step == number % self._steps]] = True
            made.append(np.flatnonzero(there))
        return made

    def uses(self, steps: int) -> Floats:
        """How often each row is drawn in so many batches, each of which has its own chances."""
        counts: Floats = self._rng.binomial(steps, self.inclusion).astype(np.float64)
        return counts
