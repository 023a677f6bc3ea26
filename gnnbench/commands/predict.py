"""`gnnbench predict`: predict time, bytes and memory of a suite's runs on a cluster."""

from __future__ import annotations

import argparse
import itertools
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnnbench.units import digits

if TYPE_CHECKING:
    from gnnbench.cluster import Cluster
    from gnnbench.results import PredictionRecord, Results

NAME = "predict"
HELP = "predict a suite's runs on a cluster, at any number of ranks; needs no torch"
MOST_OUTSIDE = 5
"""Facts outside of the measured ranges that are named."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what to predict, on what, and where to keep it."""
    from gnnbench.commands.options import (
        add_ranks,
        add_results,
        add_suite,
        option,
        output_file,
        rank_counts,
    )

    add_suite(parser)
    parser.add_argument(
        "--cluster",
        metavar="NAME|FILE,...",
        help="built-in clusters or cluster TOML files, such as `gnnbench calibrate` writes",
    )
    add_ranks(parser)
    add_results(parser, required=False)
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="where the suite's graph files are looked up"
    )
    parser.add_argument(
        "--ranks-per-host",
        type=rank_counts,
        metavar="N,N",
        help="ranks on one host (default: its devices)",
    )
    parser.add_argument(
        "--set",
        action="append",
        type=option,
        default=[],
        metavar="KEY=VALUE",
        help="another constant of the clusters, such as links.inter.bytes_per_s=5e9",
    )
    parser.add_argument(
        "--sensitivity",
        action="store_true",
        help="find what moves each time most, for the tornado of a report; takes longer",
    )
    parser.add_argument(
        "--trace",
        type=output_file,
        metavar="FILE",
        help="write a Perfetto trace of the last prediction",
    )


def run(args: argparse.Namespace) -> int:
    from gnnbench.commands.output import emit_json, name_passed_over, progress, text
    from gnnbench.data.source import data_roots
    from gnnbench.results import Results
    from gnnbench.suites import find_suite
    from gnnbench_simulator.session import predict_runs

    suite = find_suite(args.suite)
    results = Results(args.results) if args.results else None
    clusters, assumed = _clusters(args, results)
    runs, roots = suite.at_ranks(args.ranks), data_roots(args.data, suite.folder)
    layouts: list[int | None] = list(args.ranks_per_host or [None])
    records: list[PredictionRecord] = []
    with progress("predict", len(runs) * len(clusters) * len(layouts)) as advance:
        for cluster, per_host in itertools.product(clusters, layouts):
            for record, ledgers in predict_runs(
                runs,
                cluster,
                roots,
                results,
                ranks_per_host=per_host,
                sensitivity=args.sensitivity,
            ):
                records.append(record)
                if args.trace and ledgers:
                    from gnnbench.trace import write_trace

                    write_trace(args.trace, {"predicted": ledgers})
                advance(record.config_id)
    if results is not None:
        name_passed_over(results)
    if args.json:
        labels = _labels(records)
        emit_json([{**summary(r), "label": labels[r.config_id]} for r in records])
    else:
        for cluster in clusters:
            text(f"on {cluster.name}{assumed}: {cluster.description}", hanging="  ")
        _print_tables(records, several=len(clusters) > 1 or len(layouts) > 1)
        said = (*_reasons(records), *suite.left_out(args.ranks), *_uncalibrated(records))
        for line in (*said, *_outside(records)):
            text(line, hanging="  ")
    return int(any(record.status == "failed" for record in records))


def _clusters(args: argparse.Namespace, results: Results | None) -> tuple[list[Cluster], str]:
    """The clusters that were named, or the assumed one with a word that says so."""
    from gnnbench.cluster import choose_cluster
    from gnnbench.machines import with_constants

    names = [name.strip() for name in (args.cluster or "").split(",") if name.strip()]
    folder = results.folder if results else None
    found = [choose_cluster(name, folder) for name in names] or [choose_cluster(None, folder)]
    assumed = "" if names else " (assumed; name others with --cluster)"
    return [with_constants(cluster, dict(args.set)) for cluster in found], assumed


def _uncalibrated(records: Sequence[PredictionRecord]) -> list[str]:
    """A line that names the operations that were not calibrated on this cluster."""
    ops = {op for record in records for op in record.notes.get("uncalibrated", ())}
    if not ops:
        return []
    return [
        f"not calibrated on this cluster: {', '.join(sorted(ops))}; predicted from the device's "
        "peak rates (grade datasheet where they matter)"
    ]


def _outside(records: Sequence[PredictionRecord]) -> list[str]:
    """Lines that name shapes outside of the measured ranges, the farthest of each fact."""
    lines = {line for record in records for line in record.notes.get("outside", ())}
    facts: dict[str, list[str]] = defaultdict(list)
    for line in sorted(lines):
        facts[line.rpartition(", measured ")[0].rpartition(" ")[0]].append(line)
    named = [f"{found[-1]}{_more(len(found) - 1)}" for found in facts.values()]
    shown = [f"outside of the measured shapes, with a wider interval: {n}" for n in named]
    left = len(shown) - MOST_OUTSIDE
    return shown[:MOST_OUTSIDE] + ([f"… and {left} further facts, see --json"] if left > 0 else [])


