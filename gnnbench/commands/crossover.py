"""`gnnbench crossover`: the rank count from which the mixture sends fewer bytes than partitions."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from gnnbench.commands.options import option, positive_int, rank_counts, seed

if TYPE_CHECKING:
    from gnnbench.crossover import Crossover, CrossoverPoint

NAME = "crossover"
HELP = "compare bytes sent by partition parallelism and by the mixture of parallelism, over ranks"
ORDERS = ("min_width", "aggregate_first", "transform_first")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the graph, the model and how far to look."""
    parser.add_argument(
        "graph",
        metavar="GRAPH|PROFILE",
        help="a graph file or folder, a generator, or the name of a stored profile",
    )
    parser.add_argument("--format", metavar="F", help="format of the file (default: recognised)")
    parser.add_argument(
        "--option",
        action="append",
        type=option,
        metavar="K=V",
        help="option of the reader or generator",
    )
    parser.add_argument(
        "--model-kind", default="gcn", metavar="KIND", help="gcn (default), sage or gat"
    )
    parser.add_argument(
        "--hidden", type=positive_int, default=64, metavar="H", help="hidden width (default 64)"
    )
    parser.add_argument(
        "--heads", type=positive_int, default=1, metavar="K", help="attention heads (default 1)"
    )
    parser.add_argument("--layers", type=positive_int, default=2, metavar="L", help="default 2")
    parser.add_argument(
        "--ranks", type=rank_counts, metavar="N,N", help="rank counts (default 2,4,8,16,32,64)"
    )
    parser.add_argument(
        "--order",
        choices=ORDERS,
        default="min_width",
        help="which product comes first in a layer",
    )
    parser.add_argument(
        "--objective",
        choices=("vol", "cut"),
        default="vol",
        help="what METIS minimises: communication volume (default) or edge cut",
    )
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="seed of METIS")


def run(args: argparse.Namespace) -> int:
    from gnnbench.commands.output import emit_json, progress
    from gnnbench.crossover import DEFAULT_RANKS, crossover
    from gnnbench.data.source import open_graph_or_profile
    from gnnbench.spec import ModelSpec

    graph = open_graph_or_profile(args.graph, args.format, dict(args.option or ()))
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
    """Print from where on the mixture sends fewer bytes, then the curves."""
    from gnnbench.commands.output import heading, table, text

    text(f"{found.graph}, {found.model} with widths {' - '.join(map(str, found.dims))}")
    for line in sentences(found):
        text(line)
    heading("bytes sent by all ranks per epoch")
    rows = [_compared(point, point.partition_bytes, point.mixture_bytes) for point in found.points]
    table(rows, list(rows[0]))
    once = [
        _compared(point, point.partition_precomputed_bytes, point.mixture_precomputed_bytes)
        for point in found.points
        if point.partition_precomputed_bytes is not None
        and point.mixture_precomputed_bytes is not None
    ]
    if once:
        heading("bytes sent by all ranks per epoch, A X of layer 1 computed once before training")
        table(once, list(once[0]))
    heading("rows sent per node and unit of width, and bytes of the gradient all-reduce")
    rows = [_per_node(point) for point in found.points]
    table(rows, list(rows[0]))


def _compared(point: CrossoverPoint, partition: int | None, mixture: int | None) -> dict[str, Any]:
    """One line of a table of bytes; a ratio above 1 means that the mixture sends fewer."""
    from gnnbench_reports import numbers

    return {
        "ranks": point.ranks,
        "by partition": numbers.size(partition),
        "by mixture": numbers.size(mixture),
        "partition / mixture": f"{partition / mixture:.2f}" if partition and mixture else "-",
    }


def _per_node(point: CrossoverPoint) -> dict[str, Any]:
    from gnnbench_reports import numbers

    return {
        "ranks": point.ranks,
        "partition: halo rows / nodes": f"{point.halo_per_node:.3f}",
        "mixture: 2(P-1)/P": f"{point.relayout_per_node:.3f}",
        "all-reduce of both": numbers.size(point.weights_bytes),
    }


def sentences(found: Crossover) -> list[str]:
    """Say from which rank count P on the mixture sends fewer bytes, and the source of the halo."""
    highest = found.points[-1].ranks

    def where(first: int | None) -> str:
        return f"at no P up to {highest}" if first is None else f"from P = {first} on"

    answer = f"The mixture sends fewer bytes than partitions {where(found.first_epoch)}"
    if found.orders_precomputed is not None:
        answer += f"; with A X computed once by both, {where(found.first_precomputed)}"
    return [
        f"{answer}. Counted in rows per node alone, {where(found.first_per_width)}.",
        "Halo sizes: " + "; ".join(dict.fromkeys(point.basis for point in found.points)) + ".",
    ]
