"""Graphs.jl's LG format (.jlg): a header, then 1-based edges, as text that is usually gzipped.

The header is `nodes,edges,u|d,name[,...]`: `u` lists every undirected edge once, `d` lists arcs. A
file may hold several graphs one behind another.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from gnnbench.data.formats.reading import only_file, read_bytes, reading, stem
from gnnbench.data.graph import Graph, from_edges
from gnnbench.errors import DataError

_GZIP = b"\x1f\x8b"


def read(
    path: Path, *, graph: str | None = None, directed: bool = False, name: str | None = None
) -> Graph:
    """Read a graph of a .jlg file, gzipped or not.

    `graph` is the name of one of several; `directed` keeps arcs as listed instead of both
    directions.
    """
    file = only_file(path, ["*.jlg", "*.lg", "*.jlg.*", "*.lg.*"], "a Graphs.jl graph")
    with reading(file, "a Graphs.jl graph"):
        raw = read_bytes(file)
        lines = (gzip.decompress(raw) if raw[:2] == _GZIP else raw).decode("utf-8-sig").splitlines()
        nodes, kind, rows = _graph(file, lines, graph)
        flat = np.array([number for row in rows for number in row.split(",")], np.int64)
        if len(flat) != 2 * len(rows):
            raise ValueError("edges are not 'source,target'")
        ends = flat.reshape(-1, 2)
    if len(ends) and not 1 <= ends.min() <= ends.max() <= nodes:
        raise DataError(file, f"edge endpoints must lie in 1..{nodes}")
    if directed and kind == "u":
        raise DataError(file, "option directed: found true, and the file's graph is undirected")
    return from_edges(
        name or stem(file), ends[:, 0] - 1, ends[:, 1] - 1, nodes, undirected=not directed
    )


def _graph(file: Path, lines: list[str], wanted: str | None) -> tuple[int, str, list[str]]:
    """Nodes, "u" or "d", and the edges of the wanted graph, which may be the only one."""
    found: dict[str, tuple[int, str, list[str]]] = {}
    at = 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        words = lines[at].split(",")
        if len(words) < 4 or words[2] not in ("u", "d"):
            raise ValueError(f"header {lines[at][:40]!r} is not 'nodes,edges,u|d,name'")
        nodes, edges = int(words[0]), int(words[1])
        rows = lines[at + 1 : at + 1 + edges]
        if len(rows) < edges:
            raise ValueError(f"{len(rows)} edges, {edges} by the header")
        found[words[3]] = nodes, words[2], rows
        at += 1 + edges
    if wanted is None and len(found) == 1:
        return next(iter(found.values()))
    if wanted is None or wanted not in found:
        names = ", ".join(repr(known) for known in found) or "none"
        raise DataError(file, f"option graph: found {wanted!r}, allowed one of: {names}")
    return found[wanted]
