"""`gnnbench calibrate`: measure this machine into a cluster file."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from gnnbench.cluster import Cluster, CollectiveModel

NAME = "calibrate"
HELP = "measure this machine into a cluster file, for predictions"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add where to write and what to measure."""
    from gnnbench.commands.options import add_out, positive_int

    add_out(parser, "cluster TOML file to write")
    parser.add_argument("--quick", action="store_true", help="half the probes: about two minutes")
    parser.add_argument(
        "--co-located",
        type=positive_int,
        default=0,
        metavar="K",
        help="most ranks on this host (default: what its cores or GPUs allow, at most 4; "
        "collectives up to 4 all the same)",
    )
    parser.add_argument(
        "--threads",
        type=positive_int,
        default=1,
        metavar="N",
        help="CPU threads of a rank (default 1)",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--name", default="", help="name of the cluster (default: the file's)")


def run(args: argparse.Namespace) -> int:
    from gnnbench.cluster import save_cluster
    from gnnbench.commands.output import emit_json, progress, table

    args.out.parent.mkdir(parents=True, exist_ok=True)
    calibrate = calibration()
    with progress("calibrate", 100) as advance:
        done = 0

        def report(word: str, share: float) -> None:
            nonlocal done
            while done < int(100 * share):
                done += 1
                advance(word)

        cluster = calibrate(
            name=args.name or args.out.stem,
            quick=args.quick,
            co_located=args.co_located,
            threads=args.threads,
            device=args.device,
            progress=report,
        )
    save_cluster(cluster, args.out)
    rows = summary(cluster)
    if args.json:
        emit_json({"cluster": str(args.out), "operations": rows})
    else:
        table(rows, ["operation", "ranks", "points", "mean error", "90 % within"])
        print(f"wrote {args.out}")
    return 0


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
    """One row per fitted constant set, with how well it fits points that it had not seen."""
    import math

    models = [(m.op, str(m.co_located), m) for m in cluster.ops]
    models += [(c.op, _crowd(c), c) for c in cluster.collectives]  # type: ignore[misc]
    return [
        {
            "operation": op,
            "ranks": ranks,
            "points": model.points,
            "mean error": f"{100 * model.mape:.0f} %",
            "90 % within": f"x{math.exp(model.radius):.2f}",
        }
        for op, ranks, model in models
    ]


def _crowd(model: CollectiveModel) -> str:
    together = model.co_located or model.ranks
    return str(model.ranks) if together == model.ranks else f"{model.ranks} of {together}"
