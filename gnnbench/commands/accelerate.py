"""`gnnbench accelerate`: a graph and a GNN on a sparse and a dense accelerator in a pipeline."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnnbench.commands.options import positive_int

if TYPE_CHECKING:
    from gnnbench.approaches.base import GraphLike
    from gnnbench.approaches.writing.stack import StackShape
    from gnnbench_simulator.accelerators import Acceleration

NAME = "accelerate"
HELP = "simulate a GNN on a sparse and a dense accelerator that hand chunks of rows to each other"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the graph, the two devices, the model and how the engines work together."""
    parser.add_argument(
        "source",
        metavar="GRAPH|PROFILE",
        help="a graph file or folder, a generator, or the name of a stored profile",
    )
    parser.add_argument("--format", metavar="F", help="format of the file (default: recognised)")
    parser.add_argument(
        "--option", action="append", metavar="K=V", help="option of the reader or generator"
    )
    device = "a built-in accelerator, such as hygcn, or an accelerator TOML file"
    parser.add_argument("--sparse", metavar="NAME|FILE", default="hygcn", help=device)
    parser.add_argument("--dense", metavar="NAME|FILE", default="hygcn", help=device)
    model = parser.add_argument_group("model")
    model.add_argument("--model-kind", metavar="KIND", default="gcn", help="gcn (default), sage")
    model.add_argument("--hidden", type=positive_int, default=64, metavar="N")
    model.add_argument("--layers", type=positive_int, default=2, metavar="N")
    model.add_argument(
        "--features", type=positive_int, metavar="N", help="input width, if the graph has none"
    )
    model.add_argument(
        "--classes", type=positive_int, metavar="N", help="output width, if the graph has none"
    )
    model.add_argument(
        "--product",
        choices=("min_width", "aggregate_first", "transform_first"),
        default="min_width",
        help="which product comes first in a layer",
    )
    model.add_argument("--passes", choices=("forward", "training"), default="forward")
    model.add_argument("--element-bytes", type=positive_int, default=4, metavar="N")
    work = parser.add_argument_group("pipeline")
    work.add_argument(
        "--chunks", type=_chunks, default=None, metavar="N|auto", help="default auto: the best"
    )
    work.add_argument(
        "--order",
        choices=("row_wise", "outer_product"),
        default="row_wise",
        help="how the sparse product is formed, which decides what can overlap",
    )
    work.add_argument(
        "--nodes",
        choices=("natural", "degree", "johnson"),
        default="natural",
        help="order in which rows are processed",
    )
    work.add_argument("--slots", type=positive_int, metavar="N", help="buffers between the engines")
    work.add_argument(
        "--memory",
        choices=("auto", "shared", "apart"),
        default="auto",
        help="whether the engines share off-chip memory (auto: on one device they do)",
    )
    work.add_argument(
        "--fuse",
        default="",
        metavar="S,S",
        help="elementwise steps done on the way: scale, bias, activation",
    )
    work.add_argument(
        "--hit-rate", type=_share, metavar="H", help="share of repeated row touches found on chip"
    )
    parser.add_argument("--figure", type=Path, metavar="FILE", help="timeline as pdf, svg or png")
    parser.add_argument("--trace", type=Path, metavar="FILE", help="timeline as a Perfetto trace")


def run(args: argparse.Namespace) -> int:
    from gnnbench.accelerators import load_accelerator
    from gnnbench.commands.output import emit_json
    from gnnbench_simulator.accelerators import Accelerate, Setup

    if args.figure is not None:
        figure_kind(args.figure)
    sparse, dense = load_accelerator(args.sparse), load_accelerator(args.dense)
    graph = open_graph(args.source, args.format, args.option or [])
    shape = stack_shape(graph, args)
    setup = Setup(
        product_order=args.order, node_order=args.nodes, chunks=args.chunks, slots=args.slots,
        memory=args.memory, fuse=tuple(word for word in args.fuse.split(",") if word),
        passes=args.passes, hit_rate=args.hit_rate, element_bytes=args.element_bytes,
    )  # fmt: skip
    found = Accelerate(graph, shape, sparse, dense, setup).best()
    if args.trace is not None:
        from gnnbench.trace import write_trace

        write_trace(args.trace, {"predicted": {0: found.rows()}})
    if args.figure is not None:
        write_figure(found, args.figure)
    if args.json:
        emit_json({"graph": graph.name, "dims": shape.dims, **summary(found)})
        return 0
    show(found, graph, shape)
    for path in (args.figure, args.trace):
        if path is not None:
            print(f"wrote {path}")
    return 0


def open_graph(source: str, format: str | None, options: list[str]) -> GraphLike:
    """The stored profile of this name or file, else the graph."""
    from gnnbench.data.profile import list_profiles, load_profile
    from gnnbench.data.source import open_graph as read_graph
    from gnnbench.errors import SpecError

    wrong = [word for word in options if "=" not in word]
    if wrong:
        raise SpecError(f"--option {wrong[0]}: expected the form key=value")
    if source in list_profiles() or source.endswith(".toml"):
        stored: GraphLike = load_profile(source)
        return stored
    return read_graph(source, format, dict(word.split("=", 1) for word in options))


