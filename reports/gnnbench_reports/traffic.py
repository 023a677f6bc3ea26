"""Traffic: bytes that an approach sends per optimiser step, over those of its reference.

The reference trains the same model on the same batches and ranks, for example data-parallel
training with an all-reduce of all gradients in every step. Bytes are counted from buffers, over
whole runs, so that traffic at the ends of rounds is spread over the steps of the rounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gnnbench_reports import numbers
from gnnbench_reports.finding import Finding
from gnnbench_reports.labels import card, printable
from gnnbench_reports.tables import Column
from gnnbench_reports.volume import SENT

if TYPE_CHECKING:
    from gnnbench.results import RunRecord
    from gnnbench_reports.comparison import Comparison
    from gnnbench_reports.study import Study


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficRow:
    """Bytes that all ranks send per optimiser step, by one configuration and by its reference."""

    dataset: str
    model: str
    label: str
    ranks: int
    reference_label: str
    step_bytes: float
    reference_bytes: float

    @property
    def ratio(self) -> float:
        return self.step_bytes / self.reference_bytes


def bytes_per_step(runs: Iterable[RunRecord]) -> float | None:
    """Bytes that all ranks sent in some runs over their optimiser steps; None if not known."""
    sent, steps = 0, 0
    for run in runs:
        for period in run.periods:
            table = period.get("bytes") or {}
            sent += sum(int(size) for key, size in table.items() if key.partition("/")[0] in SENT)
            steps += int(period.get("iterations") or 0)
    return sent / steps if steps else None


def traffic_rows(study: Study) -> list[TrafficRow]:
    """A line per configuration whose reference was measured on the same ranks and batches."""
    found = []
    for row in study.rows:
        runs = study.runs_of(row)
        known = card(row.approach)
        if known is None or not runs or row.ranks < 2:
            continue
        other = _reference(study, row, known.reference(runs[0].run))
        mine = bytes_per_step(runs)
        theirs = None if other is None else bytes_per_step(study.runs_of(other))
        if other is not None and mine and theirs:
            found.append(
                TrafficRow(
                    dataset=row.dataset,
                    model=row.model,
                    label=row.label,
                    ranks=row.ranks,
                    reference_label=other.label,
                    step_bytes=mine,
                    reference_bytes=theirs,
                )
            )
    return found


def _reference(study: Study, row: Comparison, approach: str) -> Comparison | None:
    """The reference's configuration on the same workload and ranks with the fewest bytes."""
    if row.approach == approach:
        return None
    batch = study.spec(row).get("batch")
    same = [
        other
        for other in study.rows
        if (other.approach, other.dataset, other.model, other.ranks)
        == (approach, row.dataset, row.model, row.ranks)
        and study.spec(other).get("batch") == batch
        and other.counted_bytes
    ]
    return min(same, key=lambda other: other.counted_bytes or 0.0, default=None)


def finding(study: Study) -> Finding | None:
    """The table, where an approach and its reference were run on several ranks."""
    return table(traffic_rows(study))


def table(rows: Sequence[TrafficRow]) -> Finding | None:
    """The finding that shows these rows; None without rows."""
    if not rows:
        return None
    columns = (
        Column(heading="dataset", word=True),
        Column(heading="model"),
        Column(heading="approach", word=True),
        Column(heading="ranks", number=True),
        Column(heading="bytes per step", number=True, meaning="sent by all ranks, counted"),
        Column(heading="reference", word=True),
        Column(heading="its bytes", number=True, meaning="per optimiser step, counted"),
        Column(heading="ratio", number=True),
    )
    return Finding(
        title="Bytes per optimiser step against the reference",
        meaning=(
            "Bytes that all ranks send to each other, counted from buffers over whole runs and "
            "divided by optimiser steps, beside those of the approach that trains the same model "
            "on the same batches and ranks. What is sent between some steps only, such as at the "
            "ends of rounds, is spread over all steps."
        ),
        columns=columns,
        rows=tuple(rows),
        cells=tuple(
            (
                row.dataset,
                row.model,
                row.label,
                row.ranks,
                numbers.size(row.step_bytes),
                printable(row.reference_label, 24),
                numbers.size(row.reference_bytes),
                f"{numbers.rounded(row.ratio, 0.005 * row.ratio)}×",
            )
            for row in rows
        ),
        verdict=(),
    )
