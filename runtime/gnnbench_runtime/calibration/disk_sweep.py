"""Sweep the disk: block size × depth × direction, through the code that training reads with.

Lanes are threads; each has one request of a block in flight, at random places of a file that was
written before. The page cache is kept out, see `gnnbench_runtime.disk`.
"""

from __future__ import annotations

import os
import statistics
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from gnnbench import owner
from gnnbench.cluster import DiskPoint, Storage
from gnnbench.costs.storage import fit_storage
from gnnbench.errors import Unsupported
from gnnbench_runtime.disk import BlockFile, aligned_empty

DIRECTIONS = ("read", "write", "mixed")
KIB, MIB = 1 << 10, 1 << 20
_IN_MEMORY = ("tmpfs", "ramfs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """Settings of a sweep.

    file_bytes   size of the file; larger than the caches of the disk if those are to be excluded
    seconds      duration of the measurement of each point, per turn
    """

    blocks: tuple[int, ...]
    depths: tuple[int, ...]
    file_bytes: int
    seconds: float
    turns: int


FULL = Sweep(
    blocks=(4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB),
    depths=(1, 2, 4, 8, 16),
    file_bytes=1024 * MIB,
    seconds=0.25,
    turns=3,
)
QUICK = Sweep(
    blocks=(4 * KIB, 64 * KIB, MIB),
    depths=(1, 4, 16),
    file_bytes=64 * MIB,
    # The median of three short turns: a stall of the machine spoils one of them.
    seconds=0.05,
    turns=3,
)


def sweep_disk(
    folder: Path,
    sweep: Sweep = FULL,
    *,
    direct: bool = True,
    progress: Callable[[str, float], None] | None = None,
) -> Storage:
    """Measure the disk that a folder is on.

    Args:
        folder: a file is made in it, and removed.
        sweep: what is measured.
        direct: whether to try O_DIRECT; else pages are dropped after use.
        progress: called with a word and the share done.

    Raises:
        Unsupported: the folder is in memory, or too little space is free.
    """
    _check(folder, sweep)
    rates: dict[tuple[str, int, int], list[float]] = defaultdict(list)
    todo = [
        (direction, block, depth)
        for _ in range(sweep.turns)
        for block in sweep.blocks
        for depth in sweep.depths
        for direction in DIRECTIONS
    ]
    with owner.scratch(".gnnbench-disk-", folder) as scratch:
        path = scratch / "blocks"
        with BlockFile(path, size_bytes=sweep.file_bytes, writable=True, direct=direct) as file:
            _fill(file)
            for number, point in enumerate(todo):
                if progress is not None:
                    progress(f"disk, {point[0]}", number / len(todo))
                rates[point].append(measure(file, *point, seconds=sweep.seconds))
            method = file.method
    points = [
        DiskPoint(direction=d, block_bytes=b, depth=n, bytes_per_s=round(statistics.median(found)))
        for (d, b, n), found in rates.items()
    ]
    how = "O_DIRECT" if method == "O_DIRECT" else "page cache dropped by posix_fadvise"
    return fit_storage(points, method=method, source=f"calibrate, {how}")


def measure(file: BlockFile, direction: str, block: int, depth: int, *, seconds: float) -> float:
    """Bytes per second of `depth` lanes together, measured for about this many seconds."""
    places = file.size_bytes // block
    end = perf_counter() + seconds

    def lane(number: int) -> int:
        buffer = aligned_empty((block,), np.uint8)
        buffer[:] = number
        picks = np.random.default_rng(number).integers(0, places, 4096) * block
        done = 0
        while perf_counter() < end or not done:
            turn = number if depth > 1 else done
            writes = direction == "write" or (direction == "mixed" and turn % 2 == 1)
            offset = int(picks[done % len(picks)])
            _ = file.write(buffer, offset) if writes else file.read(buffer, offset)
            done += 1
        return done

    begin = perf_counter()
    with ThreadPoolExecutor(depth) as lanes:
        requests = sum(lanes.map(lane, range(depth)))
    return requests * block / (perf_counter() - begin)


def _fill(file: BlockFile) -> None:
    """Write the whole file: a disk knows that unwritten blocks are zeros, and reads none."""
    block = aligned_empty((MIB,), np.uint8)
    block[:] = np.random.default_rng(0).integers(0, 256, MIB, dtype=np.uint8)
    for offset in range(0, file.size_bytes, MIB):
        file.write(block, offset)
    file.drop()


def _check(folder: Path, sweep: Sweep) -> None:
    kind = file_system(folder)
    if kind in _IN_MEMORY:
        raise Unsupported(
            f"{folder}: found a file system in memory ({kind}); give --disk a folder on a disk"
        )
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    if free < 2 * sweep.file_bytes:
        raise Unsupported(
            f"{folder}: {free / MIB:.0f} MiB free, the sweep needs {sweep.file_bytes / MIB:.0f} MiB"
        )


def file_system(folder: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """The type of the file system of a folder; "" if it is unknown."""
    where = folder.resolve()
    found, deepest = "", -1
    try:
        lines = mounts.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    for line in lines:
        _, place, kind, *_ = line.split(" ")
        mount = Path(place.replace("\\040", " "))
        if where.is_relative_to(mount) and len(mount.parts) >= deepest:
            found, deepest = kind, len(mount.parts)
    return found
