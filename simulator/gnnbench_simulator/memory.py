"""Peak memory per rank and memory space: a baseline and the buffers of the plan."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from gnnbench.buffers import CATEGORIES, CONTEXT, RESERVE, category
from gnnbench.cluster import Cluster
from gnnbench.plan import Plan
from gnnbench.steps import Space, pick
from gnnbench_simulator.needs import EVALUATION, KEPT, TRAINING, Needs, needs_of

DEVICE_MEMORY, HOST_MEMORY, CPU_MEMORY = "device memory", "host memory", "memory"
DISK = "disk"
FITS, TIGHT, TOO_LARGE = "fits", "tight", "does not fit"
P_OUT_OF_MEMORY = 0.05
"""Up to this chance of running out of memory, a configuration is said to fit."""
BIAS, SPREAD = 0.05, 0.08
"""Mean and deviation of log(measured / predicted workload memory): of 143 runs on a CPU with 30 MB
or more (`reports/measured/2026-11-28-*`). GPUs are assumed to be alike."""
_Z90 = 1.645


def predict_memory(
    plan: Plan,
    cluster: Cluster,
    *,
    ranks_per_host: int | None = None,
    caps: Mapping[str, float] | None = None,
    needs: Needs | None = None,
    evaluates: bool = True,
) -> list[dict[str, Any]]:
    """Predict the peak memory of each rank, in bytes.

    Keys of each entry: "baseline_bytes" (a process or a device's context before any data, with the
    code of the approach), "workload_bytes" (largest sum of living buffers) and
    "peak_bytes" of the training; "evaluation_peak_bytes", and "evaluation_bytes" that
    an evaluation needs of each space, where it was followed; "spaces" with
    "phase" (training or evaluation, whichever needs more), "needed_bytes", its 90 % interval
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
        evaluates: whether the evaluation is judged, too, and not the training alone.
    """
    gpu = cluster.device.kind != "cpu"
    needs = needs_of(plan, gpu=gpu) if needs is None else needs
    per_host = ranks_per_host or cluster.ranks_per_host(plan.world_size)
    entries = judge(needs, cluster, per_host, caps or {}, evaluates=evaluates)
    worst = least_room(entries)
    entries[worst["rank"]] |= _contents(plan, needs, worst)
    return entries


def judge_worst(
    needs: Needs,
    cluster: Cluster,
    per_host: int,
    caps: Mapping[str, float],
    *,
    evaluates: bool = True,
) -> dict[str, Any]:
    """The entry of `judge` of the rank with the least room."""
    # On hosts of several kinds a rank that needs less may have less.
    ranks = needs.largest() if len(cluster.kinds) == 1 else None
    return least_room(judge(needs, cluster, per_host, caps, ranks=ranks, evaluates=evaluates))


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
    evaluates: bool = True,
) -> list[dict[str, Any]]:
    """What each rank (or some of the ranks) needs and has in each memory, see `predict_memory`.

    With `evaluates` false only the training is judged. What the evaluation needs is part of the
    entry in both cases, where it is known.
    """
    device_caps = [Space.DEVICE] if needs.gpu else [Space.DEVICE, Space.HOST]
    phases = needs.phases if evaluates else {TRAINING: needs.training}
    entries = []
    for rank in range(len(needs.loose)) if ranks is None else ranks:
        own = cluster.of_host(rank // per_host)
        context = own.device.baseline_bytes(*needs.code)
        device_limit = min(own.device.memory_bytes.value, *_cap(caps, *device_caps))
        # Ranks of one host share its memory; each is judged on an equal part.
        host_limit = min(own.host.memory_bytes.value / per_host, *_cap(caps, Space.HOST))
        entry: dict[str, Any] = {
            "rank": rank,
            "baseline_bytes": context,
            **_peaks(needs, rank, context),
        }
        device, most = _largest({name: of.reserved[rank] for name, of in phases.items()})
        if needs.gpu:
            held, host = _largest({name: of.host[rank] for name, of in phases.items()})
            spaces = {
                DEVICE_MEMORY: _space(device, context, most, device_limit),
                HOST_MEMORY: _space(held, 0, host, host_limit),
            }
        else:
            loose = round(KEPT * needs.loose[rank])
            spaces = {CPU_MEMORY: _space(device, context, most, device_limit, loose)}
        # Before the disk is added: the size of the disk is not known, so that it has no limit to
        # judge by.
        judged = _tightest(spaces)
        if needs.evaluation is not None:
            sizes = needs.evaluation.reserved[rank], needs.evaluation.host[rank]
            fixed = context, 0
            entry["evaluation_bytes"] = {
                name: own + size for name, own, size in zip(spaces, fixed, sizes, strict=False)
            }
        if needs.disk[rank]:
            spaces[DISK] = _space(TRAINING, 0, needs.disk[rank], None)
        entries.append({**entry, "spaces": spaces, **judged})
    return entries


def _peaks(needs: Needs, rank: int, context: int) -> dict[str, int]:
    """The peaks of a rank in training and, where it is known, in the evaluation."""
    trained, evaluated = needs.training, needs.evaluation
    found = {"workload_bytes": trained.workload[rank]}
    if needs.gpu:
        reserved = trained.reserved[rank]
        found |= {
            "peak_bytes": trained.allocated[rank],
            "reserved_bytes": reserved,
            "device_used_bytes": context + reserved,
            "host_bytes": trained.host[rank],
        }
        if evaluated is not None:
            found["evaluation_peak_bytes"] = evaluated.allocated[rank]
            found["evaluation_host_bytes"] = evaluated.host[rank]
        return found
    found["peak_bytes"] = context + trained.workload[rank]
    if evaluated is not None:
        found["evaluation_peak_bytes"] = context + evaluated.workload[rank]
    return found


def _largest(sizes: Mapping[str, int]) -> tuple[str, int]:
    """The phase that needs most, the first of equals, and how much."""
    name = max(sizes, key=lambda phase: sizes[phase])
    return name, sizes[name]


def _space(
    phase: str, fixed: int, workload: int, limit: float | None, loose: int = 0
) -> dict[str, Any]:
    """What is needed in a phase and there is; up to `loose` bytes more may stay allocated."""
    needed = fixed + workload
    low, high = (fixed + round(workload * math.exp(BIAS + z * SPREAD)) for z in (-_Z90, _Z90))
    chance = 0.0
    if limit is not None:
        # How much of the freed memory the allocator keeps is not known; the probability is averaged
        # over evenly spaced possibilities.
        kept = [fixed + loose * place for place in _PLACES] if loose else [fixed]
        chance = sum(out_of_memory(one, workload, limit) for one in kept) / len(kept)
    return {
        "phase": phase,
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
    rank, spaces = entry["rank"], entry["spaces"]
    members: dict[str, tuple[Space, ...]] = {
        DEVICE_MEMORY: (Space.DEVICE,),
        HOST_MEMORY: (Space.HOST,),
        CPU_MEMORY: (Space.DEVICE, Space.HOST),
        DISK: (Space.DISK,),
    }
    found = {
        name: _living(plan, rank, needs.periods, space["phase"], *members[name])
        for name, space in spaces.items()
    }
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


def _living(plan: Plan, rank: int, periods: int, phase: str, *spaces: Space) -> dict[str, int]:
    """A rank's buffers that live in some spaces when a phase holds most, largest first."""
    live = {b.name: pick(b.bytes, rank) for b in plan.resident if b.space in spaces}
    total = sum(live.values())
    most, peak = dict(live), total
    evaluated = plan.evaluated() if phase == EVALUATION else ()
    walks = chain(plan.allocations(periods=periods), [None], evaluated)
    for taken in walks:
        if taken is None:
            # What the periods leave is what an evaluation begins with.
            if phase == EVALUATION:
                most, peak = dict(live), total
            continue
        ranks, step = taken
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
