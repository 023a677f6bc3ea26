"""Rows that count what training from the disk reads: rows, misses, bytes, partitions, throughput.

Nothing here needs a plan: sizes of batches come from the profile's degrees, chances of vertices to
be in a batch from `GraphProfile.expected_inclusion`, swaps from the closed forms of the policies,
throughput from the constants of the disk.

A static cache by popularity is filled as DiskGNN fills it: uses are counted over the epoch that is
trained on, and the most used rows stay in memory. The uses of a vertex of chance q in n batches are
binomial, so that the rows beyond the cache are those below a quantile of all counts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gnnbench.approaches.out_of_core.policies import beta_swaps, swaps_bound
from gnnbench.approaches.out_of_core.storage import DISK_BLOCK
from gnnbench.cluster import DiskPoint
from gnnbench.costs.storage import point_bytes_per_s
from gnnbench.data.profile import GraphProfile
from gnnbench.data.sampling import steps
from gnnbench.data.triples_profile import TriplesProfile
from gnnbench.disks import load_disk
from gnnbench.published.places import profile_of
from gnnbench.published.reason import NotModelled
from gnnbench.published.rows import PublishedRow, whole_number

if TYPE_CHECKING:
    from gnnbench.data.reach import Inclusion

GIB, FLOAT = 2**30, 4
_SAME = 0.02
"""A count within this relative distance of a batch of the profile is where the batch is from."""
_POINTS = 4096
"""Largest number of uses of a row that is counted in an epoch."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskCount:
    """A count and what it rests on.

    Args:
        value: in rows, bytes, pages, or bytes per second.
        basis: in a few words.
        of_profile: whether the profile was made from the row.
    """

    value: float
    basis: str
    of_profile: bool = False

    def expected(self, metric: str) -> tuple[float, str]:
        """The predicted number, and what it rests on."""
        return self.value, self.basis

    def is_input(self, row: PublishedRow) -> bool:
        """Whether the profile was made from a row."""
        return self.of_profile


def disk_count(row: PublishedRow) -> DiskCount:
    """What a row counts. Raises NotModelled for what it does not state."""
    return _COUNTS[row.metric](row)


# -- batches and static caches -------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Epoch:
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


