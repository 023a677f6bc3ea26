"""`gnnbench calibrate`: measure this machine into a cluster file."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gnnbench.errors import SpecError
from gnnbench.other_work import OtherWork

if TYPE_CHECKING:
    from gnnbench.cluster import Cluster, CollectiveModel, Storage

NAME = "calibrate"
HELP = "measure the operations, links and disk of this machine into a cluster file"
OTHERS = 0.1
"""Processors that other programs may keep busy during a calibration without a warning."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add where to write and what to measure."""
    from gnnbench.commands.options import add_out, positive_int

    add_out(parser, "cluster TOML file to write")
    parser.add_argument(
        "--quick", action="store_true", help="fewer probes: some minutes for three approaches"
    )
    parser.add_argument(
        "--approach",
        action="append",
        default=[],
        metavar="NAME",
        help="measure the operations of this approach; may be repeated (default: all approaches)",
    )
    parser.add_argument(
        "--co-located",
        type=positive_int,
        default=0,
        metavar="K",
        help="measure operations with 1 to K ranks at once on this host (default: its number of "
        "cores or GPUs, at most 4); collectives are always measured with up to 4",
    )
    parser.add_argument(
        "--threads",
        type=positive_int,
        default=1,
        metavar="N",
        help="CPU threads of a rank (default 1)",
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto (default) takes GPUs where there are any",
    )
    parser.add_argument(
        "--disk",
        metavar="DIR|none",
        default="",
        help="folder on the disk to measure, or none (default: folder of the cluster file)",
    )
    parser.add_argument(
        "--only",
        choices=("disk",),
        help="measure only the disk and replace [storage] of an existing cluster file",
    )
    parser.add_argument("--name", default="", help="name of the cluster (default: the file's)")


def run(args: argparse.Namespace) -> int:
    from gnnbench.cluster import save_cluster

    if args.only == "disk":
        return _disk_only(args)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    calibrate = calibration()
    others = OtherWork()
    with _progress() as report:
        cluster = calibrate(
            name=args.name or args.out.stem,
            quick=args.quick,
            co_located=args.co_located,
            threads=args.threads,
            device=args.device,
            approaches=args.approach,
            disk=_disk(args),
            progress=report,
        )
    save_cluster(cluster, args.out)
    _print(args, cluster, _uncalibrated(args, cluster), others.processors)
    return 0


def _disk_only(args: argparse.Namespace) -> int:
    """Measure the disk into a cluster file; all else in the file, comments too, stays."""
    from gnnbench.cluster import load_cluster, save_storage

    folder = _disk(args)
    if folder is None:
        raise SpecError("--only disk, --disk none: nothing to measure; give --disk a folder")
    before = load_cluster(args.out)
    calibration()
    from gnnbench_runtime.calibration.disk_sweep import FULL, QUICK, sweep_disk

    with _progress() as report:
        storage = sweep_disk(folder, QUICK if args.quick else FULL, progress=report)
    save_storage(storage, args.out)
    _print(args, dataclasses.replace(before, storage=storage, ops=(), collectives=()), {}, None)
    return 0


def _disk(args: argparse.Namespace) -> Path | None:
    if args.disk == "none":
        return None
    folder = Path(args.disk) if args.disk else args.out.resolve().parent
    # Looked at before the measurements of the operations, which take minutes.
    if args.disk and not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise SpecError(f"--disk {args.disk}: not a folder that can be written to")
    return folder


@contextmanager
def _progress() -> Iterator[Callable[[str, float], None]]:
    """A bar that follows the share done."""
    from gnnbench.commands.output import progress

    with progress("calibrate", 100) as advance:
        done = 0

        def report(word: str, share: float) -> None:
            nonlocal done
            while done < int(100 * share):
                done += 1
                advance(word)

        yield report


def _uncalibrated(args: argparse.Namespace, cluster: Cluster) -> dict[str, list[str]]:
    """Operations without constants, and the approaches that need them."""
    from gnnbench.approaches.names import APPROACHES
    from gnnbench.approaches.operations import needed

    device = "cuda" if cluster.device.kind == "gpu" else "cpu"
    owners = needed(args.approach or APPROACHES.names(), device)
    known = {model.op for model in cluster.ops}
    return {op: names for op, names in owners.items() if op not in known}


