"""Which partitioner a run gets under a cap on the host's memory."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pytest

from gnnbench.approaches.base import example
from gnnbench.approaches.whole_graph.partition import assign
from gnnbench.data.generators import uniform
from gnnbench.data.partition import partition
from gnnbench.data.partitioners import metis_bytes
from gnnbench.spec import MemorySpec


def test_fennel_takes_over_where_metis_does_not_fit_and_a_line_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    graph, run = uniform(300, 8.0, seed=3), example("partition", 3)
    capped = dataclasses.replace(run, memory=MemorySpec(host=metis_bytes(graph) - 1))
    with caplog.at_level(logging.WARNING):
        found = assign(graph, capped, "metis", "cut", None)
    assert np.array_equal(found, partition(graph, 3, "fennel"))
    assert "METIS needs" in caplog.text and "Fennel" in caplog.text
    caplog.clear()
    roomy = dataclasses.replace(run, memory=MemorySpec(host=metis_bytes(graph)))
    for given, method in ((roomy, "metis"), (capped, "hash")):
        owners = assign(graph, given, method, "cut", None)
        seed = run.training.seed
        assert np.array_equal(owners, partition(graph, 3, method, objective="cut", seed=seed))
    assert not caplog.text
