"""Whether a published time is long enough for its bytes to have crossed the stated link."""

from __future__ import annotations

from collections import defaultdict

from gnnbench.cluster import Cluster
from gnnbench.plan import Plan


def wire_bound_s(plan: Plan, cluster: Cluster, ranks_per_host: int) -> float:
    """Seconds that an epoch's exchanges need at least on the link of the busiest host; 0 on one.

    No software can be faster, however it overlaps: a published time below this says that the plan's
    bytes, the halo curve or the stated link is not what was run.
    """
    leaving: dict[int, float] = defaultdict(float)
    link = cluster.links.inter
    for iteration in plan.epoch(0):
        for rank, steps in enumerate(iteration):
            host = rank // ranks_per_host
            key = host if link.shared else rank
            for step in steps:
                for peer, size in zip(step.group, step.send_bytes, strict=False):
                    if peer // ranks_per_host != host:
                        leaving[key] += size
    return max(leaving.values(), default=0.0) / link.bytes_per_s.value
