"""`gnnbench check`: read a suite, say everything that is wrong with it, and what it would run."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

NAME = "check"
HELP = "check a suite and show its runs; with --graphs, open its graphs too"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the suite and how deep to look."""
    from gnnbench.commands.options import add_suite

    add_suite(parser)
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="folder in which graph paths are looked up"
    )
    parser.add_argument(
        "--graphs", action="store_true", help="open every graph and check its arrays"
    )


def run(args: argparse.Namespace) -> int:
    from gnnbench import registry
    from gnnbench.commands.output import emit_json, table
    from gnnbench.commands.volumes import volume_lines
    from gnnbench.data.source import data_roots
    from gnnbench.suites import find_suite

    suite = find_suite(args.suite)
    rows: list[dict[str, object]] = []
    repeats = Counter(run.config_id for run in suite.runs)
    for spec in suite.configurations():
        reason = registry.approach(spec.approach).cannot_run(spec)
        rows.append(
            {
                "configuration": spec.config_id,
                "repeats": repeats[spec.config_id],
                "status": "skipped" if reason else "ok",
                "reason": reason or "",
            }
        )
    graphs = _open_graphs(args) if args.graphs else []
    told = list(volume_lines(suite.runs, data_roots(args.data, suite.folder))) if graphs else []
    failed = any(entry["status"] == "failed" for entry in graphs)
    if args.json:
        emit_json(
            {
                "suite": suite.name,
                "runs": len(suite.runs),
                "configurations": rows,
                "graphs": graphs,
                "volumes": told,
            }
        )
        return int(failed)
    table(rows, ["configuration", "repeats", "status", "reason"])
    if graphs:
        table(graphs, ["graph", "status", "detail"])
    for line in told:
        print(line)
    print(f"{args.suite}: {len(suite.runs)} runs of {len(rows)} configurations")
    return int(failed)


def _open_graphs(args: argparse.Namespace) -> list[dict[str, object]]:
    from gnnbench.data.source import data_roots, open_graph
    from gnnbench.errors import GnnbenchError
    from gnnbench.suites import find_suite

    suite = find_suite(args.suite)
    roots = data_roots(args.data, suite.folder)
    rows: list[dict[str, object]] = []
    for ref in {run.graph.name: run.graph for run in suite.runs}.values():
        try:
            if ref.profile:
                rows.append({"graph": ref.name, "status": "ok", "detail": f"profile {ref.profile}"})
                continue
            graph = open_graph(ref, roots)
            graph.check()
            size = f"{graph.num_nodes} nodes, {graph.num_edges} stored edges"
            size += f", {graph.num_features} features"
            rows.append({"graph": ref.name, "status": "ok", "detail": size})
        except GnnbenchError as error:
            rows.append({"graph": ref.name, "status": "failed", "detail": str(error)})
    return rows
