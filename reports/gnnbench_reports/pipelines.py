"""Speedup of pipelining: approaches that hand rows over in chunks, against their serial order.

An approach is included if its runs differ in a knob `chunks`. With one chunk the groups of ranks
take turns, which is the serial order; with several they overlap.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gnnbench_reports import numbers
from gnnbench_reports.finding import Finding
from gnnbench_reports.tables import Column

if TYPE_CHECKING:
    from gnnbench_reports.comparison import Comparison
    from gnnbench_reports.study import Study

CHUNKS, SPARSE_RANKS = "chunks", "sparse_ranks"
SIDES = ("measured", "predicted")


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineRow:
    """One split of ranks: seconds per period in serial order, and with the best settings.

    The best settings are chosen per side: those measured and those predicted to be fastest.
    `*_settings` are chunks and node order of the best; `*_gain` is serial / best.
    """

    dataset: str
    model: str
    ranks: int
    sparse_ranks: int
    measured_serial_s: float | None = None
    measured_best_s: float | None = None
    measured_settings: str = ""
    measured_gain: float | None = None
    predicted_serial_s: float | None = None
    predicted_best_s: float | None = None
    predicted_settings: str = ""
    predicted_gain: float | None = None


def pipelines(rows: Iterable[Comparison]) -> list[PipelineRow]:
    """A row for each approach, dataset, model and split with a serial and a pipelined run."""
    groups: dict[tuple[str, str, str, int, int], list[Comparison]] = defaultdict(list)
    for row in rows:
        if CHUNKS in row.knobs and (row.measured or row.predicted):
            # Half of the ranks aggregate unless the knob says otherwise.
            sparse = int(row.knobs.get(SPARSE_RANKS, 0)) or row.ranks // 2
            groups[row.approach, row.dataset, row.model, row.ranks, sparse].append(row)
    found = []
    for (_, dataset, model, ranks, sparse), group in sorted(groups.items()):
        sides = {**_side(group, "measured"), **_side(group, "predicted")}
        if sides:
            found.append(
                PipelineRow(dataset=dataset, model=model, ranks=ranks, sparse_ranks=sparse, **sides)  # type: ignore[arg-type]
            )
    return found


def _side(group: Iterable[Comparison], side: str) -> dict[str, object]:
    """Serial and best of one side; empty unless it has both."""
    timed = [(seconds, row) for row in group if (seconds := getattr(row, f"{side}_period_s"))]
    serial = [seconds for seconds, row in timed if row.knobs[CHUNKS] == 1]
    piped = [(seconds, row) for seconds, row in timed if row.knobs[CHUNKS] != 1]
    if not serial or not piped:
        return {}
    best, row = min(piped, key=lambda pair: pair[0])
    return {
        f"{side}_serial_s": min(serial),
        f"{side}_best_s": best,
        f"{side}_settings": _settings(row),
        f"{side}_gain": min(serial) / best,
    }


def _settings(row: Comparison) -> str:
    return f"{row.knobs[CHUNKS] or 'default'} chunks, {row.knobs.get('node_order', 'natural')}"


def finding(study: Study) -> Finding | None:
    """The table, where there are serial and pipelined runs."""
    rows = pipelines(study.rows)
    if not rows:
        return None
    columns = (
        Column(heading="dataset", word=True),
        Column(heading="model"),
        Column(heading="split", number=True, meaning="sparse + dense ranks"),
        Column(heading="side"),
        Column(heading="serial", number=True, meaning="time per period with one chunk"),
        Column(heading="pipelined", number=True, meaning="the best of the others"),
        Column(heading="best settings", word=True),
        Column(heading="speedup", number=True, meaning="serial / pipelined"),
    )
    spreads = [row.uncertainty for row in study.rows if row.uncertainty is not None]
    typical = statistics.median(spreads) if spreads else None
    return Finding(
        title="Speedup of pipelining sparse and dense ranks",
        meaning=(
            "Time per period with one chunk, where the two groups of ranks take turns, and with "
            "the best of the other chunk counts and node orders, where they overlap within a "
            "layer; the speedup is the ratio. The best settings are chosen among measured times "
            "and among predicted times separately."
        ),
        columns=columns,
        rows=tuple(rows),
        cells=tuple(line for row in rows for line in _cells(row, typical)),
        verdict=_verdict(rows),
    )


def _cells(row: PipelineRow, spread: float | None) -> list[tuple[object, ...]]:
    split = f"{row.sparse_ranks} + {row.ranks - row.sparse_ranks}"
    return [
        (
            row.dataset,
            row.model,
            split,
            side,
            numbers.seconds(getattr(row, f"{side}_serial_s"), spread),
            numbers.seconds(getattr(row, f"{side}_best_s"), spread),
            getattr(row, f"{side}_settings"),
            numbers.factor(gain),
        )
        for side in SIDES
        if (gain := getattr(row, f"{side}_gain")) is not None
    ]


def _verdict(rows: Iterable[PipelineRow]) -> tuple[str, ...]:
    sentences = []
    for side in SIDES:
        gains = [gain for row in rows if (gain := getattr(row, f"{side}_gain")) is not None]
        if gains:
            faster = sum(gain > 1 for gain in gains)
            sentences.append(
                f"Pipelining sparse and dense ranks, {side}: faster than the serial order in "
                f"{faster} of {len(gains)} cases, speedup up to {numbers.factor(max(gains))}."
            )
    return tuple(sentences)
