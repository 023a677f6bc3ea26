"""`gnnbench list`: the names that suites and commands accept."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gnnbench.cluster import Cluster, Link

NAME = "list"
HELP = "list the names of approaches, models, tasks, datasets, clusters, accelerators, suites"

Rows = list[dict[str, object]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the kind of thing to list."""
    parser.add_argument(
        "what", choices=sorted(_LISTS), metavar="WHAT", help=", ".join(sorted(_LISTS))
    )


def run(args: argparse.Namespace) -> int:
    from gnnbench.commands.output import emit_json, table

    rows = _LISTS[args.what]()
    if args.json:
        emit_json(rows)
    else:
        table(rows, list(rows[0]) if rows else ["name"])
    return 0


def approaches() -> Rows:
    """Every approach with what it promises."""
    from gnnbench.approaches.names import APPROACHES

    cards = [APPROACHES.get(name) for name in APPROACHES.names()]
    return [
        {
            "name": c.name,
            "family": c.family,
            "promise": c.promise.kind,
            "summary": c.summary,
            "paper": c.paper,
        }
        for c in cards
    ]


def models() -> Rows:
    """Every model kind."""
    from gnnbench.models.names import MODELS

    cards = [MODELS.get(name) for name in MODELS.names()]
    return [
        {"name": c.name, "title": c.title, "normalisation": c.normalisation, "paper": c.paper}
        for c in cards
    ]


def tasks() -> Rows:
    """Every task: what it measures, and when."""
    from gnnbench.metrics import TASKS

    return [
        {
            "name": task.name,
            "metrics": ", ".join(task.metrics),
            "compared by": task.primary,
            "evaluated": f"{task.evaluates} learning",
        }
        for task in TASKS.values()
    ]


def datasets() -> Rows:
    """Where datasets may come from: file formats, generators, and published profiles."""
    from gnnbench.data import formats, generators, profile

    held = {"native": "any", **formats.KINDS}
    rows: Rows = [
        {"name": n, "what": "format", "holds": held.get(n, "graph"), "use": f'format = "{n}"'}
        for n in formats.FORMATS
    ]
    rows += [
        {"name": n, "what": "generator", "holds": generators.kind(n), "use": f'generator = "{n}"'}
        for n in generators.GENERATORS
    ]
    for n in profile.list_profiles():
        use = f'profile = "{n}" (predict only)'
        holds = profile.load_profile(n).kind
        rows.append({"name": n, "what": "profile", "holds": holds, "use": use})
    return rows


def clusters() -> Rows:
    """Built-in clusters: devices and memory of a host, links inside and between hosts, rent."""
    from gnnbench.cluster import list_clusters, load_cluster

    rows: Rows = []
    for c in map(load_cluster, list_clusters()):
        if c.nodes:
            rows.append(_of_kinds(c))
            continue
        price = c.price
        spot = None if price is None else price.spot_usd_per_hour
        rows.append(
            {
                "name": c.name,
                "devices": f"{c.host.devices_per_host} x {c.device.name}",
                "GB": f"{c.device.memory_bytes.value / 1e9:.0f}",
                "in/out GB/s": f"{_gb(c.links.intra)}/{_gb(c.links.inter)}",
                "USD/h": None if price is None else f"{price.usd_per_hour.value:.2f}",
                "spot": None if spot is None else f"{spot.value:.2f}",
                "date": None if price is None else price.date,
            }
        )
    return rows


def _of_kinds(cluster: Cluster) -> dict[str, object]:
    """A cluster of several kinds of hosts: devices by kind, slowest links, rent of all hosts."""
    kinds = [(node.count, node.cluster) for node in cluster.nodes if node.cluster is not None]
    prices = [(count, kind.price) for count, kind in kinds if kind.price is not None]
    rent = sum(count * price.usd_per_hour.value for count, price in prices)
    dates = sorted({price.date for _, price in prices})
    return {
        "name": cluster.name,
        "devices": " + ".join(
            f"{count} x {kind.host.devices_per_host} {kind.device.name}" for count, kind in kinds
        ),
        "GB": "+".join(f"{kind.device.memory_bytes.value / 1e9:.0f}" for _, kind in kinds),
        "in/out GB/s": "/".join(
            _gb(min(links, key=lambda link: link.bytes_per_s.value))
            for links in zip(*[(k.links.intra, k.links.inter) for _, k in kinds], strict=True)
        ),
        "USD/h": f"{rent:.2f}" if len(prices) == len(kinds) else None,
        "spot": None,
        "date": dates[0] if dates else None,
    }


def _gb(link: Link) -> str:
    """Bandwidth in GB/s; "!" where all ranks of a host share it."""
    from gnnbench.units import digits

    return digits(link.bytes_per_s.value / 1e9) + ("!" if link.shared else "")


def accelerators() -> Rows:
    """Built-in accelerators: which engines they have, and how well their constants are known."""
    from collections import Counter

    from gnnbench.accelerators import list_accelerators, load_accelerator

    rows: Rows = []
    for device in map(load_accelerator, list_accelerators()):
        engines = [part for part in ("sparse", "dense") if getattr(device, part) is not None]
        statuses = Counter(constant.status for constant in device.constants().values())
        known = ", ".join(f"{number} {status}" for status, number in sorted(statuses.items()))
        rows.append(
            {
                "name": device.name,
                "engines": " + ".join(engines),
                "constants": known,
                "description": device.description,
            }
        )
    return rows


def suites() -> Rows:
    """Built-in suites."""
    from gnnbench.suites import find_suite, suite_files

    found = {name: find_suite(name) for name in suite_files()}
    return [
        {"name": name, "runs": len(s.runs), "description": s.description}
        for name, s in found.items()
    ]


_LISTS: dict[str, Callable[[], Rows]] = {
    "accelerators": accelerators,
    "approaches": approaches,
    "models": models,
    "datasets": datasets,
    "tasks": tasks,
    "clusters": clusters,
    "suites": suites,
}
