"""Edges as uneven as METIS leaves them, and hosts whose parts are neighbours: sums are kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnnbench.approaches.whole_graph.bns import ProfileBoundary
from gnnbench.approaches.whole_graph.partition import PartitionStructure, profile_structure
from gnnbench.data.profile import load_profile
from gnnbench.published.skew import EXPONENT, nested, skewed

PROFILE = load_profile("ogbn-arxiv")


@given(ranks=st.integers(2, 64))
def test_edges_fall_off_from_rank_to_rank_and_their_sum_is_kept(ranks: int) -> None:
    even = profile_structure(PROFILE, ranks, "metis-cut")
    found = skewed(even).sizes.nonzeros
    assert found.sum() == pytest.approx(PROFILE.num_edges, abs=ranks)
    assert np.all(np.diff(found) <= 0)
    assert found.min() >= 0
    largest = min(ranks**EXPONENT, 2.0)
    assert found.max() == pytest.approx(largest * PROFILE.num_edges / ranks, rel=1e-3)


def test_edges_that_cross_parts_fall_off_with_all_edges_of_the_rank() -> None:
    even = profile_structure(PROFILE, 4, "metis-cut")
    cut = ProfileBoundary(sizes=even.sizes, cut_edges=np.full(4, 1000))
    found = skewed(cut)
    assert found.cut_edges.tolist() == [1414, 1138, 862, 586]
    share = found.sizes.halo_nonzeros / found.sizes.nonzeros
    assert share == pytest.approx(even.sizes.halo_nonzeros / even.sizes.nonzeros, rel=1e-3)


def test_one_rank_has_all_edges() -> None:
    whole = PartitionStructure.whole(PROFILE)
    assert skewed(whole) is whole


@given(hosts=st.integers(2, 8), group=st.sampled_from([2, 4, 8]))
def test_what_is_received_is_sent_and_each_rank_keeps_its_halo(hosts: int, group: int) -> None:
    """FG-15: the send list of i to j is the receive list of j from i."""
    ranks = hosts * group
    even = profile_structure(PROFILE, ranks, "metis-cut")
    sizes = nested(even, PROFILE, "metis-cut", group).sizes
    assert not np.diagonal(sizes.received).any()
    assert np.array_equal(sizes.sent, sizes.received.T)
    assert np.abs(sizes.halo_rows - even.sizes.halo_rows).max() <= ranks


def test_ranks_of_a_host_share_more_than_ranks_of_two() -> None:
    even = profile_structure(PROFILE, 8, "metis-cut")
    received = nested(even, PROFILE, "metis-cut", 4).sizes.received[0]
    assert received[1:4].min() > received[4:].max()
    within = received[:4].sum() / received.sum()
    assert within == pytest.approx(0.437656 / 0.811731, rel=1e-3)


def test_a_rank_alone_on_the_last_host_receives_its_halo_from_others() -> None:
    even = profile_structure(PROFILE, 5, "metis-cut")
    received = nested(even, PROFILE, "metis-cut", 2).sizes.received
    assert received[4, 4] == 0
    assert received[4].sum() == pytest.approx(even.sizes.halo_rows[4], abs=5)


def test_on_one_host_nothing_changes() -> None:
    even = profile_structure(PROFILE, 4, "metis-cut")
    assert nested(even, PROFILE, "metis-cut", 4) is even
