"""MUSAE and GEMSEC csv + json folders (Rozemberczki et al.): Twitch, Facebook pages, Deezer."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.formats.reading import (
    dense_codes,
    first_existing,
    integer_table,
    read_text,
    reading,
    required,
)
from gnnbench.data.graph import Graph, from_edges
from gnnbench.errors import DataError, UnknownName

# Twitch numbers its nodes in new_id (id is the Twitch account); the others in id.
_NODE_COLUMNS = ("new_id", "id")
_LABEL_COLUMNS = ("mature", "page_type")


def read(
    path: Path,
    *,
    label: str | None = None,
    num_features: int | None = None,
    name: str | None = None,
) -> Graph:
    """Read a folder of `*_edges.csv`, and `*_features.json`, `*_target.csv`, `*_genres.json`.

    Features are a dense multi-hot float32 matrix whose width is `num_features` or the largest
    feature id + 1 (give 3170 to make the Twitch graphs comparable). `label` names the target
    column (default: mature, page_type); genre lists become multi-label float32 [N, C].
    No split is in the files.
    """
    edges_file = required(path, ["*_edges.csv"], "a MUSAE folder")
    edges = integer_table(edges_file, columns=2, delimiter=",", header=True)
    features_file = first_existing(path, ["*_features.json"])
    lists = _lists(features_file) if features_file else {}
    target_file = first_existing(path, ["*_target.csv"])
    nodes, codes, num_classes = _targets(target_file, label) if target_file else _no_targets()
    genres_file = first_existing(path, ["*_genres.json"])
    genres = _lists(genres_file) if genres_file else {}
    largest = [int(edges.max(initial=-1)), int(nodes.max(initial=-1)), *lists, *genres]
    num_nodes = max(largest) + 1
    labels: NDArray[Any] | None = None
    if target_file:
        labels = np.full(num_nodes, -1, np.int64)
        labels[nodes] = codes
    elif genres_file:
        labels, num_classes = _multi_label(genres, num_nodes)
    features = None
    if features_file:
        features = _multi_hot(features_file, lists, num_nodes, num_features)
    return from_edges(
        name or edges_file.name.split("_edges")[0],
        edges[:, 0],
        edges[:, 1],
        num_nodes,
        features=features,
        labels=labels,
        num_classes=num_classes,
    )


def _lists(file: Path) -> dict[int, list[Any]]:
    with reading(file, "a json object of node -> list"):
        content = json.loads(read_text(file))
        if not isinstance(content, dict):
            raise ValueError("the file holds no object")
        return {int(node): list(values) for node, values in content.items()}


def _multi_hot(
    file: Path, lists: dict[int, list[Any]], num_nodes: int, width: int | None
) -> NDArray[np.float32]:
    with reading(file, "a json object of node -> feature ids"):
        rows = np.repeat(np.fromiter(lists, np.int64), [len(ids) for ids in lists.values()])
        columns = np.array([i for ids in lists.values() for i in ids], np.int64)
    needed = int(columns.max(initial=-1)) + 1
    if columns.min(initial=0) < 0 or (width is not None and width < needed):
        raise DataError(file, f"feature ids reach {needed - 1}: num_features must be {needed}")
    features = np.zeros((num_nodes, needed if width is None else width), np.float32)
    features[rows, columns] = 1.0
    return features


def _multi_label(genres: dict[int, list[str]], num_nodes: int) -> tuple[NDArray[np.float32], int]:
    names = sorted({genre for near in genres.values() for genre in near})
    column = {genre: i for i, genre in enumerate(names)}
    labels = np.zeros((num_nodes, len(names)), np.float32)
    for node, near in genres.items():
        labels[node, [column[genre] for genre in near]] = 1.0
    return labels, len(names)


def _no_targets() -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    return np.zeros(0, np.int64), np.zeros(0, np.int64), 0


def _targets(file: Path, label: str | None) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Return node ids, class codes (of the sorted distinct values) and the number of classes."""
    with reading(file, "a csv with a header"):
        rows = list(csv.DictReader(io.StringIO(read_text(file))))
        if not rows:
            raise ValueError("no rows")
        columns = list(rows[0])
        key = next((c for c in _NODE_COLUMNS if c in columns), None)
        if key is None:
            found = f"no column {' or '.join(_NODE_COLUMNS)}, found {', '.join(columns)}"
            raise DataError(file, found)
        nodes = np.array([int(row[key]) for row in rows], np.int64)
    if label is None:
        label = next((c for c in _LABEL_COLUMNS if c in columns), columns[-1])
    if label not in columns:
        raise UnknownName(f"label column of {file.name}", label, columns)
    if any(row[label] is None for row in rows):
        raise DataError(file, f"truncated: a row has no {label}")
    codes, num_classes = dense_codes(np.array([row[label] for row in rows]))
    return nodes, codes, num_classes
