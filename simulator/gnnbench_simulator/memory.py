"""Peak memory per rank and memory space: a baseline and the buffers of the plan."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.buffers import CATEGORIES, CONTEXT, RESERVE, category
from gnnbench.cluster import Cluster
from gnnbench.plan import Plan
from gnnbench.steps import Ints, Space, pick
from gnnbench_simulator.allocator import replay_allocators

DEVICE_MEMORY, HOST_MEMORY, CPU_MEMORY = "device memory", "host memory", "memory"
DISK = "disk"
FITS, TIGHT, TOO_LARGE = "fits", "tight", "does not fit"
P_OUT_OF_MEMORY = 0.05
"""Up to this chance of running out of memory, a configuration is said to fit."""
BIAS, SPREAD = 0.05, 0.08
"""Mean and deviation of log(measured / predicted workload memory): of 143 runs on a CPU with 30 MB
or more (`reports/measured/2026-11-28-*`). GPUs are assumed to be alike."""
_Z90 = 1.645
_STEPS_MAX = 400_000
"""Steps of all ranks whose allocations are followed; later periods repeat the first ones."""
_COUNTED = 32
"""Iterations whose steps are counted to know how many a period has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a plan's buffers need on each rank, in bytes, whatever the machine.

    Args:
        gpu: whether device and host are memories of their own.
        workload: largest sum of living buffers on the device (on a CPU: of all).
        allocated, reserved: by the device's caching allocator; on a CPU as `workload`.
        host: largest sum of living buffers in the host's memory; zero on a CPU.
        disk: largest sum of files.
        loose: on a CPU, the largest buffer whose size changes from one allocation to the next and
            that the C library's allocator may keep after it was freed, see `_loose`.
        periods: how many were followed.
    """

    gpu: bool
    workload: list[int]
    allocated: list[int]
    reserved: list[int]
    host: list[int]
    disk: list[int]
    loose: list[int]
    periods: int

    def largest(self) -> list[int]:
        """The ranks that need most of a space: no other can have the least room."""
        # Rows of several spaces are judged apart: the rank with the largest workload may not be the
        # one with the largest host buffers.
        columns = (self.reserved, self.workload, self.host, self.disk)
        return sorted({int(np.argmax(column)) for column in columns})


def needs_of(plan: Plan, *, gpu: bool) -> Needs:
    """Follow a plan's buffers in program order."""
    periods = _periods(plan)
    # A CPU has one memory: device and host buffers of a rank live in one resident set.
    if not gpu:
        found = plan.peaks([(Space.DEVICE, Space.HOST), (Space.DISK,)], periods=periods)
        workload, disk = (peak.tolist() for peak in found)
        none = [0] * plan.world_size
        return Needs(
            gpu=False,
            workload=workload,
            allocated=workload,
            reserved=workload,
            host=none,
            disk=disk,
            loose=_loose(plan, periods).tolist(),
            periods=periods,
        )
    spaces = (Space.DEVICE,), (Space.HOST,), (Space.DISK,)
    workload, host, disk = (peak.tolist() for peak in plan.peaks(spaces, periods=periods))
    known: dict[int, tuple[int, int]] = {}
    # Ranks that allocate alike share one replay of the allocator. The others are replayed in one
    # walk of the plan, because iterations are made on demand.
    keys = _allocation_keys(plan).tolist()
    first = {key: rank for rank, key in reversed(list(enumerate(keys)))}
    replayed = replay_allocators(plan, list(first.values()), periods=periods)
    for key, allocator in zip(first, replayed, strict=True):
        known[key] = allocator.peak_allocated, allocator.reserved
    pairs = [known[key] for key in keys]
    return Needs(
        gpu=True,
        workload=workload,
        allocated=[allocated for allocated, _ in pairs],
        reserved=[reserved for _, reserved in pairs],
        host=host,
        disk=disk,
        loose=[0] * plan.world_size,
        periods=periods,
    )


_KEPT_MOST, _KEPT_LEAST, _KEPT = 32 * 2**20, 128 * 2**10, 2.5
"""glibc keeps freed chunks of 128 KiB to 32 MiB once such a chunk was freed: it then gives memory
back to the system only beyond twice the largest of them (mallopt(3), M_MMAP_THRESHOLD). Runs of
`sampled` held up to 2.5 times the largest fetched buffer more than their plan, and 2 % more with
the threshold fixed."""


