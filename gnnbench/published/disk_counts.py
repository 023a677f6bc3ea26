"""Rows that count what training from the disk reads: rows, misses, bytes, partitions, throughput.

Nothing here needs a plan: sizes of batches come from the profile's degrees, chances of vertices to
be in a batch from `GraphProfile.expected_inclusion`, swaps from the closed forms of the policies,
throughput from the constants of the disk.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gnnbench.approaches.out_of_core.policies import beta_swaps, swaps_bound
from gnnbench.approaches.out_of_core.storage import DISK_BLOCK
from gnnbench.cluster import DiskPoint, load_cluster
from gnnbench.costs.storage import disk_seconds, point_bytes_per_s
from gnnbench.data.profile import GraphProfile
from gnnbench.data.triples_profile import TriplesProfile
from gnnbench.disks import load_disk, with_disk
from gnnbench.published.disk_epochs import (
    FLOAT,
    Epoch,
    cached_rows,
    epoch_of,
    recent_misses,
    study_cache,
)
from gnnbench.published.disk_places import disk_of
from gnnbench.published.places import cluster_of, profile_of
from gnnbench.published.reason import NotModelled
from gnnbench.published.rows import PublishedRow

GIB = 2**30
_SAME = 0.02
"""A count within this relative distance of a batch of the profile is where the batch is from."""

_FROM_REQUESTS = ("friendster",)
"""Profiles whose spread of degrees was chosen to meet the rows that an epoch requests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskCount:
    """A count and what it rests on.

    Args:
        value: in rows, bytes, pages, bytes per second, or seconds.
        basis: in a few words.
        of_profile: whether the profile was made from the row.
        cluster: whose disk was read, of a time.
    """

    value: float
    basis: str
    of_profile: bool = False
    cluster: str = ""

    def expected(self, metric: str) -> tuple[float, str]:
        """The predicted number, and what it rests on."""
        return self.value, self.basis

    def is_input(self, row: PublishedRow) -> bool:
        """Whether the profile was made from a row."""
        return self.of_profile


def disk_count(row: PublishedRow) -> DiskCount:
    """What a row counts. Raises NotModelled for what it does not state."""
    return {**_COUNTS, **_TIMES}[row.metric](row)


# -- batches and static caches -------------------------------------------------------------------


def _requested(row: PublishedRow) -> DiskCount:
    epoch = epoch_of(row)
    own = epoch.profile.name in _FROM_REQUESTS
    return DiskCount(value=epoch.requested, basis=_basis(epoch), of_profile=own)


def _inputs(row: PublishedRow) -> DiskCount:
    epoch = epoch_of(row)
    own = epoch.counted and abs(epoch.inputs / max(row.value, 1.0) - 1) < _SAME
    return DiskCount(value=epoch.inputs, basis=_basis(epoch), of_profile=own)


def _touched(row: PublishedRow) -> DiskCount:
    epoch = epoch_of(row)
    return DiskCount(value=epoch.touched, basis=_basis(epoch))


def _missed(row: PublishedRow) -> DiskCount:
    """Rows that a static cache does not hold."""
    epoch = epoch_of(row)
    return DiskCount(value=epoch.beyond(cached_rows(row, epoch)), basis=_basis(epoch))


def _blowup(row: PublishedRow) -> DiskCount:
    """Rows written by packing over rows of the graph: every use beyond the cache is written."""
    epoch = epoch_of(row)
    value = epoch.beyond(cached_rows(row, epoch)) / max(epoch.profile.num_nodes, 1)
    if value <= 0:
        raise NotModelled("predicted to be hidden or absent", row.metric)
    return DiskCount(value=value, basis=_basis(epoch))


def _hit_ratio(row: PublishedRow) -> DiskCount:
    epoch = epoch_of(row)
    missed = epoch.beyond(cached_rows(row, epoch))
    return DiskCount(value=1.0 - missed / max(epoch.requested, 1.0), basis=_basis(epoch))


def _host_misses(row: PublishedRow) -> DiskCount:
    """Share that the cache in the host's memory misses of what the device's cache asks it for."""
    epoch = epoch_of(row)
    on_device, missed = recent_misses(row, epoch)
    return DiskCount(value=missed / max(on_device, missed, 1e-12), basis=_basis(epoch))


