"""`gnnbench advise`: which machine to rent for a graph, and which approach to run on it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gnnbench.commands import options
from gnnbench.spec import OPTIMIZERS

NAME = "advise"
HELP = "which machine to rent for a graph, which approach, how long, how much, does it fit"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the workload, the machines and the limits."""
    add = parser.add_argument
    add("dataset", metavar="DATASET", help="a profile (see `gnnbench list datasets`) or a file")
    add(
        "--set",
        action="append",
        type=options.option,
        default=[],
        metavar="KEY=VALUE",
        help="a fact of the profile (num_features=256, or features=100GB for their size), or a "
        "constant of a machine (price.usd_per_hour=20; NAME:KEY for one machine)",
    )
    add("--model", metavar="KIND", help="kind of model (default: sage, or what suits the dataset)")
    add("--hidden", type=options.positive_int, default=256, metavar="N", help="hidden width")
    add(
        "--layers",
        type=options.positive_int,
        metavar="N",
        help="number of layers (default: 3, on streams 1)",
    )
    add("--heads", type=options.positive_int, default=1, metavar="N", help="heads of attention")
    add("--batch", type=options.positive_int, default=1024, metavar="N", help="seeds of a step")
    add("--fanouts", metavar="N,N", help="neighbours per hop, seeds first (default: 15,10,5)")
    add("--optimizer", choices=OPTIMIZERS, help="(default: adam; adagrad for triples)")
    add("--epochs", type=options.positive_int, default=100, metavar="N", help="(default: 100)")
    add(
        "--accuracy",
        type=_accuracy,
        metavar="A|best",
        help="train to this test accuracy, or until convergence, where published trainings say "
        "how many epochs that takes",
    )
    add("--approaches", metavar="A,B", help="approaches to consider (default: all that can)")
    add(
        "--machines",
        metavar="M,M",
        help="such as 8xa100-80 (8 devices), 8xa100-80:4 (4 on a host), p4de.24xlarge or a "
        "cluster file; default: all that can be rented",
    )
    add("--ranks", type=options.rank_counts, metavar="N,N", help="numbers of devices to try")
    add(
        "--ranks-per-host",
        type=options.rank_counts,
        metavar="N,N",
        help="devices to use of a host (default: all)",
    )
    add(
        "--deadline",
        type=options.duration,
        metavar="TIME",
        help="the training must end within, such as 2h or 30min",
    )
    add("--budget", type=options.positive_float, metavar="USD", help="it must cost no more")
    add(
        "--event-rate",
        type=options.rate,
        metavar="RATE",
        help="of a stream: training must keep up with so many events, such as 579 (per second), "
        "2k/s or 50M/day",
    )
    add("--smallest", action="store_true", help="prefer the fewest devices that meet the limits")
    add("--spot", action="store_true", help="rent at spot rates")
    add("--explain", action="store_true", help="show steps, constants and memory of the answer")
    add("--top", type=options.positive_int, default=8, metavar="N", help="lines of the table")
    add("--data", type=Path, metavar="DIR", help="where the dataset's file is looked up")
    options.add_results(parser, required=False)


def run(args: argparse.Namespace) -> int:
    from gnnbench.commands import workload
    from gnnbench.commands.advice import lines
    from gnnbench.commands.advice_document import document
    from gnnbench.commands.advised import ask
    from gnnbench.commands.output import emit_json
    from gnnbench.results import Results

    results = Results(args.results) if args.results else None
    found = ask(
        args.dataset,
        machines=workload.words(args.machines),
        approaches=workload.words(args.approaches),
        facts={k: v for k, v in args.set if not workload.is_constant(k)},
        constants={k: v for k, v in args.set if workload.is_constant(k)},
        ranks=args.ranks,
        ranks_per_host=args.ranks_per_host,
        epochs=args.epochs,
        data=args.data,
        cache=None if results is None else results.folder / "cache",
        limits=_limits(args),
        model=args.model,
        hidden=args.hidden,
        layers=args.layers,
        heads=args.heads,
        batch=args.batch,
        fanouts=workload.numbers(args.fanouts, "--fanouts"),
        optimizer=args.optimizer,
    )
    if results is not None:
        _save(results, found)
    if args.json:
        emit_json(document(found, explain=args.explain))
    else:
        for line in lines(found, top=args.top, explain=args.explain):
            print(line)
    return int(found.best is None)


def _limits(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of the question that limit the training or say what ends it."""
    return {
        "deadline_s": args.deadline,
        "budget_usd": args.budget,
        "events_per_s": args.event_rate,
        "smallest": args.smallest,
        "spot": args.spot,
        "converged": args.accuracy == "best",
        "accuracy": None if args.accuracy in (None, "best") else args.accuracy,
    }


def _accuracy(text: str) -> float | str:
    """A share above 0 and below 1, or "best"."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if text != "best" and not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share such as 0.71, or 'best'")
    return "best" if text == "best" else value


def _save(results: Any, found: Any) -> None:
    """Keep the choices that were predicted in full, for `compare` and `report`."""
    from gnnbench.cluster import save_cluster
    from gnnbench.results import file_digest

    for choice in {id(c): c for c in (*found.ranked, *found.approaches)}.values():
        if choice.prediction is not None:
            kept = results.cluster_file(choice.machine.cluster.name)
            kept.parent.mkdir(parents=True, exist_ok=True)
            save_cluster(choice.machine.cluster, kept)
            record = choice.prediction.record(choice.run, ranks_per_host=choice.machine.per_host)
            record.cluster_digest = file_digest(kept)
            results.save_prediction(record)
