"""npz of CSR parts (Shchur et al. 2018): adj_*, attr_*, labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.formats.reading import only_file, reading, stem
from gnnbench.data.graph import Graph, from_edges


def read(path: Path, *, directed: bool = False, name: str | None = None) -> Graph:
    """Read one `.npz` (or the folder of one). No split is in the file.

    `directed` keeps the stored arcs (row -> column) instead of both directions of each.
    """
    file = only_file(path, ["*.npz"], "npz of CSR parts")
    with reading(file, "an npz of CSR parts"), file.open("rb") as stream:
        parts = np.load(stream, allow_pickle=False)
        rows, columns, _ = _coordinates(parts, "adj")
        num_nodes = int(parts["adj_shape"][0])
        features = None
        if "attr_indptr" in parts:
            shape = parts["attr_shape"]
            features = np.zeros((int(shape[0]), int(shape[1])), np.float32)
            at, feature, values = _coordinates(parts, "attr")
            features[at, feature] = values
        labels = parts["labels"].astype(np.int64) if "labels" in parts else None
    return from_edges(
        name or stem(file),
        rows,
        columns,
        num_nodes,
        undirected=not directed,
        features=features,
        labels=labels,
        num_classes=int(labels.max()) + 1 if labels is not None and len(labels) else 0,
    )


def _coordinates(
    parts: Any, prefix: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    indptr, indices = parts[f"{prefix}_indptr"], parts[f"{prefix}_indices"]
    if indptr[-1] != len(indices):
        raise ValueError(f"{prefix}_indptr and {prefix}_indices do not belong together")
    rows = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    return rows, indices.astype(np.int64), parts[f"{prefix}_data"].astype(np.float32)
