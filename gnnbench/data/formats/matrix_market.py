"""MatrixMarket .mtx files, as SuiteSparse and networkrepository pass graphs around.

Not by scipy's `mmread`, which crashes the process on some broken headers.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.edge_list import Block, EdgeList
from gnnbench.data.formats.columns import BLANKS, Layout, Source, blocks, one_source
from gnnbench.data.formats.reading import only_file, positive_weights, read_text, reading
from gnnbench.data.graph import Graph, from_edges
from gnnbench.errors import DataError

# Columns of an entry by the field of the header: place, then value.
_COLUMNS = {"pattern": 2, "integer": 3, "real": 3, "complex": 4}
_SYMMETRIES = ("general", "symmetric", "skew-symmetric", "hermitian")


def read(
    path: Path, *, directed: bool = False, weighted: bool = False, name: str | None = None
) -> Graph:
    """Read the pattern of a square sparse matrix (.gz, .xz, .bz2 by suffix).

    Entry (i, j) is the arc i -> j, numbered from 0. `directed` keeps arcs as stored instead of both
    directions of each. `weighted` keeps the values, integer or real, as weights of edges, which
    must be positive; else they are left out.
    """
    file = only_file(path, ["*.mtx", "*.mtx.*"], "a MatrixMarket matrix")
    with reading(file, "a MatrixMarket matrix"):
        source = one_source(file, (".mtx",))
        text = _member_text(source) if source.member else read_text(file)
        head, _, rest = text.partition("\n")
        field, symmetry = _kind(head)
        rest = rest.lstrip()
        while rest.startswith("%"):
            rest = rest.partition("\n")[2].lstrip()
        sizes, _, body = rest.partition("\n")
        rows, entries = _sizes(sizes)
        table = np.zeros((0, 2))
        if body.strip():
            # Comments leave first: numpy warns of rows that are nothing else.
            body = re.sub(r"%.*", "", body)
            body = "\n".join(line for line in body.split("\n") if line.strip())
            table = np.loadtxt(io.StringIO(body), dtype=str, comments=None, ndmin=2)
        if len(table) != entries or (entries and table.shape[1] != _COLUMNS[field]):
            raise ValueError(f"{len(table)} entries of {table.shape[1]} columns, not {entries}")
        # Places as text become integers without a detour over floats, which would round them.
        src, dst = table[:, :2].astype(np.int64).T - 1
        if entries and (min(src.min(), dst.min()) < 0 or max(src.max(), dst.max()) >= rows):
            raise ValueError(f"places must lie in 1..{rows}")
        weights = None
        values = _values(table, field) if entries else np.zeros(0)
        if weighted:
            if field not in ("integer", "real"):
                raise ValueError(f"option weighted: a {field} matrix has no weights of edges")
            if symmetry == "skew-symmetric":
                raise ValueError("option weighted: a skew-symmetric matrix has negative weights")
            weights = positive_weights(values)
    zeros = int(np.count_nonzero(values == 0)) if field != "pattern" else 0
    notes: dict[str, object] = {}
    if zeros:
        notes["zero_entries"] = f"{zeros} entries of value 0, kept as edges"
    undirected = not directed or symmetry != "general"
    return from_edges(
        name or source.stem,
        src,
        dst,
        rows,
        undirected=undirected,
        edge_weights=weights,
        notes=notes,
    )


def _member_text(source: Source) -> str:
    """The text of a file in an archive, as SuiteSparse packs matrices."""
    with source.open() as stream:
        text = stream.read().decode("utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _values(table: NDArray[Any], field: str) -> NDArray[np.float64]:
    """Values of the entries: 1 of a pattern, and of complex ones the sum of both parts' sizes.

    Raises ValueError for one that is no finite number.
    """
    if field == "pattern":
        return np.ones(len(table))
    parts = table[:, 2:].astype(np.float64)
    wrong = ~np.isfinite(parts).all(axis=1)
    if wrong.any():
        at = int(wrong.argmax())
        raise ValueError(f"entry {at + 1} has the value {parts[at, 0]}")
    return parts[:, 0] if parts.shape[1] == 1 else np.abs(parts).sum(axis=1)


def stream(path: Path, *, directed: bool = False, name: str | None = None) -> EdgeList:
    """Return the entries to be read block by block; arguments as in `read`."""
    file = only_file(path, ["*.mtx", "*.mtx.*"], "a MatrixMarket matrix")
    source = one_source(file, (".mtx",))
    with reading(file, "a MatrixMarket matrix"):
        head, *lines = source.head()
        field, symmetry = _kind(head)
        rest = (at for at, line in enumerate(lines) if line.strip() and line[0] != "%")
        at = next(rest, -1)
        if at < 0:
            raise ValueError("no line of sizes")
        rows, entries = _sizes(lines[at])
    how = Layout(delimiter=BLANKS, skip=at + 2, comment="%", width=_COLUMNS[field])

    def found() -> Iterator[Block]:
        listed = 0
        for sources, targets in blocks(source, how, {0: np.int64, 1: np.int64}):
            if min(sources.min(), targets.min()) < 1:
                raise DataError(file, f"places must lie in 1..{rows}")
            listed += len(sources)
            yield sources - 1, targets - 1
        if listed != entries:
            raise DataError(file, f"{listed} entries, {entries} by the header")

    return EdgeList(
        name=name or source.stem,
        blocks=found() if entries else (),
        undirected=not directed or symmetry != "general",
        num_nodes=rows,
    )


def _kind(head: str) -> tuple[str, str]:
    """Field and symmetry by the first line."""
    words = head.lower().split()
    if len(words) != 5 or words[:2] != ["%%matrixmarket", "matrix"]:
        raise ValueError(f"the first line is {head[:60]!r}")
    form, field, symmetry = words[2:]
    if form != "coordinate" or field not in _COLUMNS or symmetry not in _SYMMETRIES:
        raise ValueError(f"expected a sparse (coordinate) matrix, found {head[:60]!r}")
    return field, symmetry


def _sizes(line: str) -> tuple[int, int]:
    """Rows, which are as many as columns, and entries."""
    words = line.split()
    if len(words) != 3 or not all(word.isdecimal() for word in words):
        raise ValueError(f"expected 'rows columns entries', found {line[:60]!r}")
    rows, columns, entries = map(int, words)
    if rows != columns:
        raise ValueError(f"{rows} rows and {columns} columns: no adjacency matrix")
    return rows, entries
