"""Does handing over row chunks pay? The mixture of accelerators, pipelined against serial.

Serial is the same split of ranks with one chunk: the dense ranks start when all rows are summed up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gnnbench_reports import numbers
from gnnbench_reports.finding import Finding
from gnnbench_reports.markup import Column

if TYPE_CHECKING:
    from gnnbench_reports.compare import Comparison
    from gnnbench_reports.study import Study

APPROACH = "mixed-accelerators"
WORLDS = ("measured", "predicted")


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineRow:
    """One split of ranks: serial and best time of each world in seconds per epoch.

    The best of a world is its own: prediction is not told which chunk count measured best.
    `*_settings` say chunks and node order of the best; `*_gain` is serial / best.
    """

    graph: str
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
    """Return a row for each graph, model and split that holds one chunk and several."""
    groups: dict[tuple[str, str, int, int], list[Comparison]] = defaultdict(list)
    for row in rows:
        if row.approach == APPROACH and (row.measured or row.predicted):
            sparse = int(row.knobs.get("sparse_ranks", 0)) or row.ranks // 2
            groups[row.graph, row.model, row.ranks, sparse].append(row)
    found = []
    for (graph, model, ranks, sparse), group in sorted(groups.items()):
        sides = {**_side(group, "measured"), **_side(group, "predicted")}
        if sides:
            found.append(
                PipelineRow(graph=graph, model=model, ranks=ranks, sparse_ranks=sparse, **sides)  # type: ignore[arg-type]
            )
    return found


def _side(group: Iterable[Comparison], world: str) -> dict[str, object]:
    """Serial and best of one world; empty unless it has both."""
    timed = [(seconds, row) for row in group if (seconds := getattr(row, f"{world}_epoch_s"))]
    serial = [seconds for seconds, row in timed if row.knobs.get("chunks") == 1]
    piped = [(seconds, row) for seconds, row in timed if row.knobs.get("chunks") != 1]
    if not serial or not piped:
        return {}
    best, row = min(piped, key=lambda pair: pair[0])
    return {
        f"{world}_serial_s": min(serial),
        f"{world}_best_s": best,
        f"{world}_settings": _settings(row),
        f"{world}_gain": min(serial) / best,
    }


def _settings(row: Comparison) -> str:
    chunks = row.knobs.get("chunks") or "default"
    return f"{chunks} chunks, {row.knobs.get('node_order', 'natural')}"


def finding(study: Study) -> Finding | None:
    """Return the table, where serial and pipelined runs are both there."""
    rows = pipelines(study.rows)
    if not rows:
        return None
    columns = (
        Column(heading="graph", word=True),
        Column(heading="model"),
        Column(heading="sparse + dense ranks", number=True),
        Column(heading="world"),
        Column(heading="serial", number=True, meaning="seconds per epoch with one chunk"),
        Column(heading="pipelined", number=True, meaning="the best of the others"),
        Column(heading="best of", word=True),
        Column(heading="gain", number=True, meaning="serial / pipelined"),
    )
    spreads = {row.config_id: row.uncertainty for row in study.rows}
    typical = max((s for s in spreads.values() if s is not None), default=None)
    return Finding(
        title="Pipeline of sparse and dense ranks",
        meaning=(
            "Seconds per epoch with one chunk, where the two groups of ranks work in turns, and "
            "with the best of the other chunk counts and node orders, where they overlap within "
            "a layer; the gain is the ratio. Each world names its own best."
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
            row.graph,
            row.model,
            split,
            world,
            numbers.seconds(getattr(row, f"{world}_serial_s"), spread),
            numbers.seconds(getattr(row, f"{world}_best_s"), spread),
            getattr(row, f"{world}_settings"),
            numbers.factor(gain),
        )
        for world in WORLDS
        if (gain := getattr(row, f"{world}_gain")) is not None
    ]


def _verdict(rows: Iterable[PipelineRow]) -> tuple[str, ...]:
    said = []
    for world in WORLDS:
        gains = [gain for row in rows if (gain := getattr(row, f"{world}_gain")) is not None]
        if gains:
            faster = sum(gain > 1 for gain in gains)
            said.append(
                f"Pipelining sparse and dense ranks, {world}: faster than their serial order in "
                f"{faster} of {len(gains)} cases, by up to {numbers.factor(max(gains))}."
            )
    return tuple(said)
