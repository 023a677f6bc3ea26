"""`gnnbench info`: everything the program knows of one name."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

NAME = "info"
HELP = "describe an approach, model, cluster, accelerator, suite, or source of graphs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the name."""
    parser.add_argument("name", metavar="NAME", help="any name that `gnnbench list` shows")
    parser.add_argument(
        "--toml", action="store_true", help="print a cluster as the TOML file that it is, to edit"
    )


def run(args: argparse.Namespace) -> int:
    from gnnbench.commands.output import emit_json

    if args.toml:
        from gnnbench.cluster import load_cluster
        from gnnbench.tomlwriter import format_toml

        print(format_toml(load_cluster(args.name).to_table()), end="")
        return 0
    card = describe(args.name)
    if args.json:
        emit_json(card)
    else:
        _print(card)
    return 0


def describe(name: str) -> dict[str, Any]:
    """Return the card of a name; UnknownName lists what there is."""
    from gnnbench.accelerators import list_accelerators, load_accelerator
    from gnnbench.approaches.names import APPROACHES
    from gnnbench.cluster import list_clusters, load_cluster
    from gnnbench.data import formats, generators, profile
    from gnnbench.errors import UnknownName
    from gnnbench.metrics import TASKS
    from gnnbench.models.names import MODELS
    from gnnbench.suites import find_suite, suite_files

    if name in APPROACHES.names():
        return {"kind": "approach", **_approach(APPROACHES.get(name))}
    if name in MODELS.names():
        return {"kind": "model", **dataclasses.asdict(MODELS.get(name))}
    if name in TASKS:
        return {"kind": "task", **dataclasses.asdict(TASKS[name])}
    if name in list_clusters():
        return {"kind": "cluster", **load_cluster(name).to_table()}
    if name in list_accelerators():
        return {"kind": "accelerator", **dataclasses.asdict(load_accelerator(name))}
    if name in profile.list_profiles():
        found = profile.load_profile(name)
        return {"kind": f"{found.kind} profile", **dataclasses.asdict(found)}
    if name in generators.GENERATORS:
        return {
            "kind": f"{generators.kind(name)} generator",
            **_callable(name, generators.GENERATORS[name]),
        }
    if name in formats.FORMATS:
        held = "native" if name == "native" else formats.KINDS.get(name, "graph")
        return {"kind": f"{held} format", **_callable(name, formats.reader(name), skip=1)}
    if name in suite_files():
        suite = find_suite(name)
        runs = [run.run_id for run in suite.runs]
        return {"kind": "suite", "name": name, "description": suite.description, "runs": runs}
    known = [*APPROACHES.names(), *MODELS.names(), *TASKS, *list_clusters()]
    known += list_accelerators()
    known += [*profile.list_profiles(), *suite_files(), *generators.GENERATORS, *formats.FORMATS]
    raise UnknownName("name", name, known)


def _approach(card: Any) -> dict[str, Any]:
    knobs = []
    for field in dataclasses.fields(card.knobs_type):
        meta = field.metadata
        low, high = meta.get("low"), meta.get("high")
        if "choices" in meta:
            allowed = " | ".join(meta["choices"])
        elif isinstance(field.default, bool):
            allowed = "true | false"
        else:
            allowed = "" if low is None else f">= {low}" + (f", <= {high}" if high else "")
        default = "required" if field.default is dataclasses.MISSING else field.default
        knobs.append({"knob": field.name, "default": default, "allowed": allowed})
    return {
        "name": card.name,
        "title": card.title,
        "summary": card.summary,
        "family": card.family,
        "promise": card.promise.kind,
        "promise in words": card.promise.text,
        "paper": card.paper,
        "knobs": knobs,
        "knob notes": " ".join((card.knobs_type.__doc__ or "").split()),
    }


def _callable(name: str, function: Callable[..., Any], *, skip: int = 0) -> dict[str, Any]:
    """Card of a generator or reader: its docstring and its options, without the first `skip`."""
    parameters = list(inspect.signature(function).parameters.values())[skip:]
    options = [
        {
            "option": parameter.name,
            "type": str(parameter.annotation),
            "default": "required" if parameter.default is parameter.empty else parameter.default,
        }
        for parameter in parameters
    ]
    return {"name": name, "options": options, "notes": inspect.getdoc(function) or ""}


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
            rows = [{k: None if v is None else _short(v) for k, v in row.items()} for row in value]
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
