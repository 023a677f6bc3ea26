"""Where numbers come from: machine, versions, calibration."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gnnbench.results import PredictionRecord
from gnnbench_reports import numbers
from gnnbench_reports.markup import Column, Html, element, joined, table
from gnnbench_reports.study import Study


def environment(study: Study) -> Html | None:
    """List devices, versions and the constants that predictions rest on; None if unknown."""
    facts: list[tuple[str, str]] = []
    facts += _facts("device", (run.device for run in study.runs))
    facts += _facts("version", (run.versions for run in study.runs))
    if study.cluster:
        chosen = [record for record in study.predictions if record.cluster == study.cluster]
        facts.append(("predicted for cluster", study.cluster))
        facts.append(("constants", _distinct(record.grade for record in chosen)))
        facts.append(("simulated by", _distinct(record.method for record in chosen)))
        inexact = sum(not record.exact for record in chosen)
        if inexact:
            basis = _distinct(record.basis for record in chosen if not record.exact)
            facts.append(("sizes estimated", f"in {inexact} predictions: {basis}"))
        beyond = [record.notes["beyond"] for record in chosen if record.notes.get("beyond")]
        if beyond:
            facts.append(("beyond the cluster", f"{len(beyond)} predictions: {beyond[0]}, ..."))
        facts += _weightiest(chosen)
    if study.summary.probe_ratio is not None:
        ratio = numbers.factor(study.summary.probe_ratio)
        facts.append(("machine speed", f"the probe kernel took {ratio} its time at calibration"))
    started = sorted(run.started_at for run in study.runs if run.started_at)
    if started:
        facts.append(("runs started", f"{started[0]} to {started[-1]}"))
    if not facts:
        return None
    columns = (Column(heading="what", word=True), Column(heading="value"))
    intro = element(
        "p",
        "Constants are graded by the weakest one that matters to a prediction: measured on this "
        "machine by ",
        element("code", "gnnbench calibrate"),
        ", probed (published and scaled by a short probe here), or from a datasheet. Only those "
        "measured here come with an interval that was earned here.",
    )
    return joined([intro, table(columns, facts)])


def _weightiest(records: Iterable[PredictionRecord]) -> list[tuple[str, str]]:
    """Say which kinds of work the predicted times consist of: their constants matter most."""
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
    return [("depends most on", f"{shares} of the predicted work; measured by gnnbench calibrate")]


def _facts(kind: str, tables: Iterable[dict[str, Any]]) -> list[tuple[str, str]]:
    values: dict[str, dict[str, None]] = {}
    for found in tables:
        for key, value in found.items():
            if value not in (None, ""):
                values.setdefault(str(key), {})[str(value)] = None
    return [(f"{kind}: {key.replace('_', ' ')}", ", ".join(seen)) for key, seen in values.items()]


def _distinct(values: Iterable[str]) -> str:
    return ", ".join(sorted({value for value in values if value})) or "not said"