def _epoch(row: PublishedRow) -> _Epoch:
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
    chances = profile.expected_inclusion(fanouts, size)
    of_profile = any(
        (p.fanouts_from_seeds, p.batch) == (tuple(fanouts), size) for p in profile.frontier
    )
    return _Epoch(
        profile=profile,
        batches=max(1, steps(profile.num_train, size)),
        inputs=float(vertices[0]),
        chances=chances,
        counted=of_profile,
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


def _requested(row: PublishedRow) -> DiskCount:
    epoch = _epoch(row)
    return DiskCount(value=epoch.requested, basis=_basis(epoch))


def _inputs(row: PublishedRow) -> DiskCount:
    epoch = _epoch(row)
    own = epoch.counted and abs(epoch.inputs / max(row.value, 1.0) - 1) < _SAME
    return DiskCount(value=epoch.inputs, basis=_basis(epoch), of_profile=own)


def _touched(row: PublishedRow) -> DiskCount:
    epoch = _epoch(row)
    spared = (1.0 - np.clip(epoch.chances.chance, 0.0, 1.0)) ** epoch.batches
    return DiskCount(value=float((epoch.chances.rows * (1 - spared)).sum()), basis=_basis(epoch))


def _missed(row: PublishedRow) -> DiskCount:
    """Rows that a static cache does not hold."""
    epoch = _epoch(row)
    return DiskCount(value=epoch.beyond(_cached_rows(row, epoch)), basis=_basis(epoch))


def _blowup(row: PublishedRow) -> DiskCount:
    """Rows written by packing over rows of the graph: every use beyond the cache is written."""
    epoch = _epoch(row)
    value = epoch.beyond(_cached_rows(row, epoch)) / max(epoch.profile.num_nodes, 1)
    if value <= 0:
        raise NotModelled("predicted to be hidden or absent", row.metric)
    return DiskCount(value=value, basis=_basis(epoch))


def _hit_ratio(row: PublishedRow) -> DiskCount:
    epoch = _epoch(row)
    missed = epoch.beyond(_cached_rows(row, epoch))
    return DiskCount(value=1.0 - missed / max(epoch.requested, 1.0), basis=_basis(epoch))


def _cached_rows(row: PublishedRow, epoch: _Epoch) -> float:
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


def _basis(epoch: _Epoch) -> str:
    return f"degrees of {epoch.profile.name}, {epoch.batches} batches of an epoch"


# -- bytes and partitions ------------------------------------------------------------------------


def _bytes_read(row: PublishedRow) -> DiskCount:
    """Feature bytes of an epoch: missed rows, or the partitions that fill a buffer."""
    name = row.system.lower()
    epoch = _epoch(row)
    if name.startswith("mariusgnn"):
        share = re.search(r"buffer about (\d+(?:\.\d+)?)% of", row.notes)
        if share is None:
            raise NotModelled("configuration not stated", "partitions in MariusGNN's buffer")
        size = epoch.profile.num_nodes * epoch.row_bytes * float(share[1]) / 100.0
        return DiskCount(value=size, basis="partitions that fill the buffer once an epoch")
    if name.startswith("ginex"):
        # Late: the miniature's compiler is slow to import.
        from gnnbench.data.expected_hits import Chances, expected_superbatch

        found, nodes = epoch.chances, epoch.profile.num_nodes
        chances = Chances(
            weight=found.rows, seed=found.seed, inclusion=found.chance, degree=found.degree
        )
        held = min(_cached_rows(row, epoch) / max(nodes, 1), 1.0)
        rates = expected_superbatch(chances, held, epoch.batches, epoch.batches)
        block = DISK_BLOCK * -(-epoch.row_bytes // DISK_BLOCK)
        missed = rates.missed * epoch.requested + rates.fill * nodes
        return DiskCount(value=missed * block, basis=f"{_basis(epoch)}, optimal cache, 4 KiB reads")
    if name.startswith("diskgnn"):
        missed = epoch.beyond(_cached_rows(row, epoch))
        return DiskCount(value=missed * epoch.row_bytes, basis=f"{_basis(epoch)}, static cache")
    raise NotModelled("system not modelled", row.system)


def _total_io(row: PublishedRow) -> DiskCount:
    """Bytes that swaps read and write: 2 S of p partitions, without the first fill."""
    profile = profile_of(row)
    stated = re.search(r"\bp=(\d+), buffer c=(p/)?(\d+)", row.notes)
    width = row.hidden_width
    if not isinstance(profile, TriplesProfile) or stated is None or width is None:
        raise NotModelled("configuration not stated", row.notes or "empty")
    p = int(stated[1])
    c = p // int(stated[3]) if stated[2] else int(stated[3])
    name = row.system.lower()
    if not 2 <= c <= p <= 16_384:
        raise NotModelled("configuration out of range", f"p {p}, c {c}")
    if name.startswith("beta"):
        swaps = beta_swaps(p, c)
    elif name.startswith("lower bound"):
        swaps = swaps_bound(p, c)
    else:
        raise NotModelled("ordering not built", row.system)
    table = 2 * FLOAT * width * profile.num_entities
    return DiskCount(value=2.0 * swaps * table / p, basis="closed form of swaps")


def _training_partitions(row: PublishedRow) -> DiskCount:
    profile = profile_of(row)
    partitions = re.search(r"\bp\s*=\s*(\d+)", f"{row.storage} {row.notes}")
    if partitions is None or not isinstance(profile, GraphProfile) or not int(partitions[1]):
        raise NotModelled("configuration not stated", "partitions")
    each = -(-profile.num_nodes // int(partitions[1]))
    return DiskCount(value=-(-profile.num_train // each), basis="training vertices come first")


def _throughput(row: PublishedRow) -> DiskCount:
    """Bytes per second of a disk at a block size, by the constants of its data sheet."""
    found = re.search(r"block (\d+) KiB, \w+ iodepth(\d+) numjobs(\d+)", row.notes)
    words = f"{row.hardware} {row.storage}".lower()
    if found is None or not re.search(r"\bgp3\b", words):
        raise NotModelled("disk not stated", row.storage or "empty")
    lanes = int(found[2]) * int(found[3])
    if not 0 < lanes <= 4096 or not 0 < int(found[1]) <= 2**20:
        raise NotModelled("configuration out of range", row.notes)
    point = DiskPoint(
        direction="read", block_bytes=1024 * int(found[1]), depth=lanes, bytes_per_s=0.0
    )
    rate = point_bytes_per_s(load_disk("ebs-gp3").storage, point)
    return DiskCount(value=rate, basis="data sheet of ebs-gp3, which the table says it looks like")


_COUNTS: Mapping[str, Callable[[PublishedRow], DiskCount]] = {
    "feature_bytes_read_per_epoch": _bytes_read,
    "feature_rows_missed_per_epoch": _missed,
    "feature_rows_requested_per_epoch": _requested,
    "gpu_cache_hit_ratio": _hit_ratio,
    "input_nodes_per_batch_shown": _inputs,
    "num_train_partitions": _training_partitions,
    "packed_feature_blowup": _blowup,
    "read_throughput": _throughput,
    "total_io_per_epoch": _total_io,
    "unique_nodes_touched": _touched,
}
DISK_COUNTS = tuple(_COUNTS)
UNITS: Mapping[str, Mapping[str, float]] = {
    "feature_bytes_read_per_epoch": {"GiB": float(GIB), "GB": 1e9},
    "feature_rows_missed_per_epoch": {"rows": 1.0},
    "feature_rows_requested_per_epoch": {"rows": 1.0},
    "gpu_cache_hit_ratio": {"": 1.0},
    "input_nodes_per_batch_shown": {"nodes": 1.0},
    "num_train_partitions": {"": 1.0},
    "packed_feature_blowup": {"x": 1.0},
    "read_throughput": {"MB/s": 1e6},
    "total_io_per_epoch": {"GB": 1e9},
    "unique_nodes_touched": {"nodes": 1.0},
}
BYTES = ("feature_bytes_read_per_epoch", "total_io_per_epoch")
"""Of them, those in bytes."""
