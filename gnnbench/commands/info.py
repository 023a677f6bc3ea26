"""`gnnbench info`: everything the program knows of one name."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

NAME = "info"
HELP = "describe an approach, model, cluster, suite or graph profile"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the name."""
    parser.add_argument("name", metavar="NAME", help="any name that `gnnbench list` shows")


def run(args: argparse.Namespace) -> int:
    from gnnbench.commands.output import emit_json

    card = describe(args.name)
    if args.json:
        emit_json(card)
    else:
        _print(card)
    return 0


def describe(name: str) -> dict[str, Any]:
    """Return the card of a name; UnknownName lists what there is."""
    from gnnbench import registry
    from gnnbench.cluster import list_clusters, load_cluster
    from gnnbench.errors import UnknownName
    from gnnbench.graph import profile
    from gnnbench.suites import find_suite, suite_files

    if name in registry.approach_names():
        return {"kind": "approach", **_approach(registry.approach(name))}
    if name in registry.model_names():
        return {"kind": "model", **dataclasses.asdict(registry.model(name))}
    if name in list_clusters():
        return {"kind": "cluster", **load_cluster(name).to_table()}
    if name in profile.list_profiles():
        return {"kind": "graph profile", **dataclasses.asdict(profile.load_profile(name))}
    if name in suite_files():
        suite = find_suite(name)
        runs = [run.run_id for run in suite.runs]
        return {"kind": "suite", "name": name, "description": suite.description, "runs": runs}
    known = [*registry.approach_names(), *registry.model_names(), *list_clusters()]
    known += [*profile.list_profiles(), *suite_files()]
    raise UnknownName("name", name, known)


def _approach(card: Any) -> dict[str, Any]:
    knobs = []
    for field in dataclasses.fields(card.knobs_type):
        meta = field.metadata
        low, high = meta.get("low"), meta.get("high")
        if "choices" in meta:
            allowed = " | ".join(meta["choices"])
        else:
            allowed = "" if low is None else f">= {low}" + (f", <= {high}" if high else "")
        knobs.append({"knob": field.name, "default": field.default, "allowed": allowed})
    return {
        "name": card.name,
        "title": card.title,
        "summary": card.summary,
        "exact": card.exact,
        "paper": card.paper,
        "knobs": knobs,
        "knob notes": " ".join((card.knobs_type.__doc__ or "").split()),
    }


def _print(card: dict[str, Any], indent: str = "") -> None:
    from gnnbench.commands.output import table

    for key, value in card.items():
        if isinstance(value, dict) and {"value", "status", "source"} <= set(value):
            print(f"{indent}{key}: {value['value']:g}  ({value['status']}: {value['source']})")
        elif isinstance(value, dict):
            print(f"{indent}{key}:")
            _print(value, indent + "  ")
        elif isinstance(value, list | tuple) and value and isinstance(value[0], dict):
            print(f"{indent}{key}:")
            rows = [{k: _short(v) for k, v in row.items()} for row in value]
            table(rows, list(rows[0]))
        elif isinstance(value, list | tuple) and len(value) > 4:
            print(f"{indent}{key}:")
            for item in value:
                print(f"{indent}  {item}")
        elif value not in (None, "", (), [], {}):
            print(f"{indent}{key}: {value}")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
