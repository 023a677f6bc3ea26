"""The page of suite files: every table and key, written from the specification's dataclasses."""

from __future__ import annotations

import dataclasses
from typing import Any, get_type_hints

from page import code, inline, link, table, toml

from gnnbench.approaches.names import knob_names
from gnnbench.commands.info import allowed, meanings
from gnnbench.spec import BatchSpec, DatasetRef, MemorySpec, ModelSpec, TaskSpec, TrainingSpec
from gnnbench.strict import type_name
from gnnbench.suites import SCHEMA, TOP, RunsTable

_FILLED_IN = ("name", "digest")
"""Fields that a suite does not state: the name is that of the table."""
SECTIONS: tuple[tuple[str, str, type[Any]], ...] = (
    ("[datasets.NAME]", "Where a dataset comes from.", DatasetRef),
    ("[models.NAME]", "A model. Approaches refuse models that they cannot train.", ModelSpec),
    ("[tasks.NAME]", "A task. Every kind of dataset has a default one.", TaskSpec),
    ("[batch]", "The batch of an optimiser step, the same for every approach.", BatchSpec),
    ("[training]", "How long and how to train.", TrainingSpec),
    ("[memory]", "Memory caps per rank, such as `16GB`, for runs and predictions.", MemorySpec),
    ("[[runs]]", "An entry is the product of its lists.", RunsTable),
)
_EXAMPLE = """\
schema = {schema}
name = "mine"

[datasets.large]
generator = "planted_partition"
options = {{ num_nodes = 10000, mean_degree = 15, num_classes = 10, num_features = 64 }}

[models.gcn]
kind = "gcn"
hidden = 64

[training]
epochs = 10

[[runs]]
dataset = "large"
model = "gcn"
approach = ["single", "partition", "sampled"]
ranks = [1, 2]
knobs = {{ order = "min_width", sampled = {{ prefetch = 2 }} }}
"""


def pages() -> dict[str, str]:
    """The page, by path."""
    return {"suites.md": "\n".join(_lines())}


def example() -> str:
    """The suite that the page shows; a test parses it."""
    return _EXAMPLE.format(schema=SCHEMA)


def _lines() -> list[str]:
    lines = [
        "# Suite files",
        "",
        "A suite is a TOML file that names many runs. It contains nothing about machines. An",
        "unknown key is an error in every table. `gnnbench check SUITE` reports all problems of a",
        "file at once. In Python, `gb.load_suite` also takes a dictionary of the same tables.",
        "",
        "```toml",
        example().rstrip(),
        "```",
        "",
        f"Keys outside of tables: {', '.join(code(key) for key in TOP)}.",
        f"`schema` is {SCHEMA}; `name` and `description` are text; the others are tables.",
        "",
    ]
    for title, what, cls in SECTIONS:
        lines += [f"## `{title}`", "", f"<p>{inline(what)}</p>", "", table(_rows(cls)), ""]
    return [*lines, *_knobs()]


def _rows(cls: type[Any]) -> list[dict[str, str]]:
    words, hints = meanings(cls), get_type_hints(cls)
    return [
        {
            "key": code(field.name),
            "value": inline(allowed(field) or type_name(hints[field.name])),
            "default": _default(field),
            "meaning": inline(words.get(field.name, "")),
        }
        for field in dataclasses.fields(cls)
        if field.name not in _FILLED_IN
    ]


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return code(toml(field.default))
    return code("{ }") if field.default_factory is not dataclasses.MISSING else "required"


def _knobs() -> list[str]:
    """Every knob and the approaches that have it."""
    rows = []
    for knob, owners in sorted(knob_names().items()):
        links = (link(name, f"approaches/{name}.html") for name in owners)
        rows.append({"knob": code(knob), "approaches": ", ".join(links)})
    return [
        "## Knobs",
        "",
        "A knob is set for every approach of an entry that has it. A table under an approach's",
        "name sets knobs of that approach only. The page of an approach explains each knob.",
        "",
        table(rows),
        "",
    ]
