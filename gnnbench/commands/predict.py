"""`gnnbench predict`: what a suite's runs will take on a cluster, before anyone buys it."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gnnbench.approaches.base import GraphLike
    from gnnbench.cluster import Cluster
    from gnnbench.results import PredictionRecord, Results
    from gnnbench.spec import GraphRef, RunSpec, Suite

NAME = "predict"
HELP = "predict a suite's runs on a cluster, at any number of ranks; needs no torch"
DEFAULT_CLUSTER = "cpu-2core"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what to predict, on what, and where to keep it."""
    from gnnbench.commands.options import (
        add_cluster,
        add_ranks,
        add_results,
        add_suite,
        positive_int,
    )

    add_suite(parser)
    add_cluster(parser)
    add_ranks(parser)
    add_results(parser, required=False)
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="where the suite's graph files are looked up"
    )
    parser.add_argument(
        "--ranks-per-host",
        type=positive_int,
        metavar="N",
        help="ranks on one host (default: its devices)",
    )
    parser.add_argument(
        "--trace", type=Path, metavar="FILE", help="write a Perfetto trace of the last prediction"
    )


def run(args: argparse.Namespace) -> int:
    from gnnbench.commands.output import emit_json, progress, table
    from gnnbench.commands.volumes import predicted_lines
    from gnnbench.results import Results
    from gnnbench.suites import find_suite

    suite = find_suite(args.suite)
    results = Results(args.results) if args.results else None
    cluster = choose_cluster(args.cluster, results)
    runs = with_ranks(suite, args.ranks)
    records: list[PredictionRecord] = []
    with progress("predict", len(runs)) as advance:
        for record, ledgers in predict_runs(
            suite, runs, cluster, results, data=args.data, ranks_per_host=args.ranks_per_host
        ):
            records.append(record)
            if args.trace and ledgers:
                from gnnbench.trace import write_trace

                write_trace(args.trace, {"predicted": ledgers})
            advance(record.config_id)
    if args.json:
        emit_json([summary(record) for record in records])
    else:
        table([_row(record) for record in records], list(_COLUMNS))
        for line in (*left_out(suite, args.ranks), *predicted_lines(records)):
            print(line)
        print(f"cluster {cluster.name}: {cluster.description}")
    return int(any(record.status == "failed" for record in records))


def choose_cluster(name: str | None, results: Results | None) -> Cluster:
    """The cluster asked for, else the results folder's own cluster.toml, else a generic one."""
    from gnnbench.cluster import load_cluster

    if name:
        return load_cluster(name)
    if results is not None and (results.folder / "cluster.toml").is_file():
        return load_cluster(results.folder / "cluster.toml")
    return load_cluster(DEFAULT_CLUSTER)


def with_ranks(suite: Suite, ranks: Sequence[int] | None) -> list[RunSpec]:
    """The suite's configurations, at other rank counts if asked; each once.

    An approach that cannot run at a rank count is left out there, unless the suite asks for it.
    """
    moved = _moved(suite, ranks)
    return list({run.config_id: run for run, reason in moved if reason is None}.values())


def left_out(suite: Suite, ranks: Sequence[int] | None) -> list[str]:
    """A line for each reason why `with_ranks` left approaches out."""
    reasons: dict[str, dict[str, None]] = {}
    for run, reason in _moved(suite, ranks):
        if reason is not None:
            reasons.setdefault(reason, {})[run.approach] = None
    return [f"left out: {', '.join(names)}: {reason}" for reason, names in reasons.items()]


def _moved(suite: Suite, ranks: Sequence[int] | None) -> Iterator[tuple[RunSpec, str | None]]:
    """Each configuration at each rank count, with the reason why it is left out there."""
    from gnnbench import registry

    for run in suite.configurations():
        for count in (run.ranks,) if ranks is None else ranks:
            moved = dataclasses.replace(run, ranks=count)
            asked = count == run.ranks
            yield moved, None if asked else registry.approach(run.approach).cannot_run(moved)


def predict_runs(
    suite: Suite,
    runs: Sequence[RunSpec],
    cluster: Cluster,
    results: Results | None = None,
    *,
    data: Path | None = None,
    ranks_per_host: int | None = None,
) -> Iterator[tuple[PredictionRecord, dict[int, Any]]]:
    """Predict each run; yield the record and the ledgers of a few ranks. Saves into `results`.

    What cannot be predicted is a skipped record with its reason; the others go on.
    """
    from gnnbench.cluster import save_cluster
    from gnnbench.data.source import data_roots
    from gnnbench.errors import DataError, SpecError, Unsupported
    from gnnbench.ledger import write_ledger
    from gnnbench.results import PredictionRecord

    roots = data_roots(data, suite.folder)
    cache = results.cache("shared") if results is not None else None
    if results is not None:
        kept = results.cluster_file(cluster.name)
        kept.parent.mkdir(parents=True, exist_ok=True)
        save_cluster(cluster, kept)
    graphs: dict[str, GraphLike] = {}
    for run in runs:
        ledgers: dict[int, Any] = {}
        try:
            graph = graphs.get(run.graph.name)
            if graph is None:
                graph = graphs[run.graph.name] = open_any(run.graph, roots, cache)
            per_host = ranks_per_host or measured_layout(run, results)
            record, ledgers = predict_one(run, graph, cluster, cache, per_host)
        except (Unsupported, DataError) as error:
            record = PredictionRecord(
                config_id=run.config_id, spec=run.to_dict(), cluster=cluster.name,
                status="skipped", reason=str(error),
            )  # fmt: skip
        except SpecError as error:
            record = PredictionRecord(
                config_id=run.config_id, spec=run.to_dict(), cluster=cluster.name,
                status="failed", reason="; ".join(error.problems),
            )  # fmt: skip
        if results is not None:
            folder = results.save_prediction(record)
            for rank, rows in ledgers.items():
                write_ledger(folder / f"ledger-rank{rank}.csv", rows)
        yield record, ledgers


