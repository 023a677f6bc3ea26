"""Rows that count the pages of a neighbourhood, from the degrees of a profile alone."""

from __future__ import annotations

import dataclasses
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
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
TWO_HOPS = {
    0.0: 635.01,
    0.0001: 559.32,
    0.0005: 496.38,
    0.001: 465.25,
    0.005: 376.83,
    0.01: 329.84,
    0.05: 198.74,
    0.1: 126.8,
    0.25: 36.2,
    0.5: 3.77,
}
# Standard deviations over batches of five targets, none in memory.
SPREAD = {2: 776.01}


def counted(**given: Any) -> PublishedRow:
    cells = {
        "system": "MariusGNN page simulator",
        "dataset": "ogbn-products",
        "metric": MEAN,
        "unit": "pages of 16384 B",
        "value": 26.08,
        "layers": "1.0",
        "batch": "5.0",
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
    assert count.targets == 5
    assert count.rows.row_bytes == 400
    assert used(counted(), count) == SCORE


def errors(hops: str, counted_pages: dict[float, float]) -> list[float]:
    count = count_of(layers=hops)
    return [
        dataclasses.replace(count, held=held).expected(MEAN)[0] / pages - 1
        for held, pages in counted_pages.items()
    ]


def test_the_published_pages_of_one_hop_are_predicted_from_the_profile() -> None:
    """Ten rows; nothing of the profile was made from them."""
    found = [abs(error) for error in errors("1.0", ONE_HOP)]
    assert statistics.median(found) < 0.1
    assert max(found) < 0.2


def test_the_published_pages_of_two_hops_are_predicted_too() -> None:
    """Vertices in memory are not expanded; without that the numbers are ten times too high."""
    found = [abs(error) for error in errors("2.0", TWO_HOPS)]
    assert statistics.median(found) < 0.3
    assert max(found) < 0.35


def test_the_spread_is_that_of_batches() -> None:
    count = dataclasses.replace(count_of(layers="2.0"), held=0.0)
    assert count.expected(STD)[0] == pytest.approx(SPREAD[2], rel=0.2)
    alone = dataclasses.replace(count, targets=1).expected(STD)[0]
    assert alone > 1.8 * count.expected(STD)[0]


def test_the_closed_form_is_that_of_drawn_batches() -> None:
    """Targets of two kinds, three in a batch: pages hit by chance, counted in 20,000 batches."""
    rng = np.random.default_rng(5)
    profile = dataclasses.replace(
        load_profile("ogbn-products"),
        undirected=False,
        num_nodes=20_000,
        num_edges=180_000,
        num_train=0,
        num_val=0,
        num_test=0,
        degree_values=(5.0, 45.0),
        degree_counts=(18_000, 2_000),
    )
    rows = PagedRows(num_rows=20_000, row_bytes=4096, page_bytes=4096)
    count = PageCount(profile=profile, hops=1, held=0.0, rows=rows, targets=3)
    degrees = np.repeat([5.0, 45.0], [18_000, 2_000])
    read = 1 + count._vertices(np.array([45.0, 5.0]), np.array([2e3, 18e3]), np.array([2e3, 18e3]))
    picked = rng.choice(degrees, (20_000, 3))
    total = np.where(picked == 45, read[0], read[1]).sum(axis=1)
    pages = 20_000 * -np.expm1(-total / 20_000) / 3
    assert count.expected(MEAN)[0] == pytest.approx(pages.mean(), rel=0.02)
    assert count.expected(STD)[0] == pytest.approx(pages.std(), rel=0.02)


def test_a_target_in_memory_reads_nothing() -> None:
    """A tenth of the vertices, all alike, are held: so many targets, and neighbours, are left."""
    flat = dataclasses.replace(
        load_profile("ogbn-products"),
        num_nodes=2_000_000,
        num_edges=40_000_000,
        num_val=0,
        num_test=0,
        degree_spread=0.0,
    )
    rows = PagedRows(num_rows=2_000_000, row_bytes=4096)
    count = PageCount(profile=flat, hops=1, held=0.1, rows=rows)
    assert count.expected(MEAN)[0] == pytest.approx(0.9 * (1 + 0.9 * 10), rel=1e-3)
    two = dataclasses.replace(count, hops=2)
    assert two.expected(MEAN)[0] == pytest.approx(0.9 * (1 + 9 + 81), rel=1e-3)


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
