"""Lower bound of a plan's epoch: the time that its bytes need on the link between hosts."""

from __future__ import annotations

import numpy as np

from gnnbench.cluster import Cluster
from gnnbench.costs.facts import Floats
from gnnbench.iterations import Iteration, RankClass
from gnnbench.plan import Plan
from gnnbench.steps import Groups, Step


def wire_bound_s(plan: Plan, cluster: Cluster, ranks_per_host: int) -> float:
    """Seconds that the exchanges of an epoch take at least on the busiest host's link; 0 on one.

    Overlap cannot shorten it: a published time below this bound shows that the plan's bytes, the
    halo curve or the stated link differ from what was run.
    """
    leaving = np.zeros(plan.world_size)
    for index, times in plan.iteration_counts(0).items():
        leaving += times * _leaving(plan.iterations[index], ranks_per_host)
    link = cluster.links.inter
    if link.shared:
        leaving = np.add.reduceat(leaving, np.arange(0, plan.world_size, ranks_per_host))
    return float(leaving.max()) / link.bytes_per_s.value


def _leaving(iteration: Iteration, ranks_per_host: int) -> Floats:
    """Bytes that each rank sends to ranks of other hosts, [world size]."""
    total = np.zeros(iteration.world_size)
    for of in iteration.classes:
        for step in of.steps:
            sent = step.work.send_bytes
            if sent is not None:
                away = _peers(of, step) // ranks_per_host != of.ranks[:, None] // ranks_per_host
                total[of.ranks] += (sent * away).sum(axis=1)
    return total


def _peers(of: RankClass, step: Step) -> np.ndarray[tuple[int, ...], np.dtype[np.intp]]:
    """The ranks of each rank's group, [ranks of the class or 1, group size]."""
    group = step.group
    if isinstance(group, Groups):
        return np.array(group.table, np.intp)[group.of]
    return np.array([group], np.intp)
