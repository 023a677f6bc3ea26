"""Splits and synthetic tasks for graphs that come without."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.graph import Graph
from gnnbench.errors import SpecError


def random_split(
    graph: Graph, train: float = 0.6, val: float = 0.2, seed: int = 0, *, replace: bool = False
) -> Graph:
    """Return the graph with random masks; nodes outside of `train` and `val` form the test set.

    Only labelled nodes are drawn (all nodes if the graph has no labels), and shares refer to them.
    A graph with a split of its own is an error unless `replace` is true.
    """
    if graph.train_mask is not None and not replace:
        raise SpecError(
            f"split: {graph.name} brings a split of its own; leave `split` out, or set "
            "split = { replace = true, ... }"
        )
    if not (train >= 0 and val >= 0 and train + val <= 1):
        raise SpecError(f"split: found train {train}, val {val}; allowed shares >= 0 with sum <= 1")
    order = np.random.default_rng(seed).permutation(np.flatnonzero(_labelled(graph)))
    num_train, num_val = round(train * len(order)), round(val * len(order))
    parts = np.split(order, [num_train, min(num_train + num_val, len(order))])
    masks = []
    for ids in parts:
        mask = np.zeros(graph.num_nodes, np.bool_)
        mask[ids] = True
        masks.append(mask)
    return dataclasses.replace(graph, train_mask=masks[0], val_mask=masks[1], test_mask=masks[2])


def synthetic_task(
    graph: Graph,
    num_features: int,
    num_classes: int,
    seed: int = 0,
    *,
    rounds: int = 4,
    noise: float = 1.0,
    replace: bool = False,
) -> Graph:
    """Return the graph with made-up features and labels that a GNN can learn, for bare topologies.

    Labels spread from few random seeds: in each of `rounds` rounds every node takes a class with a
    chance that follows its in-neighbours' classes, so neighbours agree. Features are the centre of
    the class (unit length) plus Gaussian noise whose expected length is `noise`. Features or labels
    that the graph brings are an error unless `replace` is true.
    """
    if (graph.features is not None or graph.labels is not None) and not replace:
        raise SpecError(
            f"synthetic: {graph.name} brings features or labels of its own; leave `synthetic` out, "
            "or set synthetic = { replace = true, ... }"
        )
    if num_features < 1 or num_classes < 1 or rounds < 0 or noise < 0:
        found = f"{num_features} features, {num_classes} classes, {rounds} rounds, noise {noise}"
        raise SpecError(f"synthetic task: found {found}; allowed at least 1, 1, 0 and 0")
    rng = np.random.default_rng(seed)
    labels = _spread(graph, num_classes, rounds, rng)
    features = class_features(labels, num_features, num_classes, noise, rng)
    notes = {**graph.notes, "synthetic_task": {"seed": seed, "rounds": rounds, "noise": noise}}
    return dataclasses.replace(
        graph, features=features, labels=labels, num_classes=num_classes, notes=notes
    )


def class_features(
    labels: NDArray[np.int64],
    num_features: int,
    num_classes: int,
    noise: float,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Return float32 [N, num_features]: a random unit vector per class plus noise.

    The noise has expected length `noise`: deviation noise / sqrt(num_features) per column.
    """
    centres = rng.standard_normal((num_classes, num_features), np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    features = rng.standard_normal((len(labels), num_features), np.float32)
    features *= np.float32(noise / np.sqrt(num_features))
    features += centres[labels]
    return features


def edge_homophily(graph: Graph) -> float | None:
    """Return the share of the edges between labelled nodes whose ends agree.

    None when there is no such edge or the graph has no single labels.
    """
    if graph.labels is None or graph.labels.ndim != 1 or not graph.num_edges:
        return None
    dst = np.repeat(np.arange(graph.num_nodes), graph.in_degrees())
    labels = np.asarray(graph.labels, np.int64)
    of_src, of_dst = labels[graph.indices], labels[dst]
    known = (of_src >= 0) & (of_dst >= 0)
    num_known = int(np.count_nonzero(known))
    return float(np.count_nonzero((of_src == of_dst) & known) / num_known) if num_known else None


def _labelled(graph: Graph) -> NDArray[np.bool_]:
    if graph.labels is None or graph.labels.ndim != 1:
        return np.ones(graph.num_nodes, np.bool_)
    return np.asarray(graph.labels, np.int64) >= 0


def _spread(
    graph: Graph, num_classes: int, rounds: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Propagate class scores from a tenth of the nodes; undecided nodes draw one at random."""
    import scipy.sparse

    n = graph.num_nodes
    ones = np.ones(graph.num_edges, np.float32)
    adjacency: Any = scipy.sparse.csr_array((ones, graph.indices, graph.indptr), shape=(n, n))
    labels = rng.integers(0, num_classes, n)
    scores = np.zeros((n, num_classes), np.float32)
    sources = rng.permutation(n)[: max(num_classes, n // 10)]
    scores[sources, labels[sources]] = 1.0
    for _ in range(rounds):
        scores = scores + adjacency @ scores
        scores /= np.maximum(scores.sum(axis=1, keepdims=True), 1e-30)
    decided = scores.any(axis=1)
    # A small push breaks ties at random and keeps classes from all collapsing into one.
    scores += rng.random(scores.shape, np.float32) * np.float32(0.01)
    return np.where(decided, scores.argmax(axis=1), labels).astype(np.int64)
