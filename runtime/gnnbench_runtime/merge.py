"""Merging the ranks' parts into one record: sums over ranks, or the slowest rank."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from gnnbench.plan import Plan
from gnnbench.results import RunRecord
from gnnbench_runtime.held import planned_bytes


def merge(record: RunRecord, parts: Sequence[Mapping[str, Any]], plan: Plan) -> RunRecord:
    """Return the record of a run whose ranks all ended by themselves.

    Seconds of periods, set-up seconds and the probe are those of the slowest rank, bytes the sum of
    what all ranks moved; loss and metrics are global already and taken from rank 0. The planned
    bytes of every period are kept beside the counted ones, where the plan has counted them. A run
    is "diverged" from the first period whose loss is not finite; its metrics from then on are left
    out, since those of a model of nan look like those of a trained one.
    """
    parts = sorted(parts, key=lambda part: part["rank"])
    first = parts[0]
    periods = _periods(parts, plan)
    reason = _divergence(periods, parts)
    return dataclasses.replace(
        record,
        status="diverged" if reason else "ok",
        reason=reason,
        periods=periods,
        memory=[part["memory"] for part in parts],
        metrics={} if reason else first["metrics"],
        probe=_slowest([part["probe"] for part in parts]),
        setup_s=_slowest([part["setup_s"] for part in parts]),
        energy=_energy([part["energy"] for part in parts]),
        device=first["device"],
        versions=first["versions"],
    )


def _periods(parts: Sequence[Mapping[str, Any]], plan: Plan) -> list[dict[str, Any]]:
    # A plan that draws some epochs of batches, or a profile's, has estimates: no run equals them.
    known = plan.num_periods if plan.counted else plan.counted_periods
    planned = [*planned_bytes(plan)[:known], *[None] * (plan.num_periods - known)]
    merged = []
    for number, of_ranks in enumerate(zip(*(p["periods"] for p in parts), strict=True)):
        moved: dict[str, int] = defaultdict(int)
        for entry in of_ranks:
            for key, size in entry["bytes"].items():
                moved[key] += size
        merged.append(
            {
                **of_ranks[0],
                "kind": plan.period,
                "iterations": plan.periods[number],
                "seconds": max(entry["seconds"] for entry in of_ranks),
                "bytes": dict(sorted(moved.items())),
                "planned": planned[number],
                **_arrival(of_ranks, plan, number),
            }
        )
    return merged


def _arrival(
    of_ranks: Sequence[Mapping[str, Any]], plan: Plan, number: int
) -> dict[str, float | int]:
    """Of a period whose events arrive late: how many, when the last one did, when it ended."""
    if not plan.arrivals:
        return {}
    return {
        "events": int(plan.arrivals[number]),
        "release_s": float(plan.releases[plan.starts[number + 1] - 1]),
        "end_s": max(float(entry["end_s"]) for entry in of_ranks),
    }


def _divergence(periods: list[dict[str, Any]], parts: Sequence[Mapping[str, Any]]) -> str:
    """Why the run diverged, or ""; takes the metrics out of the periods from there on."""
    lost = next((n for n, entry in enumerate(periods) if entry["loss"] is None), None)
    if lost is not None:
        for entry in periods[lost:]:
            entry["metrics"] = {}
        entry = periods[lost]
        return f"the loss is not finite from {entry['kind']} {entry['period']} on"
    if all(part["finite"] for part in parts):
        return ""
    periods[-1]["metrics"] = {}
    return f"the parameters are not finite after the last {periods[-1]['kind']}"


def _slowest(of_ranks: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: max(entry[key] for entry in of_ranks) for key in of_ranks[0]}


def _energy(of_ranks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return joules and mean power over distinct devices: ranks that share one see it whole."""
    devices = {entry["device"]: entry for entry in of_ranks if entry}
    if not devices:
        return {}
    known = [entry for entry in devices.values() if entry["joules"] is not None]
    return {
        "joules": sum(entry["joules"] for entry in known) if known else None,
        "mean_w": sum(entry["mean_w"] or 0.0 for entry in known) if known else None,
        "seconds": max(entry["seconds"] for entry in devices.values()),
        "source": known[0]["source"] if known else "",
        "num_devices": len(devices),
    }