def _loose(plan: Plan, periods: int) -> Ints:
    """The largest buffer of each rank whose size changes between allocations, int64 [ranks].

    Buffers of constant size are found again by the allocator. On a profile all batches have the
    mean sizes, and those of a plan of several batches are taken to vary.
    """
    low: dict[str, Ints] = {}
    high: dict[str, Ints] = {}
    for ranks, step in plan.allocations(periods=periods):
        for buffer in step.allocates:
            if buffer.space is Space.DISK:
                continue
            if buffer.name not in low:
                # The largest integer is neutral for the minimum of ranks that have not allocated
                # the buffer yet.
                low[buffer.name] = np.full(plan.world_size, np.iinfo(np.int64).max)
                high[buffer.name] = np.zeros(plan.world_size, np.int64)
            low[buffer.name][ranks] = np.minimum(low[buffer.name][ranks], buffer.bytes)
            high[buffer.name][ranks] = np.maximum(high[buffer.name][ranks], buffer.bytes)
    # A profile states mean sizes only. Batches of a real graph vary, so their buffers are taken to
    # vary.
    batches = not plan.counted and max(plan.periods, default=1) > 1
    found = np.zeros(plan.world_size, np.int64)
    for name, most in high.items():
        kept = np.minimum(most, _KEPT_MOST)
        # One percent separates a buffer that grows between batches from rounding of its size.
        varies = batches | (most > 1.01 * low[name])
        found = np.maximum(found, np.where(varies & (most > _KEPT_LEAST), kept, 0))
    return found


def predict_memory(
    plan: Plan,
    cluster: Cluster,
    *,
    ranks_per_host: int | None = None,
    caps: Mapping[str, float] | None = None,
    needs: Needs | None = None,
) -> list[dict[str, Any]]:
    """Predict the peak memory of each rank, in bytes.

    Keys of each entry: "baseline_bytes" (an idle process or a device's context), "workload_bytes"
    (largest sum of living buffers), "peak_bytes"; "spaces" with "needed_bytes", its 90 % interval
    "low_bytes" to "high_bytes", "limit_bytes" (None: not known), "headroom_bytes" and
    "p_out_of_memory" (see `out_of_memory`) of each; and for the space with the least room "space",
    "judged_bytes" (needed), "limit_bytes", "fits" (needed is no more than the limit) and "verdict":
    `FITS` where running out is unlikely, `TIGHT` where it is not, `TOO_LARGE`. The entry of the
    rank with the least room also has "buffers" and "categories": what fills each space at its peak,
    by name and by `gnnbench.buffers.category`; a space's categories sum to what is needed of it.

    On a CPU, device and host are one memory, and the peak is the resident set: baseline and
    workload. On a GPU the peak is what PyTorch reports as allocated (FG-65); "reserved_bytes" is
    what its caching allocator reserves, "device_used_bytes" adds the context, and "host_bytes" are
    buffers in the host's memory.

    Args:
        plan: steps of all ranks.
        cluster: sizes of its memories.
        ranks_per_host: ranks that share the host's memory; by default as many as it has devices.
        caps: lower limits in bytes per rank, by memory space ("device", "host").
        needs: of the plan, where they are known already.
    """
    gpu = cluster.device.kind != "cpu"
    needs = needs_of(plan, gpu=gpu) if needs is None else needs
    per_host = ranks_per_host or cluster.ranks_per_host(plan.world_size)
    entries = judge(needs, cluster, per_host, caps or {})
    worst = least_room(entries)
    entries[worst["rank"]] |= _contents(plan, needs, worst)
    return entries


def judge_worst(
    needs: Needs, cluster: Cluster, per_host: int, caps: Mapping[str, float]
) -> dict[str, Any]:
    """The entry of `judge` of the rank with the least room."""
    # On hosts of several kinds a rank that needs less may have less.
    ranks = needs.largest() if len(cluster.kinds) == 1 else None
    return least_room(judge(needs, cluster, per_host, caps, ranks=ranks))


