"""`gnnbench dataset --memory` converts an edge list larger than memory; and partitioners."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gnnbench.commands.output import Progress
    from gnnbench.data.graph import Graph
    from gnnbench.data.partitioners import PartitionerCost

_WHOLE = ("save", "fanouts", "batch", "hits", "order", "orders", "methods")
_PASSES = ("read", "deal", "sort")


def run(args: argparse.Namespace) -> int:
    """Convert within the cap; print sizes, the memory used and, with --partitioners, the cuts."""
    from gnnbench.commands.output import emit_json, progress, text
    from gnnbench.data import external, formats
    from gnnbench.data.formats import native
    from gnnbench.errors import SpecError
    from gnnbench.resident import ResidentSet
    from gnnbench_reports import numbers

    given = [f"--{name}" for name in _WHOLE if getattr(args, name) is not None]
    if given or not args.convert:
        lacking = (
            f"{', '.join(given)} needs the graph in memory" if given else "--convert is missing"
        )
        raise SpecError(
            f"--memory: {lacking}; convert with --memory SIZE --convert DIR, then name DIR"
        )
    edges = formats.stream(args.format or "auto", args.source, **dict(args.option or ()))
    _warm_up()
    gauge, peaks = ResidentSet(), dict[str, int]()
    before = gauge.now_bytes()
    with progress(f"convert {edges.name}", len(_PASSES)) as advance, gauge.peak(peaks, "peak"):
        external.convert(edges, args.convert, args.memory, _told(advance))
    graph: Graph = native.load(args.convert)
    costs = _costs(graph, args) if args.partitioners else []
    used = max(peaks["peak"] - before, 0)
    if args.json:
        document = {"kind": graph.kind, "name": graph.name, **_sizes(graph), "notes": graph.notes}
        document |= {"memory_bytes": used, "converted": args.convert, "partitioners": costs}
        emit_json(document)
        return 0
    kind = "undirected, both directions stored" if graph.undirected else "directed"
    facts = {
        "graph": graph.name,
        "nodes": numbers.whole(graph.num_nodes),
        "edges": f"{numbers.whole(graph.num_edges)} ({kind})",
        **{key.replace("_", " "): str(note) for key, note in graph.notes.items() if note},
        "memory": f"{used / 1e6:.0f} MB used, allowed {args.memory / 1e6:.0f} MB",
    }
    width = max(map(len, facts))
    for name, fact in facts.items():
        text(f"{name:<{width}}  {fact}", hanging=" " * (width + 2))
    show(costs)
    print(f"wrote the dataset to {args.convert}")
    return 0


def _warm_up() -> None:
    """Load and compile what a conversion needs, so that its memory is that of its data."""
    import tempfile
    from pathlib import Path

    import numpy as np
    import pandas

    from gnnbench.data import external
    from gnnbench.data.edge_list import EdgeList

    assert pandas.__version__
    with tempfile.TemporaryDirectory() as folder:
        tiny = EdgeList(name="tiny", blocks=[(np.arange(2), np.arange(1, 3))])
        external.convert(tiny, Path(folder) / "tiny", 1 << 30)


def partitioners(graph: Any, args: argparse.Namespace) -> list[PartitionerCost]:
    """Cuts and memory of the partitioners on a graph."""
    return _costs(graph, args)


def show(costs: list[PartitionerCost]) -> None:
    """Print a table of partitioners; nothing if none was run."""
    from gnnbench.commands.output import table

    if not costs:
        return
    print(
        "\npartitioners: cut edges, vertices of the largest part over the mean, memory beyond the"
    )
    print("graph's own")
    lines = [
        {
            "method": cost.method,
            "parts": cost.parts,
            "cut": cost.reason or f"{100 * (cost.cut_fraction or 0.0):.1f}%",
            "max/mean": None if cost.node_balance is None else f"{cost.node_balance:.2f}",
            "MB": f"{cost.memory_bytes / 1e6:.0f}",
        }
        for cost in costs
    ]
    table(lines, ["method", "parts", "cut", "max/mean", "MB"])


def _costs(graph: Any, args: argparse.Namespace) -> list[PartitionerCost]:
    from gnnbench.data.partitioners import compared

    parts = (8,) if args.parts is None else args.parts
    return compared(graph, parts, seed=args.seed, memory_bytes=args.memory or 0)


def _sizes(graph: Graph) -> dict[str, Any]:
    return {
        "num_nodes": graph.num_nodes,
        "num_edges": graph.num_edges,
        "undirected": graph.undirected,
    }


def _told(advance: Progress) -> Any:
    """What turns progress in edges into that of a bar over the passes."""
    present = [_PASSES[0]]

    def told(stage: str, done: int, total: int) -> None:
        if stage != present[0]:
            present[0] = stage
            advance(stage)
        of = f" of {total:,}" if total else ""
        advance.under_way(f"{stage} {done:,}{of} edges")

    return told
