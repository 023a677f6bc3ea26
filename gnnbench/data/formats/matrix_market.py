"""MatrixMarket .mtx files, as SuiteSparse and networkrepository pass graphs around."""

from __future__ import annotations

import io
from pathlib import Path

from gnnbench.data.formats.reading import only_file, read_bytes, reading, stem
from gnnbench.data.graph import Graph, from_edges


def read(path: Path, *, directed: bool = False, name: str | None = None) -> Graph:
    """Read the pattern of a square sparse matrix (.gz, .xz, .bz2 by suffix); values are left out.

    Entry (i, j) is the arc i -> j, numbered from 0. `directed` keeps arcs as stored instead of both
    directions of each.
    """
    file = only_file(path, ["*.mtx", "*.mtx.*"], "a MatrixMarket matrix")
    import scipy.io
    import scipy.sparse

    with reading(file, "a MatrixMarket matrix"):
        text = read_bytes(file)
        matrix = scipy.sparse.coo_array(scipy.io.mmread(io.BytesIO(text)))
        symmetry = scipy.io.mminfo(io.BytesIO(text))[5]
        rows, columns = matrix.shape
        if rows != columns:
            raise ValueError(f"{rows} rows and {columns} columns: no adjacency matrix")
    src, dst = matrix.row, matrix.col
    if symmetry != "general":  # the file lists one half, and scipy has added the other
        listed = src >= dst
        src, dst = src[listed], dst[listed]
    undirected = not directed or symmetry != "general"
    return from_edges(name or stem(file), src, dst, rows, undirected=undirected)
