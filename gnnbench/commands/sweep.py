"""`gnnbench sweep`: thousands of what-ifs, their Pareto set, break-even rents and a tornado."""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnnbench.commands import options

if TYPE_CHECKING:
    from gnnbench.machines import Machine
    from gnnbench.spec import RunSpec
    from gnnbench_simulator.sweep import Grid

NAME = "sweep"
HELP = "judge and time every combination of approaches, machines, models and knobs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the axes of the product, and what is shown of it."""
    add = parser.add_argument
    add("dataset", metavar="DATASET", help="a profile (see `gnnbench list datasets`) or a file")
    add("--approaches", metavar="A,B", help="approaches (default: all that accept the dataset)")
    add(
        "--machines",
        metavar="M,M",
        help="such as 8xa100-80, 8xa100-80:4 or p4de.24xlarge; default: all that can be rented",
    )
    add("--ranks", type=options.rank_counts, metavar="N,N", help="numbers of devices to try")
    add("--ranks-per-host", type=options.rank_counts, metavar="N,N", help="devices of a host")
    add("--model", metavar="KIND,KIND", help="kinds of model (default: what suits the dataset)")
    add("--hidden", default="256", metavar="N,N", help="hidden widths (default: 256)")
    add("--layers", metavar="N,N", help="numbers of layers (default: 3)")
    add("--batch", default="1024", metavar="N,N", help="seeds of a step (default: 1024)")
    add("--fanouts", metavar="N,N/N,N", help="neighbours per hop, such as 15,10,5/10,5,5")
    add("--precision", default="float32", metavar="P,P", help="float32, float64")
    add(
        "--knob",
        action="append",
        type=options.option,
        default=[],
        metavar="KNOB=V,V",
        help="values of a knob, of all approaches that have it or of one: partitioner=metis,hash "
        "or sampled.placement=replicated,partitioned",
    )
    add(
        "--set",
        action="append",
        type=options.option,
        default=[],
        metavar="KEY=VALUE",
        help="a fact of the profile (features=100GB) or a constant of the machines",
    )
    add(
        "--vary",
        action="append",
        type=options.option,
        default=[],
        metavar="KEY=V,V",
        help="values of a constant of the machines, such as links.inter.bytes_per_s=5e9,2e10",
    )
    add("--epochs", type=options.positive_int, default=100, metavar="N", help="(default: 100)")
    add("--spot", action="store_true", help="rent at spot rates")
    add(
        "--pareto",
        default="time,price,memory,energy",
        metavar="O,O",
        help="what the Pareto set minimises (default: time,price,memory,energy)",
    )
    add("--top", type=options.positive_int, default=10, metavar="N", help="lines of a table")
    add("--csv", type=options.output_file, metavar="FILE", help="write every what-if to a table")
    add("--data", type=Path, metavar="DIR", help="where the dataset's file is looked up")
    options.add_results(parser, required=False)


def run(args: argparse.Namespace) -> int:
    from gnnbench.commands import workload
    from gnnbench.commands.output import emit_json
    from gnnbench.commands.whatifs import document, lines, write_csv
    from gnnbench.data.source import Library, data_roots
    from gnnbench.results import Results
    from gnnbench_simulator.survey import survey

    results = Results(args.results) if args.results else None
    cache = None if results is None else results.folder / "cache"
    library = Library(data_roots(args.data), cache)
    facts = {k: v for k, v in args.set if not workload.is_constant(k)}
    dataset = workload.dataset_ref(args.dataset, facts)
    specs = [library.identified(spec) for spec in _workloads(args, dataset, library)]
    grid = _grid(args, specs)
    found = survey(
        grid,
        library.open(specs[0].dataset),
        workload.words(args.pareto),
        None if results is None else results.cache("shared"),
    )
    if args.csv:
        write_csv(found, args.csv)
    if args.json:
        emit_json(document(found))
    else:
        for line in lines(found, top=args.top):
            print(line)
    return int(found.cheapest is None)


def _workloads(args: argparse.Namespace, dataset: Any, library: Any) -> list[RunSpec]:
    from gnnbench.commands import workload
    from gnnbench.errors import SpecError
    from gnnbench.spec import TrainingSpec
    from gnnbench.strict import build

    kind = library.open(dataset).kind
    precisions = workload.words(args.precision)
    problems: list[str] = []
    for word in precisions:
        build(TrainingSpec, {"precision": word}, "--precision", problems)
    if problems:
        raise SpecError(problems)
    axes: list[list[Any]] = [
        [*workload.words(args.model)] or [None],
        list(_counts(args.hidden, "--hidden")),
        list(_counts(args.layers, "--layers") or [None]),
        list(_counts(args.batch, "--batch")),
        [workload.numbers(text, "--fanouts") for text in (args.fanouts or "").split("/")],
        precisions,
    ]
    return [
        workload.workload(
            dataset,
            kind,
            model=model,
            hidden=hidden,
            layers=layers,
            batch=batch,
            fanouts=fanouts,
            precision=precision,
            epochs=args.epochs,
        )
        for model, hidden, layers, batch, fanouts, precision in itertools.product(*axes)
    ]


def _counts(text: str | None, option: str) -> tuple[int, ...]:
    from gnnbench.commands import workload
    from gnnbench.errors import SpecError

    found = workload.numbers(text, option)
    if any(number < 1 for number in found):
        raise SpecError(f"{option} {text}: expected numbers of at least 1")
    return found


def _grid(args: argparse.Namespace, specs: list[RunSpec]) -> Grid:
    from gnnbench.commands import workload
    from gnnbench_simulator.advice import that_can
    from gnnbench_simulator.sweep import Grid

    names = workload.words(args.approaches) or list(
        dict.fromkeys(name for spec in specs for name in that_can(spec))
    )
    knobs = {
        key: tuple(workload.value_of(word) for word in _words("--knob", key, text))
        for key, text in args.knob
    }
    return Grid(
        workloads=tuple(specs),
        approaches=tuple(names),
        machines=tuple(_machines(args)),
        knobs=knobs,
        epochs=args.epochs,
        spot=args.spot,
    )


def _words(option: str, key: str, text: str) -> list[str]:
    """The values of an axis. Raises SpecError for none, which would leave no what-if."""
    from gnnbench.commands import workload
    from gnnbench.errors import SpecError

    found = workload.words(text)
    if not found:
        raise SpecError(f"{option} {key}={text}: no value; give one or more, separated by commas")
    return found


def _machines(args: argparse.Namespace) -> list[Machine]:
    """The machines at every combination of the constants that vary."""
    from gnnbench.commands import workload
    from gnnbench.machines import find_machines

    fixed = {k: v for k, v in args.set if workload.is_constant(k)}
    values = [[(key, word) for word in _words("--vary", key, text)] for key, text in args.vary]
    found: list[Machine] = []
    for varied in itertools.product(*values):
        found += find_machines(
            workload.words(args.machines),
            ranks=args.ranks,
            per_host=args.ranks_per_host,
            constants={**fixed, **dict(varied)},
        )
    return found
