"""The miniature that a run rehearses on: complete whatever the graph lacks."""

from __future__ import annotations

import numpy as np

from gnnbench.data.graph import from_edges


def test_a_node_without_a_label_has_one_in_the_miniature() -> None:
    labels = np.array([-1, 0, 1, -1, 1, 0], np.int64)
    graph = from_edges(
        "g",
        np.array([0, 1]),
        np.array([1, 2]),
        6,
        features=np.ones((6, 2), np.float32),
        labels=labels,
        num_classes=2,
    )
    small = graph.miniature(4)
    assert small.labels is not None
    assert small.labels.tolist() == [0, 0, 1, 0]
    assert labels[0] == -1
