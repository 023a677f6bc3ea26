"""Peak memory, measured and predicted, of the rank that needs most."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes of the rank that needs most; measured figures are medians over repeats.

    The baseline is the process before it holds any data; the workload part is the peak without it,
    and what a prediction can get right or wrong.
    """

    measured_peak_bytes: float | None = None
    measured_baseline_bytes: float | None = None
    measured_workload_bytes: float | None = None
    predicted_peak_bytes: float | None = None
    predicted_baseline_bytes: float | None = None
    predicted_workload_bytes: float | None = None
    peak_ratio: float | None = None
    workload_ratio: float | None = None
    source: str = ""


def pool_memory(
    measured: Sequence[Sequence[Mapping[str, Any]]], predicted: Sequence[Mapping[str, Any]]
) -> Memory:
    """Pool the per-rank tables of all repeats and set them beside the predicted table."""
    found: dict[str, Any] = {}
    tops = [_top(ranks) for ranks in measured if ranks]
    if tops:
        peak, baseline = (statistics.median(values) for values in zip(*tops, strict=True))
        found |= {
            "measured_peak_bytes": peak,
            "measured_baseline_bytes": baseline,
            "measured_workload_bytes": max(peak - baseline, 0),
        }
    if predicted:
        peak, baseline = _top(predicted)
        found |= {
            "predicted_peak_bytes": peak,
            "predicted_baseline_bytes": baseline,
            "predicted_workload_bytes": max(
                float(rank.get("workload_bytes", peak - baseline)) for rank in predicted
            ),
        }
    if tops and predicted:
        found |= {
            f"{part}_ratio": found[f"predicted_{part}_bytes"] / found[f"measured_{part}_bytes"]
            for part in ("peak", "workload")
            if found[f"measured_{part}_bytes"] > 0
        }
    sources = {str(rank.get("source", "")) for ranks in measured for rank in ranks}
    return Memory(**found, source=", ".join(sorted(sources - {""})))


def _top(ranks: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Peak and baseline of the rank with the highest peak."""
    top = max(ranks, key=lambda rank: float(rank.get("peak_bytes", 0)))
    return float(top.get("peak_bytes", 0)), float(top.get("baseline_bytes", 0))
