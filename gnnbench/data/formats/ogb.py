"""OGB raw folders (Hu et al., NeurIPS 2020): csv.gz files under raw/ and split/."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.formats.reading import (
    class_labels,
    first_existing,
    integer_table,
    mask_of,
    read_text,
    reading,
    required,
)
from gnnbench.data.graph import Graph, from_edges
from gnnbench.errors import DataError, UnknownName


def read(
    path: Path, *, directed: bool = False, split: str | None = None, name: str | None = None
) -> Graph:
    """Read raw/edge, raw/num-node-list and, where present, node-feat, node-label and split/*/.

    By default both directions of every edge are stored (arxiv is used bidirected, products lists
    each edge once); `directed` keeps the rows as source,target. `split` names the folder under
    split/ when there are several. A label of one column is a class (nan: -1), more columns are
    multi-label float32.
    """
    raw = path / "raw"
    count_file = required(raw, ["num-node-list.csv"], "an OGB raw folder")
    counts = integer_table(count_file, columns=1)
    if len(counts) != 1:
        raise DataError(count_file, f"expected one graph, found {len(counts)} node counts")
    num_nodes = int(counts[0, 0])
    edges = integer_table(
        required(raw, ["edge.csv"], "an OGB raw folder"), columns=2, delimiter=","
    )
    features = _numbers(first_existing(raw, ["node-feat.csv"]), num_nodes)
    labels, num_classes = _labels(first_existing(raw, ["node-label.csv"]), num_nodes)
    return from_edges(
        name or path.name,
        edges[:, 0],
        edges[:, 1],
        num_nodes,
        undirected=not directed,
        features=features,
        labels=labels,
        num_classes=num_classes,
        **_masks(path, split, num_nodes),
    )


def _numbers(file: Path | None, num_nodes: int) -> NDArray[np.float32] | None:
    if file is None:
        return None
    with reading(file, "a table of numbers"):
        table = np.loadtxt(io.StringIO(read_text(file)), np.float32, delimiter=",", ndmin=2)
    if len(table) != num_nodes:
        raise DataError(file, f"truncated: {len(table)} rows for {num_nodes} nodes")
    return table


def _labels(file: Path | None, num_nodes: int) -> tuple[NDArray[Any] | None, int]:
    table = _numbers(file, num_nodes)
    if table is None:
        return None, 0
    assert file is not None
    return class_labels(table, file)


def _masks(path: Path, split: str | None, num_nodes: int) -> dict[str, NDArray[np.bool_]]:
    """Read the node split; link-prediction folders (only .pt files) have none."""
    found = sorted({file.parent.name for file in path.glob("split/*/train.csv*")})
    if split is not None and split not in found:
        raise UnknownName(f"split of {path.name}", split, found)
    if not found:
        return {}
    if split is None and len(found) > 1:
        raise DataError(path / "split", f"several splits, name one: {', '.join(found)}")
    folder = path / "split" / (split or found[0])
    masks = {}
    for part, field in (("train", "train_mask"), ("valid", "val_mask"), ("test", "test_mask")):
        file = required(folder, [f"{part}.csv"], "an OGB node split")
        ids = integer_table(file, columns=1)[:, 0]
        if len(ids) and not 0 <= ids.min() <= ids.max() < num_nodes:
            raise DataError(file, f"node ids must lie in 0..{num_nodes - 1}")
        masks[field] = mask_of(ids, num_nodes)
    return masks
