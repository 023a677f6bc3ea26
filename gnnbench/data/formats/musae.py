"""MUSAE and GEMSEC csv + json folders (Rozemberczki et al.): Twitch, Facebook pages, Deezer."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.formats.columns import is_number
from gnnbench.data.formats.labels import text_labels
from gnnbench.data.formats.reading import (
    first_existing,
    integer_table,
    read_text,
    reading,
    required,
)
from gnnbench.data.formats.snap import named_columns
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
    column (default: mature, page_type, else the last); genre lists become multi-label float32
    [N, C]. No split is in the files. `notes` names the target columns that are left out.
    """
    edges_file = required(path, ["*_edges.csv"], "a MUSAE folder")
    notes: dict[str, object] = {}
    _check_header(edges_file)
    edges = integer_table(edges_file, columns=2, delimiter=",", header=True, notes=notes)
    if len(edges) and edges.min() < 0:
        raise DataError(edges_file, f"node ids must not be negative, found {edges.min()}")
    features_file = first_existing(path, ["*_features.json"])
    lists = _lists(features_file) if features_file else {}
    target_file = first_existing(path, ["*_target.csv"])
    targets = _targets(target_file, label, notes) if target_file else None
    genres_file = first_existing(path, ["*_genres.json"])
    genres = _lists(genres_file) if genres_file else {}
    largest = [int(edges.max(initial=-1)), *lists, *genres]
    listed = len(set(lists) | set(genres))
    if targets is not None:
        largest.append(int(targets[0].max(initial=-1)))
        listed = max(listed, len(targets[0]))
    num_nodes = max(largest) + 1
    _check_dense(edges, num_nodes, listed, edges_file)
    labels: NDArray[Any] | None = None
    num_classes = 0
    if targets is not None:
        labels = np.full(num_nodes, -1, np.int64)
        labels[targets[0]], num_classes = targets[1], targets[2]
        lacking = int(np.count_nonzero(labels < 0))
        if lacking:
            notes["unlabelled"] = f"{lacking} nodes without a label"
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
        notes=notes,
    )


def _check_header(file: Path) -> None:
    """Raise DataError for a first line that is an edge, or that names other columns first."""
    with reading(file, "a table of edges"):
        words = read_text(file).lstrip("\n").partition("\n")[0].split(",")
    if all(is_number(word) for word in words[:2]):
        raise DataError(
            file,
            f"the first line is an edge, {','.join(words[:2])}: put a header before it: id_1,id_2",
        )
    if named_columns(words, 2) != (0, 1):
        raise DataError(
            file, f"columns {','.join(words)[:60]}: expected those of both ends first, as id_1,id_2"
        )


def _check_dense(edges: NDArray[np.int64], num_nodes: int, listed: int, file: Path) -> None:
    """Raise DataError for ids far above the number of nodes, which matrices have rows for."""
    if num_nodes > 4 * max(listed, 2 * len(edges)) + 1024:
        raise DataError(
            file,
            f"node ids reach {num_nodes - 1}, and the folder has {max(listed, len(edges))} nodes "
            "or edges: number the nodes from 0",
        )


def _lists(file: Path) -> dict[int, list[Any]]:
    with reading(file, "a json object of node -> list"):
        content = json.loads(read_text(file))
        if not isinstance(content, dict):
            raise ValueError("the file holds no object")
        found: dict[int, list[Any]] = {}
        for node, values in content.items():
            if not node.strip().isdecimal():
                raise ValueError(f"{node!r} is no node id")
            if not isinstance(values, list):
                raise ValueError(f"node {node} has no list")
            found[int(node)] = values
        return found


def _multi_hot(
    file: Path, lists: Mapping[int, list[Any]], num_nodes: int, width: int | None
) -> NDArray[np.float32]:
    for node, ids in lists.items():
        for i in ids:
            if not isinstance(i, int) or isinstance(i, bool):
                raise DataError(
                    file, f"node {node}: feature {i!r} is no id: expected whole numbers"
                )
    with reading(file, "a json object of node -> feature ids"):
        rows = np.repeat(np.fromiter(lists, np.int64), [len(ids) for ids in lists.values()])
        columns = np.array([i for ids in lists.values() for i in ids], np.int64)
    needed = int(columns.max(initial=-1)) + 1
    if columns.min(initial=0) < 0 or (width is not None and width < needed):
        raise DataError(file, f"feature ids reach {needed - 1}: num_features must be {needed}")
    if width is None and needed > 1000 * max(len(columns), 1000):
        raise DataError(
            file, f"feature ids reach {needed - 1} for {len(columns)} entries: number them from 0"
        )
    features = np.zeros((num_nodes, needed if width is None else width), np.float32)
    features[rows, columns] = 1.0
    return features


def _multi_label(genres: dict[int, list[str]], num_nodes: int) -> tuple[NDArray[np.float32], int]:
    names = sorted({str(genre) for near in genres.values() for genre in near})
    column = {genre: i for i, genre in enumerate(names)}
    labels = np.zeros((num_nodes, len(names)), np.float32)
    for node, near in genres.items():
        labels[node, [column[str(genre)] for genre in near]] = 1.0
    return labels, len(names)


def _targets(
    file: Path, label: str | None, notes: dict[str, object]
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Return node ids, class codes (of the sorted distinct values) and the number of classes."""
    with reading(file, "a csv with a header"):
        reader = csv.DictReader(io.StringIO(read_text(file)))
        rows, columns = list(reader), list(reader.fieldnames or ())
        if not rows:
            raise ValueError("no rows")
        if None in rows[0] or any(None in row for row in rows):
            raise ValueError("a row has more fields than the header")
        key = next((c for c in _NODE_COLUMNS if c in columns), None)
        if key is None:
            found = f"no column {' or '.join(_NODE_COLUMNS)}, found {', '.join(columns)}"
            raise DataError(file, found)
        nodes = np.array([int(row[key]) for row in rows], np.int64)
    if nodes.min() < 0:
        raise DataError(file, f"node ids must not be negative, found {nodes.min()}")
    if label is None:
        others = [c for c in columns if c not in _NODE_COLUMNS]
        if not others:
            raise DataError(file, f"no column of labels beside {key}")
        label = next((c for c in _LABEL_COLUMNS if c in columns), others[-1])
    if label not in columns:
        raise UnknownName(f"label column of {file.name}", label, columns)
    if any(row[label] is None for row in rows):
        raise DataError(file, f"truncated: a row has no {label}")
    values = np.array([row[label] for row in rows])
    codes, num_classes = text_labels(values, file, notes)
    _check_once(nodes, codes, file)
    left_out = [c for c in columns if c not in (*_NODE_COLUMNS, label)]
    if left_out:
        notes["label"] = f"{label}; left out: {', '.join(left_out)} (option label)"
    return nodes, codes, num_classes


def _check_once(nodes: NDArray[np.int64], codes: NDArray[Any], file: Path) -> None:
    """Raise DataError for a node with two different labels; equal rows are repeats."""
    order = np.argsort(nodes, kind="stable")
    same = nodes[order][1:] == nodes[order][:-1]
    wrong = same & (codes[order][1:] != codes[order][:-1])
    if wrong.any():
        raise DataError(file, f"node {nodes[order][1:][wrong][0]} has two different labels")
