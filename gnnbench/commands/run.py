"""`gnnbench run`: train the runs of a suite; finished runs are kept, failed ones reported."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from gnnbench.commands import jobs
from gnnbench.commands.options import add_results, add_suite, repeats
from gnnbench.metrics import TASKS

if TYPE_CHECKING:
    from gnnbench.results import RunRecord

NAME = "run"
HELP = "train a suite's runs on this machine and keep a record of each"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_suite(parser)
    add_results(parser)
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="where the suite's graph files are looked up"
    )
    parser.add_argument(
        "--only", metavar="GLOB", help="only runs whose id matches, such as '*-partition-*'"
    )
    parser.add_argument(
        "--repeats",
        type=repeats,
        metavar="N",
        help="number of repeats of each configuration (default: the suite's)",
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto (default) takes GPUs where there are any",
    )
    parser.add_argument(
        "--retry-failed", action="store_true", help="train failed and diverged runs again"
    )
    jobs.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    if jobs.asked(args):
        return jobs.run(args)
    from gnnbench.commands.output import (
        emit_json,
        name_passed_over,
        print_reasons,
        progress,
        status_line,
        text,
    )
    from gnnbench.data.source import data_roots
    from gnnbench.results import Results
    from gnnbench.suites import find_suite
    from gnnbench_runtime.join import joined
    from gnnbench_runtime.session import run_all

    suite = find_suite(args.suite)
    runs = suite.chosen(only=args.only, repeats=args.repeats)
    roots = data_roots(args.data, suite.folder)
    results = Results(args.results)
    world = joined()
    talks = world is None or world.rank == 0
    records: list[tuple[RunRecord, bool]] = []
    with progress(suite.name, len(runs)) as advance:
        session = run_all(
            runs,
            results,
            roots,
            device=args.device,
            retry_failed=args.retry_failed,
            watch=lambda run, what: advance.under_way(f"{run.run_id} {what}"),
        )
        for record, kept in session:
            records.append((record, kept))
            if talks and not args.json:
                word = "kept" if kept and record.status == "ok" else record.status
                again = "; kept: --retry-failed trains it anew" if kept and word != "kept" else ""
                told = "" if record.status == "skipped" else detail(record)
                status_line(word, record.run_id, told + again)
            advance(f"{record.run_id} {record.status}", kept=kept or record.status == "skipped")
    if talks:
        name_passed_over(results)
    counts = Counter(record.status for record, _ in records)
    if not talks:
        pass
    elif args.json:
        rows = [{**summary(record), "kept": kept} for record, kept in records]
        emit_json({"suite": suite.name, "results": args.results, "counts": counts, "runs": rows})
    else:
        num_kept = sum(kept for _, kept in records)
        by_status = ", ".join(f"{number} {word}" for word, number in sorted(counts.items()))
        kept_before = f" ({num_kept} from an earlier session)" if num_kept else ""
        text(f"{len(records)} runs: {by_status}{kept_before}; records in {args.results}")
        skipped = [(r.reason, r.config_id) for r, _ in records if r.status == "skipped"]
        print_reasons("skipped", skipped)
    return int(counts["failed"] + counts["diverged"] > 0)


def detail(record: RunRecord) -> str:
    """Return time per period and test metric of a run, or why it has none."""
    from gnnbench_reports.numbers import seconds

    if record.status != "ok":
        where = f"rank {record.failed_rank}, {record.failed_phase}: " if record.failed_phase else ""
        return where + record.reason
    words = [f"{seconds(record.period_s)} per {record.period}"]
    primary = f"test_{TASKS[record.run.task_kind].primary}"
    if primary in record.metrics:
        words.append(f"{primary.replace('_', ' ')} {record.metrics[primary]:.3f}")
    if record.device.get("practice"):
        words.append("practice: ranks share GPUs")
    return ", ".join(words)


def summary(record: RunRecord) -> dict[str, object]:
    """Return the JSON row of a run."""
    return {
        "run_id": record.run_id,
        "config_id": record.config_id,
        "status": record.status,
        "reason": record.reason,
        "failed_rank": record.failed_rank,
        "failed_phase": record.failed_phase,
        "period": record.period,
        "period_s": record.period_s,
        "metrics": record.metrics,
        "wall_s": record.wall_s,
    }
