"""Peak memory, measured and predicted, of the rank with the highest peak."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Ranks = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes of the rank with the highest peak; measured values are medians over repeats.

    Attributes:
        *_peak_bytes: highest during training, of the space that `source` measures.
        *_baseline_bytes: the process (or device context) before it holds data.
        *_workload_bytes: peak less baseline: the part that the plan's buffers explain.
        *_device_used_bytes: of a GPU: allocator and context together, as the driver counts them.
        predicted_host_bytes: of a GPU run: the plan's buffers in the host's memory.
        space: the memory with the least room by prediction: "memory" of a CPU, "device memory" or
            "host memory"; predicted_needed_bytes are needed there of limit_bytes.
        *_ratio: predicted / measured.
        source: "resident set" or "allocator".
    """

    measured_peak_bytes: float | None = None
    measured_baseline_bytes: float | None = None
    measured_workload_bytes: float | None = None
    measured_device_used_bytes: float | None = None
    predicted_peak_bytes: float | None = None
    predicted_baseline_bytes: float | None = None
    predicted_workload_bytes: float | None = None
    predicted_device_used_bytes: float | None = None
    predicted_host_bytes: float | None = None
    predicted_needed_bytes: float | None = None
    limit_bytes: float | None = None
    space: str = ""
    peak_ratio: float | None = None
    workload_ratio: float | None = None
    source: str = ""


def pool_memory(measured: Sequence[Ranks], predicted: Ranks) -> Memory:
    """Pool the per-rank tables of all repeats, and compare with the predicted table."""
    found: dict[str, Any] = {}
    known = [ranks for ranks in measured if ranks]
    if known:
        peak, baseline = (statistics.median(v) for v in zip(*map(_top, known), strict=True))
        found |= {
            "measured_peak_bytes": peak,
            "measured_baseline_bytes": baseline,
            "measured_workload_bytes": max(peak - baseline, 0),
            "measured_device_used_bytes": _median(_most(r, "device_used_bytes") for r in known),
        }
    if predicted:
        found |= _predicted(predicted)
    if known and predicted:
        found |= {
            f"{part}_ratio": found[f"predicted_{part}_bytes"] / found[f"measured_{part}_bytes"]
            for part in ("peak", "workload")
            if found[f"measured_{part}_bytes"] > 0
        }
    sources = {str(rank.get("source", "")) for ranks in measured for rank in ranks}
    return Memory(**found, source=", ".join(sorted(sources - {""})))


def _predicted(ranks: Ranks) -> dict[str, Any]:
    peak, baseline = _top(ranks)
    workload = [float(rank.get("workload_bytes", peak - baseline)) for rank in ranks]
    found: dict[str, Any] = {
        "predicted_peak_bytes": peak,
        "predicted_baseline_bytes": baseline,
        "predicted_workload_bytes": max(workload),
        "predicted_device_used_bytes": _most(ranks, "device_used_bytes"),
        "predicted_host_bytes": _most(ranks, "host_bytes"),
    }
    limited = [rank for rank in ranks if rank.get("limit_bytes")]
    if limited:
        tight = max(limited, key=lambda rank: rank["judged_bytes"] / rank["limit_bytes"])
        found |= {
            "space": str(tight.get("space", "")),
            "predicted_needed_bytes": float(tight["judged_bytes"]),
            "limit_bytes": float(tight["limit_bytes"]),
        }
    return found


def _top(ranks: Ranks) -> tuple[float, float]:
    """Peak and baseline of the rank with the highest peak."""
    top = max(ranks, key=lambda rank: float(rank.get("peak_bytes", 0)))
    return float(top.get("peak_bytes", 0)), float(top.get("baseline_bytes", 0))


def _most(ranks: Ranks, key: str) -> float | None:
    known = [float(rank[key]) for rank in ranks if rank.get(key) is not None]
    return max(known, default=None)


def _median(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
