"""Epochs of batches over a table on the disk, and what static and recent caches miss of them.

Sizes of batches come from the profile's degrees, chances of vertices to be in a batch from
`GraphProfile.expected_inclusion`.

A static cache by popularity is filled as DiskGNN fills it: uses are counted over the epoch that is
trained on, and the most used rows stay in memory. The uses of a vertex of chance q in n batches are
binomial, so that the rows beyond the cache are those below a quantile of all counts.

GraphBolt's caches of rows (S3-FIFO) are modelled as caches of the rows used last. In the first
epoch they are empty: every row that the epoch uses at all is missed once.
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
        spared = (1.0 - np.clip(self.chances.chance, 0.0, 1.0)) ** self.batches
        return float((self.chances.rows * (1.0 - spared)).sum())

    def missed_by_recent(self, share: float) -> float:
        """Share of the uses that a warm cache of the rows used last, of so many rows, misses."""
        # Late: the compiler of the miniature is slow to import.
        from gnnbench.data.expected_hits import Chances, expected_hits

        found = self.chances
        chances = Chances(
            weight=found.rows, seed=found.seed, inclusion=found.chance, degree=found.degree
        )
        return 1.0 - expected_hits(chances, "lru", min(share, 1.0), self.batches).hits


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
    the whole graph. The geometric mean of both shares is taken; within it, draws are as many as
    meet the count.
    """
    reached = profile.reached_share(fanouts, size)
    if reached >= 1.0:
        return profile.expected_inclusion(fanouts, size)
    from gnnbench.data.reach import Inclusion, inclusion_within

    found = inclusion_within(
        math.sqrt(reached),
        profile.histogram(),
        profile.num_train,
        fanouts,
        min(size, profile.num_train),
        undirected=profile.undirected,
    )
    drawn = -np.log1p(-np.clip(found.chance, 0.0, 1.0 - 1e-12))
    low, high = 1e-6, 1.0
    for _ in range(_HALVINGS):
        part = math.sqrt(low * high)
        met = float((found.rows * -np.expm1(-part * drawn)).sum()) > inputs
        low, high = (low, part) if met else (part, high)
    chance = np.maximum(-np.expm1(-low * drawn), found.seed)
    return Inclusion(rows=found.rows, degree=found.degree, seed=found.seed, chance=chance)


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

    GraphBolt's caches of rows (S3-FIFO) are modelled as caches of the rows used last. In the first
    epoch they are empty: every row that the epoch uses at all is missed once.
    """
    words = row.notes.lower()
    host = re.search(r"(\d+(?:\.\d+)?)m-row cpu cache", words)
    device = re.search(r"(\d+(?:\.\d+)?)m-row gpu cache", words)
    if host is None:
        raise NotModelled("configuration not stated", "rows in the caches")
    nodes = max(epoch.profile.num_nodes, 1)
    largest = max(1e6 * float(found[1]) for found in (host, device) if found)
    missed = epoch.missed_by_recent(largest / nodes)
    on_device = epoch.missed_by_recent(1e6 * float(device[1]) / nodes) if device else 1.0
    if re.search(r"\bepoch 0\b", words):
        first = min(epoch.touched / max(epoch.requested, 1.0), 1.0)
        on_device, missed = max(on_device, first), max(missed, first)
    return on_device, missed


def cached_rows(row: PublishedRow, epoch: Epoch) -> float:
    """Rows of a static cache: stated as rows, as bytes, or as a share of all rows."""
    words = f"{row.system} {row.notes}".lower()
    if "s3-fifo" in words or "graphbolt" in words:
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
