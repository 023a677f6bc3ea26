from __future__ import annotations

import numpy as np
import pytest

from gnnbench.data.graph import from_edges
from gnnbench.data.splits import edge_homophily, random_split, synthetic_task
from gnnbench.errors import SpecError


def ring(n, **fields):
    nodes = np.arange(n)
    return from_edges("ring", nodes, (nodes + 1) % n, n, **fields)


def test_the_three_parts_cover_every_labelled_node_once():
    labels = np.array([0, 1, -1, 0, 1, 0, -1, 1, 0, 1, 0, 1])
    graph = random_split(ring(12, labels=labels), 0.6, 0.2, seed=1)
    total = graph.train_mask.astype(int) + graph.val_mask + graph.test_mask
    assert total.tolist() == (labels >= 0).astype(int).tolist()
    assert (graph.num_train, int(graph.val_mask.sum())) == (6, 2)


def test_the_same_seed_gives_the_same_split():
    a, b, c = (random_split(ring(50), seed=seed).train_mask for seed in (3, 3, 4))
    assert np.array_equal(a, b) and not np.array_equal(a, c)


def test_shares_beyond_one_are_refused():
    with pytest.raises(SpecError, match="sum <= 1"):
        random_split(ring(4), 0.9, 0.2)


def test_a_made_up_task_makes_neighbours_agree_and_features_tell_the_class():
    graph = synthetic_task(ring(3000), 16, 4, seed=2, noise=0.5)
    assert edge_homophily(graph) > 0.6
    counts = np.bincount(graph.labels, minlength=4)
    assert counts.min() > 3000 / 4 / 3
    centres = np.stack([graph.features[graph.labels == c].mean(0) for c in range(4)])
    nearest = ((graph.features[:, None] - centres[None]) ** 2).sum(-1).argmin(1)
    assert (nearest == graph.labels).mean() > 0.9


def test_a_made_up_task_copes_with_isolated_nodes_and_few_nodes():
    graph = synthetic_task(from_edges("bare", [], [], 3), 2, 5)
    assert graph.labels.min() >= 0 and graph.features.shape == (3, 2)


def test_homophily_looks_only_at_edges_between_labelled_nodes():
    graph = from_edges("g", [0, 1, 2], [1, 2, 3], 4, labels=np.array([0, 0, 1, -1]))
    assert edge_homophily(graph) == 0.5
    assert edge_homophily(from_edges("g", [0], [1], 2)) is None
