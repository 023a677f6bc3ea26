"""`gnnbench accelerate`: a graph and a GNN on a sparse and a dense accelerator in a pipeline."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnnbench.commands.options import option, output_file, positive_int

if TYPE_CHECKING:
    from gnnbench_simulator.acceleration import Acceleration

NAME = "accelerate"
HELP = "simulate a GNN on a sparse and a dense accelerator that exchange chunks of rows"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the graph, the two devices, the model and how the engines work together."""
    parser.add_argument(
        "source",
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
    device = "a built-in accelerator, such as hygcn, or an accelerator TOML file"
    parser.add_argument("--sparse", metavar="NAME|FILE", default="hygcn", help=device)
    parser.add_argument("--dense", metavar="NAME|FILE", default="hygcn", help=device)
    model = parser.add_argument_group("model")
    model.add_argument("--model-kind", metavar="KIND", default="gcn", help="gcn (default) or sage")
    model.add_argument(
        "--hidden", type=positive_int, default=64, metavar="N", help="hidden width (default 64)"
    )
    model.add_argument("--layers", type=positive_int, default=2, metavar="N", help="default 2")
    model.add_argument(
        "--features",
        type=positive_int,
        metavar="N",
        help="input width, if the graph has no features",
    )
    model.add_argument(
        "--classes",
        type=positive_int,
        metavar="N",
        help="output width, if the graph has no classes",
    )
    model.add_argument(
        "--product",
        choices=("min_width", "aggregate_first", "transform_first"),
        default="min_width",
        help="which product comes first in a layer",
    )
    model.add_argument(
        "--passes",
        choices=("forward", "training"),
        default="forward",
        help="forward pass only (default), or forward and backward",
    )
    model.add_argument(
        "--element-bytes", type=positive_int, default=4, metavar="N", help="of a number (default 4)"
    )
    work = parser.add_argument_group("pipeline")
    work.add_argument(
        "--chunks",
        type=_chunks,
        default=None,
        metavar="N|auto",
        help="chunks of rows; default auto: the fastest of those tried",
    )
    work.add_argument(
        "--order",
        choices=("row_wise", "outer_product"),
        default="row_wise",
        help="order of the sparse product, which decides which products can overlap",
    )
    work.add_argument(
        "--nodes",
        choices=("natural", "degree", "johnson"),
        default="natural",
        help="order in which rows are processed",
    )
    work.add_argument(
        "--slots", type=positive_int, metavar="N", help="chunk buffers between the engines"
    )
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
        help="elementwise steps without a memory pass of their own: scale, bias, activation",
    )
    work.add_argument(
        "--hit-rate",
        type=_share,
        metavar="H",
        help="share of repeated row accesses that hit on-chip memory",
    )
    file: dict[str, Any] = {"type": output_file, "metavar": "FILE"}
    parser.add_argument("--figure", **file, help="timeline as pdf, svg or png")
    parser.add_argument("--trace", **file, help="timeline as a Perfetto trace")


def run(args: argparse.Namespace) -> int:
    from gnnbench.accelerators import load_accelerator
    from gnnbench.commands.output import emit_json
    from gnnbench.data.source import open_graph_or_profile
    from gnnbench.spec import ModelSpec
    from gnnbench_simulator.acceleration import Setup
    from gnnbench_simulator.accelerators import accelerate

    if args.figure is not None:
        from gnnbench_reports.figures.pipeline import kind_of

        kind_of(args.figure)  # a wrong suffix is said before the work
    found = accelerate(
        open_graph_or_profile(args.source, args.format, dict(args.option or ())),
        ModelSpec(kind=args.model_kind, hidden=args.hidden, layers=args.layers),
        (load_accelerator(args.sparse), load_accelerator(args.dense)),
        Setup(
            product_order=args.order,
            node_order=args.nodes,
            chunks=args.chunks,
            slots=args.slots,
            memory=args.memory,
            fuse=tuple(word for word in args.fuse.split(",") if word),
            passes=args.passes,
            hit_rate=args.hit_rate,
            element_bytes=args.element_bytes,
        ),
        order=args.product,
        features=args.features,
        classes=args.classes,
    )
    written = _write(found, args)
    if args.json:
        emit_json(found.as_record())
        return 0
    show(found)
    for path in written:
        print(f"wrote {path}")
    return 0


def _write(found: Acceleration, args: argparse.Namespace) -> list[Path]:
    """Write the files that were asked for."""
    if args.figure is not None:
        from gnnbench_reports.figures import pipeline

        pipeline.write(found.rows(), args.figure)
    if args.trace is not None:
        from gnnbench.trace import write_trace

        write_trace(args.trace, {"predicted": {0: found.rows()}})
    return [path for path in (args.figure, args.trace) if path is not None]


def show(found: Acceleration) -> None:
    """Print makespan, utilisation and energy, then each group of overlapping stages."""
    from gnnbench.commands.output import table
    from gnnbench_reports import numbers

    best = "the best of those tried" if found.setup.chunks is None else "as asked"
    chunks = "1 chunk" if found.chunks == 1 else f"{found.chunks} chunks"
    print(f"graph      {found.graph}, widths {', '.join(map(str, found.dims))}")
    print(f"makespan   {numbers.seconds(found.makespan_s)} in {chunks} ({best})")
    print(
        f"serial     {numbers.seconds(found.serial_s)} with one engine after the other: "
        f"the pipeline is {numbers.factor(found.speed_up)} as fast"
    )
    for engine, device in (("sparse", found.sparse), ("dense", found.dense)):
        print(
            f"{engine:<10} {device.name}: busy {numbers.percent(found.utilisation(engine))} of the "
            f"makespan, {found.energy_j[engine]:.3g} J"
        )
    if found.setup.fuse:
        saved = numbers.size(found.bytes_saved)
        print(f"fused      {', '.join(found.setup.fuse)}: saves {saved} of off-chip traffic")
    shared = "shared by both engines" if found.shared_memory else "separate for each engine"
    print(f"memory     off-chip memory {shared}")
    print(f"grade      {found.grade}")
    if not found.exact:
        print("sizes      from the profile: every chunk has the mean degree")
    unknown = found.num_unverified()
    if unknown:
        print(f"caution    {unknown} constants of these devices are assumed or unverified")
    print("\nstages that run at the same time, and their busy times")
    rows = [
        {
            "stages": group.name,
            "chunks": len(group.seconds[0]),
            "sparse": numbers.seconds(group.busy_s("sparse")),
            "dense": numbers.seconds(group.busy_s("dense")),
            "makespan": numbers.seconds(group.makespan_s),
            "lower bound": numbers.seconds(group.bound_s),
        }
        for group in found.groups
    ]
    table(rows, list(rows[0]))


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
