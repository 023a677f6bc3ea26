"""Runs of a suite as jobs of other launchers: written to files, or submitted to Slurm."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnnbench.commands import options

if TYPE_CHECKING:
    from gnnbench.cluster import Cluster
    from gnnbench.launchers.job import JobRequest
    from gnnbench.launchers.queue import Placed
    from gnnbench.spec import RunSpec

_MARGIN = 2.0
_START_S = 600.0
"""Of the time limit: factor on the upper end of the interval, and what starting may take."""
_UNPREDICTED_S = 3600.0
_HOST_PROCESS_BYTES = 3 * 2**30
"""Host memory of a process that drives a GPU, beside the buffers of the plan; assumed."""
_HEADROOM = 1.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --launcher, --emit and what they need."""
    group = parser.add_argument_group("as jobs of another launcher")
    add = group.add_argument
    add(
        "--launcher",
        choices=("local", "slurm"),
        default="local",
        help="slurm submits a job for each missing run; repeat the command for what is missing",
    )
    add(
        "--emit",
        metavar="FORMAT",
        help="write job files and submit nothing: slurm, torchrun, kubeflow or skypilot",
    )
    add("--out", type=options.output_folder, metavar="DIR", help="where --emit writes")
    add(
        "--cluster",
        metavar="NAME|FILE",
        help="the machine of the jobs: memory and time limit are those predicted for it",
    )
    add(
        "--ranks-per-host",
        type=options.positive_int,
        metavar="N",
        help="ranks on a host (default: its devices)",
    )
    add(
        "--job",
        action="append",
        type=options.option,
        default=[],
        metavar="KEY=VALUE",
        help="an option of sbatch (partition=gpu, time=60), or image= of Kubeflow",
    )


def asked(args: argparse.Namespace) -> bool:
    """Whether jobs are asked for. Raises SpecError for an option without its launcher."""
    from gnnbench.errors import SpecError

    jobs = bool(args.emit) or args.launcher != "local"
    for name in ("out", "cluster", "ranks_per_host", "job"):
        if getattr(args, name) and not jobs:
            option = "--" + name.replace("_", "-")
            raise SpecError(f"{option}: allowed with --launcher slurm or --emit FORMAT")
    if args.emit and args.out is None:
        raise SpecError(f"--emit {args.emit}: name a folder for the job files with --out DIR")
    return jobs


def run(args: argparse.Namespace) -> int:
    """Write job files, or submit what is missing."""
    from gnnbench.cluster import choose_cluster
    from gnnbench.data.source import Library, data_roots
    from gnnbench.results import Results
    from gnnbench.suites import find_suite

    suite = find_suite(args.suite)
    runs = suite.chosen(only=args.only, repeats=args.repeats)
    results = Results(args.results)
    cluster = choose_cluster(args.cluster, results.folder)
    roots = data_roots(args.data, suite.folder)
    library = Library(roots, results.folder / "cache")
    if args.emit:
        return _emit(args, runs, cluster, library)
    return _submit(args, runs, cluster, library, results)


def _emit(args: argparse.Namespace, runs: list[RunSpec], cluster: Cluster, library: Any) -> int:
    from gnnbench.atomic import write_text
    from gnnbench.commands.output import emit_json
    from gnnbench.launchers.emit import emit, suffix

    written = []
    for spec in runs:
        job, reason = _request(args, spec, cluster, library)
        if job is None:
            written.append({"run_id": spec.run_id, "file": None, "reason": reason})
            continue
        text = emit(args.emit, job, dict(args.job))
        path = args.out / f"{spec.run_id}{suffix(args.emit)}"
        args.out.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
        written.append({"run_id": spec.run_id, "file": str(path), "reason": ""})
    if args.json:
        emit_json(written)
    else:
        for row in written:
            print(row["file"] or f"skipped  {row['run_id']}  {row['reason']}")
    return 0


