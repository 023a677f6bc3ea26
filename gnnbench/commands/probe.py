"""`gnnbench probe`: a script that measures what matters for a question on a rented machine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gnnbench_simulator.probing import Target

NAME = "probe"
HELP = "write a one-file script that measures, in a minute, what moves a suite's predictions most"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the question: a suite, the cluster it is asked about, and the script to write."""
    from gnnbench.commands.options import add_cluster, add_out, add_ranks, add_suite, positive_int

    add_suite(parser)
    add_cluster(parser)
    add_ranks(parser)
    parser.add_argument(
        "--ranks-per-host", type=positive_int, metavar="N", help="(default: devices of a host)"
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="where the suite's graph files are looked up"
    )
    add_out(parser, "Python file to write; it needs torch on the machine, and no gnnbench")


def run(args: argparse.Namespace) -> int:
    import json

    from gnnbench.atomic import write_text
    from gnnbench.cluster import choose_cluster, probe_script
    from gnnbench.commands.output import emit_json
    from gnnbench.data.source import data_roots
    from gnnbench.suites import find_suite
    from gnnbench_simulator.probing import chosen, question, targets

    suite, cluster = find_suite(args.suite), choose_cluster(args.cluster)
    runs = suite.at_ranks(args.ranks)
    roots = data_roots(args.data, suite.folder)
    found = targets(runs, cluster, roots, ranks_per_host=args.ranks_per_host)
    picked = chosen(found)
    element_bytes = float(runs[0].training.element_bytes)
    asked = question(picked, element_bytes)
    script = probe_script(cluster, json.dumps(asked, indent=1), [t.op for t in picked])
    write_text(args.out, script)
    rows = [_row(target, target in picked) for target in found]
    if args.json:
        emit_json({"script": str(args.out), "operations": rows})
        return 0
    from gnnbench.commands.output import table

    print(f"{args.out}: measures {len(picked)} operations on {cluster.name} within a minute")
    table([{k: v for k, v in row.items() if k != "shapes"} for row in rows[:12]], list(rows[0]))
    print(f"run there: python {args.out.name}, then: gnnbench predict SUITE --cluster probed.toml")
    return 0


def _row(target: Target, measured: bool) -> dict[str, Any]:
    from gnnbench_reports import numbers

    return {
        "operation": target.op,
        "takes": numbers.seconds(target.seconds),
        "its range moves": numbers.seconds(target.swing_s),
        "known by": target.grade,
        "probed": "yes" if measured else "" if target.can_be_probed else "no: needs the trainers",
    }
