"""Rows that count the pages of a neighbourhood, from the degrees of a profile alone."""

from __future__ import annotations

import dataclasses
import statistics
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from published_cases import row

from gnnbench.approaches.out_of_core.pages import PagedRows
from gnnbench.data.profile import load_profile
from gnnbench.published.page_counts import MEAN, STD, PageCount
from gnnbench.published.rows import PublishedRow
from gnnbench.published.split import SCORE, used
from gnnbench.published.systems import case_of

# Shares held in memory and mean pages of one hop, as MariusGNN's page simulator counted them
# (marius-team/marius, branch dsarda/simulation, 0062417).
ONE_HOP = {
    0.0: 26.08,
    0.0001: 25.8,
    0.0005: 25.38,
    0.001: 24.99,
    0.005: 23.34,
    0.01: 22.23,
    0.05: 16.51,
    0.1: 12.42,
    0.25: 5.7,
    0.5: 1.5,
}


def counted(**given: Any) -> PublishedRow:
    cells = {
        "system": "MariusGNN page simulator",
        "dataset": "ogbn-products",
        "metric": MEAN,
        "unit": "pages of 16384 B",
        "value": 26.08,
        "layers": "1.0",
        "notes": "top 5.0% nodes by in-degree held in memory; features fp32 x100 laid out linearly",
        **dict.fromkeys(("hardware", "model", "hidden", "gpus"), ""),
    }
    return row(**(cells | given))


def count_of(**given: Any) -> PageCount:
    found = case_of(counted(**given))
    assert isinstance(found, PageCount), found
    return found


def test_a_row_says_share_page_and_features() -> None:
    count = count_of(layers="2.0")
    assert (count.hops, count.held, count.rows.page_bytes) == (2, 0.05, 16384)
    assert count.rows.row_bytes == 400
    assert used(counted(), count) == SCORE


def test_the_published_pages_of_one_hop_are_predicted_from_the_profile() -> None:
    """Median error of ten rows; nothing of the profile was made from them."""
    count = count_of()
    errors = [
        abs(dataclasses.replace(count, held=held).expected(MEAN)[0] / pages - 1)
        for held, pages in ONE_HOP.items()
    ]
    assert statistics.median(errors) < 0.05
    assert sum(error > 0.1 for error in errors) == 1  # half of the nodes in memory: 51 %


def test_without_degrees_every_target_reads_alike() -> None:
    """Ten in-neighbours and the target, of a graph so large that no two share a page."""
    flat = dataclasses.replace(
        load_profile("ogbn-products"),
        num_nodes=2_000_000,
        num_edges=40_000_000,
        num_val=0,
        num_test=0,
        degree_spread=0.0,
    )
    rows = PagedRows(num_rows=2_000_000, row_bytes=4096)
    count = PageCount(profile=flat, hops=1, held=0.0, rows=rows)
    assert count.expected(MEAN)[0] == pytest.approx(11, rel=1e-3)
    assert count.expected(STD)[0] == pytest.approx(0, abs=1e-6)
    two = dataclasses.replace(count, hops=2)
    assert two.expected(MEAN)[0] == pytest.approx(111, rel=1e-3)
    assert dataclasses.replace(count, held=1.0).expected(MEAN)[0] == pytest.approx(0, abs=1e-9)


def test_a_row_that_does_not_say_what_is_held_is_not_predicted() -> None:
    assert "configuration not stated" in str(case_of(counted(notes="no word of it")))
