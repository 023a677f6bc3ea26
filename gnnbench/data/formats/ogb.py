"""OGB raw folders (Hu et al., NeurIPS 2020): csv.gz files under raw/ and split/."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.formats.labels import class_labels
from gnnbench.data.formats.reading import (
    first_existing,
    integer_table,
    mask_of,
    read_text,
    reading,
    required,
)
from gnnbench.data.graph import Graph, from_edges
from gnnbench.errors import DataError, UnknownName

_READ = ("edge.csv", "num-node-list.csv", "node-feat.csv", "node-label.csv")
_COUNTS = ("num-edge-list.csv",)
"""Of the raw folder, without data of its own."""


def read(
    path: Path, *, directed: bool = False, split: str | None = None, name: str | None = None
) -> Graph:
    """Read raw/edge, raw/num-node-list and, where present, node-feat, node-label and split/*/.

    By default both directions of every edge are stored (arxiv is used bidirected, products lists
    each edge once); `directed` keeps the rows as source,target. `split` names the folder under
    split/ when there are several. A label of one column is a class (nan: -1), more columns are
    multi-label float32. Other files of raw/ are left out, and `notes` names them.
    """
    raw = path / "raw"
    count_file = required(raw, ["num-node-list.csv"], "an OGB raw folder")
    counts = integer_table(count_file, columns=1)
    if len(counts) != 1:
        raise DataError(count_file, f"expected one graph, found {len(counts)} node counts")
    num_nodes = int(counts[0, 0])
    if num_nodes < 1:
        raise DataError(count_file, f"found {num_nodes} nodes, expected at least 1")
    edge_file = required(raw, ["edge.csv"], "an OGB raw folder")
    notes: dict[str, object] = {}
    edges = integer_table(edge_file, columns=2, delimiter=",", notes=notes)
    if len(edges) and not 0 <= edges.min() <= edges.max() < num_nodes:
        raise DataError(edge_file, f"edge endpoints must lie in 0..{num_nodes - 1}")
    _check_count(raw, len(edges))
    features = _numbers(first_existing(raw, ["node-feat.csv"]), num_nodes)
    labels, num_classes = _labels(first_existing(raw, ["node-label.csv"]), num_nodes, notes)
    left_out = sorted(f.name for f in raw.iterdir() if not f.name.startswith((*_READ, *_COUNTS)))
    if left_out:
        notes["left_out"] = f"of raw: {', '.join(left_out[:8])}"
    return from_edges(
        name or path.name,
        edges[:, 0],
        edges[:, 1],
        num_nodes,
        undirected=not directed,
        features=features,
        labels=labels,
        num_classes=num_classes,
        notes=notes,
        **_masks(path, split, num_nodes),
    )


def _check_count(raw: Path, found: int) -> None:
    """Raise DataError if the folder says another number of edges than it has."""
    file = first_existing(raw, list(_COUNTS))
    if file is None:
        return
    stated = integer_table(file, columns=1)
    if len(stated) == 1 and int(stated[0, 0]) != found:
        raise DataError(file, f"{int(stated[0, 0])} edges stated, {found} in edge.csv: truncated?")


def _numbers(file: Path | None, num_nodes: int) -> NDArray[np.float32] | None:
    if file is None:
        return None
    with reading(file, "a table of numbers"):
        table = np.loadtxt(
            io.StringIO(read_text(file)), np.float32, comments=None, delimiter=",", ndmin=2
        )
    if len(table) != num_nodes:
        raise DataError(file, f"truncated: {len(table)} rows for {num_nodes} nodes")
    return table


def _labels(
    file: Path | None, num_nodes: int, notes: dict[str, object]
) -> tuple[NDArray[Any] | None, int]:
    table = _numbers(file, num_nodes)
    if table is None:
        return None, 0
    assert file is not None
    return class_labels(table, file, notes)


def _masks(path: Path, split: str | None, num_nodes: int) -> dict[str, NDArray[np.bool_]]:
    """Read the node split; link-prediction folders (only .pt files) have none."""
    found = sorted({file.parent.name for file in path.glob("split/*/train.csv*")})
    if split is not None and split not in found:
        raise UnknownName(f"split of {path.name}", split, found)
    if not found:
        return {}
    if split is None and len(found) > 1:
        raise DataError(
            path / "split", f"several splits, name one by option split: {', '.join(found)}"
        )
    folder = path / "split" / (split or found[0])
    masks = {}
    for part, field in (("train", "train_mask"), ("valid", "val_mask"), ("test", "test_mask")):
        file = required(folder, [f"{part}.csv"], "an OGB node split")
        ids = integer_table(file, columns=1)[:, 0]
        if len(ids) and not 0 <= ids.min() <= ids.max() < num_nodes:
            raise DataError(file, f"node ids must lie in 0..{num_nodes - 1}")
        if len(np.unique(ids)) != len(ids):
            twice = int(np.flatnonzero(np.bincount(ids) > 1)[0])
            raise DataError(
                file, f"node {twice} is listed twice: expected ids of nodes, a line each, no mask"
            )
        masks[field] = mask_of(ids, num_nodes)
    return masks
