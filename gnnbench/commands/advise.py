"""`gnnbench advise`: which machine to rent for a graph, and which approach to run on it."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnnbench.commands import options
from gnnbench.spec import OPTIMIZERS

if TYPE_CHECKING:
    from gnnbench.spec import DatasetRef, RunSpec
    from gnnbench_simulator.advice import Question

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
    add("--layers", type=options.positive_int, metavar="N", help="number of layers (default: 3)")
    add("--heads", type=options.positive_int, default=1, metavar="N", help="heads of attention")
    add("--batch", type=options.positive_int, default=1024, metavar="N", help="seeds of a step")
    add("--fanouts", metavar="N,N", help="neighbours per hop, seeds first (default: 15,10,5)")
    add("--optimizer", choices=OPTIMIZERS, default=OPTIMIZERS[0], help="(default: adam)")
    add("--epochs", type=options.positive_int, default=100, metavar="N", help="(default: 100)")
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
    add("--deadline", metavar="TIME", help="the training must end within, such as 2h or 30min")
    add("--budget", type=options.positive_float, metavar="USD", help="it must cost no more")
    add("--smallest", action="store_true", help="prefer the fewest devices that meet the limits")
    add("--spot", action="store_true", help="rent at spot rates")
    add("--explain", action="store_true", help="show steps, constants and memory of the answer")
    add("--top", type=options.positive_int, default=8, metavar="N", help="lines of the table")
    add("--data", type=Path, metavar="DIR", help="where the dataset's file is looked up")
    options.add_results(parser, required=False)


def run(args: argparse.Namespace) -> int:
    from gnnbench.commands.advice import document, lines
    from gnnbench.commands.output import emit_json
    from gnnbench.data.source import Library, data_roots
    from gnnbench.machines import find_machines
    from gnnbench.results import Results
    from gnnbench_simulator.advice import advise

    facts = {k: v for k, v in args.set if not _is_constant(k)}
    constants = {k: v for k, v in args.set if _is_constant(k)}
    machines = find_machines(
        _words(args.machines),
        ranks=args.ranks,
        per_host=args.ranks_per_host,
        constants=constants,
    )
    results = Results(args.results) if args.results else None
    cache = None if results is None else results.folder / "cache"
    library = Library(data_roots(args.data), cache)
    dataset = _dataset(args.dataset, facts)
    spec = library.identified(_workload(args, dataset, library.open(dataset).kind))
    shared = None if results is None else results.cache("shared")
    found = advise(
        _question(args, spec),
        library.open(spec.dataset),
        machines,
        _words(args.approaches),
        shared,
    )
    if results is not None:
        _save(results, found)
    if args.json:
        emit_json(document(found, explain=args.explain))
    else:
        for line in lines(found, top=args.top, explain=args.explain):
            print(line)
    return int(found.best is None)


def _is_constant(key: str) -> bool:
    """Constants of machines have a dot, as the sections of a cluster file; facts have none."""
    return "." in key or ":" in key


def _words(text: str | None) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()] if text else []


def _workload(args: argparse.Namespace, dataset: DatasetRef, kind: str) -> RunSpec:
    """The run that is asked about; approach and ranks stand for any."""
    from gnnbench.errors import SpecError, UnknownName
    from gnnbench.models.names import MODELS
    from gnnbench.spec import BatchSpec, ModelSpec, RunSpec, TrainingSpec

    name = args.model or _model_for(kind)
    if name not in MODELS.names():
        raise UnknownName("model", name, MODELS.names())
    model = ModelSpec(
        name=name, kind=name, hidden=args.hidden, layers=args.layers or 3, heads=args.heads
    )
    if args.layers is None and MODELS.get(name).problems(model):
        model = dataclasses.replace(model, layers=1)
    problems = list(MODELS.get(name).problems(model))
    fanouts = tuple(int(word) for word in _words(args.fanouts) if word.lstrip("-").isdigit())
    if len(fanouts) != len(_words(args.fanouts)):
        problems.append(f"--fanouts {args.fanouts}: expected numbers such as 15,10,5")
    elif fanouts and len(fanouts) != model.layers:
        problems.append(
            f"--fanouts {args.fanouts}: {len(fanouts)} for {model.layers} layers; one per layer"
        )
    if problems:
        raise SpecError(problems)
    return RunSpec(
        suite="advice",
        dataset=dataset,
        model=model,
        batch=BatchSpec(size=args.batch, fanouts_from_seeds=fanouts),
        training=TrainingSpec(epochs=args.epochs, optimizer=args.optimizer),
        approach="",
        ranks=1,
    )


def _model_for(kind: str) -> str:
    """GraphSAGE for graphs; else the first model that an approach to this kind names."""
    from gnnbench.approaches.names import APPROACHES

    if kind == "graph":
        return "sage"
    cards = [APPROACHES.get(name).accepts for name in APPROACHES.names()]
    models = [min(c.models) for c in cards if c.models and kind in c.datasets]
    return min(models, default="sage")


def _dataset(name: str, facts: dict[str, str]) -> DatasetRef:
    from gnnbench.data.generators import GENERATORS
    from gnnbench.data.profile import list_profiles, load_profile
    from gnnbench.errors import SpecError, UnknownName
    from gnnbench.spec import DatasetRef

    short = Path(name).stem
    values = {key: _number(text) for key, text in facts.items()}
    if name in list_profiles() or name.endswith(".toml"):
        if "features" in values:
            rows = int(str(values.get("num_nodes") or getattr(load_profile(name), "num_nodes", 0)))
            values["num_features"] = _width(str(facts["features"]), rows)
            del values["features"]
        return DatasetRef(name=short, profile=name, override=values)
    if name in GENERATORS and not Path(name).exists():
        return DatasetRef(name=short, generator=name, options=values)
    if values:
        raise SpecError(f"--set {next(iter(values))}: replaces a profile's fact; {name} is a file")
    if not Path(name).suffix and "/" not in name and not Path(name).exists():
        raise UnknownName("dataset", name, [*list_profiles(), *GENERATORS])
    return DatasetRef(name=short, path=name)


def _width(size: str, rows: int) -> int:
    """Features of a node if those of all nodes, in float32, take so much memory."""
    from gnnbench.errors import SpecError
    from gnnbench.units import size_bytes

    width = round(size_bytes(size) / (4 * max(rows, 1)))
    if width < 1:
        raise SpecError(f"--set features={size}: less than one float32 for each of {rows:,} nodes")
    return width


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _question(args: argparse.Namespace, spec: RunSpec) -> Question:
    from gnnbench.units import duration_s
    from gnnbench_simulator.advice import Question

    return Question(
        run=spec,
        epochs=args.epochs,
        deadline_s=duration_s(args.deadline) if args.deadline else None,
        budget_usd=args.budget,
        smallest=args.smallest,
        spot=args.spot,
    )


def _save(results: Any, found: Any) -> None:
    """Keep the choices that were predicted in full, for `compare` and `report`."""
    from gnnbench.cluster import save_cluster

    for choice in {id(c): c for c in (*found.ranked, *found.approaches)}.values():
        if choice.prediction is not None:
            kept = results.cluster_file(choice.machine.cluster.name)
            kept.parent.mkdir(parents=True, exist_ok=True)
            save_cluster(choice.machine.cluster, kept)
            results.save_prediction(
                choice.prediction.record(choice.run, ranks_per_host=choice.machine.per_host)
            )
