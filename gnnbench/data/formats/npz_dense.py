"""npz of dense arrays with official splits (Platonov et al., ICLR 2023), or one split or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.formats.arrays import (
    archive,
    array_of,
    edge_pairs,
    feature_matrix,
    split_masks,
    whole_numbers,
)
from gnnbench.data.formats.labels import class_labels
from gnnbench.data.formats.reading import only_file, reading, stem
from gnnbench.data.graph import Graph, from_edges
from gnnbench.errors import DataError

EDGES = ("edges", "edge_index")
_FEATURES = ("node_features", "features", "node_feat", "x")
_LABELS = ("node_labels", "labels", "node_label", "y")


def read(path: Path, *, split: int = 0, directed: bool = False, name: str | None = None) -> Graph:
    """Read one `.npz` (or the folder of one); `split` picks one of several splits.

    Arrays: `edges` [E, 2], or `edge_index` [2, E]; `node_features`, `node_labels`, and
    `train_masks`, `val_masks`, `test_masks` [splits, N], [N, splits] or [N]. Names of torch
    geometric (x, y, train_mask ...) are read too. Without features and labels there are
    `num_nodes` nodes, or as many as edges name. `directed` keeps the arcs instead of both
    directions. Other arrays are left out, and `notes` names them.
    """
    file = only_file(path, ["*.npz"], "npz of dense arrays")
    with reading(file, "an npz of dense arrays"), file.open("rb") as stream:
        parts = archive(stream)
        raw = {
            "edges": array_of(parts, EDGES, file),
            "features": array_of(parts, _FEATURES, file),
            "labels": array_of(parts, _LABELS, file),
            **{
                part: array_of(parts, (f"{part}_masks", f"{part}_mask"), file)
                for part in ("train", "val", "test")
            },
        }
        stated = array_of(parts, ("num_nodes",), file)
        used = {"num_nodes", *_used(parts)}
        left_out = sorted(set(parts.files) - used)
        ends_first = "edges" not in parts
    if raw["edges"] is None:
        raise DataError(file, f"no array {' or '.join(EDGES)}, found {', '.join(left_out)}")
    edges = edge_pairs(raw["edges"], file, ends_first=ends_first)
    features = None if raw["features"] is None else feature_matrix(raw["features"], file)
    num_nodes = _num_nodes(edges, features, raw["labels"], stated, file)
    notes: dict[str, object] = {}
    fields: dict[str, Any] = {"features": features}
    if raw["labels"] is not None:
        fields["labels"], fields["num_classes"] = class_labels(raw["labels"], file, notes)
    given = {part: raw[part] for part in ("train", "val", "test")}
    masks = {part: array for part, array in given.items() if array is not None}
    if masks:
        fields |= split_masks(masks, num_nodes, split, file)
        notes["split"] = split
    if left_out:
        notes["left_out"] = f"arrays {', '.join(left_out)}"
    return from_edges(
        name or stem(file),
        edges[:, 0],
        edges[:, 1],
        num_nodes,
        undirected=not directed,
        notes=notes,
        **fields,
    )


def _used(parts: Any) -> list[str]:
    """The names that are read: of several names of one thing, the first."""
    masks = [(f"{part}_masks", f"{part}_mask") for part in ("train", "val", "test")]
    found = (
        next((name for name in names if name in parts), "")
        for names in (EDGES, _FEATURES, _LABELS, *masks)
    )
    return [name for name in found if name]


def _num_nodes(
    edges: NDArray[np.int64],
    features: NDArray[Any] | None,
    labels: NDArray[Any] | None,
    stated: NDArray[Any] | None,
    file: Path,
) -> int:
    """The rows of features or labels, else the stated number, else the largest id and one."""
    found = next((len(rows) for rows in (features, labels) if rows is not None and rows.ndim), None)
    if stated is not None:
        if stated.size != 1:
            raise DataError(file, f"num_nodes of shape {stated.shape}, expected one number")
        number = int(whole_numbers(stated, "num_nodes", file).reshape(-1)[0])
        if number < 0 or found not in (None, number):
            raise DataError(
                file, f"num_nodes is {number}, and features or labels have {found} rows"
            )
        return number
    return int(edges.max(initial=-1)) + 1 if found is None else found
