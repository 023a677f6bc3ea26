"""The machine, the versions and the constants behind the numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from gnnbench.results import PredictionRecord
from gnnbench_reports import numbers
from gnnbench_reports.blocks import Block, Table, Text
from gnnbench_reports.study import Study
from gnnbench_reports.tables import Column


def environment(study: Study) -> Sequence[Block]:
    """Devices, versions and the constants that predictions rest on."""
    facts: list[tuple[str, str]] = []
    facts += _facts("device", (run.device for run in study.runs))
    facts += _facts("version", (run.versions for run in study.runs))
    facts += _energy(study)
    if study.cluster:
        rows = [row for row in study.rows if row.cluster == study.cluster]
        facts.append(("predicted for cluster", study.cluster))
        facts.append(("grade of the constants", _distinct(row.grade for row in rows)))
        facts.append(("simulated by", _distinct(row.method for row in rows)))
        estimated = [row for row in rows if row.counted is False]
        if estimated:
            basis = _distinct(row.basis for row in estimated)
            facts.append(("sizes estimated", f"in {len(estimated)} predictions: {basis}"))
        beyond = [row.beyond for row in rows if row.beyond]
        if beyond:
            facts.append(("beyond the cluster", f"{len(beyond)} predictions: {beyond[0]}, ..."))
        facts += _largest_work(r for r in study.predictions if r.cluster == study.cluster)
    if study.summary.probe_ratio is not None:
        ratio = numbers.factor(study.summary.probe_ratio)
        facts.append(("machine speed", f"the probe kernel took {ratio} its time at calibration"))
    started = sorted(run.started_at for run in study.runs if run.started_at)
    if started:
        facts.append(("runs started", f"{started[0]} to {started[-1]}"))
    if not facts:
        return ()
    columns = (Column(heading="what", word=True), Column(heading="value"))
    definitions = (
        "A prediction is graded by the weakest constant that matters to it: measured on this "
        "machine by `gnnbench calibrate`, measured elsewhere on the same device model, transferred "
        "from another device, or from a datasheet. Only the intervals of constants measured here "
        "come from measurements of this machine."
    )
    return Text(definitions), Table(columns=columns, rows=facts)


def _largest_work(records: Iterable[PredictionRecord]) -> list[tuple[str, str]]:
    """The kinds of work that take most of the predicted time: their constants matter most."""
    totals: dict[str, float] = {}
    for record in records:
        work = record.notes.get("work_s") or {}
        whole = sum(work.values())
        for kind, spent in work.items():
            if whole > 0:
                totals[kind] = totals.get(kind, 0.0) + spent / whole
    if not totals:
        return []
    whole = sum(totals.values())
    top = sorted(totals.items(), key=lambda pair: -pair[1])[:3]
    shares = ", ".join(f"{kind} {numbers.percent(part / whole)}" for kind, part in top)
    return [("largest predicted work", shares)]


def _energy(study: Study) -> list[tuple[str, str]]:
    """Energy over all runs that metered it."""
    metered = [run.energy for run in study.runs if run.energy.get("joules") is not None]
    if not metered:
        return []
    joules = sum(float(energy["joules"]) for energy in metered)
    sources = _distinct(str(energy.get("source", "")) for energy in metered)
    return [("energy", f"{joules:.0f} J over {len(metered)} runs, by {sources}")]


def _facts(kind: str, tables: Iterable[dict[str, Any]]) -> list[tuple[str, str]]:
    values: dict[str, dict[str, None]] = {}
    for found in tables:
        for key, value in found.items():
            if value not in (None, ""):
                values.setdefault(str(key), {})[str(value)] = None
    return [(f"{kind}: {key.replace('_', ' ')}", ", ".join(seen)) for key, seen in values.items()]


def _distinct(values: Iterable[str]) -> str:
    return ", ".join(sorted({value for value in values if value})) or "unknown"
