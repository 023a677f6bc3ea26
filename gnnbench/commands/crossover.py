"""`gnnbench crossover`: from how many ranks on does the mixture move fewer bytes than METIS?"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from gnnbench.commands.options import option, positive_int, rank_counts

if TYPE_CHECKING:
    from gnnbench.approaches.base import GraphLike
    from gnnbench.crossover import Crossover, CrossoverPoint

NAME = "crossover"
HELP = "bytes of partition parallelism and of the mixture, over ranks, and where they cross"
ORDERS = ("min_width", "aggregate_first", "transform_first")
COLUMNS = (
    "ranks",
    "S/N",
    "2(P-1)/P",
    "partition sends",
    "mixture sends",
    "ratio",
    "partition once",
    "mixture once",
    "ratio once",
    "weights",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the graph, the model and how far to look."""
    parser.add_argument(
        "graph",
        metavar="GRAPH|PROFILE",
        help="a graph file or folder, a generator, or the name of a stored profile",
    )
    parser.add_argument("--format", metavar="F", help="format of the file (default: recognised)")
    parser.add_argument(
        "--option", action="append", type=option, metavar="K=V", help="of the reader; repeatable"
    )
    parser.add_argument("--model-kind", default="gcn", metavar="KIND", help="default gcn")
    parser.add_argument("--hidden", type=positive_int, default=64, metavar="H", help="default 64")
    parser.add_argument(
        "--heads", type=positive_int, default=1, metavar="K", help="of hidden attention layers"
    )
    parser.add_argument("--layers", type=positive_int, default=2, metavar="L", help="default 2")
    parser.add_argument(
        "--ranks", type=rank_counts, metavar="N,N", help="default 2,4,8,16,32,64; at least 2"
    )
    parser.add_argument(
        "--order", choices=ORDERS, default="min_width", help="which product comes first"
    )
    parser.add_argument(
        "--objective",
        choices=("vol", "cut"),
        default="vol",
        help="what METIS minimises: communication volume (default) or edge cut",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the partitioner")


def run(args: argparse.Namespace) -> int:
    from gnnbench.commands.output import emit_json, progress
    from gnnbench.crossover import DEFAULT_RANKS, crossover
    from gnnbench.spec import ModelSpec

    graph = open_graph_or_profile(args)
    model = ModelSpec(
        name=args.model_kind,
        kind=args.model_kind,
        hidden=args.hidden,
        layers=args.layers,
        heads=args.heads,
    )
    ranks = args.ranks or DEFAULT_RANKS
    with progress(f"crossover {graph.name}", len(ranks)) as advance:
        found = crossover(
            graph,
            model,
            ranks,
            order=args.order,
            objective=args.objective,
            seed=args.seed,
            done=lambda count: advance(f"{count} ranks"),
        )
    if args.json:
        emit_json(document(found))
    else:
        show(found)
    return 0


def open_graph_or_profile(args: argparse.Namespace) -> GraphLike:
    """Return what is named: a stored profile, else a generator, file or folder."""
    from gnnbench.data.profile import list_profiles, load_profile
    from gnnbench.data.source import open_graph
    from gnnbench.errors import SpecError

    if args.graph in list_profiles() or args.graph.endswith(".toml"):
        given = [f"--{name}" for name in ("format", "option") if getattr(args, name) is not None]
        if given:
            raise SpecError(f"{', '.join(given)}: {args.graph} is a stored profile, not a file")
        stored: GraphLike = load_profile(args.graph)
        return stored
    return open_graph(args.graph, args.format, dict(args.option or ()))


def document(found: Crossover) -> dict[str, Any]:
    """Return the JSON document."""
    import dataclasses

    return {
        **dataclasses.asdict(found),
        "first_per_width": found.first_per_width,
        "first_epoch": found.first_epoch,
        "first_precomputed": found.first_precomputed,
    }


def show(found: Crossover) -> None:
    """Print the curve and what it says."""
    from gnnbench.commands.output import table

    print(f"{found.graph}, {found.model} of widths {' - '.join(map(str, found.dims))}")
    once = found.orders_precomputed is not None
    told = "; “once”: with A X computed once, before training" if once else ""
    print(f"bytes sent by all ranks per epoch{told}\n")
    table([row(point) for point in found.points], [c for c in COLUMNS if once or "once" not in c])
    print()
    for line in sentences(found):
        print(line)


def row(point: CrossoverPoint) -> dict[str, Any]:
    """One line of the table; without the columns “once” where nothing can be computed once."""
    from gnnbench_reports import numbers

    cells = {
        "ranks": point.ranks,
        "S/N": f"{point.halo_per_node:.3f}",
        "2(P-1)/P": f"{point.relayout_per_node:.3f}",
        "partition sends": numbers.size(point.partition_bytes),
        "mixture sends": numbers.size(point.mixture_bytes),
        "ratio": ratio(point.partition_bytes, point.mixture_bytes),
        "weights": numbers.size(point.weights_bytes),
    }
    partition, mixture = point.partition_precomputed_bytes, point.mixture_precomputed_bytes
    if partition is not None and mixture is not None:
        cells["partition once"] = numbers.size(partition)
        cells["mixture once"] = numbers.size(mixture)
        cells["ratio once"] = ratio(partition, mixture)
    return cells


def ratio(partition_bytes: int, mixture_bytes: int) -> str:
    """Partition's bytes over the mixture's: above 1 the mixture moves fewer."""
    return "-" if not mixture_bytes else f"{partition_bytes / mixture_bytes:.2f}"


def sentences(found: Crossover) -> list[str]:
    """Say from where on the mixture moves fewer bytes, and what the halo rests on."""
    highest = found.points[-1].ranks

    def where(first: int | None) -> str:
        return f"not up to P = {highest}" if first is None else f"from P = {first}"

    once = f" with A X computed once by both: {where(found.first_precomputed)};"
    return [
        "The mixture moves fewer bytes"
        f" in a whole epoch: {where(found.first_epoch)};"
        f"{once if found.orders_precomputed is not None else ''}"
        f" per unit of width, S/N above 2(P-1)/P: {where(found.first_per_width)}.",
        "halo: " + "; ".join(dict.fromkeys(point.basis for point in found.points)),
    ]
