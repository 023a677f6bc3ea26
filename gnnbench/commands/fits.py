"""The memory of predictions in a table: what fills it, what there is, and the chance to run out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gnnbench.buffers import (
    ACTIVATIONS,
    BUFFERS,
    CONTEXT,
    FEATURES,
    PARAMETERS,
    RESERVE,
    TOPOLOGY,
)
from gnnbench.commands.wording import gib_of_runs, percent
from gnnbench.units import digits

if TYPE_CHECKING:
    from gnnbench.results import PredictionRecord

HEADS = ("approach", "ranks", "feat", "graph", "param", "activ", "work", "other", "needs", "of")
_PARTS = {
    "feat": (FEATURES,),
    "graph": (TOPOLOGY,),
    "param": (PARAMETERS,),
    "activ": (ACTIVATIONS,),
    "work": (BUFFERS,),
    "other": (CONTEXT, RESERVE),
}
_UNITS = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"))


def tightest(record: PredictionRecord) -> Mapping[str, Any]:
    """The entry of the rank with the least room."""
    return max(record.memory, key=lambda m: m["judged_bytes"] / max(m["limit_bytes"], 1))


def memory_rows(
    records: Sequence[PredictionRecord], labels: Mapping[str, str]
) -> tuple[str, list[dict[str, str]]]:
    """A title that names the unit, and a row per prediction whose memory is known by category.

    `labels` name the configurations, by id.
    """
    found = [(record, tightest(record)) for record in records if record.memory]
    found = [(record, entry) for record, entry in found if entry.get("categories")]
    if not found:
        return "", []
    limits = [entry["limit_bytes"] for _, entry in found]
    scale, unit = next(pair for pair in _UNITS if max(limits) >= pair[0] or pair is _UNITS[-1])
    rows = []
    for record, entry in found:
        space = entry["spaces"][entry["space"]]
        parts = entry["categories"][entry["space"]]
        row = {"approach": labels[record.config_id], "ranks": str(record.run.ranks)}
        for head, names in _PARTS.items():
            row[head] = _digits(sum(parts.get(name, 0) for name in names) / scale)
        chance = max(float(one["p_out_of_memory"]) for one in entry["spaces"].values())
        row |= {
            "needs": _digits(space["needed_bytes"] / scale),
            "of": _digits(space["limit_bytes"] / scale),
            "P(oom)": percent(chance).replace(" ", ""),
        }
        rows.append(row)
    spaces = sorted({entry["space"] for _, entry in found})
    return f"memory of the rank with the least room, {unit} ({' or '.join(spaces)}):", rows


def needed_over_runs(entry: Mapping[str, Any]) -> tuple[int, int, int] | None:
    """Bytes of a device that a rank needs, and the lowest and highest of runs whose batches differ.

    None where batches cannot differ. The planned batches are one of the runs. A run reserves no
    more than there is: the allocator gives unused segments back first, so that what lives in the
    others decides whether memory runs out.
    """
    runs = entry.get("reserved_quantiles_bytes")
    if not runs:
        return None
    needed, context = entry["device_used_bytes"], entry["baseline_bytes"]
    most = context + runs[-1]
    limit = entry.get("spaces", {}).get("device memory", {}).get("limit_bytes")
    if limit:
        most = min(most, int(limit))
    return needed, min(needed, context + runs[0]), max(needed, most)


def range_rows(
    records: Sequence[PredictionRecord], labels: Mapping[str, str]
) -> tuple[str, list[dict[str, str]]]:
    """A title, and a row per prediction whose device memory differs with the batches of a run."""
    rows = []
    for record in records:
        found = needed_over_runs(tightest(record)) if record.memory else None
        if found is not None:
            row = {"approach": labels[record.config_id], "ranks": str(record.run.ranks)}
            rows.append({**row, "needs (lowest to highest)": gib_of_runs(*found)})
    return "device memory over runs whose batches differ:", rows


def _digits(value: float) -> str:
    return "0" if value < 5e-4 else digits(value, 2 if value < 10 else 3)
