"""The price page: which settings it sets side by side, read from the catalogue.

A page has tables, one per workload. A row of a table is the same workload on a machine: an
approach with its knobs, ranks, and a disk where the machine takes volumes of several kinds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gnnbench.errors import SpecError, UnknownName
from gnnbench.spec import BatchSpec, ModelSpec
from gnnbench.strict import bounds, build, choices, raise_all, read_toml

SCHEMA = 1
_FOLDER = Path(__file__).resolve().parent / "catalogue" / "pages"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A row of a table.

    Args:
        label: what it is.
        machine: a built-in cluster; whole hosts are paid for.
        ranks: devices that train.
        approach: its name.
        knobs: those that differ from their defaults.
        disk: of the catalogue; "" is that of the machine.
    """

    label: str
    machine: str
    ranks: int = field(default=1, metadata=bounds(1, 4096))
    approach: str
    knobs: dict[str, Any] = field(default_factory=dict)
    disk: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A table: a graph or triples, a model and its batches, and the settings to compare.

    Args:
        title: of the table.
        profile: of the graph.
        text: what a reader should know of the workload.
        model, batch, optimizer: the same for all settings.
        settings: rows.
    """

    title: str
    profile: str
    text: str = ""
    model: ModelSpec
    batch: BatchSpec
    optimizer: str = field(default="adam", metadata=choices("adam", "adagrad", "sgd"))
    settings: tuple[Setting, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PricePage:
    """A page: its title, the text before its tables, the tables, and remarks behind them."""

    schema: int = field(default=SCHEMA, metadata=bounds(SCHEMA, SCHEMA))
    title: str
    text: tuple[str, ...] = ()
    workloads: tuple[Workload, ...]
    remarks: tuple[str, ...] = ()


def list_pages() -> list[str]:
    """Names of the built-in pages."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load_page(name: str) -> PricePage:
    """Read a page by name, or from a .toml file.

    Raises:
        UnknownName: no such built-in.
        SpecError: every problem of the file.
    """
    path = Path(name)
    if path.suffix != ".toml":
        if name not in list_pages():
            raise UnknownName("page", name, list_pages())
        path = _FOLDER / f"{name}.toml"
    problems: list[str] = []
    found = build(PricePage, read_toml(path), path.name, problems)
    raise_all(problems)
    assert found is not None
    for number, workload in enumerate(found.workloads):
        if not workload.settings:
            raise SpecError(f"{path.name}.workloads[{number}].settings: empty; give one or more")
    return found
