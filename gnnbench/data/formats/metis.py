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
    with reading(file, "a METIS graph"):
        lines = [line for line in read_text(file).splitlines() if not line.startswith("%")]
        header = [int(word) for word in lines[0].split()]
        if not 2 <= len(header) <= 4:
            raise ValueError(f"header {lines[0][:40]!r} is not 'nodes edges [fmt [ncon]]'")
        num_nodes, num_edges = header[:2]
        rows = lines[1:]
        while len(rows) > num_nodes and not rows[-1].strip():
            rows.pop()
        if len(rows) != num_nodes:
            raise ValueError(f"{len(rows)} lines for {num_nodes} nodes")
        src, dst = _neighbours(rows, header[2:])
    if len(dst) != 2 * num_edges:
        problem = f"truncated or wrong header: {len(dst)} neighbours for {num_edges} edges"
        raise DataError(file, problem)
    if len(dst) and not 1 <= dst.min() <= dst.max() <= num_nodes:
        raise DataError(file, f"neighbours must lie in 1..{num_nodes}")
    _check_both_ends(src, dst - 1, num_nodes, file)
    graph = from_edges(name or stem(file), src, dst - 1, num_nodes)
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


def _neighbours(rows: list[str], layout: list[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return row and neighbour of every entry; `layout` is [fmt, ncon] as far as given.

    fmt is three flags: vertex sizes, vertex weights (ncon of them, default 1), edge weights.
    """
    code = f"{layout[0] if layout else 0:03d}"
    num_weights = (layout[1] if len(layout) > 1 else 1) if code[1] == "1" else 0
    skip, stride = (code[0] == "1") + num_weights, 1 + (code[2] == "1")
    words = [row.split() for row in rows]
    if skip or stride > 1:
        words = [row[skip::stride] for row in words]
    sizes = np.fromiter((len(row) for row in words), np.int64, len(words))
    flat = np.array([word for row in words for word in row], np.int64)
    return np.repeat(np.arange(len(words)), sizes), flat
