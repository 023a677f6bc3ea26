"""`gnnbench predict`: what a suite's runs will take on a cluster, before anyone buys it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gnnbench.results import PredictionRecord

NAME = "predict"
HELP = "predict a suite's runs on a cluster, at any number of ranks; needs no torch"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what to predict, on what, and where to keep it."""
    from gnnbench.commands.options import (
        add_cluster,
        add_ranks,
        add_results,
        add_suite,
        output_file,
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
        "--trace",
        type=output_file,
        metavar="FILE",
        help="write a Perfetto trace of the last prediction",
    )


def run(args: argparse.Namespace) -> int:
    from gnnbench.cluster import choose_cluster
    from gnnbench.commands.output import emit_json, name_passed_over, progress, table
    from gnnbench.data.source import data_roots
    from gnnbench.results import Results
    from gnnbench.suites import find_suite
    from gnnbench_simulator.session import predict_runs

    suite = find_suite(args.suite)
    results = Results(args.results) if args.results else None
    cluster = choose_cluster(args.cluster, results.folder if results else None)
    runs, roots = suite.at_ranks(args.ranks), data_roots(args.data, suite.folder)
    records: list[PredictionRecord] = []
    with progress("predict", len(runs)) as advance:
        for record, ledgers in predict_runs(
            runs, cluster, roots, results, ranks_per_host=args.ranks_per_host
        ):
            records.append(record)
            if args.trace and ledgers:
                from gnnbench.trace import write_trace

                write_trace(args.trace, {"predicted": ledgers})
            advance(record.config_id)
    if results is not None:
        name_passed_over(results)
    if args.json:
        emit_json([summary(record) for record in records])
    else:
        print(f"on {cluster.name}: {cluster.description}")
        table([_row(record) for record in records], list(_COLUMNS))
        for line in (*suite.left_out(args.ranks), *_uncalibrated(records)):
            print(line)
    return int(any(record.status == "failed" for record in records))


def _uncalibrated(records: Sequence[PredictionRecord]) -> list[str]:
    """A line that names the operations that were not calibrated on this cluster."""
    ops = {op for record in records for op in record.notes.get("uncalibrated", ())}
    if not ops:
        return []
    return [
        f"not calibrated on this cluster: {', '.join(sorted(ops))}; predicted from the device's "
        "peak rates (grade datasheet where they matter)"
    ]


def summary(record: PredictionRecord) -> dict[str, Any]:
    """The JSON row of a prediction."""
    run = record.run
    sent = record.bytes[0] if record.bytes else {}
    return {
        "config_id": record.config_id,
        "dataset": run.dataset.name,
        "model": run.model.name,
        "approach": run.approach,
        "ranks": run.ranks,
        "cluster": record.cluster,
        "ranks_per_host": record.ranks_per_host,
        "status": record.status,
        "reason": record.reason,
        "period": record.period,
        "period_s": record.period_s,
        "low_s": record.low_s,
        "high_s": record.high_s,
        "grade": record.grade,
        "method": record.method,
        "bytes_per_period": sent,
        "peak_memory_bytes": max((int(m["peak_bytes"]) for m in record.memory), default=0),
        "phases_s": record.phases,
        "counted": record.counted,
        "basis": record.basis,
        "uncalibrated": record.notes.get("uncalibrated", []),
    }


_COLUMNS = (
    "dataset",
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
    told = {key: row[key] for key in ("dataset", "model", "approach", "ranks")}
    if record.status != "ok" and not record.period_s:
        return {**told, "note": f"{record.status}: {record.reason}"}
    note = record.reason or ("" if record.counted else record.basis)
    return {
        **told,
        "epoch": numbers.seconds(record.period_s, (record.high_s / record.low_s - 1) / 2),
        "90 % interval": numbers.interval(record.low_s, record.high_s),
        "grade": record.grade,
        "sent": numbers.size(sum(row["bytes_per_period"].values())),
        "memory": numbers.size(row["peak_memory_bytes"]),
        "note": note,
    }
