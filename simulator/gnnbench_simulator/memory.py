"""Peak memory per rank: what an idle process or device holds, and the plan's buffers on top."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gnnbench.cluster import Cluster
from gnnbench.plan import Plan
from gnnbench_simulator.allocator import replay_allocator

_STEPS_MAX = 400_000
"""Steps of all ranks whose allocations are followed; more epochs repeat the first."""


def predict_memory(plan: Plan, cluster: Cluster) -> list[dict[str, Any]]:
    """Per rank, in bytes: {"rank", "baseline_bytes", "workload_bytes", "peak_bytes", ...}.

    On a CPU the peak is the resident set: baseline and workload. On a GPU it is what PyTorch calls
    allocated (FG-65); "reserved_bytes" is what its allocator holds, "device_used_bytes" adds the
    context. "fits" says whether that is within the device's memory.
    """
    epochs = _epochs(plan)
    seen: dict[int, dict[str, Any]] = {}
    out = []
    for rank in range(plan.world_size):
        key = hash(_fingerprint(plan, rank)) if plan.world_size > 64 else rank
        if key not in seen:
            seen[key] = _rank(plan, cluster, rank, epochs)
        out.append({"rank": rank, **seen[key]})
    return out


def _rank(plan: Plan, cluster: Cluster, rank: int, epochs: int) -> dict[str, Any]:
    baseline = round(cluster.device.context_bytes.value)
    workload = plan.memory_peak_bytes(rank, epochs=epochs)
    limit = cluster.device.memory_bytes.value
    entry: dict[str, Any] = {"baseline_bytes": baseline, "workload_bytes": workload}
    if cluster.device.kind == "cpu":
        return {**entry, "peak_bytes": baseline + workload, "fits": baseline + workload <= limit}
    allocator = replay_allocator(plan, rank, epochs=epochs)
    used = baseline + allocator.reserved
    return {
        **entry,
        "peak_bytes": allocator.peak_allocated,
        "reserved_bytes": allocator.reserved,
        "device_used_bytes": used,
        "fits": used <= limit,
    }


def _epochs(plan: Plan) -> int:
    return max(1, min(plan.num_epochs, _STEPS_MAX // max(plan.num_steps(), 1)))


def _fingerprint(plan: Plan, rank: int) -> tuple[object, ...]:
    resident: Mapping[str, int] = plan.resident[rank] if plan.resident else {}
    events = tuple(
        (step.allocates, step.frees)
        for iteration in plan.iterations
        for step in iteration[rank]
        if step.allocates or step.frees
    )
    return tuple(sorted(resident.items())), events
