"""A finding: a table that answers one question, with its definitions and its verdict.

The page and `gnnbench compare` print the same findings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from gnnbench_reports.tables import Column

if TYPE_CHECKING:
    from gnnbench_reports.study import Study

NAMES = (
    "quality",
    "time_to_metric",
    "traffic",
    "stages",
    "order",
    "operations",
    "node_order",
    "bandwidth",
    "pipelines",
    "fits",
    "caches",
    "disk_io",
    "sensitivity",
    "arrival",
)
"""Modules of this package that offer `finding(study) -> Finding | None`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One question answered.

    Attributes:
        title: what is compared.
        meaning: definitions of the numbers, and the rule by which they are judged.
        columns: headings; `cells` hold one tuple of text or numbers per line, in their order.
        verdict: sentences with the result.
        rows: the same lines as numbers in SI units, for files.
        calm: no line asks for attention, so that the page folds the table.
    """

    title: str
    meaning: str
    columns: tuple[Column, ...]
    cells: tuple[tuple[object, ...], ...]
    verdict: tuple[str, ...]
    rows: tuple[Any, ...]
    calm: bool = False


def finding(name: str, study: Study) -> Finding | None:
    """Return one of `NAMES`, or None where the results hold nothing to answer it with."""
    module = import_module(f"gnnbench_reports.{name}")
    if name in study.kept:
        return cast("Finding | None", module.table(study.kept[name]))
    make = cast("Callable[[Study], Finding | None]", module.finding)
    return make(study)


def findings(study: Study) -> dict[str, Finding]:
    """Return every finding that the results hold."""
    found = {name: finding(name, study) for name in NAMES}
    return {name: one for name, one in found.items() if one is not None}