def measured_layout(run: RunSpec, results: Results | None) -> int | None:
    """Ranks per host of the same configuration's finished run: it is that layout to predict.

    More ranks than a host has devices share its cores, as they did when they were measured.
    """
    record = results.load_run(run.run_id) if results is not None else None
    if record is None or record.status != "ok":
        return None
    return int(record.device.get("ranks_per_host", 0)) or None


def open_any(ref: GraphRef, roots: Sequence[Path], cache: Path | None) -> GraphLike:
    """The graph itself, or its profile where the reference names one."""
    if ref.profile:
        from gnnbench.data.profile import load_profile

        return load_profile(ref.profile)
    from gnnbench.data.source import open_graph

    return open_graph(ref, roots, cache)


def predict_one(
    run: RunSpec,
    graph: GraphLike,
    cluster: Cluster,
    cache: Path | None = None,
    ranks_per_host: int | None = None,
) -> tuple[PredictionRecord, dict[int, Any]]:
    """Plan one run and simulate the plan.

    Raises:
        Unsupported: the approach's reason, or that the prediction does not fit the device's memory.
    """
    from gnnbench import registry
    from gnnbench.approaches.base import Layout
    from gnnbench.errors import Unsupported
    from gnnbench_simulator.predict import predict_plan

    approach = registry.approach(run.approach)
    reason = approach.cannot_run(run, graph)
    if reason:
        raise Unsupported(reason)
    per_host = ranks_per_host or cluster.ranks_per_host(run.ranks)
    hosts = -(-run.ranks // per_host)
    if hosts > cluster.host.hosts_max:
        raise Unsupported(
            f"{run.ranks} ranks need {hosts} hosts; "
            f"cluster {cluster.name} has {cluster.host.hosts_max}"
        )
    structure = approach.structure(graph, run, cache)
    device = "cpu" if cluster.device.kind == "cpu" else "cuda"
    layout = Layout(world_size=run.ranks, ranks_per_host=per_host, device=device)
    plan = approach.plan(graph, run, structure, layout)
    prediction = predict_plan(
        plan, cluster, ranks_per_host=per_host, element_bytes=run.training.element_bytes
    )
    record = prediction.record(run)
    worst = max(record.memory, key=lambda entry: float(entry["peak_bytes"]))
    if not worst.get("fits", True):
        gib = worst["peak_bytes"] / 2**30
        limit = cluster.device.memory_bytes.value / 2**30
        record.status = "skipped"
        record.reason = (
            f"out of memory: rank {worst['rank']} needs {gib:.1f} GiB of {limit:.1f} GiB"
        )
    return record, prediction.ledgers


def summary(record: PredictionRecord) -> dict[str, Any]:
    """The JSON row of a prediction."""
    run = record.run
    sent = record.bytes[0] if record.bytes else {}
    return {
        "config_id": record.config_id,
        "graph": run.graph.name,
        "model": run.model.name,
        "approach": run.approach,
        "ranks": run.ranks,
        "cluster": record.cluster,
        "status": record.status,
        "reason": record.reason,
        "epoch_s": record.epoch_s,
        "low_s": record.low_s,
        "high_s": record.high_s,
        "grade": record.grade,
        "method": record.method,
        "bytes_per_epoch": sent,
        "peak_memory_bytes": max((int(m["peak_bytes"]) for m in record.memory), default=0),
        "phases_s": record.phases,
        "exact_sizes": record.exact,
        "basis": record.basis,
    }


_COLUMNS = (
    "graph",
    "model",
    "approach",
    "ranks",
    "epoch",
    "90 % interval",
    "grade",
    "sent",
    "memory",
    "note",
)


def _row(record: PredictionRecord) -> dict[str, object]:
    from gnnbench_reports import numbers

    row = summary(record)
    told = {key: row[key] for key in ("graph", "model", "approach", "ranks")}
    if record.status != "ok" and not record.epoch_s:
        return {**told, "note": f"{record.status}: {record.reason}"}
    note = record.reason or ("" if record.exact else record.basis)
    return {
        **told,
        "epoch": numbers.seconds(record.epoch_s, (record.high_s / record.low_s - 1) / 2),
        "90 % interval": numbers.interval(record.low_s, record.high_s),
        "grade": record.grade,
        "sent": numbers.size(sum(row["bytes_per_epoch"].values())),
        "memory": numbers.size(row["peak_memory_bytes"]),
        "note": note,
    }
