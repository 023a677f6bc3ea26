"""Achieved bandwidth of collectives, as a share of the bandwidth that calibration measured.

Both times are the minimum over ranks, which excludes waiting for late ranks.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gnnbench.cluster import TRANSFER
from gnnbench.errors import DataError
from gnnbench_reports import numbers
from gnnbench_reports.compare import warmup_periods
from gnnbench_reports.finding import Finding
from gnnbench_reports.ledgers import collectives
from gnnbench_reports.tables import Column

if TYPE_CHECKING:
    from gnnbench.cluster import Cluster, CollectiveModel
    from gnnbench.results import RunRecord
    from gnnbench_reports.study import Study

TARGET = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class BandwidthRow:
    """One kind of collective of one configuration, per period.

    Attributes:
        bytes: the maximum over ranks of the bytes sent, summed over steps; of a broadcast, the
            buffers.
        measured_s: without waiting, the median over repeats.
        calibrated_s: of the calibrated collective with the same message sizes.
        share: calibrated_s / measured_s, the achieved share of the calibrated bandwidth.
    """

    dataset: str
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
    """A row per configuration and kind of collective that was calibrated on its rank count."""
    if study.machine is None or not study.machine.collectives:
        return []
    found = []
    for row in study.rows:
        by_kind: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for run in study.runs_of(row) if row.ranks > 1 else ():
            for kind, table in _of_run(study, run, row.ranks, study.machine).items():
                by_kind[kind].append(table)
        for kind, tables in sorted(by_kind.items()):
            middle = {key: statistics.median(t[key] for t in tables) for key in tables[0]}
            found.append(
                BandwidthRow(
                    dataset=row.dataset,
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


def _of_run(study: Study, run: RunRecord, ranks: int, machine: Cluster) -> Mapping[str, Any]:
    """By kind: steps, bytes, measured and calibrated seconds per period."""
    import numpy as np

    from gnnbench.costs.model import collective_seconds

    per_host = int(run.device.get("ranks_per_host", 0)) or ranks
    found: dict[str, Any] = {}
    folder = study.results.run_folder(run.run_id)
    try:
        frame = collectives(folder, ranks=ranks, warmup=warmup_periods(run))
    except DataError as error:
        study.results.pass_over(error)
        return found
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
    """The collective as measured on this rank count with no other ranks on the host, or None.

    Extrapolated models are not used: they would judge a measurement by a guess.
    """
    for op in (kind + TRANSFER, kind):
        for model in machine.collectives:
            alone = (model.co_located or model.ranks) == model.ranks
            if alone and (model.op, model.ranks, model.layout) == (op, ranks, layout):
                return model if model.status == "measured" else None
    return None


def shares(rows: Iterable[BandwidthRow]) -> dict[str, list[float]]:
    """Share of each configuration, all kinds of collectives together, by approach."""
    places: dict[tuple[str, ...], list[BandwidthRow]] = defaultdict(list)
    for row in rows:
        places[row.approach, row.dataset, row.model, row.label, str(row.ranks)].append(row)
    found: dict[str, list[float]] = defaultdict(list)
    for (approach, *_), group in places.items():
        found[approach].append(
            sum(r.calibrated_s for r in group) / sum(r.measured_s for r in group)
        )
    return dict(found)


def finding(study: Study) -> Finding | None:
    """The table, where there are runs and a calibration of their rank counts."""
    return table(bandwidths(study))


def table(rows: Sequence[BandwidthRow]) -> Finding | None:
    """The finding that shows these rows; None without rows."""
    if not rows:
        return None
    columns = (
        Column(heading="dataset", word=True),
        Column(heading="model"),
        Column(heading="approach", word=True),
        Column(heading="ranks", number=True),
        Column(heading="collective"),
        Column(heading="steps", number=True, meaning="per period", page_only=True),
        Column(
            heading="bytes",
            number=True,
            meaning="per period, maximum over ranks",
            page_only=True,
        ),
        Column(heading="measured", number=True, meaning="bytes per second, waiting excluded"),
        Column(heading="calibrated", number=True, meaning="bytes per second at the same sizes"),
        Column(heading="share", number=True),
    )
    return Finding(
        title="Share of the calibrated bandwidth",
        meaning=(
            "Bytes per second of the collectives of all ranks, and what calibration measured for "
            "the same collective, rank count and message sizes. The time of a step is the minimum "
            "over ranks, which excludes waiting for late ranks, median over periods. Left out: "
            "transfers that overlap with computation, collectives of some of the ranks, and rank "
            f"counts that were not calibrated. Target: at least {numbers.percent(TARGET)}. Above "
            "100 % the collective was faster in training than in calibration."
        ),
        columns=columns,
        rows=tuple(rows),
        cells=tuple(_cells(row) for row in rows),
        verdict=_verdict(rows),
    )


def _cells(row: BandwidthRow) -> tuple[object, ...]:
    return (
        row.dataset,
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
    medians = [
        f"{approach} {numbers.percent(statistics.median(found))}"
        + (f" (lowest {numbers.percent(min(found))} of {len(found)})" if len(found) > 1 else "")
        for approach, found in sorted(shares(rows).items())
    ]
    return (f"Share of the calibrated bandwidth, median: {'; '.join(medians)}.",)