def _device_misses(row: PublishedRow) -> DiskCount:
    epoch = epoch_of(row)
    return DiskCount(value=recent_misses(row, epoch)[0], basis=_basis(epoch))


def _basis(epoch: Epoch) -> str:
    return f"degrees of {epoch.profile.name}, {epoch.batches} batches of an epoch"


# -- bytes and partitions ------------------------------------------------------------------------


def _bytes_read(row: PublishedRow) -> DiskCount:
    """Feature bytes of an epoch: missed rows, or the partitions that fill a buffer."""
    name = row.system.lower()
    epoch = epoch_of(row)
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
        held = min(cached_rows(row, epoch) / max(nodes, 1), 1.0)
        rates = expected_superbatch(chances, held, epoch.batches, epoch.batches)
        block = DISK_BLOCK * -(-epoch.row_bytes // DISK_BLOCK)
        missed = rates.missed * epoch.requested + rates.fill * nodes
        return DiskCount(value=missed * block, basis=f"{_basis(epoch)}, optimal cache, 4 KiB reads")
    if name.startswith("diskgnn"):
        missed = epoch.beyond(cached_rows(row, epoch))
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


def _packing_reads(row: PublishedRow) -> DiskCount:
    """Seconds in which packing reads every row that no cache holds by a request of its own."""
    epoch = epoch_of(row)
    missed = epoch.beyond(study_cache(row, epoch))
    return _of_disk(row, DISK_BLOCK * -(-epoch.row_bytes // DISK_BLOCK) * missed, missed)


def _table_reads(row: PublishedRow) -> DiskCount:
    """Seconds in which packing reads the whole table, one large part after the other."""
    epoch = epoch_of(row)
    return _of_disk(row, float(epoch.profile.num_nodes * epoch.row_bytes), 1.0)


def _of_disk(row: PublishedRow, size: float, requests: float) -> DiskCount:
    """Seconds for which a read keeps the disk of a row busy."""
    cluster = cluster_of(row, native=True)
    storage = with_disk(load_cluster(cluster), disk_of(row)).storage
    assert storage is not None
    busy, _ = disk_seconds(storage, size, requests, write=False)
    return DiskCount(value=busy, basis="busy time of the disk", cluster=cluster)


_COUNTS: Mapping[str, Callable[[PublishedRow], DiskCount]] = {
    "cpu_cache_miss_rate": _host_misses,
    "feature_bytes_read_per_epoch": _bytes_read,
    "feature_rows_missed_per_epoch": _missed,
    "feature_rows_requested_per_epoch": _requested,
    "gpu_cache_hit_ratio": _hit_ratio,
    "gpu_cache_miss_rate": _device_misses,
    "input_nodes_per_batch_shown": _inputs,
    "num_train_partitions": _training_partitions,
    "packed_feature_blowup": _blowup,
    "read_throughput": _throughput,
    "total_io_per_epoch": _total_io,
    "unique_nodes_touched": _touched,
}
DISK_COUNTS = tuple(_COUNTS)
_TIMES: Mapping[str, Callable[[PublishedRow], DiskCount]] = {
    "preprocess_primitive_feature_read": _packing_reads,
    "preprocess_optimized_feature_read": _table_reads,
}
DISK_TIMES = tuple(_TIMES)
"""Times of reads alone."""
UNITS: Mapping[str, Mapping[str, float]] = {
    **{metric: {"s": 1.0, "min": 60.0} for metric in DISK_TIMES},
    "cpu_cache_miss_rate": {"": 1.0},
    "feature_bytes_read_per_epoch": {"GiB": float(GIB), "GB": 1e9},
    "feature_rows_missed_per_epoch": {"rows": 1.0},
    "feature_rows_requested_per_epoch": {"rows": 1.0},
    "gpu_cache_hit_ratio": {"": 1.0},
    "gpu_cache_miss_rate": {"": 1.0},
    "input_nodes_per_batch_shown": {"nodes": 1.0},
    "num_train_partitions": {"": 1.0},
    "packed_feature_blowup": {"x": 1.0},
    "read_throughput": {"MB/s": 1e6},
    "total_io_per_epoch": {"GB": 1e9},
    "unique_nodes_touched": {"nodes": 1.0},
}
BYTES = ("feature_bytes_read_per_epoch", "total_io_per_epoch")
"""Of them, those in bytes."""