def _more(count: int) -> str:
    return f" (and {count} more)" if count else ""


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
        "memory": max(record.memory, key=lambda m: m["judged_bytes"], default=None),
        "energy": record.energy,
        "phases_s": record.phases,
        "counted": record.counted,
        "basis": record.basis,
        "uncalibrated": record.notes.get("uncalibrated", []),
        "outside": record.notes.get("outside", []),
        "sensitivity": record.notes.get("sensitivity", []),
    }


def _print_tables(records: Sequence[PredictionRecord], *, several: bool) -> None:
    """A table per dataset and model, of what was timed."""
    from gnnbench.commands.fits import memory_rows, range_rows
    from gnnbench.commands.output import table, text
    from gnnbench_reports.labels import natural

    timed = [record for record in records if record.period_s]
    labels = _labels(records)
    timed.sort(
        key=lambda r: (
            r.run.dataset.name,
            r.run.model.name,
            natural(labels[r.config_id]),
            r.run.ranks,
        )
    )
    for (dataset, model), group in itertools.groupby(
        timed, key=lambda r: (r.run.dataset.name, r.run.model.name)
    ):
        own = list(group)
        rows = [_row(record, labels[record.config_id], several) for record in own]
        grades = {record.grade for record in own}
        told = f" (constants: {min(grades)})" if len(grades) == 1 else ""
        text(f"{dataset}, {model}{told}:")
        heads = [head for head in rows[0] if not (told and head == "grade")]
        table(rows, [head for head in heads if not (several and head == "sent")])
        if not several:
            for title, memory in (memory_rows(own, labels), range_rows(own, labels)):
                if memory:
                    print(title)
                    table(memory, list(memory[0]))


def _labels(records: Sequence[PredictionRecord]) -> dict[str, str]:
    """By configuration: the approach, and in brackets the settings that tell it from others."""
    from gnnbench_reports.labels import label_all, printable

    labels = label_all({record.config_id: record.spec for record in records})
    return {key: printable(label, _LABEL) for key, label in labels.items()}


_LABEL = 34
"""Characters of a label that leave room for the other columns of 80."""


def _row(record: PredictionRecord, label: str, several: bool) -> dict[str, object]:
    from gnnbench.commands.fits import tightest
    from gnnbench_reports import numbers

    row: dict[str, object] = {"approach": label}
    if several:
        row["cluster"] = f"{record.cluster}:{record.ranks_per_host}"
    tight = tightest(record)
    return {
        **row,
        "ranks": record.run.ranks,
        record.period: numbers.seconds(record.period_s, _SHOWN),
        "90 % interval": numbers.interval(record.low_s, record.high_s),
        "sent": numbers.size(sum(record.bytes[0].values()) if record.bytes else 0),
        "memory": _of(tight["judged_bytes"], tight["limit_bytes"]),
        "fits": _FITS[str(tight["verdict"])],
        "grade": record.grade,
    }


_FITS = {"fits": "yes", "tight": "tight", "does not fit": "no"}


_SHOWN = 0.01
"""Relative spread with which a time is written: in three digits. The interval carries the doubt."""


def _of(needed: float, limit: float) -> str:
    """Both in the unit of the limit, such as "14.6 of 74.5 GiB"."""
    from gnnbench_reports import numbers

    whole, unit = numbers.size(limit).split()
    scale = limit / float(whole)
    return f"{digits(needed / scale)} of {whole} {unit}"


def _tight(record: PredictionRecord) -> str:
    """A warning where a prediction fits, but may run out of memory."""
    from gnnbench.commands.fits import tightest
    from gnnbench.commands.wording import percent

    if not record.memory or tightest(record)["verdict"] != "tight":
        return ""
    held = tightest(record)["spaces"].values()
    chance = max(float(space["p_out_of_memory"]) for space in held)
    return f"tight: P(out of memory) {percent(chance)}"


def _reasons(records: Sequence[PredictionRecord]) -> list[str]:
    """Each reason in one line with the approaches and rank counts that have it."""
    labels = _labels(records)
    having: dict[str, dict[str, None]] = {}
    for record in records:
        reason = f"{record.status}: {record.reason}" if record.reason else _tight(record)
        if not reason and not record.counted:
            reason = f"estimated: {record.basis}"
        if reason:
            label = labels[record.config_id]
            name = f"{record.run.dataset.name}, {label} on {record.run.ranks}"
            having.setdefault(reason, {})[name] = None
    lines = []
    for reason, places in having.items():
        more = f" and {len(places) - 2} more" if len(places) > 2 else ""
        lines.append(f"{reason}: {'; '.join(list(places)[:2])}{more}")
    return lines
