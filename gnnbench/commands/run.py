"""`gnnbench run`: train a suite for real; finished runs are kept, failed ones told."""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import statistics
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from gnnbench.commands.options import add_results, add_suite, positive_int

if TYPE_CHECKING:
    from gnnbench.results import RunRecord
    from gnnbench.spec import RunSpec, Suite

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
        type=positive_int,
        metavar="N",
        help="repeats of each configuration instead of the suite's own",
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto takes GPUs where there are any (default)",
    )
    parser.add_argument("--retry-failed", action="store_true", help="run failed runs again")


def run(args: argparse.Namespace) -> int:
    from gnnbench.commands.output import emit_json, progress, status_line
    from gnnbench.commands.volumes import volume_lines
    from gnnbench.data.source import data_roots
    from gnnbench.results import Results
    from gnnbench.suites import find_suite
    from gnnbench_runtime.join import joined
    from gnnbench_runtime.session import run_all

    suite = find_suite(args.suite)
    runs = chosen(suite, only=args.only, repeats=args.repeats)
    roots = data_roots(args.data, suite.folder)
    results = Results(args.results)
    world = joined()
    talks = world is None or world.rank == 0
    records: list[tuple[RunRecord, bool]] = []
    if world is None and not args.json:
        for line in volume_lines(runs, roots, results):
            print(line, flush=True)
    session = run_all(runs, results, roots, device=args.device, retry_failed=args.retry_failed)
    with progress(suite.name, len(runs)) as advance:
        for record, kept in session:
            records.append((record, kept))
            if talks and not args.json:
                word = "kept" if kept and record.status == "ok" else record.status
                status_line(word, record.run_id, detail(record))
            advance(record.run_id)
    counts = Counter(record.status for record, _ in records)
    if not talks:
        pass
    elif args.json:
        rows = [{**summary(record), "kept": kept} for record, kept in records]
        emit_json({"suite": suite.name, "results": args.results, "counts": counts, "runs": rows})
    else:
        num_kept = sum(kept for _, kept in records)
        told = ", ".join(f"{number} {word}" for word, number in sorted(counts.items()))
        print(f"{len(records)} runs: {told}; {num_kept} kept; records in {args.results}")
    return int(counts["failed"] > 0)


def chosen(suite: Suite, *, only: str | None, repeats: int | None) -> list[RunSpec]:
    """Return the runs to do; repeats stay interleaved. Raises SpecError if nothing matches."""
    from gnnbench.errors import SpecError

    runs = list(suite.runs)
    if repeats is not None:
        configurations = suite.configurations()
        runs = [dataclasses.replace(r, repeat=n) for n in range(repeats) for r in configurations]
    if only is not None:
        matching = [r for r in runs if fnmatch.fnmatchcase(r.run_id, only)]
        if not matching:
            raise SpecError(f"--only {only!r} matches no run; a run id is like {runs[0].run_id!r}")
        runs = matching
    return runs


def epoch_seconds(record: RunRecord) -> float | None:
    """Return the median seconds of an epoch, warm-up left out where enough epochs remain."""
    seconds = [epoch["seconds"] for epoch in record.epochs]
    steady = seconds[record.run.training.warmup_epochs :] or seconds
    return statistics.median(steady) if steady else None


def detail(record: RunRecord) -> str:
    """Return what one line can say of a run."""
    if record.status != "ok":
        where = f"rank {record.failed_rank}, {record.failed_phase}: " if record.failed_phase else ""
        return where + record.reason
    words = [f"{epoch_seconds(record) or 0:.4g} s/epoch"]
    if "test" in record.accuracy:
        words.append(f"test accuracy {record.accuracy['test']:.3f}")
    if record.device.get("practice"):
        words.append("practice")
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
        "epoch_s": epoch_seconds(record),
        "accuracy": record.accuracy,
        "wall_s": record.wall_s,
    }
