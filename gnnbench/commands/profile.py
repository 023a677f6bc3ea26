"""`gnnbench profile fit`: a profile from counts and degree figures, and a scaled graph of it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from gnnbench.commands import options

if TYPE_CHECKING:
    from gnnbench.data.fitting import Figure
    from gnnbench.data.profile import GraphProfile
    from gnnbench.data.scaled import Match

_NO_HALO = "no halo curve, so only hash partitions (--like PROFILE lends that of another graph)"

NAME = "profile"
HELP = "make a profile from counts and degree figures, and a small graph that behaves like it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the counts, the degree figures and what to write."""
    add = parser.add_argument
    add("action", choices=("fit",), help="fit: a profile of a graph that is not at hand")
    add("--name", required=True, metavar="NAME", help="of the graph")
    add("--nodes", required=True, type=options.positive_int, metavar="N", help="vertices")
    add(
        "--edges",
        required=True,
        type=options.positive_int,
        metavar="N",
        help="stored edges: both directions of an undirected edge",
    )
    add("--directed", action="store_true", help="edges have a direction")
    add(
        "--features",
        type=_features,
        default=0,
        metavar="N|SIZE",
        help="of a vertex, or the size of all of them in float32, such as 64GB",
    )
    add("--classes", type=options.positive_int, default=0, metavar="N", help="of vertices")
    add("--train", type=options.positive_int, default=0, metavar="N", help="training vertices")
    for name, what in (
        ("median", "half of the vertices have no more"),
        ("p90", "nine of ten have no more"),
        ("p99", "99 of 100 have no more"),
        ("max", "the highest"),
    ):
        add(f"--degree-{name}", type=options.positive_float, metavar="D", help=f"degree: {what}")
    add("--like", metavar="PROFILE", help="take over the halo curves of a graph of its kind")
    add("--out", type=options.output_file, metavar="FILE.toml", help="write the profile")
    add(
        "--synthesise",
        type=options.positive_int,
        metavar="N",
        help="draw a graph of N vertices with its degrees, halo, batches and reuse",
    )
    add("--graph", type=options.output_folder, metavar="DIR", help="where the drawn graph goes")
    add("--seed", type=options.seed, default=0, metavar="N", help="of the drawn graph")


def run(args: argparse.Namespace) -> int:
    from gnnbench.commands.output import emit_json
    from gnnbench.commands.workload import width_of
    from gnnbench.data.fitting import fit_profile
    from gnnbench.data.formats import native
    from gnnbench.data.profile import load_profile, save_profile
    from gnnbench.data.scaled import compare, synthesise
    from gnnbench.errors import SpecError

    if args.graph is not None and args.synthesise is None:
        raise SpecError("--graph: allowed with --synthesise N, which draws the graph")
    like = load_profile(args.like) if args.like else None
    if like is not None and like.kind != "graph":
        raise SpecError(f"--like {args.like}: a profile of {like.kind}; name one of a graph")
    width = args.features
    names = ("median", "p90", "p99", "max")
    found = {name: getattr(args, f"degree_{name}") for name in names}
    profile, figures = fit_profile(
        args.name,
        num_nodes=args.nodes,
        num_edges=args.edges,
        undirected=not args.directed,
        num_features=width
        if isinstance(width, int)
        else width_of(width, args.nodes, "--features "),
        num_classes=args.classes,
        num_train=args.train,
        figures={name: value for name, value in found.items() if value is not None},
        like=like,
    )
    if args.out is not None:
        save_profile(profile, args.out)
    matches: list[Match] = []
    drawn: dict[str, Any] = {}
    if args.synthesise is not None:
        graph, q = synthesise(profile, args.synthesise, seed=args.seed)
        matches = compare(profile, graph, seed=args.seed)
        drawn = {"nodes": graph.num_nodes, "edges": graph.num_edges, "q": q}
        if args.graph is not None:
            native.save(graph, args.graph)
    if args.json:
        emit_json(
            {
                "profile": profile,
                "figures": [_row(figure) for figure in figures],
                "scaled": drawn,
                "matches": [_row(match) for match in matches],
            }
        )
    else:
        _print(args, profile, figures, drawn, matches)
    return 0


def _features(text: str) -> int | str:
    """A whole number, or a size in bytes with its unit."""
    if text[-1:].upper() != "B":
        return options.positive_int(text)
    options.size(text)
    return text


def _row(item: Figure | Match) -> dict[str, Any]:
    from gnnbench.commands.output import plain

    row = plain(item)
    assert isinstance(row, dict)
    return {**row, "error": item.error}


def _print(
    args: argparse.Namespace,
    profile: GraphProfile,
    figures: list[Figure],
    drawn: dict[str, Any],
    matches: list[Match],
) -> None:
    from gnnbench.commands.wording import table, wrapped
    from gnnbench.units import digits

    halo = f"halo curves of {args.like}" if profile.halo else _NO_HALO
    written = f"; written to {args.out}" if args.out else ""
    for line in wrapped(
        f"{profile.name}: {profile.num_nodes:,} vertices, {profile.num_edges:,} stored edges, mean "
        f"degree {digits(profile.degree_mean)}, log-normal spread {profile.degree_spread:g}; "
        f"{halo}{written}."
    ):
        print(line)
    rows = [
        {
            "degree": figure.name,
            "given": digits(figure.given),
            "fitted": digits(figure.fitted),
            "error": f"{100 * figure.error:+.0f} %",
        }
        for figure in figures
    ]
    for line in table(rows):
        print(line)
    if not drawn:
        return
    where = f", written to {args.graph}" if args.graph else ""
    print()
    for line in wrapped(
        f"Scaled graph: {drawn['nodes']:,} vertices, {drawn['edges']:,} edges{where}. Errors of "
        "scaling:"
    ):
        print(line)
    compared = [
        {
            "figure": match.name + (" (fitted)" if match.tuned else ""),
            "profile": digits(match.profile),
            "scaled": digits(match.scaled),
            "error": f"{100 * match.error:+.0f} %",
        }
        for match in matches
    ]
    for line in table(compared):
        print(line)
