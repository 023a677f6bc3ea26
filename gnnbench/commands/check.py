"""`gnnbench check`: read a suite, say everything that is wrong with it, and what it would run."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

NAME = "check"
HELP = "check a suite and show its runs; with --datasets, open its datasets too"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the suite and how deep to look."""
    from gnnbench.commands.options import add_suite

    add_suite(parser)
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="folder in which paths of datasets are looked up"
    )
    parser.add_argument(
        "--datasets", action="store_true", help="open every dataset and check its arrays"
    )


def run(args: argparse.Namespace) -> int:
    from gnnbench.approaches.names import APPROACHES
    from gnnbench.commands.output import emit_json, table
    from gnnbench.suites import find_suite

    suite = find_suite(args.suite)
    rows: list[dict[str, object]] = []
    repeats = Counter(run.config_id for run in suite.runs)
    for spec in suite.configurations():
        reason = APPROACHES.get(spec.approach).cannot_run(spec)
        rows.append(
            {
                "configuration": spec.config_id,
                "repeats": repeats[spec.config_id],
                "status": "skipped" if reason else "ok",
                "reason": reason or "",
            }
        )
    graphs = _open_datasets(args) if args.datasets else []
    failed = any(entry["status"] == "failed" for entry in graphs)
    if args.json:
        emit_json(
            {
                "suite": suite.name,
                "runs": len(suite.runs),
                "configurations": rows,
                "datasets": graphs,
            }
        )
        return int(failed)
    table(rows, ["configuration", "repeats", "status", "reason"])
    if graphs:
        table(graphs, ["dataset", "status", "detail"])
    print(f"{args.suite}: {len(suite.runs)} runs of {len(rows)} configurations")
    return int(failed)


def _open_datasets(args: argparse.Namespace) -> list[dict[str, object]]:
    from gnnbench.data.source import Library, data_roots
    from gnnbench.errors import GnnbenchError
    from gnnbench.suites import find_suite

    suite = find_suite(args.suite)
    datasets = Library(data_roots(args.data, suite.folder))
    rows: list[dict[str, object]] = []
    for ref in {run.dataset.name: run.dataset for run in suite.runs}.values():
        try:
            if ref.profile:
                datasets.open(ref)
                detail = f"profile {ref.profile}"
            else:
                data = datasets.graph(ref)
                data.check()
                detail = f"{data.num_nodes} nodes, {data.num_edges} stored edges"
                detail += f", {data.num_features} features"
            rows.append({"dataset": ref.name, "status": "ok", "detail": detail})
        except GnnbenchError as error:
            rows.append({"dataset": ref.name, "status": "failed", "detail": str(error)})
    return rows