def _submit(
    args: argparse.Namespace, runs: list[RunSpec], cluster: Cluster, library: Any, results: Any
) -> int:
    from gnnbench.commands.output import emit_json, name_passed_over
    from gnnbench.launchers import slurm
    from gnnbench.launchers.queue import Placed, place

    slurm.require()
    found: list[Placed] = []
    for spec in runs:
        job, reason = _request(args, spec, cluster, library)
        if job is None:
            placed = Placed(run_id=spec.run_id, word="skipped", status=reason)
        else:
            identified = library.identified(spec)
            placed = place(identified, job, results, dict(args.job), retry_failed=args.retry_failed)
        found.append(placed)
        if not args.json:
            print(f"{placed.word:<9}  {placed.run_id}  {_detail(placed, job)}".rstrip(), flush=True)
    name_passed_over(results)
    counts = Counter(placed.word for placed in found)
    if args.json:
        emit_json({"counts": counts, "runs": found})
    else:
        words = ", ".join(f"{number} {word}" for word, number in counts.items())
        print(f"{len(found)} runs: {words}; the same command submits what is missing then")
    return 0


def _detail(placed: Placed, job: JobRequest | None) -> str:
    if job is None or placed.word == "kept":
        return placed.status
    before = f"; the job before ended as {placed.before}" if placed.before else ""
    if placed.word == "queued":
        return f"job {placed.job} is {placed.before}"
    hosts = f"{job.hosts} host{'' if job.hosts == 1 else 's'}"
    return (
        f"job {placed.job}: {job.ranks} ranks on {hosts}, {job.memory_mib:,} MiB each, at most "
        f"{job.limit_min} min{before}"
    )


def _request(
    args: argparse.Namespace, spec: RunSpec, cluster: Cluster, library: Any
) -> tuple[JobRequest | None, str]:
    """What a run's job asks for, by its prediction; else why it cannot run."""
    from gnnbench.errors import GnnbenchError, SpecError
    from gnnbench.launchers.job import JobRequest
    from gnnbench_simulator.session import predict_run

    per_host = min(args.ranks_per_host or cluster.ranks_per_host(spec.ranks), spec.ranks)
    if spec.ranks % per_host:
        raise SpecError(
            f"{spec.run_id}: {spec.ranks} ranks do not fill hosts of {per_host}: ask for "
            f"--ranks-per-host that divides {spec.ranks}"
        )
    if spec.dataset.profile:
        return None, f"{spec.dataset.name} is a profile: it has statistics and no data to train on"
    try:
        run = library.identified(spec)
        data = library.open(run.dataset)
        shared = args.results / "cache" / "shared"
        record, _ = predict_run(run, data, cluster, shared, ranks_per_host=per_host)
    except GnnbenchError as error:
        return None, str(error).splitlines()[0]
    if record.status != "ok":
        return None, record.reason
    gpu = cluster.device.kind == "gpu"
    epochs = spec.training.increments or spec.training.epochs
    held = [rank["spaces"] for rank in record.memory]
    if gpu:
        each = max(one["host memory"]["high_bytes"] for one in held) + _HOST_PROCESS_BYTES
    else:
        each = max(one["memory"]["high_bytes"] for one in held)
    periods = max(len(record.notes["periods_s"]), 1)
    whole_s = record.high_s * max(epochs, periods) if record.period_s else _UNPREDICTED_S
    job = JobRequest(
        run_id=spec.run_id,
        command=_command(args, spec),
        ranks=spec.ranks,
        ranks_per_host=per_host,
        gpus_per_host=per_host if gpu else 0,
        cores_per_rank=spec.training.threads_per_rank,
        memory_bytes=round(_HEADROOM * each * per_host),
        limit_s=_MARGIN * whole_s + _START_S,
        basis=f"predicted for {cluster.name} ({record.grade}), with {_MARGIN:g} times the upper "
        f"end of the interval and {_START_S / 60:g} min to start",
        device=cluster.device.name,
    )
    return job, ""


def _command(args: argparse.Namespace, spec: RunSpec) -> list[str]:
    """What every rank executes: this run of the suite, and no other."""
    suite = Path(args.suite)
    words = [sys.executable, "-m", "gnnbench", "run"]
    words.append(str(suite.absolute()) if suite.suffix == ".toml" else args.suite)
    words += ["--results", str(args.results.absolute()), "--only", spec.run_id]
    if args.data is not None:
        words += ["--data", str(args.data.absolute())]
    if args.repeats is not None:
        words += ["--repeats", str(args.repeats)]
    if args.device != "auto":
        words += ["--device", args.device]
    if args.retry_failed:
        words.append("--retry-failed")
    return words
