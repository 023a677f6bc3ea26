"""Disk traffic of training from the disk: bytes read and written per period, by policy and buffer.

The runtime counts bytes from the buffers that it reads and writes; the plan states them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gnnbench.steps import Kind
from gnnbench_reports import numbers
from gnnbench_reports.finding import Finding
from gnnbench_reports.labels import other_settings
from gnnbench_reports.tables import Column, Word

if TYPE_CHECKING:
    from gnnbench_reports.comparison import Comparison
    from gnnbench_reports.study import Study

POLICY, PARTITIONS, BUFFER, CACHE = "policy", "partitions", "buffer", "cache"
"""Knobs that decide what stays in memory: a buffer of some partitions, or a cache of a share."""
DISK = "disk_bytes_per_s"
"""Knob of every approach that trains from the disk, see `gnnbench.disk_limit`."""
LOST = ("failed", "diverged", "skipped")


@dataclass(frozen=True, slots=True, kw_only=True)
class IoRow:
    """One configuration that reads from the disk or writes to it; bytes per period, all ranks.

    Attributes:
        policy: in which order partitions are read; "" of an approach without a choice.
        share: rows that stay in memory, as a share of all rows; None where it is not known.
        others: settings of the configuration that are none of those, as its label shows them.
        equal: whether every count is the plan's integer; None with one side only.
        status, reason: of the configuration, see `Comparison`.
    """

    dataset: str
    model: str
    approach: str
    ranks: int
    period: str
    policy: str
    share: float | None
    counted_read_bytes: float | None = None
    counted_written_bytes: float | None = None
    planned_read_bytes: float | None = None
    planned_written_bytes: float | None = None
    equal: bool | None = None
    others: str = ""
    status: str = "ok"
    reason: str = ""

    def moved_bytes(self, side: str) -> float | None:
        """Bytes read and written, "counted" or "planned"; None if they are not known."""
        both = [getattr(self, f"{side}_{what}_bytes") for what in ("read", "written")]
        known = [value for value in both if value is not None]
        return sum(known) if known else None


def io_rows(study: Study) -> Sequence[IoRow]:
    """A row per configuration that uses the disk: of the records, or as an earlier report kept it.

    Configurations that were skipped or failed have a row without bytes.
    """
    if "disk_io" in study.kept:
        return study.kept["disk_io"]
    return _rows(study)


def _rows(study: Study) -> list[IoRow]:
    return [one for row in study.rows if (one := _row(study, row)) is not None]


def _row(study: Study, row: Comparison) -> IoRow | None:
    moved: dict[str, float | None] = {}
    verdicts = []
    for volume in row.volumes:
        word = _WORDS.get(volume.kind)
        if word is None:
            continue
        verdicts.append(volume.equal)
        for side in ("counted", "planned"):
            size = getattr(volume, f"{side}_bytes")
            if size is not None:
                key = f"{side}_{word}_bytes"
                moved[key] = (moved.get(key) or 0.0) + float(size)
    lost = row.status in LOST and DISK in row.knobs
    if not any(moved.values()) and not lost:
        return None
    prediction = study.prediction_of(row)
    chosen: Mapping[str, Any] = {} if prediction is None else prediction.notes
    return IoRow(
        dataset=row.dataset,
        model=row.model,
        approach=row.approach,
        ranks=row.ranks,
        period=row.period,
        policy=str(chosen.get(POLICY) or row.knobs.get(POLICY) or ""),
        share=share_in_memory(row.knobs, chosen),
        **moved,
        equal=None if None in verdicts else all(verdicts),
        others=other_settings(row.label, {POLICY, PARTITIONS, BUFFER, CACHE, "logical"}),
        status=row.status,
        reason=row.reason,
    )


_WORDS = {Kind.READ.value: "read", Kind.WRITE.value: "written"}


def share_in_memory(knobs: Mapping[str, Any], chosen: Mapping[str, Any]) -> float | None:
    """Rows that stay in memory, as a share of all; None where the knobs do not say it.

    Args:
        knobs: of the configuration.
        chosen: notes of its prediction, with what a knob leaves to the plan: a policy "auto", a
            number of partitions 0.
    """
    if CACHE in knobs:
        return float(knobs[CACHE])
    partitions = int(chosen.get(PARTITIONS) or knobs.get(PARTITIONS) or 0)
    if not partitions:
        return None
    # No buffer is a buffer of all partitions.
    buffer = int(chosen.get(BUFFER) or knobs.get(BUFFER) or partitions)
    return min(buffer / partitions, 1.0)


def finding(study: Study) -> Finding | None:
    """The table, where runs or predictions use the disk."""
    rows = _rows(study)
    return table(rows) if any(map(_known, rows)) else None


def _known(row: IoRow) -> bool:
    return row.moved_bytes("counted") is not None or row.moved_bytes("planned") is not None


def table(rows: Sequence[IoRow]) -> Finding:
    """The table of some rows, and whether counts and plans agree."""
    columns = (
        Column(heading="dataset", word=True),
        Column(heading="model", word=True),
        Column(heading="approach"),
        Column(heading="policy", word=True),
        Column(heading="in memory", number=True, meaning="rows that stay in memory / all rows"),
        Column(heading="read", number=True, meaning="bytes per period, counted"),
        Column(heading="planned", number=True, meaning="bytes read per period, by the plan"),
        Column(heading="written", number=True, meaning="bytes per period, counted"),
        Column(heading="planned", number=True, meaning="bytes written per period, by the plan"),
        Column(heading="equal"),
    )
    return Finding(
        title="Bytes read from and written to the disk",
        meaning=(
            "Bytes per period: counted from the buffers of a run, and planned. In memory: the "
            "share of the rows that a buffer of partitions or a cache keeps. “equal” compares the "
            "integers of every period; a plan that was estimated from a profile may differ."
        ),
        columns=columns,
        rows=tuple(rows),
        cells=tuple(_cells(row) for row in rows if _known(row)),
        verdict=_verdict(rows),
    )


def _cells(row: IoRow) -> tuple[object, ...]:
    words = {True: Word("equal", "ok"), False: Word("differ"), None: None}
    share = row.share
    name = f"{row.approach} [{row.others}]" if row.others else row.approach
    return (
        row.dataset,
        row.model,
        name,
        row.policy,
        None if share is None else numbers.Quantity(f"{100 * share:.3g} %", share),
        *(
            numbers.size(getattr(row, f"{side}_{word}_bytes"))
            for word in ("read", "written")
            for side in ("counted", "planned")
        ),
        words[row.equal],
    )


def _verdict(rows: Sequence[IoRow]) -> tuple[str, ...]:
    judged = [row for row in rows if row.equal is not None]
    if not judged:
        return ()
    equal = sum(bool(row.equal) for row in judged)
    return (
        f"Bytes read and written per period equal the plan's in {equal} of {len(judged)} "
        "configurations that use the disk.",
    )
