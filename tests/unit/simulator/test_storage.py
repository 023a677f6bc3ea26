"""The disk: what a transfer takes alone and in company, and how a sweep gives its constants."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from gnnbench.cluster import DiskPoint, Storage
from gnnbench.costs.storage import disk_seconds, fit_storage, point_bytes_per_s
from gnnbench.errors import SpecError, Unsupported
from gnnbench.steps import Kind, Lane
from gnnbench_simulator.compute import Durations
from gnnbench_simulator.predict import predict_plan


def _slow(kit: Any, **changes: Any) -> Any:
    """A disk of 1 B/s each way, 3 s of latency per request and one request per second at most."""
    disk = Storage(
        read_bytes_per_s=kit.constant(1.0),
        write_bytes_per_s=kit.constant(1.0),
        latency_s=kit.constant(3.0),
        iops=kit.constant(1.0),
    )
    return kit.cluster(storage=dataclasses.replace(disk, **changes))


def test_a_transfer_alone_takes_latency_and_keeps_the_disk_busy_for_less(kit: Any) -> None:
    """Two requests, 4 bytes: 2 x 1 s + 4 s of the disk, and 2 x 3 s + 4 s in all."""
    busy, alone = disk_seconds(_slow(kit).storage, 4.0, 2.0, write=False)
    assert (busy, alone) == (6.0, 10.0)


def test_the_directions_have_constants_of_their_own(kit: Any) -> None:
    changes = {"write_latency_s": kit.constant(7.0), "write_bytes_per_s": kit.constant(2.0)}
    disk = _slow(kit, **changes).storage
    assert disk_seconds(disk, 4.0, 1.0, write=True) == (3.0, 9.0)
    assert disk_seconds(disk, 4.0, 1.0, write=False) == (5.0, 7.0)


@pytest.mark.parametrize(
    ("lanes", "seconds"),
    [
        (1, 4.0),  # alone: 3 s of latency, 1 s of transfer; the disk is busy for 2 s
        (2, 4.0),  # both latencies pass at once, and the disk is just full
        (4, 8.0),  # four times 2 s of the disk
    ],
)
def test_lanes_overlap_their_latencies_until_the_disk_is_busy(
    kit: Any, periods_by_all: Any, lanes: int, seconds: float
) -> None:
    reads = tuple(kit.disk(f"r{n}", 1, lane=Lane.DISK.at(n)) for n in range(lanes))
    assert periods_by_all(kit.plan(reads), _slow(kit)) == [pytest.approx(seconds)]


def test_reads_and_writes_of_all_ranks_share_one_disk(kit: Any, periods_by_all: Any) -> None:
    """Six seconds of the disk each, at full speed alone."""
    read, write = kit.disk("r", 6), kit.disk("w", 6, kind=Kind.WRITE)
    assert periods_by_all(kit.plan((read,))) == [6.0]
    assert periods_by_all(kit.plan((read,), (write,))) == [12.0]


def test_unlike_lanes_get_what_they_want_before_the_rest_is_shared(
    kit: Any, periods_by_all: Any
) -> None:
    """A lane of small reads wants half of the disk, one of large writes all of it.

    The disk is shared evenly until the small read (2 s busy) ends after 4 s; the write of 1 + 9 s
    has had 2 s of it by then and goes on at its own pace of 10 s of disk in 12 s.
    """
    small = kit.disk("r", 1)
    large = kit.disk("w", 9, kind=Kind.WRITE, lane=Lane.DISK.at(1))
    assert periods_by_all(kit.plan((small, large)), _slow(kit)) == [pytest.approx(4 + 8 * 1.2)]


def test_a_step_without_bytes_takes_the_time_between_steps_alone(
    kit: Any, periods_by_all: Any
) -> None:
    nothing = kit.disk("r", 0, rows=0)
    assert periods_by_all(kit.plan((nothing, kit.work("a", 2)), (nothing,))) == [2.0]


def test_a_read_is_graded_by_the_weakest_constant_of_its_direction(kit: Any) -> None:
    known = dataclasses.replace(kit.constant(1.0), status="measured")
    measured = {
        name: known for name in ("read_bytes_per_s", "write_bytes_per_s", "latency_s", "iops")
    }
    graded = [
        predict_plan(kit.plan((kit.disk("r", 6),)), _slow(kit, radius=0.2, **given)).grade
        for given in (measured, {**measured, "iops": dataclasses.replace(known, status="assumed")})
    ]
    assert graded == ["measured", "datasheet"]


def test_a_cluster_without_a_disk_says_how_to_measure_one(kit: Any) -> None:
    durations = Durations(kit.cluster(storage=None))
    with pytest.raises(Unsupported, match=r"no \[storage\].*calibrate --only disk"):
        durations.seconds([kit.disk("r", 1)])


# -- the sweep -----------------------------------------------------------------------------------

BLOCKS, DEPTHS = (4096, 65536, 1 << 20), (1, 4, 16)


def _sweep(storage: Storage, noise: float = 0.0, *directions: str) -> list[DiskPoint]:
    rng = np.random.default_rng(3)
    points = [
        DiskPoint(direction=d, block_bytes=b, depth=n, bytes_per_s=1.0)
        for d in directions or ("read", "write", "mixed")
        for b in BLOCKS
        for n in DEPTHS
    ]
    return [
        dataclasses.replace(
            p, bytes_per_s=point_bytes_per_s(storage, p) * float(np.exp(rng.normal(0, noise)))
        )
        for p in points
    ]


def _ssd(kit: Any) -> Storage:
    return Storage(
        read_bytes_per_s=kit.constant(2e9),
        write_bytes_per_s=kit.constant(1e9),
        latency_s=kit.constant(8e-5),
        iops=kit.constant(1e5),
        write_latency_s=kit.constant(4e-5),
        write_iops=kit.constant(5e4),
    )


def test_a_fit_finds_the_constants_of_a_sweep_again(kit: Any) -> None:
    true = _ssd(kit)
    found = fit_storage(_sweep(true, 0.05), method="O_DIRECT")
    for write in (False, True):
        pairs = zip(found.constants(write=write), true.constants(write=write), strict=True)
        assert all(one.value == pytest.approx(other.value, rel=0.2) for one, other in pairs)
    assert found.method == "O_DIRECT" and found.radius < 0.2
    assert {c.status for c in found.constants(write=True)} == {"measured"}


def test_a_mixed_point_lies_between_both_directions(kit: Any) -> None:
    storage = _ssd(kit)
    for depth in DEPTHS:
        rates = [
            point_bytes_per_s(
                storage,
                DiskPoint(direction=d, block_bytes=1 << 20, depth=depth, bytes_per_s=0.0),
            )
            for d in ("write", "mixed", "read")
        ]
        assert rates == sorted(rates) and rates[0] < rates[2]


def test_a_sweep_of_one_direction_is_refused(kit: Any) -> None:
    with pytest.raises(SpecError, match="write: found 0 block sizes"):
        fit_storage(_sweep(_ssd(kit), 0.0, "read"), method="fadvise")
