"""SNAP-style edge lists: `source target` per line, '#' or '%' comments, plain or compressed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gnnbench.data.edge_list import EdgeList
from gnnbench.data.formats.columns import (
    Growing,
    Source,
    blocks,
    is_number,
    layout,
    renumbered,
    split_line,
)
from gnnbench.data.formats.reading import only_file, positive_weights, stem
from gnnbench.data.graph import Graph, from_edges
from gnnbench.errors import DataError

PATTERNS = [
    f"*.{kind}{packed}"
    for kind in ("txt", "tsv", "el", "edges", "edgelist", "csv")
    for packed in ("", ".gz", ".xz", ".bz2")
]


def read(
    path: Path,
    *,
    directed: bool = False,
    num_nodes: int | None = None,
    delimiter: str | None = None,
    weighted: bool = False,
    name: str | None = None,
) -> Graph:
    """Read an edge list (.gz, .xz, .bz2 by suffix); columns after the second are left out.

    `weighted` reads the third as weights of edges, which must be positive.

    Ids that leave gaps are renumbered from 0 in their order (`notes` says so), unless `num_nodes`
    is given: then ids stay and lie in 0..num_nodes-1, and unused ones are isolated nodes.
    `delimiter` is found out from the first row: a comma, a semicolon, else blanks. A header is left
    out, and `notes` says so. `directed` keeps arcs as listed instead of both directions. A file
    without edges is refused unless `num_nodes` is given.
    """
    file = only_file(path, PATTERNS, "a SNAP edge list")
    source, notes = Source(file), dict[str, object]()
    *edges, weights = _edges(source, delimiter, notes, weighted=weighted)
    if num_nodes is None and not len(edges[0]):
        raise DataError(file, "no edges; a graph of isolated nodes needs option num_nodes")
    lowest = min(int(end.min(initial=0)) for end in edges)
    if lowest < 0:
        raise DataError(file, f"node ids must not be negative, found {lowest}")
    if num_nodes is None:
        edges, num_nodes, said = renumbered(edges)
        if said:
            notes["renumbered_from"] = said
    return from_edges(
        name or stem(file),
        edges[0],
        edges[1],
        num_nodes,
        undirected=not directed,
        edge_weights=weights,
        notes=notes,
    )


def stream(
    path: Path,
    *,
    directed: bool = False,
    num_nodes: int | None = None,
    delimiter: str | None = None,
    name: str | None = None,
) -> EdgeList:
    """Return the edge list to be read block by block; arguments as in `read`."""
    file = only_file(path, PATTERNS, "a SNAP edge list")
    notes = dict[str, object]()
    return EdgeList(
        name=name or stem(file),
        blocks=_blocks(Source(file), delimiter, notes),
        undirected=not directed,
        num_nodes=num_nodes,
        notes=notes,
    )


def _edges(
    source: Source, delimiter: str | None, notes: dict[str, object], *, weighted: bool
) -> list[Any]:
    """Sources, targets and weights or None; what is passed over goes to `notes`."""
    kinds: tuple[Any, ...] = (np.int64, np.int64, np.float64) if weighted else (np.int64, np.int64)
    columns = [Growing(kind) for kind in kinds]
    for block in _blocks(source, delimiter, notes, weighted=weighted):
        for column, values in zip(columns, block, strict=True):
            column.append(values)
    read = [column.done() for column in columns]
    if not weighted:
        return [*read, None]
    try:
        return [*read[:2], positive_weights(read[2])]
    except ValueError as error:
        raise DataError(source, str(error)) from error


def _blocks(
    source: Source, delimiter: str | None, notes: dict[str, object], *, weighted: bool = False
) -> Iterator[Any]:
    """Yield sources, targets and, if weighted, weights block by block."""
    if not any(line.strip() and line[0] not in "#%" for line in source.head()):
        return
    found = layout(source, delimiter=delimiter)
    rows = [line for line in source.head()[found.skip :] if line.strip()]
    words, *below = (split_line(line, found.delimiter) for line in rows[:2])
    if below and is_number(below[0][0]) and not any(is_number(word) for word in words):
        found = dataclasses.replace(found, skip=found.skip + 1)
        notes["header"] = f"left out: {rows[0][:40]}"
    if found.width < 2:
        raise DataError(
            source,
            f"rows have one field: {rows[0][:40]!r}; set option delimiter to the separator",
        )
    types: dict[int, Any] = {0: np.int64, 1: np.int64}
    if weighted:
        if found.width < 3:
            raise DataError(source, f"option weighted: rows have no third field: {rows[0][:40]!r}")
        types[2] = np.float64
    if found.width > len(types):
        notes["columns_left_out"] = found.width - len(types)
    yield from blocks(source, found, types)
