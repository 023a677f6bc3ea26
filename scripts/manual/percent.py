"""Notebooks as Python files in jupytext's percent format, and as Jupyter's JSON.

The Python file is what people edit and what changes show in a review; `jupytext --sync` keeps both
equal. This module reads and writes what the notebooks here use: a header, `# %%` code cells and
`# %% [markdown]` cells of comments.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

_METADATA = {
    "jupytext": {"formats": "ipynb,py:percent"},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python", "version": "3.11"},
}


@dataclass(slots=True, kw_only=True)
class Cell:
    """One cell; `kind` is "code" or "markdown"."""

    kind: str
    source: str
    outputs: list[dict[str, Any]] = field(default_factory=list)


def parse(text: str) -> list[Cell]:
    """The cells of a Python file in percent format, in order."""
    cells: list[Cell] = []
    for part in re.split(r"^# %%", text, flags=re.MULTILINE)[1:]:
        head, _, body = part.partition("\n")
        markdown = head.strip() == "[markdown]"
        lines = body.strip("\n").split("\n")
        if markdown:
            lines = [line.removeprefix("#").removeprefix(" ") for line in lines]
        cells.append(Cell(kind="markdown" if markdown else "code", source="\n".join(lines)))
    return cells


def notebook(cells: Iterable[Cell], *, executed: bool = False) -> str:
    """The cells as a Jupyter notebook of format 4.5; cells are numbered, so that it is stable."""
    shown = [_cell(number, cell, executed) for number, cell in enumerate(cells)]
    document = {"cells": shown, "metadata": _METADATA, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def read_notebook(text: str) -> list[Cell]:
    """The cells of a Jupyter notebook, with their outputs."""
    return [
        Cell(
            kind=cell["cell_type"],
            source="".join(cell["source"]),
            outputs=list(cell.get("outputs", ())),
        )
        for cell in json.loads(text)["cells"]
    ]


def _cell(number: int, cell: Cell, executed: bool) -> Mapping[str, Any]:
    common = {
        "cell_type": cell.kind,
        "id": f"cell-{number}",
        "metadata": {},
        "source": cell.source.splitlines(keepends=True),
    }
    if cell.kind == "markdown":
        return common
    outputs = cell.outputs if executed else []
    return common | {"execution_count": number if executed else None, "outputs": outputs}
