"""`gnnbench check`: report every problem of a suite file, and the runs that it names."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

NAME = "check"
HELP = "report every problem of a suite file and list its runs; --datasets opens its datasets"


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
    from gnnbench.commands.output import emit_json, print_reasons, table, text
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
    opened = _open_datasets(args) if args.datasets else []
    failed = any(entry["status"] != "ok" for entry in opened)
    if args.json:
        emit_json(
            {
                "suite": suite.name,
                "runs": len(suite.runs),
                "configurations": rows,
                "datasets": opened,
            }
        )
        return int(failed)
    text(f"{args.suite}: {len(suite.runs)} runs of {len(rows)} configurations")
    table(rows, ["configuration", "repeats", "status"])
    print_reasons(
        "skipped", [(str(r["reason"]), str(r["configuration"])) for r in rows if r["reason"]]
    )
    if opened:
        print()
        table(opened, ["dataset", "status", "detail"])
    return int(failed)


def _open_datasets(args: argparse.Namespace) -> list[dict[str, object]]:
    from gnnbench.data.source import Library, data_roots
    from gnnbench.errors import GnnbenchError
    from gnnbench.spec import DEFAULT_TASKS, DatasetRef
    from gnnbench.suites import find_suite

    suite = find_suite(args.suite)
    datasets = Library(data_roots(args.data, suite.folder))
    uses: dict[str, tuple[DatasetRef, set[str]]] = {}
    for run in suite.runs:
        uses.setdefault(run.dataset.name, (run.dataset, set()))[1].add(run.task.kind)
    rows: list[dict[str, object]] = []
    for ref, tasks in uses.values():
        try:
            data = datasets.open(ref)
            if not ref.profile:
                data.check()
            detail = f"profile {ref.profile}" if ref.profile else _sizes(data)
            reasons = {data.cannot_train(task or DEFAULT_TASKS[data.kind]) for task in tasks}
            lines = sorted(reason for reason in reasons if reason)
            status = "untrainable" if lines else "ok"
        except GnnbenchError as error:
            status, lines, detail = "failed", str(error).splitlines(), ""
        for line in lines or [detail]:
            rows.append({"dataset": ref.name, "status": status, "detail": line})
    return rows


def _sizes(data: Any) -> str:
    counts = {key: n for key, n in data.facts().items() if key.startswith("num_") and n}
    return f"{data.kind}: " + ", ".join(
        f"{n} {key[4:].replace('_', ' ')}" for key, n in counts.items()
    )
