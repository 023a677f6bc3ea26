"""Blocks of the page as data: text, tables and figures. Templates turn them into HTML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from gnnbench_reports.tables import Column

MOST_PRINTED = 100
_COLUMN_PT = 300
"""Drawings narrower than this, in points, fit a column."""


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph; words between backticks are code."""

    text: str
    kind: ClassVar[str] = "text"


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading within a section."""

    text: str
    kind: ClassVar[str] = "heading"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table; with `fold` it is closed until one opens it, under that summary.

    A printed page opens folded tables of at most `MOST_PRINTED` lines.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[object]]
    fold: str = ""
    kind: ClassVar[str] = "table"

    @property
    def printed(self) -> bool:
        return len(self.rows) <= MOST_PRINTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A figure ready for the page; `svg` is None when there was nothing to draw."""

    name: str
    title: str
    caption: str
    svg: bytes | None
    files: tuple[str, ...] = ()
    kind: ClassVar[str] = "figure"

    @property
    def narrow(self) -> bool:
        """Whether it was drawn for a column rather than for the page."""
        width = re.search(rb'viewBox="0 0 ([0-9.]+) ', self.svg or b"")
        return width is None or float(width[1]) < _COLUMN_PT


Block = Text | Heading | Table | Drawing


def folded(
    columns: Sequence[Column], rows: Sequence[Sequence[object]], noun: str, most: int
) -> Table:
    """A table that is closed if it has more than `most` lines."""
    fold = f"All {len(rows)} {noun}" if len(rows) > most else ""
    return Table(columns=columns, rows=rows, fold=fold)