def least_room(entries: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The entry of the rank with the least room."""
    # A share of the limit, not absolute headroom: 1 GiB is much room on a device and little on a
    # host.
    return dict(max(entries, key=lambda e: e["judged_bytes"] / max(e["limit_bytes"], 1)))


def judge(
    needs: Needs,
    cluster: Cluster,
    per_host: int,
    caps: Mapping[str, float],
    *,
    ranks: Sequence[int] | None = None,
) -> list[dict[str, Any]]:
    """What each rank (or some of the ranks) needs and has in each memory, see `predict_memory`."""
    device_caps = [Space.DEVICE] if needs.gpu else [Space.DEVICE, Space.HOST]
    entries = []
    for rank in range(len(needs.workload)) if ranks is None else ranks:
        own = cluster.of_host(rank // per_host)
        context = round(own.device.context_bytes.value)
        device_limit = min(own.device.memory_bytes.value, *_cap(caps, *device_caps))
        # Ranks of one host share its memory; each is judged on an equal part.
        host_limit = min(own.host.memory_bytes.value / per_host, *_cap(caps, Space.HOST))
        workload, reserved, host = needs.workload[rank], needs.reserved[rank], needs.host[rank]
        entry: dict[str, Any] = {"rank": rank, "baseline_bytes": context}
        entry["workload_bytes"] = workload
        if needs.gpu:
            entry |= {
                "peak_bytes": needs.allocated[rank],
                "reserved_bytes": reserved,
                "device_used_bytes": context + reserved,
                "host_bytes": host,
            }
            spaces = {
                DEVICE_MEMORY: _space(context, reserved, device_limit),
                HOST_MEMORY: _space(0, host, host_limit),
            }
        else:
            entry["peak_bytes"] = context + workload
            loose = round(_KEPT * needs.loose[rank])
            spaces = {CPU_MEMORY: _space(context, workload, device_limit, loose)}
        # Before the disk is added: the size of the disk is not known, so that it has no limit to
        # judge by.
        judged = _tightest(spaces)
        if needs.disk[rank]:
            spaces[DISK] = _space(0, needs.disk[rank], None)
        entries.append({**entry, "spaces": spaces, **judged})
    return entries


def _space(fixed: int, workload: int, limit: float | None, loose: int = 0) -> dict[str, Any]:
    """What is needed and there is; up to `loose` bytes more may stay with the allocator."""
    needed = fixed + workload
    low, high = (fixed + round(workload * math.exp(BIAS + z * SPREAD)) for z in (-_Z90, _Z90))
    chance = 0.0
    if limit is not None:
        # How much of the freed memory the allocator keeps is not known; the probability is averaged
        # over evenly spaced possibilities.
        kept = [fixed + loose * place for place in _PLACES] if loose else [fixed]
        chance = sum(out_of_memory(one, workload, limit) for one in kept) / len(kept)
    return {
        "needed_bytes": needed,
        "low_bytes": min(low, needed),
        "high_bytes": high + loose,
        "limit_bytes": None if limit is None else round(limit),
        "headroom_bytes": None if limit is None else round(limit) - needed,
        "p_out_of_memory": chance,
    }


_PLACES = tuple((place + 0.5) / 8 for place in range(8))
"""Shares of the loose bytes, each as likely as the others."""


def _tightest(spaces: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The space with the least room, what it needs and has."""
    space, held = max(
        spaces.items(), key=lambda item: item[1]["needed_bytes"] / max(item[1]["limit_bytes"], 1)
    )
    needed, limit = held["needed_bytes"], held["limit_bytes"]
    # Any space that overflows ends the run, so the risk of the riskiest one is reported.
    chance = max(float(one["p_out_of_memory"]) for one in spaces.values())
    within = TIGHT if chance > P_OUT_OF_MEMORY else FITS
    return {
        "space": space,
        "judged_bytes": needed,
        "limit_bytes": limit,
        "fits": needed <= limit,
        "verdict": within if needed <= limit else TOO_LARGE,
    }


def out_of_memory(fixed: float, workload: float, limit: float) -> float:
    """Probability that a rank needs more than `limit` bytes.

    What a workload needs over what was predicted is log-normal, with the bias and spread of the
    runs that were measured (`BIAS`, `SPREAD`).
    """
    if workload <= 0:
        return 0.0 if fixed <= limit else 1.0
    if limit <= fixed:
        return 1.0
    z = (math.log((limit - fixed) / workload) - BIAS) / SPREAD
    return 0.5 * math.erfc(z / math.sqrt(2.0))


def _contents(plan: Plan, needs: Needs, entry: Mapping[str, Any]) -> dict[str, Any]:
    """What fills the spaces of one rank at their peaks, by buffer and by category."""
    if not needs.gpu:
        found = {CPU_MEMORY: _living(plan, entry["rank"], needs.periods, Space.DEVICE, Space.HOST)}
    else:
        found = {
            DEVICE_MEMORY: _living(plan, entry["rank"], needs.periods, Space.DEVICE),
            HOST_MEMORY: _living(plan, entry["rank"], needs.periods, Space.HOST),
        }
    if needs.disk[entry["rank"]]:
        found[DISK] = _living(plan, entry["rank"], needs.periods, Space.DISK)
    resident = {buffer.name for buffer in plan.resident}
    categories: dict[str, dict[str, int]] = {}
    for space, buffers in found.items():
        of: dict[str, int] = {}
        for name, size in buffers.items():
            kind = category(name, resident=name in resident)
            of[kind] = of.get(kind, 0) + size
        if space not in (HOST_MEMORY, DISK):
            of[CONTEXT] = entry["baseline_bytes"]
            # The reserve is what the caching allocator holds beyond living buffers; it closes the
            # sum.
            of[RESERVE] = entry["spaces"][space]["needed_bytes"] - sum(of.values())
        categories[space] = {name: of[name] for name in CATEGORIES if of.get(name)}
    return {"buffers": found, "categories": categories}


def _living(plan: Plan, rank: int, periods: int, *spaces: Space) -> dict[str, int]:
    """A rank's buffers that live in some spaces when their sum is highest, largest first."""
    live = {b.name: pick(b.bytes, rank) for b in plan.resident if b.space in spaces}
    total = sum(live.values())
    most, peak = dict(live), total
    for ranks, step in plan.allocations(periods=periods):
        column = int(np.searchsorted(ranks, rank))
        if column == len(ranks) or ranks[column] != rank:
            continue
        for buffer in step.allocates:
            if buffer.space in spaces:
                before, size = live.get(buffer.name, 0), pick(buffer.bytes, column)
                # A reused workspace stays at its largest size, see `Buffer`.
                live[buffer.name] = size if buffer.exact else max(size, before)
                total += live[buffer.name] - before
        # Compared before frees: buffers that a step frees are alive while it runs.
        if total > peak:
            most, peak = dict(live), total
        for name in step.frees:
            total -= live.pop(name, 0)
    return dict(sorted(((n, b) for n, b in most.items() if b), key=lambda item: -item[1]))


def _cap(caps: Mapping[str, float], *spaces: Space) -> list[float]:
    return [caps.get(space.value, np.inf) for space in spaces]


def _periods(plan: Plan) -> int:
    """Periods to follow: two at least, because what the first one leaves lives in the second."""
    # The step budget bounds the time; two periods show what the first one leaves behind. Iterations
    # of a period have about as many steps each, and making all of them to count takes long.
    ahead = plan.scheduled(0)[:_COUNTED]
    steps = sum(plan.iterations[index].num_steps() for index in ahead) / max(len(ahead), 1)
    return min(plan.num_periods, max(2, int(_STEPS_MAX // max(steps * sum(plan.periods[:1]), 1))))


def _allocation_keys(plan: Plan) -> NDArray[np.uint64]:
    """A hash per rank of what it allocates and frees on its device in the first period, [ranks].

    Ranks that allocate alike have equal keys.
    """
    keys = np.zeros(plan.world_size, np.uint64)
    if plan.world_size == 1:
        return keys
    for buffer in plan.resident:
        _mix(keys, slice(None), buffer.bytes)
    for ranks, step in plan.allocations(periods=1):
        for buffer in step.allocates:
            if buffer.space is Space.DEVICE:
                _mix(keys, ranks, zlib.crc32(buffer.name.encode()))
                _mix(keys, ranks, buffer.bytes)
        for name in step.frees:
            _mix(keys, ranks, zlib.crc32(name.encode()))
    return keys


def _mix(keys: NDArray[np.uint64], ranks: Any, value: Any) -> None:
    """Fold a size, or one per rank, into the keys of some ranks (FNV-1a on whole words)."""
    folded = (keys[ranks] ^ np.asarray(value).astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
    # The product moves low bits up only; the shift brings the high ones down again.
    keys[ranks] = folded ^ (folded >> np.uint64(29))
