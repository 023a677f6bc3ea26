"""Facebook100 .mat files (Traud, Mucha, Porter 2012), with the task of LINKX (Lim et al. 2021)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.formats.arrays import whole_numbers
from gnnbench.data.formats.labels import dense_codes
from gnnbench.data.formats.mat5 import Other, OtherVersion, read_mat
from gnnbench.data.formats.reading import only_file, reading, stem
from gnnbench.data.graph import Graph, from_edges
from gnnbench.errors import DataError, UnknownName

COLUMNS = ("status", "gender", "major", "second_major", "dorm", "year", "high_school")
_PARTS = ("A", "local_info")


def read(path: Path, *, label: str = "gender", name: str | None = None) -> Graph:
    """Read one `.mat`; `label` is the column to predict, the other six become features.

    Features: one-hot per column over the values that occur; 0 means missing and gives no bit.
    Labels: the sorted non-zero values numbered from 0; missing is -1. No split is in the file.
    """
    if label not in COLUMNS:
        raise UnknownName("label column of facebook100", label, COLUMNS)
    file = only_file(path, ["*.mat"], "Facebook100")
    with reading(file, "a Facebook100 .mat file"):
        adjacency, info = _content(file)
    table = np.where(np.isnan(info), 0, info) if info.dtype.kind == "f" else info
    codes = whole_numbers(table, "local_info", file)
    wanted = COLUMNS.index(label)
    labels = np.full(len(codes), -1, np.int64)
    known = codes[:, wanted] != 0
    labels[known], num_classes = dense_codes(codes[known, wanted])
    graph = from_edges(
        name or stem(file),
        adjacency.row,
        adjacency.col,
        len(codes),
        features=_one_hot(np.delete(codes, wanted, axis=1)),
        labels=labels,
        num_classes=num_classes,
    )
    graph.notes["repeated_edges"] = adjacency.nnz - graph.num_edges
    return graph


def _content(file: Path) -> tuple[Any, NDArray[Any]]:
    """The adjacency in coordinates, and the table of attributes, of fitting shapes."""
    import scipy.sparse

    try:
        content = read_mat(file)
    except OtherVersion as error:
        raise DataError(file, f"a MATLAB file of {error}: save it with save(..., '-v7')") from None
    if any(part not in content for part in _PARTS):
        found = ", ".join(content) or "nothing"
        raise DataError(
            file,
            f"no variables {' and '.join(_PARTS)}, found {found}: save another matrix as "
            "MatrixMarket (.mtx)",
        )
    if any(isinstance(content[part], Other) for part in _PARTS):
        raise ValueError("A and local_info are no matrices of real numbers")
    adjacency = content["A"]
    if not scipy.sparse.issparse(adjacency):
        adjacency = scipy.sparse.coo_array(np.asarray(adjacency, np.float64))
    table = np.asarray(content["local_info"])
    if scipy.sparse.issparse(content["local_info"]):
        table = content["local_info"].toarray()
    nodes = adjacency.shape[0]
    if adjacency.shape != (nodes, nodes):
        raise ValueError(f"A of shape {adjacency.shape} is no adjacency matrix")
    if table.ndim != 2 or table.shape != (nodes, len(COLUMNS)) or table.dtype.kind not in "biuf":
        raise ValueError(f"local_info of shape {table.shape} for {nodes} nodes")
    return adjacency.tocoo(), table


def _one_hot(table: NDArray[np.int64]) -> NDArray[np.float32]:
    values = [np.unique(column[column != 0]) for column in table.T]
    starts = np.cumsum([0, *(len(v) for v in values)])
    features = np.zeros((len(table), int(starts[-1])), np.float32)
    for column, known, start in zip(table.T, values, starts, strict=False):
        rows = np.flatnonzero(column)
        features[rows, start + np.searchsorted(known, column[rows])] = 1.0
    return features
