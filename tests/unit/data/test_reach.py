"""Batches of a graph of which only the number of input vertices was counted."""

from __future__ import annotations

import pytest

from gnnbench.data.frontier import occupancy_frontier
from gnnbench.data.histogram import log_normal_degrees
from gnnbench.data.profile import load_profile
from gnnbench.data.reach import frontier_within, reached_share

HISTOGRAM = log_normal_degrees(100_000, 12.0, 1.2)


def test_a_batch_meets_the_count_in_the_part_of_the_graph_that_it_reaches() -> None:
    full = occupancy_frontier(*HISTOGRAM, 20_000, (10, 5), 500, undirected=True)[0][0]
    share = reached_share(HISTOGRAM, 20_000, (10, 5), 500, full / 3, undirected=True)
    assert 0.0 < share < 1.0
    found = frontier_within(share, HISTOGRAM, 20_000, (10, 5), 500, undirected=True)
    assert found[0][0] == pytest.approx(full / 3, rel=1e-3)
    vertices, edges = found
    assert list(vertices) == sorted(vertices, reverse=True)
    assert vertices[-1] == pytest.approx(500, rel=1e-6)
    assert edges[-1] <= 500 * 10


def test_a_count_as_large_as_expected_says_nothing_of_locality() -> None:
    full = occupancy_frontier(*HISTOGRAM, 20_000, (10, 5), 500, undirected=True)[0][0]
    assert reached_share(HISTOGRAM, 20_000, (10, 5), 500, full, undirected=True) == 1.0


def test_shipped_profiles_meet_the_counts_that_they_hold() -> None:
    for name in ("ogbn-papers100m", "arxiv-one-way", "papers100m-2hop", "reddit"):
        profile = load_profile(name)
        for point in profile.frontier:
            found = profile.expected_frontier(point.fanouts_from_seeds, point.batch)
            assert found[0][0] == pytest.approx(point.vertices[0], rel=0.1), (name, point)
