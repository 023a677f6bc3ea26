"""Does it fit: what each predicted configuration needs of its tightest memory, and what there is.

The numbers are those that the prediction was judged by; configurations that do not fit are listed
with the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gnnbench_reports import numbers
from gnnbench_reports.finding import Finding
from gnnbench_reports.tables import Column

if TYPE_CHECKING:
    from gnnbench.results import PredictionRecord
    from gnnbench_reports.study import Study

TOO_LARGE = "does not fit"


@dataclass(frozen=True, slots=True, kw_only=True)
class FitRow:
    """One predicted configuration, on the rank with the least room; bytes.

    Attributes:
        space: its memory with the least room.
        low_bytes, high_bytes: 90 % interval of what is needed there.
        p_out_of_memory: the chance that any of its memories is too small.
        verdict: "fits", "tight" (running out is not unlikely) or "does not fit".
        categories: what fills the space at its peak.
    """

    dataset: str
    model: str
    approach: str
    ranks: int
    cluster: str
    space: str
    needed_bytes: float
    low_bytes: float
    high_bytes: float
    limit_bytes: float
    headroom_bytes: float
    p_out_of_memory: float
    verdict: str
    categories: Mapping[str, float] = field(default_factory=dict)


def fit_rows(study: Study) -> list[FitRow]:
    """A row for every prediction of the study's rows whose memory was judged."""
    found = []
    for row in study.rows:
        record = study.prediction_of(row)
        fit = None if record is None else _judged(record)
        if fit is not None:
            found.append(
                FitRow(
                    dataset=row.dataset,
                    model=row.model,
                    approach=row.label,
                    ranks=row.ranks,
                    cluster=row.cluster,
                    **fit,
                )
            )
    return found


def _judged(record: PredictionRecord) -> dict[str, Any] | None:
    """The numbers of the rank with the least room; None in records that lack them."""
    limited = [rank for rank in record.memory if rank.get("limit_bytes") and rank.get("verdict")]
    if not limited:
        return None
    tight = max(limited, key=lambda rank: rank["judged_bytes"] / rank["limit_bytes"])
    space = tight["spaces"][tight["space"]]
    return {
        "space": str(tight["space"]),
        "needed_bytes": float(space["needed_bytes"]),
        "low_bytes": float(space["low_bytes"]),
        "high_bytes": float(space["high_bytes"]),
        "limit_bytes": float(space["limit_bytes"]),
        "headroom_bytes": float(space["headroom_bytes"]),
        "p_out_of_memory": max(float(s["p_out_of_memory"]) for s in tight["spaces"].values()),
        "verdict": str(tight["verdict"]),
        "categories": tight.get("categories", {}).get(tight["space"], {}),
    }


def finding(study: Study) -> Finding | None:
    """Every prediction with its memory; None without predictions that judged it."""
    rows = fit_rows(study)
    return table(rows) if rows else None


def table(rows: Sequence[FitRow]) -> Finding:
    """The table of some rows, and how many fit."""
    columns = (
        Column(heading="dataset", word=True),
        Column(heading="model", word=True),
        Column(heading="approach"),
        Column(heading="ranks", number=True),
        Column(heading="cluster", page_only=True),
        Column(heading="space", page_only=True),
        Column(heading="needs", number=True, meaning="at its peak, on the rank with least room"),
        Column(heading="90 % interval", number=True, page_only=True),
        Column(heading="limit", number=True, meaning="capacity or cap of that memory, per rank"),
        Column(heading="free", number=True, meaning="limit less needs; negative where too large"),
        Column(heading="P(oom)", number=True, meaning="chance of running out of memory"),
        Column(heading="verdict", word=True),
        Column(heading="largest parts", page_only=True),
    )
    cells = tuple(_cells(row) for row in rows)
    counts = {word: sum(row.verdict == word for row in rows) for word in ("fits", "tight")}
    lost = len(rows) - sum(counts.values())
    verdict = f"Memory by prediction: {counts['fits']} of {len(rows)} configurations fit"
    if counts["tight"]:
        verdict += f", {counts['tight']} may run out"
    if lost:
        verdict += f", {lost} do not fit"
    return Finding(
        title="memory of the rank with the least room, by prediction",
        meaning="Needs are the plan's buffers at their peak, the context of the framework and what "
        "its allocator holds in reserve. A configuration fits where the chance of running out is "
        "at most 5 %, and is tight where it needs no more than there is at a higher chance.",
        columns=columns,
        cells=cells,
        verdict=(verdict + ".",),
        rows=tuple(rows),
        calm=counts["fits"] == len(rows),
    )


def _cells(row: FitRow) -> tuple[object, ...]:
    free = numbers.size(abs(row.headroom_bytes))
    parts = sorted(row.categories.items(), key=lambda part: -part[1])[:3]
    return (
        row.dataset,
        row.model,
        row.approach,
        row.ranks,
        row.cluster,
        row.space,
        numbers.size(row.needed_bytes),
        f"{numbers.size(row.low_bytes)} … {numbers.size(row.high_bytes)}",
        numbers.size(row.limit_bytes),
        f"-{free}" if row.headroom_bytes < 0 else free,
        "<0.1 %" if row.p_out_of_memory < 0.001 else numbers.percent(row.p_out_of_memory),
        row.verdict,
        ", ".join(f"{name} {numbers.size(size)}" for name, size in parts),
    )
