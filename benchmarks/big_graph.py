"""A generated graph of any size, written to the disk piece by piece: it is never in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gnnbench.data import keys
from gnnbench.data.array_file import ArrayFile
from gnnbench.data.formats import native

NODES_AT_ONCE = 20_000
_DEGREE, _CLASSMATE, _SOURCE, _SPLIT, _NOISE = 1, 2, 3, 4, 5
_EXPONENT = 2.5
"""Of the power law of in-degrees, cut at `_MOST` times the mean."""
_MOST = 200.0


def generate(
    folder: Path,
    *,
    num_nodes: int,
    mean_degree: float,
    num_features: int,
    num_classes: int,
    train: float,
    seed: int = 0,
) -> Path:
    """Write a directed graph with features, labels and a split in native form.

    Half of a vertex's neighbours have its class, the others any class. Sources with low ids are
    drawn more often, so out-degrees are skewed as well. Features are the mean of the class plus
    noise, float32.

    Args:
        folder: of the dataset, which is replaced.
        num_nodes: N, a multiple of `num_classes`.
        mean_degree: drawn neighbours per vertex; repeated ones are dropped, a few per cent.
        num_features, num_classes: of a vertex.
        train: share of the vertices to train on; a tenth as many are for validation and test each.
        seed: same seed, same graph.
    """
    rng = np.random.default_rng(seed)
    means = rng.standard_normal((num_classes, num_features), np.float32)
    with native.replacing(folder) as new:
        files = {
            name: ArrayFile(new / f"{name}.npy", kind, shape)
            for name, kind, shape in (
                ("indptr", np.int64, ()),
                ("indices", np.int32, ()),
                ("features", np.float32, (num_features,)),
                ("labels", np.int64, ()),
                ("train_mask", np.bool_, ()),
                ("val_mask", np.bool_, ()),
                ("test_mask", np.bool_, ()),
            )
        }
        files["indptr"].append(np.zeros(1, np.int64))
        edges = 0
        for start in range(0, num_nodes, NODES_AT_ONCE):
            ids = np.arange(start, min(start + NODES_AT_ONCE, num_nodes))
            counts, sources = _neighbours(ids, num_nodes, num_classes, mean_degree, seed)
            files["indptr"].append(edges + np.cumsum(counts))
            files["indices"].append(sources)
            edges += len(sources)
            labels = ids % num_classes
            rows = np.random.default_rng((seed, _NOISE, start)).standard_normal(
                (len(ids), num_features), np.float32
            )
            rows += means[labels]
            files["features"].append(rows)
            files["labels"].append(labels)
            drawn = _unit(seed, _SPLIT, ids)
            files["train_mask"].append(drawn < train)
            files["val_mask"].append((drawn >= train) & (drawn < 1.1 * train))
            files["test_mask"].append((drawn >= 1.1 * train) & (drawn < 1.2 * train))
        for file in files.values():
            file.close()
        native.seal(
            new,
            "graph",
            name=folder.name,
            plain={"num_classes": num_classes, "undirected": False},
            notes={"generator": "big_graph", "seed": seed},
        )
    return folder


def _neighbours(
    ids: Any, num_nodes: int, num_classes: int, mean_degree: float, seed: int
) -> tuple[Any, Any]:
    """In-degrees and sources of some vertices, rising and distinct per vertex."""
    scale = mean_degree * (_EXPONENT - 1) / _EXPONENT
    drawn = scale * (1.0 - _unit(seed, _DEGREE, ids)) ** (-1.0 / _EXPONENT)
    degrees = np.minimum(np.ceil(drawn), _MOST * mean_degree).astype(np.int64)
    targets = np.repeat(ids, degrees)
    # A counter per drawn neighbour: its target and its place in the target's list.
    place = np.arange(len(targets)) - np.repeat(np.cumsum(degrees) - degrees, degrees)
    counter = targets * np.int64(1 << 16) + place
    skewed = _unit(seed, _SOURCE, counter) ** 1.5
    any_class = (skewed * num_nodes).astype(np.int64)
    own_class = (skewed * (num_nodes // num_classes)).astype(np.int64) * num_classes
    own_class += targets % num_classes
    sources = np.where(_unit(seed, _CLASSMATE, counter) < 0.5, own_class, any_class)
    pairs = (targets - ids[0]) * num_nodes + sources
    pairs = pairs[sources != targets]
    pairs.sort()
    pairs = pairs[np.diff(pairs, prepend=-1) != 0]
    return np.bincount(pairs // num_nodes, minlength=len(ids)), pairs % num_nodes


def _unit(seed: int, salt: int, counters: Any) -> Any:
    """Uniform numbers in [0, 1) by counter."""
    return keys.unit(keys.extend_array(keys.fold(seed, salt), counters))
