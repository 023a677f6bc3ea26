"""Facebook100 .mat files (Traud, Mucha, Porter 2012), with the task of LINKX (Lim et al. 2021)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.formats.reading import dense_codes, only_file, reading, stem
from gnnbench.data.graph import Graph, from_edges
from gnnbench.errors import DataError, UnknownName

COLUMNS = ("status", "gender", "major", "second_major", "dorm", "year", "high_school")


def read(path: Path, *, label: str = "gender", name: str | None = None) -> Graph:
    """Read one `.mat`; `label` is the column to predict, the other six become features.

    Features: one-hot per column over the values that occur; 0 means missing and gives no bit.
    Labels: the sorted non-zero values numbered from 0; missing is -1. No split is in the file.
    """
    if label not in COLUMNS:
        raise UnknownName("label column of facebook100", label, COLUMNS)
    file = only_file(path, ["*.mat"], "Facebook100")
    import scipy.io

    with reading(file, "a Facebook100 .mat file"):
        try:
            content = scipy.io.loadmat(str(file))
        except NotImplementedError:
            raise DataError(file, "a MATLAB 7.3 file: save it with save(..., '-v7')") from None
        except scipy.io.matlab.MatReadError as error:
            raise ValueError(str(error)) from error
        adjacency = content["A"].tocoo()
        table = np.asarray(content["local_info"], np.int64)
        if table.ndim != 2 or table.shape[1] != len(COLUMNS) or len(table) != adjacency.shape[0]:
            raise ValueError(f"local_info of shape {table.shape} for {adjacency.shape[0]} nodes")
    wanted = COLUMNS.index(label)
    labels = np.full(len(table), -1, np.int64)
    known = table[:, wanted] != 0
    labels[known], num_classes = dense_codes(table[known, wanted])
    graph = from_edges(
        name or stem(file),
        adjacency.row,
        adjacency.col,
        len(table),
        features=_one_hot(np.delete(table, wanted, axis=1)),
        labels=labels,
        num_classes=num_classes,
    )
    graph.notes["repeated_edges"] = adjacency.nnz - graph.num_edges
    return graph


def _one_hot(table: NDArray[np.int64]) -> NDArray[np.float32]:
    values = [np.unique(column[column != 0]) for column in table.T]
    starts = np.cumsum([0, *(len(v) for v in values)])
    features = np.zeros((len(table), int(starts[-1])), np.float32)
    for column, known, start in zip(table.T, values, starts, strict=False):
        rows = np.flatnonzero(column)
        features[rows, start + np.searchsorted(known, column[rows])] = 1.0
    return features
