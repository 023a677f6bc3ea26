"""Pages of the catalogue: readers, generators and profiles of datasets, clusters, suites."""

from __future__ import annotations

from typing import Any

from page import code, inline, prose, table, toml

from gnnbench.commands import list as lists
from gnnbench.commands.info import describe
from gnnbench.data import formats, generators


def pages() -> dict[str, str]:
    """The pages by path."""
    return {"datasets.md": "\n".join(_datasets()), "catalogue.md": "\n".join(_catalogue())}


def _datasets() -> list[str]:
    lines = [
        "# Datasets",
        "",
        "A suite names a dataset by `path` (a file or folder), `generator` or `profile`. A dataset",
        "is a *graph*, a *stream* (edges in order of time) or *triples* (facts of a knowledge",
        "graph). The format of a file is recognised by names, keys and first lines;",
        "`format = NAME` and `options = { ... }` override it.",
        "",
        "## File formats",
        "",
    ]
    for name in formats.FORMATS:
        lines += _described(name)
    lines += ["## Generators", ""]
    for name in generators.GENERATORS:
        lines += _described(name)
    lines += [
        "## Profiles",
        "",
        "A profile holds statistics of a dataset that is not at hand. It can be predicted, not",
        "trained.",
        "",
        _listed([row for row in lists.datasets() if row["what"] == "profile"], ("name", "holds")),
        "",
    ]
    return lines


def _described(name: str) -> list[str]:
    card = describe(name)
    rows = [
        {
            "option": code(one["option"]),
            "type": inline(one["type"]),
            "default": code(toml(one["default"])),
        }
        for one in card["options"]
    ]
    kind = card["kind"].partition(" ")[0].replace("native", "any kind of dataset")
    lines = [f"### {name}", "", f"<p>Holds: {kind}.</p>", "", prose(card["notes"]), ""]
    return [*lines, table(rows), ""] if rows else lines


def _catalogue() -> list[str]:
    parts: tuple[tuple[str, str, Any], ...] = (
        ("Models", "", lists.models),
        ("Tasks", "", lists.tasks),
        (
            "Clusters",
            "Hosts whose constants are known, with their rent; `gnnbench info NAME --toml` prints "
            "one as a file to edit. Bandwidths are those inside a host and between hosts; `!` "
            "marks a link that all ranks of a host share.",
            lists.clusters,
        ),
        ("Accelerators", "For `gnnbench accelerate`.", lists.accelerators),
        ("Suites", "Suites that `gnnbench run` and `gnnbench predict` know by name.", lists.suites),
    )
    lines = ["# Catalogue", "", "What `gnnbench list` prints.", ""]
    for title, what, rows in parts:
        lines += [f"## {title}", ""]
        if what:
            lines += [f"<p>{inline(what)}</p>", ""]
        found = rows()
        lines += [_listed(found, tuple(found[0])), ""]
    return lines


def _listed(rows: list[dict[str, object]], heads: tuple[str, ...]) -> str:
    """Rows of a list command; the first column is a name."""
    first, *others = heads
    return table(
        [
            {
                first: code(row[first]),
                **{head: inline("" if row[head] is None else row[head]) for head in others},
            }
            for row in rows
        ]
    )
