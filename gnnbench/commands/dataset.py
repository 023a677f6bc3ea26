"""`gnnbench dataset`: read, check and profile a dataset, and save or convert it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnnbench.commands.options import option, output_file, output_folder, positive_int, seed, size
from gnnbench.spec import ORDERS

if TYPE_CHECKING:
    from gnnbench.data.profile import GraphProfile, Profile
    from gnnbench.data.source import AnyDataset
    from gnnbench.data.stream_profile import StreamProfile
    from gnnbench.data.triples_profile import TriplesProfile
    from gnnbench.reuse import Reuse

NAME = "dataset"
HELP = "read and check a graph, an edge stream or triples; profile, save or convert it"
KINDS = ("auto", "graph", "stream", "triples")
METHODS = ("metis-vol", "metis-cut", "fennel", "hash", "chunk")
OF_GRAPHS = ("parts", "methods", "fanouts", "batch", "hits")
REORDERING = ("order", "orders", "partitioners")
DEFAULT_PARTS, DEFAULT_FANOUTS = (2, 4, 8), (10, 10)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what to profile, how far, and what to write."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a file or folder, a generator, or the name of a stored profile",
    )
    parser.add_argument(
        "--kind",
        choices=KINDS,
        default="auto",
        help="kind of dataset, if the file can be read as several",
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
        "--parts",
        type=_parts,
        metavar="N,N",
        help="numbers of partitions of a graph (default 2,4,8), or none",
    )
    parser.add_argument(
        "--methods",
        type=_methods,
        metavar="M,M",
        help=f"partitioners: {', '.join(METHODS)} (default metis-vol)",
    )
    parser.add_argument(
        "--fanouts",
        action="append",
        type=_fanouts,
        metavar="K,K",
        help="neighbours sampled per hop, seeds first (default 10,10); repeatable",
    )
    parser.add_argument(
        "--batch", type=positive_int, metavar="N", help="seeds of a sampled batch (default 1024)"
    )
    parser.add_argument(
        "--hits",
        action="store_const",
        const=True,
        help="measure hit rates of feature caches on sampled batches too",
    )
    parser.add_argument(
        "--seed", type=seed, default=0, metavar="N", help="seed of partitions and batches"
    )
    parser.add_argument(
        "--order",
        choices=ORDERS,
        help="put the vertices of a graph into this order first",
    )
    parser.add_argument(
        "--orders",
        action="store_true",
        default=None,
        help="show how near the rows of neighbours lie in every order (runs METIS)",
    )
    parser.add_argument(
        "--partitioners",
        action="store_true",
        default=None,
        help="show cut and memory of METIS beside the streaming partitioner Fennel",
    )
    parser.add_argument(
        "--memory",
        type=size,
        metavar="SIZE",
        help="convert an edge list within so much memory, such as 500MB (with --convert)",
    )
    parser.add_argument(
        "--save",
        type=output_file,
        metavar="PROFILE.toml",
        help="write the profile, for predictions",
    )
    parser.add_argument(
        "--convert",
        type=output_folder,
        metavar="DIR",
        help="write the dataset in native form, to be mapped",
    )


def run(args: argparse.Namespace) -> int:
    if args.memory:
        from gnnbench.commands import within

        return within.run(args)
    from gnnbench.commands.output import emit_json
    from gnnbench.data.formats import native
    from gnnbench.data.profile import save_profile
    from gnnbench.data.source import open_source

    found, notes = _stored(args), {}
    if found is None:
        options = dict(args.option or ())
        data = _reordered(open_source(args.source, args.format, options, kind=args.kind), args)
        found, notes = measure(data, args), data.notes
        if args.convert:
            native.save(data, args.convert)
    if args.save:
        args.save.parent.mkdir(parents=True, exist_ok=True)
        save_profile(found, args.save)
    if args.json:
        written = {"saved": args.save, "converted": args.convert}
        emit_json({**card(found), "notes": notes, **written})
        return 0
    show(found, notes)
    if args.orders:
        _show_orders(data)
    if args.partitioners:
        from gnnbench.commands import within

        within.show(within.partitioners(data, args))
    for what, path in (("profile", args.save), ("dataset", args.convert)):
        if path:
            print(f"wrote the {what} to {path}")
    return 0


def _reordered(data: AnyDataset, args: argparse.Namespace) -> AnyDataset:
    """The graph in the order asked for. Raises SpecError for a dataset of another kind."""
    from gnnbench.data.graph import Graph
    from gnnbench.data.orders import reordered
    from gnnbench.errors import SpecError

    given = [f"--{name}" for name in REORDERING if getattr(args, name) is not None]
    if not given:
        return data
    if not isinstance(data, Graph):
        raise SpecError(
            f"{', '.join(given)}: allowed for graphs only; {data.name} is of kind {data.kind!r}"
        )
    return reordered(data, args.order or "given", args.seed)


def _show_orders(graph: Any) -> None:
    from gnnbench.commands.output import table
    from gnnbench.data.orders import reuse_by_order

    print("\nrows between two reads of a vertex's row in one product, by the order of vertices")
    found = reuse_by_order(graph)
    lines = [{"order": order, **_quantiles(reuse)} for order, reuse in found.items()]
    table(lines, list(lines[0]))


def _quantiles(reuse: Reuse) -> dict[str, str]:
    """Upper ends of the bins of distances below which so many reads lie."""
    import numpy as np

    from gnnbench.reuse import DISTANCES

    running, found = np.cumsum(reuse.shares), {}
    for percent in (25, 50, 75, 90):
        place = np.searchsorted(running, percent / 100 - 1e-9)
        found[f"{percent} % below"] = f"{2**0.5 * DISTANCES[place]:,.0f}"
    return found


def measure(data: AnyDataset, args: argparse.Namespace) -> Profile:
    """Profile a dataset as asked for; METIS takes minutes beyond some ten million edges."""
    from gnnbench.commands.output import progress
    from gnnbench.data.profile import measured

    asked = {name: value for name in OF_GRAPHS if (value := getattr(args, name)) is not None}
    if data.kind == "graph":
        asked = {"parts": DEFAULT_PARTS, "fanouts": (DEFAULT_FANOUTS,), "seed": args.seed} | asked
    with progress(f"profile {data.name}", 1) as advance:
        found = measured(data, **asked)
        advance("")
    return found


def card(found: Profile) -> dict[str, Any]:
    """Return the JSON document: the profile, with the degrees in figures that people ask for."""
    import dataclasses

    from gnnbench.data.histogram import median
    from gnnbench.data.profile import GraphProfile

    document = {"kind": found.kind, **dataclasses.asdict(found)}
    if isinstance(found, GraphProfile):
        document["degree_mean"] = found.degree_mean
        document["degree_median"] = median(found.degree_values, found.degree_counts)
    return document


def show(found: Profile, notes: dict[str, object]) -> None:
    """Print a profile, and what the reader noted about its file."""
    from gnnbench.commands.output import text
    from gnnbench.data.profile import GraphProfile
    from gnnbench.data.stream_profile import StreamProfile

    if isinstance(found, GraphProfile):
        facts = _graph_facts(found)
    elif isinstance(found, StreamProfile):
        facts = _stream_facts(found)
    else:
        facts = _triples_facts(found)
    noted = {key.replace("_", " "): note for key, note in notes.items() if _worth_saying(note)}
    width = max(map(len, [*facts, *noted]))
    for name, fact in {**facts, **noted}.items():
        text(f"{name:<{width}}  {fact}", hanging=" " * (width + 2))
    if isinstance(found, GraphProfile):
        _show_curves(found)


def _worth_saying(note: object) -> bool:
    return isinstance(note, str) or (isinstance(note, int) and note != 0)


def _head(found: Profile) -> dict[str, str]:
    from gnnbench_reports import numbers

    source = found.source if found.status == "measured" else f"published: {found.source}"
    split = (found.num_train, found.num_val, found.num_test)
    return {
        found.kind: found.name,
        "source": source,
        "train, val, test": ", ".join(numbers.whole(n) if n else "–" for n in split),
    }


def _graph_facts(found: GraphProfile) -> dict[str, str]:
    from gnnbench.data.histogram import median
    from gnnbench_reports import numbers

    kind = "undirected, both directions stored" if found.undirected else "directed"
    middle = median(found.degree_values, found.degree_counts)
    return {
        **_head(found),
        "nodes": numbers.whole(found.num_nodes),
        "edges": f"{numbers.whole(found.num_edges)} ({kind})",
        "features": numbers.whole(found.num_features),
        "classes": numbers.whole(found.num_classes),
        "in-degree": f"mean {found.degree_mean:.3g}, median {_or_dash(middle)}, "
        f"99 % at most {_or_dash(found.degree_p99)}, highest {_or_dash(found.degree_max)}",
        "edge homophily": numbers.percent(found.edge_homophily),
        **_nearness(found),
    }


def _nearness(found: GraphProfile) -> dict[str, str]:
    """Rows between two reads of one row, in the order that was measured."""
    if not found.reuse:
        return {"reuse distance": "not known; predictions assume a random order of the vertices"}
    parts = _quantiles(found.reuse_of_rows()).items()
    return {"reuse distance": ", ".join(f"{share} {rows}" for share, rows in parts) + " rows"}


def _stream_facts(found: StreamProfile) -> dict[str, str]:
    from gnnbench.data.histogram import median
    from gnnbench_reports import numbers

    sides = f"bipartite, {numbers.whole(found.num_sources)} of them sources"
    activity = median(found.activity_values, found.activity_counts)
    mean = 2 * found.num_edges / max(found.num_nodes, 1)
    return {
        **_head(found),
        "nodes": numbers.whole(found.num_nodes) + (f" ({sides})" if found.num_sources else ""),
        "events": numbers.whole(found.num_edges),
        "times": f"{found.first_time} to {found.last_time}, "
        f"{numbers.whole(found.num_times)} distinct, "
        f"at most {numbers.whole(found.largest_tie)} events at one",
        "pairs": f"{numbers.whole(found.num_pairs)} distinct (source, destination)",
        "self loops": numbers.whole(found.self_loops),
        "features": f"{found.num_edge_features} of edges, {found.num_features} of nodes",
        "classes": numbers.whole(found.num_classes),
        "events per node": f"mean {mean:.3g}, median {_or_dash(activity)}",
        "time to next event": f"median {_or_dash(found.gap_median)}",
        "new in test": f"{numbers.percent(found.new_pair_share)} of pairs; "
        f"{numbers.percent(found.new_node_share)} of events have a new node",
    }


def _triples_facts(found: TriplesProfile) -> dict[str, str]:
    from gnnbench.data.histogram import median
    from gnnbench_reports import numbers

    degree = median(found.degree_values, found.degree_counts)
    relation = median(found.relation_values, found.relation_counts)
    busiest = max(found.relation_values, default=None)
    return {
        **_head(found),
        "entities": numbers.whole(found.num_entities),
        "relations": numbers.whole(found.num_relations),
        "facts": numbers.whole(found.num_triples),
        "facts per entity": f"median {_or_dash(degree)} in training",
        "facts per relation": f"median {_or_dash(relation)}, most {_or_dash(busiest)} in training",
        "tails per head": _or_dash(found.tails_per_head, ".2f"),
        "heads per tail": _or_dash(found.heads_per_tail, ".2f"),
        "unseen in training": f"{_or_dash(found.num_unseen)} facts of val and test",
    }


def _show_curves(found: GraphProfile) -> None:
    from gnnbench.commands.output import heading, table
    from gnnbench_reports import numbers

    if found.halo:
        heading(
            "halo of partitions: halo nodes per node (S/N), largest halo over the mean, cut edges"
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
        heading("sampled batch: mean vertices and edges per layer, input layer first")
        table(
            [
                {
                    "fan-outs from seeds": _listed(point.fanouts_from_seeds),
                    "batch": point.batch,
                    "vertices": _listed(map(round, point.vertices)),
                    "edges": _listed(map(round, point.edges)),
                }
                for point in found.frontier
                # Those of other sizes are for interpolation; --save and --json have them.
                if point.batch == found.frontier[0].batch
            ],
            ["fan-outs from seeds", "batch", "vertices", "edges"],
        )
    if found.hits:
        print("\nhit rate of feature caches by policy and share of the rows that they hold")
        heads = [numbers.percent(share, 0.01).replace(" ", "") for share in found.hits[0].shares]
        table(
            [
                {
                    "fan-outs from seeds": _listed(curve.fanouts_from_seeds),
                    "policy": curve.policy,
                    **{head: f"{rate:.2f}" for head, rate in zip(heads, curve.hits, strict=False)},
                }
                for curve in found.hits
            ],
            ["fan-outs from seeds", "policy", *heads],
        )


def _stored(args: argparse.Namespace) -> Profile | None:
    from gnnbench.data.profile import list_profiles, load_profile
    from gnnbench.errors import SpecError

    if args.source not in list_profiles() and not args.source.endswith(".toml"):
        return None
    measuring = ("format", "option", *OF_GRAPHS, *REORDERING, "convert")
    given = [f"--{name}" for name in measuring if getattr(args, name) is not None]
    if given:
        here = f"; what lies there is ./{args.source}" if Path(args.source).exists() else ""
        raise SpecError(
            f"{', '.join(given)}: {args.source} is a stored profile without data to measure{here}"
        )
    if Path(args.source).is_dir():
        print(
            f"gnnbench: {args.source} is the stored profile; the folder here is ./{args.source}",
            file=sys.stderr,
        )
    profile: Profile = load_profile(args.source)
    return profile


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


def _or_dash(value: float | None, how: str = ".0f") -> str:
    return "–" if value is None else format(value, how)
