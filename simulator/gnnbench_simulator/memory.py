"""Peak memory per rank and memory space: a baseline and the buffers of the plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gnnbench.cluster import Cluster
from gnnbench.plan import Plan
from gnnbench.steps import Space, pick
from gnnbench_simulator.allocator import replay_allocator

_STEPS_MAX = 400_000
"""Steps of all ranks whose allocations are followed; later periods repeat the first ones."""


def predict_memory(
    plan: Plan,
    cluster: Cluster,
    *,
    ranks_per_host: int | None = None,
    caps: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Predict the peak memory of each rank, in bytes.

    Keys of each entry: "baseline_bytes" (an idle process or a device's context), "workload_bytes"
    (largest sum of living buffers), "peak_bytes"; and for the space with the least room "space",
    "judged_bytes" (needed), "limit_bytes" and "fits".

    On a CPU, device and host are one memory, and the peak is the resident set: baseline and
    workload. On a GPU the peak is what PyTorch reports as allocated (FG-65); "reserved_bytes" is
    what its caching allocator reserves, "device_used_bytes" adds the context, and "host_bytes" are
    buffers in the host's memory.

    Args:
        plan: steps of all ranks.
        cluster: sizes of its memories.
        ranks_per_host: ranks that share the host's memory; by default as many as it has devices.
        caps: lower limits in bytes per rank, by memory space ("device", "host").
    """
    periods = _periods(plan)
    per_host = ranks_per_host or cluster.ranks_per_host(plan.world_size)
    if cluster.device.kind == "cpu":
        entries = _on_cpu(plan, cluster, periods, per_host, caps or {})
    else:
        entries = _on_gpu(plan, cluster, periods, per_host, caps or {})
    return [{"rank": rank, **entry} for rank, entry in enumerate(entries)]


def _on_cpu(
    plan: Plan, cluster: Cluster, periods: int, per_host: int, caps: Mapping[str, float]
) -> list[dict[str, Any]]:
    baseline = round(cluster.device.context_bytes.value)
    limit = min(cluster.device.memory_bytes.value, *_cap(caps, Space.DEVICE, Space.HOST))
    workloads = plan.peak_bytes(Space.DEVICE, Space.HOST, periods=periods)
    return [
        {
            "baseline_bytes": baseline,
            "workload_bytes": workload,
            "peak_bytes": baseline + workload,
            **_judged({"memory": (baseline + workload, limit)}),
        }
        for workload in workloads.tolist()
    ]


def _on_gpu(
    plan: Plan, cluster: Cluster, periods: int, per_host: int, caps: Mapping[str, float]
) -> list[dict[str, Any]]:
    context = round(cluster.device.context_bytes.value)
    device_limit = min(cluster.device.memory_bytes.value, *_cap(caps, Space.DEVICE))
    host_limit = min(cluster.host.memory_bytes.value / per_host, *_cap(caps, Space.HOST))
    workloads = plan.peak_bytes(Space.DEVICE, periods=periods)
    hosts = plan.peak_bytes(Space.HOST, periods=periods)
    known: dict[object, tuple[int, int]] = {}
    entries = []
    for rank, (workload, host) in enumerate(zip(workloads.tolist(), hosts.tolist(), strict=True)):
        key = _allocations(plan, rank) if plan.world_size > 8 else rank
        if key not in known:
            allocator = replay_allocator(plan, rank, periods=periods)
            known[key] = allocator.peak_allocated, allocator.reserved
        allocated, reserved = known[key]
        used = context + reserved
        entries.append(
            {
                "baseline_bytes": context,
                "workload_bytes": workload,
                "peak_bytes": allocated,
                "reserved_bytes": reserved,
                "device_used_bytes": used,
                "host_bytes": host,
                **_judged(
                    {"device memory": (used, device_limit), "host memory": (host, host_limit)}
                ),
            }
        )
    return entries


def _judged(spaces: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
    """The space with the least room, what it needs and has."""
    space, (needed, limit) = max(spaces.items(), key=lambda item: item[1][0] / item[1][1])
    return {
        "space": space,
        "judged_bytes": round(needed),
        "limit_bytes": round(limit),
        "fits": needed <= limit,
    }


def _cap(caps: Mapping[str, float], *spaces: Space) -> list[float]:
    return [caps.get(space.value, np.inf) for space in spaces]


def _periods(plan: Plan) -> int:
    """Periods to follow: two at least, because what the first one leaves lives in the second."""
    return min(plan.num_periods, max(2, _STEPS_MAX // max(plan.num_steps(), 1)))


def _allocations(plan: Plan, rank: int) -> tuple[object, ...]:
    """What a rank allocates and frees in the first period; equal for ranks that allocate alike."""
    resident = tuple((buffer.name, pick(buffer.bytes, rank)) for buffer in plan.resident)
    events = []
    for ranks, step in plan.allocations(periods=1):
        column = int(np.searchsorted(ranks, rank))
        if column < len(ranks) and ranks[column] == rank:
            sizes = tuple((b.name, pick(b.bytes, column)) for b in step.allocates)
            events.append((sizes, step.frees))
    return resident, tuple(events)