def stack_shape(graph: GraphLike, args: argparse.Namespace) -> StackShape:
    """The model of the arguments at the graph's widths."""
    from gnnbench.approaches.writing.stack import StackShape
    from gnnbench.models.names import MODELS
    from gnnbench.spec import ModelSpec

    model = MODELS.get(args.model_kind)
    spec = ModelSpec(kind=args.model_kind, hidden=args.hidden, layers=args.layers)
    features = args.features or graph.num_features
    dims = model.dims(spec, features, args.classes or graph.num_classes)
    return StackShape.of(model, spec, dims, args.element_bytes, args.product)


def summary(found: Acceleration) -> dict[str, Any]:
    """The JSON document of an acceleration; times in seconds, energy in joules."""
    return {
        "sparse": found.sparse.name,
        "dense": found.dense.name,
        "product_order": found.setup.product_order,
        "node_order": found.setup.node_order,
        "passes": found.setup.passes,
        "chunks": found.chunks,
        "closed_form_chunks": found.closed_form_chunks,
        "makespan_s": found.makespan_s,
        "serial_s": found.serial_s,
        "speed_up_over_serial": found.speed_up,
        "busy_s": {engine: found.busy_s(engine) for engine in ("sparse", "dense")},
        "utilisation": {engine: found.utilisation(engine) for engine in ("sparse", "dense")},
        "energy_j": found.energy_j,
        "fused_steps": found.setup.fuse,
        "offchip_bytes_saved_by_fusing": found.bytes_saved,
        "shared_memory": found.shared_memory,
        "hit_rates_by_width": found.hit_rates,
        "exact_sizes": found.exact,
        "grade": found.grade,
        "makespan_by_chunks_s": found.tried,
        "groups": [
            {
                "name": group.name,
                "chunks": len(group.seconds[0]),
                "makespan_s": group.makespan_s,
                "bound_s": group.bound_s,
                "sparse_s": group.busy_s("sparse"),
                "dense_s": group.busy_s("dense"),
                "link_bytes": group.link_bytes,
            }
            for group in found.groups
        ],
    }


def show(found: Acceleration, graph: GraphLike, shape: StackShape) -> None:
    """Print what runs together, then the whole."""
    from gnnbench.commands.output import table
    from gnnbench_reports import numbers

    table(
        [
            {
                "runs together": group.name,
                "chunks": len(group.seconds[0]),
                "sparse": numbers.seconds(group.busy_s("sparse")),
                "dense": numbers.seconds(group.busy_s("dense")),
                "time": numbers.seconds(group.makespan_s),
                "no order beats": numbers.seconds(group.bound_s),
            }
            for group in found.groups
        ],
        ["runs together", "chunks", "sparse", "dense", "time", "no order beats"],
    )
    best = "best of those tried" if found.setup.chunks is None else "as asked"
    print(f"\ngraph      {graph.name}, widths {', '.join(map(str, shape.dims))}")
    print(f"time       {numbers.seconds(found.makespan_s)} in {found.chunks} chunks ({best})")
    print(
        f"serial     {numbers.seconds(found.serial_s)} one engine after the other: "
        f"{numbers.factor(found.speed_up)}"
    )
    for engine, device in (("sparse", found.sparse), ("dense", found.dense)):
        print(
            f"{engine:<10} {device.name}: busy {numbers.percent(found.utilisation(engine))}, "
            f"{found.energy_j[engine]:.3g} J"
        )
    if found.setup.fuse:
        saved = numbers.size(found.bytes_saved)
        print(f"fused      {', '.join(found.setup.fuse)}: {saved} of off-chip traffic saved")
    where = "shared" if found.shared_memory else "apart"
    print(f"grade      {found.grade}; off-chip memory {where}")
    if not found.exact:
        print("sizes      from the profile's degrees; natural order is taken as evenly mixed")
    unknown = _unverified(found)
    if unknown:
        print(f"mind       {unknown} constants of these devices are assumed or unverified")


def _unverified(found: Acceleration) -> int:
    used = {
        (device.name, name): constant.status
        for device in (found.sparse, found.dense)
        for name, constant in device.constants().items()
    }
    return sum(status in ("assumed", "unverified") for status in used.values())


def figure_kind(path: Path) -> str:
    """The file format of a figure by its suffix."""
    from gnnbench.errors import SpecError

    kind = path.suffix.removeprefix(".")
    if kind not in ("pdf", "svg", "png"):
        raise SpecError(f"--figure {path}: found suffix {kind!r}, allowed: pdf, svg, png")
    return kind


def write_figure(found: Acceleration, path: Path) -> None:
    """Draw the timeline."""
    from gnnbench_reports.figures import drawing, pipeline

    with drawing.paper_style():
        content = drawing.save(pipeline.draw(pipeline.data(found.rows())), figure_kind(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _chunks(text: str) -> int | None:
    return None if text == "auto" else positive_int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value
