"""Seconds of reads and writes on a disk that all lanes and both directions share.

A transfer of B bytes in R requests keeps the disk busy for R / iops + B / bandwidth seconds. A lane
that waits for each request before it issues the next one needs R latency + B / bandwidth seconds on
an idle disk, which is longer: the disk is busy for a fraction of that time only. Concurrent lanes
get the fractions that they need until these add up to one; then they share the disk evenly. A
rented volume (`Storage.volume`) is busy for max(R / iops, B / bandwidth) instead: its provider
meters requests and bytes apart. So is a disk that is known from a data sheet, whose requests per
second are those of 4 KiB, transfer included (out-of-core reference section 13). Alone a lane then
takes the larger of that and R latency. The depth (number of requests in flight) is therefore the
number of lanes that are working.

Deviation known: for each sweep, in `Storage.radius`. On a virtual NVMe disk, 90 % of the points
(blocks of 4 KiB to 4 MiB, 1 to 16 lanes) were within a factor of 1.5.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from gnnbench.cluster import Cluster, Constant, DiskPoint, Storage
from gnnbench.costs.facts import Floats
from gnnbench.costs.fit import conformal_radius
from gnnbench.disk_limit import DiskLimit
from gnnbench.errors import SpecError

Number = TypeVar("Number", float, Floats)
COPY_RADIUS = 0.35
"""Radius (log) of a copy over the host link by its bandwidth: public figures of A100 hosts over
PCIe 4 lie between 16.5 and 26.3 GB/s."""
_SOFT = 0.1  # log error beyond which a point counts as an outlier


def disk_seconds(
    storage: Storage, size: Number, requests: Number, *, write: bool
) -> tuple[Number, Number]:
    """Seconds for which a transfer keeps the disk busy, and its duration if it is alone.

    Args:
        storage: of the cluster.
        size: bytes.
        requests: issued one after the other.
        write: the direction.
    """
    rate, latency, iops = storage.constants(write=write)
    moving = size / max(rate.value, 1e-9)
    waiting = requests * max(latency.value, 1.0 / max(iops.value, 1e-9))
    if storage.volume:
        busy: Any = np.maximum(requests / max(iops.value, 1e-9), moving)
        alone: Any = np.maximum(waiting, busy)
    else:
        busy, alone = requests / max(iops.value, 1e-9) + moving, waiting + moving
    if isinstance(storage, LimitedStorage):
        # A transfer takes its time within the limit, or that of the real disk if it is longer.
        least: Any = storage.limit.seconds(size, requests)
        return np.maximum(busy, least), np.maximum(alone, least)
    return busy, alone


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitedStorage(Storage):
    """A disk that a run does not let be faster than a limit."""

    limit: DiskLimit


def limited(cluster: Cluster, limit: DiskLimit) -> Cluster:
    """The cluster with its disk, or those of its kinds of hosts, held to a run's own limit."""
    if cluster.nodes and limit != DiskLimit():
        nodes = [
            dataclasses.replace(node, cluster=limited(node.cluster, limit))
            for node in cluster.nodes
            if node.cluster is not None
        ]
        return dataclasses.replace(cluster, nodes=tuple(nodes))
    storage = cluster.storage
    if storage is None or limit == DiskLimit():
        return cluster
    known = {spec.name: getattr(storage, spec.name) for spec in dataclasses.fields(Storage)}
    return dataclasses.replace(cluster, storage=LimitedStorage(**known, limit=limit))


def point_bytes_per_s(storage: Storage, point: DiskPoint) -> float:
    """Predicted bytes per second of all lanes of a sweep's point together."""
    block = float(point.block_bytes)
    timed = {w: disk_seconds(storage, block, 1.0, write=w) for w in (False, True)}
    if point.direction == "mixed" and point.depth == 1:
        return 2 * block / sum(alone for _, alone in timed.values())
    lanes = [timed[_writes(point.direction, lane)] for lane in range(point.depth)]
    shares = _shares([busy / alone for busy, alone in lanes])
    return float(sum(share * block / busy for share, (busy, _) in zip(shares, lanes, strict=True)))


def _writes(direction: str, lane: int) -> bool:
    return direction == "write" or (direction == "mixed" and lane % 2 == 1)


def _shares(wanted: Sequence[float]) -> list[float]:
    """Max-min fair shares of one disk."""
    left, shares = 1.0, [0.0] * len(wanted)
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    for place, lane in enumerate(order):
        shares[lane] = min(wanted[lane], left / (len(order) - place))
        left -= shares[lane]
    return shares


def fit_storage(points: Sequence[DiskPoint], *, method: str, source: str = "calibrate") -> Storage:
    """Fit bandwidth, latency and request rate of both directions to a sweep of the disk.

    Errors are relative and the loss is robust: a disturbed point has little influence. Raises
    SpecError where the sweep lacks a direction or a second block size.
    """
    from scipy.optimize import least_squares

    starts = [_start([p for p in points if p.direction == d], d) for d in ("read", "write")]
    origin = np.log(np.concatenate(starts))
    measured = np.log([max(p.bytes_per_s, 1.0) for p in points])

    def made(logs: Floats) -> Storage:
        values = [Constant(value=float(v), status="measured", source=source) for v in np.exp(logs)]
        return Storage(
            read_bytes_per_s=values[0],
            latency_s=values[1],
            iops=values[2],
            write_bytes_per_s=values[3],
            write_latency_s=values[4],
            write_iops=values[5],
            method=method,
            sweep=tuple(points),
        )

    def errors(logs: Floats) -> Floats:
        storage = made(logs)
        return np.log([point_bytes_per_s(storage, p) for p in points]) - measured

    reach = np.log(4.0)
    bounds = (origin - reach, origin + reach)
    found = least_squares(errors, origin, bounds=bounds, loss="soft_l1", f_scale=_SOFT).x
    radius = conformal_radius(errors(found))
    return dataclasses.replace(made(found), radius=round(radius, 4))


def _start(points: Sequence[DiskPoint], direction: str) -> list[float]:
    """Bandwidth, latency and requests per second, read off the extremes of a direction's sweep."""
    blocks = sorted({p.block_bytes for p in points})
    if len(blocks) < 2:
        raise SpecError(
            f"disk sweep, {direction}: found {len(blocks)} block sizes, needs at least 2"
        )
    rate = max(p.bytes_per_s for p in points)
    small = [p for p in points if p.block_bytes == blocks[0]]
    least = min(p.depth for p in small)
    first = next(p for p in small if p.depth == least)
    moving = blocks[0] / rate
    latency = max(blocks[0] * least / first.bytes_per_s - moving, 1e-7)
    each = max(blocks[0] / max(p.bytes_per_s for p in small) - moving, 1e-8)
    return [rate, latency, 1.0 / each]
