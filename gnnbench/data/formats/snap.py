"""SNAP-style edge lists: `source target` per line, '#' or '%' comments, plain or compressed."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.edge_list import EdgeList
from gnnbench.data.formats.columns import (
    BLANKS,
    Growing,
    Source,
    blocks,
    is_number,
    layout,
    one_source,
    renumbered,
    split_line,
)
from gnnbench.data.formats.reading import only_file, positive_weights
from gnnbench.data.graph import Graph, from_edges
from gnnbench.errors import DataError, SpecError

PATTERNS = [
    f"*.{kind}{packed}"
    for kind in ("txt", "tsv", "el", "edges", "edgelist", "csv")
    for packed in ("", ".gz", ".xz", ".bz2")
]
SUFFIXES = (".txt", ".tsv", ".el", ".edges", ".edgelist", ".csv")
_NAMED = (
    (
        *("source", "src", "from", "fromnodeid", "source_id", "src_id", "from_id", "source_node"),
        *("from_node", "u", "id_1", "node_1", "node1", "head"),
    ),
    (
        *("target", "dst", "to", "tonodeid", "target_id", "dst_id", "to_id", "target_node"),
        *("to_node", "v", "id_2", "node_2", "node2", "destination", "tail"),
    ),
    ("weight", "w", "weights", "value"),
)
"""Names of the columns of sources, targets and weights in a header, in lower case."""
_INDEX = ("id", "index", "edge_id", "unnamed: 0")
_DELIMITERS = {"tab": "\t", "\\t": "\t", "comma": ",", "blank": BLANKS, " ": BLANKS}
_STATED = re.compile(r"nodes:\s*(\d+)\s+edges:\s*(\d+)", re.IGNORECASE)


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

    Ids are whole numbers below 2^64. Those that leave gaps are renumbered from 0 in their order
    (`notes` says so), unless `num_nodes` is given: then ids stay and lie in 0..num_nodes-1, and
    unused ones are isolated nodes. `delimiter` is found out from the first row: a comma, a
    semicolon, else blanks. A header is left out, and `notes` says so; columns that it names
    (source, target, weight and the like) are found by these names. `directed` keeps arcs as listed
    instead of both directions. A file without edges is refused unless `num_nodes` is given.
    `notes` tells where a comment states another number of edges than the file lists, and where the
    first row may be the numbers of nodes and edges.
    """
    file = only_file(path, PATTERNS, "a SNAP edge list")
    if num_nodes is not None and num_nodes < 0:
        raise SpecError(f"option num_nodes: found {num_nodes}, allowed >= 0")
    source, notes = one_source(file, SUFFIXES), dict[str, object]()
    *edges, weights = _edges(source, delimiter, notes, weighted=weighted)
    if num_nodes is None and not len(edges[0]):
        raise DataError(file, "no edges; a graph of isolated nodes needs option num_nodes")
    lowest = min(int(end.min(initial=0)) for end in edges)
    if lowest < 0:
        raise DataError(file, f"node ids must not be negative, found {lowest}")
    listed, first = len(edges[0]), (int(edges[0][:1].sum()), int(edges[1][:1].sum()))
    if num_nodes is None:
        edges, num_nodes, said = renumbered(edges)
        if said:
            notes["renumbered_from"] = said
    elif listed and max(int(end.max()) for end in edges) >= num_nodes:
        raise DataError(file, f"edge endpoints must lie in 0..{num_nodes - 1}")
    _compare_counts(source, listed, first, num_nodes, notes)
    return from_edges(
        name or source.stem,
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
    """Return the edge list to be read block by block; arguments as in `read`.

    Ids must be below 2^63.
    """
    source = one_source(only_file(path, PATTERNS, "a SNAP edge list"), SUFFIXES)
    notes = dict[str, object]()
    return EdgeList(
        name=name or source.stem,
        blocks=_blocks(source, delimiter, notes),
        undirected=not directed,
        num_nodes=num_nodes,
        notes=notes,
    )


def _edges(
    source: Source, delimiter: str | None, notes: dict[str, object], *, weighted: bool
) -> list[Any]:
    """Sources, targets and weights or None; what is passed over goes to `notes`."""
    try:
        read = _columns(source, delimiter, notes, weighted, np.int64)
    except DataError:
        # Ids of 2^63 and more, as hashes are, or another fault, of which the first error tells.
        found = _unsigned(source, delimiter, notes, weighted)
        if found is None:
            raise
        read = found
    if not weighted:
        return [*read, None]
    try:
        return [*read[:2], positive_weights(read[2])]
    except ValueError as error:
        raise DataError(source, str(error)) from error


def _unsigned(
    source: Source, delimiter: str | None, notes: dict[str, object], weighted: bool
) -> list[NDArray[Any]] | None:
    try:
        return _columns(source, delimiter, notes, weighted, np.uint64)
    except DataError:
        return None


def _columns(
    source: Source, delimiter: str | None, notes: dict[str, object], weighted: bool, ids: Any
) -> list[NDArray[Any]]:
    kinds: tuple[Any, ...] = (ids, ids, np.float64) if weighted else (ids, ids)
    columns = [Growing(kind) for kind in kinds]
    for block in _blocks(source, delimiter, notes, kinds):
        for column, values in zip(columns, block, strict=True):
            column.append(values)
    return [column.done() for column in columns]


def _blocks(
    source: Source,
    delimiter: str | None,
    notes: dict[str, object],
    kinds: tuple[Any, ...] = (np.int64, np.int64),
) -> Iterator[Any]:
    """Yield sources, targets and, if there are three kinds, weights block by block."""
    if not any(line.strip() and line[0] not in "#%" for line in source.head()):
        return
    found = layout(
        source, delimiter=_DELIMITERS.get(delimiter, delimiter) if delimiter else delimiter
    )
    head = source.head()
    places = [
        at
        for at in range(found.skip, len(head))
        if head[at].strip() and not (found.comment and head[at].startswith(found.comment))
    ]
    rows = [head[at] for at in places[:2]]
    words, *below = (split_line(line, found.delimiter) for line in rows)
    order: tuple[int, ...] = tuple(range(len(kinds)))
    if below and _is_header(words, below[0]):
        found = dataclasses.replace(found, skip=places[0] + 1)
        order = named_columns(words, len(kinds))
        _refuse_index(words, order, source)
        notes["header"] = f"left out: {rows[0][:40]}"
        if order != tuple(range(len(kinds))):
            notes["columns"] = "by the header: " + ", ".join(words[at].strip() for at in order)
    if found.width < 2:
        raise DataError(
            source,
            f"rows have one field: {rows[0][:40]!r}; set option delimiter to the separator",
        )
    types = dict(zip(order, kinds, strict=True))
    if found.width < len(types):
        raise DataError(source, f"option weighted: rows have no third field: {rows[0][:40]!r}")
    if found.width > len(types):
        notes["columns_left_out"] = found.width - len(types)
    yield from blocks(source, found, types)


def _is_header(words: list[str], below: list[str]) -> bool:
    """Whether a row names columns: no word is a number, and the next row holds numbers."""
    named = not any(is_number(word) for word in words)
    return named and any(is_number(word) for word in below[:2])


def named_columns(words: list[str], count: int) -> tuple[int, ...]:
    """The columns of sources, targets and weights by a header; the first ones if it names none.

    A first column without a name is pandas' index, and not an end.
    """
    names = [word.strip().strip('"').lower() for word in words]
    found = [[at for at, name in enumerate(names) if name in known] for known in _NAMED]
    if len(found[0]) != 1 or len(found[1]) != 1:
        start = 1 if names and not names[0] and len(names) > count else 0
        return tuple(range(start, start + count))
    ends = (found[0][0], found[1][0])
    rest = [at for at in range(len(names)) if at not in ends]
    third = found[2] or rest[:1] or [len(names)]
    return (*ends, third[0])[:count]


def _refuse_index(words: list[str], order: tuple[int, ...], source: Source) -> None:
    """Raise DataError where the first of several columns is an index, and would be an end."""
    first = words[0].strip().strip('"').lower()
    if len(words) > 2 and order[0] == 0 and first in _INDEX:
        raise DataError(
            source,
            f"column 1 is named {first!r}, an index; call the ends of an edge source and target, "
            "or leave the column out",
        )


def _compare_counts(
    source: Source, listed: int, first: tuple[int, int], num_nodes: int, notes: dict[str, object]
) -> None:
    """Note where the file says another number of edges than it lists."""
    comments = " ".join(line for line in source.head()[:20] if line.startswith(("#", "%")))
    stated = _STATED.search(comments)
    if stated and int(stated[2]) != listed:
        notes["stated"] = f"{stated[2]} edges by a comment, {listed} listed: truncated?"
    # As many writers put the sizes into the first row, which an edge is like.
    if listed > 3 and first[1] == listed - 1 and 0 <= num_nodes - first[0] <= 2:
        notes["first_row"] = (
            f"{first[0]} {first[1]}, which are also the numbers of nodes and further rows: if it "
            "is a header, put '#' before it"
        )
