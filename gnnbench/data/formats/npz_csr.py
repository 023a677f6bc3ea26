"""npz of CSR parts: adj_*, attr_* and labels (Shchur et al. 2018), or one matrix of scipy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.formats.reading import class_labels, only_file, reading, stem
from gnnbench.data.graph import Graph, from_edges


def read(path: Path, *, directed: bool = False, name: str | None = None) -> Graph:
    """Read one `.npz` (or the folder of one). No split is in the file.

    Features are attr_* in CSR parts or a dense attr_matrix, labels likewise labels or labels_*. A
    file of scipy's save_npz (indptr, indices, data, shape) is the adjacency alone.
    `directed` keeps the stored arcs (row -> column) instead of both directions of each.
    """
    file = only_file(path, ["*.npz"], "npz of CSR parts")
    with reading(file, "an npz of CSR parts"), file.open("rb") as stream:
        parts = np.load(stream, allow_pickle=False)
        prefix = "" if "indptr" in parts else "adj_"
        rows, columns, _ = _coordinates(parts, prefix)
        num_nodes = int(parts[f"{prefix}shape"][0])
        if not prefix and parts["format"].item() not in (b"csr", "csr"):
            raise ValueError(f"format {parts['format'].item()!r}: save the matrix as csr")
        features = _matrix(parts, "attr")
        raw = parts["labels"] if "labels" in parts else _matrix(parts, "labels")
    labels, num_classes = (None, 0) if raw is None else class_labels(raw, file)
    return from_edges(
        name or stem(file),
        rows,
        columns,
        num_nodes,
        undirected=not directed,
        features=features,
        labels=labels,
        num_classes=num_classes,
    )


def _matrix(parts: Any, name: str) -> NDArray[np.float32] | None:
    """A matrix of the file, dense or in CSR parts; None if it is not there."""
    if f"{name}_matrix" in parts:
        dense: NDArray[np.float32] = parts[f"{name}_matrix"].astype(np.float32)
        return dense
    if f"{name}_indptr" not in parts:
        return None
    shape = parts[f"{name}_shape"]
    matrix = np.zeros((int(shape[0]), int(shape[1])), np.float32)
    rows, columns, values = _coordinates(parts, f"{name}_")
    matrix[rows, columns] = values
    return matrix


def _coordinates(
    parts: Any, prefix: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    indptr, indices = parts[f"{prefix}indptr"], parts[f"{prefix}indices"]
    if indptr[-1] != len(indices):
        raise ValueError(f"{prefix}indptr and {prefix}indices do not belong together")
    rows = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    return rows, indices.astype(np.int64), parts[f"{prefix}data"].astype(np.float32)
