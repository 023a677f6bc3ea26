"""npz of CSR parts: adj_*, attr_* and labels (Shchur et al. 2018), or one matrix of scipy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.formats.arrays import archive, array_of, feature_matrix, whole_numbers
from gnnbench.data.formats.labels import class_labels
from gnnbench.data.formats.reading import only_file, reading, stem
from gnnbench.data.graph import Graph, from_edges
from gnnbench.errors import DataError

_READ = re.compile(
    r"(adj_|attr_|labels_)?(indptr|indices|data|shape)|attr_matrix|labels(_matrix)?|format|_is_array"
)
"""Names of arrays that are read, or that say how to read the others."""


def read(path: Path, *, directed: bool = False, name: str | None = None) -> Graph:
    """Read one `.npz` (or the folder of one). No split is in the file.

    Features are attr_* in CSR parts or a dense attr_matrix, labels likewise labels or labels_*. A
    file of scipy's save_npz (indptr, indices, data, shape) is the adjacency alone.
    `directed` keeps the stored arcs (row -> column) instead of both directions of each. Entries
    whose value is 0 are edges too, and `notes` counts them; it names the arrays that are left out.
    """
    file = only_file(path, ["*.npz"], "npz of CSR parts")
    notes: dict[str, object] = {}
    with reading(file, "an npz of CSR parts"), file.open("rb") as stream:
        parts = archive(stream)
        prefix = "" if "indptr" in parts or "format" in parts else "adj_"
        _check_form(parts, prefix, file)
        rows, targets, values = _coordinates(parts, prefix, file)
        num_nodes, columns = _shape(parts, prefix)
        if num_nodes != columns:
            raise DataError(
                file, f"an adjacency of {num_nodes} rows and {columns} columns, expected a square"
            )
        features = _matrix(parts, "attr", file)
        raw = array_of(parts, ("labels",), file)
        raw = _matrix(parts, "labels", file) if raw is None else raw
        zeros = int(np.count_nonzero(np.asarray(values) == 0))
        left_out = sorted(name for name in parts.files if not _READ.fullmatch(name))
    if values.dtype.kind in "fc" and not np.isfinite(values).all():
        at = int((~np.isfinite(values)).argmax())
        raise DataError(file, f"{prefix}data: entry {at} is {values[at]}, expected finite numbers")
    labels, num_classes = (None, 0) if raw is None else class_labels(raw, file, notes)
    if left_out:
        notes["left_out"] = f"arrays {', '.join(left_out[:8])}"
    if zeros:
        notes["zero_entries"] = f"{zeros} entries of value 0, kept as edges"
    return from_edges(
        name or stem(file),
        rows,
        targets,
        num_nodes,
        undirected=not directed,
        features=features,
        labels=labels,
        num_classes=num_classes,
        notes=notes,
    )


def _check_form(parts: Any, prefix: str, file: Path) -> None:
    """Raise DataError for a matrix of scipy in another form than csr."""
    form = parts["format"].item() if not prefix and "format" in parts else "csr"
    form = form.decode("ascii", "replace") if isinstance(form, bytes) else str(form)
    if form != "csr":
        raise DataError(file, f"a matrix in the form {form!r}: save matrix.tocsr() instead")


def _matrix(parts: Any, name: str, file: Path) -> NDArray[np.float32] | None:
    """A matrix of the file, dense or in CSR parts; None if it is not there."""
    dense = array_of(parts, (f"{name}_matrix",), file)
    if dense is not None:
        return feature_matrix(dense, file)
    if f"{name}_indptr" not in parts:
        return None
    rows, columns, values = _coordinates(parts, f"{name}_", file)
    matrix = np.zeros(_shape(parts, f"{name}_"), np.float32)
    # Added up, as scipy does with an entry that is there twice.
    np.add.at(matrix, (rows, columns), values.astype(np.float32))
    return matrix


def _shape(parts: Any, prefix: str) -> tuple[int, int]:
    shape = parts[f"{prefix}shape"]
    if shape.shape != (2,):
        raise ValueError(f"{prefix}shape holds {shape.size} numbers, expected 2")
    if shape.dtype.kind == "f" and not np.array_equal(shape, np.rint(shape)):
        raise ValueError(f"{prefix}shape is {shape.tolist()}, expected whole numbers")
    return int(shape[0]), int(shape[1])


def _coordinates(
    parts: Any, prefix: str, file: Path
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]:
    """Rows, columns and values of CSR parts. Raises DataError where they do not fit together."""
    indptr = whole_numbers(parts[f"{prefix}indptr"], f"{prefix}indptr", file)
    indices = whole_numbers(parts[f"{prefix}indices"], f"{prefix}indices", file)
    values = array_of(parts, (f"{prefix}data",), file)
    if values is None:
        raise DataError(file, f"no array {prefix}data")
    rows, columns = _shape(parts, prefix)
    lengths = len(indptr) == rows + 1 and len(indices) == len(values)
    if not lengths or indptr[0] != 0 or indptr[-1] != len(indices) or np.any(np.diff(indptr) < 0):
        raise DataError(
            file, f"{prefix}indptr, {prefix}indices, {prefix}data and {prefix}shape do not fit"
        )
    if len(indices) and not 0 <= indices.min() <= indices.max() < columns:
        raise DataError(file, f"{prefix}indices must lie in 0..{columns - 1}")
    return np.repeat(np.arange(rows), np.diff(indptr)), indices, values
