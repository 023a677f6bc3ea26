"""Merging the ranks' parts into one record: sums of what ranks add, the slowest where they wait."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from gnnbench.results import RunRecord


def merge(record: RunRecord, parts: Sequence[Mapping[str, Any]]) -> RunRecord:
    """Return the record of a run that ended well.

    Epoch seconds, set-up seconds and the probe are those of the slowest rank, bytes the sum of what
    all ranks sent; loss and accuracy are global already and taken from rank 0.
    """
    parts = sorted(parts, key=lambda part: part["rank"])
    first = parts[0]
    return dataclasses.replace(
        record,
        status="ok",
        epochs=[_epoch(of_ranks) for of_ranks in zip(*(p["epochs"] for p in parts), strict=True)],
        memory=[part["memory"] for part in parts],
        accuracy=first["accuracy"],
        probe=_slowest([part["probe"] for part in parts]),
        setup_s=_slowest([part["setup_s"] for part in parts]),
        energy=_energy([part["energy"] for part in parts]),
        device=first["device"],
        versions=first["versions"],
    )


def _epoch(of_ranks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    sent: dict[str, int] = defaultdict(int)
    for entry in of_ranks:
        for key, size in entry["bytes"].items():
            sent[key] += size
    seconds = max(entry["seconds"] for entry in of_ranks)
    return {**of_ranks[0], "seconds": seconds, "bytes": dict(sorted(sent.items()))}


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
