"""Entries as uneven as METIS leaves them, and hosts whose parts are neighbours: sums are kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnnbench.approaches.whole_graph.partition import PartitionStructure, profile_structure
from gnnbench.data.profile import load_profile
from gnnbench.published.skew import EXPONENT, nested, skewed

PROFILE = load_profile("ogbn-arxiv")


@given(ranks=st.integers(2, 64))
def test_entries_fall_off_from_rank_to_rank_and_their_sum_is_kept(ranks: int) -> None:
    even = profile_structure(PROFILE, ranks, "metis-cut")
    found = [size.nonzeros for size in skewed(even).sizes]
    assert sum(found) == pytest.approx(PROFILE.num_edges, abs=ranks)
    assert found == sorted(found, reverse=True)
    assert min(found) >= 0
    largest = min(ranks**EXPONENT, 2.0)
    assert max(found) == pytest.approx(largest * PROFILE.num_edges / ranks, rel=1e-3)


def test_one_rank_has_all_entries() -> None:
    whole = PartitionStructure.whole(PROFILE)
    assert skewed(whole) is whole


@given(hosts=st.integers(2, 8), group=st.sampled_from([2, 4, 8]))
def test_what_is_received_is_sent_and_each_rank_keeps_its_halo(hosts: int, group: int) -> None:
    """FG-15: the send list of i to j is the receive list of j from i."""
    ranks = hosts * group
    even = profile_structure(PROFILE, ranks, "metis-cut")
    sizes = nested(even, PROFILE, "metis-cut", group).sizes
    for i, size in enumerate(sizes):
        assert size.recv_rows[i] == 0
        assert size.halo_rows == pytest.approx(even.sizes[i].halo_rows, abs=ranks)
        assert list(size.send_rows) == [other.recv_rows[i] for other in sizes]


def test_ranks_of_a_host_share_more_than_ranks_of_two() -> None:
    even = profile_structure(PROFILE, 8, "metis-cut")
    size = nested(even, PROFILE, "metis-cut", 4).sizes[0]
    assert min(size.recv_rows[1:4]) > max(size.recv_rows[4:])
    within = sum(size.recv_rows[:4]) / size.halo_rows
    assert within == pytest.approx(0.437656 / 0.811731, rel=1e-3)


def test_on_one_host_nothing_changes() -> None:
    even = profile_structure(PROFILE, 4, "metis-cut")
    assert nested(even, PROFILE, "metis-cut", 4) is even
