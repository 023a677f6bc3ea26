"""SNAP-style edge lists: `source target` per line, '#' comments, plain or compressed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gnnbench.data.formats.reading import integer_table, only_file, stem
from gnnbench.data.graph import Graph, from_edges
from gnnbench.errors import DataError

PATTERNS = [f"*.{kind}{packed}" for kind in ("txt", "tsv", "el", "edges", "edgelist")
            for packed in ("", ".gz", ".xz", ".bz2")]  # fmt: skip


def read(
    path: Path,
    *,
    directed: bool = False,
    num_nodes: int | None = None,
    delimiter: str | None = None,
    name: str | None = None,
) -> Graph:
    """Read an edge list (.gz, .xz, .bz2 by suffix); columns after the second are left out.

    Ids that leave gaps are renumbered from 0 in their order (`notes` says so), unless `num_nodes`
    is given: then ids stay and lie in 0..num_nodes-1, and unused ones are isolated nodes.
    `delimiter` is blanks by default. `directed` keeps arcs as listed instead of both directions.
    """
    file = only_file(path, PATTERNS, "a SNAP edge list")
    edges = integer_table(file, columns=2, delimiter=delimiter)
    if len(edges) and edges.min() < 0:
        raise DataError(file, f"node ids must not be negative, found {edges.min()}")
    notes: dict[str, object] = {}
    if num_nodes is None:
        largest = int(edges.max(initial=-1))
        if largest >= 4 * edges.size:  # too sparse to count in an array
            distinct = np.sort(edges, axis=None)
            distinct = distinct[np.diff(distinct, prepend=-1) != 0]
        else:
            distinct = np.flatnonzero(np.bincount(edges.reshape(-1), minlength=1))
            distinct = distinct if len(edges) else distinct[:0]
        num_nodes = len(distinct)
        if num_nodes != largest + 1:
            edges = np.searchsorted(distinct, edges)
            notes["renumbered_from"] = f"ids {distinct[0]}..{distinct[-1]}, order kept"
    return from_edges(
        name or stem(file),
        edges[:, 0],
        edges[:, 1],
        num_nodes,
        undirected=not directed,
        notes=notes,
    )
