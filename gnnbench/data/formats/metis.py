"""METIS / DIMACS10 .graph files: a header, then one line of 1-based neighbours per node."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.formats.reading import only_file, read_text, reading, stem
from gnnbench.data.graph import Graph, from_edges
from gnnbench.data.histogram import distinct
from gnnbench.errors import DataError


def read(path: Path, *, name: str | None = None) -> Graph:
    """Read a .graph file (.bz2, .gz, .xz by suffix). Vertex and edge weights are left out."""
    file = only_file(path, ["*.graph", "*.graph.*", "*.metis"], "METIS")
    notes: dict[str, object] = {}
    with reading(file, "a METIS graph"):
        text = read_text(file).removesuffix("\n").split("\n")
        lines = [line for line in text if not line.lstrip().startswith("%")]
        while len(lines) > 1 and not lines[0].strip():
            lines.pop(0)
        header = [int(word) for word in lines[0].split()]
        if not 2 <= len(header) <= 4:
            raise ValueError(f"header {lines[0][:40]!r} is not 'nodes edges [fmt [ncon]]'")
        num_nodes, num_edges = header[:2]
        if min(header) < 0:
            raise ValueError(f"header {lines[0][:40]!r} has negative numbers")
        rows = lines[1:]
        while len(rows) > num_nodes and not rows[-1].strip():
            rows.pop()
        if len(rows) != num_nodes:
            raise ValueError(f"{len(rows)} lines for {num_nodes} nodes")
        src, dst = _neighbours(rows, lines[0].split()[2:], notes)
    if len(dst) != 2 * num_edges:
        problem = f"truncated or wrong header: {len(dst)} neighbours for {num_edges} edges"
        raise DataError(file, problem)
    if len(dst) and not 1 <= dst.min() <= dst.max() <= num_nodes:
        raise DataError(file, f"neighbours must lie in 1..{num_nodes}")
    _check_both_ends(src, dst - 1, num_nodes, file)
    graph = from_edges(name or stem(file), src, dst - 1, num_nodes, notes=notes)
    loops = graph.notes["self_loops"]
    assert isinstance(loops, int)
    graph.notes["repeated_edges"] = len(dst) - loops - graph.num_edges
    return graph


def _check_both_ends(
    src: NDArray[np.int64], dst: NDArray[np.int64], num_nodes: int, file: Path
) -> None:
    """Raise DataError for an edge that one of its ends does not list."""
    there, back = distinct(src * num_nodes + dst), distinct(dst * num_nodes + src)
    if not np.array_equal(there, back):
        one = int(np.setdiff1d(there, back)[0])
        node, other = one // num_nodes + 1, one % num_nodes + 1
        raise DataError(file, f"node {node} lists {other}, but node {other} does not list {node}")


def _neighbours(
    rows: list[str], layout: list[str], notes: dict[str, object]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return row and neighbour of every entry; `layout` is [fmt, ncon] as far as given.

    fmt is three flags: vertex sizes, vertex weights (ncon of them, default 1), edge weights.
    Raises ValueError for another fmt, and for a row that is too short for its weights.
    """
    code = (layout[0] if layout else "0").zfill(3)
    if len(code) != 3 or set(code) - set("01"):
        raise ValueError(f"fmt {layout[0]!r} is not three flags of 0 and 1")
    num_weights = (int(layout[1]) if len(layout) > 1 else 1) if code[1] == "1" else 0
    if num_weights < 0:
        raise ValueError(f"ncon {layout[1]} is no number of weights")
    skip, stride = (code[0] == "1") + num_weights, 1 + (code[2] == "1")
    words = [row.split() for row in rows]
    if skip or stride > 1:
        for node, row in enumerate(words, 1):
            if len(row) < skip or (len(row) - skip) % stride:
                raise ValueError(f"node {node}: {len(row)} numbers do not fit fmt {layout[0]}")
        words = [row[skip::stride] for row in words]
        kinds = ("vertex sizes", "vertex weights", "edge weights")
        left_out = [kind for kind, flag in zip(kinds, code, strict=True) if flag == "1"]
        notes["left_out"] = ", ".join(left_out)
    sizes = np.fromiter((len(row) for row in words), np.int64, len(words))
    flat = np.array([word for row in words for word in row], np.int64)
    return np.repeat(np.arange(len(words)), sizes), flat
