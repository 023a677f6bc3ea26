"""`gnnbench dataset`: the profile of a graph: counts, degrees, halo curve, frontier curve."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnnbench.commands.options import option, positive_int

if TYPE_CHECKING:
    from gnnbench.data.graph import Graph
    from gnnbench.data.profile import GraphProfile

NAME = "dataset"
HELP = "profile a graph: degrees, halos of partitions, sampled batches; save or convert it"
METHODS = ("metis-vol", "metis-cut", "hash", "chunk")
DEFAULT_PARTS, DEFAULT_FANOUTS = (2, 4, 8), (10, 10)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what to profile, how far, and what to write."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a graph file or folder, a generator, or the name of a stored profile",
    )
    parser.add_argument("--format", metavar="F", help="format of the file (default: recognised)")
    parser.add_argument(
        "--option",
        action="append",
        type=option,
        metavar="K=V",
        help="option of the reader or generator; repeatable",
    )
    parser.add_argument(
        "--parts", type=_parts, metavar="N,N", help="partitions to try (default 2,4,8), or none"
    )
    parser.add_argument(
        "--methods",
        type=_methods,
        metavar="M,M",
        help=f"of {', '.join(METHODS)}; default metis-vol",
    )
    parser.add_argument(
        "--fanouts",
        action="append",
        type=_fanouts,
        metavar="K,K",
        help="neighbours drawn per hop, seeds first (default 10,10); repeatable",
    )
    parser.add_argument(
        "--batch", type=positive_int, metavar="N", help="seeds of a sampled batch (default 1024)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of partitions and batches"
    )
    parser.add_argument(
        "--save", type=Path, metavar="PROFILE.toml", help="write the profile, for predictions"
    )
    parser.add_argument(
        "--convert", type=Path, metavar="DIR", help="write the graph in native form, to be mapped"
    )


def run(args: argparse.Namespace) -> int:
    from gnnbench.commands.output import emit_json
    from gnnbench.data.formats import native
    from gnnbench.data.profile import save_profile
    from gnnbench.data.source import open_source

    stored = _stored(args)
    if stored is None:
        graph = open_source(args.source, args.format, dict(args.option or ()))
        found = measure(graph, args)
        if args.convert:
            native.save(graph, args.convert)
    else:
        found = stored
    if args.save:
        args.save.parent.mkdir(parents=True, exist_ok=True)
        save_profile(found, args.save)
    if args.json:
        emit_json({**card(found), "saved": args.save, "converted": args.convert})
        return 0
    show(found)
    for what, path in (("profile", args.save), ("graph", args.convert)):
        if path:
            print(f"wrote the {what} to {path}")
    return 0


def measure(graph: Graph, args: argparse.Namespace) -> GraphProfile:
    """Profile a graph as asked for; METIS takes minutes beyond some ten million edges."""
    from gnnbench.commands.output import progress
    from gnnbench.data.profile import profile

    parts = DEFAULT_PARTS if args.parts is None else args.parts
    with progress(f"profile {graph.name}", 1) as advance:
        found = profile(
            graph,
            parts=parts,
            methods=args.methods or ("metis-vol",),
            fanouts=args.fanouts or (DEFAULT_FANOUTS,),
            batch=args.batch or 1024,
            seed=args.seed,
        )
        advance("")
    return found


def card(found: GraphProfile) -> dict[str, Any]:
    """Return the JSON document: the profile, with the degrees in figures that people ask for."""
    import dataclasses

    return {
        **dataclasses.asdict(found),
        "degree_mean": found.degree_mean,
        "degree_median": degree_median(found),
    }


def degree_median(found: GraphProfile) -> float | None:
    """Return the median of the stored histogram, to the width of its bin; None without one."""
    if not found.degree_counts:
        return None
    seen, half = 0, sum(found.degree_counts) / 2
    for value, count in zip(found.degree_values, found.degree_counts, strict=True):
        seen += count
        if seen >= half:
            return value
    return None


def show(found: GraphProfile) -> None:
    """Print a profile."""
    from gnnbench.commands.output import table
    from gnnbench_reports import numbers

    kind = "undirected, both directions stored" if found.undirected else "directed"
    median = degree_median(found)
    split = (found.num_train, found.num_val, found.num_test)
    facts = {
        "graph": found.name,
        "source": found.source if found.status == "measured" else f"published: {found.source}",
        "nodes": numbers.whole(found.num_nodes),
        "edges": f"{numbers.whole(found.num_edges)} ({kind})",
        "features": numbers.whole(found.num_features),
        "classes": numbers.whole(found.num_classes),
        "train, val, test": ", ".join(numbers.whole(n) if n else "–" for n in split),
        "in-degree": f"mean {found.degree_mean:.3g}, median {_or_dash(median)}, "
        f"99 % at most {_or_dash(found.degree_p99)}, highest {_or_dash(found.degree_max)}",
        "edge homophily": numbers.percent(found.edge_homophily),
    }
    width = max(map(len, facts))
    for name, fact in facts.items():
        print(f"{name:<{width}}  {fact}")
    if found.halo:
        print(
            "\nhalo: copies of remote nodes per node (S/N), largest halo over the mean, edges cut"
        )
        table(
            [
                {
                    "method": point.method,
                    "parts": point.parts,
                    "S/N": f"{point.halo_per_node:.3f}",
                    "max/mean": _or_none(point.halo_imbalance, ".2f"),
                    "cut": None
                    if point.cut_fraction is None
                    else numbers.percent(point.cut_fraction, 0.001).replace(" ", ""),
                }
                for point in found.halo
            ],
            ["method", "parts", "S/N", "max/mean", "cut"],
        )
    if found.frontier:
        print("\nfrontier: mean vertices of a sampled batch, inputs first, and edges of its layers")
        table(
            [
                {
                    "fan-outs from seeds": _listed(point.fanouts_from_seeds),
                    "batch": point.batch,
                    "vertices": _listed(map(round, point.vertices)),
                    "edges": _listed(map(round, point.edges)),
                }
                for point in found.frontier
            ],
            ["fan-outs from seeds", "batch", "vertices", "edges"],
        )


def _stored(args: argparse.Namespace) -> GraphProfile | None:
    from gnnbench.data.profile import list_profiles, load_profile
    from gnnbench.errors import SpecError

    if args.source not in list_profiles() and not args.source.endswith(".toml"):
        return None
    measuring = ("format", "option", "parts", "methods", "fanouts", "batch", "convert")
    given = [f"--{name}" for name in measuring if getattr(args, name) is not None]
    if given:
        raise SpecError(
            f"{', '.join(given)}: {args.source} is a stored profile, there is no graph to measure"
        )
    return load_profile(args.source)


def _parts(text: str) -> tuple[int, ...]:
    if text == "none":
        return ()
    words = text.split(",")
    if not all(word.strip().isdecimal() and int(word) > 0 for word in words):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of parts such as 2,4,8, or none")
    return tuple(sorted({int(word) for word in words}))


def _methods(text: str) -> tuple[str, ...]:
    from gnnbench.errors import suggest

    words = tuple(word.strip() for word in text.split(","))
    for word in words:
        if word not in METHODS:
            raise argparse.ArgumentTypeError(f"{word!r}: {suggest(word, METHODS)}")
    return words


def _fanouts(text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(word) for word in text.split(","))
    except ValueError:
        found = ()
    if not found or any(fanout == 0 or fanout < -1 for fanout in found):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of fan-outs such as 10,10 (-1 takes all neighbours)"
        )
    return found


def _listed(values: Any) -> str:
    return ", ".join(map(str, values))


def _or_none(value: float | None, how: str) -> str | None:
    return None if value is None else format(value, how)


def _or_dash(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"
