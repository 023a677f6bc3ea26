"""What a job asks of a cluster: ranks, hosts, memory and time, for one run of a suite."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

_MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """One gang of ranks that trains one run and writes its record.

    Args:
        run_id: of the run, as the suite names it.
        command: what every rank executes, as words; the same on all ranks.
        ranks, ranks_per_host: all of them start together, or none.
        gpus_per_host: 0 on CPUs.
        cores_per_rank: that a rank's threads use.
        memory_bytes: of a host.
        limit_s: after which the job is ended.
        basis: where memory and limit come from, for the reader of a job file.
    """

    run_id: str
    command: Sequence[str]
    ranks: int
    ranks_per_host: int
    gpus_per_host: int = 0
    cores_per_rank: int = 1
    memory_bytes: int
    limit_s: float
    basis: str
    device: str = ""

    @property
    def hosts(self) -> int:
        return -(-self.ranks // self.ranks_per_host)

    @property
    def memory_mib(self) -> int:
        """Rounded up, because a host that has less kills the ranks."""
        return max(math.ceil(self.memory_bytes / _MIB), 1)

    @property
    def limit_min(self) -> int:
        return max(math.ceil(self.limit_s / 60), 1)

    @property
    def name(self) -> str:
        """A name that Kubernetes and Slurm accept: lower case, at most 60 letters, unique."""
        plain = re.sub(r"[^a-z0-9]+", "-", self.run_id.lower()).strip("-")
        short = hashlib.sha256(self.run_id.encode()).hexdigest()[:6]
        return f"gnnbench-{plain[:42].rstrip('-')}-{short}"
