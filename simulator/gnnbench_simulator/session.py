"""A session: predict a suite's runs on a cluster, one after another."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gnnbench.approaches.base import Layout
from gnnbench.approaches.names import APPROACHES
from gnnbench.cluster import Cluster, save_cluster
from gnnbench.data.source import Library
from gnnbench.errors import GnnbenchError, SpecError, Unsupported
from gnnbench.ledger import Row, write_ledger
from gnnbench.results import PredictionRecord, Results, file_digest, own_folder
from gnnbench.spec import RunSpec
from gnnbench_simulator.batch_reserve import widen_by_batches
from gnnbench_simulator.memory import least_room
from gnnbench_simulator.needs import EVALUATION
from gnnbench_simulator.predict import Prediction, predict_plan
from gnnbench_simulator.sensitivity import swings

Ledgers = dict[int, list[Row]]
_GIB = 2**30


def predict_runs(
    runs: Iterable[RunSpec],
    cluster: Cluster,
    roots: Sequence[Path],
    results: Results | None = None,
    *,
    ranks_per_host: int | None = None,
    sensitivity: bool = False,
) -> Iterator[tuple[PredictionRecord, Ledgers]]:
    """Predict each run; yield its record and the ledgers of a few ranks, and save both.

    A run that cannot be predicted yields a record with status "skipped" or "failed" and the reason.

    Args:
        runs: configurations.
        cluster: devices, links and calibrated constants.
        roots: folders in which paths of datasets are looked up.
        results: folder of predictions and of cached datasets; None saves nothing.
        ranks_per_host: by default that of the same configuration's finished run, else as many as a
            host has devices.
        sensitivity: whether each record says what moves its time most, see `sensitivity.swings`.
    """
    cache = None if results is None else results.folder / "cache"
    shared = None if results is None else results.cache("shared")
    if results is not None:
        kept = results.cluster_file(cluster.name)
        kept.parent.mkdir(parents=True, exist_ok=True)
        save_cluster(cluster, kept)
        made_with = file_digest(kept)
    else:
        made_with = ""
    datasets = Library(roots, cache)
    for asked in runs:
        run, ledgers = asked, Ledgers()
        per_host = ranks_per_host or 0
        try:
            run = datasets.identified(asked)
            if results is not None:
                results.forget_unopened(asked)
            per_host = ranks_per_host or _measured_layout(run, results) or 0
            per_host = per_host or cluster.ranks_per_host(run.ranks)
            data = datasets.open(run.dataset)
            record, ledgers = predict_run(
                run, data, cluster, shared, ranks_per_host=per_host, sensitivity=sensitivity
            )
        except SpecError as error:
            record = _without(run, cluster, per_host, "failed", "; ".join(error.problems))
        except GnnbenchError as error:
            record = _without(run, cluster, per_host, "skipped", str(error))
        if results is not None:
            record.cluster_digest = made_with
            folder = own_folder(results.prediction_folder(record))
            for rank, rows in ledgers.items():
                write_ledger(folder / f"ledger-rank{rank}.csv", rows)
            results.save_prediction(record)  # last: a prediction has its ledgers
        yield record, ledgers


def predict_run(
    run: RunSpec,
    data: Any,
    cluster: Cluster,
    cache: Path | None = None,
    *,
    ranks_per_host: int | None = None,
    sensitivity: bool = False,
) -> tuple[PredictionRecord, Ledgers]:
    """Plan one run and simulate the plan.

    A run that needs more memory than its limit yields a record with status "skipped", the reason,
    and all predicted numbers.

    Raises:
        Unsupported: the approach's reason, or what the cluster lacks.
    """
    per_host = ranks_per_host or cluster.ranks_per_host(run.ranks)
    prediction = predict_on(
        run, data, cluster, cache, ranks_per_host=per_host, sensitivity=sensitivity
    )
    record = prediction.record(run, ranks_per_host=per_host)
    worst = least_room(record.memory)
    if not worst["fits"]:
        needs, limit = worst["judged_bytes"] / _GIB, worst["limit_bytes"] / _GIB
        evaluates = worst["spaces"][worst["space"]]["phase"] == EVALUATION
        during = " (its evaluation; training needs less)" if evaluates else ""
        record.status = "skipped"
        record.reason = (
            f"out of memory: rank {worst['rank']} needs {needs:.1f} GiB of {worst['space']}, "
            f"{limit:.1f} GiB there are{during}"
        )
    return record, prediction.ledgers


def predict_on(
    run: RunSpec,
    data: Any,
    cluster: Cluster,
    cache: Path | None = None,
    *,
    ranks_per_host: int,
    sensitivity: bool = False,
) -> Prediction:
    """Plan one run on a cluster and simulate the plan. Raises Unsupported with the reason.

    With `sensitivity`, the note of that name has the swings of the time, see `sensitivity.swings`.
    """
    approach = APPROACHES.get(run.approach)
    reason = approach.cannot_run(run, data)
    if reason:
        raise Unsupported(reason)
    layout = layout_on(run, cluster, ranks_per_host)
    plan = approach.plan(data, run, approach.structure(data, run, cache), layout)
    size = run.training.element_bytes
    found = predict_plan(
        plan,
        cluster,
        ranks_per_host=ranks_per_host,
        element_bytes=size,
        caps=run.memory.caps(),
    )
    if cluster.device.kind != "cpu" and run.batch.size:
        widen_by_batches(found.memory, plan, seeds=max(run.batch.size // run.ranks, 1))
    if sensitivity:
        moved = swings(plan, cluster, ranks_per_host=ranks_per_host, element_bytes=size)
        found.notes["sensitivity"] = [dataclasses.asdict(swing) for swing in moved]
    return found


def layout_on(run: RunSpec, cluster: Cluster, ranks_per_host: int) -> Layout:
    """The layout of a run's ranks on a cluster. Raises Unsupported if it has too few hosts."""
    devices = cluster.host.devices_per_host
    if cluster.transport == "nccl" and min(ranks_per_host, run.ranks) > devices:
        raise Unsupported(
            f"NCCL takes one rank per device: {ranks_per_host} on a host asked for, {cluster.name} "
            f"has {devices}"
        )
    hosts = -(-run.ranks // ranks_per_host)
    if hosts > cluster.host.hosts_max:
        raise Unsupported(
            f"{run.ranks} ranks need {hosts} hosts; "
            f"cluster {cluster.name} has {cluster.host.hosts_max}"
        )
    device = "cpu" if cluster.device.kind == "cpu" else "cuda"
    return Layout(world_size=run.ranks, ranks_per_host=ranks_per_host, device=device)


def _measured_layout(run: RunSpec, results: Results | None) -> int | None:
    """Ranks per host of the same configuration's finished run: that layout is to be predicted.

    More ranks than a host has devices share its cores, as they did when they were measured.
    """
    record = results.finished(run) if results is not None else None
    if record is None or record.status != "ok":
        return None
    return int(record.device.get("ranks_per_host", 0)) or None


def _without(
    run: RunSpec, cluster: Cluster, ranks_per_host: int, status: str, reason: str
) -> PredictionRecord:
    """The record of a run that could not be predicted."""
    return PredictionRecord(
        config_id=run.config_id,
        spec=run.to_dict(),
        cluster=cluster.name,
        ranks_per_host=ranks_per_host,
        status=status,
        reason=reason,
    )
