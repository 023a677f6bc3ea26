"""`gnnbench conform`: test that an approach keeps what its card promises, trained and predicted."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

NAME = "conform"
HELP = "test that approaches, yours too, keep what their cards promise, on small examples"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add which approaches."""
    parser.add_argument(
        "approach", nargs="*", metavar="APPROACH", help="name of an approach; default: all"
    )


def run(args: argparse.Namespace) -> int:
    from gnnbench.approaches.names import APPROACHES
    from gnnbench.commands.output import emit_json, progress, table

    names = args.approach or APPROACHES.names()
    trials = _trials(names)
    rows = []
    with progress("conform", len(trials)) as advance:
        for trial in trials:
            rows.append(_tried(trial))
            advance(str(trial))
    broken = [row for row in rows if row["status"] != "ok"]
    if args.json:
        emit_json(rows)
    else:
        print(f"{len(rows)} statements, {len(broken)} broken")
        shown = broken or _summed(rows)
        table(shown, list(shown[0]))
    return int(bool(broken))


def _trials(names: Sequence[str]) -> list[Any]:
    import importlib.util

    from gnnbench.errors import MissingExtra
    from gnnbench_simulator.conformance import plan_trials

    if importlib.util.find_spec("torch") is None:
        raise MissingExtra("torch", "runtime", "conformance")
    from gnnbench_runtime.conformance import trials
    from gnnbench_runtime.conformance.statements import Ranks

    ranks = Ranks()
    return [trial for name in names for trial in (*plan_trials(name), *trials(name, ranks))]


def _tried(trial: Any) -> dict[str, Any]:
    trial_of = {
        "approach": trial.approach.name,
        "example": trial.number,
        "statement": trial.statement.__name__.replace("_", " "),
    }
    try:
        trial.check()
    except Exception as error:
        return {**trial_of, "status": "broken", "reason": f"{type(error).__name__}: {error}"}
    return {**trial_of, "status": "ok", "reason": ""}


def _summed(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Statements of each approach, counted over its examples."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["approach"], []).append(row)
    return [
        {
            "approach": name,
            "examples": len({row["example"] for row in own}),
            "statements": len(own),
            "status": "ok",
        }
        for name, own in found.items()
    ]
