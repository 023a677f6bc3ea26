"""`gnnbench info`: describe one approach, model, task, dataset source, cluster or suite."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
from collections.abc import Callable
from typing import Any

NAME = "info"
HELP = "describe one approach, model, task, dataset source, cluster, accelerator or suite"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the name."""
    parser.add_argument("name", metavar="NAME", help="any name that `gnnbench list` shows")
    parser.add_argument(
        "--toml", action="store_true", help="print a cluster as the TOML file that it is, to edit"
    )


def run(args: argparse.Namespace) -> int:
    from gnnbench.commands.output import emit_json

    if args.toml:
        from gnnbench.cluster import cluster_text, load_cluster
        from gnnbench.tomlwriter import format_toml

        given = cluster_text(args.name)
        print(given or format_toml(load_cluster(args.name).to_table()), end="")
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
        return {"kind": "cluster", **_cluster(load_cluster(name))}
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


def _cluster(cluster: Any) -> dict[str, Any]:
    """A cluster's table, and the links that its fabric lets several ranks share."""
    from gnnbench.fabric import shared_links

    table = cluster.to_table()
    links = shared_links(cluster)
    return {**table, **({"shared links": links} if links else {})}


def _approach(card: Any) -> dict[str, Any]:
    return {
        "name": card.name,
        "title": card.title,
        "summary": card.summary,
        "family": card.family,
        "promise": card.promise.kind,
        "promise in words": card.promise.text,
        "paper": card.paper,
        "knobs": knobs(card.knobs_type),
    }


def knobs(knobs_type: type[Any]) -> list[dict[str, Any]]:
    """Each knob with its default, what is allowed and what it means."""
    words = meanings(knobs_type)
    return [
        {
            "knob": field.name,
            "default": "required" if field.default is dataclasses.MISSING else field.default,
            "allowed": allowed(field),
            "meaning": words.get(field.name, ""),
        }
        for field in dataclasses.fields(knobs_type)
    ]


def allowed(field: dataclasses.Field[Any]) -> str:
    """The values of a field in words, from its metadata; "" where its type says all."""
    low, high = field.metadata.get("low"), field.metadata.get("high")
    if "choices" in field.metadata:
        return " | ".join(choice or '""' for choice in field.metadata["choices"])
    if isinstance(field.default, bool):
        return "true | false"
    below = "<" if field.metadata.get("open_high") else "<="
    return "" if low is None else f">= {low}" + (f", {below} {high}" if high else "")


def meanings(knobs_type: type) -> dict[str, str]:
    """What the docstring of a knobs class says of each knob, as `name: text` or `a, b: text`."""
    names = "|".join(field.name for field in dataclasses.fields(knobs_type))
    found: dict[str, str] = {}
    for cls in reversed(knobs_type.__mro__) if names else ():
        words = " ".join((cls.__doc__ or "").split())
        parts = re.split(rf"(?:^|(?<=[.:;] ))((?:{names})(?:, (?:{names}))*): ", words)
        for knobs, text in zip(parts[1::2], parts[2::2], strict=True):
            found |= dict.fromkeys(knobs.split(", "), text.strip())
    return found


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
    from gnnbench.commands.output import table, text

    for key, value in card.items():
        if isinstance(value, dict) and {"value", "status", "source"} <= set(value):
            constant = f"{value['value']:g}  ({value['status']}: {value['source']})"
            text(f"{key}: {constant}", indent, "  ")
        elif isinstance(value, dict):
            print(f"{indent}{key}:")
            _print(value, indent + "  ")
        elif isinstance(value, list | tuple) and value and isinstance(value[0], dict):
            print(f"{indent}{key}:")
            table(value, list(value[0]))
        elif isinstance(value, list | tuple) and len(value) > 4:
            print(f"{indent}{key}:")
            for item in value:
                text(str(item), indent + "  ", "  ")
        elif isinstance(value, str) and "\n" in value:
            print(f"{indent}{key}:")
            for line in value.splitlines():
                print(f"{indent}  {line}".rstrip())
        elif value not in (None, "", (), [], {}):
            listed = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
            text(f"{key}: {listed}", indent, "  ")
