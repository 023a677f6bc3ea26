"""Rows that count vertices of a partition, and which of them a profile was made from."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from published_cases import row

from gnnbench.published.counts import METIS_BALANCE, PartitionCount
from gnnbench.published.rows import PublishedRow
from gnnbench.published.split import INPUT, SCORE, used
from gnnbench.published.systems import case_of


def counted(**given: Any) -> PublishedRow:
    cells = {
        "system": "METIS partition (cut)",
        "metric": "boundary_copies_total",
        "unit": "vertices",
        "value": 3890,
        **dict.fromkeys(("hardware", "model", "layers", "hidden"), ""),
    }
    return row(**(cells | given))


def count_of(**given: Any) -> PartitionCount:
    found = case_of(counted(**given))
    assert isinstance(found, PartitionCount), found
    return found


def test_a_total_is_the_profiles_halo_and_a_largest_part_its_imbalance() -> None:
    count = count_of()
    (point,) = [p for p in count.profile.halo if (p.parts, p.method) == (4, "metis-cut")]
    total, _ = count.expected("boundary_copies_total")
    assert total == pytest.approx(point.halo_per_node * count.profile.num_nodes)
    largest, _ = count.expected("halo_nodes_max_rank")
    assert largest == pytest.approx((point.halo_imbalance or 1.0) * total / 4)


def test_inner_vertices_are_an_even_share_up_to_the_tolerance_of_metis() -> None:
    count = count_of()
    inner, basis = count.expected("inner_nodes_max_rank")
    assert inner == METIS_BALANCE * count.profile.num_nodes / 4
    assert "tolerance of METIS" in basis


@pytest.mark.parametrize(("value", "expected"), [(3890, INPUT), (4100, SCORE)])
def test_a_count_that_the_profile_was_made_from_is_an_input_and_another_a_score(
    value: float, expected: str
) -> None:
    assert used(counted(value=value), count_of()) == expected


def test_a_partition_between_the_points_of_the_curve_is_a_score() -> None:
    count = count_of(gpus="6")
    total, _ = count.expected("boundary_copies_total")
    assert used(counted(gpus="6", value=total), count) == SCORE


def test_inner_vertices_are_never_an_input() -> None:
    """They are predicted from the tolerance of METIS, which no profile holds."""
    count = count_of()
    inner, _ = count.expected("inner_nodes_max_rank")
    assert used(counted(metric="inner_nodes_max_rank", value=inner), count) == SCORE
