"""Validation: predict published measurements and compare each number with its prediction."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Callable, Sequence
from typing import Any

from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.writing.shape import stack_shape
from gnnbench.cluster import load_cluster
from gnnbench.data.profile import GraphProfile
from gnnbench.disks import with_disk
from gnnbench.errors import GnnbenchError, SpecError
from gnnbench.published.ahead import worked_ahead
from gnnbench.published.disk_counts import DISK_TIMES, DiskCount
from gnnbench.published.layers import layered
from gnnbench.published.metrics import (
    EPOCH_TIME,
    MEMORY,
    STREAM_TIMES,
    epochs_of,
    phase_time,
    si_value,
    time_of,
    without_load,
)
from gnnbench.published.reason import Reason
from gnnbench.published.released import as_released
from gnnbench.published.rows import PublishedRow
from gnnbench.published.score import Comparison
from gnnbench.published.skew import nested, skewed
from gnnbench.published.software import cluster_used
from gnnbench.published.split import software_radius, used, widened
from gnnbench.published.stream_times import StreamMeasure, stated_epochs
from gnnbench.published.systems import Case, Count, case_of
from gnnbench.published.threads import resorted, threaded
from gnnbench.published.traces import traced
from gnnbench.published.wire import wire_bound_s
from gnnbench_simulator.predict import Prediction, predict_plan
from gnnbench_simulator.session import layout_on


def chosen(rows: Sequence[PublishedRow], pattern: str) -> list[PublishedRow]:
    """Rows whose id, system, dataset, source or metric matches a glob; case does not matter.

    Raises:
        SpecError: no row matches.
    """
    found = [
        row
        for row in rows
        if any(
            fnmatch.fnmatchcase(name.lower(), pattern.lower())
            for name in (row.row_id, row.system, row.dataset, row.source, row.metric)
        )
    ]
    if not found:
        raise SpecError(f"--only {pattern!r} matches none of {len(rows)} rows")
    return found


def compare_rows(
    rows: Sequence[PublishedRow], advance: Callable[[str], object] = lambda row_id: None
) -> list[Comparison]:
    """Compare rows with their predictions, in order; each configuration is predicted once.

    Args:
        rows: published.
        advance: called with the id of each row that is done.
    """
    known: dict[tuple[object, ...], Prediction | Reason] = {}
    epochs = stated_epochs(rows)
    out = []
    for row in rows:
        case = case_of(row, epochs)
        if isinstance(case, Reason):
            out.append(Comparison(row=row, reason=case))
        elif not isinstance(case, Case):
            out.append(_counted(row, case))
        else:
            if case.key not in known:
                known[case.key] = predict_case(case)
            out.append(_compared(row, case, known[case.key]))
        advance(row.row_id)
    return out


def predict_case(case: Case) -> Prediction | Reason:
    """Plan a case as the published software carries it out, and simulate it on its cluster.

    The prediction's note `wire_bound_s` is a lower bound of the epoch, see `published.wire`.
    """
    run, data, software = case.run, case.profile, case.software
    cluster = with_disk(load_cluster(case.cluster), case.disk, depth=software.depth)
    per_host = min(case.ranks_per_host or cluster.ranks_per_host(run.ranks), run.ranks)
    card = APPROACHES.get(run.approach)
    try:
        layout = layout_on(run, cluster, per_host)
        structure = card.structure(data, run)
        if case.method and isinstance(data, GraphProfile):
            structure = skewed(nested(structure, data, case.method, per_host))
        plan = card.plan(data, run, structure, layout)
        if software.rewrites and isinstance(data, GraphProfile):
            shape = stack_shape(data, run, card.knobs(run).order)
            plan = as_released(plan, shape, software)
            cluster = cluster_used(cluster, plan, software, per_host)
        plan = worked_ahead(plan, software)
        plan = threaded(plan, software)
        plan = resorted(plan, software, both_ways=bool(getattr(data, "undirected", False)))
        plan = traced(plan, software)
        # Papers state the memory of training, and evaluate by other means than ours.
        plan = dataclasses.replace(plan, evaluation=())
        if software.framework and isinstance(data, GraphProfile):
            plan = layered(plan, stack_shape(data, run, "aggregate_first"), software)
        found = predict_plan(plan, cluster, ranks_per_host=per_host)
        found.notes["wire_bound_s"] = wire_bound_s(plan, cluster, per_host)
        found.notes["steps"] = plan.notes.get("steps", 1)
    except GnnbenchError as error:
        return Reason("cannot be predicted", str(error))
    return found


def _compared(row: PublishedRow, case: Case, found: Prediction | Reason) -> Comparison:
    """Compare a row that measures time or memory."""
    if isinstance(found, Reason):
        return Comparison(row=row, reason=found)
    common: dict[str, Any] = {
        "row": row,
        "published": si_value(row),
        "used": used(row, case),
        "cluster": case.cluster,
        "grade": found.grade,
        "note": _note(row, found),
    }
    if row.metric == MEMORY:
        peak = max(float(entry["peak_bytes"]) for entry in found.memory)
        return Comparison(**common, predicted=peak)
    hidden = case.software.pipelined and case.run.ranks > 1
    steps = found.notes["steps"]
    value = phase_time(row, found.ledgers, steps=steps, period_s=found.period_s)
    if value is None:
        value = time_of(row.metric, found.period_s, found.ledgers, hidden_exchange=hidden)
        if without_load(row):
            value -= _load_s(found)
        value *= max(epochs_of(row), 1)
    if value <= 0:
        return Comparison(row=row, reason=Reason("predicted to be hidden or absent", row.metric))
    scale = value / found.period_s  # an interval is that of the epoch, in proportion
    radius = software_radius(row, case)
    low, high = widened(value, scale * found.low_s, scale * found.high_s, radius)
    return Comparison(**common, predicted=value, low=low, high=high, software_radius=radius)


def _load_s(found: Prediction) -> float:
    """Seconds of an epoch in which the buffer is filled, on the slowest rank."""
    sums = []
    for rows in found.ledgers.values():
        last = max((row.period for row in rows), default=0)
        sums.append(sum(r.duration_s for r in rows if r.period == last and r.phase == "load"))
    return max(sums)


def _note(row: PublishedRow, found: Prediction) -> str:
    """What a reader should know of a prediction, most important first."""
    notes = []
    bound = found.notes["wire_bound_s"]
    if row.metric == EPOCH_TIME and si_value(row) < bound:
        notes.append(f"published time is below the {bound:.3g} s that the stated link needs")
    for entry in found.memory:
        if not entry["fits"]:
            needs, limit = entry["judged_bytes"] / 1e9, entry["limit_bytes"] / 1e9
            notes.append(f"predicted {needs:.3g} GB of {entry['space']}, of {limit:.3g} GB")
            break
    if "-like" in row.hardware:
        notes.append(
            f"hardware not stated: predicted on {found.cluster}, which the row calls similar"
        )
    return "; ".join([*notes, found.basis])


def _counted(row: PublishedRow, count: Count) -> Comparison:
    """Compare a row that is predicted without a plan: a count has no interval, a time has."""
    predicted, basis = count.expected(row.metric)
    common: dict[str, Any] = {
        "row": row,
        "published": si_value(row),
        "predicted": predicted,
        "used": used(row, count),
        "note": basis,
    }
    if not isinstance(count, StreamMeasure | DiskCount):
        return Comparison(**common, grade="published")
    of_stream = isinstance(count, StreamMeasure)
    common |= {"grade": "assumed" if of_stream else "published", "cluster": count.cluster}
    if row.metric not in (*STREAM_TIMES, *DISK_TIMES):
        return Comparison(**common)
    radius = software_radius(row, count)
    low, high = widened(predicted, predicted, predicted, radius)
    return Comparison(**common, low=low, high=high, software_radius=radius)
