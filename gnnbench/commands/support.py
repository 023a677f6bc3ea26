"""`gnnbench support`: which rung of evidence each operation has on each device."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gnnbench.costs.support import Support

NAME = "support"
HELP = "say for device and operation what predictions rest on, and what measurement is missing"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the devices or clusters."""
    parser.add_argument(
        "names",
        nargs="*",
        metavar="DEVICE|CLUSTER",
        help="devices of the catalogue, built-in clusters or cluster files; by default every "
        "device of the catalogue of measured constants",
    )


def run(args: argparse.Namespace) -> int:
    from gnnbench.commands.output import emit_json
    from gnnbench.costs.support import known_devices, supported

    if not args.names:
        found = [supported(name) for name in known_devices()]
    else:
        found = [_of(name) for name in args.names]
    if args.json:
        emit_json([entry for entries in found for entry in entries])
    elif len(found) == 1:
        _show_one(found[0])
    else:
        _show_all(found)
    return 0


def _of(name: str) -> list[Support]:
    """Support of a device by name or alias, else of a cluster."""
    from gnnbench.cluster import load_cluster
    from gnnbench.costs.devices import facts_of
    from gnnbench.costs.support import supported, supported_by

    return supported(name) if facts_of(name) is not None else supported_by(load_cluster(name))


def _show_one(entries: list[Support]) -> None:
    from gnnbench.commands.output import table, text

    text(f"{entries[0].device}: what predictions rest on")
    rows = [
        {
            "operation": e.operation,
            "rung": e.rung,
            "90 % within": _within(e.radius),
            "missing": e.missing,
        }
        for e in entries
    ]
    table(rows, list(rows[0]))


def _show_all(found: list[list[Support]]) -> None:
    from gnnbench.commands.output import heading, table, text

    text("What predictions rest on, by device and operation, with the factor that 90 % lie within")
    columns: dict[tuple[str, ...], list[str]] = {}
    for place, first in enumerate(found[0]):
        cells = tuple(_cell(entries[place]) for entries in found)
        columns.setdefault(cells, []).append(first.operation)
    rows: list[dict[str, object]] = []
    for at, entries in enumerate(found):
        row: dict[str, object] = {"device": entries[0].device}
        row |= {_heading(names): cells[at] for cells, names in columns.items()}
        rows.append(row)
    table(rows, list(rows[0]))
    heading("; ".join(f"{short}: {rung}" for rung, short in _SHORT.items()))
    for names in columns.values():
        if len(names) > 1:
            text(f"{_heading(names)}: {', '.join(names)}", hanging="  ")


def _cell(entry: Support) -> str:
    return f"{_SHORT[entry.rung]} {_within(entry.radius)}".strip()


def _heading(names: list[str]) -> str:
    """Operations with the same evidence everywhere share a column."""
    return names[0] if len(names) == 1 else f"{names[0]} +{len(names) - 1}"


_SHORT = {
    "measured": "here",
    "measured elsewhere": "elsewhere",
    "transferred": "transf.",
    "datasheet": "sheet",
}


def _within(radius: float | None) -> str:
    """A log radius as a factor: predictions lie within times or over this."""
    import math

    return f"×/÷ {math.exp(radius):.2f}" if radius is not None else ""
