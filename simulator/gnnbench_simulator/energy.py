"""Energy of a period: a power reading of the device where there is one, else a model.

    E = overhead (sum over devices of P_idle t + joules per flop and per byte)      (simulation 8)

Board power times time is the upper end of the range and never the estimate: devices that wait for
memory or for each other draw far less. Hosts, switches and disks are left out.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass

import numpy as np

from gnnbench.cluster import Cluster, Power
from gnnbench.costs.facts import Floats
from gnnbench.ladder import grade, weakest
from gnnbench.plan import Plan
from gnnbench.steps import COMMUNICATION, STORAGE, Kind, Size, Work

_THROUGH_CACHE = frozenset({Kind.SPMM, Kind.SDDMM})


@dataclass(frozen=True, slots=True, kw_only=True)
class Volumes:
    """Flops of all ranks in one period, and bytes by where they move."""

    flops: float = 0.0
    memory_bytes: float = 0.0
    cache_bytes: float = 0.0
    link_bytes: float = 0.0
    host_bytes: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """Joules of one period over all devices, idle ones of the hosts included.

    `low_j` is idle power, `high_j` board power, for the whole period; `basis` says which of reading
    and model gave `joules`.
    """

    joules: float
    low_j: float
    high_j: float
    grade: str
    basis: str


def volumes(plan: Plan, *, element_bytes: float) -> Volumes:
    """Flops and bytes of the plan's last period, which repeats."""
    period = plan.num_periods - 1
    sums = np.zeros(5)
    for index, times in plan.iteration_counts(period).items():
        for of in plan.iterations[index].classes:
            for step in of.steps:
                sums += times * of_work(step.work, len(of), element_bytes)
    return Volumes(**dict(zip(Volumes.__dataclass_fields__, sums.tolist(), strict=True)))


def of_work(work: Work, ranks: int, element_bytes: float) -> Floats:
    """The work's share of `Volumes`, over all ranks of its class."""
    size = _sum(work.bytes, ranks)
    if work.kind in COMMUNICATION:
        return np.array([0.0, 0.0, 0.0, size, 0.0])
    if work.kind is Kind.COPY:
        return np.array([0.0, 0.0, 0.0, 0.0, size])
    if work.kind in STORAGE:
        return np.zeros(5)
    cached = 0.0
    if work.kind in _THROUGH_CACHE:
        # An edge reads its source's row, mostly from the cache; `bytes` has each row once.
        cached = _sum(np.asarray(work.nonzeros) * np.asarray(work.width), ranks) * element_bytes
    return np.array([_sum(work.flops, ranks), size, cached, 0.0, 0.0])


def _sum(size: Size | Floats, ranks: int) -> float:
    array = np.asarray(size, dtype=np.float64)
    return float(array.sum()) if array.ndim else float(array) * ranks


def energy(
    of: Volumes, cluster: Cluster, period_s: float, *, ranks: int, ranks_per_host: int
) -> Energy | None:
    """Joules of a period of so many seconds; None where the cluster states no power."""
    if len(cluster.kinds) > 1:
        return _of_kinds(of, cluster, period_s, ranks, ranks_per_host)
    power = cluster.power
    if power is None:
        return None
    hosts = -(-ranks // ranks_per_host)
    idle = max(hosts * cluster.host.devices_per_host - ranks, 0)
    overhead = power.overhead.value
    idle_j = power.idle_w.value * period_s * overhead
    limit_j = power.limit_w.value * period_s * overhead
    if power.training_w is not None:
        busy_j = power.training_w.value * period_s * overhead
        how, basis = grade(power.training_w.status), f"power reading: {power.training_w.source}"
    else:
        moved = overhead * _dynamic_j(of, power) / ranks
        busy_j = min(idle_j + moved, limit_j)
        how, basis = _model_grade(power), "model: idle power, flops and bytes moved"
    return Energy(
        joules=ranks * busy_j + idle * idle_j,
        low_j=(ranks + idle) * idle_j,
        high_j=ranks * limit_j + idle * idle_j,
        grade=how,
        basis=basis,
    )


def _of_kinds(
    of: Volumes, cluster: Cluster, period_s: float, ranks: int, ranks_per_host: int
) -> Energy | None:
    """The sum over kinds of hosts; every rank has an equal share of the volumes."""
    counts = Counter(cluster.kind_of(rank // ranks_per_host) for rank in range(ranks))
    parts = []
    for kind, count in counts.items():
        share = Volumes(**{k: v * count / ranks for k, v in dataclasses.asdict(of).items()})
        own = cluster.kinds[kind]
        parts.append(energy(share, own, period_s, ranks=count, ranks_per_host=ranks_per_host))
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    return Energy(
        joules=sum(part.joules for part in known),
        low_j=sum(part.low_j for part in known),
        high_j=sum(part.high_j for part in known),
        grade=weakest(part.grade for part in known),
        basis="; ".join(dict.fromkeys(part.basis for part in known)),
    )


def _dynamic_j(of: Volumes, power: Power) -> float:
    return (
        of.flops * power.joules_per_flop.value
        + of.memory_bytes * power.joules_per_byte.value
        + of.cache_bytes * power.joules_per_cache_byte.value
        + of.link_bytes * power.joules_per_link_byte.value
        + of.host_bytes * power.joules_per_host_byte.value
    )


def _model_grade(power: Power) -> str:
    constants = (power.idle_w, power.joules_per_flop, power.joules_per_byte, power.overhead)
    return weakest(grade(constant.status) for constant in constants)