def _print(
    args: argparse.Namespace,
    cluster: Cluster,
    missing: dict[str, list[str]],
    others: float | None,
) -> None:
    from gnnbench.commands.output import emit_json, table, text

    rows = summary(cluster)
    if args.json:
        sums = [dataclasses.asdict(model) for model in cluster.iterations]
        document = {"cluster": str(args.out), "operations": rows, "iterations": sums}
        emit_json({**document, "uncalibrated": missing, "other_work_processors": others})
        return
    text(
        "Error of each operation's fitted cost at measured points that the fit had not used; "
        "mean, and the factor within which 90 % of the points lie:"
    )
    shown = by_operation(rows)
    table(shown, list(dict.fromkeys(column for row in shown for column in row)))
    for line in iteration_lines(cluster):
        text(line, hanging="  ")
    for op, names in missing.items():
        text(f"not calibrated: {op} (needed by {', '.join(names)})", hanging="  ")
    if missing:
        text("predictions take these from the device's peak rates and are graded datasheet")
    if cluster.storage is None:
        text("no disk measured: plans that read or write a disk cannot be predicted")
    if others is not None and others > OTHERS:
        text(
            f"Mind: other programs kept {others:.1f} processors busy meanwhile. These constants "
            "are of a busy machine and predict wrong times; calibrate again when nothing else "
            "runs.",
            hanging="  ",
        )
    print(f"wrote {args.out}")


def calibration() -> Callable[..., Cluster]:
    """Return the function that measures this machine. Raises MissingExtra without torch."""
    from gnnbench.errors import MissingExtra

    try:
        from gnnbench_runtime.calibration.calibrate import calibrate
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtra("torch", "runtime", "calibration") from None
    return calibrate


def summary(cluster: Cluster) -> list[dict[str, object]]:
    """One row per fitted set of constants, with its errors at points that the fit had not seen."""
    import math

    models = [(m.op, str(m.co_located), m) for m in cluster.ops]
    models += [(c.op, _crowd(c), c) for c in cluster.collectives]  # type: ignore[misc]
    rows: list[dict[str, object]] = [
        {
            "operation": op,
            "ranks": ranks,
            "points": model.points,
            "mean error": f"{100 * model.mape:.0f} %",
            "90 % within": f"×{math.exp(model.radius):.2f}",
        }
        for op, ranks, model in models
    ]
    return rows + ([] if cluster.storage is None else _disk_rows(cluster.storage))


def iteration_lines(cluster: Cluster) -> list[str]:
    """A sentence on the sums of operations for each number of ranks."""
    import math

    lines = []
    for model in cluster.iterations:
        ranks = "1 rank" if model.co_located == 1 else f"{model.co_located} ranks"
        line = (
            f"Sum of the operations of an iteration, {ranks}, {model.iterations} held-out "
            f"iterations of probes: median error {100 * model.median:.0f} %, nine of ten within "
            f"×{math.exp(model.radius):.2f}"
        )
        if model.inside is not None:
            line += f"; {100 * model.inside:.0f} % inside intervals earned on other kinds of graph"
        lines.append(f"{line}.")
    return lines


def by_operation(rows: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """One row per operation, with a column for each number of ranks that ran it at once."""
    found: dict[object, dict[str, object]] = {}
    for row in rows:
        column = "1 rank" if row["ranks"] == "1" else f"{row['ranks']} ranks"
        operation = {"operation": row["operation"]}
        found.setdefault(row["operation"], operation)[column] = (
            f"{row['mean error']} ({row['90 % within']})"
        )
    return list(found.values())


def _disk_rows(storage: Storage) -> list[dict[str, object]]:
    import math

    from gnnbench.costs.storage import point_bytes_per_s

    rows: list[dict[str, object]] = []
    for direction in ("read", "write", "mixed"):
        points = [point for point in storage.sweep if point.direction == direction]
        off = [abs(point_bytes_per_s(storage, p) / p.bytes_per_s - 1.0) for p in points]
        rows.append(
            {
                "operation": f"disk {direction} ({storage.method})",
                "ranks": "all",
                "points": len(points),
                "mean error": f"{100 * sum(off) / max(len(off), 1):.0f} %",
                "90 % within": f"×{math.exp(storage.radius):.2f}",
            }
        )
    return rows


def _crowd(model: CollectiveModel) -> str:
    together = model.co_located or model.ranks
    return str(model.ranks) if together == model.ranks else f"{model.ranks} of {together}"
