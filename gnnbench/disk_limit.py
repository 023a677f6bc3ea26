"""A limit on the disk of a run: a slower disk on a machine that has a faster one.

The runtime holds its reads and writes back (see `gnnbench_runtime.disk.Throttle`), the simulator
lowers the disk's constants. So predictions can be tested over disks without owning them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gnnbench.strict import bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskLimit:
    """Bytes and requests per second of all lanes and both directions together; 0 is no limit."""

    bytes_per_s: float = 0.0
    iops: float = 0.0

    def seconds(self, size: Any, requests: Any) -> Any:
        """Seconds for which transfers keep the limited disk busy: numbers, or arrays of them."""
        moving = size / self.bytes_per_s if self.bytes_per_s else 0.0 * size
        return moving + (requests / self.iops if self.iops else 0.0 * requests)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskKnobs:
    """Knobs of every approach that trains from the disk.

    disk_bytes_per_s, disk_iops: limits of the disk, over all lanes and both directions; 0 is none.
    """

    disk_bytes_per_s: float = field(default=0.0, metadata=bounds(0, 1e13))
    disk_iops: float = field(default=0.0, metadata=bounds(0, 1e9))

    @property
    def disk(self) -> DiskLimit:
        """The limit of the disk."""
        return DiskLimit(bytes_per_s=self.disk_bytes_per_s, iops=self.disk_iops)
