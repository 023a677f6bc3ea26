"""Do communication steps waste bandwidth? Their rate against what calibration measured.

On both sides it is the rank held up least whose time counts, so neither holds waiting for a slower
rank. (Clusters of older versions have only one time of a collective, from a barrier to its end.)
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gnnbench.cluster import TRANSFER
from gnnbench_reports import numbers
from gnnbench_reports.compare import warmup_epochs
from gnnbench_reports.finding import Finding
from gnnbench_reports.ledgers import collectives
from gnnbench_reports.markup import Column

if TYPE_CHECKING:
    from gnnbench.cluster import Cluster, CollectiveModel
    from gnnbench.results import RunRecord
    from gnnbench_reports.study import Study

TARGET = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class BandwidthRow:
    """One kind of collective of one configuration; per epoch, steps of all ranks together.

    bytes          most that any rank sends, summed over steps (broadcast: the buffers)
    measured_s     without waiting, the median over repeats
    calibrated_s   what the calibrated collective takes for the same message sizes
    share          calibrated_s / measured_s: the share of the calibrated bandwidth that is reached
    """

    graph: str
    model: str
    label: str
    approach: str
    ranks: int
    kind: str
    steps: int
    bytes: float
    measured_s: float
    calibrated_s: float
    share: float


def bandwidths(study: Study) -> list[BandwidthRow]:
    """Return a row per configuration and kind of collective that was calibrated on its ranks."""
    if study.machine is None or not study.machine.collectives:
        return []
    finished: dict[str, list[RunRecord]] = defaultdict(list)
    for run in study.runs:
        if run.status == "ok":
            finished[run.config_id].append(run)
    found = []
    for row in study.rows:
        runs = [run for name in row.config_ids for run in finished[name]] if row.ranks > 1 else []
        by_kind: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for run in runs:
            for kind, table in _of_run(study, run, row.ranks, study.machine).items():
                by_kind[kind].append(table)
        for kind, tables in sorted(by_kind.items()):
            middle = {key: statistics.median(t[key] for t in tables) for key in tables[0]}
            found.append(
                BandwidthRow(
                    graph=row.graph,
                    model=row.model,
                    label=row.label,
                    approach=row.approach,
                    ranks=row.ranks,
                    kind=kind,
                    steps=int(middle["steps"]),
                    bytes=middle["bytes"],
                    measured_s=middle["measured_s"],
                    calibrated_s=middle["calibrated_s"],
                    share=middle["calibrated_s"] / middle["measured_s"],
                )
            )
    return found


def _of_run(study: Study, run: RunRecord, ranks: int, machine: Cluster) -> dict[str, Any]:
    """By kind: steps, bytes, measured and calibrated seconds per epoch."""
    import numpy as np

    from gnnbench.costs.model import collective_seconds

    per_host = int(run.device.get("ranks_per_host", 0)) or ranks
    frame = collectives(
        study.results.run_folder(run.run_id), ranks=ranks, warmup_epochs=warmup_epochs(run)
    )
    found: dict[str, Any] = {}
    if frame is None:
        return found
    for kind, steps in frame.groupby("kind"):
        model = calibrated(machine, str(kind), ranks, "intra" if per_host >= ranks else "inter")
        if model is None:
            continue
        # The root of a broadcast sends its buffer to every other rank; models count the buffer.
        copies = ranks - 1 if kind == "broadcast" else 1
        volume = steps["bytes"].to_numpy(dtype=np.float64) / copies
        found[str(kind)] = {
            "steps": len(steps),
            "bytes": float(volume.sum()),
            "measured_s": float(steps["duration_s"].sum()),
            "calibrated_s": float(collective_seconds(model, volume).sum()),
        }
    return found


def calibrated(machine: Cluster, kind: str, ranks: int, layout: str) -> CollectiveModel | None:
    """Return the collective as measured on so many ranks, with nobody else on the host.

    An extrapolation judges nobody.
    """
    for op in (kind + TRANSFER, kind):
        for model in machine.collectives:
            alone = (model.co_located or model.ranks) == model.ranks
            if alone and (model.op, model.ranks, model.layout) == (op, ranks, layout):
                return model if model.status == "measured" else None
    return None


def shares(rows: Iterable[BandwidthRow]) -> dict[str, list[float]]:
    """Share of each configuration, all kinds together, by approach."""
    places: dict[tuple[str, ...], list[BandwidthRow]] = defaultdict(list)
    for row in rows:
        places[row.approach, row.graph, row.model, row.label, str(row.ranks)].append(row)
    found: dict[str, list[float]] = defaultdict(list)
    for (approach, *_), group in places.items():
        found[approach].append(
            sum(r.calibrated_s for r in group) / sum(r.measured_s for r in group)
        )
    return dict(found)


def finding(study: Study) -> Finding | None:
    """Return the table, where runs and a calibration of their rank counts are both there."""
    rows = bandwidths(study)
    if not rows:
        return None
    columns = (
        Column(heading="graph", word=True),
        Column(heading="model"),
        Column(heading="approach", word=True),
        Column(heading="ranks", number=True),
        Column(heading="collective"),
        Column(heading="steps", number=True, meaning="per epoch"),
        Column(heading="bytes", number=True, meaning="most that a rank sends per epoch"),
        Column(heading="measured", number=True, meaning="bytes per second, waiting left out"),
        Column(heading="calibrated", number=True, meaning="bytes per second, same sizes"),
        Column(heading="share", number=True),
    )
    return Finding(
        title="Share of the calibrated bandwidth",
        meaning=(
            "Bytes per second of the collectives that all ranks take part in, against what "
            "calibration measured for the same collective, ranks and message sizes on cluster "
            f"{study.cluster}. The time of a step is that of the rank held up least, median over "
            "epochs, so waiting for a slower rank does not count. Left out: transfers behind "
            "computation, groups of some of the ranks, and rank counts that were not calibrated. "
            f"Aim: at least {numbers.percent(TARGET)}. Above 100 % a step was faster than its "
            "like in the calibration."
        ),
        columns=columns,
        rows=tuple(rows),
        cells=tuple(_cells(row) for row in rows),
        verdict=_verdict(rows),
    )


def _cells(row: BandwidthRow) -> tuple[object, ...]:
    return (
        row.graph,
        row.model,
        row.label,
        row.ranks,
        row.kind.replace("_", "-"),
        row.steps,
        numbers.size(row.bytes),
        f"{numbers.size(row.bytes / row.measured_s)}/s",
        f"{numbers.size(row.bytes / row.calibrated_s)}/s",
        numbers.percent(row.share),
    )


def _verdict(rows: Sequence[BandwidthRow]) -> tuple[str, ...]:
    told = [
        f"{approach} {numbers.percent(statistics.median(found))}"
        + (f" (lowest {numbers.percent(min(found))} of {len(found)})" if len(found) > 1 else "")
        for approach, found in sorted(shares(rows).items())
    ]
    return (f"Share of the calibrated bandwidth, median: {'; '.join(told)}.",)
