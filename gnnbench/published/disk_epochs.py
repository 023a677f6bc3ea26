"""Epochs of batches over a table on the disk, and what static and recent caches miss of them.

Sizes of batches come from the profile's degrees, chances of vertices to be in a batch from
`GraphProfile.expected_inclusion`.

A static cache by popularity is filled as DiskGNN fills it: uses are counted over the epoch that is
trained on, and the most used rows stay in memory. The uses of a vertex of chance q in n batches are
binomial, so that the rows beyond the cache are those below a quantile of all counts.

GraphBolt's cache in the host's memory is by S3-FIFO (`gnnbench.data.three_queues`), its cache on
the device of the rows used last. Both are empty before the first epoch, which misses each row that
they come to hold once more than an epoch with warm caches does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.profile import GraphProfile
from gnnbench.data.sampling import steps
from gnnbench.data.three_queues import s3_fifo_misses
from gnnbench.published.places import profile_of
from gnnbench.published.reason import NotModelled
from gnnbench.published.rows import PublishedRow, whole_number

if TYPE_CHECKING:
    from gnnbench.data.reach import Inclusion

FLOAT = 4
STUDY_SHARE = 0.1
"""Of the features in memory, in DiskGNN's tables that state no other share: as in its main table,
whose totals its breakdown into stages repeats."""
_HALVINGS = 40
_FACTORS, _WIDEST = 15, 5.0
"""Values of the factor by which draws of vertices of one degree differ, and its largest width."""
_POINTS = 4096
"""Largest number of uses of a row that is counted in an epoch."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """The batches of an epoch: their number, rows of one, chances, and bytes of a row."""

    profile: GraphProfile
    batches: int
    inputs: float
    chances: Inclusion
    counted: bool

    @property
    def row_bytes(self) -> int:
        return FLOAT * self.profile.num_features

    @property
    def requested(self) -> float:
        """Rows of all batches."""
        return self.batches * self.inputs

    def beyond(self, cached: float) -> float:
        """Uses in an epoch of rows that the cache, of so many rows, does not hold."""
        q, n = np.clip(self.chances.chance, 0.0, 1.0), self.batches
        uses = np.arange(min(n, _POINTS) + 1, dtype=float)
        pmf = _binomial(uses, n, q)
        vertices = self.chances.rows @ pmf
        # From the most used down: what fits is in memory.
        falling = vertices[::-1]
        before = np.cumsum(falling) - falling
        left = falling - np.clip(cached - before, 0.0, falling)
        return float((left * uses[::-1]).sum())

    @property
    def touched(self) -> float:
        """Rows that the epoch uses at all."""
        return self.first_used(0)

    def first_used(self, epoch: int) -> float:
        """Rows that an epoch uses and no epoch before it did; they are counted from 0."""
        spared = (1.0 - np.clip(self.chances.chance, 0.0, 1.0)) ** self.batches
        return float((self.chances.rows * spared**epoch * (1.0 - spared)).sum())

    def missed_by_recent(self, share: float) -> float:
        """Share of the uses that a warm cache of the rows used last, of so many rows, misses."""
        # Late: the compiler of the miniature is slow to import.
        from gnnbench.data.expected_hits import Chances, expected_hits

        found = self.chances
        chances = Chances(
            weight=found.rows, seed=found.seed, inclusion=found.chance, degree=found.degree
        )
        return 1.0 - expected_hits(chances, "lru", min(share, 1.0), self.batches).hits

    def missed_by_three_queues(self, share: float) -> float:
        """Share of the uses that a warm S3-FIFO cache of so many rows misses."""
        rows = min(share, 1.0) * self.profile.num_nodes
        return s3_fifo_misses(self.chances.rows, self.chances.chance, rows)


def epoch_of(row: PublishedRow) -> Epoch:
    """The epoch of a row that states batch and fan-outs, input layer first."""
    profile = profile_of(row)
    if not isinstance(profile, GraphProfile):
        raise NotModelled("model not modelled", f"layers over {row.dataset}")
    size = whole_number(row.batch)
    fanouts = [int(word) for word in re.findall(r"\d+", row.fanout)][::-1]
    if size is None or not fanouts or max(fanouts) > 10_000 or len(fanouts) > 16:
        found = f"fan-outs {row.fanout!r}, batch {row.batch!r}"
        raise NotModelled("configuration not stated", found)
    if not profile.num_train or not profile.num_features:
        raise NotModelled("configuration not stated", f"training vertices of {row.dataset}")
    vertices, _ = profile.expected_frontier(fanouts, size)
    chances = _chances(profile, fanouts, size, float(vertices[0]))
    of_profile = any(
        (p.fanouts_from_seeds, p.batch) == (tuple(fanouts), size) for p in profile.frontier
    )
    return Epoch(
        profile=profile,
        batches=max(1, steps(profile.num_train, size)),
        inputs=float(vertices[0]),
        chances=chances,
        counted=of_profile,
    )


def _chances(profile: GraphProfile, fanouts: Sequence[int], size: int, inputs: float) -> Inclusion:
    """Chances of vertices to be in a batch of an epoch, whose batches have so many inputs.

    A batch that was counted has fewer inputs than degrees expect. Either all batches lie in one
    part of the graph, which is then smallest, or each overlaps within itself and an epoch reaches
    the whole graph. The geometric mean of both shares is taken. What is then still missing of the
    count is that vertices near training vertices are drawn more often than their degrees say: draws
    of a vertex are multiplied by a log-normal factor of mean 1, as wide as the count asks for.
    """
    reached = profile.reached_share(fanouts, size)
    if reached >= 1.0:
        return profile.expected_inclusion(fanouts, size)
    from gnnbench.data.reach import inclusion_within

    found = inclusion_within(
        math.sqrt(reached),
        profile.histogram(),
        profile.num_train,
        fanouts,
        min(size, profile.num_train),
        undirected=profile.undirected,
    )
    low, high = 0.0, _WIDEST
    for _ in range(_HALVINGS):
        width = (low + high) / 2.0
        spread = _spread(found, width)
        met = float((spread.rows * spread.chance).sum()) > inputs
        low, high = (width, high) if met else (low, width)
    return _spread(found, low)


def _spread(found: Inclusion, width: float) -> Inclusion:
    """Classes of vertices whose draws differ by a log-normal factor besides their degrees.

    Args:
        found: classes by degree.
        width: standard deviation of the factor's logarithm; its mean is 1.
    """
    from gnnbench.data.reach import Inclusion

    points, weights = np.polynomial.hermite_e.hermegauss(_FACTORS)
    factor = np.exp(width * points)
    weights = weights / weights.sum()
    factor /= float((factor * weights).sum())
    drawn = -np.log1p(-np.clip(found.chance, 0.0, 1.0 - 1e-12))
    seed = np.repeat(found.seed, _FACTORS)
    chance = -np.expm1(-np.outer(drawn, factor)).ravel()
    return Inclusion(
        rows=np.outer(found.rows, weights).ravel(),
        degree=np.repeat(found.degree, _FACTORS),
        seed=seed,
        chance=np.maximum(chance, seed),
    )


def _binomial(uses: Floats, n: int, q: Floats) -> Floats:
    """Chance of so many of n draws, [classes, uses]; rounding makes each class add up to one."""
    log = np.vectorize(math.lgamma)
    choose = math.lgamma(n + 1) - log(uses + 1) - log(n - uses + 1)
    # Chances of 0 and 1 are as good as the smallest and largest that have a logarithm.
    inside = np.clip(q, 1e-300, 1.0 - 1e-16)[:, None]
    pmf: Floats = np.exp(choose + uses * np.log(inside) + (n - uses) * np.log1p(-inside))
    pmf /= np.maximum(pmf.sum(axis=1, keepdims=True), 1e-300)
    return pmf


def recent_misses(row: PublishedRow, epoch: Epoch) -> tuple[float, float]:
    """Shares of the input rows that the cache on the device, and both caches, miss.

    The cache in the host's memory is by S3-FIFO unless the row names LRU. Caches are empty before
    epoch 0.
    """
    words = row.notes.lower()
    host = re.search(r"(\d+(?:\.\d+)?)m-row cpu cache", words)
    device = re.search(r"(\d+(?:\.\d+)?)m-row gpu cache", words)
    if host is None:
        raise NotModelled("configuration not stated", "rows in the caches")
    nodes = max(epoch.profile.num_nodes, 1)
    largest = max(1e6 * float(found[1]) for found in (host, device) if found) / nodes
    recent = re.search(r"\blru\b", words) is not None
    missed = (epoch.missed_by_recent if recent else epoch.missed_by_three_queues)(largest)
    on_device = epoch.missed_by_recent(1e6 * float(device[1]) / nodes) if device else 1.0
    number = re.search(r"\bepoch (\d{1,4})\b", words)
    if number is None:
        return on_device, missed
    requested = max(epoch.requested, 1.0)
    first = epoch.first_used(int(number[1])) / requested
    if int(number[1]):
        return min(max(on_device, first), 1.0), min(max(missed, first), 1.0)
    both = min(largest * nodes, epoch.touched) / requested
    own = min(1e6 * float(device[1]), epoch.touched) / requested if device else 0.0
    return min(max(on_device + own, first), 1.0), min(max(missed + both, first), 1.0)


def cached_rows(row: PublishedRow, epoch: Epoch) -> float:
    """Rows of a static cache: stated as rows, as bytes, or as a share of all rows."""
    words = f"{row.system} {row.notes}".lower()
    if "s3-fifo" in words or "graphbolt" in words:  # not static: see `recent_misses`
        raise NotModelled("software path not modelled", "a cache by S3-FIFO")
    stated = re.search(r"\((\d+(?:\.\d+)?)m rows\)", words)
    if stated:
        return float(stated[1]) * 1e6
    sizes = re.findall(r"[cg]pu cache (\d+(?:\.\d+)?) gb", words)
    if sizes:
        return sum(map(float, sizes)) * 1e9 / max(epoch.row_bytes, 1)
    share = re.search(r"(\d+(?:\.\d+)?) ?(?:%|percent) cache|cache (\d+(?:\.\d+)?)%", words)
    if share:
        return float(share[1] or share[2]) / 100.0 * epoch.profile.num_nodes
    raise NotModelled("configuration not stated", "rows in the cache")


def study_cache(row: PublishedRow, epoch: Epoch) -> float:
    """Rows in the caches of DiskGNN's study, by a stated share or that of its main table."""
    share = re.search(r"cache ratio (\d+(?:\.\d+)?)%", row.notes.lower())
    return (float(share[1]) / 100.0 if share else STUDY_SHARE) * epoch.profile.num_nodes
